"""Takes events to the machines of moves, one after the other, and does what they want done. A Trio driver."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

import trio

from ..clock import Clock
from ..disk import Disk
from ..errors import ReplyError
from ..faults import traceback_line
from ..store.marks import Acquire, Mark, Release
from ..transport import Transport
from . import moves
from .keeper import ScopeKeeper
from .ledger import LedgerEntry
from .ledger_records import MoveRecord, Record
from .move_command import Standing
from .move_jobs import Arrival, MoveJobs, MoveWorld, Shipment
from .move_state import Move, Waiter
from .moves import Action, Outcome
from .peer_link import PeerLog
from .stage import StageError

__all__ = ["MoveDriver"]

#: Seconds until a job that the disk kept from its end is tried again.
RETRY_SECONDS: Final = 1.0
#: Seconds that a target waits for its own copy of what it had sealed before it says that it is lost.
COPY_SECONDS: Final = 2.0


class RandomBits(Protocol):
    """Where chance comes from."""

    def uniform(self, a: float, b: float, /) -> float: ...
    def getrandbits(self, k: int, /) -> int: ...


class MoveDriver:
    """Takes events to machines, and does what they want. Everything belongs to the Trio thread of the node."""

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
        self.world = world
        self.jobs = MoveJobs(world, disk, data_dir, in_thread)
        self._transport = transport
        self._clock = clock
        self._random = random
        self._log = log
        self._node_id = keeper.settings.node_id
        self._addresses = {node.node_id: node.replication for node in keeper.settings.nodes if node.kind == "kevynode"}
        self._moves: dict[str, Move] = {}
        # By prefix: which moves refuse writes to it here, and for which node.
        self._holding: dict[bytes, dict[str, str]] = {}
        # Records that are being written, by the identity of their tuple.
        self._writing: dict[int, tuple[tuple[Any, ...], Move]] = {}
        # Moves to here that begin when their keys have been counted.
        self._counting: set[str] = set()
        # Marks that belong to records that are being written, likewise.
        self._marks: dict[int, Mark] = {}
        self._events: deque[tuple[Move, Any]] = deque()
        self._is_taking = False
        self._alarm = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._has_news = False
        #: Called when a move has ended, or stands otherwise for those who wait, from no command's midst.
        self.on_news: Callable[[], None] = lambda: None

    def _is_declared(self, prefix: bytes) -> bool:
        return self._keeper.table.declared(prefix) is not None

    # -- events -------------------------------------------------------------------------------------------------------

    def _feed(self, move: Move, event: Any) -> None:
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

    def _begin(self, move: Move, actions: list[Action]) -> None:
        """Carry out what a machine wants first."""
        was_taking, self._is_taking = self._is_taking, True
        try:
            self._carry_out(move, actions)
        finally:
            self._is_taking = was_taking
        self._take_all()

    def _carry_out(self, move: Move, actions: Iterable[Action]) -> None:
        for action in actions:
            self._do(move, action)

    def _do(self, move: Move, action: Action) -> None:
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

    def _do_data(self, move: Move, action: Action) -> None:
        match action:
            case moves.Capture():
                history, offset = self.world.position()
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
                    self.world.mark(Release(move.prefix, action.epoch, action.owner))
                    self._say_released(move.prefix, action.epoch, action.owner)
            case moves.SettleSlice():
                self._start(self._again, move, partial(self.jobs.settle, move.prefix, action.keep), moves.Settled())
            case moves.OpenStage():
                move.staging = None
                move.has_stage, move.placed = True, False
                move.arrival = self.jobs.arrival(move.prefix, move.move_id)
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
                self.world.mark(Acquire(move.prefix, action.epoch, action.history, action.offset))
                self._start(self._again, move, self.world.make_durable, moves.Settled())
            case moves.Discard():
                move.stop_job()
                move.arrival = move.staging = None
                self._start(self._again, move, partial(self._discard, move), moves.Cleared())
            case _:
                raise TypeError(f"{type(action).__name__} is no action of a move")

    def _start(self, work: Callable[..., Awaitable[None]], move: Move, *arguments: Any) -> None:
        """Do something beside. What was begun is not begun again before the next start of the node."""
        assert self._nursery is not None
        self._nursery.start_soon(self._guarded, work, move, *arguments)

    async def _guarded(self, work: Callable[..., Awaitable[None]], move: Move, *arguments: Any) -> None:
        try:
            await work(move, *arguments)
        except Exception as error:
            # It costs this move, which stays where it is until an operator or a restart, and not the node.
            self._log.error("move_failed", move=move.move_id, error=error, where=traceback_line(error))

    def start(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Do something beside that never raises. Raises ReplyError while the node is not ready for it."""
        if self._nursery is None:
            raise ReplyError("LOADING", "this node is not ready for moves yet")
        self._nursery.start_soon(work, *arguments)

    def _start_job(self, move: Move, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Start a job in place of the last one of its kind."""
        move.stop_job()
        scope = move.job = trio.CancelScope()

        async def run(move: Move) -> None:
            with scope:
                await work(move, *arguments)

        self._start(run, move)

    # -- who may write ------------------------------------------------------------------------------------------------

    def _hold(self, prefix: bytes, move_id: str, node_id: str) -> None:
        self._holding.setdefault(prefix, {})[move_id] = node_id
        self._keeper.ownership.quiesce(prefix, node_id)

    def _let_go(self, move: Move) -> None:
        held = self._holding.get(move.prefix, {})
        held.pop(move.move_id, None)
        if held:
            self._keeper.ownership.quiesce(move.prefix, list(held.values())[-1])
        else:
            self._keeper.ownership.resume(move.prefix)

    def _set_owner(self, move: Move, entry: LedgerEntry) -> None:
        """The ledger has the entry already; nobody is served before its owner is known everywhere here."""
        self._keeper.ownership.set_owner(entry.prefix, entry.owner, entry.epoch)
        self.world.leave(entry.prefix)

    # -- records ------------------------------------------------------------------------------------------------------

    def _has_released(self, entry: LedgerEntry) -> bool:
        move = self._moves.get(entry.move_id)
        return move is not None and move.marked and move.machine.epoch == entry.epoch

    def _say_released(self, prefix: bytes, epoch: int, owner: str) -> None:
        """Say that a copy may go on from what is held here, unless one has begun to already: it would begin anew."""
        if self._is_declared(prefix) and self._keeper.ownership.owner(prefix) == self._node_id:
            self.world.released(prefix, epoch, owner)

    async def _write(self, move: Move, records: tuple[Any, ...]) -> None:
        self._writing[id(records)] = records, move
        try:
            await self._keeper.append(records)
        except Exception as error:
            if self._writing.pop(id(records), None) is not None:
                self._log.error("move_not_recorded", move=move.move_id, reason=str(error) or repr(error))
                self._feed(move, moves.RecordFailed(str(error) or repr(error)))
        finally:
            self._writing.pop(id(records), None)

    def mark_with(self, records: tuple[Record, ...], mark: Mark) -> None:
        """Enter a mark in the step in which these records, which are about to be written, have become durable."""
        self._marks[id(records)] = mark

    def without_mark(self, records: tuple[Record, ...]) -> None:
        """These records are written, or will not be."""
        self._marks.pop(id(records), None)

    def _recorded(self, records: tuple[Record, ...]) -> None:
        """Records are durable and in the ledger; nobody has been told of owners yet."""
        for record in records:
            if isinstance(record, MoveRecord):
                self._log.info(
                    "move_record", move=record.move_id, prefix=record.prefix, state=record.state.value, peer=record.peer
                )
        mark = self._marks.pop(id(records), None)
        if mark is not None:
            self._keeper.opening.restored(mark.prefix)
            self.world.mark(mark)
        for record in records:
            if isinstance(record, LedgerEntry) and self._has_released(record):
                # Again: a look at who owns what meanwhile has forgotten it.
                self._say_released(record.prefix, record.epoch, record.owner)
        written = self._writing.pop(id(records), None)
        if written is not None:
            self._feed(written[1], moves.Recorded())
        for prefix in {record.prefix for record in records if isinstance(record, LedgerEntry)}:
            entry = self._keeper.state.ledger.entry(prefix)
            for move in tuple(self._moves.values()):
                if entry is not None and move.prefix == prefix and (written is None or move is not written[1]):
                    self._feed(move, moves.LedgerChanged(entry.epoch, entry.owner))

    # -- jobs ---------------------------------------------------------------------------------------------------------

    async def _capture(self, move: Move, history: int, offset: int) -> None:
        keys = await self.jobs.count(move.prefix)
        self._feed(move, moves.Captured(history, offset, keys))

    async def _ship(self, move: Move, attempt: int) -> None:
        link = move.link
        if link is None:
            return
        if self._keeper.opening.lacks(move.prefix):
            # The target asks again, and is not to take what is left here for all that there was.
            await trio.lowlevel.checkpoint()
            self._feed(move, moves.ShipFailed(attempt, "the data of the prefix are lost here, and not back yet"))
            return
        try:
            sent = move.sent = Shipment()
            staged = await self.jobs.ship(move.prefix, move.move_id, attempt, link, sent)
        except trio.BrokenResourceError:
            # The machine hears of it as of the link's end.
            return
        except Exception as error:
            self._log.error("move_not_shipped", move=move.move_id, error=error, where=traceback_line(error))
            self._feed(move, moves.ShipFailed(attempt, str(error) or repr(error)))
            return
        self._feed(move, staged)

    async def _collect(self, move: Move, arrival: Arrival) -> None:
        try:
            staging = await self.jobs.collect(arrival)
        except (OSError, StageError) as error:
            self._log.warning("stage_broken", move=move.move_id, reason=str(error))
            self._feed(move, moves.StageBroken(str(error)))
            return
        move.staging = staging
        assert arrival.ticket is not None
        self._feed(move, moves.Checked(arrival.ticket, staging.count, arrival.replay.digest))

    async def _check_copy(self, move: Move, action: moves.CheckCopy) -> None:
        move.checked = False
        try:
            keys = await self.jobs.check_copy(move.prefix, move.peer, action.history, action.offset, move.count)
        except (OSError, ReplyError) as error:
            self._feed(move, moves.CheckFailed(action.ticket, str(error)))
            return
        move.checked = True
        self._feed(move, moves.Checked(action.ticket, keys, ""))

    async def _place(self, move: Move, following: bool) -> None:
        exchange = None
        try:
            if following:
                await self._look_at_copy(move)
            elif not move.placed:
                if move.staging is None:
                    digest = self._keeper.state.moves[move.move_id].digest
                    move.staging = await self.jobs.restage(move.prefix, move.move_id, digest)
                staging, move.staging = move.staging, None
                exchange = await self.jobs.exchange(move.prefix, staging)
                move.placed = True
            await self.world.make_durable()
        except StageError as error:
            self._feed(move, moves.PlacingFailed(str(error), lost=True))
        except (OSError, ReplyError) as error:
            self._feed(move, moves.PlacingFailed(str(error), lost=False))
        else:
            self._feed(move, moves.Placed())
        if exchange is not None:
            await self.jobs.tidy(exchange)

    async def _discard(self, move: Move) -> None:
        await self.jobs.remove_stage(move.move_id)
        if self._keeper.ownership.owner(move.prefix) != self._node_id:
            # It may have been put in place before a restart, too.
            await self.jobs.give_back(move.prefix)

    async def _look_at_copy(self, move: Move) -> None:
        """Make sure that the live copy is what was sealed. Raises StageError."""
        if move.checked:
            return
        with trio.move_on_after(COPY_SECONDS):
            while not self._is_copied(move):  # noqa: ASYNC110  it is nobody's event
                await trio.sleep(0.02)
            return
        raise StageError("the copy that was sealed is not here any more")

    def _is_copied(self, move: Move) -> bool:
        machine = move.machine
        has_applied = self.world.has_applied(move.prefix, move.peer, machine.history, machine.tail)
        # Behind the source's release its copy is in nobody's stream.
        return has_applied or self.world.was_released(move.prefix)

    async def _again(self, move: Move, work: Callable[[], Awaitable[None]], event: Any) -> None:
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

    # -- for people ---------------------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """What requests are held against."""
        rows = self._keeper.ownership.declared()
        owners = {row.prefix: row.owner for row in rows}
        moving = {move.prefix for move in self._moves.values() if move.machine.busy}
        declared_here = {row.prefix for row in rows if row.writer == self._node_id}
        return Standing(self._node_id, frozenset(self._addresses) | {self._node_id}, owners, moving, declared_here)

    def _report(self, move: Move, outcome: Outcome) -> None:
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
