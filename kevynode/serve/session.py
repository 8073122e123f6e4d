"""One client connection, without its I/O.

A driver feeds bytes in (:meth:`Session.receive`), gives it time to run (:meth:`Session.run`) and sends what
:meth:`Session.take_output` returns. Everything a command does to the connection itself happens here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING

from .. import errors
from ..reply import NoReply, Reply, encode_into
from ..resp import RequestParser
from ..store.command import Blocked, Command
from ..store.journal import Effect
from ..twins import COMPILED
from . import dispatch
from .blocking import Waiting
from .idle import NOTHING, NOTHING_WRITTEN
from .loop import PENDING_OUTPUT

if COMPILED:
    from ..compiled.requests import take_plain
else:
    from ..resp import take_plain

if TYPE_CHECKING or not COMPILED:
    from .traffic import Traffic
else:
    from ..compiled.counts import Traffic

if TYPE_CHECKING:
    from .server import Server
    from .transactions import Transaction

__all__ = ["MOST_WRITTEN_KEYS", "Session"]

#: Keys that a session remembers having written.
MOST_WRITTEN_KEYS = 1000


class Session:
    """The state of one client. Not thread-safe; never blocks.

    What the loop over commands needs of it is public: :mod:`kevynode.serve.loop` is its other half.
    """

    __slots__ = (
        "authenticated",
        "channels",
        "close_reason",
        "closing",
        "created",
        "dirty",
        "discard",
        "fd",
        "follows_redirects",
        "gates",
        "gone",
        "held_pushes",
        "id",
        "kind",
        "last_active",
        "last_command",
        "library_name",
        "library_version",
        "local",
        "name",
        "no_evict",
        "no_touch",
        "output",
        "output_pending",
        "parser",
        "patterns",
        "paused",
        "peer",
        "peer_gone",
        "produced",
        "protocol",
        "queue",
        "reply_mode",
        "server",
        "shard_channels",
        "slow_since",
        "traffic",
        "transaction",
        "turn",
        "wait_fulfilled",
        "waiting",
        "wake",
        "watched",
        "written",
        "wrote",
    )

    def __init__(self, server: Server, peer: str, local: str, kind: str = "tcp") -> None:
        self.server = server
        self.id = server.next_session_id()
        self.peer = peer
        self.local = local
        self.kind = kind
        self.created = server.monotonic()
        # On the clock that measures durations, which the loop over commands reads anyway.
        self.last_active = server.perf()
        self.name = b""
        self.library_name = b""
        self.library_version = b""
        self.protocol = 2
        self.authenticated = server.password is None
        self.last_command: Command | None = None
        self.traffic = Traffic()

        self.parser = RequestParser(server.store.settings.proto_max_bulk_len, take_plain)
        self.parser.authenticated = self.authenticated
        self.queue: deque[list[bytes]] = deque()
        self.output: list[bytes] = []
        self.held_pushes: list[bytes] = []
        # Bytes of replies and messages appended since the output was last taken, without the small change.
        self.produced = 0

        # What the compiled loop keeps for this session.
        self.turn: object = None

        # Reasons why commands take the careful way; empty while the fast path is open.
        self.gates: set[str] = set()
        if not self.authenticated:
            self.gates.add("auth")
        self.transaction: Transaction | None = None
        # Most clients never watch, nor listen: what they would need is made when they do. Thousands of them are idle.
        self.watched: Mapping[bytes, tuple[bool, bool]] = NOTHING
        # A watched key has changed.
        self.dirty = False
        self.channels: Mapping[bytes, None] = NOTHING
        self.patterns: Mapping[bytes, None] = NOTHING
        self.shard_channels: Mapping[bytes, None] = NOTHING
        self.waiting: Waiting | None = None
        # The offset behind this session's last write, 0 before the first, and the keys that it wrote since a WAIT of
        # it was fulfilled; None: not known. The keys are kept only while Server.tracks_written_keys.
        self.wrote = 0
        self.written: Set[bytes] | None = NOTHING_WRITTEN
        # A WAIT was fulfilled after the last write: the next one begins a new set of keys.
        self.wait_fulfilled = False
        # Puts off commands until the pause ends.
        self.paused = False
        # "on", "off", "skip" (this command's reply) or "skip next"; CLIENT REPLY.
        self.reply_mode = "on"
        self.no_evict = False
        self.no_touch = False
        # CLIENT CAPA: the client follows redirects to another node.
        self.follows_redirects = False
        self.closing = False
        # Close at once, without sending what is left.
        self.discard = False
        self.close_reason = ""
        self.gone = False

        # Since when the peer has not taken replies of more than the soft limit, in monotonic seconds.
        self.slow_since: float | None = None

        # The descriptor of the connection, for CLIENT LIST; -1 where there is none.
        self.fd = -1
        # What the driver sets; see kevynode.serve.session_protocol.
        self.output_pending = 0
        self.wake: Callable[[], None] | None = None
        self.peer_gone: Callable[[], bool] | None = None

        # The program that the node lives in is no client: nobody lists, counts or kills it.
        if kind == "local":
            server.local_sessions[self.id] = self
        else:
            server.sessions[self.id] = self
            server.statistics.connections += 1

    # -- the driver's side ------------------------------------------------------------------------------------------

    def is_free(self) -> bool:
        """Neither waiting for a key, nor paused, nor about to close, nor far behind in reading its replies."""
        behind = self.output_pending + self.produced
        return self.waiting is None and not self.paused and not self.closing and behind <= PENDING_OUTPUT

    @property
    def runnable(self) -> bool:
        """Queued commands could run now."""
        return bool(self.queue) and self.is_free()

    @property
    def blocked(self) -> bool:
        """Parked in a blocking command."""
        return self.waiting is not None

    @property
    def wants_read(self) -> bool:
        """Whether more bytes should be read from the peer."""
        return not self.queue and self.is_free()

    @property
    def has_output(self) -> bool:
        """There is something to send."""
        return bool(self.output)

    @property
    def queued(self) -> int:
        """Commands that have been read and not run."""
        return len(self.queue)

    @property
    def held_input(self) -> int:
        """Bytes of an unfinished command held in memory."""
        return self.parser.held

    @property
    def held_output(self) -> int:
        """Bytes of replies not yet accepted by the kernel."""
        return self.output_pending + sum(map(len, self.output))

    @property
    def memory(self) -> int:
        """Bytes held for this client: an unfinished command, replies not sent, an open transaction."""
        transaction = self.transaction
        return self.held_input + self.held_output + (0 if transaction is None else transaction.bytes)

    def receive(self, data: bytes) -> None:
        """Parse and queue commands. Bad input queues its error reply and closes."""
        self.traffic.input_bytes += len(data)
        self.server.statistics.input_bytes += len(data)
        parser = self.parser
        commands = parser.feed(data)
        if commands:
            self.queue.extend(commands)
        if parser.error is not None:
            # The commands before the error still run: the error stands in the queue behind them.
            self.queue.append([])
        elif not commands or self.transaction is not None:
            self._check_query_limit()

    def take_output(self) -> bytes:
        """Everything to send, joined; empties it."""
        output = self.output
        data = output[0] if len(output) == 1 else b"".join(output)
        self.output = []
        self.produced = 0
        self.traffic.output_bytes += len(data)
        self.server.statistics.output_bytes += len(data)
        return data

    def disconnected(self, reason: str) -> None:
        """The connection is gone: give back everything it holds. A second call does nothing."""
        if self.gone:
            return
        self.gone = True
        self.closing = True
        self.wake = None
        self.peer_gone = None
        self.queue.clear()
        self.output.clear()
        server = self.server
        server.waiters.forget(self)
        self.forget_state()
        server.stop_monitoring(self)
        server.sessions.pop(self.id, None)
        server.local_sessions.pop(self.id, None)
        server.log.debug("client_closed", id=self.id, peer=self.peer, reason=self.close_reason or reason)

    def run(self, deadline: float) -> bool:
        """Run queued commands until none is left, one must wait, or ``server.perf()`` passes ``deadline``.

        Whether the driver has to look at what has become of the session: it is not simply ready for more bytes.
        """
        return self.server.run_commands(self, deadline)

    # -- what commands do to their connection -----------------------------------------------------------------------

    def write(self, reply: Reply) -> None:
        """Append a reply in this connection's protocol, unless CLIENT REPLY silences it."""
        if self.reply_mode == "on" and not isinstance(reply, NoReply):
            encode_into(self.output, reply, self.protocol)

    def write_header(self, count: int) -> None:
        """Open an array of ``count`` replies that follow one by one (EXEC)."""
        if self.reply_mode == "on":
            self.output.append(b"*%d\r\n" % count)

    def write_now(self, wire: bytes) -> None:
        """Append encoded bytes in their place among the replies (confirmations of SUBSCRIBE)."""
        if self.reply_mode == "on" or self.protocol == 3:
            self.output.append(wire)

    def write_push(self, wire: bytes) -> None:
        """Append an encoded message from somebody's turn; behind the reply if it is this session's own turn."""
        if self.gone or self.closing:
            return
        if self.server.current is self:
            self.held_pushes.append(wire)
            return
        self.output.append(wire)
        self.produced += len(wire)
        self.check_output_limit()
        if self.wake is not None:
            self.wake()

    def release_pushes(self) -> None:
        """Append the messages that were held back behind a reply."""
        held = self.held_pushes
        if held:
            self.output += held
            self.produced += sum(map(len, held))
            held.clear()
            self.check_output_limit()

    def finish_command(self) -> None:
        """After a reply: release what was held behind it, and move CLIENT REPLY SKIP on."""
        self.release_pushes()
        if self.reply_mode == "skip":
            self.reply_mode = "on"
            self.gates.discard("reply")
        elif self.reply_mode == "skip next":
            self.reply_mode = "skip"

    def close(self, reason: str, discard: bool = False) -> None:
        """Close once the output is sent, or at once and without it; ``reason`` goes into the log."""
        if self.closing and (self.discard or not discard):
            return
        self.closing = True
        self.close_reason = reason
        self.queue.clear()
        if discard:
            # Also for a client that should have read its last replies first, and does not.
            self.discard = True
            self.output.clear()
        self.server.waiters.forget(self)
        if self.wake is not None:
            self.wake()

    def resume(self) -> None:
        """Go on after a wait or a pause: the driver is told that there may be work."""
        self.paused = False
        if self.wake is not None:
            self.wake()

    def postpone(self, argv: list[bytes]) -> None:
        """Put a command back until the pause ends."""
        self.queue.appendleft(argv)
        self.paused = True

    def serve_waiting(self, waiting: Waiting) -> None:
        """Run a parked command again; it ends the wait unless it must go on waiting."""
        reply = dispatch.call(self, waiting.command, waiting.argv)
        self.commit()
        if not isinstance(reply, Blocked):
            self.server.waiters.release(self, reply)

    def ask_again(self, waiting: Waiting) -> None:
        """Ask the handler of a command parked on a signal again; it is one and the same call, so it counts once."""
        reply = dispatch.ask(self, waiting.command, waiting.argv)
        if isinstance(reply, errors.ReplyError):
            waiting.command.failed += 1
            self.server.count_error(reply)
        if not isinstance(reply, Blocked):
            self.server.waiters.release(self, reply)

    def commit(self) -> None:
        """Close the group of what this session's command changed, and note what WAIT must know of it."""
        journal = self.server.store.journal
        if journal.pending:
            if self.server.tracks_written_keys:
                self.note_written(journal.pending)
            self.server.store.commit()
            self.wrote = journal.offset
        else:
            self.server.store.commit()

    def note_written(self, group: list[Effect]) -> None:
        """Add the keys of a group to those that this session wrote; too many, or all there are, become None."""
        if self.wait_fulfilled:
            self.wait_fulfilled = False
            self.written = NOTHING_WRITTEN
        if self.written is None:
            return
        written = self.written = self.written if type(self.written) is set else set(self.written)
        for _, key, _ in group:
            if key is None or len(written) >= MOST_WRITTEN_KEYS:
                self.written = None
                return
            written.add(key)

    def protocol_error(self) -> None:
        """Answer the parser's error and close."""
        text = self.parser.error or b""
        self.server.log.info("protocol_error", id=self.id, peer=self.peer, error=text.decode("latin-1"))
        self.output.append(b"-ERR Protocol error: %b\r\n" % text)
        self.close("protocol error")

    def set_authenticated(self, authenticated: bool) -> None:
        """Open or shut the gate that AUTH opens."""
        self.authenticated = authenticated
        self.parser.authenticated = authenticated
        if authenticated:
            self.gates.discard("auth")
        else:
            self.gates.add("auth")

    def reset(self) -> None:
        """Become as a new connection: RESP2, no name, no transaction, no subscriptions."""
        self.forget_state()
        self.server.stop_monitoring(self)
        self.protocol = 2
        self.name = b""
        self.reply_mode = "on"
        self.gates.discard("reply")
        self.no_evict = False
        self.no_touch = False
        self.gates.discard("no touch")
        self.set_authenticated(self.server.password is None)

    def end_transaction(self) -> None:
        """Leave MULTI, and forget the watched keys."""
        self.transaction = None
        self.gates.discard("transaction")
        self.server.watches.clear(self)
        self.dirty = False

    def forget_state(self) -> None:
        """Leave transaction, watches and subscriptions, silently (end of the connection, RESET)."""
        server = self.server
        self.end_transaction()
        for name in self.channels:
            server.pubsub.leave(server.pubsub.channels, name, self)
        for name in self.patterns:
            server.pubsub.leave(server.pubsub.patterns, name, self)
        for name in self.shard_channels:
            server.pubsub.leave(server.pubsub.shard_channels, name, self)
        self.channels = self.patterns = self.shard_channels = NOTHING
        self.gates.discard("subscribed")

    def subscriptions(self) -> int:
        """Channels and patterns listened to."""
        return len(self.channels) + len(self.patterns)

    def _check_query_limit(self) -> None:
        """Close a client whose unfinished command and open transaction exceed client-query-buffer-limit."""
        held = self.parser.held
        if self.transaction is not None:
            held += self.transaction.bytes
        if held > self.server.query_limit:
            self.server.statistics.query_limit_disconnections += 1
            self.close("query buffer limit reached", discard=True)

    def measure_output(self) -> None:
        """Count what waits to be sent, and close a listener that reads too slowly."""
        self.produced = sum(map(len, self.output))
        self.check_output_limit()

    def check_output_limit(self) -> None:
        """Close a client that reads too slowly; limits are those of client-output-buffer-limit.

        It is asked whenever there is more to send, and about once a second while there is something that was not sent.
        Who watches with MONITOR is told without asking, as subscribers are: without a limit of its own, theirs holds.
        """
        if self.discard:
            return
        server = self.server
        limit = server.output_limits[self.kind_of_client()]
        if not (limit.hard or limit.soft) and self in server.monitors:
            limit = server.output_limits["pubsub"]
        held = self.produced + self.output_pending
        if not self.output_pending or not limit.is_soft(held):
            # What was not even tried to be sent is no sign of a client that does not read.
            self.slow_since = None
        elif self.slow_since is None:
            self.slow_since = server.monotonic()
        if limit.is_passed(held, self.slow_since, server.monotonic()):
            server.statistics.output_limit_disconnections += 1
            server.log.warning("output_limit", id=self.id, peer=self.peer, bytes=self.held_output)
            self.close("output buffer limit reached", discard=True)

    def kind_of_client(self) -> str:
        """``pubsub`` or ``normal``, as CLIENT LIST TYPE and the output limits tell clients apart."""
        return "pubsub" if self.subscriptions() or self.shard_channels else "normal"
