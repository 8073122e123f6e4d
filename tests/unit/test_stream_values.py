"""Streams as values: held, copied, sized, told as commands, digested, and seen by the commands for any key."""

from __future__ import annotations

import random

import pytest
from support.session_harness import ServerHarness
from support.store_harness import START, Harness, check_memory, content, describe

from kevynode.config import NodeConfig
from kevynode.errors import ReplyError
from kevynode.reply import Status
from kevynode.serve.digest import data_digest, value_digest
from kevynode.serve.parameters import Parameters
from kevynode.store.apply import Applier
from kevynode.store.rebuild import deep_copy, rebuild_commands
from kevynode.store.stream_values import ID_LIMIT, ZERO, EntryId, Fields, Stream, format_id


def a_stream(size: int = 3) -> Stream:
    """Entries 1-0, 2-0, ..."""
    stream = Stream()
    for number in range(1, size + 1):
        stream.append((number, 0), (b"field", b"value %d" % number))
    return stream


def with_groups() -> Stream:
    """Entries, of which one has been deleted, and two groups; one entry is pending though it is gone."""
    stream = a_stream(5)
    stream.remove((2, 0))
    stream.last_id = (9, ID_LIMIT - 1)
    stream.entries_added = 12
    readers = stream.create_group(b"readers", (4, 0))
    readers.see(b"idle", START)
    readers.deliver((3, 0), b"busy", START + 5, 2)
    readers.deliver((2, 0), b"busy", START + 6, 1)
    stream.create_group(b"empty", ZERO)
    return stream


def emptied(last: EntryId) -> Stream:
    stream = a_stream(2)
    stream.trim(2)
    stream.last_id = last
    return stream


class Model:
    """What a stream should hold, kept in the plainest way."""

    def __init__(self) -> None:
        self.entries: dict[EntryId, Fields] = {}
        self.last = ZERO
        self.deleted = ZERO
        self.added = 0

    def copy(self) -> Model:
        twin = Model()
        twin.__dict__.update(self.__dict__, entries=dict(self.entries))
        return twin

    def check(self, stream: Stream) -> None:
        assert list(stream) == sorted(self.entries.items())
        assert len(stream) == len(self.entries)
        assert stream.first_id == min(self.entries, default=ZERO)
        assert stream.top_id == max(self.entries, default=ZERO)
        assert (stream.last_id, stream.max_deleted_id, stream.entries_added) == (self.last, self.deleted, self.added)
        same = Stream()
        for entry_id, fields in self.entries.items():
            same.append(entry_id, fields)
        assert stream.payload == same.payload


def work(draw: random.Random, stream: Stream, model: Model) -> None:
    match draw.randrange(12):
        case 0 if model.entries:
            gone = draw.choice(list(model.entries))
            assert stream.remove(gone)
            del model.entries[gone]
            model.deleted = max(model.deleted, gone)
        case 1:
            absent = (draw.randrange(1000), 77)
            assert not stream.remove(absent)
            assert stream.get(absent) is None
        case 2 if draw.randrange(8) == 0:
            excess = draw.randrange(len(model.entries) + 1)
            stream.trim(excess)
            for entry_id in sorted(model.entries)[:excess]:
                del model.entries[entry_id]
        case 3:
            bound = (draw.randrange(model.last[0] + 2), draw.randrange(3))
            assert stream.count_below(bound) == sum(entry_id < bound for entry_id in model.entries)
        case 4 if model.entries:
            there = draw.choice(list(model.entries))
            assert stream.get(there) == model.entries[there]
        case _:
            for _ in range(draw.randrange(1, 60)):
                entry_id = (model.last[0] + draw.randrange(2), model.last[1] + 1)
                fields = tuple(b"w" * draw.randrange(9) for _ in range(2))
                stream.append(entry_id, fields)
                model.entries[entry_id] = fields
                model.last = entry_id
                model.added += 1


