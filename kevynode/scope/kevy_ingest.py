"""Taking a prefix from a kevy server that gives it away: all of its keys in one command, or nothing of them.

The data are put in place first and made durable; then the ledger says that this node is the owner, with the digest of
what came as the move's id. So the same bulk again, of a server that lost the answer, is answered without being applied,
and any other one is refused: the prefix is no kevy server's any more. A kevy server that lost the answer still takes
writes, and has to be stopped by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TypeAlias

from ..errors import ReplyError
from ..reply import Status
from ..store.marks import Acquire
from .keeper import ScopeKeeper
from .ledger import LedgerEntry, next_epoch
from .ledger_records import Opened
from .move_command import IngestRequest, check_ingest, key_refused, parse_ingest
from .move_driver import MoveDriver
from .stage import StageError

__all__ = ["KevyIngest"]

#: Called once with the reply.
_Answer: TypeAlias = Callable[[Status | ReplyError], None]


class KevyIngest:
    """What kevy servers bring to one node, a prefix at a time."""

    def __init__(self, keeper: ScopeKeeper, driver: MoveDriver) -> None:
        self._keeper = keeper
        self._driver = driver
        self._kevys = frozenset(node.node_id for node in keeper.settings.nodes if node.kind == "kevy")
        # Prefixes that are being taken now.
        self._taking: set[bytes] = set()

    def begin(self, argv: Sequence[bytes], answer: _Answer) -> Status | None:
        """Take what a command brings: the reply, or None, and ``answer`` is called. Raises ReplyError."""
        request = parse_ingest(argv)
        move_id = "kevy." + blake2b(argv[2], digest_size=16).hexdigest()
        entry = self._keeper.state.ledger.entry(request.prefix)
        if entry is not None and (entry.owner, entry.move_id) == (self._keeper.settings.node_id, move_id):
            return Status(b"OK %d" % len(request.commands))
        standing = self._driver.standing()
        is_moving = request.prefix in standing.moving or request.prefix in self._taking
        is_moving = is_moving or request.prefix in self._keeper.state.tails
        check_ingest(request.prefix, standing.owners, self._kevys, is_moving)
        self._taking.add(request.prefix)
        try:
            self._driver.start(self._take, request, move_id, answer)
        except BaseException:
            self._taking.discard(request.prefix)
            raise
        return None

    async def _take(self, request: IngestRequest, move_id: str, answer: _Answer) -> None:
        reply: Status | ReplyError = ReplyError("ERR", "MOVE-SCOPE-INGEST: this node is stopping")
        try:
            reply = await self._replace(request, move_id)
        except ReplyError as error:
            reply = error
        except StageError as error:
            cause = error.__cause__
            reply = key_refused(error.key, ReplyError("ERR", getattr(cause, "reason", "") or str(error)))
        except Exception as error:
            reply = ReplyError("ERR", f"MOVE-SCOPE-INGEST: it cannot be recorded: {error}")
        finally:
            self._taking.discard(request.prefix)
            answer(reply)

    async def _replace(self, request: IngestRequest, move_id: str) -> Status:
        prefix, keeper, driver = request.prefix, self._keeper, self._driver
        staging = await driver.jobs.rebuild(prefix, [words for _, words in request.commands])
        try:
            exchange = await driver.jobs.exchange(prefix, staging)
            await self._become_owner(prefix, move_id)
        finally:
            if keeper.ownership.owner(prefix) == keeper.settings.node_id:
                driver.world.leave(prefix)
            else:
                await driver.jobs.give_back(prefix)
        await driver.world.make_durable()
        await driver.jobs.tidy(exchange)
        return Status(b"OK %d" % len(request.commands))

    async def _become_owner(self, prefix: bytes, move_id: str) -> None:
        """Write down that this node owns a prefix, when its data are durable. Raises what the files raise."""
        keeper, driver = self._keeper, self._driver
        await driver.world.make_durable()
        agreed = keeper.state.agreed.get(prefix)
        epoch = next_epoch((keeper.state.ledger.epoch(prefix), 0 if agreed is None else agreed.epoch))
        records = (LedgerEntry(prefix, keeper.settings.node_id, epoch, move_id), Opened(prefix))
        # Before its first write here, in the step in which this node becomes the owner.
        driver.mark_with(records, Acquire(prefix, epoch, 0, 0))
        try:
            await keeper.append(records)
        finally:
            driver.without_mark(records)
