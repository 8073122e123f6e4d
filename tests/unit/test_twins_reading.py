"""A program that reads a key gets the same with the compiled parts, and the same is counted."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.errors import ReplyError
from kevynode.store.store import Store
from kevynode.store.values import List

reading = pytest.importorskip("kevynode.compiled.reading", reason="the compiled parts are not built")

NOW = 1_800_000_000_000
names = st.sampled_from([b"a", b"b", b"c", b""])


def made() -> Store:
    store = Store(random.Random(1))
    store.now = NOW
    return store


def elements() -> List:
    value = List()
    value.push_right(b"element")
    return value


def pure(store: Store, key: bytes) -> bytes | str | None:
    try:
        return store.read_string(key)
    except ReplyError as error:
        return str(error)


@given(
    st.dictionaries(names, st.tuples(st.one_of(st.binary(max_size=8), st.none()), st.sampled_from([None, -1, 0, 1]))),
    st.lists(names, max_size=8),
    st.booleans(),
)
def test_reads_agree(content: dict[bytes, tuple[bytes | None, int | None]], asked: list[bytes], tracked: bool) -> None:
    """None as a value stands for a list; a deadline is told from now."""
    one, other = made(), made()
    for store in (one, other):
        for key, (value, deadline) in content.items():
            store.put(key, elements() if value is None else value)
            if deadline is not None:
                store.set_deadline(key, NOW + deadline)
        if tracked:
            store.tracker = lambda shard, key: None
    for key in asked:
        found = reading.plain_string(one, key)
        value, deadline = content.get(key, (None, None))
        if one.tracker is None:
            assert (found is not None) == (value is not None and deadline is None)
        else:
            assert found is None
        assert (pure(one, key) if found is None else found) == pure(other, key)
        assert (one.hits, one.misses, one.journal.pending) == (other.hits, other.misses, other.journal.pending)


def test_every_other_object_is_left_to_the_store() -> None:
    store = made()
    store.put(b"key", b"value")
    assert reading.plain_string(store, b"key") == b"value"
    assert reading.plain_string(store, "key") is None

    class Other(Store):
        """A store that might look elsewhere."""

    assert reading.plain_string(Other(random.Random(1)), b"key") is None
    assert store.hits == 1
