"""The compiled parts of a replica do as the pure ones do, whatever its primary sends, and however it is cut."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_harness import content

from kevynode.persist.recorder import JournalRecorder
from kevynode.replicate import wire
from kevynode.replicate.follower import Follower
from kevynode.replicate.handshake import Form, Request
from kevynode.replicate.lineage import MAX_OFFSET, Lineage
from kevynode.replicate.replica import ReplicaLink
from kevynode.replicate.replica_events import State
from kevynode.replicate.stream_decoder import StreamDecoder
from kevynode.replicate.stream_events import GROUP_BYTES_LIMIT, Frames
from kevynode.serve.table import TABLE
from kevynode.store.apply import Applier, ApplyError
from kevynode.store.journal import Effect
from kevynode.store.sharded import SHARD_LIMIT
from kevynode.store.store import Store

pytest.importorskip("kevynode.compiled.following", reason="the compiled parts are not built")

from kevynode.compiled import apply as compiled_apply
from kevynode.compiled import following as compiled_following
from kevynode.compiled import frames as compiled_frames

# -- the decoder ------------------------------------------------------------------------------------------------------

words = st.one_of(
    st.sampled_from([b"", b"SET", b"set", b"k", b"\r\n", b"*2\r\n:1\r\n", b"a" * 17, b"v" * 5000, b"\x00\xff"]),
    st.binary(max_size=20),
)
offsets = st.sampled_from([0, 1, 2, 3, 9, 10, 10**18, MAX_OFFSET - 1, MAX_OFFSET, MAX_OFFSET + 1])
runs = st.builds(wire.encode_frames, offsets, st.lists(st.lists(words, min_size=1, max_size=5), min_size=1, max_size=4))
groups = st.builds(lambda count, run: wire.group(count) + run, st.integers(1, 4), runs)
odd_units = st.one_of(
    st.sampled_from(
        [
            b"*2\r\n:01\r\n*1\r\n$1\r\nx\r\n",
            b"*2\r\n:-1\r\n*1\r\n$1\r\nx\r\n",
            b"*2\r\n:1\r\n*01\r\n$1\r\nx\r\n",
            b"*2\r\n:1\r\n*1\r\n$01\r\nx\r\n",
            b"*2\r\n:1\r\n*1\r\n$2\r\nx\r\n\r\n",
            b"*2\r\n:1\r\n*1\r\n$1\r\nxy\r\n",
            b"*2\r\n:1\r\n*0\r\n",
            b"*2\r\n:1\r\n*1024\r\n" + b"$0\r\n\r\n" * 1024,
            b"*2\r\n:1\r\n*1023\r\n" + b"$0\r\n\r\n" * 1023,
            b"*2\r\n:1\r\nSET k v\r\n",
            b"*2\r\n:1\r\n$3\r\nSET\r\n",
            b"*2\r\n:18446744073709551617\r\n*1\r\n$1\r\nx\r\n",
            b"*2\r\n:1\r\n*1\r\n$99999999999\r\n",
            b"*2\r\n:1\r\n*1\r\n$9223372036854775807\r\nx",
            b"*3\r\n:1\r\n",
            b"*2\n:1\n",
            b"-ERR no\r\n",
            b"+NONSENSE\r\n",
            b"+TXN 2\r\n",
            b"+PING 7 3\r\n",
            b"+PING " + b"7" * 300 + b"\r\n",
            b"+" + b"x" * 5000,
            b"+SKIP 3\r\n",
            b"+SNAPSHOT\r\n",
            wire.chunk(b"data\r\n*2\r\n"),
            wire.snapshot_end(2),
        ]
    ),
    st.binary(max_size=12),
)
units = st.one_of(runs, runs, groups, odd_units)


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    stream = b"".join(draw(st.lists(units, max_size=8)))
    if draw(st.booleans()):
        # One byte is another one.
        place = draw(st.integers(0, len(stream)))
        stream = stream[:place] + draw(st.binary(max_size=1)) + stream[place + 1 :]
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    return [stream[start:stop] for start, stop in zip([0, *places], [*places, len(stream)], strict=True)]


def decoders(**limits: int) -> list[StreamDecoder]:
    twins = [StreamDecoder(**limits), StreamDecoder(**limits)]
    twins[0]._take_frames, twins[1]._take_frames = None, compiled_frames.take_frames
    return twins


@given(cut_streams(), st.sampled_from([4096, 1 << 30]), st.sampled_from([60, 1000, GROUP_BYTES_LIMIT]))
@settings(max_examples=300, deadline=None)
def test_decoders_say_the_same(chunks: list[bytes], bulk_limit: int, group_bytes_limit: int) -> None:
    twins = decoders(bulk_limit=bulk_limit, group_bytes_limit=group_bytes_limit)
    for chunk in chunks:
        pure, compiled = (decoder.feed(chunk) for decoder in twins)
        assert compiled == pure
        assert str(twins[1].error) == str(twins[0].error)
        assert twins[1].held == twins[0].held


def test_a_stream_that_is_cut_anywhere_comes_whole() -> None:
    commands = [[b"SET", b"k", b"a\r\nb"], [b"DEL", b"k"], [b"SET", b"k", b""]]
    stream = wire.encode_frames(98, commands)
    for cut in range(len(stream) + 1):
        decoder = decoders()[1]
        found = [event for part in (stream[:cut], stream[cut:]) for event in decoder.feed(part)]
        assert decoder.error is None
        assert all(isinstance(event, Frames) for event in found)
        assert [command for event in found for command in event.commands] == commands  # type: ignore[union-attr]
        assert b"".join(event.raw for event in found) == stream  # type: ignore[union-attr]


def test_no_more_frames_than_wanted_are_taken() -> None:
    stream = wire.encode_frames(5, [[b"SET", b"k", b"%d" % number] for number in range(4)])
    for grouped in (False, True):
        first, place, commands = compiled_frames.take_frames(stream, 0, 3, 100, grouped)
        assert (first, [command[2] for command in commands]) == (5, [b"0", b"1", b"2"])
        assert stream[place:] == wire.frame(8, [b"SET", b"k", b"3"])


def test_sets_that_follow_each_other_are_as_good_as_a_list() -> None:
    argvs = [[b"SET", b"k%d" % number, b"\r\n" * number] for number in range(700)]
    stream = wire.encode_frames(MAX_OFFSET - 700, argvs)
    first, place, commands = compiled_frames.take_frames(stream, 0, len(stream), 1 << 30, False)
    assert (first, place) == (MAX_OFFSET - 700, len(stream))
    assert not isinstance(commands, list)
    assert (len(commands), list(commands), commands) == (700, argvs, argvs)
    assert (commands[0], commands[-1], commands[3:5], commands[698:]) == (argvs[0], argvs[-1], argvs[3:5], argvs[698:])
    for outside in (700, -701):
        with pytest.raises(IndexError):
            commands[outside]


@pytest.mark.parametrize(
    "last", [[b"set", b"k", b"v"], [b"SET", b"k", b"v", b"NX"], [b"DEL", b"k"], [b"SET", b"k", b"v" * 5000]]
)
def test_what_is_no_plain_set_makes_a_list(last: list[bytes]) -> None:
    argvs = [[b"SET", b"a", b"1"], [b"SET", b"b", b""], last, [b"SET", b"c", b"3"]]
    stream = wire.encode_frames(0, argvs)
    first, place, commands = compiled_frames.take_frames(stream, 0, 9, 4096, False)
    fits = len(last[-1]) <= 4096
    assert (first, list(commands)) == (0, argvs if fits else argvs[:2])
    assert place == len(stream if fits else wire.encode_frames(0, argvs[:2]))
    assert isinstance(commands, list) is fits


# -- the applier ------------------------------------------------------------------------------------------------------

keys = st.sampled_from([b"a", b"b", b"c", b"d", b"", b"\x00\r\n"])
values = st.one_of(st.sampled_from([b"", b"1", b"10", b"x" * 70, b"9223372036854775807"]), st.binary(max_size=6))
plain = st.tuples(st.sampled_from([b"SET", b"SET", b"SET", b"set"]), keys, values)
known = st.one_of(
    st.tuples(st.just(b"SET"), keys, values, st.just(b"PXAT"), st.sampled_from([b"1", b"1000050", b"9000000"])),
    st.tuples(st.sampled_from([b"LPUSH", b"RPUSH", b"SADD", b"APPEND", b"INCRBY"]), keys, values),
    st.tuples(st.sampled_from([b"INCR", b"DEL", b"PERSIST", b"incr"]), keys),
    st.tuples(st.just(b"HSET"), keys, values, values),
    st.tuples(st.just(b"ZADD"), keys, st.sampled_from([b"1", b"1.5", b"x"]), values),
    st.tuples(st.just(b"PEXPIREAT"), keys, st.sampled_from([b"1", b"1000050", b"9000000"])),
)
unknown = st.sampled_from(
    [(b"FLUSHALL",), (b"Set", b"a", b"1"), (b"GET", b"a"), (b"SET", b"a"), (b"", b""), (b"INCR",)]
)
batches = st.one_of(
    st.lists(st.one_of(plain, plain, plain, known), max_size=12),
    st.lists(st.one_of(plain, known, unknown), max_size=12),
)
events = st.sampled_from(["freeze", "later", "track", "untrack", "tell"])


def copy_of(seed: int = 1) -> Store:
    store = Store(random.Random(seed))
    store.deletes_expired = False
    store.now = 1_000_000
    return store


def state_of(store: Store) -> Any:
    return content(store), store.used, store.now, len(store.keyspace), store.expired_keys, store.journal.offset


def apply(applier: Applier, commands: Sequence[tuple[bytes, ...]]) -> Any:
    """What becomes of commands: the effects, and the error."""
    try:
        applier.apply_all([list(command) for command in commands])
        failure = None
    except ApplyError as error:
        failure = (error.name, error.key, error.reason, error.applied, type(error.__cause__))
    pending = [(list(effect), key, told) for effect, key, told in applier.store.journal.pending]
    applier.store.commit()
    return failure, pending


@given(st.lists(st.one_of(batches, batches, events), max_size=12))
@settings(max_examples=200, deadline=None)
def test_appliers_do_the_same(steps: list[Any]) -> None:
    twins = [Applier(copy_of(), TABLE), Applier(copy_of(), TABLE)]
    twins[0]._apply_known = None
    twins[1]._apply_known = compiled_apply.apply_known
    seen: list[list[Any]] = [[], []]
    for step in steps:
        if isinstance(step, str):
            for applier, heard in zip(twins, seen, strict=True):
                _happen(applier.store, heard, step)
            continue
        pure, compiled = (apply(applier, step) for applier in twins)
        assert compiled == pure
        assert state_of(twins[1].store) == state_of(twins[0].store)
    assert seen[0] == seen[1]


def _happen(store: Store, heard: list[Any], event: str) -> None:
    match event:
        case "freeze":
            store.freeze()
        case "later":
            store.now += 60
        case "track":
            store.tracker = lambda _, key: heard.append((store.now, key))
        case "tell":
            store.settings.notify_keyspace_events = -1
            store.on_event = lambda *event: heard.append(event)
        case _:
            store.tracker = None


def test_many_keys_stay_the_same() -> None:
    """Shards split, also while a snapshot holds them."""
    twins = [Applier(copy_of(), TABLE), Applier(copy_of(), TABLE)]
    twins[0]._apply_known = None
    twins[1]._apply_known = compiled_apply.apply_known
    draw = random.Random(5)
    for step in range(40):
        batch = [(b"SET", b"k%d" % draw.randrange(10 * SHARD_LIMIT), b"x" * draw.randrange(60)) for _ in range(500)]
        pure, compiled = (apply(applier, batch) for applier in twins)
        assert compiled == pure
        if step % 11 == 7:
            for applier in twins:
                applier.store.freeze()
    assert state_of(twins[1].store) == state_of(twins[0].store)


def test_a_handler_that_breaks_is_told_with_its_place() -> None:
    def broken(store: Store, argv: Any) -> None:
        raise ZeroDivisionError("broken")

    applier = Applier(copy_of(), TABLE)
    applier._apply_known = compiled_apply.apply_known
    applier._entries[b"INCR"] = (broken, 2, 2, True)
    failure, pending = apply(applier, [(b"SET", b"a", b"1"), (b"INCR", b"a"), (b"SET", b"b", b"1")])
    assert failure == (b"INCR", b"a", "ZeroDivisionError('broken')", 1, ZeroDivisionError)
    assert len(pending) == 1
    assert applier.store.lookup(b"b") is None


# -- the follower -----------------------------------------------------------------------------------------------------


class Ticks:
    """Time that passes by being looked at."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return float(self.looks)

    def wall(self) -> float:
        return 1000.0


