"""Whom a node copies scopes from, as owners change and marks come."""

from __future__ import annotations

import pytest
from support.mesh_world import A, World

from kevynode.replicate.mesh import PATIENCE, ScopeCopy
from kevynode.store.marks import Release


def test_each_owner_is_followed_for_what_it_owns() -> None:
    world = World({A: "s", b"b:": "s", b"c:": "t", b"d:": "me", b"e:": "nobody", b"k:": "k"})
    assert world.plan == {"s": (A, b"b:"), "t": (b"c:",), "k": (b"k:",)}
    assert world.mesh.unreachable() == (b"e:",)
    assert world.mesh.has_applied(7, 100) is True
    assert world.mesh.has_applied(8, 1) is None
    # Whoever sets marks is listened to, whatever it owns.
    world.owners = {b"k:": "k"}
    world.mesh.refresh()
    assert (world.plan, set(world.mesh.followers)) == ({"k": (b"k:",)}, {"s", "t", "k"})
    world.active = False
    world.mesh.refresh()
    assert (world.mesh.followers, world.mesh.received_bytes) == ({}, 30)


def test_cursors_that_nobody_goes_on_from_are_forgotten_at_once() -> None:
    found = {"s:1": (7, 5), "s:1/613a": (7, 5), "old:1": (7, 5), "old:1/613a": (7, 5)}
    world = World({A: "s"}, found)
    assert world["s"].found == found
    assert world.forgotten == ["old:1", "old:1/613a"]


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("old:1/613a", ScopeCopy(7, 5, 0)),
        ("old:1/613a@3", ScopeCopy(7, 0, 3)),
        ("old:1/613a+2", ScopeCopy(7, 5, 2)),
        ("/613a+2", ScopeCopy(7, 5, 2)),
    ],
)
def test_what_is_found_of_nobody_who_is_declared_is_an_earlier_writers_copy(name: str, copy: ScopeCopy) -> None:
    found = {"old:1": (7, 5), name: (7, 5)}
    world = World({A: "s"}, found, {A: 4})
    world["s"].missing = (A,)
    assert world.mesh.copy_of(A) == copy
    # Its writer's follower says so from here on.
    assert (world["s"].earlier, world.files) == ({A: copy}, {})
    # Its writer cannot be followed either: it is said without an address, for as long as that is so.
    world = World({A: "gone"}, found, {A: 4})
    assert world.mesh.copy_of(A) == copy
    assert world.files == {f"/613a+{copy.epoch}": (copy.history, copy.offset)}
    world.own("s", 5)
    assert (world["s"].earlier, world.files) == ({A: copy}, {})


@pytest.mark.parametrize("name", ["s:1/613a", "s:1/613a@3", "t:1/613a+2", "old:1/613a"])
def test_what_a_ship_has_brought_is_known_as_a_copy_for_good(name: str) -> None:
    assert World({A: "s"}, {"s:1": (7, 5), name: (7, 5)}, {A: 4}).mesh.was_copied(A)
    world = World({A: "s"}, {"s:1": (7, 5)}, {A: 4})
    assert not world.mesh.was_copied(A)
    world["s"].on_placing((A,))
    world["s"].missing = (A,)
    assert world.mesh.was_copied(A)


@pytest.mark.parametrize("first", ["release", "acquire"])
def test_a_move_is_followed_by_its_marks_in_whatever_order_they_come(first: str) -> None:
    world = World({A: "s"})
    if first == "release":
        world.release("s", "t")
        # Behind the release nothing of it counts, before the acquisition nobody is followed.
        assert world.plan == {}
        world.acquire("t", 100)
    else:
        world.acquire("t", 100)
        world.owners = {A: "t"}
        world.mesh.refresh()
        assert world.plan == {"s": (A,)}
        world.release("s", "t")
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [("adopt", A)])


@pytest.mark.parametrize("marked", [{"tail": 101}, {"tail": 100, "history": 8}, {"tail": 100, "epoch": 2}])
def test_what_is_not_all_that_there_was_is_not_continued(marked: dict[str, int]) -> None:
    world = World({A: "s"})
    world.release("s", "t")
    assert world.plan == {}
    world.acquire("t", **marked)
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [])


def test_a_writer_that_started_anew_since_its_mark_is_asked_for_a_ship() -> None:
    world = World({A: "s"})
    world.acquire("t", 100)
    world["t"].stream = (9, 100)
    world.release("s", "t")
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [])


def test_what_this_node_released_it_goes_on_with() -> None:
    world = World({})
    world.mesh.released_here(Release(A, 1, "t"), 55, 200)
    world.mesh.refresh()
    world.owners = {A: "t"}
    world.mesh.refresh()
    assert world.plan == {}
    world.acquire("t", 150, history=55)
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [("adopt", A)])


def test_what_becomes_this_nodes_own_is_left_at_once() -> None:
    world = World({A: "s"})
    world.owners = {A: "me"}
    world.mesh.refresh()
    assert world.plan == {}


@pytest.mark.parametrize(("before", "after"), [("s", "k"), ("k", "s")])
def test_a_kevy_server_sets_no_marks_to_wait_for(before: str, after: str) -> None:
    world = World({A: before})
    world.owners = {A: after}
    world.mesh.refresh()
    assert world.plan == {after: (A,)}


