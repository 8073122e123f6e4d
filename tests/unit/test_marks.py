"""Marks in the journal: told from every deletion, nothing to whoever does not know them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.store_harness import Harness, content

from kevynode.replicate import wire
from kevynode.replicate.backlog import Backlog
from kevynode.replicate.released import ReleasedPrefixes
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


def test_what_was_released_is_told_to_the_files_and_found_again() -> None:
    files: dict[str, tuple[int, int]] = {}

    def note(name: str, history: int, offset: int) -> None:
        files[name] = (history, offset)
        if not history:
            del files[name]

    released = ReleasedPrefixes()
    for offset, mark in enumerate([Release(b"a:", 1, "n2"), Release(b"b:", 1, "n2"), Release(b"p" * 257, 1, "n2")]):
        released.passed(mark, offset)
        released.note(mark, 77, note)
    assert released.before(1) == [b"a:"]
    assert released.before(3) == [b"a:", b"b:", b"p" * 257]
    assert files == {"released/613a": (77, 0), "released/623a": (77, 1)}
    again = ReleasedPrefixes()
    assert again.find(files | {"h:1": (5, 5), "released/zz": (5, 5)}) == {"h:1": (5, 5)}
    assert again.before(3) == [b"a:", b"b:"]
    released.passed(Acquire(b"a:", 2, 5, 9), 5)
    released.note(Acquire(b"a:", 2, 5, 9), 77, note)
    assert (released.before(9), files) == ([b"b:", b"p" * 257], {"released/623a": (77, 1)})


def test_what_was_acquired_again_is_not_released_after_a_restart() -> None:
    """The files keep such a cursor, without a history: they may have begun with one that had it."""
    files: dict[str, tuple[int, int]] = {}
    released = ReleasedPrefixes()
    marks: tuple[Mark, ...] = (Release(b"a:", 1, "n2"), Acquire(b"a:", 2, 5, 9))
    for offset, mark in enumerate(marks):
        released.passed(mark, offset)
        released.note(mark, 77, lambda name, history, offset: files.update({name: (history, offset)}))
    assert files == {"released/613a": (0, 0)}
    again = ReleasedPrefixes()
    assert again.find(files) == {}
    assert again.before(100) == []


def test_a_mark_among_the_entries_is_newer_than_the_cursor_beside_it() -> None:
    """The files may end between an entry and what is said of it."""
    released = ReleasedPrefixes()
    released.passed(Acquire(b"a:", 2, 5, 9), 40)
    released.passed(Release(b"b:", 2, "n2"), 41)
    released.find({"released/613a": (77, 10), "released/623a": (77, 11), "released/633a": (77, 12)})
    assert sorted(released.before(100)) == [b"b:", b"c:"]
    assert released.before(41) == [b"c:"]