@pytest.mark.parametrize("seed", range(8))
def test_it_holds_what_was_put_in_and_copies_share_nothing_that_changes(seed: int) -> None:
    draw = random.Random(seed)
    pairs = [(Stream(), Model())]
    for _ in range(300):
        stream, model = draw.choice(pairs)
        work(draw, stream, model)
        if draw.randrange(40) == 0:
            # A copy may be of the same epoch: COPY makes such.
            pairs.append((stream.copy_at(stream.epoch + draw.randrange(2)), model.copy()))
            del pairs[: -4 if len(pairs) > 4 else 0]
    for stream, model in pairs:
        model.check(stream)


def test_entries_come_in_order_only() -> None:
    stream = a_stream(3)
    for entry_id in ((3, 0), (2, 5), ZERO):
        with pytest.raises(ValueError, match="above the last one"):
            stream.append(entry_id, (b"f", b"v"))
    stream.remove((3, 0))
    with pytest.raises(ValueError, match="above the last one"):
        stream.append((3, 0), (b"f", b"v"))
    stream.append((3, 1), (b"f", b"v"))


def test_sparse_blocks_are_joined() -> None:
    stream = a_stream(10_000)
    full = stream.memory()
    for number in range(1, 10_001):
        if number % 100:
            stream.remove((number, 0))
    assert [entry_id for entry_id, _ in stream] == [(number, 0) for number in range(100, 10_001, 100)]
    assert stream.memory() < full / 50


def test_groups_are_copied_and_their_memory_comes_back() -> None:
    stream = a_stream()
    bare = stream.payload
    group = stream.create_group(b"g", (1, 0))
    assert group.see(b"alice", START)
    assert not group.see(b"alice", START + 1)
    group.deliver((1, 0), b"alice", START, 1)
    group.deliver((1, 0), b"bob", START, 2)
    group.deliver((2, 0), b"bob", START, 1)
    assert stream.payload > bare
    twin = stream.copy_at(1)
    assert group.remove_consumer(b"bob") == 2
    assert group.remove_consumer(b"bob") is None
    assert group.acknowledge((1, 0)) is False
    assert stream.remove_group(b"g")
    assert not stream.remove_group(b"g")
    assert stream.payload == bare
    copied = twin.groups[b"g"]
    assert copied.consumers == {b"alice": START + 1, b"bob": START}
    assert copied.pending == {(1, 0): (b"bob", START, 2), (2, 0): (b"bob", START, 1)}
    assert twin.remove_group(b"g")
    assert twin.payload == bare


STREAMS = {
    "entries": a_stream(),
    "many entries": a_stream(1000),
    "groups": with_groups(),
    "emptied": emptied((2, 0)),
    "emptied, its last id moved": emptied((7, 3)),
    "never filled": Stream(),
}


@pytest.mark.parametrize("deadline", [None, START + 5000, 5], ids=["for ever", "expires", "has expired"])
@pytest.mark.parametrize("name", STREAMS)
def test_commands_build_the_stream_again(name: str, deadline: int | None) -> None:
    stream = STREAMS[name]
    harness = Harness()
    harness.store.deletes_expired = False
    Applier(harness.store).apply_all(rebuild_commands(b"key", stream, deadline))
    harness.store.commit()
    assert harness.content() == {b"key": (describe(stream), deadline)}
    harness.check_memory()


def test_a_deep_copy_is_another_stream() -> None:
    stream = with_groups()
    twin = deep_copy(stream, stream.epoch)
    assert describe(twin) == describe(stream)
    assert isinstance(twin, Stream)
    twin.append((ID_LIMIT - 1, 0), (b"f", b"v"))
    twin.groups[b"readers"].acknowledge((3, 0))
    assert describe(stream) == describe(with_groups())


def test_the_digest_is_valkeys() -> None:
    harness = Harness()
    stream = Stream()
    stream.append((5, 1), (b"f", b"v", b"g", b"w"))
    stream.append((7, 0), (b"f", b"v3"))
    harness.store.put(b"s", stream)
    # As DEBUG DIGEST-VALUE of Valkey 9.1 says.
    assert value_digest(harness.store, b"s") == b"359a61eb0252bcb6604f3653ff79c050e552ee4b"
    before = data_digest(harness.store)
    stream.create_group(b"g", (5, 1))
    assert data_digest(harness.store) == before
    stream.trim(2)
    assert value_digest(harness.store, b"s") == b"06bd01623de1d087bbd377851096317b1af476a2"


