"""The journal's numbers: one offset for each effect, or those that a copied entry came with."""

from __future__ import annotations

import pytest

from kevynode.store.journal import Effect, Journal


def effect(name: bytes) -> Effect:
    return (b"SET", name, b"1"), name, ()


def test_a_group_takes_one_offset_for_each_effect() -> None:
    journal = Journal(7)
    heard: list[tuple[int, int]] = []
    journal.observers.append(lambda first, group: heard.append((first, len(group))))
    journal.pending += [effect(b"a"), effect(b"b")]
    journal.commit()
    journal.commit()
    assert (journal.offset, heard) == (9, [(7, 2)])


@pytest.mark.parametrize("effects", [0, 1, 3])
def test_a_copied_group_keeps_the_numbers_it_came_with(effects: int) -> None:
    journal = Journal(7)
    heard: list[tuple[int, int]] = []
    journal.observers.append(lambda first, group: heard.append((first, len(group))))
    journal.pending += [effect(b"a")] * effects
    journal.commit(8)
    assert journal.offset == 8
    assert heard == ([(7, effects)] if effects else [])


def test_what_is_written_beside_a_followed_stream_has_no_number() -> None:
    journal = Journal(7)
    heard: list[int] = []
    journal.observers.append(lambda first, group: heard.append(first))
    journal.follows = True
    journal.pending.append(effect(b"local"))
    journal.commit()
    assert (journal.offset, heard) == (7, [7])


def test_every_observer_hears_of_a_group_even_if_one_fails() -> None:
    journal = Journal()
    heard: list[int] = []

    def fail(first: int, group: list[Effect]) -> None:
        raise ValueError("broken")

    journal.observers += [fail, lambda first, group: heard.append(first)]
    journal.pending.append(effect(b"a"))
    with pytest.raises(ValueError, match="broken"):
        journal.commit()
    assert (heard, journal.offset, journal.pending) == ([0], 1, [])


def test_the_journal_remembers_that_something_was_written_beside_the_stream() -> None:
    journal = Journal()
    journal.follows = True
    journal.pending.append(effect(b"copied"))
    journal.commit(1)
    journal.commit()
    assert not journal.outside
    journal.pending.append(effect(b"local"))
    journal.commit()
    assert journal.outside
