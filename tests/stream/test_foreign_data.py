"""A data directory with another server's files in it: they are left alone, and that is said."""

from __future__ import annotations

import pytest
from support.cluster import Cluster, in_cluster

ON = {"aof": True}


@pytest.mark.parametrize("name", ["dump.rdb", "appendonly.aof"])
@in_cluster
async def test_data_of_another_server_are_named_once(cluster: Cluster, name: str) -> None:
    disk = cluster.disk("a")
    disk.create(f"/data/{name}").close()
    node = await cluster.start("a", port=7000, persistence=ON)
    assert cluster.logged("a", "foreign_data_not_read") == [{"file": f"/data/{name}"}]
    assert disk.content(f"/data/{name}") == b""
    node.set("k", "v")
    await cluster.stop(node)
    # It has data of its own by now.
    await cluster.restart(node)
    assert not cluster.logged("a", "foreign_data_not_read")


@in_cluster
async def test_an_empty_directory_is_nothing_to_speak_of(cluster: Cluster) -> None:
    await cluster.start("a", port=7000, persistence=ON)
    assert not cluster.logged("a", "foreign_data_not_read")
