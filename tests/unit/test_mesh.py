"""Whom a node copies scopes from, as owners change and marks come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from support.session_harness import MemoryLog

from kevynode.replicate.mesh import PATIENCE, Acquired, Mesh, MeshPeer, Released, ScopeCopy
from kevynode.replication_view import UpstreamFacts
from kevynode.store.marks import Acquire, Release

A = b"a:"


class Following:
    """A follower that remembers what it was told."""

    def __init__(self, peer: MeshPeer, prefixes: Sequence[bytes], found: Mapping[str, tuple[int, int]]) -> None:
        self.address = f"{peer.host}:{peer.port}"
        self.prefixes = tuple(prefixes)
        self.found = dict(found)
        self.released: dict[bytes, Released] = {}
        self.acquired: dict[bytes, Acquired] = {}
        self.on_marks: Callable[[], None] = lambda: None
        self.on_heard: Callable[[], None] = lambda: None
        # Until when all has been heard.
        self.heard_at = -1.0
        self.missing: tuple[bytes, ...] = ()
        self.stream = (7, 100)
        self.ancestors: tuple[tuple[int, int], ...] = ((6, 40),)
        self.received_bytes = 10
        self.told: list[Any] = []
        self.left: dict[bytes, Released] = {}
        self.earlier: dict[bytes, ScopeCopy] = {}
        self.on_placing: Callable[[tuple[bytes, ...]], None] = lambda prefixes: None

    def place_of(self, prefix: bytes) -> tuple[int, int]:
        return self.stream

    def follow_prefixes(self, prefixes: Sequence[bytes]) -> None:
        self.prefixes = tuple(prefixes)

    def adopt(self, prefix: bytes) -> None:
        self.told.append(("adopt", prefix))

    def renew(self, prefix: bytes) -> None:
        self.told.append(("renew", prefix))

    def leave(self, left: Mapping[bytes, Released], earlier: Mapping[bytes, ScopeCopy]) -> None:
        self.left, self.earlier = dict(left), dict(earlier)

    def has_heard_all(self, since: float) -> bool:
        return self.heard_at >= since

    def retire(self, reason: str) -> None:
        self.told.append("retired")

    def facts(self, now: float) -> UpstreamFacts:
        return UpstreamFacts("h", 1, "connected", "", None, None, 0, 0, None, 0, None)

    def has_applied(self, history: int, offset: int) -> bool | None:
        return offset <= self.stream[1] if history == self.stream[0] else None

    async def run(self) -> None:
        """Nobody runs it."""


class World:
    """A mesh of node ``me`` with peers ``s`` and ``t`` and a kevy server ``k``."""

    def __init__(
        self,
        owners: dict[bytes, str],
        found: dict[str, tuple[int, int]] | None = None,
        epochs: dict[bytes, int] | None = None,
    ) -> None:
        self.owners = owners
        # None: they are not known at all.
        self.epochs = epochs
        self.time = 0.0
        self.active = True
        # Of whose owner there is doubt.
        self.unsure: set[bytes] = set()
        self.forgotten: list[str] = []
        # The cursors in the files.
        self.files = dict(found or {})
        peers = [MeshPeer(name, name, 1, "kevy" if name == "k" else "kevynode") for name in ("me", "s", "t", "k")]
        self.mesh = Mesh(
            "me",
            peers,
            lambda: self.owners,
            Following,
            MemoryLog(),
            monotonic=lambda: self.time,
            epoch=lambda prefix: None if self.epochs is None else self.epochs.get(prefix, 0),
            is_sure=lambda prefix: prefix not in self.unsure,
            is_active=lambda: self.active,
            found=found,
            note=self.note,
        )
        self.mesh.refresh()

    def note(self, name: str, history: int, offset: int) -> None:
        """The files are told of a cursor."""
        if (history, offset) == (0, 0):
            self.forgotten.append(name)
            self.files.pop(name, None)
        else:
            self.files[name] = history, offset

    def __getitem__(self, name: str) -> Following:
        follower = self.mesh.followers[name]
        assert isinstance(follower, Following)
        return follower

    @property
    def plan(self) -> dict[str, tuple[bytes, ...]]:
        return {name: follower.prefixes for name, follower in self.mesh.followers.items() if follower.prefixes}

    def own(self, owner: str, epoch: int) -> None:
        """The ledger says so."""
        self.owners[A] = owner
        self.epochs = (self.epochs or {}) | {A: epoch}
        self.mesh.refresh()

    def hear(self, *names: str) -> None:
        """All that these writers have to say has come."""
        for name in names:
            self[name].heard_at = self.time
            self[name].on_heard()

    def release(self, name: str, owner: str, epoch: int = 1, *, whole: bool = True) -> None:
        self[name].released[A] = Released(Release(A, epoch, owner), self[name].stream, whole)
        self[name].acquired.pop(A, None)
        self[name].follow_prefixes([prefix for prefix in self[name].prefixes if prefix != A])
        self[name].on_marks()

    def acquire(self, name: str, tail: int, *, history: int = 7, epoch: int = 1) -> None:
        self[name].acquired[A] = Acquired(Acquire(A, epoch, history, tail), self[name].stream)
        self[name].released.pop(A, None)
        self[name].on_marks()


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
