"""What the immutable values of this package have in common.

Written by hand because importing attrs takes longer than importing all of this package.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

__all__ = ["Value"]


class Value:
    """An immutable value: equal to another of its class with equal fields, hashable, picklable, shown as it is made.

    The fields of a subclass are its ``__match_args__``: its constructor's arguments, in their order. The constructor
    sets them with :meth:`_set`.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def _set(self, **fields: object) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _arguments(self) -> tuple[Any, ...]:
        """What the constructor takes to make an equal value."""
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._arguments() == other._arguments()

    def __hash__(self) -> int:
        return hash((type(self), self._arguments()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__qualname__}({shown})"

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), self._arguments()
