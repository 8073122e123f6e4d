"""Random work of a real store, streamed over connections that are cut anywhere: the copy ends equal all the same."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from support.fake_primary import FakePrimary
from support.follower_harness import HISTORY, Copy, accept, copying
from support.store_harness import Harness, content

from kevynode.replicate import wire
from kevynode.replicate.snapshot import encode_snapshot
from kevynode.store.journal import Effect

COMMANDS = """
SET k w|APPEND k w|DEL k|INCR n|HSET h w w|HDEL h w|RPUSH l w w|LPOP l|LMOVE l m LEFT RIGHT|SADD s w|SPOP s|ZADD z 2 w
ZADD z 1.5 w|ZPOPMIN z|PEXPIRE k 100000|PERSIST k|SUNIONSTORE t s s|RENAME k j|MSET k w j w|FLUSHALL
HEXPIRE h 99 FIELDS 1 w
""".replace("\n", "|").strip("|")
TEMPLATES = [line.split() for line in COMMANDS.split("|")]


class Original:
    """A store, its whole stream so far as bytes by offset, and where groups begin."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.harness = Harness(seed=seed)
        self.pieces: dict[int, tuple[int, bytes]] = {}
        self.harness.store.journal.observers.append(self._observe)

    def _observe(self, first: int, group: list[Effect]) -> None:
        head = wire.group(len(group)) if len(group) > 1 else b""
        frames = wire.encode_frames(first, [command for command, _, _ in group])
        self.pieces[first] = (first + len(group), head + frames)

    @property
    def offset(self) -> int:
        return self.harness.store.journal.offset

    def work(self, count: int) -> None:
        for _ in range(count):
            template = self.random.choice(TEMPLATES)
            if template[0] == "FLUSHALL" and self.random.randrange(20):
                continue
            self.harness.call(*(self.random.choice("abcde") if word == "w" else word for word in template))

    def stream_from(self, offset: int) -> bytes:
        """Everything from a position on; KeyError if that is inside a group."""
        parts = []
        while offset < self.offset:
            offset, piece = self.pieces[offset]
            parts.append(piece)
        return b"".join(parts)

    def snapshot(self) -> bytes:
        version = 6 if self.harness.store.field_deadline_keys else 4
        pieces = b"".join(encode_snapshot(self.harness.store.freeze(), version=version))
        chunks = b"".join(wire.chunk(pieces[at : at + 100]) for at in range(0, len(pieces), 100))
        return wire.SNAPSHOT_BEGIN + chunks + wire.snapshot_end(self.offset)


async def serve_once(primary: FakePrimary, original: Original, copy: Copy, cut: bool) -> None:
    """Serve one connection by going on or starting over; it is cut somewhere if ``cut``."""
    draw = original.random
    connection, request = await primary.greet()
    stream = accept(request)
    if request.history == HISTORY and draw.randrange(4):
        stream += original.stream_from(request.offset)
    else:
        stream += original.snapshot()
    at = original.offset
    original.work(draw.randrange(60))
    stream += original.stream_from(at) + wire.ping(HISTORY, original.offset)
    if cut:
        stream = stream[: draw.randrange(len(stream))]
    while stream:
        size = draw.choice((1, 50, 1000, 100000))
        await connection.send(stream[:size])
        stream = stream[size:]
    assert not copy.store.journal.pending
    assert not copy.store.touched
    if cut:
        await connection.close()


@pytest.mark.parametrize("seed", range(20))
async def test_a_copy_ends_equal_wherever_its_links_were_cut(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    original = Original(seed)
    original.work(30)
    async with copying() as (copy, primary):
        for _ in range(8):
            await serve_once(primary, original, copy, cut=True)
            original.work(original.random.randrange(20))
        await serve_once(primary, original, copy, cut=False)
        assert copy.facts.state == "connected"
        assert copy.store.journal.offset == original.offset
        assert content(copy.store) == content(original.harness.store)
        assert copy.log.of("error") == []
        assert not copy.follower.diverged
        assert copy.facts.staleness_ms == 0
