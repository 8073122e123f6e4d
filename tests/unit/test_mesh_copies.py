"""What a mesh holds of earlier writers, what its copies stand for, and which tokens they answer."""

from __future__ import annotations

import pytest
from support.mesh_world import A, World

from kevynode.replicate.mesh import PATIENCE, Acquired, ScopeCopy
from kevynode.store.marks import Acquire, Release


def test_what_a_copy_stands_for_is_told_while_it_is_between_two_writers_too() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    before = ScopeCopy(7, 100, 0, ((6, 40),))
    assert world.mesh.copy_of(A) == before
    # Whoever has lost everything of it is to know what there is: of the last writer's, wherever that stands.
    world.own("t", 1)
    assert (world.plan, world.mesh.copy_of(A)) == ({"s": (A,)}, before)
    world.release("s", "t")
    # All that the last one wrote, and whoever has anything of the next one's has more.
    assert (world.plan, world.mesh.copy_of(A)) == ({}, ScopeCopy(7, 0, 1))
    world["t"].stream = (8, 30)
    world.acquire("t", 100)
    assert (world.plan, world.mesh.copy_of(A)) == ({"t": (A,)}, ScopeCopy(8, 30, 1, ((6, 40),)))


@pytest.mark.parametrize("is_released", [True, False])
def test_what_an_earlier_writer_left_is_a_copy_until_the_next_ones_ship_is_in_its_place(is_released: bool) -> None:
    world = World({A: "s"})
    world.own("s", 0)
    left = ScopeCopy(7, 100, 0, ((6, 40),))
    if is_released:
        world.release("s", "t")
        left = ScopeCopy(7, 0, 1)
    # The next one has been started again without anything, and will never say that it has acquired it.
    world["t"].missing = (A,)
    world.time = PATIENCE
    world.own("t", 1)
    world.time += PATIENCE
    world.mesh.refresh()
    assert (world.plan, world.mesh.copy_of(A)) == ({"t": (A,)}, left)
    # So it is if yet another one comes before that ship does.
    world["s"].missing = (A,)
    world.own("s", 2)
    world.time += PATIENCE
    world.mesh.refresh()
    assert (world.plan, world.mesh.copy_of(A)) == ({"s": (A,)}, left)
    assert (world["t"].earlier, world["s"].earlier) == ({}, {A: left})
    world["s"].on_placing((b"b:", A))
    assert world.mesh.copy_of(A) is None
    world["s"].missing = ()
    world["s"].stream = (9, 70)
    assert world.mesh.copy_of(A) == ScopeCopy(9, 70, 2, ((6, 40),))
    # And what was there before it never is again, whatever becomes of it.
    world["s"].missing = (A,)
    world.mesh.refresh()
    assert (world["s"].earlier, world.mesh.copy_of(A)) == ({}, None)
    # What is not wanted any more may be dropped.
    del world.owners[A]
    world.mesh.refresh()
    assert world.mesh.copy_of(A) is None


@pytest.mark.parametrize(("ancestors", "is_lost"), [((), True), (((9, 5), (7, 90)), False)])
def test_a_release_that_its_writer_has_lost_since_is_none(
    ancestors: tuple[tuple[int, int], ...], is_lost: bool
) -> None:
    """Both sides of the move have lost their disks, and the mark was on its way to here for longer than that took."""
    world = World({A: "s"})
    world.own("s", 0)
    world.release("s", "t")
    world["s"].missing = (A,)
    world["s"].stream, world["s"].ancestors = (20, 3), ancestors
    world.hear("s")
    assert world.plan == ({"s": (A,)} if is_lost else {})
    assert (world["s"].told, world.mesh.copy_of(A)) == ([], ScopeCopy(7, 0, 1))


