"""Scope ships that a replica has asked for: their turn, and what it does not count for until they are in place."""

from __future__ import annotations

import pytest

from kevynode.replicate import wire
from kevynode.replicate.resyncs import Resyncs

LINK = (b"a:", b"b:")


def test_they_come_in_the_order_in_which_they_were_asked_for() -> None:
    resyncs = Resyncs()
    for prefix in (b"b:", b"a:1", b"b:"):
        resyncs.ask(prefix)
    assert (len(resyncs), resyncs.first) == (2, b"b:")
    assert resyncs.begin(b"b:") == wire.snapshot_scope(0, b"b:")
    assert (len(resyncs), resyncs.first) == (1, b"a:1")
    assert resyncs.begin(b"a:1", 7) == wire.snapshot_scope(7, b"a:1")


def test_a_prefix_is_held_again_when_all_of_its_ships_are_in_place() -> None:
    resyncs = Resyncs()
    assert resyncs.held(LINK) == LINK
    resyncs.ask(b"a:")
    assert resyncs.held(LINK) == (b"b:",)
    resyncs.begin(b"a:")
    resyncs.ask(b"a:")
    resyncs.in_place(b"a:")
    assert resyncs.held(LINK) == (b"b:",)
    resyncs.begin(b"a:")
    assert resyncs.held(LINK) == (b"b:",)
    resyncs.in_place(b"a:")
    assert resyncs.held(LINK) == LINK


def test_a_part_of_a_prefix_that_is_missing_makes_it_missing() -> None:
    resyncs = Resyncs()
    resyncs.ask(b"a:part")
    assert resyncs.held(LINK) == (b"b:",)
    assert resyncs.held((b"",)) == ()


def test_who_says_that_a_ship_is_in_place_before_it_was_sent_gains_nothing() -> None:
    resyncs = Resyncs()
    resyncs.in_place(b"a:")
    resyncs.ask(b"a:")
    resyncs.in_place(b"a:")
    assert resyncs.held(LINK) == (b"b:",)


def test_a_ship_of_everything_ends_them_all() -> None:
    resyncs = Resyncs()
    resyncs.ask(b"a:")
    resyncs.begin(b"a:")
    resyncs.ask(b"b:")
    resyncs.clear()
    assert (len(resyncs), resyncs.held(LINK)) == (0, LINK)


def test_a_prefix_too_long_for_its_line_is_refused_and_changes_nothing() -> None:
    resyncs = Resyncs()
    with pytest.raises(ValueError, match="too long"):
        resyncs.ask(b"a" * 3000)
    assert (len(resyncs), resyncs.held((b"a",))) == (0, (b"a",))
