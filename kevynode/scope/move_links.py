"""The connections of moves: dialling, taking visitors, and which messages belong to which move. A Trio driver."""

from __future__ import annotations

from typing import Any, Final, Protocol

import trio

from ..refusals import Refusals
from ..replicate.backoff import Backoff
from . import moves
from .move_driver import MoveDriver
from .move_jobs import KeyCount
from .move_link import MoveLink
from .move_messages import Activate, FromSource, FromTarget, Message, Refused, Request
from .move_state import Move
from .move_wire import Hello, MoveWireError, format_hello, parse_hello, refuse_version
from .moves import Action
from .peer_link import GONE
from .source_move import SourceMove, stray_at_source
from .target_move import TargetFacts, TargetMove, consider, stray_at_target

__all__ = ["MoveLinks", "MoveVisitor"]

#: Seconds that connecting may take.
CONNECT_SECONDS: Final = 5.0


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


class MoveLinks(MoveDriver):
    """Lets the machines of moves talk with those at the other end."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._refusals = Refusals(self._log, "move_visitor_refused")

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
                self._refusals.log(visitor.peer, str(error))
                with trio.move_on_after(CONNECT_SECONDS):
                    await visitor.stream.send_all(refuse_version(visitor.words, str(error)))
                return
            other = hello.source if hello.target == self._node_id else hello.target
            if self._node_id not in (hello.source, hello.target) or other not in self._addresses:
                self._refusals.log(visitor.peer, f"a move from {hello.source} to {hello.target}")
                return
            link = MoveLink(visitor.stream, hello, other == hello.source, self._message, self._settled)
            if self._attach(link):
                await self._serve(link, visitor.rest)
        except GONE:
            pass
        finally:
            await trio.aclose_forcefully(visitor.stream)

    async def _dial(self, move: Move) -> None:
        backoff = Backoff(self._random)
        try:
            while move.wants_link and move.link is None:
                if await self._call(move):
                    backoff.reset()
                await trio.sleep(backoff.next())
        finally:
            move.dialling = False
            self._alarm.set()

    async def _call(self, move: Move) -> bool:
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

    def _fits(self, move: Move, hello: Hello) -> bool:
        is_source = isinstance(move.machine, SourceMove)
        ends = (self._node_id, move.peer) if is_source else (move.peer, self._node_id)
        return (hello.prefix, hello.source, hello.target) == (move.prefix, *ends)

    def _detach(self, move: Move, reason: str) -> None:
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
        count: KeyCount | None = None
        try:
            count = KeyCount(self.world.store, link.hello.prefix)
            await count.run()
            if not link.reason and request.move_id not in self._moves:
                refused = self._consider(link, request, count)
                if refused is not None:
                    link.send(refused)
        finally:
            self._counting.discard(request.move_id)
            move = self._moves.get(request.move_id)
            if count is not None and (move is None or move.count is not count):
                count.close()

    def _adopt(self, link: MoveLink, machine: TargetMove, actions: list[Action], count: KeyCount | None = None) -> None:
        move = self._moves[machine.move_id] = Move(machine, link.hello.source, link, count=count)
        self._log.info("move_begins", move=move.move_id, prefix=move.prefix, source=move.peer, epoch=machine.epoch)
        machine.handle(moves.Linked(), self._clock.monotonic())
        self._begin(move, actions)

    def _target_facts(self, hello: Hello) -> TargetFacts:
        prefix, keeper = hello.prefix, self._keeper
        declared = self._is_declared(prefix)
        others = [move for move in self._moves.values() if move.prefix == prefix and move.machine.busy]
        dropping = any(isinstance(move.machine, SourceMove) and move.machine.decided for move in others)
        dropping = dropping or prefix in keeper.state.tails
        epoch = keeper.state.ledger.epoch(prefix)
        agreed = keeper.state.agreed.get(prefix)
        return TargetFacts(
            node_id=self._node_id,
            source=hello.source,
            prefix=prefix,
            is_peer=hello.source in self._addresses,
            owner=keeper.ownership.owner(prefix) if declared else None,
            epoch=epoch,
            loading=self.world.is_loading,
            replica=self.world.is_replica,
            dropping=dropping,
            persistent=self.world.is_persistent,
            disk_trouble=self.world.disk_trouble,
            following=declared and self.world.follows(prefix, hello.source),
            highest_epoch=max(epoch, 0 if agreed is None else agreed.epoch),
            other_move=others[0].move_id if others else "",
        )

    def _is_waiting(self, prefix: bytes) -> bool:
        return self._is_declared(prefix) and self._keeper.ownership.is_closed(prefix)