@pytest.mark.parametrize(("ancestors", "is_lost"), [((), True), (((7, 90),), False)])
def test_an_acquisition_that_its_writer_has_lost_since_is_none(
    ancestors: tuple[tuple[int, int], ...], is_lost: bool
) -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.release("s", "t")
    world.acquire("t", 100)
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [("adopt", A)])
    world["t"].missing = world["s"].missing = (A,)
    world["t"].stream, world["t"].ancestors = (20, 3), ancestors
    world.hear("t")
    assert world.plan == {"s" if is_lost else "t": (A,)}
    assert world.mesh.copy_of(A) == ScopeCopy(7, 0, 1)


@pytest.mark.parametrize("heir", ["me", "t"])
def test_a_release_that_is_entered_again_is_the_same(heir: str) -> None:
    """Its writer was started again before the next one had confirmed the move."""
    world = World({A: "s"})
    world.own("s", 0)
    world.release("s", heir)
    world["s"].stream, world["s"].ancestors = (8, 120), ((7, 100),)
    world.release("s", heir, whole=False)
    assert (world.plan, world.mesh.copy_of(A)) == ({}, ScopeCopy(7, 0, 1))
    # That of another move is another one.
    world.release("s", heir, epoch=2, whole=False)
    assert world.mesh.copy_of(A) is None


def test_a_release_to_this_node_is_never_lost() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.release("s", "me")
    world["s"].stream, world["s"].ancestors = (20, 3), ()
    world.hear("s")
    assert world.plan == {}


FOUND_STREAM = {"s:1": (7, 100), "s:1/613a": (7, 90), "s:1/^7": (6, 40)}


@pytest.mark.parametrize(
    ("found", "left"),
    [
        ({"t:1/613a+3": (7, 100)}, ScopeCopy(7, 100, 3)),
        ({"s:1/613a+3": (7, 100)}, ScopeCopy(7, 100, 3)),
        # When who wrote it became the writer is not known.
        (FOUND_STREAM, ScopeCopy(7, 100, 0, ((6, 40),))),
        # Only one of them can be.
        (FOUND_STREAM | {"t:1/613a+3": (8, 20)}, ScopeCopy(8, 20, 3)),
        (FOUND_STREAM | {"t:1": (9, 20), "t:1/613a": (9, 20)}, None),
        ({"t:1/613b+3": (7, 100), "t:1/613a+3": (0, 0)}, None),
    ],
)
def test_what_an_earlier_writer_left_is_a_copy_after_a_restart_too(
    found: dict[str, tuple[int, int]], left: ScopeCopy | None
) -> None:
    def missing(world: World) -> World:
        world["t"].missing = (A,)
        return world

    world = missing(World({A: "t"}, found, {A: 4}))
    assert world.mesh.copy_of(A) == left
    assert (world["s"].earlier, world["t"].earlier) == ({}, {} if left is None else {A: left})
    # What this node writes itself is no copy.
    world = World({A: "me"}, found, {A: 4})
    assert world.mesh.copy_of(A) is None
    world.own("t", 5)
    assert missing(world).mesh.copy_of(A) is None


def test_a_copy_that_may_lack_what_was_written_elsewhere_stands_for_its_old_epoch() -> None:
    world = World({A: "s"}, epochs={A: 3})
    world.own("s", 5)
    copy = world.mesh.copy_of(A)
    assert copy is not None
    assert copy.epoch == 3
    world.acquire("s", 40, epoch=5)
    copy = world.mesh.copy_of(A)
    assert copy is not None
    assert copy.epoch == 5


def test_a_release_that_a_copy_was_not_whole_at_leaves_none() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.release("s", "t", whole=False)
    assert (world.plan, world.mesh.copy_of(A)) == ({}, None)


def test_what_this_node_has_released_is_a_copy_if_it_wants_one() -> None:
    world = World({b"b:": "s"})
    world.epochs = {}
    world.mesh.released_here(Release(A, 1, "t"), 55, 200)
    world.mesh.refresh()
    # It may be dropped.
    assert world.mesh.copy_of(A) is None
    world.own("t", 1)
    assert world.mesh.copy_of(A) == ScopeCopy(55, 0, 1)


