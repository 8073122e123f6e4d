"""When a scope opens, whatever peers have told in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.opening_harness import APP, ELSE, SAME, WEB, copy, opening

from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.copies import HeldCopy, newest_copies
from kevynode.scope.ledger import Ledger, LedgerEntry
from kevynode.scope.ledger_records import Settled, VersionFloor
from kevynode.scope.opening import PATIENCE, Open, Opening, RestoreFrom, Waiting

peer_ids = st.sampled_from(["b", "c", "d"])
prefixes = st.sampled_from([APP, WEB, ELSE])
writers = st.sampled_from(["a", "b", "c"])
ancestors = st.sampled_from([(), ((3, 1),), ((3, 2), (4, 1))])
held_copies = st.builds(
    HeldCopy, st.integers(1, 2), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1), ancestors
) | st.builds(HeldCopy, st.just(3), st.integers(0, 3), st.integers(0, 2))
facts = st.one_of(
    st.tuples(st.just("remembered"), peer_ids, st.integers(0, 6)),
    st.tuples(st.just("answered"), peer_ids, st.none()),
    st.tuples(st.just("declared"), peer_ids, st.dictionaries(prefixes, writers)),
    st.tuples(st.just("copies"), peer_ids, st.dictionaries(prefixes, st.none() | held_copies)),
    st.tuples(st.just("disconnected"), peer_ids, st.none()),
    st.tuples(st.just("restored"), st.none(), prefixes),
    st.tuples(st.just("merged"), prefixes, st.tuples(writers, st.integers(1, 3))),
    st.tuples(st.just("append"), st.none(), st.none()),
)


class Told:
    """All that a node was told, and what follows by the rules, written down as they are."""

    def __init__(self, *, is_settled: bool, trusts: bool, lacking: set[bytes]) -> None:
        self.version = 3
        self.is_settled, self.trusts, self.lacking = is_settled, trusts, set(lacking)
        self.answered: set[str] = set()
        self.lost: dict[str, int] = {}
        self.writers: dict[str, dict[bytes, str]] = {}
        self.copies: dict[tuple[str, bytes], HeldCopy | None] = {}
        self.linked: set[str] = set()
        self.ledger = Ledger()

    def owner(self, prefix: bytes) -> str:
        return self.ledger.owner(prefix, SAME[prefix])

    def take(self, made: Opening, fact: str, who: Any, value: Any) -> None:
        if fact == "merged":
            owner, epoch = value
            self.ledger.merge([LedgerEntry(who, owner, epoch, "m1")])
            return
        if fact == "append":
            due = made.records_due()
            floors = [record.version for record in due if isinstance(record, VersionFloor)]
            if due:
                self.version = max([self.version, *floors]) + 1
                self.is_settled = self.is_settled or Settled() in due
            made.appended(self.version, is_settled=self.is_settled)
            return
        if fact == "restored":
            self.lacking.discard(value)
            made.restored(value)
            return
        if fact == "disconnected":
            self.linked.discard(who)
            made.disconnected(who)
            return
        self.linked.add(who)
        if fact == "remembered":
            if value > self.version and value > self.lost.get(who, 0):
                self.lost[who] = value
                self.answered.discard(who)
            made.remembered(who, value)
        elif fact == "answered":
            self.answered.add(who)
            made.answered(who)
        elif fact == "declared":
            self.writers[who] = value
            made.declared(who, value)
        else:
            for prefix, held in value.items():
                self.copies[who, prefix] = held
            made.copies(who, list(value), {prefix: held for prefix, held in value.items() if held is not None})

    def must_wait(self, prefix: bytes, is_late: bool) -> bool:
        peers = {"b", "c", "d"}
        missing = peers - self.answered
        if self.lost and missing & (set(self.lost) if self.trusts else peers):
            return True
        if missing and not self.lost and not self.trusts and not (self.is_settled and is_late):
            return True
        if not self.ledger.entry(prefix) and any(theirs.get(prefix, "a") != "a" for theirs in self.writers.values()):
            return True
        if prefix not in self.lacking:
            return False
        copies = {peer: self.copies.get((peer, prefix)) for peer in peers}
        if any((peer, prefix) not in self.copies for peer in peers):
            return True
        held = {peer: copy for peer, copy in copies.items() if copy is not None}
        return any(held[peer].keys for peer in newest_copies(held))


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.lists(facts, max_size=40),
    st.booleans(),
    st.booleans(),
    st.sets(st.sampled_from([APP, WEB])),
    st.booleans(),
)
def test_it_is_open_if_and_only_if_nothing_speaks_against_it(
    taken: list[tuple[str, Any, Any]], is_settled: bool, trusts: bool, lacking: set[bytes], is_late: bool
) -> None:
    told = Told(is_settled=is_settled, trusts=trusts, lacking=lacking)
    made = opening(
        ledger=told.ledger, peers=("b", "c", "d"), is_settled=is_settled, trust_config=trusts, lacking=lacking
    )
    now = 100.0 + (PATIENCE if is_late else 0.0)
    for fact in [None, *taken]:
        if fact is not None:
            told.take(made, *fact)
        decisions = made.decide(now)
        assert list(decisions) == [prefix for prefix in (APP, ELSE, WEB) if told.owner(prefix) == "a"]
        for prefix, decision in decisions.items():
            assert (decision == Open()) == (not told.must_wait(prefix, is_late))
            if isinstance(decision, Waiting):
                assert decision.peers
                assert decision.peers <= {"b", "c", "d"}
                assert all(peer in decision.reason for peer in decision.peers)
            elif isinstance(decision, RestoreFrom):
                assert decision.peer in told.linked
                assert decision.copy == told.copies[decision.peer, prefix]
                assert decision.copy.keys > 0
                advance = (decision.copy.epoch, decision.copy.offset)
                assert all(
                    (one.epoch, one.offset) <= advance
                    for (_, about), one in told.copies.items()
                    if one and about == prefix
                )


@given(st.lists(facts, max_size=30), st.booleans(), st.sets(st.sampled_from([APP, WEB])))
def test_it_opens_once_all_have_answered_and_agree(
    taken: list[tuple[str, Any, Any]], is_settled: bool, lacking: set[bytes]
) -> None:
    told = Told(is_settled=is_settled, trusts=False, lacking=lacking)
    made = opening(ledger=told.ledger, peers=("b", "c", "d"), is_settled=is_settled, lacking=lacking)
    for fact in taken:
        told.take(made, *fact)
    for peer in ("b", "c", "d"):
        made.remembered(peer, 0)
        made.declared(peer, SAME)
        made.answered(peer)
        made.copies(peer, [APP, WEB, ELSE], {APP: copy(4)} if peer == "c" else {})
    for prefix, decision in made.decide(100.0).items():
        if isinstance(decision, RestoreFrom):
            assert (prefix, decision.peer) == (APP, "c")
            made.restored(prefix)
    assert set(made.decide(100.0).values()) <= {Open()}


tables = st.dictionaries(st.sampled_from([b"", b"a", b"ab", b"abc", b"b", b"ba"]), st.sampled_from(["a", "b"]))


@given(tables, tables)
def test_no_two_nodes_open_what_shares_a_key(first: dict[bytes, str], second: dict[bytes, str]) -> None:
    declared = {}
    for node, scopes in (("a", first), ("b", second)):
        kept: dict[bytes, str] = {}
        for prefix, writer in sorted(scopes.items()):
            if not any(prefix.startswith(other) for other in kept):
                kept[prefix] = writer
        declared[node] = kept
    opened = {}
    for node, other in (("a", "b"), ("b", "a")):
        table = OwnershipTable([Scope(prefix, writer) for prefix, writer in declared[node].items()])
        made = Opening(node, table, Ledger(), ["a", "b"], now=0.0, version=0, is_settled=False)
        made.remembered(other, 0)
        made.declared(other, declared[other])
        made.answered(other)
        opened[node] = [prefix for prefix, decision in made.decide(0.0).items() if decision == Open()]
    for mine in opened["a"]:
        for theirs in opened["b"]:
            assert not mine.startswith(theirs)
            assert not theirs.startswith(mine)
    if declared["a"] == declared["b"]:
        assert {prefix: node for node, prefixes in opened.items() for prefix in prefixes} == declared["a"]
