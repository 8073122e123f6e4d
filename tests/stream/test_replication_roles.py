"""Roles that change at random, under writes, cuts and crashes: in the end all hold what the one primary holds."""

from __future__ import annotations

import random

import pytest
import trio
from support.cluster import HOST, Cluster, fill, in_cluster
from support.network import Wire

from kevynode import Node
from kevynode.errors import ReplyError

NODES = 4
STEPS = 120


def disturb(draw: random.Random, wire: Wire) -> None:
    """Make a connection slow, small or short, or leave it as it is."""
    wire.outward.latency = draw.choice((0.0, 0.0, 0.003, 0.05))
    wire.outward.grain = draw.choice((1 << 20, 1 << 20, 100, 3))
    if draw.random() < 0.3:
        wire.outward.limit = draw.randrange(8000)


def write(draw: random.Random, node: Node) -> None:
    """A change of any kind, if the node takes it."""
    key = draw.randrange(10)
    try:
        match draw.randrange(7):
            case 0:
                node.execute("SET", f"s{key}", draw.random())
            case 1:
                node.execute("RPUSH", f"l{key}", *(draw.random() for _ in range(3)))
            case 2:
                node.execute("LMOVE", f"l{key}", "l0", "LEFT", "RIGHT")
            case 3:
                node.execute("SET", f"m{key}", "x", "PX", draw.randrange(1, 3000))
            case 4:
                node.execute("HSET", f"h{key}", draw.randrange(5), draw.random())
            case 5 if draw.random() < 0.5:
                node.execute("SPOP", f"t{key}")
            case 5:
                node.execute("SADD", f"t{key}", draw.random())
            case 6 if draw.random() < 0.1:
                node.execute("FLUSHALL")
            case 6:
                node.execute("DEL", f"s{key}", f"l{key}")
    except ReplyError as error:
        if error.prefix not in ("READONLY", "LOADING"):
            raise


@pytest.mark.parametrize("seed", range(8))
@in_cluster
async def test_after_any_change_of_roles_all_agree_in_the_end(cluster: Cluster, seed: int) -> None:
    draw = random.Random(seed)
    nodes = [await cluster.start(str(n), port=7000 + n, replication_buffer_size=20_000) for n in range(NODES)]
    fill(nodes[0])
    cluster.network.on_connect = lambda wire: disturb(draw, wire)
    for node in nodes[1:]:
        node.execute("REPLICAOF", HOST, 17000)
    for _ in range(STEPS):
        index = draw.randrange(NODES)
        match draw.randrange(12):
            case 0:
                nodes[index].execute("REPLICAOF", "NO", "ONE")
            case 1 | 2:
                nodes[index].execute("REPLICAOF", HOST, 17000 + draw.randrange(NODES))
            case 3:
                cluster.network.cut(nodes[index].replication_address)
            case 4 if draw.random() < 0.3:
                await (cluster.kill(nodes[index]) if draw.random() < 0.5 else cluster.stop(nodes[index]))
                nodes[index] = await cluster.restart(nodes[index])
            case _:
                for _ in range(draw.randrange(1, 10)):
                    write(draw, draw.choice(nodes))
        if draw.random() < 0.5:
            await trio.sleep(draw.choice((0.0, 0.001, 0.02, 0.5)))
    cluster.network.on_connect = None
    for wire in cluster.network.wires:
        for lane in wire.lanes:
            lane.limit, lane.grain, lane.latency = None, 1 << 20, 0.0
            lane.changed()
    primary = draw.choice(nodes)
    primary.execute("REPLICAOF", "NO", "ONE")
    others = [node for node in nodes if node is not primary]
    draw.shuffle(others)
    above = primary
    for node in others:
        node.execute("REPLICAOF", HOST, above.port + 10000)
        above = draw.choice((above, node))
    primary.set("the", "end")
    await trio.sleep(5)
    await cluster.settle(primary, *others)