def test_what_this_node_released_when_it_had_lost_it_is_no_copy() -> None:
    world = World({A: "me", b"b:": "s"})
    world.own("me", 0)
    world.mesh.released_here(Release(A, 1, "t"), 55, 200, whole=False)
    assert (world.mesh.copy_of(A), world.mesh.lacks(A)) == (None, True)
    world.own("t", 1)
    # It is copied anew, though the new owner began with what this node wrote up to there.
    world.acquire("t", 200, history=55)
    assert (world.plan, world["t"].told) == ({"t": (A,), "s": (b"b:",)}, [])


def test_what_this_node_has_released_and_did_not_want_for_a_while_is_copied_anew() -> None:
    world = World({A: "me"})
    world.own("me", 0)
    world.mesh.released_here(Release(A, 1, "t"), 55, 200)
    world.own("t", 1)
    assert world.mesh.copy_of(A) == ScopeCopy(55, 0, 1)
    # Something else has been put in its place.
    del world.owners[A]
    world.mesh.refresh()
    world.own("t", 1)
    world.acquire("t", 150, history=55)
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [])


def test_a_release_that_is_said_again_does_not_put_a_copy_back() -> None:
    world = World({A: "me"})
    world.own("me", 0)
    world.mesh.released_here(Release(A, 1, "t"), 55, 200)
    world.own("t", 1)
    world.acquire("t", 150, history=55)
    assert world["t"].told == [("adopt", A)]
    world.mesh.released_here(Release(A, 1, "t"), 55, 230)
    world.mesh.refresh()
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [("adopt", A)])


def test_what_was_left_here_is_known_after_a_restart() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.release("s", "t")
    # The ledger may never say so.
    assert (world["t"].left, world["s"].earlier) == ({}, {A: ScopeCopy(7, 0, 1)})
    world.own("t", 1)
    ((prefix, released),) = world["t"].left.items()
    assert (prefix, released.at, world["s"].earlier) == (A, (7, 100), {})
    again = World({A: "t"}, {"t:1/613a@1": released.at, "t:1": (9, 5)}, {A: 1})
    assert again.plan == {}
    assert again["t"].left == {A: released}
    again.acquire("t", 100)
    assert (again.plan, again["t"].told, again["t"].left) == ({"t": (A,)}, [("adopt", A)], {})


@pytest.mark.parametrize(("owner", "epoch"), [("me", 2), ("s", 2), ("t", 3)])
def test_what_was_left_here_counts_only_for_that_move(owner: str, epoch: int) -> None:
    world = World({A: owner}, {"t:1/613a@1": (7, 100)}, {A: epoch})
    assert world["t"].left == {}
    for name in ("s", "t"):
        world.acquire(name, 100, epoch=epoch)
    assert world["t"].told == world["s"].told == []
    assert world.plan == ({} if owner == "me" else {owner: (A,)})


def test_a_copy_that_may_lack_something_has_not_come_to_its_writers_offset() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    assert world.mesh.has_applied(7, 100) is True
    world.own("s", 2)
    assert world.mesh.has_applied(7, 100) is False


# -- tokens of a writer who has become one ----------------------------------------------------------------------------


def test_a_token_is_not_answered_while_this_node_cannot_write_down_that_another_one_has_its_prefix() -> None:
    world = World({A: "me", b"b:": "s"})
    world.own("me", 1)
    assert world.mesh.has_applied(7, 100) is True
    # The disk fails: the ledger here says nothing of the move that made it another one's.
    world["s"].acquired[A] = Acquired(Acquire(A, 2, 55, 90), (7, 99))
    assert world.mesh.has_applied(7, 100) is False
    # Of an older move nothing follows.
    world.own("me", 3)
    assert world.mesh.has_applied(7, 100) is True


def test_a_token_of_whom_this_node_gives_a_prefix_to_is_not_answered_before_the_ledger_says_so() -> None:
    world = World({A: "me", b"b:": "s"})
    world.own("me", 0)
    world.mesh.released_here(Release(A, 1, "s"), 55, 200)
    assert world.mesh.has_applied(7, 100) is False
    world["t"].stream = (8, 30)
    assert world.mesh.has_applied(8, 30) is True
    world.own("s", 1)
    assert world.mesh.has_applied(7, 100) is False
    world.acquire("s", 200, history=55)
    assert (world["s"].prefixes, world.mesh.has_applied(7, 100)) == ((A, b"b:"), True)