def holding(stream: Stream) -> Harness:
    """A harness that holds ``stream`` under ``s``, and whose journal says so."""
    harness = Harness()
    Applier(harness.store).apply_all(rebuild_commands(b"s", stream))
    harness.store.commit()
    return harness


def test_commands_for_any_key_work_on_streams() -> None:
    harness = holding(with_groups())
    call = harness.call
    assert call("TYPE", "s") == Status(b"stream")
    assert call("OBJECT", "ENCODING", "s") == b"stream"
    assert call("SCAN", "0", "TYPE", "stream") == [b"0", [b"s"]]
    assert call("SCAN", "0", "TYPE", "list") == [b"0", []]
    assert isinstance(call("MEMORY", "USAGE", "s"), int)
    assert call("PEXPIREAT", "s", START + 1000) == 1
    assert call("COPY", "s", "t") == 1
    assert call("RENAME", "t", "u") == Status(b"OK")
    call("SET", "t", "x")
    assert call("COPY", "s", "t", "REPLACE") == 1
    assert call("PERSIST", "t") == 1
    assert content(harness.store)[b"t"] == (describe(with_groups()), None)
    assert content(harness.store)[b"u"] == (describe(with_groups()), START + 1000)
    assert call("DEL", "u") == 1
    harness.replay()
    harness.now += 2000
    assert call("EXISTS", "s", "t") == 1
    harness.replay()


@pytest.mark.parametrize(
    "line", ["GET s", "LPUSH s x", "HGET s f", "SORT s", "SORT s BY nosort", "ZADD s 1 m", "SADD s m"]
)
def test_commands_for_other_types_refuse_streams(line: str) -> None:
    reply = holding(a_stream()).call(*line.split())
    assert isinstance(reply, ReplyError)
    assert reply.prefix == "WRONGTYPE"


def test_an_empty_stream_stays_and_can_be_told() -> None:
    harness = holding(emptied((2, 0)))
    assert harness.call("EXISTS", "s") == 1
    assert harness.call("COPY", "s", "t") == 1
    harness.replay()


def test_a_snapshot_holds_on_to_what_it_was_taken_of() -> None:
    harness = holding(with_groups())
    applier = Applier(harness.store)
    with harness.frozen():
        for command in (b"XADD s 20-1 f v", b"XDEL s 3-0", b"XACK s readers 3-0", b"XTRIM s MAXLEN 1"):
            applier.apply(command.split())
            harness.store.commit()
    harness.replay()


def test_ids_are_written_as_clients_write_them() -> None:
    assert format_id((5, 0)) == b"5-0"
    assert format_id((ID_LIMIT - 1, ID_LIMIT - 1)) == b"18446744073709551615-18446744073709551615"


@pytest.mark.parametrize("is_copy", [False, True])
def test_debug_reload_keeps_streams_and_tells_what_has_expired(is_copy: bool) -> None:
    node = ServerHarness()
    config = NodeConfig.from_dict({"config": {"enable-debug-command": "yes"}})
    node.server.parameters = Parameters(node.server, config)
    client = node.connect()
    client.call("SET", "brief", "x", "PX", "10")
    client.call("HSET", "h", "f", "v", "g", "w")
    client.call("HPEXPIRE", "h", "10", "FIELDS", "1", "f")
    node.store.put(b"s", with_groups())
    node.store.put(b"empty", Stream())
    before = content(node.store)
    node.store.deletes_expired = not is_copy
    node.advance(1)
    told: list[tuple[bytes, ...]] = []
    node.store.journal.observers.append(lambda first, group: told.extend(tuple(command) for command, _, _ in group))
    assert client.call("DEBUG", "RELOAD") == b"+OK\r\n"
    if not is_copy:
        del before[b"brief"]
    assert told == ([] if is_copy else [(b"DEL", b"brief")])
    assert content(node.store) == before
    check_memory(node.store)
