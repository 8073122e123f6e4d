"""Who may write what here, now: the declared scopes, the moves over them, what is quiesced and what is still closed.

Pure: it only keeps what it is told and answers. Who applies ledger entries calls :meth:`Ownership.set_owner`, who
decides when a scope opens calls :meth:`Ownership.close` and :meth:`Ownership.open`, who moves scopes calls
:meth:`Ownership.quiesce` and :meth:`Ownership.resume`. After each change everybody in ``observers`` is called, among
them the server that has been given the ownership (``server.ownership = ownership``), and then ``on_change``. At a
start, apply the ledger first, close what is not to be open yet, and then hand the ownership to the server; apply many
entries at once inside :meth:`Ownership.together`.

>>> from kevynode.scope import OwnershipTable, Scope
>>> ownership = Ownership("a", OwnershipTable([Scope(b"app:", "a"), Scope(b"web:", "b")]), {"b": "10.0.0.2:6004"})
>>> print(ownership.refuse_key(b"app:1"), ownership.refuse_key(b"web:1"), ownership.refuse_key(b"other"))
None MISDIRECTED writer is 10.0.0.2:6004 None
>>> print(ownership.check([b"app:1", b"web:1"]))
CROSSSCOPE keys of the scopes app: and web: in one command or transaction
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple, TypeAlias

from .. import errors
from ..errors import Misdirected, Quiesced, ReplyError
from .prefixes import PrefixMap
from .scope import Scope
from .table import OwnershipTable

__all__ = ["DeclaredScope", "Ownership", "ScopeState"]

#: ``open``: writes are taken here. ``waiting``: it is ours to write, or in dispute, and not open. ``quiesced``: it is
#: moving. ``elsewhere``: another node writes it.
ScopeState: TypeAlias = Literal["open", "waiting", "quiesced", "elsewhere"]


class DeclaredScope(NamedTuple):
    """How one declared scope stands: a row for status, INFO and logs."""

    prefix: bytes
    #: The id of the node that the configuration names as the writer, and that of its fallback.
    writer: str
    fallback: str | None
    #: The id of the node that is the writer by now, and the epoch of the move that made it so; 0: no move did.
    owner: str
    epoch: int
    state: ScopeState
    #: What is waited for (``waiting``), or the id of the node that it is moving to (``quiesced``); else empty.
    detail: str


class _Held:
    """What is known of one declared scope; changed by :class:`Ownership` alone."""

    __slots__ = ("epoch", "owner", "prefix", "scope", "target", "waits_for")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.prefix = scope.prefix
        self.owner = scope.writer
        self.epoch = 0
        # What it is closed for, and the id of the node that it is moving to.
        self.waits_for: str | None = None
        self.target: str | None = None


class Ownership:
    """Answers for every key whether this node may write it now, and if not, with which error.

    ``self_id`` is this node's id, ``table`` the declared scopes, ``addresses`` the client address (``host:port``) of
    each node by its id, this node's own included. Not for several threads at once; nothing here blocks.

    Of several reasons to refuse a key the first of these counts: its scope is quiesced, it is closed, another node
    owns it.
    """

    def __init__(self, self_id: str, table: OwnershipTable, addresses: Mapping[str, str]) -> None:
        self.self_id = self_id
        self.table = table
        self._addresses = dict(addresses)
        self._held: PrefixMap[_Held] = PrefixMap()
        for scope in table:
            self._held.add(scope.prefix, _Held(scope))
        #: Called without arguments after every change, in their order, and ``on_change`` after them.
        self.observers: list[Callable[[], object]] = []
        self.on_change: Callable[[], object] = lambda: None
        # Inside together(), and whether anything has changed there.
        self._together = False
        self._changed_together = False
        # How all scopes stand, made when somebody asks: who follows asks for each scope by itself.
        self._rows: dict[bytes, DeclaredScope] | None = None
        #: (length, declared prefixes of that length that are not ours and open): a key may be written here iff none of
        #: the sets holds the beginning of the key of that length. Empty while all declared scopes are ours and open.
        self.guard: tuple[tuple[int, frozenset[bytes]], ...] = ()
        self._rebuild()

    # -- questions --------------------------------------------------------------------------------------------------

    def owner(self, prefix: bytes) -> str:
        """The id of the node that writes the declared scope ``prefix``. Raises KeyError if it is not declared."""
        return self._find(prefix).owner

    def epoch(self, prefix: bytes) -> int:
        """The epoch of the move that made the owner one, 0 if none did. Raises KeyError if it is not declared."""
        return self._find(prefix).epoch

    def owned(self) -> tuple[bytes, ...]:
        """The prefixes of the scopes that this node owns, open or not, in order."""
        return tuple(held.prefix for held in self._held.values() if held.owner == self.self_id)

    def elsewhere(self) -> frozenset[bytes]:
        """The prefixes of the scopes that other nodes own."""
        return frozenset(held.prefix for held in self._held.values() if held.owner != self.self_id)

    def declared(self) -> Collection[DeclaredScope]:
        """How every declared scope stands, in the order of the prefixes. Costs nothing while nothing changes."""
        return self._all_rows().values()

    def state(self, prefix: bytes) -> ScopeState:
        """How the declared scope ``prefix`` stands. Raises KeyError if it is not declared."""
        return self._all_rows()[prefix].state

    def is_closed(self, prefix: bytes) -> bool:
        """Whether the declared scope ``prefix`` waits for something, be it quiesced besides or not: see :meth:`close`.

        Raises KeyError if it is not declared.
        """
        return self._find(prefix).waits_for is not None

    def prefix_of(self, key: bytes) -> bytes | None:
        """The prefix of the declared scope that ``key`` is under, or None."""
        held = self._held.longest(key)
        return None if held is None else held.prefix

    def is_elsewhere(self, key: bytes) -> bool:
        """Whether another node owns ``key``; its copy here is that node's."""
        held = self._held.longest(key)
        return held is not None and held.owner != self.self_id

    def is_kept(self, key: bytes) -> bool:
        """Whether ``key`` is to stay as it is: it is under a scope that is not ours and open. What ``guard`` says."""
        # A loop, because a generator costs more than the few steps.
        for length, prefixes in self.guard:  # noqa: SIM110
            if key[:length] in prefixes:
                return True
        return False

    def refuse_key(self, key: bytes) -> ReplyError | None:
        """Why ``key`` may not be written here now, as a fresh error; None if it may be."""
        held = self._held.longest(key)
        return None if held is None else self._refuse(held)

    def check(self, keys: Iterable[bytes]) -> ReplyError | None:
        """Why ``keys`` may not be written here together now, as a fresh error; None if they may be.

        CROSSSCOPE where they are under two scopes, even if this node owns both; else what refuses the one scope. Keys
        under no scope may stand beside those of any scope of ours.
        """
        found: _Held | None = None
        longest = self._held.longest
        for key in keys:
            held = longest(key)
            if held is None or held is found:
                continue
            if found is not None:
                return errors.CROSS_SCOPE(errors.text(found.prefix), errors.text(held.prefix))
            found = held
        return None if found is None else self._refuse(found)

    def check_all(self) -> ReplyError | None:
        """Why not everything that this node owns may be written now (FLUSHALL), as a fresh error; None if it may be."""
        for held in self._held.values():
            if held.owner == self.self_id and (held.target is not None or held.waits_for is not None):
                return self._refuse(held)
        return None

    # -- changes ----------------------------------------------------------------------------------------------------

    def set_owner(self, prefix: bytes, owner: str, epoch: int) -> bool:
        """Let the node ``owner`` be the writer of ``prefix`` since ``epoch``; whether that changed anything.

        An epoch below the known one changes nothing, nor does a prefix that is not declared: such ledger entries are
        kept inert by whoever keeps them. Where the owner becomes another node, the scope is neither quiesced nor
        closed here any more; where it becomes this one, a move to here has ended with it, but a scope that is closed
        or moving on stays so until somebody says otherwise.
        """
        held = self._held.get(prefix)
        if held is None or epoch < held.epoch or (owner, epoch) == (held.owner, held.epoch):
            return False
        if owner != self.self_id:
            held.waits_for = held.target = None
        elif held.target == owner:
            held.target = None
        held.owner, held.epoch = owner, epoch
        self._changed()
        return True

    def close(self, prefix: bytes, reason: str) -> None:
        """Take no writes of ``prefix``: it waits for ``reason``, which the error and status name. May be said anew.

        For a scope of ours that is not to be open yet, and for one whose writer is in dispute. Raises KeyError if it
        is not declared.
        """
        held = self._find(prefix)
        if held.waits_for != reason:
            held.waits_for = reason
            self._changed()

    def open(self, prefix: bytes) -> None:
        """Take back :meth:`close`. Raises KeyError if it is not declared."""
        held = self._find(prefix)
        if held.waits_for is not None:
            held.waits_for = None
            self._changed()

    def quiesce(self, prefix: bytes, target_id: str) -> None:
        """Take no writes of ``prefix``: it is moving to the node ``target_id``.

        At the target of a move too, with its own id: as long as it holds a stage, clients are to come back, and not to
        be sent to the source. Raises KeyError if it is not declared.
        """
        held = self._find(prefix)
        if held.target != target_id:
            held.target = target_id
            self._changed()

    def resume(self, prefix: bytes) -> None:
        """Take back :meth:`quiesce`. Raises KeyError if it is not declared."""
        held = self._find(prefix)
        if held.target is not None:
            held.target = None
            self._changed()

    def ask_again(self) -> None:
        """Have observers look again though nothing has changed: more is known of how sure it is."""
        self._changed()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make the changes inside one: observers hear of them at the end. Nothing may be awaited before, nor run.

        A change costs observers a walk over all scopes. Inside another one it does nothing of its own.
        """
        if self._together:
            yield
            return
        self._together = True
        try:
            yield
        finally:
            self._together = False
            if self._changed_together:
                self._changed_together = False
                self._changed()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _find(self, prefix: bytes) -> _Held:
        held = self._held.get(prefix)
        if held is None:
            raise KeyError(prefix)
        return held

    def _refuse(self, held: _Held) -> ReplyError | None:
        if held.target is not None:
            address = self._addresses.get(held.target)
            return self._no_address(held, held.target) if address is None else Quiesced(address)
        if held.waits_for is not None:
            return errors.SCOPE_CLOSED(errors.text(held.prefix), held.waits_for)
        if held.owner == self.self_id:
            return None
        address = self._addresses.get(held.owner)
        return self._no_address(held, held.owner) if address is None else Misdirected(address)

    @staticmethod
    def _no_address(held: _Held, node_id: str) -> ReplyError:
        """A ledger may name a node that the configuration does not: there is nowhere to send clients."""
        return errors.SCOPE_CLOSED(errors.text(held.prefix), f"an address of {node_id}")

    def _all_rows(self) -> dict[bytes, DeclaredScope]:
        if self._rows is None:
            self._rows = {held.prefix: self._row(held) for held in self._held.values()}
        return self._rows

    def _row(self, held: _Held) -> DeclaredScope:
        state: ScopeState
        if held.target is not None:
            state, detail = "quiesced", held.target
        elif held.waits_for is not None:
            state, detail = "waiting", held.waits_for
        else:
            state, detail = ("open" if held.owner == self.self_id else "elsewhere"), ""
        scope = held.scope
        return DeclaredScope(scope.prefix, scope.writer, scope.fallback, held.owner, held.epoch, state, detail)

    def _rebuild(self) -> None:
        kept: dict[int, set[bytes]] = {}
        for held in self._held.values():
            if held.owner != self.self_id or held.target is not None or held.waits_for is not None:
                kept.setdefault(len(held.prefix), set()).add(held.prefix)
        self.guard = tuple((length, frozenset(prefixes)) for length, prefixes in sorted(kept.items()))

    def _changed(self) -> None:
        self._rows = None
        if self._together:
            self._changed_together = True
            return
        self._rebuild()
        for observer in tuple(self.observers):
            observer()
        self.on_change()
