"""Who owns which prefix: a table of scopes that is made once and then only asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

from .prefixes import PrefixMap, to_bytes
from .routing import Routing
from .scope import Scope
from .value import Value

__all__ = ["DuplicatePrefix", "NestedPrefix", "OwnershipError", "OwnershipTable"]

_OWNED: Final = Routing.Owned()
_UNSCOPED: Final = Routing.Unscoped()


class OwnershipError(ValueError):
    """Two scopes that cannot stand in one table. ``scopes`` is the pair."""

    def __init__(self, first: Scope, second: Scope) -> None:
        super().__init__(first, second)
        self.scopes = (first, second)


class DuplicatePrefix(OwnershipError):
    """Two scopes with the same prefix. ``prefix`` is that, and ``scopes`` the two in the order they came in.

    >>> try:
    ...     OwnershipTable([Scope(b"app:", "a"), Scope(b"app:", "b")])
    ... except DuplicatePrefix as error:
    ...     print(error, error.prefix, sep="; ")
    prefix b'app:' is declared twice, for writers 'a' and 'b'; b'app:'
    """

    @property
    def prefix(self) -> bytes:
        """The prefix that both scopes have."""
        return self.scopes[0].prefix

    def __str__(self) -> str:
        first, second = self.scopes
        return f"prefix {self.prefix!r} is declared twice, for writers {first.writer!r} and {second.writer!r}"


class NestedPrefix(OwnershipError):
    """A scope inside another one. ``outer`` and ``inner`` are the prefixes, ``scopes`` the two, the outer one first.

    >>> try:
    ...     OwnershipTable([Scope(b"app:billing:", "a"), Scope(b"app:", "b")])
    ... except NestedPrefix as error:
    ...     print(error, error.outer, error.inner, sep="; ")
    prefix b'app:billing:' is nested in b'app:'; b'app:'; b'app:billing:'
    """

    @property
    def outer(self) -> bytes:
        """The shorter prefix."""
        return self.scopes[0].prefix

    @property
    def inner(self) -> bytes:
        """The longer prefix, which begins with the shorter one."""
        return self.scopes[1].prefix

    def __str__(self) -> str:
        if self.outer == b"":
            return f"prefix b'' is every key, so it stands alone: {self.inner!r} cannot be declared beside it"
        return f"prefix {self.inner!r} is nested in {self.outer!r}"


class OwnershipTable(Value):
    """Scopes, at most one of which covers any key.

    Takes any iterable of :class:`Scope`. Raises :class:`DuplicatePrefix` or :class:`NestedPrefix` (both ValueError,
    both naming the two scopes) where two of them would cover the same key, and TypeError for what is no scope. The
    empty prefix owns every key, so it may only stand alone.

    Immutable. Iterating goes through the scopes in the order of their prefixes, whatever order they came in, and
    tables with the same scopes are equal and have the same hash. A table without scopes is false.

    >>> table = OwnershipTable([Scope(b"app:billing:", "billing-1", "server-1"), Scope(b"app:auth:", "auth-1")])
    >>> table.lookup(b"app:auth:7")
    Scope(prefix=b'app:auth:', writer='auth-1', fallback=None)
    >>> table.route(b"app:auth:7", "billing-1")
    Routing.Misdirected(target='auth-1')
    >>> [scope.prefix for scope in table], len(table)
    ([b'app:auth:', b'app:billing:'], 2)
    >>> table == OwnershipTable(reversed(list(table)))
    True
    >>> OwnershipTable([Scope(b"app:", "a")])
    OwnershipTable([Scope(prefix=b'app:', writer='a', fallback=None)])
    """

    __slots__ = ("_by_prefix", "_redirects", "_scopes")

    _scopes: tuple[Scope, ...]
    _by_prefix: PrefixMap[Scope]
    _redirects: dict[str, Routing]

    def __init__(self, scopes: Iterable[Scope] = ()) -> None:
        ordered = _checked(scopes)
        by_prefix: PrefixMap[Scope] = PrefixMap()
        for scope in ordered:
            by_prefix.add(scope.prefix, scope)
        nodes = {node_id for scope in ordered for node_id in (scope.writer, scope.fallback) if node_id is not None}
        # Made here, so that routing a key makes no object.
        redirects = {node_id: Routing.Misdirected(node_id) for node_id in nodes}
        self._set(_scopes=ordered, _by_prefix=by_prefix, _redirects=redirects)

    def lookup(self, key: bytes | str) -> Scope | None:
        """The scope that ``key`` is under, or None.

        ``key`` is bytes; ``str`` is taken as UTF-8. Costs at most one dictionary probe for each distinct length of the
        declared prefixes, however many scopes there are.

        >>> table = OwnershipTable([Scope(b"app:", "a")])
        >>> table.lookup(b"app:"), table.lookup(b"app")
        (Scope(prefix=b'app:', writer='a', fallback=None), None)
        """
        return self._by_prefix.longest(key)

    def route(self, key: bytes | str, self_id: str) -> Routing:
        """What the node ``self_id`` is to do with a write to ``key``; see :class:`Routing`.

        >>> table = OwnershipTable([Scope(b"app:", "a")])
        >>> table.route(b"app:1", "a"), table.route(b"app:1", "b"), table.route(b"other", "b")
        (Routing.Owned(), Routing.Misdirected(target='a'), Routing.Unscoped())
        """
        scope = self._by_prefix.longest(key)
        if scope is None:
            return _UNSCOPED
        return _OWNED if scope.writer == self_id else self._redirects[scope.writer]

    def route_with_fallback_state(
        self, key: bytes | str, self_id: str, is_writer_down: Callable[[str], bool]
    ) -> Routing:
        """As :meth:`route`, but where the writer is down the fallback counts as the writer.

        ``is_writer_down`` takes the id of a writer. It is asked at most once, and only about a scope that has a
        fallback: without one, writes go on being sent to the writer, up or down. Whether the fallback is up is not
        asked. What ``is_writer_down`` raises passes through.

        >>> table = OwnershipTable([Scope(b"app:", "a", fallback="b"), Scope(b"own:", "a")])
        >>> table.route_with_fallback_state(b"app:1", "b", lambda node_id: node_id == "a")
        Routing.Owned()
        >>> table.route_with_fallback_state(b"app:1", "a", lambda node_id: node_id == "a")
        Routing.Misdirected(target='b')
        >>> table.route_with_fallback_state(b"own:1", "b", lambda node_id: node_id == "a")
        Routing.Misdirected(target='a')
        """
        scope = self._by_prefix.longest(key)
        if scope is None:
            return _UNSCOPED
        owner = scope.writer
        if scope.fallback is not None and is_writer_down(owner):
            owner = scope.fallback
        return _OWNED if owner == self_id else self._redirects[owner]

    def declared(self, prefix: bytes | str) -> Scope | None:
        """The scope with exactly this prefix, or None. For the scope of a key there is :meth:`lookup`.

        >>> table = OwnershipTable([Scope(b"app:", "a")])
        >>> table.declared(b"app:"), table.declared(b"app:1")
        (Scope(prefix=b'app:', writer='a', fallback=None), None)
        """
        return self._by_prefix.get(to_bytes(prefix, "prefix"))

    @property
    def scopes_without_fallback(self) -> tuple[Scope, ...]:
        """The scopes that nobody writes while their writer is down, in the order of their prefixes.

        >>> OwnershipTable([Scope(b"app:", "a", fallback="b"), Scope(b"own:", "a")]).scopes_without_fallback
        (Scope(prefix=b'own:', writer='a', fallback=None),)
        """
        return tuple(scope for scope in self._scopes if scope.fallback is None)

    def __iter__(self) -> Iterator[Scope]:
        return iter(self._scopes)

    def __len__(self) -> int:
        return len(self._scopes)

    def __contains__(self, item: object) -> bool:
        """Whether a :class:`Scope` stands in the table as it is, or a prefix (bytes or str) is declared.

        >>> table = OwnershipTable([Scope(b"app:", "a")])
        >>> Scope(b"app:", "a") in table, Scope(b"app:", "b") in table, b"app:" in table, b"app:1" in table
        (True, False, True, False)
        """
        if isinstance(item, Scope):
            return self._by_prefix.get(item.prefix) == item
        return isinstance(item, bytes | str) and self.declared(item) is not None

    def __repr__(self) -> str:
        return f"OwnershipTable({list(self._scopes)!r})"

    def _arguments(self) -> tuple[Any, ...]:
        return (self._scopes,)


def _checked(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """The scopes in the order of their prefixes. Sorted, a prefix stands directly before what begins with it."""
    found = list(scopes)
    for scope in found:
        if not isinstance(scope, Scope):
            raise TypeError(f"a table is made of scopes, not of {type(scope).__name__}")
    found.sort(key=lambda scope: scope.prefix)
    for first, second in pairwise(found):
        if first.prefix == second.prefix:
            raise DuplicatePrefix(first, second)
        if second.prefix.startswith(first.prefix):
            raise NestedPrefix(first, second)
    return tuple(found)