class Rest:
    """The rest of a node, and its log: what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def entries_applied(self, *facts: Any) -> None:
        self.calls.append(facts)

    def diverged(self) -> None:
        self.calls.append("diverged")

    def note_cursor(self, *facts: Any) -> None:
        self.calls.append(("cursor", *facts))

    def error(self, event: str, /, **fields: Any) -> None:
        self.calls.append((event, repr(fields.get("error")), fields.get("reason")))


class Copy:
    """A follower with a link that is live, and whoever observes its journal."""

    def __init__(self, compiled: bool, observers: Sequence[str], adopts: bool) -> None:
        self.store = copy_of()
        self.rest = Rest()
        self.heard: list[Any] = []
        applier = Applier(self.store, TABLE)
        parts: Any = (
            (compiled_apply.apply_known, compiled_following.put_entries, compiled_following.commit_each)
            if compiled
            else (None, None, None)
        )
        self.follower = Follower(
            "host",
            7,
            store=self.store,
            applier=applier,
            transport=None,  # type: ignore[arg-type]
            clock=Ticks(),
            random=random.Random(1),
            log=self.rest,  # type: ignore[arg-type]
            sink=self.rest,  # type: ignore[arg-type]
            replica_id="copy",
            adopts=adopts,
        )
        applier._apply_known, self.follower._put_entries, self.follower._commit_each = parts
        self.upstream = self.follower._upstreams[0]
        self.journal = self.store.journal
        self.journal.follows = adopts
        self.recorders: list[JournalRecorder] = []
        for observer in observers:
            match observer:
                case "keeps" | "counts":
                    recorder = JournalRecorder(self.journal, Lineage(3), {})
                    recorder._records = observer == "keeps"
                    self.recorders.append(recorder)
                case "listens":
                    self.journal.observers.append(self.listen)
                case _:
                    self.journal.observers.append(self.fail)
        self.connect()

    def connect(self) -> None:
        """A link that goes on where the last one stopped."""
        capabilities = frozenset({"txn", "ackreq", "lineage"})
        link = ReplicaLink(Request(Form.EXTENDED, 7, self.journal.offset, "copy", capabilities), "peer")
        link.state, link.history, link.accepted = State.LIVE, 7, capabilities
        self.upstream.link = link

    def listen(self, first: int, group: list[Effect]) -> None:
        effects = [(list(command), key, events) for command, key, events in group]
        self.heard.append((first, self.journal.offset, self.journal.origin, effects))

    def fail(self, first: int, group: list[Effect]) -> None:
        if first % 3 == 1 and self.journal.offset > first:
            raise OSError(f"cannot hear of {first}")

    def receive(self, first: int, commands: Sequence[Sequence[bytes]], grouped: bool, slice_ticks: int) -> None:
        """Entries come in, and are applied in slices."""
        argvs = [list(command) for command in commands]
        raw = wire.encode_frames(first, argvs)
        held: Sequence[list[bytes]] = argvs
        if self.follower._put_entries is not None:
            _, end, taken = compiled_frames.take_frames(raw, 0, len(raw), GROUP_BYTES_LIMIT, grouped)
            held = taken if end == len(raw) else argvs
        self.take(Frames(first, held, raw, grouped, first + len(argvs)), slice_ticks)

    def take(self, entries: Frames, slice_ticks: int) -> None:
        place = 0
        while place < len(entries.commands) and not self.follower.diverged:
            place = self.follower.apply(self.upstream, entries, place, self.follower.clock.monotonic() + slice_ticks)

    @property
    def state(self) -> Any:
        recorded = [
            (b"".join([*each._pieces, *each._parts]), each.offset, each.mark, each.failed, each.cursors)
            for each in self.recorders
        ]
        link = self.upstream.link
        assert link is not None
        return (
            (state_of(self.store), list(self.journal.pending), self.journal.origin, self.journal.outside),
            (recorded, self.heard, self.rest.calls, self.follower.diverged),
            (self.upstream.cursor, link.position, link.state, link.reason),
        )


listeners = st.sampled_from(
    [(), ("keeps",), ("counts",), ("keeps",), ("keeps", "listens"), ("fails", "keeps", "listens"), ("listens",)]
)
received = st.one_of(
    st.tuples(st.booleans(), batches.filter(bool)),
    st.tuples(st.just(False), st.lists(plain, min_size=1, max_size=30)),
    st.sampled_from(["freeze", "later", "connect", "write", "track", "untrack", "cursor"]),
)


@given(st.lists(received, max_size=10), listeners, st.booleans(), st.sampled_from([0, 1000]))
@settings(max_examples=300, deadline=None)
def test_followers_do_the_same(steps: list[Any], observers: Sequence[str], adopts: bool, slice_ticks: int) -> None:
    twins = [Copy(compiled, observers, adopts) for compiled in (False, True)]
    offset = 0
    for step in steps:
        if isinstance(step, str):
            for copy in twins:
                _befall(copy, step)
            continue
        grouped, commands = step
        for copy in twins:
            copy.receive(offset, commands, grouped, slice_ticks)
        assert twins[1].state == twins[0].state
        offset += len(commands)
        if twins[0].follower.diverged:
            break
    assert twins[1].state == twins[0].state


def _befall(copy: Copy, event: str) -> None:
    match event:
        case "connect":
            copy.connect()
        case "write":
            # Beside the stream.
            copy.store.put(b"own", b"1")
            copy.store.emit((b"SET", b"own", b"1"), b"own")
            with suppress(OSError):
                copy.store.commit()
        case "cursor":
            for recorder in copy.recorders:
                recorder.cursors[copy.upstream.address] = (7, 3)
        case _:
            _happen(copy.store, copy.heard, event)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("observers", [(), ("counts",), ("keeps",), ("keeps", "listens")])
def test_long_streams_leave_the_same(observers: Sequence[str], mixed: bool) -> None:
    """More than a batch, records of more than a piece, and keys enough for shards to split."""
    twins = [Copy(compiled, observers, True) for compiled in (False, True)]
    draw = random.Random(3)
    offset = 0
    for _ in range(6):
        commands = [[b"SET", b"k%d" % draw.randrange(5 * SHARD_LIMIT), b"x" * draw.randrange(90)] for _ in range(1700)]
        if mixed:
            commands[draw.randrange(1700)] = [b"INCR", b"n"]
        for copy in twins:
            copy.receive(offset, commands, False, 3)
        offset += len(commands)
    assert twins[1].state == twins[0].state
    assert twins[1].journal.offset == offset


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("flush", [b"FLUSHALL", b"flushdb", b"FlushAll"])
def test_it_is_told_whether_everything_may_have_been_emptied(compiled: bool, flush: bytes) -> None:
    copy = Copy(compiled, ("keeps",), True)
    copy.receive(0, [[b"SET", b"a", b"FLUSHALL"]], False, 1000)
    copy.receive(1, [[b"SET", b"a", b"1"], [flush], [b"SET", b"b", b"1"]], False, 1000)
    copy.receive(4, [[b"SET", b"a", b"2"], [b"INCR", b"b"]], True, 1000)
    assert [call[-1] for call in copy.rest.calls] == [False, True, False]
