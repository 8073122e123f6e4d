"""What one reader gets of one part of a block: all of it, its frames alone, or what a filter picks.

A cursor stands in a block. Each of these reads what is left for it of the part in which it stands, and moves it to the
end of what was read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from .block import Block
from .cursors import Cursor
from .filtering import Filter

__all__ = ["pick_entries", "take_frames", "take_part"]


def take_part(cursor: Cursor, block: Block, part: int) -> bytes:
    """What the cursor has not read of a part, as it is."""
    data = block.part(part)
    end = block.ends[part]
    start = end - len(data)
    if cursor.place > start:
        data = data[cursor.place - start :]
    cursor.place = end
    cursor.offset = block.nexts[part]
    return data


def take_frames(cursor: Cursor, block: Block, part: int) -> bytes:
    """What the cursor has not read of a part, up to a flush, for readers who know neither flushes nor groups."""
    place, stop, offset = cursor.place, block.ends[part], block.nexts[part]
    flush = bisect_left(block.flush_offsets, cursor.offset)
    if flush < len(block.flush_places) and block.flush_places[flush] < stop:
        stop, offset = block.flush_places[flush], block.flush_offsets[flush]
        cursor.at_flush = True
    cursor.place = stop
    cursor.offset = offset
    return block.without_groups(part, place, stop)


def pick_entries(cursor: Cursor, block: Block, part: int, picker: Filter) -> int:
    """Let ``picker`` look at this node's own of what the cursor has not read; how many bytes it had to look at."""
    data = block.part(part)
    end = block.ends[part]
    start = end - len(data)
    turns = block.turn_places
    place, offset = cursor.place, cursor.offset
    looked = 0
    while place < end:
        turn = bisect_right(turns, place)
        if turn < len(turns) and turns[turn] < end:
            stop, stop_offset = turns[turn], block.turn_offsets[turn]
        else:
            stop, stop_offset = end, block.nexts[part]
        if block.own is not bool(turn & 1):
            picker.take(data, place - start, stop - start, offset)
            looked += stop - place
        place, offset = stop, stop_offset
    cursor.place, cursor.offset = place, offset
    return looked
