"""The ledger: whatever the order in which nodes hear of moves, they agree on the owner, and rivals are known."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.scope.ledger import (
    PAGE_LIMIT,
    PREFIX_LIMIT,
    RIVALS_LIMIT,
    ROWS_LIMIT,
    Difference,
    Ledger,
    LedgerEntry,
    LedgerError,
    LedgerFull,
    next_epoch,
    parse_rows,
)
from kevynode.scope.ledger_text import MAX_NUMBER

A = LedgerEntry(b"app:", "a", 1, "m1")

# Few of everything, so that they meet.
entries = st.builds(
    LedgerEntry,
    prefix=st.sampled_from([b"", b"app:", b"app:\xff ", b"\n"]),
    owner=st.sampled_from(["a", "b", "c"]),
    epoch=st.integers(1, 3),
    move_id=st.sampled_from(["m1", "m2", "m3", "m4", "m5"]),
)
many = st.lists(entries, max_size=30)


def merged(*parts: list[LedgerEntry]) -> Ledger:
    ledger = Ledger()
    for part in parts:
        ledger.merge(part)
    return ledger


# -- laws -------------------------------------------------------------------------------------------------------------


@given(many, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(found: list[LedgerEntry], random: Random) -> None:
    ledger = Ledger(found)
    shuffled = found * 2
    random.shuffle(shuffled)
    one_by_one = Ledger()
    for entry in shuffled:
        one_by_one.merge([entry])
    assert one_by_one == ledger
    assert one_by_one.digest == ledger.digest
    assert one_by_one.incidents() == ledger.incidents()
    assert len(one_by_one) == len(ledger) == len(list(ledger))


@given(many, many, many)
def test_ledgers_that_are_merged_agree_however_they_are(
    first: list[LedgerEntry], second: list[LedgerEntry], third: list[LedgerEntry]
) -> None:
    left = Ledger(merged(first, second))
    left.merge(third)
    right = Ledger(merged(second, third))
    right.merge(first)
    together = Ledger(Ledger(first))
    together.merge(merged(third, second))
    assert left == right == together


@given(many)
def test_merging_again_changes_nothing(found: list[LedgerEntry]) -> None:
    ledger = Ledger(found)
    digest = ledger.digest
    assert not ledger.merge(found)
    assert not ledger.merge(ledger)
    assert ledger.compare(found) == Difference()
    assert ledger.digest == digest


@given(many)
def test_the_highest_epoch_and_then_the_highest_move_decides(found: list[LedgerEntry]) -> None:
    ledger = Ledger(found)
    for prefix in {entry.prefix for entry in found} | {b"nobody's"}:
        about = [entry for entry in found if entry.prefix == prefix]
        highest = max(about, key=lambda entry: (entry.epoch, entry.move_id, entry.owner), default=None)
        assert ledger.entry(prefix) == highest
        assert ledger.epoch(prefix) == (highest.epoch if highest else 0)
        assert ledger.owner(prefix, "declared") == (highest.owner if highest else "declared")


@given(many, many)
def test_a_comparison_says_what_a_merge_does(held: list[LedgerEntry], found: list[LedgerEntry]) -> None:
    ledger = Ledger(held)
    before = {prefix: ledger.entry(prefix) for prefix in (b"", b"app:", b"app:\xff ", b"\n")}
    rows = list(ledger)
    difference = ledger.compare(found)
    assert list(ledger) == rows, "comparing changed it"
    assert ledger.merge(found) == difference
    changed = {prefix: ledger.entry(prefix) for prefix in before if ledger.entry(prefix) != before[prefix]}
    assert {entry.prefix: entry for entry in difference.changed} == changed
    assert set(difference.learned) == set(ledger) - set(rows)
    # What was learned is all that a file needs.
    assert merged(rows, list(difference.learned)) == ledger


@given(many)
def test_those_who_lost_at_one_epoch_are_named(found: list[LedgerEntry]) -> None:
    ledger = Ledger(found)
    expected = {}
    for prefix in {entry.prefix for entry in found}:
        epoch = ledger.epoch(prefix)
        rivals = {entry for entry in found if entry.prefix == prefix and entry.epoch == epoch}
        kept = sorted(rivals, key=lambda entry: entry.rank)[-RIVALS_LIMIT:]
        losing = frozenset(entry.owner for entry in kept) - {ledger.owner(prefix, "")}
        if losing:
            expected[prefix] = (epoch, losing)
    assert {one.prefix: (one.epoch, one.losing_owners) for one in ledger.incidents()} == expected
    for incident in ledger.incidents():
        assert incident.winner == ledger.entry(incident.prefix)


@given(many, st.integers(1, 200))
def test_rows_come_through(found: list[LedgerEntry], page_limit: int) -> None:
    ledger = Ledger(found)
    read = Ledger()
    for page in ledger.rows(page_limit):
        assert len(page) <= page_limit or page.count(b"\n") == 1
        read.merge(parse_rows(page))
    assert read == ledger
    assert read.digest == ledger.digest


@given(many, many)
def test_digests_are_equal_where_the_entries_are(first: list[LedgerEntry], second: list[LedgerEntry]) -> None:
    left, right = Ledger(first), Ledger(second)
    assert (left.digest == right.digest) == (left == right) == (set(left) == set(right))


# -- cases ------------------------------------------------------------------------------------------------------------


def test_two_owners_at_one_epoch() -> None:
    ledger = Ledger([A])
    difference = ledger.merge([LedgerEntry(b"app:", "b", 1, "m2")])
    (incident,) = difference.incidents
    assert (incident.winner.owner, incident.losing_owners, incident.epoch) == ("b", frozenset("a"), 1)
    assert ledger.owner(b"app:", "a") == "b"
    # The other one learns of it as well, and nothing changes for its routing.
    other = Ledger([LedgerEntry(b"app:", "b", 1, "m2")])
    difference = other.merge([A])
    assert difference.learned == (A,)
    assert difference.changed == ()
    assert difference.incidents == (incident,)
    assert ledger.digest == other.digest
    # A later move settles it.
    difference = other.merge([LedgerEntry(b"app:", "a", 2, "m0")])
    assert (difference.incidents, other.incidents(), len(other)) == ((), (), 1)


def test_one_owner_by_two_moves_is_no_incident() -> None:
    ledger = Ledger([A, LedgerEntry(b"app:", "a", 1, "m2")])
    assert ledger.incidents() == ()
    assert len(ledger) == 2


def test_what_is_not_declared_is_kept_and_named() -> None:
    other = LedgerEntry(b"gone:", "b", 3, "m2")
    ledger = Ledger([A, other])
    assert ledger.inert({b"app:"}) == (other,)
    assert ledger.inert({b"app:", b"gone:"}) == ()
    assert other in parse_rows(ledger.rows()[0])


def test_a_copy_is_its_own() -> None:
    ledger = Ledger([A])
    copy = ledger.copy()
    ledger.merge([LedgerEntry(b"app:", "b", 2, "m2")])
    assert list(copy) == [A]
    assert copy.digest == Ledger([A]).digest != ledger.digest
    assert repr(copy) == f"Ledger([{A!r}])"
    assert copy != "something else"


def test_an_empty_ledger() -> None:
    ledger = Ledger()
    assert (len(ledger), ledger.rows(), parse_rows(b""), ledger.incidents()) == (0, (), (), ())
    assert len(ledger.digest) == 64


def test_an_epoch_is_above_all_that_are_known() -> None:
    assert next_epoch([]) == 1
    assert next_epoch([0, 4, 2]) == 5
    assert next_epoch([MAX_NUMBER - 1]) == MAX_NUMBER
    with pytest.raises(LedgerError, match="no epoch above"):
        next_epoch([MAX_NUMBER])


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((b"x" * (PREFIX_LIMIT + 1), "a", 1, "m"), "prefix of 1025 bytes"),
        (("app:", "a", 1, "m"), "a prefix is bytes"),
        ((b"app:", "", 1, "m"), "the owner"),
        ((b"app:", "a" * 65, 1, "m"), "the owner"),
        ((b"app:", "a b", 1, "m"), "the owner"),
        ((b"app:", "ä", 1, "m"), "the owner"),
        ((b"app:", "a\n", 1, "m"), "the owner"),
        ((b"app:", b"a", 1, "m"), "the owner"),
        ((b"app:", "a", 0, "m"), "an epoch"),
        ((b"app:", "a", True, "m"), "an epoch"),
        ((b"app:", "a", 1.0, "m"), "an epoch"),
        ((b"app:", "a", MAX_NUMBER + 1, "m"), "an epoch"),
        ((b"app:", "a", 1, ""), "a move id"),
        ((b"app:", "a", 1, "-m"), "a move id"),
    ],
)
def test_entries_have_bounds(values: tuple[bytes, str, int, str], reason: str) -> None:
    with pytest.raises(LedgerError, match=reason):
        LedgerEntry(*values)


@pytest.mark.parametrize(
    "page",
    [
        b"\n",
        b"entry prefix=app: owner=a epoch=1 move=m1",
        b"entry prefix=app: owner=a epoch=1 move=m1\n\n",
        b"entry prefix=app: owner=a epoch=1 move=m1\r\n",
        b"entry prefix=app: owner=a epoch=1 move=m1 \n",
        b"entry  prefix=app: owner=a epoch=1 move=m1\n",
        b"entry owner=a prefix=app: epoch=1 move=m1\n",
        b"entry prefix=app: owner=a epoch=1\n",
        b"entry prefix=app: owner=a epoch=01 move=m1\n",
        b"entry prefix=app: owner=a epoch=+1 move=m1\n",
        b"entry prefix=app: owner=a epoch=0 move=m1\n",
        b"entry prefix=app: owner=a epoch= move=m1\n",
        b"entry prefix=app: owner=a epoch=99999999999999999 move=m1\n",
        b"entry prefix=%61pp: owner=a epoch=1 move=m1\n",
        b"entry prefix=%ff owner=a epoch=1 move=m1\n",
        b"entry prefix=%F owner=a epoch=1 move=m1\n",
        b"entry prefix=\xff owner=a epoch=1 move=m1\n",
        b"entry prefix=" + b"x" * (PREFIX_LIMIT + 1) + b" owner=a epoch=1 move=m1\n",
        b"entry prefix=" + b"%FF" * (PREFIX_LIMIT + 1) + b" owner=a epoch=1 move=m1\n",
        b"Entry prefix=app: owner=a epoch=1 move=m1\n",
        b"settled\n",
    ],
)
def test_other_rows_are_refused(page: bytes) -> None:
    with pytest.raises(LedgerError):
        parse_rows(page)


@given(st.binary(max_size=200))
def test_any_input_is_rows_or_refused(page: bytes) -> None:
    try:
        found = parse_rows(page)
    except LedgerError:
        return
    assert b"".join(entry.text().encode() + b"\n" for entry in found) == page


def test_the_longest_entry_fits_a_page() -> None:
    entry = LedgerEntry(b"\xff" * PREFIX_LIMIT, "o" * 64, MAX_NUMBER, "m" * 64)
    (page,) = Ledger([entry]).rows()
    assert parse_rows(page) == (entry,)


def test_a_page_that_is_too_long_is_refused_unread() -> None:
    row = A.text().encode() + b"\n"
    page = row * (PAGE_LIMIT // len(row) + 1)
    with pytest.raises(LedgerError, match=f"page of rows has {len(page)} bytes"):
        parse_rows(page)


def test_a_full_ledger_takes_no_more_and_stays_as_it_is() -> None:
    full = [LedgerEntry(b"%d" % number, "a", 1, "m1") for number in range(ROWS_LIMIT)]
    ledger = Ledger(full)
    digest = ledger.digest
    one_more = LedgerEntry(b"more", "a", 1, "m1")
    rival = LedgerEntry(b"1", "b", 1, "m0")
    for entry in (one_more, rival):
        with pytest.raises(LedgerFull):
            ledger.merge([entry])
        with pytest.raises(LedgerFull):
            ledger.compare([entry])
    with pytest.raises(LedgerFull):
        Ledger([*full, one_more])
    assert (len(ledger), ledger.digest) == (ROWS_LIMIT, digest)
    # What is known may still change.
    assert ledger.merge([LedgerEntry(b"1", "b", 2, "m2")]).changed
    for page in ledger.rows():
        assert len(page) <= PAGE_LIMIT


def test_rivals_beyond_what_is_kept_are_dropped_alike_everywhere() -> None:
    rivals = [LedgerEntry(b"app:", "b", 1, f"m{number}") for number in range(RIVALS_LIMIT + 3)]
    ledger = Ledger(rivals)
    assert len(ledger) == RIVALS_LIMIT
    assert Ledger(reversed(rivals)) == ledger
    assert not ledger.merge(rivals)
