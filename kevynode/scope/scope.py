"""One scope: a key prefix, and the node that writes the keys under it."""

from __future__ import annotations

from .prefixes import to_bytes
from .value import Value

__all__ = ["Scope"]


class Scope(Value):
    """The keys that begin with ``prefix`` are written by the node ``writer``, or by ``fallback`` while that is down.

    ``prefix`` is bytes; ``str`` is taken as UTF-8. ``b""`` is every key. ``writer`` and ``fallback`` are node ids, and
    mean here nothing but themselves. Raises TypeError for values of other types, and ValueError for an empty id and
    for a fallback that is the writer itself.

    Immutable, hashable, and equal to a scope with the same three values.

    >>> billing = Scope(b"app:billing:", "billing-1", fallback="server-eu-1")
    >>> billing.prefix, billing.writer, billing.fallback
    (b'app:billing:', 'billing-1', 'server-eu-1')
    >>> billing.matches(b"app:billing:42"), billing.matches(b"app:auth:7")
    (True, False)
    >>> Scope("é:", "a")
    Scope(prefix=b'\\xc3\\xa9:', writer='a', fallback=None)
    """

    __slots__ = ("fallback", "prefix", "writer")
    __match_args__ = ("prefix", "writer", "fallback")

    prefix: bytes
    writer: str
    fallback: str | None

    def __init__(self, prefix: bytes | str, writer: str, fallback: str | None = None) -> None:
        _check_id(writer, "writer")
        if fallback is not None:
            _check_id(fallback, "fallback")
            if fallback == writer:
                raise ValueError(f"fallback and writer are the same node: {writer!r}")
        self._set(prefix=to_bytes(prefix, "prefix"), writer=writer, fallback=fallback)

    def matches(self, key: bytes | str) -> bool:
        """Whether ``key`` is under this scope.

        >>> Scope(b"", "a").matches(b"anything")
        True
        """
        return to_bytes(key).startswith(self.prefix)


def _check_id(node_id: str, role: str) -> None:
    if not isinstance(node_id, str):
        raise TypeError(f"the {role} of a scope is a node id, str, not {type(node_id).__name__}")
    if not node_id:
        raise ValueError(f"the {role} of a scope is a node id, and not empty")
