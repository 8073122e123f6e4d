"""A node inside another Trio program, for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import attrs
import trio

from .clock import Clock
from .config import NodeConfig
from .disk import Disk
from .log import Logger, open_log
from .node import Node, StartError
from .transport import Transport

__all__ = ["open_node", "open_replica"]


@asynccontextmanager
async def open_node(
    config: NodeConfig | None = None,
    *,
    log: Logger | None = None,
    clock: Clock | None = None,
    transport: Transport | None = None,
    random: Random | None = None,
    disk: Disk | None = None,
) -> AsyncIterator[Node]:
    """Run a node inside this Trio program for the length of the block; its tasks end with the block.

    ``config`` defaults to :class:`NodeConfig`'s defaults, ``log`` to what ``config.log`` says. Clock, transport and
    randomness, and the ``disk``, replace the machine's. Installs no signal handlers. The block begins when the data of
    the last run are loaded. Raises StartError if it cannot listen or load.

    >>> async def main():
    ...     memory_only = {"persistence": {"aof": False}, "log": {"level": "error"}}
    ...     config = NodeConfig.from_dict({"server": {"port": 0}, **memory_only})
    ...     async with open_node(config) as node:
    ...         node.set("greeting", "hello")
    ...         return node.get("greeting"), node.execute("INCR", "visits")
    >>> trio.run(main)
    (b'hello', 1)
    """
    config = config if config is not None else NodeConfig()
    with log if log is not None else open_log(config.log) as opened:
        node = Node(config, opened, clock=clock, transport=transport, random=random, disk=disk)
        failure: Exception | None = None
        try:
            await node.open_files()
            await node.listen()
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(node.run)
                    if not node.loaded:
                        raise StartError("the node was stopped while its data were being loaded")
                    yield node
                except Exception as error:
                    # Raised again outside, so that it arrives as itself and not in the nursery's group.
                    failure = error
                finally:
                    node.stop()
        finally:
            node.close_listeners()
            await node.files.finish()
        if failure is not None:
            raise failure


@asynccontextmanager
async def open_replica(
    upstream: str,
    config: NodeConfig | None = None,
    *,
    log: Logger | None = None,
    clock: Clock | None = None,
    transport: Transport | None = None,
    random: Random | None = None,
    disk: Disk | None = None,
) -> AsyncIterator[Node]:
    """Run a live copy of another node inside this program, for the length of the block.

    ``upstream`` is that node's replication address, ``host:port``. The block begins when the first copy is complete,
    however long that takes: put a deadline around it, not inside. Reads cost no round trip from then on, also while the
    upstream is away. ``config`` says the rest; without it the node listens on any free port of the loopback address,
    and keeps no files.
    Other arguments as :func:`open_node`. Raises ConfigError for a bad address, and StartError.

    >>> async def main():
    ...     memory_only = {"persistence": {"aof": False}, "log": {"level": "error"}}
    ...     config = NodeConfig.from_dict({"server": {"port": 0}, **memory_only})
    ...     async with open_node(config) as primary:
    ...         primary.set("greeting", "hello")
    ...         async with open_replica(primary.replication_address, config) as replica:
    ...             primary.set("answer", "42")
    ...             await primary.wait(1)
    ...             return replica.get("greeting"), replica.get("answer")
    >>> trio.run(main)
    (b'hello', b'42')
    """
    followed = NodeConfig.from_dict(
        {
            "server": {"port": 0},
            "persistence": {"aof": False},
            "replication": {"role": "replica", "upstream": upstream},
        }
    )
    if config is not None:
        target = followed.replication.upstream
        followed = attrs.evolve(config, replication=attrs.evolve(config.replication, role="replica", upstream=target))
    async with open_node(followed, log=log, clock=clock, transport=transport, random=random, disk=disk) as node:
        await node.synced()
        yield node
