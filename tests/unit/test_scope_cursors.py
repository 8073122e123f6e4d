"""Where copies of scopes stand, and what the files are told so that a restart finds it."""

from __future__ import annotations

from typing import TypeAlias

import pytest

from kevynode.replicate.lineage import Lineage
from kevynode.replicate.mesh_following import ScopeCopy
from kevynode.replicate.scope_cursors import (
    ScopeCursors,
    descent_cursor_name,
    earlier_cursor_name,
    found_copies,
    left_cursor_name,
    parse_left,
    scope_cursor_name,
)

UP = "10.0.0.1:16004"
A, B = b"a:", b"b:"

Descent: TypeAlias = tuple[tuple[int, int], ...]


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


def test_what_earlier_writers_left_is_told_until_something_takes_its_place() -> None:
    files = Files()
    cursors = shipped(files, 7, 10, B)
    before = dict(files.cursors)
    left = {earlier_cursor_name(UP, A, 3): (99, 50), earlier_cursor_name(UP, b"a:x", 0): (98, 0)}
    cursors.leave(left)
    assert files.cursors == before | left
    own, earlier = found_copies(UP, files.cursors)
    assert (own, earlier) == ({B: ScopeCopy(7, 10, 0)}, {A: ScopeCopy(99, 50, 3), b"a:x": ScopeCopy(98, 0, 0)})
    assert found_copies("10.0.0.2:16004", files.cursors) == ({}, {})
    again = files.begin()
    assert (again.stream, again.whole, files.cursors) == ((7, 10), (B,), before | left)
    # What is followed is forgotten with its stream, and what is here stays what it is.
    again.forget_all()
    assert found_copies(UP, files.cursors) == ({}, earlier)
    again.forget_left(A)
    assert found_copies(UP, files.cursors) == ({}, {b"a:x": earlier[b"a:x"]})
    again.leave({})
    assert found_copies(UP, files.cursors) == ({}, {})


@pytest.mark.parametrize("name", ["613a+", "613a+x", "613a+\u00b2", "61+3+1", "x+1", f"613a+{10**16}"])
def test_other_names_say_nothing_of_earlier_writers(name: str) -> None:
    files = Files()
    files.cursors[f"{UP}/{name}"] = (7, 10)
    assert found_copies(UP, files.cursors) == ({}, {})
    files.begin()
    assert files.cursors == {}


# -- what the stream's history descends from --------------------------------------------------------------------------


def descent(cursors: ScopeCursors) -> Descent:
    return cursors.ancestors


def test_what_a_history_descends_from_is_known_after_a_restart() -> None:
    files = Files()
    cursors = files.begin()
    cursors.descends(7, ((6, 8), (5, 3)))
    cursors.shipped(A, 7, 10)
    cursors.placed(7, 10)
    assert descent(cursors) == descent(files.begin()) == ((6, 8), (5, 3))
    cursors.descends(8, ((7, 12), (6, 8), (5, 3)))
    # Nothing is placed in it yet.
    before = Files()
    before.cursors = dict(files.cursors)
    assert descent(cursors) == descent(before.begin()) == ((6, 8), (5, 3))
    cursors.placed(8, 12)
    assert descent(cursors) == ((7, 12), (6, 8), (5, 3))
    again = files.begin()
    assert (descent(again), again.place_of(A)) == (((7, 12), (6, 8), (5, 3)), (8, 12))


def test_what_is_known_of_a_history_is_told_once() -> None:
    files = Files()
    cursors = shipped(files)
    cursors.descends(7, ((6, 8),))
    lines = files.lines
    cursors.descends(7, ((6, 8),))
    # A link on which no ancestors are told takes none back.
    cursors.descends(7, ())
    cursors.descends(0, ((9, 9),))
    assert (files.lines, descent(cursors)) == (lines, ((6, 8),))


def test_a_history_that_comes_from_nothing_leaves_nothing_of_the_last_one() -> None:
    files = Files()
    cursors = shipped(files)
    cursors.descends(7, ((6, 8), (5, 3)))
    for prefix in (A, B):
        cursors.forget(prefix)
    cursors.descends(20, ())
    cursors.shipped(A, 20, 4)
    cursors.placed(20, 4)
    assert (descent(cursors), descent(files.begin())) == ((), ())
    assert set(files.cursors) == {UP, scope_cursor_name(UP, A)}


def test_at_every_end_of_the_files_a_history_has_its_own_ancestors() -> None:
    """Wherever the file ends while a writer's new history is told, what is found is the old one or the new one."""
    lines: list[tuple[str, int, int]] = []
    cursors = ScopeCursors(UP, lambda *line: lines.append(line), {})
    cursors.descends(7, ((6, 8),))
    cursors.shipped(A, 7, 10)
    cursors.placed(7, 10)
    first = len(lines)
    cursors.descends(20, ((19, 5), (18, 2)))
    cursors.forget(A)
    cursors.shipped(A, 20, 40)
    cursors.placed(20, 40)
    found = set()
    for end in range(first, len(lines) + 1):
        files = Files()
        for line in lines[:end]:
            files.cursors.pop(line[0], None) if not line[1] else files.note(*line)
        again = files.begin()
        found.add((again.claim(), descent(again)))
    assert found == {((7, 10), ((6, 8),)), ((0, 0), ()), ((20, 40), ((19, 5), (18, 2)))}


def test_no_more_ancestors_are_remembered_than_a_lineage_has() -> None:
    files = Files()
    cursors = shipped(files)
    lineage = Lineage(7)
    for history in range(8, 60):
        lineage = lineage.branch(history, history + 3)
        cursors.descends(lineage.history, lineage.ancestors)
        cursors.placed(lineage.history, history + 3)
        assert descent(cursors) == descent(files.begin()) == lineage.ancestors
    assert len(files.cursors) <= 3 + len(lineage.ancestors) + 1


@pytest.mark.parametrize("name", ["^", "^x", "^0", "^-1", "^007", "^9007199254740992", "^" + "9" * 40, "^\u0663"])
def test_a_name_that_is_none_of_a_history_is_forgotten(name: str) -> None:
    files = Files()
    cursors = shipped(files)
    cursors.descends(7, ((6, 8),))
    files.cursors[f"{UP}/{name}"] = (5, 5)
    assert descent(files.begin()) == ((6, 8),)
    assert f"{UP}/{name}" not in files.cursors


def test_histories_that_go_in_a_circle_end() -> None:
    files = Files()
    shipped(files)
    for history, before in ((7, 6), (6, 5), (5, 7)):
        files.cursors[descent_cursor_name(UP, history)] = (before, 3)
    assert descent(files.begin()) == ((6, 3), (5, 3))


def test_a_prefix_is_as_far_as_its_ship_even_where_the_stream_is_not() -> None:
    files = Files()
    cursors = shipped(files, 7, 10, A)
    cursors.shipped(B, 7, 18)
    # The files end before the stream's own place is told.
    again = files.begin()
    assert (again.place_of(A), again.place_of(B)) == ((7, 10), (7, 18))


def test_what_was_forgotten_before_the_start_is_not_carried_on() -> None:
    files = Files()
    shipped(files, 7, 10, A)
    dead = [descent_cursor_name(UP, 6), scope_cursor_name(UP, B), left_cursor_name(UP, B, 3)]
    files.cursors |= dict.fromkeys(dead, (0, 0))
    again = files.begin()
    assert (again.whole, again.claim()) == ((A,), (7, 10))
    assert set(files.cursors) == {UP, scope_cursor_name(UP, A)}
