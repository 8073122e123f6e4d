"""Where copies of scopes stand, and what the files are told so that a restart finds it."""

from __future__ import annotations

import pytest

from kevynode.replicate.lineage import Lineage
from kevynode.replicate.scope_cursors import ScopeCursors, left_cursor_name, parse_left, scope_cursor_name

UP = "10.0.0.1:16004"
A, B = b"a:", b"b:"


class Files:
    """What the cursors in the files are; an entry's own note comes beside :meth:`ScopeCursors.applied`."""

    def __init__(self, **found: tuple[int, int]) -> None:
        self.cursors: dict[str, tuple[int, int]] = {}
        self.lines = 0

    def note(self, name: str, history: int, offset: int) -> None:
        self.lines += 1
        self.cursors[name] = (history, offset)
        if not history:
            del self.cursors[name]

    def begin(self) -> ScopeCursors:
        """A start that finds what there is."""
        return ScopeCursors(UP, self.note, dict(self.cursors))


def shipped(files: Files, history: int = 7, offset: int = 10, *prefixes: bytes) -> ScopeCursors:
    cursors = files.begin()
    for prefix in prefixes or (A, B):
        cursors.shipped(prefix, history, offset)
    cursors.placed(history, offset)
    return cursors


def test_nothing_is_claimed_before_a_prefix_is_whole() -> None:
    cursors = ScopeCursors(UP, Files().note, {})
    assert (cursors.claim(), cursors.whole, cursors.settled) == ((0, 0), (), 0)
    cursors.placed(7, 10)
    assert cursors.claim() == (0, 0)
    cursors.shipped(A, 7, 10)
    assert cursors.claim() == (7, 10)
    assert (cursors.is_whole(A), cursors.is_whole(B)) == (True, False)


def test_a_start_finds_what_was_told() -> None:
    files = Files()
    cursors = shipped(files)
    cursors.moved(20)
    # What is passed over is not told each time.
    assert files.begin().claim() == (7, 10)
    cursors.moved(20 + 4096)
    assert files.begin().claim() == (7, 4116)
    assert set(files.begin().whole) == {A, B}
    # It never goes back.
    cursors.moved(5)
    assert cursors.stream == (7, 4116)


def test_the_entries_of_a_ship_are_told_from_those_behind_it() -> None:
    files = Files()
    cursors = shipped(files, 7, 10, A)
    cursors.moved(15)
    cursors.shipped(B, 7, 18)
    again = files.begin()
    assert again.claim() == (7, 10)
    assert [again.holds(A, 9), again.holds(A, 10), again.holds(B, 17), again.holds(B, 18)] == [True, False, True, False]
    assert again.settled == 18


def test_a_new_history_is_told_for_every_prefix() -> None:
    files = Files()
    cursors = shipped(files)
    cursors.placed(8, 12)
    assert files.cursors == {UP: (8, 12), scope_cursor_name(UP, A): (8, 10), scope_cursor_name(UP, B): (8, 10)}
    assert set(files.begin().whole) == {A, B}


def test_what_is_forgotten_is_not_found_again() -> None:
    files = Files()
    cursors = shipped(files)
    cursors.keep([B])
    assert (cursors.whole, files.begin().whole) == ((B,), (B,))
    cursors.forget_all()
    assert (cursors.claim(), files.begin().claim()) == ((0, 0), (0, 0))


def test_a_stream_from_before_the_ship_is_no_place_to_go_on_from() -> None:
    files = Files()
    shipped(files, 7, 50)
    # The ship is in another history, and the files end before the stream's own place is told.
    for prefix in (A, B):
        files.note(scope_cursor_name(UP, prefix), 9, 30)
    again = files.begin()
    assert again.claim() == (9, 30)
    assert set(again.whole) == {A, B}


def test_prefixes_of_two_histories_are_not_taken_for_one() -> None:
    files = Files()
    shipped(files, 7, 50)
    files.note(scope_cursor_name(UP, A), 9, 30)
    again = files.begin()
    assert again.claim() == (7, 50)
    assert again.whole == (B,)
    assert scope_cursor_name(UP, A) not in files.cursors


def test_a_history_that_is_not_told_leaves_nothing_to_go_on_from() -> None:
    files = Files()
    cursors = shipped(files, 0, 10)
    assert cursors.is_whole(A)
    assert cursors.claim() == (0, 0)
    assert files.cursors == {}
    cursors.placed(7, 12)
    assert set(files.begin().whole) == {A, B}


@pytest.mark.parametrize("name", [f"{UP}/zz", "10.0.0.2:16004/613a", f"{UP}0/613a"])
def test_names_that_are_none_of_ours_are_no_prefixes(name: str) -> None:
    files = Files()
    cursors = ScopeCursors(UP, files.note, {name: (7, 5), UP: (7, 5)})
    assert (cursors.whole, cursors.claim()) == ((), (0, 0))


def test_what_is_too_long_for_a_line_is_not_told() -> None:
    files = Files()
    cursors = shipped(files, 7, 10, b"p" * 257)
    assert cursors.is_whole(b"p" * 257)
    assert list(files.cursors) == [UP]


@pytest.mark.parametrize(
    ("lineage", "shared"),
    [
        (Lineage(7), True),
        (Lineage(8, ((7, 18),)), True),
        (Lineage(8, ((7, 17),)), False),
        (Lineage(8), False),
    ],
)
def test_a_ship_beyond_the_stream_counts_in_what_the_writer_must_share(lineage: Lineage, shared: bool) -> None:
    cursors = shipped(Files(), 7, 10, A)
    cursors.shipped(B, 7, 18)
    assert cursors.is_shared(lineage) is shared


def test_what_the_last_writer_left_is_told_and_found_with_the_place_to_hear_of_it_from() -> None:
    files = Files()
    cursors = files.begin()
    cursors.placed(7, 10)
    left = {left_cursor_name(UP, A, 3): (99, 50)}
    cursors.leave(left)
    cursors.leave(left)
    assert files.cursors == {UP: (7, 10)} | left
    again = files.begin()
    # It is no copy of this stream yet.
    assert (again.stream, again.whole, again.claim()) == ((7, 10), (), (0, 0))
    lines = files.lines
    again.leave(left)
    assert files.lines == lines
    again.leave({})
    assert files.cursors == {UP: (7, 10)}


@pytest.mark.parametrize("name", ["", UP, f"{UP}/613a", f"{UP}/613a@x", f"{UP}/xy@1", "10.0.0.2:16004/613a@1"])
def test_other_names_say_nothing_of_what_was_left(name: str) -> None:
    assert parse_left(UP, name) is None
    assert parse_left(UP, left_cursor_name(UP, A, 3)) == (A, 3)
