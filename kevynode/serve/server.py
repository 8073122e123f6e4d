"""What all sessions of a node share: the store, who is connected, who waits and listens, statistics and parameters.

No I/O and no Trio: clocks, randomness and the log are handed in, and the node's tasks call into it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import attrs

from .. import errors
from ..store.command import Command, Table
from ..store.store import Store
from ..twins import COMPILED
from .blocking import Waiters
from .lone_primary import LonePrimary
from .memory_only import MemoryOnly
from .output_limit import OutputLimit
from .process_facts import ProcessFacts
from .pubsub import KeyspaceEvents, PubSub
from .rates import Rates
from .roles import Roles
from .slowlog import SlowLog
from .statistics import Statistics
from .timers import Timer, Timers
from .watch import Watches

if COMPILED:
    from ..compiled.loop import run_commands
else:
    from .loop import run_commands

if TYPE_CHECKING:
    from ..persistence_view import PersistenceView
    from ..replication_view import ReplicationView
    from ..scope_view import ScopeView
    from .parameters import Parameters
    from .session import Session

__all__ = ["EventLog", "Server", "Shutdown", "Statistics"]


class EventLog(Protocol):
    """The part of the log that the server writes to: an event name and its facts."""

    def debug(self, event: str, /, **facts: object) -> None: ...
    def info(self, event: str, /, **facts: object) -> None: ...
    def warning(self, event: str, /, **facts: object) -> None: ...
    def error(self, event: str, /, **facts: object) -> None: ...


@attrs.frozen
class Shutdown:
    """What SHUTDOWN asks for: ``save`` is None where the client left that to the configuration."""

    save: bool | None = None
    now: bool = False
    force: bool = False


class CopyTraffic(NamedTuple):
    """Counters of replication, as its view has them."""

    full_syncs: int
    partial_syncs: int
    partial_refused: int
    sent_bytes: int
    received_bytes: int

    @classmethod
    def of(cls, view: ReplicationView) -> Self:
        """The counters as they are now."""
        return cls(view.full_syncs, view.partial_syncs, view.partial_refused, view.sent_bytes, view.received_bytes)


class Server(Roles):
    """The sans-I/O middle of a node.

    ``wall_ms`` gives unix milliseconds, ``monotonic`` seconds for timers, ``perf`` seconds for measuring durations.
    Of ``table`` the server takes a copy, ``self.table``: what its commands count is counted here and nowhere else.
    """

    # Slots, because each turn of each session reads several of these.
    __slots__ = (
        "_copy_traffic_before",
        "_next_id",
        "active_expire",
        "advertise",
        "block_for",
        "current",
        "events",
        "gates",
        "in_exec",
        "listeners",
        "local_sessions",
        "log",
        "lone_primary",
        "monitors",
        "monotonic",
        "node_id",
        "on_shutdown",
        "on_slow",
        "output_limits",
        "parameters",
        "password",
        "pause",
        "pause_end",
        "pause_timer",
        "perf",
        "persistence",
        "process",
        "pubsub",
        "query_limit",
        "rates",
        "redis_version",
        "replication",
        "run_commands",
        "run_id",
        "scopes",
        "sessions",
        "slow_after",
        "slow_log",
        "started",
        "started_at",
        "statistics",
        "store",
        "table",
        "timers",
        "version",
        "waiters",
        "wall_ms",
        "watches",
    )

    def __init__(
        self,
        store: Store,
        log: EventLog,
        wall_ms: Callable[[], int],
        monotonic: Callable[[], float],
        perf: Callable[[], float],
        table: Table,
    ) -> None:
        self.store = store
        self.log = log
        self.wall_ms = wall_ms
        self.monotonic = monotonic
        self.perf = perf
        self.table = table.copy()
        # By id: clients, and the program that the node lives in, which nobody lists, counts or kills.
        self.sessions: dict[int, Session] = {}
        self.local_sessions: dict[int, Session] = {}
        self.timers = Timers()
        self.waiters = Waiters(store, self.timers, monotonic)
        self.watches = Watches(store)
        self.pubsub = PubSub()
        self.events = KeyspaceEvents(store, self.pubsub)
        self.statistics = Statistics()
        self.started = monotonic()
        # What tools that look for a Redis version are told.
        self.redis_version = "7.2.4"
        # Reasons why commands take the careful way through dispatch; empty while the fast path is open.
        self.gates: set[str] = set()
        # The session whose command is running, if any: pushes to it wait until its reply is written.
        self.current: Session | None = None
        # While set, commands of these kinds wait: "write" or "all" (CLIENT PAUSE), until pause_timer or CLIENT UNPAUSE.
        self.pause: str | None = None
        self.pause_end = 0.0
        self.pause_timer: Timer | None = None
        self.password: bytes | None = None
        # Bytes; 0 means no limit. See client-query-buffer-limit and client-output-buffer-limit.
        self.query_limit = 1024 * 1024 * 1024
        self.output_limits = {"normal": OutputLimit(), "pubsub": OutputLimit(32 * 1024 * 1024, 8 * 1024 * 1024, 60)}
        # Seconds; a command that takes longer is remembered. Infinity switches the slow log off.
        self.slow_after = 0.01
        self.slow_log = SlowLog(self)
        self.on_slow: Callable[[Session, list[bytes], float], None] | None = self.slow_log.add
        # The name of this run, 40 hexadecimal digits, as Valkey forms it.
        self.run_id = f"{store.random.getrandbits(160):040x}"
        # Unix seconds of the start.
        self.started_at = wall_ms() // 1000
        self.rates = Rates(self)
        # What the node knows and the serve layer may not look up; None until the node says so.
        self.process: ProcessFacts | None = None
        self.parameters: Parameters | None = None
        # Where clients can connect: (kind, address, port), kind "tcp" or "unix" (then the address is the path).
        self.listeners: list[tuple[str, str, int]] = []
        # Where redirects and CLUSTER say the node is, host:port; empty: where the client found it.
        self.advertise = ""
        self.node_id = ""
        self.version = ""
        # Asks the node to stop; raises ReplyError if it will not. It returns at once, and the node stops soon after.
        self.on_shutdown: Callable[[Shutdown], None] | None = None
        # Holds the whole thread up for so many seconds (DEBUG SLEEP).
        self.block_for: Callable[[float], None] | None = None
        # Whether the sweeper may delete what has expired (DEBUG SET-ACTIVE-EXPIRE).
        self.active_expire = True
        # Sessions that watch every command (MONITOR).
        self.monitors: dict[Session, None] = {}
        # Copies of this node's data, and what it copies itself; None while there is nothing of the kind.
        self.replication: ReplicationView | None = None
        self.lone_primary = LonePrimary(self)
        # The node's files.
        self.persistence: PersistenceView = MemoryOnly(self)
        # Scopes and their moves; None until the node says what there is.
        self.scopes: ScopeView | None = None
        # EXEC is running its commands: their changes are one group, and what must not divide it comes later.
        self.in_exec = False
        super().__init__()
        self._copy_traffic_before = CopyTraffic.of(self.view)
        self._next_id = 0
        # The loop over a session's commands: (session, deadline) -> whether the driver has to look at the session.
        self.run_commands: Callable[[Session, float], bool] = run_commands

    @property
    def tcp_port(self) -> int:
        """The client port; 0 where clients cannot connect by TCP."""
        return next((port for kind, _, port in self.listeners if kind == "tcp"), 0)

    # -- sessions ---------------------------------------------------------------------------------------------------

    def next_session_id(self) -> int:
        """Ids grow by one and are never given twice."""
        self._next_id += 1
        return self._next_id

    def resume_all(self) -> None:
        """Let every session look again at what it had put off (a pause has ended)."""
        for session in tuple(self.sessions.values()):
            session.resume()

    def start_pause(self, kind: str, end: float) -> None:
        """Let commands of ``kind`` ("write" or "all") wait until the monotonic moment ``end``.

        A pause that lasts already is prolonged or made stricter, never shortened or loosened.
        """
        if self.pause_timer is not None:
            self.pause_timer.cancel()
        self.pause = "all" if self.pause == "all" else kind
        self.pause_end = max(self.pause_end, end)
        self.pause_timer = self.timers.at(self.pause_end, self.end_pause)
        self.gates.add("pause")
        self.store.deletions_paused = True

    def end_pause(self) -> None:
        """Let the commands that wait go on."""
        if self.pause is None:
            return
        if self.pause_timer is not None:
            self.pause_timer.cancel()
        self.pause, self.pause_end, self.pause_timer = None, 0.0, None
        self.gates.discard("pause")
        self.store.deletions_paused = False
        self.resume_all()

    def set_password(self, password: bytes | None) -> None:
        """Ask for ``password`` from now on, or for none: then those who have not given the last one are let in.

        Who is in stays in, as in Valkey.
        """
        self.password = password
        if password is None:
            for session in self.sessions.values():
                session.set_authenticated(True)

    def stop_monitoring(self, session: Session) -> None:
        """Take a session off the list of those that watch every command."""
        if session in self.monitors:
            del self.monitors[session]
            if not self.monitors:
                self.gates.discard("monitor")

    # -- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take the wall clock for the commands that follow; drivers call it at the start of each batch."""
        self.store.now = self.wall_ms()

    # -- after changes ----------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Close the group of what has just run, and serve those who waited for it."""
        self.store.commit()
        if self.waiters.ready:
            self.waiters.serve()

    # -- errors -----------------------------------------------------------------------------------------------------

    def count_error(self, error: errors.ReplyError) -> None:
        """Count an error reply by its prefix; the prefixes are those that the code can raise."""
        statistics = self.statistics
        statistics.error_replies += 1
        statistics.errors[error.prefix] = statistics.errors.get(error.prefix, 0) + 1

    def unexpected(self, where: str, error: Exception) -> errors.ReplyError:
        """Log a failure of our own with its traceback; the reply tells the client no more than it must know."""
        self.statistics.unexpected_errors += 1
        self.log.error(
            "internal_error", where=where, error=repr(error), traceback="".join(traceback.format_exception(error))
        )
        return errors.INTERNAL()

    def all_commands(self) -> Iterator[Command]:
        """Every command and subcommand of the table."""
        for command in self.table:
            yield command
            yield from command.subcommands.values()

    def copy_traffic(self) -> CopyTraffic:
        """What replication did since the statistics were last reset."""
        now, before = CopyTraffic.of(self.view), self._copy_traffic_before
        return CopyTraffic(*(count - earlier for count, earlier in zip(now, before, strict=True)))

    def reset_statistics(self) -> None:
        """Zero what CONFIG RESETSTAT zeroes."""
        self.statistics = Statistics()
        self._copy_traffic_before = CopyTraffic.of(self.view)
        store = self.store
        store.hits = store.misses = store.expired_keys = store.expired_fields = 0
        for command in self.all_commands():
            command.calls = command.rejected = command.failed = 0
            command.seconds = 0.0
        self.rates.reset()
