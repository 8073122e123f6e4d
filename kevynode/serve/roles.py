"""What a node serves in its role: who may write, which reads are fresh enough, and what a change of role brings about.

Clients of a replica must not pay for the question whether they may write: while writes are refused the loop over
commands finds only commands that read, and everything else goes the careful way through dispatch, which refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from .. import errors
from ..errors import ErrorKind, ReplyError
from ..store.command import Command, Table
from ..store.foreign import ForeignCount
from ..store.journal import Journal
from ..store.store import Store
from .blocking import Waiters
from .fast_guard import NO_GUARD, FastGuard, fast_guard
from .idle import NOTHING_WRITTEN
from .watch import Watches

if TYPE_CHECKING:
    from ..replication_view import ReplicationView, UpstreamFacts
    from ..scope.ownership import Ownership
    from .lone_primary import LonePrimary
    from .session import Session

__all__ = ["LINK_STATES", "LOADING_REASONS", "WRITE_REFUSALS", "Roles"]

#: Reasons to refuse writes, in the order in which Valkey asks for them.
WRITE_REFUSALS: Final[dict[str, ErrorKind]] = {
    "misconf": errors.DISK_TROUBLE,
    "noreplicas": errors.NO_REPLICAS,
    "readonly": errors.READ_ONLY,
}

#: Reasons to be loading: the first copy of a primary's data is on its way, or files are read at the start.
LOADING_REASONS: Final = ("copy", "files")

#: States of a link to an upstream, in Valkey's words, from the worst to the best.
LINK_STATES: Final = ("connect", "connecting", "handshake", "sync", "connected")


class Roles:
    """The part of a server that knows its role. The node calls these methods between two commands."""

    __slots__ = (
        "_make_room_as_primary",
        "_owners",
        "_ownership",
        "_tracks_written_keys",
        "fast_commands",
        "foreign_count",
        "loading_reasons",
        "make_room",
        "needed_by_every_command",
        "replica_read_only",
        "role",
        "stale",
        "write_refusals",
    )

    store: Store
    table: Table
    waiters: Waiters
    watches: Watches
    sessions: dict[int, Session]
    local_sessions: dict[int, Session]
    gates: set[str]
    replication: ReplicationView | None
    lone_primary: LonePrimary
    count_error: Callable[[ReplyError], None]

    def __init__(self) -> None:
        # "master" or "slave", as Valkey names the roles.
        self.role = "master"
        # Reasons, of WRITE_REFUSALS, for which commands that write are refused now, each with its details.
        self.write_refusals: dict[str, str] = {}
        # Whether a replica refuses clients' writes.
        self.replica_read_only = True
        # Reads are refused: this copy is too old, or not there yet.
        self.stale = False
        # Reasons, of LOADING_REASONS, for which the data are not there yet.
        self.loading_reasons: set[str] = set()
        # Called before a command that may need memory; answers whether there is room (see eviction).
        self.make_room: Callable[[], bool] | None = None
        self._make_room_as_primary: Callable[[], bool] | None = None
        self._tracks_written_keys = False
        self._ownership: Ownership | None = None
        # Who wrote each declared scope when that was last looked at.
        self._owners: dict[bytes, str] = {}
        # How much of the data other nodes write; housekeeping counts.
        self.foreign_count = ForeignCount(self.store)
        # Commands that run without questions; only those that read, while writes are refused.
        self.fast_commands: dict[bytes, Command] = self.table.spellings
        self.needed_by_every_command: tuple[
            Store, Journal, dict[bytes, None], Callable[[bytes], Command | None], FastGuard
        ]
        self._choose_fast_commands()

    # -- writes -----------------------------------------------------------------------------------------------------

    def close_writes(self, reason: str, detail: str = "") -> None:
        """Refuse commands that write from the next command on. ``reason`` is a key of WRITE_REFUSALS, or KeyError.

        ``detail`` is what the error says of it (``misconf``: what is wrong with the disk), and may be said anew.
        """
        WRITE_REFUSALS[reason]
        is_new = reason not in self.write_refusals
        self.write_refusals[reason] = detail
        if is_new:
            self._choose_fast_commands()

    def open_writes(self, reason: str) -> None:
        """Take back one reason; others may still hold."""
        if reason in self.write_refusals:
            del self.write_refusals[reason]
            self._choose_fast_commands()

    def _choose_fast_commands(self) -> None:
        every = self.table.spellings
        guard = NO_GUARD
        ownership = self._ownership
        # The empty key is under no prefix but the empty one, which every key is under.
        if self.write_refusals or (ownership is not None and ownership.is_kept(b"")):
            self.fast_commands = {name: c for name, c in every.items() if c.plain and "readonly" in c.flags}
        elif ownership is not None:
            # Commands with several keys take the careful way, which asks for all of them.
            self.fast_commands = {name: c for name, c in every.items() if not c.writes or c.writes_second_word}
            written = [scope.prefix for scope in ownership.declared() if scope.state == "open"]
            guard = fast_guard(ownership.guard, written, ownership.is_kept)
        else:
            self.fast_commands = every
        # In one piece, for the loop over commands: store, journal, keys that are ready, look-up, keys not to write.
        self.needed_by_every_command = (
            self.store,
            self.store.journal,
            self.waiters.ready,
            self.fast_commands.get,
            guard,
        )

    # -- reads ------------------------------------------------------------------------------------------------------

    def set_stale(self, stale: bool) -> None:
        """Refuse with -STALE, or serve again, what needs data that are fresh enough."""
        self.stale = stale
        self._set_gate("stale", stale)

    @property
    def loading(self) -> bool:
        """Whether the data are not there yet."""
        return bool(self.loading_reasons)

    def set_loading(self, loading: bool, reason: str = "copy") -> None:
        """Refuse with -LOADING what needs data that are there, or take this ``reason`` back: ``copy`` or ``files``.

        What there is to serve is served again when no reason is left. Raises KeyError for another reason.
        """
        if reason not in LOADING_REASONS:
            raise KeyError(reason)
        if loading:
            self.loading_reasons.add(reason)
        else:
            self.loading_reasons.discard(reason)
            self.foreign_count.again()
        self._set_gate("loading", self.loading)
        self.ask_for_room(self._make_room_as_primary)

    def _set_gate(self, name: str, shut: bool) -> None:
        if shut:
            self.gates.add(name)
        else:
            self.gates.discard(name)

    # -- roles ------------------------------------------------------------------------------------------------------

    def become_replica(self, read_only: bool) -> None:
        """Serve as a copy from the next command on: nothing expires or is evicted here, and nobody waits for keys.

        Watches stay, and pauses too; what a pause has put off is asked again. ``read_only`` as
        :meth:`set_replica_read_only`.
        """
        self.role = "slave"
        self.store.deletes_expired = False
        self._keep_foreign_keys()
        self.set_replica_read_only(read_only)
        self.ask_for_room(self._make_room_as_primary)
        self.waiters.unblock_all(errors.ROLE_CHANGED())
        # It may be another history that is applied from now on.
        self.waiters.signal("applied")

    def become_primary(self) -> None:
        """Serve as a primary from the next command on."""
        self.role = "master"
        self.store.deletes_expired = True
        self._keep_foreign_keys()
        self.open_writes("readonly")
        self.set_stale(False)
        self.ask_for_room(self._make_room_as_primary)
        self.waiters.signal("applied")

    def set_replica_read_only(self, read_only: bool) -> None:
        """Let a replica refuse clients' writes, or take them as local ones that no stream carries."""
        self.replica_read_only = read_only
        if read_only and self.role == "slave":
            self.close_writes("readonly")
        else:
            self.open_writes("readonly")

    def ask_for_room(self, make_room: Callable[[], bool] | None) -> None:
        """Have every command ask for room before it runs, or none.

        A replica asks nobody: its primary decides. Nor does who is loading, as in Valkey: what there is does not stand
        where its history ends, and it may become a replica's.
        """
        self._make_room_as_primary = make_room
        self.make_room = make_room if self.role == "master" and not self.loading else None
        self._set_gate("memory", self.make_room is not None)

    # -- scopes -----------------------------------------------------------------------------------------------------

    @property
    def ownership(self) -> Ownership | None:
        """Who may write which keys; None while no scopes are declared, and then it costs nothing.

        The server is among its observers from then on, and what it says holds from the next command on.
        """
        return self._ownership

    @ownership.setter
    def ownership(self, ownership: Ownership | None) -> None:
        if self._ownership is not None:
            self._ownership.observers.remove(self._ownership_changed)
        self._ownership = ownership
        if ownership is not None:
            ownership.observers.append(self._ownership_changed)
        self._ownership_changed()

    def _ownership_changed(self) -> None:
        """Take on what may be written here now, and tell those who wait for keys or watch keys that have moved."""
        ownership = self._ownership
        self._keep_foreign_keys()
        self._choose_fast_commands()
        owners = {} if ownership is None else {scope.prefix: scope.owner for scope in ownership.declared()}
        if owners != self._owners:
            before, self._owners = self._owners, owners
            self.watches.moved(tuple(prefix for prefix, owner in before.items() if owners.get(prefix) != owner))
            foreign = None if ownership is None or not ownership.elsewhere() else ownership.is_elsewhere
            self.foreign_count.restart(foreign)
        if ownership is not None and self.waiters.count:
            for command, error in self.waiters.refuse(ownership.check):
                command.failed += 1
                self.count_error(error)

    def _keep_foreign_keys(self) -> None:
        """Tell the store which keys to leave alone; a replica leaves all to its primary, and tells none apart."""
        ownership = self._ownership
        tells = ownership is not None and ownership.guard and self.role == "master"
        self.store.foreign = ownership.is_kept if ownership is not None and tells else None

    # -- replication ------------------------------------------------------------------------------------------------

    @property
    def view(self) -> ReplicationView:
        """What there is to know of replication, also where there is none."""
        return self.lone_primary if self.replication is None else self.replication

    @property
    def upstream(self) -> UpstreamFacts | None:
        """The primary that this node follows, if any; of several the one whose link is in the worst state."""
        if self.role == "master":
            return None
        return min(self.view.upstreams(), key=lambda upstream: LINK_STATES.index(upstream.state), default=None)

    @property
    def history_id(self) -> str:
        """The history as 40 hexadecimal digits, as Valkey shows replication ids."""
        return f"{self.view.history:040x}"

    def replication_advanced(self) -> None:
        """This node has come further in what it copies, or copies another history: look again at REPL.WAIT."""
        self.waiters.signal("applied")

    def acknowledged(self) -> None:
        """A replica has said how far it is, or has come or gone: look again at WAIT."""
        self.waiters.signal("acknowledged")

    # -- files ------------------------------------------------------------------------------------------------------

    def durable_advanced(self) -> None:
        """More of what was written is safe on the disk, or it is no longer asked to be: look again at WAITAOF."""
        self.waiters.signal("durable")

    def dump_ended(self) -> None:
        """A dump has been written, has failed or was given up: look again at SAVE."""
        self.waiters.signal("saved")

    # -- what sessions wrote ----------------------------------------------------------------------------------------

    def every_session(self) -> Iterator[Session]:
        """The sessions of all clients, and of the program that the node lives in."""
        yield from self.sessions.values()
        yield from self.local_sessions.values()

    def forget_writes(self) -> None:
        """Take nobody to have written anything: all data have been replaced by those of another history.

        Offsets start over with it, and what was written before is not among the data any more.
        """
        for session in self.every_session():
            session.wrote = 0
            session.written = NOTHING_WRITTEN
            session.wait_fulfilled = False

    @property
    def tracks_written_keys(self) -> bool:
        """Whether sessions remember which keys they wrote: set while there are replicas that follow only some."""
        return self._tracks_written_keys

    @tracks_written_keys.setter
    def tracks_written_keys(self, tracks: bool) -> None:
        if tracks and not self._tracks_written_keys:
            for session in self.every_session():
                # What it wrote so far nobody has noted.
                session.written = None if session.wrote else NOTHING_WRITTEN
                session.wait_fulfilled = False
        self._tracks_written_keys = tracks
