"""Looks at what each node counts its copies for: no more than they have, at the moment at which they say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import trio
from sim.world import REPLICATION_PORT, Life, World

from kevynode import Node

__all__ = ["Counted"]


class Counted:
    """Checks at each acknowledgement that whoever said it has applied it, and has in place what it counts for."""

    def __init__(self, world: World, prefixes: Sequence[bytes]) -> None:
        self.looked = 0
        # When each link was first heard of.
        self._links: dict[Any, float] = {}
        self._world = world
        self._prefixes = tuple(prefixes)
        world.on_birth.append(self._born)

    def _born(self, life: Life) -> None:
        assert life.node is not None
        replication = life.node.replication
        replication.heard = partial(self._heard, life, replication.heard)  # type: ignore[method-assign]

    def _heard(self, life: Life, take: Callable[[Any, Any, bytes], None], slot: Any, link: Any, data: bytes) -> None:
        first = self._links.setdefault(link, trio.current_time())
        take(slot, link, data)
        if life.dead or slot.state != "streaming" or slot.acked_at is None:
            return
        name = slot.replica_id.partition("#")[2].partition(".")[0]
        node = self._world.living().get(name)
        if node is None or first < self._world.lives[name].began:
            # What it says was true of what it was in an earlier life, and has been on its way since.
            return
        self.looked += 1
        if node.member is None:
            self._check_replica(life, name, node, slot)
        else:
            self._check_scopes(life, name, node, slot, link)

    def _check_replica(self, life: Life, name: str, node: Node, slot: Any) -> None:
        replication = node.replication
        follows = replication.target == (self._world.addresses[life.name], REPLICATION_PORT)
        if follows and replication.history == slot.history and replication.position < slot.acked:
            self._world.fail(f"sessions: {name} is counted up to {slot.acked}, and has applied {replication.position}")

    def _check_scopes(self, life: Life, name: str, node: Node, slot: Any, link: Any) -> None:
        assert node.member is not None
        mesh = node.member.mesh
        follower = None if mesh is None else mesh.followers.get(life.name)
        if mesh is None or follower is None:
            return
        for prefix in self._prefixes:
            if slot.prefixes is not None and not prefix.startswith(slot.prefixes):
                continue
            copy = mesh.copy_of(prefix) if prefix in follower.prefixes else None
            if copy is not None:
                if copy.history == slot.history and copy.offset < slot.acked:
                    self._world.fail(
                        f"sessions: {name} is counted up to {slot.acked} for {prefix!r}, and has applied {copy.offset}"
                    )
            elif prefix in follower.missing and not link.coverage.resyncs.held((prefix,)):
                # Both of them know that it is yet to be shipped.
                self._world.fail(f"sessions: {name} is counted for {prefix!r}, which is not in place there")
