"""Who may write a key: the answer of a table."""

from __future__ import annotations

from typing import ClassVar

from .value import Value

__all__ = ["Routing"]


class Routing(Value):
    """What a node is to do with a write: ``Routing.Owned``, ``Routing.Misdirected`` or ``Routing.Unscoped``.

    Tell them apart with ``match``, or ask the properties. Answers are immutable and compare by value.

    >>> def answer(routing: Routing) -> str:
    ...     match routing:
    ...         case Routing.Owned():
    ...             return "write it here"
    ...         case Routing.Misdirected(target):
    ...             return f"send it to {target}"
    ...         case Routing.Unscoped():
    ...             return "nobody's in particular: write it here"
    >>> answer(Routing.Misdirected("billing-1"))
    'send it to billing-1'
    """

    __slots__ = ()

    #: The asking node is the writer. ``Routing.Owned()``
    Owned: ClassVar[type[Owned]]
    #: Another node is the writer: ``Routing.Misdirected(target)``, with that node's id (its address is not known here).
    Misdirected: ClassVar[type[Misdirected]]
    #: The key is under no scope; a node accepts such writes where they come in. ``Routing.Unscoped()``
    Unscoped: ClassVar[type[Unscoped]]

    @property
    def target(self) -> str | None:
        """The id of the node that the write belongs to, if that is another one.

        >>> Routing.Misdirected("a").target, Routing.Owned().target, Routing.Unscoped().target
        ('a', None, None)
        """
        return None

    @property
    def is_owned(self) -> bool:
        """Whether the asking node is the writer. False for a key under no scope.

        >>> Routing.Owned().is_owned, Routing.Misdirected("a").is_owned, Routing.Unscoped().is_owned
        (True, False, False)
        """
        return isinstance(self, Owned)

    @property
    def is_misdirected(self) -> bool:
        """Whether the write is to be refused here, because another node is the writer.

        >>> Routing.Misdirected("a").is_misdirected, Routing.Unscoped().is_misdirected
        (True, False)
        """
        return isinstance(self, Misdirected)

    def __repr__(self) -> str:
        return f"Routing.{super().__repr__()}"


class Owned(Routing):
    """The asking node is the writer.

    >>> Routing.Owned()
    Routing.Owned()
    """

    __slots__ = ()


class Misdirected(Routing):
    """Another node, ``target``, is the writer.

    >>> Routing.Misdirected("billing-1")
    Routing.Misdirected(target='billing-1')
    """

    __slots__ = ("target",)
    __match_args__ = ("target",)

    target: str

    def __init__(self, target: str) -> None:
        self._set(target=target)


class Unscoped(Routing):
    """The key is under no scope.

    >>> Routing.Unscoped()
    Routing.Unscoped()
    """

    __slots__ = ()


Routing.Owned = Owned
Routing.Misdirected = Misdirected
Routing.Unscoped = Unscoped
