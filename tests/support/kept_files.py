"""Nodes of a cluster that keep files: how they are told to, and what another one finds in them."""

from __future__ import annotations

from typing import Any

from support.cluster import Cluster
from support.memory_disk import MemoryDisk
from support.store_harness import content

__all__ = ["files", "opened"]


def files(policy: str = "everysec", **more: Any) -> dict[str, Any]:
    """The section ``[persistence]``."""
    return {"aof": True, "appendfsync": policy, **more}


async def opened(cluster: Cluster, disk: MemoryDisk) -> Any:
    """What a node finds that starts on a disk, and is none of those whose start a test looks at."""
    hook, cluster.on_node = cluster.on_node, None
    cluster.disks["finder"] = disk
    finder = await cluster.start("finder", port=7099, persistence=files())
    found = content(finder.store)
    await cluster.stop(finder)
    cluster.on_node = hook
    return found