@pytest.mark.parametrize("owner", ["me", "t"])
def test_a_token_is_not_answered_while_it_is_not_sure_who_owns_a_prefix(owner: str) -> None:
    world = World({A: owner, b"b:": "s"})
    world.unsure.add(A)
    world["t"].stream = (8, 30)
    assert world.mesh.has_applied(7, 100) is False
    # Whoever it is taken for is followed for it.
    assert world.mesh.has_applied(8, 30) is (owner == "t")
    world.unsure.clear()
    assert world.mesh.has_applied(7, 100) is world.mesh.has_applied(8, 30) is True


def test_a_token_of_who_had_a_prefix_in_between_is_not_answered_before_it_has_come_from_who_has_it_next() -> None:
    world = World({A: "s", b"b:": "t"})
    world.own("s", 0)
    world["t"].stream = (8, 30)
    assert world.mesh.has_applied(8, 30) is True
    # It was t's, and is given back, and nothing of it was copied from there.
    world.acquire("t", 90, epoch=1)
    assert world.mesh.has_applied(8, 30) is False
    world.release("t", "s", 2, whole=False)
    assert world.mesh.has_applied(8, 30) is False
    world["s"].missing = (A,)
    world.own("s", 2)
    world.acquire("s", 30, history=8, epoch=2)
    assert world.mesh.has_applied(8, 30) is False
    world["s"].missing = ()
    assert world.mesh.has_applied(8, 30) is True


def test_what_was_released_in_a_history_that_is_lost_is_not_waited_for() -> None:
    world = World({A: "s", b"b:": "t"})
    world.own("s", 0)
    world["t"].stream = (8, 30)
    world.acquire("t", 90, epoch=1)
    world.release("t", "s", 2, whole=False)
    assert world.mesh.has_applied(8, 30) is False
    world["t"].stream, world["t"].ancestors = (9, 5), ()
    assert world.mesh.has_applied(9, 5) is True


def test_after_a_start_no_token_is_answered_before_there_has_been_a_copy_of_every_scope() -> None:
    world = World({A: "s", b"b:": "t"}, epochs={A: 2})
    world["t"].stream = (8, 30)
    world["s"].missing = (A,)
    # Until its last move it may have been t's.
    assert world.mesh.has_applied(8, 30) is False
    world["s"].missing = ()
    assert world.mesh.has_applied(8, 30) is True
    # What becomes of it from here on has been followed by its marks.
    world["s"].missing = (A,)
    assert world.mesh.has_applied(8, 30) is True


@pytest.mark.parametrize(("owner", "epoch"), [("nobody", 2), ("s", 0)])
def test_nobody_waits_for_a_copy_that_cannot_be_had_or_that_only_one_has_written(owner: str, epoch: int) -> None:
    world = World({A: owner, b"b:": "t", b"c:": "s"}, epochs={A: epoch})
    world["t"].stream, world["s"].missing = (8, 30), (A,)
    assert world.mesh.has_applied(8, 30) is True


def test_a_token_of_who_gets_a_prefix_is_not_answered_before_the_ledger_here_says_so() -> None:
    world = World({A: "s", b"b:": "t"})
    world.own("s", 0)
    world["t"].stream = (8, 30)
    assert world.mesh.has_applied(8, 30) is True
    # Where t acquired it the link to it began later.
    world.release("s", "t")
    assert world.mesh.has_applied(8, 30) is False
    world.own("t", 1)
    assert world.mesh.has_applied(8, 30) is False
    world["t"].missing = (A,)
    world.time += PATIENCE
    world.hear("s", "t")
    world["t"].missing = ()
    assert (world["t"].prefixes, world.mesh.has_applied(8, 30)) == ((A, b"b:"), True)