def test_a_prefix_that_came_back_is_not_held_by_its_old_marks() -> None:
    world = World({A: "s"})
    world.release("s", "t")
    world.acquire("t", 100)
    world.owners = {A: "t"}
    world.release("t", "s", epoch=2)
    world.acquire("s", 100, epoch=2)
    world.owners = {A: "s"}
    world.mesh.refresh()
    assert world.plan == {"s": (A,)}
    assert world["s"].told == [("adopt", A)]


# -- by the ledger's epochs -------------------------------------------------------------------------------------------


def test_what_was_elsewhere_and_is_back_is_copied_again_unless_marks_say_how() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.own("t", 1)
    world.own("s", 2)
    # The marks may be on their way.
    assert (world.plan, world["s"].told) == ({"s": (A,)}, [])
    world.time += 1
    world.hear("t")
    assert world["s"].told == []
    world.hear("s")
    assert (world.plan, world["s"].told) == ({"s": (A,)}, [("renew", A)])
    # Once.
    world.hear("s")
    world.mesh.refresh()
    assert world["s"].told == [("renew", A)]


def test_a_writer_that_is_back_and_not_heard_is_asked_in_the_end() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.own("s", 2)
    world.time += PATIENCE
    world.mesh.refresh()
    assert world["s"].told == [("renew", A)]


def test_a_move_to_and_fro_that_is_heard_of_late_is_followed_by_its_marks() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.own("s", 2)
    world.release("s", "t", 1)
    assert world.plan == {}
    world.acquire("t", 100, epoch=1)
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [("adopt", A)])
    world.release("t", "s", 2)
    world.acquire("s", 100, epoch=2)
    assert (world.plan, world["s"].told) == ({"s": (A,)}, [("adopt", A)])


def test_the_stream_of_a_writer_that_has_acquired_a_prefix_anew_says_its_epoch() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.acquire("s", 100, epoch=2)
    world.own("s", 2)
    world.hear("s", "t")
    # Its follower has asked for a fresh copy already, because it had heard of no release.
    assert (world.plan, world["s"].told) == ({"s": (A,)}, [])


def test_a_ledger_that_lags_behind_the_streams_leads_nobody_back() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.release("s", "t")
    world.acquire("t", 100)
    assert world.plan == {"t": (A,)}
    world.time += 2 * PATIENCE
    world.hear("s", "t")
    world.mesh.refresh()
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [("adopt", A)])
    world.own("t", 1)
    world.time += 2 * PATIENCE
    world.mesh.refresh()
    assert world.plan == {"t": (A,)}


def test_who_is_to_have_a_prefix_and_does_not_yet_is_not_asked_for_it() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.release("s", "t")
    world.time += 2 * PATIENCE
    world.hear("s", "t")
    world.mesh.refresh()
    # It may have nothing yet; what is here is all there is.
    assert world.plan == {}
    assert world.mesh.lacks(A) is False
    world.time += 1
    world.own("t", 1)
    assert world.plan == {}
    world.acquire("t", 100)
    assert world["t"].told == [("adopt", A)]


@pytest.mark.parametrize("released", [False, True])
def test_marks_that_a_stream_did_not_bring_in_time_are_not_waited_for(released: bool) -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.time += 1
    world.hear("s", "t")
    world.time += 1
    if released:
        world.release("s", "t")
    world.own("t", 1)
    assert world.plan == ({} if released else {"s": (A,)})
    world.hear("t")
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [])


def test_a_release_that_does_not_come_is_not_waited_for_either() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world.acquire("t", 100)
    world.own("t", 1)
    world.time += 1
    world.hear("t")
    assert world.plan == {"s": (A,)}
    world.hear("s")
    assert world.plan == {"t": (A,)}


def test_a_copy_that_is_not_whole_has_nothing_to_wait_for() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world["s"].missing = (A,)
    assert world.mesh.lacks(A) is True
    world.own("t", 1)
    assert world.plan == {"t": (A,)}


def test_a_copy_that_was_not_whole_at_its_release_is_lacking_until_somebody_ships_it() -> None:
    world = World({A: "s"})
    world.own("s", 0)
    world["s"].missing = (A,)
    world.release("s", "t", whole=False)
    world["s"].missing = ()
    # Nobody is to be asked, and nobody is to get it from here.
    assert (world.plan, world.mesh.lacks(A)) == ({}, True)
    world.acquire("t", 100)
    assert (world.plan, world["t"].told, world.mesh.lacks(A)) == ({"t": (A,)}, [], False)


def test_what_this_node_owns_has_it_listen_before_anything_moves() -> None:
    world = World({A: "me"})
    assert (world.plan, set(world.mesh.followers)) == ({}, {"s", "t"})
    world.own("me", 0)
    world.mesh.released_here(Release(A, 1, "t"), 55, 200)
    world.mesh.refresh()
    world.acquire("t", 150, history=55)
    # Though the ledger is yet to say so.
    assert world.plan == {}
    world.own("t", 1)
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [("adopt", A)])
    world.own("me", 2)
    assert (world.plan, set(world.mesh.followers)) == ({}, {"s", "t"})


def test_links_that_were_of_use_stay_to_hear_of_moves() -> None:
    world = World({A: "s"})
    del world.owners[A]
    world.mesh.refresh()
    assert (world.plan, set(world.mesh.followers)) == ({}, {"s", "t"})
    world.active = False
    world.mesh.refresh()
    assert world.mesh.followers == {}
    world.active = True
    world.mesh.refresh()
    assert world.mesh.followers == {}
