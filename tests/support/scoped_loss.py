"""Nodes that hold data of every type under one scope, which is then lost here or there."""

from __future__ import annotations

from collections.abc import Callable

from support.scoped import ScopedCluster
from support.store_harness import Content

MEMORY_ONLY = {"aof": False}


async def filled(world: ScopedCluster, *names: str) -> Content:
    """Start nodes, and let anna write things of every type; what all of them hold then under its scope."""
    await world.start(*names)
    await world.settle()
    write_all_types(world)
    await world.settle()
    return world.under("anna", b"a:")


def write_all_types(world: ScopedCluster) -> None:
    run = world.nodes["anna"].execute
    for number in range(100):
        run("SET", f"a:{number}", f"v{number}")
    run("RPUSH", "a:list", "x", "y", "z")
    run("HSET", "a:hash", "f", "1", "g", "2")
    run("HPEXPIRE", "a:hash", 9_000_000_000, "FIELDS", 1, "f")
    run("SADD", "a:set", "x", "y")
    run("ZADD", "a:zset", 1.5, "m", "-inf", "n")
    run("SET", b"a:\r\n\x00\xff", b"*2\r\n")
    run("SET", "a:mortal", "v", "PX", 9_000_000_000)
    run("DEL", "a:7")
    run("SET", "free", "anna's")


def unharmed(world: ScopedCluster, expected: Content, *names: str) -> Callable[[], None]:
    """Asserts that these nodes hold exactly that of anna's scope."""
    stores = [world.nodes[name].store for name in names]
    keys = tuple(expected)

    def check() -> None:
        for store in stores:
            held = sum(key in store.keyspace for key in keys)
            assert held == len(keys), f"{len(keys) - held} keys were gone"

    return check
