"""Which copy a writer without data is given back: the one that has most of what was not lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.replicate.lineage import Lineage
from kevynode.scope.copies import HeldCopy, newest_copies


def copy(history: int, offset: int, *ancestors: tuple[int, int], keys: int = 5, epoch: int = 0) -> HeldCopy:
    return HeldCopy(history, offset, keys, epoch, ancestors)


# History 2 left 1 at 100, and 3 left 2 at 150.
SECOND = ((1, 100),)
THIRD = ((2, 150), (1, 100))


@pytest.mark.parametrize(
    ("b", "c", "best"),
    [
        pytest.param(copy(1, 5), copy(1, 4), "b", id="of one history, the further one"),
        pytest.param(copy(1, 5, keys=1), copy(1, 5, keys=2), "c", id="else the larger one"),
        pytest.param(copy(1, 5), copy(1, 5), "bc", id="equal ones"),
        pytest.param(copy(1, 120), copy(2, 101, *SECOND), "c", id="a dead branch is further"),
        pytest.param(copy(1, 120), copy(2, 100, *SECOND), "c", id="the successor stands at the branch"),
        pytest.param(copy(1, 90), copy(2, 101, *SECOND), "c", id="not come to the branch"),
        pytest.param(copy(1, 90), copy(2, 80, *SECOND), "b", id="both before the branch, the earlier history further"),
        pytest.param(copy(1, 120), copy(2, 80, *SECOND), "b", id="it lacks what the dead branch shares"),
        pytest.param(copy(1, 90), copy(2, 90, *SECOND), "bc", id="both in one place before the branch"),
        pytest.param(copy(1, 100), copy(2, 100, *SECOND), "bc", id="both at the branch"),
        pytest.param(copy(1, 999), copy(3, 151, *THIRD), "c", id="a grandparent's dead branch"),
        pytest.param(copy(2, 999, *SECOND), copy(3, 151, *THIRD), "c", id="a parent's dead branch"),
        pytest.param(copy(2, 120, *SECOND), copy(3, 110, *THIRD), "b", id="before the last branch, behind the first"),
        pytest.param(copy(4, 90, (1, 95)), copy(3, 80, *THIRD), "b", id="two that leave one, before they do"),
        pytest.param(copy(4, 96, (1, 95)), copy(3, 80, *THIRD), "b", id="two that leave one, one of them gone"),
        pytest.param(copy(4, 200, (1, 95)), copy(3, 160, *THIRD), "b", id="two that leave one, and are gone"),
        pytest.param(copy(8, 5), copy(9, 4), "b", id="histories that do not know each other"),
        pytest.param(copy(0, 5), copy(0, 4), "b", id="a writer that tells no history"),
        pytest.param(copy(1, 50, epoch=1), copy(2, 4, epoch=2), "c", id="a later owner's"),
        pytest.param(copy(2, 200, *SECOND), copy(1, 4, epoch=1), "c", id="epochs go before branches"),
        pytest.param(copy(1, 0, keys=3, epoch=1), copy(2, 4, epoch=1), "c", id="what the owner began with"),
    ],
)
def test_copies_are_compared(b: HeldCopy, c: HeldCopy, best: str) -> None:
    assert newest_copies({"b": b, "c": c}) == list(best)
    assert newest_copies({"c": c, "b": b}) == list(best)


def test_a_dead_branch_is_not_chosen_though_a_stranger_is_between() -> None:
    held = {"dead": copy(1, 120), "live": copy(2, 101, *SECOND), "other": copy(7, 110)}
    for order in itertools.permutations(held):
        assert newest_copies({peer: held[peer] for peer in order}) == ["other"]
    held["other"] = copy(7, 90)
    assert newest_copies(held) == ["live"]


def test_peers_that_contradict_each_other_leave_a_choice() -> None:
    held = {"b": copy(1, 20, (2, 10)), "c": copy(2, 20, (3, 10)), "d": copy(3, 30, (1, 10))}
    assert newest_copies(held) == ["d"]
    assert newest_copies({}) == []


# -- a writer with followers ------------------------------------------------------------------------------------------


class Writer:
    """A writer whose disk loses what it likes, and its followers. An entry is a number that no other one has."""

    def __init__(self) -> None:
        self.count = 1
        self.lineage = Lineage(1)
        self.log: list[int] = []
        # What it was given back is durable before it opens.
        self.durable = 0
        # By follower: the lineage it knows, and what it holds.
        self.copies: dict[str, tuple[Lineage, list[int]]] = {peer: (self.lineage, []) for peer in "bcd"}

    def write(self, number: int) -> None:
        for _ in range(number):
            self.count += 1
            self.log.append(self.count)

    def follow(self, peer: str, number: int) -> None:
        """A follower gets a link, and on it so many entries; a ship, if it does not share what it has."""
        lineage, held = self.copies[peer]
        if not self.lineage.covers(lineage.history, len(held)):
            held = self.log[: len(held)]
        self.copies[peer] = self.lineage, self.log[: len(held) + number]

    def restart(self, lost: int) -> None:
        """It comes back without its last entries."""
        self.log = self.log[: max(self.durable, len(self.log) - lost)]
        self.count += 1
        self.lineage = self.lineage.branch(self.count, len(self.log))

    def lose_all(self) -> None:
        """It comes back with nothing, is given a copy back, and numbers on above all of them."""
        if not any(held for _, held in self.copies.values()):
            return
        self.log = list(self.copies[newest_copies(self.held())[0]][1])
        above = max(len(held) for _, held in self.copies.values()) + 1
        self.log += [0] * (above - len(self.log))
        self.durable = above
        self.count += 1
        self.lineage = Lineage(self.count)

    def held(self) -> dict[str, HeldCopy]:
        return {
            peer: HeldCopy(lineage.history, len(held), 1, 0, lineage.ancestors)
            for peer, (lineage, held) in self.copies.items()
        }

    def kept(self, peer: str) -> int:
        """How much of what the writer has in the end is in a copy."""
        return len(set(self.copies[peer][1]) & set(self.log) - {0})


steps = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 4)),
    st.tuples(st.just("follow"), st.sampled_from("bcd"), st.integers(0, 6)),
    st.tuples(st.just("restart"), st.integers(0, 5)),
    st.tuples(st.just("lose_all")),
)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(st.lists(steps, max_size=16))
def test_no_copy_has_more_of_what_was_not_lost(taken: list[tuple[str, *tuple[object, ...]]]) -> None:
    writer = Writer()
    for name, *arguments in taken:
        getattr(writer, name)(*arguments)
    best = newest_copies(writer.held())
    assert best
    assert {writer.kept(peer) for peer in best} == {max(writer.kept(peer) for peer in "bcd")}, writer.copies
