"""The value of a sorted set."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import ClassVar, Final

from .ordered import LIST_LIMIT, ORDER_BLOCK_MEMORY, ORDER_MEMORY, Entry, Order, OrderedBlocks
from .sharded import SHARD_LIMIT, RandomSource
from .sizes import BYTES_OVERHEAD, FLOAT_MEMORY, PLACE_MEMORY, PLAIN_MEMORY, TUPLE_MEMORY, bytes_memory
from .tables import Table, compact_table, cut_up, table_memory

__all__ = ["SortedSet"]

# What one member takes beside itself.
_ENTRY_MEMORY: Final = FLOAT_MEMORY + TUPLE_MEMORY + PLACE_MEMORY


class SortedSet:
    """Members with scores, ordered by (score, member)."""

    __slots__ = ("epoch", "order", "payload", "scores")
    type_name: ClassVar[bytes] = b"zset"

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.scores: Table = {}
        self.order: Order = []
        self.payload = 0

    def __len__(self) -> int:
        return len(self.scores)

    def score(self, member: bytes) -> float | None:
        """The member's score, or None."""
        score: float | None = self.scores.get(member)
        return score

    @classmethod
    def of(cls, scores: dict[bytes, float], epoch: int = 0) -> SortedSet:
        """A sorted set of these members with their scores (numbers, never NaN)."""
        made = cls(epoch)
        # Adding zero turns a negative zero into zero.
        order = sorted([(score + 0.0, member) for member, score in scores.items()])
        table = {member: score for score, member in order}
        made.order = order if len(order) <= LIST_LIMIT else OrderedBlocks(order)
        made.scores = table if len(table) <= SHARD_LIMIT else cut_up(table)
        made.payload = sum(map(bytes_memory, table)) + len(table) * _ENTRY_MEMORY
        return made

    def put(self, member: bytes, score: float) -> bool | None:
        """Give ``member`` this score (a number, neither NaN nor negative zero).

        True if the member is new, False if its score has changed, None if it had this score. Fastest for members that
        come in ascending order, which also take least memory; never long.
        """
        scores = self.scores
        order = self.order
        old = scores.get(member)
        if old is not None:
            if old == score:
                return None
            if type(order) is OrderedBlocks:
                order.remove((old, member))
                order.add((score, member))
            else:
                del order[bisect_left(order, (old, member))]
                insort(order, (score, member))
            scores[member] = score
            return False
        scores[member] = score
        if type(order) is OrderedBlocks:
            order.add((score, member))
        else:
            insort(order, (score, member))
            if len(order) > LIST_LIMIT:
                self.order = OrderedBlocks(order)
        self.payload += ((len(member) + BYTES_OVERHEAD) & ~15) + _ENTRY_MEMORY
        if type(scores) is dict and len(scores) > SHARD_LIMIT:
            self.scores = cut_up(scores)
        return True

    def remove(self, member: bytes) -> bool:
        """Remove a member; True if it was there."""
        score = self.scores.pop(member, None)
        if score is None:
            return False
        order = self.order
        if type(order) is OrderedBlocks:
            order.remove((score, member))
        else:
            del order[bisect_left(order, (score, member))]
        self.payload -= ((len(member) + BYTES_OVERHEAD) & ~15) + _ENTRY_MEMORY
        return True

    def remove_between(self, start: int, stop: int) -> list[Entry]:
        """Remove the entries from place ``start`` up to, not including, ``stop``; they are returned in order."""
        order = self.order
        if stop - start == 1 and (start == 0 or stop == len(order)):
            removed = [order.pop(0 if start == 0 else -1)]
        elif type(order) is OrderedBlocks:
            removed = order.take_between(start, stop)
        else:
            removed = order[start:stop]
            del order[start:stop]
        if not order:
            self.scores = {}
            self.payload = 0
            return removed
        for _, member in removed:
            self.scores.pop(member)
            self.payload -= bytes_memory(member) + _ENTRY_MEMORY
        return removed

    def rank(self, member: bytes) -> int | None:
        """The member's place counted from the lowest score, or None."""
        score = self.scores.get(member)
        return None if score is None else self.place((score, member))

    def place(self, probe: tuple[float] | Entry) -> int:
        """How many entries are lower than ``probe``, an entry or a score alone, which is lower than its entries."""
        order = self.order
        return order.place(probe) if type(order) is OrderedBlocks else bisect_left(order, probe)

    def copy_at(self, epoch: int) -> SortedSet:
        """The same content as a container of that epoch; takes no time for each member of a large sorted set."""
        twin = SortedSet(epoch)
        twin.scores = self.scores.copy()
        twin.order = self.order.copy()
        twin.payload = self.payload
        return twin

    def compact(self, random: RandomSource) -> None:
        """Give back memory that deletions have left unused; bounded work (see ``compact_table``)."""
        self.scores = compact_table(self.scores, random)
        if type(self.order) is OrderedBlocks and len(self.order) <= LIST_LIMIT // 4:
            self.order = list(self.order)

    def memory(self) -> int:
        """Bytes of memory this value takes."""
        order = self.order
        if type(order) is OrderedBlocks:
            structure = ORDER_MEMORY + len(order.blocks) * ORDER_BLOCK_MEMORY
        else:
            # A list keeps room to grow by up to an eighth.
            structure = PLAIN_MEMORY + len(order)
        return structure + table_memory(self.scores) + self.payload
