"""Marks in the journal: told from every deletion, nothing to whoever does not know them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_harness import Harness, content

from kevynode.replicate import wire
from kevynode.replicate.backlog import Backlog
from kevynode.store.apply import Applier
from kevynode.store.marks import MARK_KEY, Acquire, Mark, Release, parse_mark

numbers = st.integers(0, 2**63 - 1)
ids = st.text(st.characters(codec="utf-8", exclude_characters=" "), min_size=1)
MARKS: list[Mark] = [Release(b"a:", 1, "b"), Acquire(b"a:", 1, 7, 5)]


@given(
    st.one_of(st.builds(Release, st.binary(), numbers, ids), st.builds(Acquire, st.binary(), numbers, *[numbers] * 2))
)
def test_a_mark_says_what_it_was_made_of(mark: Mark) -> None:
    assert parse_mark(mark.command()) == mark


@pytest.mark.parametrize(
    "command",
    [
        [b"DEL", Release(b"a:", 1, "b").command()[1]],
        [b"del", b"key"],
        [b"del", MARK_KEY],
        [b"del", MARK_KEY + b"release 1 b"],
        [b"del", MARK_KEY + b"release -1 b a:"],
        [b"del", MARK_KEY + b"release 1 \xff a:"],
        [b"del", MARK_KEY + b"acquire 1 7 a:"],
        [b"del", MARK_KEY + b"acquire 1 7@99999999999999999999 a:"],
        [b"del", MARK_KEY + b"other 1 b a:"],
        [b"del", *Release(b"a:", 1, "b").command()],
    ],
)
def test_anything_else_is_no_mark(command: list[bytes]) -> None:
    assert parse_mark(command) is None


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("mark", MARKS)
def test_a_copy_takes_a_mark_for_one_entry_that_changes_nothing(mark: Mark, lenient: bool) -> None:
    harness = Harness()
    key = mark.command()[1]
    harness.call("SET", key, "v")
    before = content(harness.store)
    Applier(harness.store, lenient=lenient).apply(mark.command())
    assert harness.store.journal.pending == [(mark.command(), key, ())]
    assert content(harness.store) == before
    harness.store.journal.pending.clear()
    Applier(harness.store, lenient=True).apply([b"del", b"nothing", key])
    assert content(harness.store) == {}
    harness.store.journal.pending.clear()


def test_behind_a_release_nothing_of_the_prefix_is_sent_until_it_is_acquired() -> None:
    backlog = Backlog(1 << 20, 0)
    commands: list[tuple[bytes, ...]] = [
        (b"SET", b"a:1", b"v"),
        MARKS[0].command(),
        (b"DEL", b"a:1"),
        (b"SET", b"b:1", b"v"),
        MARKS[1].command(),
        (b"SET", b"a:2", b"v"),
    ]
    for command in commands:
        backlog.add([(command, command[1], ())])
    backlog.seal()

    def sent(start: int, released: list[bytes], limit: int = 1 << 20) -> list[int]:
        cursor = backlog.cursor(start)
        parts: list[bytes] = []
        expected = start
        while cursor.offset < backlog.next:
            more, expected = backlog.read_filtered(cursor, lambda key: key.startswith(b"a:"), limit, expected, released)
            parts += more
        data = b"".join(parts)
        return [offset for offset, command in enumerate(commands) if wire.frame(offset, command) in data]

    released: list[bytes] = []
    assert sent(0, released) == sent(0, [], 1) == [0, 1, 4, 5]
    assert released == []
    # Whoever goes on in between knows what was released before.
    assert sent(2, [b"a:"]) == [4, 5]
    # What others have marked is none of this node's.
    backlog.add([(MARKS[0].command(), b"", ())], own=False)
    backlog.add([((b"SET", b"a:3", b"v"), b"a:3", ())])
    commands += [MARKS[0].command(), (b"SET", b"a:3", b"v")]
    backlog.seal()
    assert sent(6, []) == [7]
