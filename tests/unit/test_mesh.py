"""Whom a node copies scopes from, as owners change and marks come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from support.session_harness import MemoryLog

from kevynode.replicate.mesh import PATIENCE, Acquired, Mesh, MeshPeer, Released
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
        self.missing: tuple[bytes, ...] = ()
        self.stream = (7, 100)
        self.received_bytes = 10
        self.told: list[Any] = []

    def follow_prefixes(self, prefixes: Sequence[bytes]) -> None:
        self.prefixes = tuple(prefixes)

    def adopt(self, prefix: bytes) -> None:
        self.told.append(("adopt", prefix))

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

    def __init__(self, owners: dict[bytes, str], found: dict[str, tuple[int, int]] | None = None) -> None:
        self.owners = owners
        self.time = 0.0
        self.active = True
        self.forgotten: list[str] = []
        peers = [MeshPeer(name, name, 1, "kevy" if name == "k" else "kevynode") for name in ("me", "s", "t", "k")]
        self.mesh = Mesh(
            "me",
            peers,
            lambda: self.owners,
            Following,
            MemoryLog(),
            monotonic=lambda: self.time,
            is_active=lambda: self.active,
            found=found,
            forget=self.forgotten.append,
        )
        self.mesh.refresh()

    def __getitem__(self, name: str) -> Following:
        follower = self.mesh.followers[name]
        assert isinstance(follower, Following)
        return follower

    @property
    def plan(self) -> dict[str, tuple[bytes, ...]]:
        return {name: follower.prefixes for name, follower in self.mesh.followers.items() if follower.prefixes}

    def release(self, name: str, owner: str, epoch: int = 1) -> None:
        self[name].released[A] = Released(Release(A, epoch, owner), self[name].stream)
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
    world.acquire("t", **marked)
    assert world.plan == {}
    world.time += PATIENCE
    world.mesh.refresh()
    assert (world.plan, world["t"].told) == ({"t": (A,)}, [])


def test_a_writer_that_started_anew_since_its_mark_is_asked_for_a_ship() -> None:
    world = World({A: "s"})
    world.acquire("t", 100)
    world["t"].stream = (9, 100)
    world.release("s", "t")
    world.time += PATIENCE
    world.mesh.refresh()
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
