"""Whole nodes that follow each other over a network in memory: which kind of synchronisation it takes, and equal data."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.cluster import open_cluster

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def test_a_replica_begins_with_a_snapshot_and_follows() -> None:
    async with open_cluster() as cluster:
        primary = await cluster.start("primary", port=7000)
        primary.set("before", "1")
        replica = await cluster.start("replica", port=7001, upstream=primary)
        await cluster.settle(primary, replica)
        primary.set("after", "2")
        primary.execute("RPUSH", "list", "a", "b")
        await cluster.settle(primary, replica)
        assert replica.get("after") == b"2"
        assert primary.server.view.full_syncs == 1


async def test_a_replica_that_was_cut_off_resumes() -> None:
    async with open_cluster() as cluster:
        primary = await cluster.start("primary", port=7000)
        replica = await cluster.start("replica", port=7001, upstream=primary)
        await cluster.settle(primary, replica)
        cluster.network.cut(primary.replication_address)
        primary.set("missed", "1")
        await cluster.settle(primary, replica)
        assert (primary.server.view.full_syncs, primary.server.view.partial_syncs) == (1, 1)
