"""What this node holds of a scope that it has lost without having given it away: kept in a file. A Trio driver.

Two nodes may have been made owner of one prefix, both by a restored backup or by operators who decided without one of
them. The order of the ledger's entries decides for one. The other may have taken writes that nobody else has: it
closes the scope at once, and before anything takes the place of its data it writes them to a file.

That it is to do so is recorded together with the entry by which it has lost, so that it is done after a restart, too.
Who has moved a scope away has nothing left that the new owner lacks, and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import attrs
import trio

from ..errors import ReplyError
from .ledger import LedgerEntry
from .ledger_records import LedgerState, MoveRole, MoveState, Record, Tail
from .peer_link import PeerLog
from .table import OwnershipTable

__all__ = ["TailWorld", "Tails", "given_away"]

#: Seconds until what has failed is tried again.
RETRY_SECONDS: Final = 1.0


class TailWorld(Protocol):
    """The rest of the node, as far as tails need it."""

    def take(self, prefix: bytes) -> None:
        """Let no other node's stream change what is held under the prefix, until :meth:`give_back`."""
        ...

    async def keep(self, prefix: bytes, epoch: int) -> tuple[str, int]:
        """Write what is held under a prefix to a file, durably: its name, and how many keys. May raise OSError.

        Without keys there is no file, and no name.
        """
        ...

    async def give_back(self, prefix: bytes) -> None:
        """Hold under the prefix a copy again, or nothing, if another node owns it. May raise ReplyError."""
        ...


class Tails:
    """The tails of one node, ``node_id``.

    ``append`` writes records down, as :meth:`ScopeKeeper.append`; after ``wake`` :meth:`start` is to be called.
    """

    def __init__(
        self,
        node_id: str,
        table: OwnershipTable,
        world: TailWorld,
        append: Callable[[Iterable[Record]], Awaitable[None]],
        wake: Callable[[], None],
        log: PeerLog,
    ) -> None:
        self._node_id = node_id
        self._table = table
        self._world = world
        self._append = append
        self._wake = wake
        self._log = log
        #: By prefix: who has it now, where that could not be written down yet. Nothing may be written here any more.
        self.losing: dict[bytes, str] = {}
        # Prefixes of which a tail is being kept, and the files of those that only have to be recorded.
        self._keeping: set[bytes] = set()
        self._files: dict[bytes, str] = {}

    def lost(self, entries: Iterable[LedgerEntry], state: LedgerState) -> tuple[Tail, ...]:
        """What is to be recorded with ``entries``, which decide and are not in ``state`` yet."""
        tails = []
        for entry in entries:
            scope = self._table.declared(entry.prefix)
            if scope is None or entry.owner == self._node_id:
                continue
            if (
                state.ledger.owner(entry.prefix, scope.writer) == self._node_id
                and given_away(entry.prefix, state) is None
            ):
                self.losing[entry.prefix] = entry.owner
                tails.append(Tail(entry.prefix, entry.epoch))
        return tuple(tails)

    def recorded(self, records: Iterable[Record]) -> None:
        """These are durable, and nobody has been told of their owners yet."""
        for record in records:
            if isinstance(record, Tail) and not record.is_kept:
                self._world.take(record.prefix)
                owner = self.losing.pop(record.prefix, "")
                self._log.warning("scope_lost", prefix=record.prefix, owner=owner, epoch=record.epoch)

    def start(self, state: LedgerState, nursery: trio.Nursery) -> None:
        """Keep what is to be kept and is not being kept."""
        for tail in state.tails.values():
            if tail.prefix not in self._keeping:
                self._keeping.add(tail.prefix)
                nursery.start_soon(self._keep, tail)

    async def _keep(self, tail: Tail) -> None:
        prefix = tail.prefix
        try:
            if prefix not in self._files:
                self._files[prefix], keys = await self._world.keep(prefix, tail.epoch)
                self._log.warning("tail_kept", prefix=prefix, file=self._files[prefix], keys=keys)
            await self._append([attrs.evolve(tail, is_kept=True)])
            del self._files[prefix]
            await self._world.give_back(prefix)
        except (OSError, ReplyError) as error:
            self._log.warning("tail_not_kept", prefix=prefix, reason=str(error))
            await trio.sleep(RETRY_SECONDS)
        finally:
            self._keeping.discard(prefix)
            self._wake()


def given_away(prefix: bytes, state: LedgerState) -> int | None:
    """By which epoch this node has decided to give the prefix to another one since it became its owner; None: not."""
    epoch = state.ledger.epoch(prefix)
    return max(
        (
            record.epoch
            for record in state.moves.values()
            if record.prefix == prefix
            and record.role is MoveRole.SOURCE
            and record.decided is MoveState.FLIPPED
            and record.epoch > epoch
        ),
        default=None,
    )
