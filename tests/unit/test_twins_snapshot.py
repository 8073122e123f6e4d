"""A snapshot is the same bytes whether the compiled parts write it or the pure ones, and the same keys for either."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.snapshots import check, collection, held, pictures, read, store_of, string
from support.snapshots import snapshot as snapshot_of

from kevynode.replicate import snapshot_encoder
from kevynode.replicate.snapshot import SnapshotDecoder, SnapshotError
from kevynode.store.keyspace import KeyShard
from kevynode.store.staging import PrefixStaging, Staging
from kevynode.store.store import Store
from kevynode.store.stream_values import Stream
from kevynode.store.values import Hash, List, Set, SortedSet, Value

compiled_snapshot = pytest.importorskip("kevynode.compiled.snapshot", reason="the compiled parts are not built")

# Around the bounds at which records are cut or left to the pure code.
texts = st.one_of(
    st.binary(max_size=12),
    st.integers(0, 12).map(lambda size: bytes(size * 128)),
    st.sampled_from([b"x" * size for size in (1022, 1023, 1024, 16383, 16384, 16385, 32768, 40000)]),
)
scores = st.floats(allow_nan=False).map(lambda score: score + 0.0)
deadlines = st.one_of(st.none(), st.sampled_from([-5, 0, 1, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]))


def hash_of(fields: dict[bytes, bytes], deadline: int | None) -> Hash:
    value = Hash()
    for field, content in fields.items():
        value.put(field, content)
    if deadline is not None:
        value.set_deadline(next(iter(fields)), deadline)
    return value


def list_of(elements: list[bytes]) -> List:
    value = List()
    value.extend_right(elements)
    return value


def many(count: int) -> list[bytes]:
    return [b"%d" % index for index in range(count)]


def container(kind: str, count: int) -> Value:
    match kind:
        case "hash":
            return hash_of(dict.fromkeys(many(count), b"v"), None)
        case "list":
            return list_of(many(count))
        case "set":
            return Set.of(many(count))
        case _:
            return SortedSet.of(dict.fromkeys(many(count), 1.5))


# Around the sizes from which on containers are cut up.
large = st.builds(
    container,
    st.sampled_from(["hash", "list", "set", "sorted set"]),
    st.sampled_from([200, 256, 257, 700, 1024, 1025, 3000]),
)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    stream = Stream()
    for milliseconds in range(draw(st.integers(0, 3))):
        stream.append((milliseconds, 1), (b"f", draw(texts)))
    return stream


values: st.SearchStrategy[Value] = st.one_of(
    texts,
    texts,
    st.builds(hash_of, st.dictionaries(texts, texts, min_size=1, max_size=4), st.sampled_from([None, None, 0, 77])),
    st.lists(texts, min_size=1, max_size=5).map(list_of),
    st.sets(texts, min_size=1, max_size=4).map(sorted).map(Set.of),
    st.dictionaries(texts, scores, min_size=1, max_size=4).map(SortedSet.of),
    large,
    streams(),
)


def snapshot(monkeypatch: pytest.MonkeyPatch, compiled: bool, shards: list[KeyShard], **options: Any) -> list[bytes]:
    with monkeypatch.context() as patch:
        patch.setattr(snapshot_encoder, "COMPILED", compiled)
        patch.setattr(snapshot_encoder, "ShardWriter", compiled_snapshot.ShardWriter, raising=False)
        return list(snapshot_encoder.encode_snapshot(shards, **options))


def same_snapshots(store: Store, accept: Callable[[bytes], bool] | None = None) -> bytes:
    """Both snapshots of a store in every version are the same; the last one."""
    written = b""
    with pytest.MonkeyPatch.context() as patch:
        for version in (4, 5, 6):
            options: dict[str, Any] = {"version": version, "cursor": (7, 9), "accept": accept}
            expected = snapshot(patch, False, store.freeze(), **options)
            got = snapshot(patch, True, store.freeze(), **options)
            written = b"".join(got)
            assert written == b"".join(expected)
            assert max(map(len, got)) <= 64 * 1024
    return written


@given(st.dictionaries(texts, st.tuples(values, deadlines), max_size=12), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_store(content: dict[bytes, tuple[Value, int | None]], filtered: bool) -> None:
    same_snapshots(store_of(content), (lambda key: len(key) % 2 == 0) if filtered else None)


def test_many_shards_with_a_few_odd_records_among_strings() -> None:
    content: dict[bytes, tuple[Value, int | None]] = {}
    for index in range(5000):
        value: Value = b"v" * (index % 90)
        if index % 97 == 0:
            value = Stream()
        elif index % 101 == 0:
            value = hash_of({b"f": b"v"}, 123 if index % 2 else None)
        content[b"key:%d" % index] = (value, 1_800_000_000_000 + index if index % 5 == 0 else None)
    store = store_of(content)
    written = same_snapshots(store)
    assert len(store.freeze()) > 4
    decoder = read(written)
    check(decoder.staging)
    assert held(decoder) == pictures(store.keyspace.shards())


def test_writes_that_come_while_a_shard_is_written_are_not_in_it() -> None:
    store = store_of({b"key:%d" % index: (b"old" * 30, None) for index in range(3000)})
    before = same_snapshots(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_encoder, "COMPILED", True)
        patch.setattr(snapshot_encoder, "ShardWriter", compiled_snapshot.ShardWriter, raising=False)
        written = b""
        for number, piece in enumerate(snapshot_encoder.encode_snapshot(store.freeze(), version=6, cursor=(7, 9))):
            written += piece
            for index in range(number, 3000, 7):
                store.delete(b"key:%d" % index)
                store.put(b"new:%d:%d" % (number, index), b"new")
    assert written == before


def test_many_small_containers_are_cut_and_the_same() -> None:
    small = list_of([b"x"])
    same_snapshots(store_of({b"%d" % number: (small, None) for number in range(3000)}))


def test_what_is_no_shard_of_keys_is_refused() -> None:
    with pytest.raises(TypeError, match="not a shard"):
        compiled_snapshot.ShardWriter({b"key": b"value"})


def test_a_shard_is_walked_record_by_record() -> None:
    shard = KeyShard()
    shard[b"a"] = b"1"
    shard[b"b"] = b"2"
    shard[b"c"] = stream = Stream()
    shard[b"d"] = b"4"
    writer = compiled_snapshot.ShardWriter(shard)
    assert writer.records(1) == b"\1\0\1\0\0\0a\1\0\0\0001"
    assert writer.records(1000) == b"\1\0\1\0\0\0b\1\0\0\0002"
    assert writer.records(1000) == b""
    assert not writer.has_containers
    assert writer.step() == (b"c", stream)
    assert writer.has_containers
    assert writer.step() == (b"d", b"4")
    assert (writer.step(), writer.records(1000)) == (None, b"")


# -- reading ----------------------------------------------------------------------------------------------------------

few_keys = st.sampled_from([b"", b"a", b"b", b"prefix:a", b"k" * 300])
records = st.one_of(
    st.builds(string, few_keys, texts),
    st.builds(string, few_keys, texts),
    st.builds(string, few_keys, texts, st.sampled_from([0, 5, 1 << 63])),
    st.builds(collection, st.sampled_from([2, 3, 4]), few_keys, texts, texts),
    st.sampled_from([b"\1\2" + string(b"odd", b"flag")[2:], b"\1\0\xff\xff\xff\xffx", b"\x09", b"\1\0", b"\0"]),
)


def decoded(data: bytes, places: list[int], compiled: bool, prefixes: tuple[bytes, ...] | None) -> Any:
    """What has been read after each piece of a snapshot, and what went wrong."""
    decoder = SnapshotDecoder(PrefixStaging(prefixes) if prefixes else Staging(), now_ms=1000)
    decoder._put_strings = compiled_snapshot.put_strings if compiled else None
    seen: list[Any] = []
    try:
        for start, stop in itertools.pairwise([0, *places, len(data)]):
            decoder.feed(data[start:stop])
            seen.append((decoder.staging.count, decoder.staging.used, decoder.finished))
        decoder.finish()
    except SnapshotError as error:
        seen.append(error.reason)
    check(decoder.staging)
    return seen, held(decoder)


@given(st.lists(records, max_size=10), st.data(), st.sampled_from([2, 4, 6]), st.sampled_from([None, (b"prefix:",)]))
@settings(max_examples=300, deadline=None)
def test_any_snapshot_is_read_alike(
    found: list[bytes], data: st.DataObject, version: int, prefixes: tuple[bytes, ...] | None
) -> None:
    written = snapshot_of(*found, version=version)
    places = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=5)))
    assert decoded(written, places, True, prefixes) == decoded(written, places, False, prefixes)


@pytest.mark.parametrize("step", [1000, 16384, 1 << 30])
def test_many_strings_are_read_alike(step: int) -> None:
    """So many that shards are divided, which come in no order of their hashes."""
    draw = random.Random(step)
    found = [string(b"key:%d" % draw.randrange(9000), b"v" * draw.randrange(100)) for _ in range(9000)]
    found += [string(b"key:%d" % index, b"late", 77 + index) for index in range(0, 9000, 700)]
    written = snapshot_of(*found)
    places = list(range(step, len(written), step))
    assert decoded(written, places, True, None) == decoded(written, places, False, None)
