"""Carries out moves of prefixes: what their machines want done is done here, and they are told what came of it.

::

    coordinator nursery                  Coordinator.run, inside the node's own work
    ├─ clock                             ticks for the machines, and news for those who wait
    ├─ dialler × moves that want a link  connect → hello → link, again with jittered back-off
    ├─ visitor × connections             hello is read already → link
    ├─ record × moves                    one append to the ledger's file
    └─ job × moves                       counting, shipping, collecting, checking, placing, dropping (move_jobs)

What is decided is decided in :mod:`moves` and the machines; what is owed to them stands there. Events are taken one
after the other, each with all that it brings before the next one, synchronously: a record that has become durable and
the opening of the scope that it allows are one step (:meth:`ScopeKeeper.on_records`), in which no client is served.

How a node wires it: make one with the keeper; :meth:`Coordinator.load` when the ledger is loaded and before anybody is
served; ``{b"INGEST": coordinator.admit}`` to the entrance of the replication port; :meth:`Coordinator.run` beside the
keeper's own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

import attrs
import trio

from ..clock import Clock
from ..disk import Disk
from ..errors import ReplyError
from ..faults import traceback_line
from ..replicate.backoff import Backoff
from ..store.marks import Acquire, Release
from ..store.staging import PrefixStaging
from ..transport import Transport
from . import moves
from .keeper import ScopeKeeper
from .ledger import LedgerEntry
from .ledger_records import MoveRecord, MoveRole, Record
from .move_command import MoveRequest, Standing, check_move
from .move_jobs import Arrival, KeyCount, MoveJobs, MoveWorld
from .move_link import MoveLink
from .move_machine import MoveStatus
from .move_messages import Activate, FromSource, FromTarget, Message, Refused, Request
from .move_wire import Hello, MoveWireError, format_hello, parse_hello, refuse_version
from .moves import Action, Outcome
from .opening import PATIENCE
from .peer_link import GONE, PeerLog
from .source_move import MoveOrder, SourceMove, SourceState, stray_at_source
from .stage import StageError, remove_strays
from .target_move import TargetFacts, TargetMove, TargetState, consider, stray_at_target

__all__ = ["Coordinator", "MoveVisitor", "Waiter"]

#: Seconds that connecting may take.
CONNECT_SECONDS: Final = 5.0
#: Seconds until a job that the disk kept from its end is tried again.
RETRY_SECONDS: Final = 1.0
#: Seconds that a target waits for its own copy of what it had sealed before it says that it is lost.
COPY_SECONDS: Final = 2.0
#: Moves that have ended which are still known here, so that the other node is answered; the records know more.
ENDED_KEPT: Final = 64

_SOURCE_ENDED: Final = frozenset({SourceState.DONE, SourceState.CLOSED, SourceState.FAILED})
# The states in which the number of keys may be asked for yet.
_COUNTING: Final = frozenset(
    {SourceState.ASKING, SourceState.REQUESTING, SourceState.CAPTURING}
    | {TargetState.AGREEING, TargetState.AGREED, TargetState.CHECKING}
)
_TARGET_ENDED: Final = frozenset({TargetState.ACTIVE, TargetState.DISCARDED})


class MoveVisitor(Protocol):
    """A connection whose first command was INGEST: its ``words``, and the bytes behind it."""

    @property
    def stream(self) -> trio.abc.Stream: ...
    @property
    def peer(self) -> str: ...
    @property
    def words(self) -> tuple[bytes, ...]: ...
    @property
    def rest(self) -> bytes: ...


class RandomBits(Protocol):
    """Where chance comes from."""

    def uniform(self, a: float, b: float, /) -> float: ...
    def getrandbits(self, k: int, /) -> int: ...


#: Called once with how a move ended (or stands), or with why what was wanted of it is not done.
Waiter = Callable[[Outcome | str], None]


@attrs.define(eq=False)
class _Move:
    """One move of this node, and what is under way for it."""

    machine: SourceMove | TargetMove
    peer: str
    link: MoveLink | None = None
    dialling: bool = False
    # Jobs that another one takes the place of: shipping, or collecting and checking.
    job: trio.CancelScope | None = None
    arrival: Arrival | None = None
    staging: PrefixStaging | None = None
    # How many keys there are, known before writes are refused.
    count: KeyCount | None = None
    # In this run: the copy was seen at the tail, the stage was put in place, the release was marked.
    checked: bool = False
    placed: bool = False
    marked: bool = False
    has_stage: bool = True
    outcome: Outcome | None = None
    waiters: list[Waiter] = attrs.field(factory=list)
    deciders: list[Waiter] = attrs.field(factory=list)

    @property
    def prefix(self) -> bytes:
        """What moves."""
        return self.machine.prefix

    @property
    def move_id(self) -> str:
        """Its id."""
        return self.machine.move_id

    @property
    def is_ended(self) -> bool:
        """Whether nothing is left to be done or said by this node."""
        machine = self.machine
        return machine.state in (_SOURCE_ENDED if isinstance(machine, SourceMove) else _TARGET_ENDED)

    @property
    def wants_link(self) -> bool:
        """Whether to dial. A target that does not ask any more may not have heard that the move was called off."""
        return self.machine.wants_link or self.machine.state is SourceState.ABORTED

    @property
    def has_dialled(self) -> bool:
        """Whether the connection was made from here: who has dialled hangs up."""
        return self.link is not None and self.link.by_source == isinstance(self.machine, SourceMove)

    def stop_job(self) -> None:
        """End what another job takes the place of."""
        if self.job is not None:
            self.job.cancel()
            self.job = None


class Coordinator:
    """All moves of one node. Everything belongs to the Trio thread of the node."""

    def __init__(
        self,
        keeper: ScopeKeeper,
        world: MoveWorld,
        disk: Disk,
        data_dir: str,
        transport: Transport,
        clock: Clock,
        random: RandomBits,
        log: PeerLog,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._keeper = keeper
        self._world = world
        self._jobs = MoveJobs(world, disk, data_dir, in_thread)
        self._disk = disk
        self._data_dir = data_dir
        self._transport = transport
        self._clock = clock
        self._random = random
        self._log = log
        self._node_id = keeper.settings.node_id
        self._addresses = {node.node_id: node.replication for node in keeper.settings.nodes if node.kind == "kevynode"}
        self._moves: dict[str, _Move] = {}
        # By prefix: which moves refuse writes to it here, and for which node.
        self._holding: dict[bytes, dict[str, str]] = {}
        # Records that are being written, by the identity of their tuple.
        self._writing: dict[int, tuple[tuple[Any, ...], _Move]] = {}
        # Moves to here that begin when their keys have been counted.
        self._counting: set[str] = set()
        self._events: deque[tuple[_Move, Any]] = deque()
        self._is_taking = False
        self._alarm = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._has_news = False
        #: Called when a move has ended, or stands otherwise for those who wait, from no command's midst.
        self.on_news: Callable[[], None] = lambda: None

    # -- the start -----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Hold what was quiesced when the node went down. After ``ScopeKeeper.load``; takes long. Raises OSError."""
        self._keeper.on_records = self._recorded
        for record in self._keeper.state.open_moves():
            if not self._is_declared(record.prefix):
                continue
            if record.role is MoveRole.SOURCE:
                self._hold(record.prefix, record.move_id, record.peer)
            elif record.state.value in ("SEALED", "ACTIVATED"):
                self._hold(record.prefix, record.move_id, self._node_id)
        open_moves = [record.move_id for record in self._keeper.state.open_moves()]
        for name in remove_strays(self._disk, self._data_dir, open_moves):
            self._log.info("stage_removed", name=name)

    def _is_declared(self, prefix: bytes) -> bool:
        return self._keeper.table.declared(prefix) is not None

    async def run(self) -> None:
        """Carry moves out until cancelled."""
        await self._wait_for_peers()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                self._restart()
                await self._keep_time()
            finally:
                self._nursery = None
                for move in self._moves.values():
                    move.stop_job()
                    if move.count is not None:
                        move.count.close()

    async def _wait_for_peers(self) -> None:
        """Give peers the time to tell what they know of the ledger before a move that was under way goes on."""
        if not self._keeper.state.open_moves() or self._keeper.settings.trust_config:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(PATIENCE):
            while self._world.unanswered():  # noqa: ASYNC110  there is no event for it
                await trio.sleep(0.02)

    def _restart(self) -> None:
        state = self._keeper.state
        for record in tuple(state.moves.values()):
            if not self._is_declared(record.prefix):
                self._log.warning("move_undeclared", prefix=record.prefix, move=record.move_id)
                continue
            move, actions = self._restarted(record)
            self._moves[record.move_id] = move
            if record.is_open:
                self._log.info("move_resumed", move=record.move_id, prefix=record.prefix, state=record.state.value)
            self._begin(move, actions)

    def _restarted(self, record: MoveRecord) -> tuple[_Move, list[Action]]:
        entry = self._keeper.state.ledger.entry(record.prefix)
        epoch, owner = (0, "") if entry is None else (entry.epoch, entry.owner)
        now = self._clock.monotonic()
        machine: SourceMove | TargetMove
        if record.role is MoveRole.SOURCE:
            order = MoveOrder(
                record.move_id,
                record.prefix,
                self._node_id,
                record.peer,
                0.0,
                persistent=self._world.is_persistent,
                keeps_copy=self._world.keeps_copy(record.prefix),
            )
            machine, actions = SourceMove.restart(record, order, epoch, owner, now)
        else:
            following = self._world.keeps_copy(record.prefix)
            machine, actions = TargetMove.restart(record, self._node_id, following, epoch, owner, now)
        return _Move(machine, record.peer), actions

    # -- time ---------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._alarm = trio.Event()
            now = self._clock.monotonic()
            for move in tuple(self._moves.values()):
                if move.machine.wake_at <= now:
                    self._feed(move, moves.Tick())
            self._tend()
            if self._has_news:
                self._has_news = False
                self.on_news()
            wake_at = min((move.machine.wake_at for move in self._moves.values()), default=math.inf)
            # What is due again at once has waited a moment at least.
            pause = max(0.01, wake_at - self._clock.monotonic())
            with trio.move_on_after(pause):
                await self._alarm.wait()

    def _tend(self) -> None:
        """Dial where there is something to say, hang up where there is nothing more, and forget what is long over."""
        assert self._nursery is not None
        for move in self._moves.values():
            if move.link is None and not move.dialling and move.wants_link:
                move.dialling = True
                self._nursery.start_soon(self._dial, move)
            elif move.is_ended and move.link is not None and move.has_dialled:
                move.link.finish()
            if move.count is not None and move.machine.state not in _COUNTING:
                move.count.close()
                move.count = None
            if move.has_stage and isinstance(move.machine, TargetMove) and move.is_ended:
                move.has_stage = False
                self._nursery.start_soon(self._remove_stage, move)
        ended = [move for move in self._moves.values() if move.is_ended and move.link is None]
        for move in ended[: max(0, len(ended) - ENDED_KEPT)]:
            del self._moves[move.move_id]

    async def _remove_stage(self, move: _Move) -> None:
        try:
            await self._jobs.remove_stage(move.move_id)
        except OSError as error:
            # The next start removes it.
            self._log.warning("stage_not_removed", move=move.move_id, reason=str(error))

    # -- events -------------------------------------------------------------------------------------------------------

    def _feed(self, move: _Move, event: Any) -> None:
        """Take an event, and all that it brings, unless one is being taken: then behind that one."""
        self._events.append((move, event))
        self._take_all()

    def _take_all(self) -> None:
        if self._is_taking:
            return
        self._is_taking = True
        try:
            while self._events:
                move, event = self._events.popleft()
                self._carry_out(move, move.machine.handle(event, self._clock.monotonic()))
        finally:
            self._is_taking = False
            self._alarm.set()

    def _begin(self, move: _Move, actions: list[Action]) -> None:
        """Carry out what a machine wants first."""
        was_taking, self._is_taking = self._is_taking, True
        try:
            self._carry_out(move, actions)
        finally:
            self._is_taking = was_taking
        self._take_all()

    def _carry_out(self, move: _Move, actions: Iterable[Action]) -> None:
        for action in actions:
            self._do(move, action)

    def _do(self, move: _Move, action: Action) -> None:
        match action:
            case moves.Record():
                self._start(self._write, move, action.records)
            case moves.Send():
                if move.link is not None:
                    move.link.send(action.message)
            case moves.Quiesce():
                self._hold(move.prefix, move.move_id, action.node_id)
            case moves.Resume():
                self._let_go(move)
            case moves.SetOwner():
                self._set_owner(move, action.entry)
            case moves.Report():
                self._report(move, action.outcome)
            case moves.Refuse():
                self._log.info("move_refused", move=move.move_id, prefix=move.prefix, reason=action.reason)
                self._answer(move.deciders, action.reason)
            case _:
                self._do_data(move, action)

    def _do_data(self, move: _Move, action: Action) -> None:
        match action:
            case moves.Capture():
                history, offset = self._world.position()
                keys = None if move.count is None else move.count.now()
                if keys is None:
                    self._start(self._capture, move, history, offset)
                else:
                    self._feed(move, moves.Captured(history, offset, keys))
            case moves.Ship():
                self._start_job(move, self._ship, action.attempt)
            case moves.Release():
                if not move.marked:
                    move.marked = True
                    self._world.mark(Release(move.prefix, action.epoch, action.owner))
                    self._world.released(move.prefix, action.epoch, action.owner)
            case moves.SettleSlice():
                self._start(self._again, move, partial(self._jobs.settle, move.prefix, action.keep), moves.Settled())
            case moves.OpenStage():
                move.staging = None
                move.has_stage = True
                move.arrival = self._jobs.arrival(move.prefix, move.move_id)
                self._start_job(move, self._collect, move.arrival)
            case moves.WriteChunk():
                if move.arrival is not None:
                    move.arrival.add(action.data)
            case moves.CheckStage():
                if move.arrival is not None:
                    move.arrival.ticket = action.ticket
                    move.arrival.wake()
                else:
                    self._feed(move, moves.CheckFailed(action.ticket, "there is no stage"))
            case moves.CheckCopy():
                self._start_job(move, self._check_copy, action)
            case moves.Place():
                self._start(self._place, move, action.following)
            case moves.Acquire():
                self._world.mark(Acquire(move.prefix, action.epoch, action.history, action.offset))
                self._start(self._again, move, self._world.make_durable, moves.Settled())
            case moves.Discard():
                move.stop_job()
                move.arrival = move.staging = None
                discard = partial(self._jobs.discard, move.prefix, move.move_id, move.placed)
                self._start(self._again, move, discard, moves.Cleared())
            case _:
                raise TypeError(f"{type(action).__name__} is no action of a move")

    def _start(self, work: Callable[..., Awaitable[None]], move: _Move, *arguments: Any) -> None:
        """Do something beside. What was begun is not begun again before the next start of the node."""
        assert self._nursery is not None
        self._nursery.start_soon(self._guarded, work, move, *arguments)

    async def _guarded(self, work: Callable[..., Awaitable[None]], move: _Move, *arguments: Any) -> None:
        try:
            await work(move, *arguments)
        except Exception as error:
            # It costs this move, which stays where it is until an operator or a restart, and not the node.
            self._log.error("move_failed", move=move.move_id, error=error, where=traceback_line(error))

    def _start_job(self, move: _Move, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Start a job in place of the last one of its kind."""
        move.stop_job()
        scope = move.job = trio.CancelScope()

        async def run(move: _Move) -> None:
            with scope:
                await work(move, *arguments)

        self._start(run, move)

    # -- who may write ------------------------------------------------------------------------------------------------

    def _hold(self, prefix: bytes, move_id: str, node_id: str) -> None:
        self._holding.setdefault(prefix, {})[move_id] = node_id
        self._keeper.ownership.quiesce(prefix, node_id)

    def _let_go(self, move: _Move) -> None:
        held = self._holding.get(move.prefix, {})
        held.pop(move.move_id, None)
        if held:
            self._keeper.ownership.quiesce(move.prefix, list(held.values())[-1])
        else:
            self._keeper.ownership.resume(move.prefix)

    def _set_owner(self, move: _Move, entry: LedgerEntry) -> None:
        """The ledger has the entry already; nobody is served before its owner is known everywhere here."""
        if isinstance(move.machine, SourceMove):
            # Said again: a look at who owns what meanwhile has forgotten it.
            self._world.released(move.prefix, entry.epoch, entry.owner)
        self._keeper.ownership.set_owner(entry.prefix, entry.owner, entry.epoch)

    # -- records ------------------------------------------------------------------------------------------------------

    async def _write(self, move: _Move, records: tuple[Any, ...]) -> None:
        self._writing[id(records)] = records, move
        try:
            await self._keeper.append(records)
        except Exception as error:
            if self._writing.pop(id(records), None) is not None:
                self._log.error("move_not_recorded", move=move.move_id, reason=str(error) or repr(error))
                self._feed(move, moves.RecordFailed(str(error) or repr(error)))
        finally:
            self._writing.pop(id(records), None)

    def _recorded(self, records: tuple[Record, ...]) -> None:
        """Records are durable and in the ledger; nobody has been told of owners yet."""
        for record in records:
            if isinstance(record, MoveRecord):
                self._log.info(
                    "move_record", move=record.move_id, prefix=record.prefix, state=record.state.value, peer=record.peer
                )
        written = self._writing.pop(id(records), None)
        if written is not None:
            self._feed(written[1], moves.Recorded())
        for prefix in {record.prefix for record in records if isinstance(record, LedgerEntry)}:
            entry = self._keeper.state.ledger.entry(prefix)
            for move in tuple(self._moves.values()):
                if entry is not None and move.prefix == prefix and (written is None or move is not written[1]):
                    self._feed(move, moves.LedgerChanged(entry.epoch, entry.owner))

    # -- jobs ---------------------------------------------------------------------------------------------------------

    async def _capture(self, move: _Move, history: int, offset: int) -> None:
        keys = await self._jobs.count(move.prefix)
        self._feed(move, moves.Captured(history, offset, keys))

    async def _ship(self, move: _Move, attempt: int) -> None:
        link = move.link
        if link is None:
            return
        try:
            staged = await self._jobs.ship(move.prefix, move.move_id, attempt, link)
        except trio.BrokenResourceError:
            # The machine hears of it as of the link's end.
            return
        except Exception as error:
            self._log.error("move_not_shipped", move=move.move_id, error=error, where=traceback_line(error))
            self._feed(move, moves.ShipFailed(attempt, str(error) or repr(error)))
            return
        self._feed(move, staged)

    async def _collect(self, move: _Move, arrival: Arrival) -> None:
        try:
            staging = await self._jobs.collect(arrival)
        except (OSError, StageError) as error:
            self._log.warning("stage_broken", move=move.move_id, reason=str(error))
            self._feed(move, moves.StageBroken(str(error)))
            return
        move.staging = staging
        assert arrival.ticket is not None
        self._feed(move, moves.Checked(arrival.ticket, staging.count, arrival.replay.digest))

    async def _check_copy(self, move: _Move, action: moves.CheckCopy) -> None:
        move.checked = False
        try:
            keys = await self._jobs.check_copy(move.prefix, move.peer, action.history, action.offset, move.count)
        except (OSError, ReplyError) as error:
            self._feed(move, moves.CheckFailed(action.ticket, str(error)))
            return
        move.checked = True
        self._feed(move, moves.Checked(action.ticket, keys, ""))

    async def _place(self, move: _Move, following: bool) -> None:
        try:
            if following:
                await self._look_at_copy(move)
            elif not move.placed:
                if move.staging is None:
                    digest = self._keeper.state.moves[move.move_id].digest
                    move.staging = await self._jobs.restage(move.prefix, move.move_id, digest)
                staging, move.staging = move.staging, None
                self._jobs.exchange(move.prefix, staging)
                move.placed = True
            await self._world.make_durable()
        except StageError as error:
            self._feed(move, moves.PlacingFailed(str(error), lost=True))
        except (OSError, ReplyError) as error:
            self._feed(move, moves.PlacingFailed(str(error), lost=False))
        else:
            self._feed(move, moves.Placed())

    async def _look_at_copy(self, move: _Move) -> None:
        """Make sure that the live copy is what was sealed. Raises StageError."""
        machine = move.machine
        if move.checked:
            return
        with trio.move_on_after(COPY_SECONDS):
            while not self._world.has_applied(move.prefix, move.peer, machine.history, machine.tail):  # noqa: ASYNC110
                await trio.sleep(0.02)
            return
        raise StageError("the copy that was sealed is not here any more")

    async def _again(self, move: _Move, work: Callable[[], Awaitable[None]], event: Any) -> None:
        """Do what has to be done in the end, however often the disk keeps it from being done."""
        while True:
            try:
                await work()
            except (OSError, ReplyError) as error:
                self._log.warning("move_waits", move=move.move_id, prefix=move.prefix, reason=str(error))
                await trio.sleep(RETRY_SECONDS)
            else:
                self._feed(move, event)
                return

    # -- links --------------------------------------------------------------------------------------------------------

    def admit(self, visitor: MoveVisitor) -> bool:
        """Take a connection that began with INGEST; False if nobody is there for it. Does not block."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(self._receive, visitor)
        return True

    async def _receive(self, visitor: MoveVisitor) -> None:
        try:
            try:
                hello = parse_hello(visitor.words)
            except MoveWireError as error:
                self._log.warning("move_visitor_refused", peer=visitor.peer, reason=str(error))
                with trio.move_on_after(CONNECT_SECONDS):
                    await visitor.stream.send_all(refuse_version(visitor.words, str(error)))
                return
            other = hello.source if hello.target == self._node_id else hello.target
            if self._node_id not in (hello.source, hello.target) or other not in self._addresses:
                reason = f"a move from {hello.source} to {hello.target}"
                self._log.warning("move_visitor_refused", peer=visitor.peer, reason=reason)
                return
            link = MoveLink(visitor.stream, hello, other == hello.source, self._message, self._settled)
            if self._attach(link):
                await self._serve(link, visitor.rest)
        except GONE:
            pass
        finally:
            await trio.aclose_forcefully(visitor.stream)

    async def _dial(self, move: _Move) -> None:
        backoff = Backoff(self._random)
        try:
            while move.wants_link and move.link is None:
                if await self._call(move):
                    backoff.reset()
                await trio.sleep(backoff.next())
        finally:
            move.dialling = False
            self._alarm.set()

    async def _call(self, move: _Move) -> bool:
        """One connection to the other node, to its end; whether anything came over it."""
        is_source = isinstance(move.machine, SourceMove)
        source, target = (self._node_id, move.peer) if is_source else (move.peer, self._node_id)
        hello = Hello(move.move_id, move.prefix, source, target)
        host, _, port = self._addresses[move.peer].rpartition(":")
        stream: trio.abc.Stream | None = None
        try:
            with trio.move_on_after(CONNECT_SECONDS):
                stream = await self._transport.connect(host.removeprefix("[").removesuffix("]"), int(port))
            if stream is None:
                return False
            link = MoveLink(stream, hello, is_source, self._message, self._settled, format_hello(hello))
            if not self._attach(link):
                return False
            await self._serve(link, b"")
            return link.heard
        except OSError as error:
            self._log.debug("move_not_reached", move=move.move_id, peer=move.peer, reason=str(error))
            return False
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)

    def _attach(self, link: MoveLink) -> bool:
        """Let a connection be the one of its move; False if there is a better one, or the move is another."""
        move = self._moves.get(link.hello.move_id)
        if move is None:
            return True
        if not self._fits(move, link.hello):
            self._log.warning("move_hello_differs", move=move.move_id, prefix=link.hello.prefix)
            return False
        if move.link is not None:
            if move.link.by_source and not link.by_source:
                return False
            self._detach(move, "a newer connection took its place")
        move.link = link
        self._feed(move, moves.Linked())
        return True

    def _fits(self, move: _Move, hello: Hello) -> bool:
        is_source = isinstance(move.machine, SourceMove)
        ends = (self._node_id, move.peer) if is_source else (move.peer, self._node_id)
        return (hello.prefix, hello.source, hello.target) == (move.prefix, *ends)

    def _detach(self, move: _Move, reason: str) -> None:
        link, move.link = move.link, None
        if link is not None:
            link.end(reason)
            if isinstance(move.machine, SourceMove):
                move.stop_job()
            self._feed(move, moves.LinkLost())

    async def _serve(self, link: MoveLink, rest: bytes) -> None:
        try:
            await link.serve(rest)
        finally:
            move = self._moves.get(link.hello.move_id)
            if move is not None and move.link is link:
                self._detach(move, link.reason)
            self._log.debug("move_link_ended", move=link.hello.move_id, reason=link.reason)
            self._alarm.set()

    async def _settled(self, link: MoveLink) -> None:
        """Read no more before what has come is on its way to the disk."""
        move = self._moves.get(link.hello.move_id)
        if move is not None and move.arrival is not None:
            await move.arrival.room()

    def _message(self, link: MoveLink, message: Message) -> None:
        is_source = link.hello.source == self._node_id
        if message.move_id != link.hello.move_id or not isinstance(message, FromTarget if is_source else FromSource):
            link.end("a message that does not belong here")
            return
        move = self._moves.get(message.move_id)
        if move is not None:
            if move.link is link:
                self._feed(move, message)
            return
        answer = stray_at_source(message) if is_source else self._stray(link, message)  # type: ignore[arg-type]
        if answer is not None:
            link.send(answer)

    def _stray(self, link: MoveLink, message: FromSource) -> Message | None:
        """A message to the target of a move that it does not know."""
        hello = link.hello
        now = self._clock.monotonic()
        if isinstance(message, Request):
            return self._consider(link, message)
        if not self._is_declared(hello.prefix):
            return None
        epoch = self._keeper.state.ledger.epoch(hello.prefix)
        if isinstance(message, Activate) and message.epoch > epoch:
            self._adopt(link, *TargetMove.recover(message, hello.prefix, self._node_id, hello.source, now))
            return None
        return stray_at_target(message, epoch, has_data=not self._is_waiting(hello.prefix))

    def _consider(self, link: MoveLink, request: Request, count: KeyCount | None = None) -> Refused | None:
        """Take part in a new move; where there is a live copy, once it is known how many keys it has."""
        facts = self._target_facts(link.hello)
        found = consider(request, facts, self._clock.monotonic())
        if isinstance(found, Refused):
            return found
        if count is not None or not facts.following:
            self._adopt(link, *found, count=count)
        elif request.move_id not in self._counting and self._nursery is not None:
            self._counting.add(request.move_id)
            self._nursery.start_soon(self._consider_counted, link, request)
        return None

    async def _consider_counted(self, link: MoveLink, request: Request) -> None:
        count = KeyCount(self._world.store, link.hello.prefix)
        try:
            await count.run()
            if not link.reason and request.move_id not in self._moves:
                refused = self._consider(link, request, count)
                if refused is not None:
                    link.send(refused)
        finally:
            self._counting.discard(request.move_id)
            move = self._moves.get(request.move_id)
            if move is None or move.count is not count:
                count.close()

    def _adopt(self, link: MoveLink, machine: TargetMove, actions: list[Action], count: KeyCount | None = None) -> None:
        move = self._moves[machine.move_id] = _Move(machine, link.hello.source, link, count=count)
        self._log.info("move_begins", move=move.move_id, prefix=move.prefix, source=move.peer, epoch=machine.epoch)
        machine.handle(moves.Linked(), self._clock.monotonic())
        self._begin(move, actions)

    def _target_facts(self, hello: Hello) -> TargetFacts:
        prefix, keeper = hello.prefix, self._keeper
        declared = self._is_declared(prefix)
        others = [move for move in self._moves.values() if move.prefix == prefix and move.machine.busy]
        dropping = any(isinstance(move.machine, SourceMove) and move.machine.decided for move in others)
        epoch = keeper.state.ledger.epoch(prefix)
        agreed = keeper.state.agreed.get(prefix)
        return TargetFacts(
            node_id=self._node_id,
            source=hello.source,
            prefix=prefix,
            is_peer=hello.source in self._addresses,
            owner=keeper.ownership.owner(prefix) if declared else None,
            epoch=epoch,
            loading=False,
            dropping=dropping,
            persistent=self._world.is_persistent,
            following=declared and self._world.follows(prefix, hello.source),
            highest_epoch=max(epoch, 0 if agreed is None else agreed.epoch),
            other_move=others[0].move_id if others else "",
        )

    def _is_waiting(self, prefix: bytes) -> bool:
        return any(row.prefix == prefix and row.state == "waiting" for row in self._keeper.ownership.declared())

    # -- for people ---------------------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """What requests are held against."""
        owners = {row.prefix: row.owner for row in self._keeper.ownership.declared()}
        moving = {move.prefix for move in self._moves.values() if move.machine.busy}
        return Standing(self._node_id, frozenset(self._addresses) | {self._node_id}, owners, moving)

    def move(self, request: MoveRequest, waiter: Waiter) -> None:
        """Begin a move, of whose end ``waiter`` is told. Raises ReplyError if it cannot even begin."""
        check_move(request, self.standing())
        refusal = self._keeper.ownership.refuse_key(request.prefix)
        if refusal is not None:
            raise refusal
        if self._nursery is None:
            raise ReplyError("LOADING", "this node is not ready for moves yet")
        agreed = self._keeper.state.agreed.get(request.prefix)
        epoch = self._keeper.state.ledger.epoch(request.prefix)
        order = MoveOrder(
            f"{self._random.getrandbits(64):016x}",
            request.prefix,
            self._node_id,
            request.target,
            request.timeout,
            floor=max(epoch, 0 if agreed is None else agreed.epoch),
            persistent=self._world.is_persistent,
            force=request.force,
            keeps_copy=self._world.keeps_copy(request.prefix),
        )
        machine, actions = SourceMove.begin(order, self._clock.monotonic())
        move = self._moves[order.move_id] = _Move(machine, request.target)
        move.waiters.append(waiter)
        self._log.info("move_begins", move=move.move_id, prefix=move.prefix, target=move.peer)
        # The target is asked when it is known how many keys there are: then they need not be counted behind the tail.
        move.dialling = True
        self._begin(move, actions)
        self._start(self._count_first, move)

    async def _count_first(self, move: _Move) -> None:
        try:
            move.count = KeyCount(self._world.store, move.prefix)
            await move.count.run()
        finally:
            move.dialling = False
            self._alarm.set()

    def abort(self, prefix: bytes, waiter: Waiter) -> None:
        """Call a move from here off, unless it is decided. Raises ReplyError where there is none."""
        self._decide(prefix, SourceMove, moves.AbortWanted(), waiter)

    def resolve(self, prefix: bytes, commit: bool, waiter: Waiter) -> None:
        """Decide a move to here in place of its source. Raises ReplyError where there is none."""
        self._decide(prefix, TargetMove, moves.Resolve(commit), waiter)

    def _decide(self, prefix: bytes, side: type, event: Any, waiter: Waiter) -> None:
        if not self._is_declared(prefix):
            raise ReplyError("ERR", "MOVE-SCOPE: prefix is not a declared scope")
        found = [
            move
            for move in self._moves.values()
            if move.prefix == prefix and isinstance(move.machine, side) and move.machine.busy
        ]
        if not found:
            what = "from here is in flight" if side is SourceMove else "to here is in doubt"
            raise ReplyError("ERR", f"MOVE-SCOPE: no move of this prefix {what}")
        found[-1].deciders.append(waiter)
        self._feed(found[-1], event)

    def _report(self, move: _Move, outcome: Outcome) -> None:
        move.outcome = outcome
        self._log.info(
            "move_ends" if outcome.kind != "in doubt" else "move_in_doubt",
            move=move.move_id,
            prefix=move.prefix,
            outcome=outcome.kind,
            reason=outcome.reason,
            keys=outcome.keys,
            bytes=outcome.size,
            window_ms=round(outcome.window * 1000),
        )
        self._answer(move.waiters, outcome)
        if outcome.kind != "in doubt":
            self._answer(move.deciders, outcome)

    def _answer(self, waiters: list[Waiter], outcome: Outcome | str) -> None:
        for waiter in waiters:
            waiter(outcome)
        if waiters:
            self._has_news = True
        waiters.clear()

    def status(self) -> list[MoveStatus]:
        """Every move that is known here, the oldest first."""
        now = self._clock.monotonic()
        return [move.machine.status(now) for move in self._moves.values()]
