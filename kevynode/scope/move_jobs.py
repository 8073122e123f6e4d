"""What takes its time in a move: counting, shipping, collecting, placing and dropping a slice. A Trio driver.

Everything is done a millisecond or so at a time, so that other scopes go on, but for the one step in which a slice
takes the place of another. Nothing here decides anything; the coordinator starts these jobs, ends them, and says what
came of them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from ..disk import Disk, write_all
from ..store.exchange import PrefixExchange
from ..store.journal import Effect, Observer
from ..store.keyspace import KeyShard
from ..store.prefix_keys import drop_keys, keys_under
from ..store.rebuild import rebuild_commands, rebuilding
from ..store.staging import PrefixStaging
from ..store.store import Store
from .move_link import MoveLink
from .move_messages import Chunk
from .move_wire import CHUNK_LIMIT
from .move_world import MoveWorld, Placing
from .moves import Staged
from .stage import StageDigest, StageError, StageFile, StageReplay, encode_command, remove_strays

__all__ = ["KEPT", "Arrival", "KeyCount", "MoveJobs", "MoveWorld", "Placing", "Shipment"]

#: Seconds between two looks at how far a copy has come.
_LOOK: Final = 0.002
#: Keys that are encoded, or dropped, between two turns of others: less than half of a millisecond's work.
_STEP: Final = 100
#: Words of commands that count as one key.
_WORDS: Final = 8
#: Keys that are looked at, and no more, between two turns of others; and as how many a shard without keys counts.
_LOOKED_AT: Final = 4_000
_EMPTY: Final = 50
#: Keys that may change before they are counted anew.
_CHANGED: Final = 200_000
#: How the names of files begin that hold what this node had of a prefix that it has lost.
KEPT: Final = "kevynode.kept."
#: Bytes of a stage that may wait to be written, above which nothing more is read.
_WAITING: Final = 1 << 20


@attrs.define(eq=False)
class Shipment:
    """How much of a slice has gone out by now; ``size`` in bytes."""

    keys: int = 0
    commands: int = 0
    size: int = 0


@attrs.define(eq=False)
class Arrival:
    """A stage that comes in: what has not been written yet, and what it has come to."""

    file: StageFile
    replay: StageReplay
    pieces: list[bytes] = attrs.field(factory=list)
    size: int = 0
    #: The ticket of the check that ends it; None: more may come.
    ticket: int | None = None
    changed: trio.Event = attrs.field(factory=trio.Event)

    def wake(self) -> None:
        """Something has changed."""
        event, self.changed = self.changed, trio.Event()
        event.set()

    def add(self, data: bytes) -> None:
        """The next bytes; never blocks."""
        self.pieces.append(data)
        self.size += len(data)
        self.wake()

    async def room(self) -> None:
        """Wait until little enough waits."""
        while self.size > _WAITING:
            await self.changed.wait()


class KeyCount:
    """How many keys there are under a prefix, expired ones included, known at any moment without a walk.

    The walk is over the data as of the beginning; what has changed since is looked at when the number is asked for.
    Made between two groups of the journal. :meth:`close` it.
    """

    def __init__(self, store: Store, prefix: bytes) -> None:
        self._store = store
        self._prefix = prefix
        keyspace = store.keyspace
        self._shift = keyspace.shift
        self._directory = list(keyspace.directory)
        self._shards = store.freeze()
        self._counted = 0
        self._is_counted = False
        # Keys that have changed since; None: too many to remember, or all of them.
        self._changed: dict[bytes, None] | None = {}
        store.journal.observers.append(self._observe)
        self._observes = True

    async def run(self) -> None:
        """Walk, a millisecond or so at a time."""
        await trio.lowlevel.checkpoint()
        self._counted = await count_in(self._shards, self._prefix)
        self._shards = []
        self._is_counted = True

    def now(self) -> int | None:
        """The number as of now; None if it is not known. Takes time in proportion to the keys that have changed."""
        changed = self._changed
        if changed is None or not self._is_counted:
            return None
        live, directory, shift = self._store.keyspace, self._directory, self._shift
        return self._counted + sum(
            (live.get(key) is not None) - (key in directory[hash(key) >> shift]) for key in changed
        )

    def close(self) -> None:
        """Look at changes no more; a second call does nothing."""
        if self._observes:
            self._observes = False
            self._store.journal.observers.remove(self._observe)
            # Shards that have been written to since are held by nobody else, and freeing one takes a moment.
            self._store.discarded += self._directory
            self._shards, self._directory = [], []
            self._changed = None

    def _observe(self, _offset: int, group: list[Effect]) -> None:
        changed = self._changed
        if changed is None:
            return
        prefix = self._prefix
        for _, key, _ in group:
            if key is None or len(changed) > _CHANGED:
                self._changed = None
                return
            if key.startswith(prefix):
                changed[key] = None


async def count_in(shards: Iterable[KeyShard], prefix: bytes) -> int:
    """How many keys there are under a prefix in frozen shards."""
    keys = looked_at = 0
    for shard in shards:
        keys += sum(key.startswith(prefix) for key in shard)
        looked_at += len(shard) + _EMPTY
        if looked_at >= _LOOKED_AT:
            looked_at = 0
            await trio.lowlevel.checkpoint()
    return keys


def _rebuilt(shards: Iterable[KeyShard], prefix: bytes) -> Iterator[bytes]:
    """The commands that build the keys under a prefix, in large pieces; an empty piece now and then."""
    buffer = bytearray()
    for shard in shards:
        deadlines = shard.deadlines
        for key, value in shard.items():
            if key.startswith(prefix):
                for command in rebuild_commands(key, value, deadlines.get(key)):
                    buffer += encode_command(command)
                    if len(buffer) >= _WAITING:
                        yield bytes(buffer)
                        buffer.clear()
        yield b""
    if buffer:
        yield bytes(buffer)


class MoveJobs:
    """The work of one node's moves. ``in_thread`` calls what may take long and waits for it, whatever happens."""

    def __init__(
        self,
        world: MoveWorld,
        disk: Disk,
        data_dir: str,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self.world = world
        self._disk = disk
        self._data_dir = data_dir
        self._in_thread = in_thread

    # -- at the source ------------------------------------------------------------------------------------------------

    async def count(self, prefix: bytes) -> int:
        """How many keys there are under a quiesced prefix, expired ones included."""
        await trio.lowlevel.checkpoint()
        return await count_in(self._freeze(), prefix)

    @enable_ki_protection
    def _freeze(self) -> list[KeyShard]:
        return self.world.store.freeze()

    async def ship(self, prefix: bytes, move_id: str, attempt: int, link: MoveLink, sent: Shipment) -> Staged:
        """Send all that is under a quiesced prefix, and count it in ``sent``.

        Raises BrokenResourceError when the link ends.
        """
        await trio.lowlevel.checkpoint()
        digest, buffer = StageDigest(), bytearray()
        chunks = commands = keys = size = 0

        async def send(most: int) -> None:
            nonlocal chunks, size
            data = bytes(buffer[:most])
            del buffer[:most]
            digest.add(data)
            await link.send_bulk(Chunk(move_id, attempt, chunks, data))
            chunks += 1
            size += len(data)
            sent.keys, sent.commands, sent.size = keys, commands, size

        worked = 0
        for shard in self._freeze():
            deadlines = shard.deadlines
            for key, value in shard.items():
                if not key.startswith(prefix):
                    continue
                keys += 1
                worked += 1
                # The shard is frozen: nothing changes it in between.
                for command in rebuilding(key, value, deadlines.get(key)):
                    buffer += encode_command(command)
                    commands += 1
                    worked += len(command) // _WORDS
                    while len(buffer) >= CHUNK_LIMIT:
                        await send(CHUNK_LIMIT)
                    if worked >= _STEP:
                        worked = 0
                        await trio.lowlevel.checkpoint()
            worked += 20
            if worked >= _STEP:
                worked = 0
                await trio.lowlevel.checkpoint()
        if buffer:
            await send(len(buffer))
        return Staged(attempt, chunks, commands, keys, size, digest.hexadecimal)

    async def settle(self, prefix: bytes, keep: bool) -> None:
        """Drop a slice that has moved away, or keep it; durable, with the mark before it. May raise ReplyError."""
        if not keep:
            await self.drop(prefix)
        await self.world.make_durable()

    async def drop(self, prefix: bytes) -> None:
        """Delete all keys under a prefix that nobody writes here."""
        position = 0
        while True:
            position, keys = keys_under(self.world.store, (prefix,), position)
            for place in range(0, len(keys), _STEP):
                self._drop(keys[place : place + _STEP])
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if not position:
                return

    @enable_ki_protection
    def _drop(self, keys: list[bytes]) -> None:
        store = self.world.store
        drop_keys(store, keys)
        store.commit()

    # -- at the target ------------------------------------------------------------------------------------------------

    def file(self, move_id: str) -> StageFile:
        """The file of a move's stage."""
        return StageFile(self._disk, self._data_dir, move_id)

    def arrival(self, prefix: bytes, move_id: str) -> Arrival:
        """A stage that is about to come."""
        return Arrival(self.file(move_id), StageReplay(prefix, self.world.store))

    async def collect(self, arrival: Arrival) -> PrefixStaging:
        """Write what comes and build it aside until its end, and make the file durable. Raises OSError, StageError."""
        try:
            await self._in_thread(arrival.file.begin)
            while arrival.pieces or arrival.ticket is None:
                if not arrival.pieces:
                    await arrival.changed.wait()
                    continue
                data = b"".join(arrival.pieces)
                arrival.pieces.clear()
                await self._in_thread(partial(arrival.file.append, data))
                for _ in arrival.replay.feed(data):
                    await trio.lowlevel.checkpoint()
                arrival.size -= len(data)
                arrival.wake()
            staging = arrival.replay.finish()
            await self._in_thread(arrival.file.sync)
            return staging
        finally:
            # Nobody waits for room in what is not collected any more.
            arrival.size = -(1 << 62)
            arrival.wake()
            arrival.file.close()

    async def check_copy(self, prefix: bytes, writer: str, history: int, offset: int, known: KeyCount | None) -> int:
        """Wait until the live copy has come to the tail, and is durable there: how many keys it has."""
        while not self.world.has_applied(prefix, writer, history, offset):  # noqa: ASYNC110  it is nobody's event
            await trio.sleep(_LOOK)
        await self.world.make_durable()
        keys = None if known is None else known.now()
        return await self.count(prefix) if keys is None else keys

    async def restage(self, prefix: bytes, move_id: str, digest: str) -> PrefixStaging:
        """What the file of a stage holds. Raises StageError if that is not what was sealed, or nothing; OSError."""
        file = self.file(move_id)
        if not await self._in_thread(file.exists):
            raise StageError("there is no stage")
        replay = StageReplay(prefix, self.world.store)
        pieces = file.pieces()
        try:
            while piece := await self._in_thread(partial(next, pieces, b"")):
                for _ in replay.feed(piece):
                    await trio.lowlevel.checkpoint()
        finally:
            pieces.close()  # type: ignore[attr-defined]  # it is a generator
        if replay.digest != digest:
            raise StageError("the stage is not what was sealed")
        return replay.finish()

    async def rebuild(self, prefix: bytes, commands: Sequence[list[bytes]]) -> PrefixStaging:
        """What these commands build, each of which makes exactly one change. Raises StageError."""
        replay = StageReplay(prefix, self.world.store)
        for place in range(0, len(commands), _STEP):
            await trio.lowlevel.checkpoint()
            replay.apply(list(commands[place : place + _STEP]))
        return replay.finish()

    async def exchange(self, prefix: bytes, staging: PrefixStaging) -> PrefixExchange:
        """Hold under a prefix exactly what is staged, in one step and one group of the journal: what is to be tidied.

        It is in the files when this returns, if they can be written at all. Raises OSError before anything has changed.
        What its last owner still sends, a ship or entries that are in the stage already, changes nothing from here on.
        Cancelled, nothing has been put in place.
        """
        self.world.take(prefix)
        await trio.lowlevel.checkpoint()
        async with self.world.placing() as placing:
            exchange = PrefixExchange(self.world.store, staging, placing.passing)
            try:
                for _ in exchange.prepare():
                    await placing.add(exchange.next_commands())
                    await trio.lowlevel.checkpoint()
                await placing.add(exchange.next_commands())
                await placing.use(partial(self._finish, exchange), lambda: exchange.is_true)
            finally:
                exchange.close()
        return exchange

    @enable_ki_protection
    def _finish(self, exchange: PrefixExchange, passing: tuple[Observer, ...]) -> None:
        store = self.world.store
        try:
            exchange.finish(passing)
        finally:
            store.commit()
            store.discarded += exchange.staging.keyspace.shards()

    async def tidy(self, exchange: PrefixExchange) -> None:
        """Free what an exchange has left behind, when nobody waits for it any more."""
        await trio.lowlevel.checkpoint()
        for _ in exchange.tidy():
            await trio.lowlevel.checkpoint()

    async def keep(self, prefix: bytes, epoch: int) -> tuple[str, int]:
        """Write all that is under a prefix to a file of commands that nobody here reads, durably. May raise OSError.

        Its name, in which the ``epoch`` stands, and how many keys there are; without any there is no file, and no name.
        """
        await trio.lowlevel.checkpoint()
        shards = self._freeze()
        keys = await count_in(shards, prefix)
        if not keys:
            return "", 0
        start = f"{KEPT}{blake2b(prefix, digest_size=8).hexdigest()}.{epoch}"
        name = await self._in_thread(partial(self._free_name, start))
        temporary = posixpath.join(self._data_dir, f"temp-{start}")
        file = await self._in_thread(partial(self._disk.create, temporary))
        try:
            for data in _rebuilt(shards, prefix):
                if data:
                    await self._in_thread(partial(write_all, file, data))
                else:
                    await trio.lowlevel.checkpoint()
            await self._in_thread(file.sync)
        finally:
            file.close()
        await self._in_thread(partial(self._disk.rename, temporary, posixpath.join(self._data_dir, name)))
        await self._in_thread(partial(self._disk.sync_folder, self._data_dir))
        return name, keys

    def _free_name(self, start: str) -> str:
        """A name that no file has: what was kept before stays."""
        taken = set(self._disk.list(self._data_dir))
        number = 1
        while f"{start}.{number}.aof" in taken:
            number += 1
        return f"{start}.{number}.aof"

    async def give_back(self, prefix: bytes) -> None:
        """Hold under the prefix of another node a copy, or nothing. May raise ReplyError."""
        if not self.world.keeps_copy(prefix):
            await self.drop(prefix)
        self.world.leave(prefix)
        await self.world.make_durable()

    async def remove_stage(self, move_id: str) -> None:
        """Remove the file of a move's stage. May raise OSError."""
        await self._in_thread(self.file(move_id).remove)

    async def remove_strays(self, open_moves: Collection[str]) -> Collection[str]:
        """Remove the stages of all moves but those that are open; their names. May raise OSError."""
        removed: Collection[str] = await self._in_thread(
            partial(remove_strays, self._disk, self._data_dir, tuple(open_moves))
        )
        return removed
