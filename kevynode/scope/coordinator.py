"""Carries out moves of prefixes: what their machines want done is done here, and they are told what came of it.

::

    coordinator nursery                  Coordinator.run, inside the node's own work
    ├─ clock                             ticks for the machines, and news for those who wait
    ├─ dialler × moves that want a link  connect → hello → link, again with jittered back-off
    ├─ visitor × connections             hello is read already → link
    ├─ record × moves                    one append to the ledger's file
    └─ job × moves                       counting, shipping, collecting, checking, placing, dropping (move_jobs)

:mod:`move_driver` takes events to the machines and does what they want, :mod:`move_links` keeps the connections; here
is what a node calls, and time.

What is decided is decided in :mod:`moves` and the machines; what is owed to them stands there. Events are taken one
after the other, each with all that it brings before the next one, synchronously: a record that has become durable and
the opening of the scope that it allows are one step (:meth:`ScopeKeeper.on_records`), in which no client is served.

How a node wires it: make one with the keeper; :meth:`Coordinator.load` when the ledger is loaded and before anybody is
served; ``{b"INGEST": coordinator.admit}`` to the entrance of the replication port; :meth:`Coordinator.run` beside the
keeper's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import trio

from ..errors import DISK_TROUBLE, ReplyError
from ..reply import Status
from . import moves
from .kevy_ingest import KevyIngest
from .ledger_records import MoveRecord, MoveRole
from .move_command import MoveRequest, check_move
from .move_driver import RETRY_SECONDS
from .move_jobs import KeyCount
from .move_links import MoveLinks, MoveVisitor
from .move_machine import MoveStatus
from .move_state import Move, Waiter
from .moves import Action
from .opening import PATIENCE
from .source_move import MoveOrder, SourceMove, SourceState
from .target_move import TargetMove, TargetState

__all__ = ["Coordinator", "MoveVisitor", "Waiter"]

#: Moves that have ended which are still known here, so that the other node is answered; the records know more.
ENDED_KEPT: Final = 64
# The states in which the number of keys may be asked for yet.
_COUNTING: Final = frozenset(
    {SourceState.ASKING, SourceState.REQUESTING, SourceState.CAPTURING}
    | {TargetState.AGREEING, TargetState.AGREED, TargetState.CHECKING}
)


class Coordinator(MoveLinks):
    """All moves of one node. Everything belongs to the Trio thread of the node."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ingest = KevyIngest(self._keeper, self)

    # -- the start -----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Hold what was quiesced when the node went down. In one step with ``ScopeKeeper.load``, behind it."""
        self._keeper.on_records = self._recorded
        for record in self._keeper.state.open_moves():
            if not self._is_declared(record.prefix):
                continue
            if record.role is MoveRole.SOURCE:
                self._hold(record.prefix, record.move_id, record.peer)
            elif record.state.value in ("SEALED", "ACTIVATED"):
                self._hold(record.prefix, record.move_id, self._node_id)

    async def remove_strays(self) -> None:
        """Remove the stages that no move needs any more. After :meth:`load`, before :meth:`run`. Raises OSError."""
        open_moves = [record.move_id for record in self._keeper.state.open_moves()]
        for name in await self.jobs.remove_strays(open_moves):
            self._log.info("stage_removed", name=name)

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
            while self.world.unanswered():  # noqa: ASYNC110  there is no event for it
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

    def _restarted(self, record: MoveRecord) -> tuple[Move, list[Action]]:
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
                persistent=self.world.is_persistent,
                keeps_copy=self.world.keeps_copy(record.prefix),
            )
            machine, actions = SourceMove.restart(record, order, epoch, owner, now)
        else:
            following = self.world.keeps_copy(record.prefix)
            machine, actions = TargetMove.restart(record, self._node_id, following, epoch, owner, now)
        return Move(machine, record.peer), actions

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
            # A move may be older than a configuration that does not name the other node any more.
            if move.link is None and not move.dialling and move.wants_link and move.peer in self._addresses:
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

    async def _remove_stage(self, move: Move) -> None:
        """Remove a stage that nobody needs any more, however often the disk refuses."""
        is_said = False
        while True:
            try:
                await self.jobs.remove_stage(move.move_id)
            except OSError as error:
                if not is_said:
                    is_said = True
                    self._log.warning("stage_not_removed", move=move.move_id, reason=str(error))
                await trio.sleep(RETRY_SECONDS)
            else:
                return

    # -- for people ---------------------------------------------------------------------------------------------------

    def move(self, request: MoveRequest, waiter: Waiter) -> None:
        """Begin a move, of whose end ``waiter`` is told. Raises ReplyError if it cannot even begin."""
        check_move(request, self.standing())
        refusal = self._keeper.ownership.refuse_key(request.prefix)
        if refusal is not None:
            raise refusal
        if self._nursery is None:
            raise ReplyError("LOADING", "this node is not ready for moves yet")
        if self.world.disk_trouble:
            # What is not stored is told to nobody, so no target could come to the tail.
            raise DISK_TROUBLE(self.world.disk_trouble)
        agreed = self._keeper.state.agreed.get(request.prefix)
        epoch = self._keeper.state.ledger.epoch(request.prefix)
        order = MoveOrder(
            f"{self._random.getrandbits(64):016x}",
            request.prefix,
            self._node_id,
            request.target,
            request.timeout,
            floor=max(epoch, 0 if agreed is None else agreed.epoch),
            persistent=self.world.is_persistent,
            force=request.force,
            keeps_copy=self.world.keeps_copy(request.prefix),
        )
        machine, actions = SourceMove.begin(order, self._clock.monotonic())
        move = self._moves[order.move_id] = Move(machine, request.target)
        move.waiters.append(waiter)
        self._log.info("move_begins", move=move.move_id, prefix=move.prefix, target=move.peer)
        # The target is asked when it is known how many keys there are: then they need not be counted behind the tail.
        move.dialling = True
        self._begin(move, actions)
        self._start(self._count_first, move)

    async def _count_first(self, move: Move) -> None:
        try:
            move.count = KeyCount(self.world.store, move.prefix)
            await move.count.run()
        finally:
            move.dialling = False
            self._alarm.set()

    def ingest(self, argv: Sequence[bytes], answer: Callable[[Status | ReplyError], None]) -> Status | None:
        """Take what a kevy server brings: the reply, or None, and ``answer`` is called. Raises ReplyError."""

        def told(reply: Status | ReplyError) -> None:
            answer(reply)
            self._has_news = True
            self._alarm.set()

        return self._ingest.begin(argv, told)

    def abort(self, prefix: bytes, waiter: Waiter) -> None:
        """Call a move from here off, unless it is decided. Raises ReplyError where there is none."""
        self._decide(self._find(prefix, SourceMove), moves.AbortWanted(), waiter)

    def resolve(self, prefix: bytes, commit: bool, waiter: Waiter) -> None:
        """Decide a move to here in place of its source. Raises ReplyError where there is none, or where it may not."""
        move = self._find(prefix, TargetMove)
        owner = self._keeper.state.ledger.owner(prefix, "")
        if commit and owner not in (move.peer, self._node_id) and self._keeper.hears(owner):
            # The source has gone on without its records, and given the prefix away: there would be two writers.
            has = f"{owner} answers, and has the prefix now"
            raise ReplyError("ERR", f"MOVE-SCOPE: {has}: ABORT, or stop it first")
        self._decide(move, moves.Resolve(commit), waiter)

    def _find(self, prefix: bytes, side: type) -> Move:
        """The move of a prefix that is under way here, on this side of it. Raises ReplyError where there is none."""
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
        return found[-1]

    def _decide(self, move: Move, event: Any, waiter: Waiter) -> None:
        move.deciders.append(waiter)
        self._feed(move, event)

    def status(self) -> list[MoveStatus]:
        """Every move that is known here, the oldest first."""
        now = self._clock.monotonic()
        return [_status(move, now) for move in self._moves.values()]


def _status(move: Move, now: float) -> MoveStatus:
    """A move, with what has gone out of it by now."""
    status, sent = move.machine.status(now), move.sent
    if sent is None or not isinstance(move.machine, SourceMove) or not move.machine.shipping:
        return status
    return attrs.evolve(status, sent_keys=sent.keys, commands=sent.commands, size=sent.size)
