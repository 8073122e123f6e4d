"""Prefixes that kevy servers give away, taken by whole nodes over a network in memory."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster import HOST, Cluster, ErrorReply, in_cluster
from support.scoped import PORTS, SCOPES, ScopedCluster, address, misdirected
from support.session_harness import request

PREFIX = b"k:"
BULK = b"".join(
    request(*command.split())
    for command in (
        "SET k:string value",
        "HSET k:hash f v g w",
        "RPUSH k:list 1 2 3",
        "SADD k:set x y",
        "ZADD k:zset 1 one 2 two",
        "PEXPIREAT k:hash 9000000000000",
    )
)


async def started(cluster: Cluster) -> ScopedCluster:
    ports = {**PORTS, "kevy": 7009}
    world = ScopedCluster(cluster, SCOPES | {PREFIX: "kevy"}, ports)
    await world.start(*PORTS, **_peers(ports))
    await world.opened(*SCOPES)
    return world


def _peers(ports: dict[str, int]) -> dict[str, Any]:
    kinds = {"kevy": "kevy"}
    return {
        "peer": [
            {"id": name, "address": f"{HOST}:{port}", "kind": kinds.get(name, "kevynode")}
            for name, port in ports.items()
        ]
    }


@in_cluster
async def test_a_prefix_is_taken_with_everything_in_it(cluster: Cluster) -> None:
    world = await started(cluster)
    assert await world.write("bert", "SET", "k:old", "v") == misdirected_to_kevy(world)
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:", BULK) == "OK 6"
    assert await world.write("anna", "GET", "k:string") == b"value"
    assert await world.write("anna", "LRANGE", "k:list", 0, -1) == [b"1", b"2", b"3"]
    assert await world.write("anna", "PEXPIRETIME", "k:hash") == 9_000_000_000_000
    assert await world.write("anna", "SET", "k:new", "v") == "OK"
    await cluster.until(lambda: all(world.owners(name)[PREFIX] == "anna" for name in world.nodes))
    await world.settle()
    assert await world.write("bert", "GET", "k:new") == b"v"
    assert await world.write("bert", "SET", "k:new", "v") == misdirected("anna")
    # A server that lost the answer asks again, and what was written since stays.
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:", BULK) == "OK 6"
    assert await world.write("anna", "GET", "k:new") == b"v"
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:", request("SET", "k:1", "v")) == ErrorReply(
        'ERR MOVE-SCOPE-INGEST: "anna", the writer of the prefix, is no peer of kind kevy'
    )
    for name in PORTS:
        await world.kill(name)
    await world.start(*PORTS, **_peers(world.ports))
    await world.settle()
    assert world.owners("cleo")[PREFIX] == "anna"
    assert await world.write("anna", "GET", "k:new") == b"v"
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:", BULK) == "OK 6"
    assert await world.write("anna", "MOVE-SCOPE", "k:", "FROM", "anna", "TO", "bert") == "OK 0"
    assert await world.write("bert", "GET", "k:new") == b"v"


def misdirected_to_kevy(world: ScopedCluster) -> ErrorReply:
    return ErrorReply(f"MISDIRECTED writer is {address('kevy', world.ports)}")


@pytest.mark.parametrize(
    ("prefix", "bulk", "error"),
    [
        ("k:", b"*2\r\n$3\r\nSET\r\n", "ERR MOVE-SCOPE-INGEST: malformed bulk"),
        ("k:", b"SET k:1 v\r\n", "ERR MOVE-SCOPE-INGEST: malformed bulk"),
        ("k:", BULK + request("FLUSHALL", "k:1", "x"), "ERR MOVE-SCOPE-INGEST: key 'k:1' refused by this node: "),
        ("k:", BULK + request("SET", "a:1", "x"), "ERR MOVE-SCOPE-INGEST: key 'a:1' refused by this node: "),
        ("k:", BULK + request("SADD", "k:list", "x"), "ERR MOVE-SCOPE-INGEST: key 'k:list' refused by this node: "),
        ("k:", BULK + request("HSET", "k:h", "x"), "ERR MOVE-SCOPE-INGEST: key 'k:h' refused by this node: "),
        ("x:", request("SET", "x:1", "v"), "ERR MOVE-SCOPE-INGEST: prefix is not a declared scope"),
        (
            "a:",
            request("SET", "a:1", "v"),
            'ERR MOVE-SCOPE-INGEST: "anna", the writer of the prefix, is no peer of kind kevy',
        ),
    ],
    ids=range(8),
)
@in_cluster
async def test_a_bad_bulk_leaves_nothing_behind(cluster: Cluster, prefix: str, bulk: bytes, error: str) -> None:
    world = await started(cluster)
    keys = len(world.nodes["anna"].store.keyspace)
    reply = await world.write("anna", "MOVE-SCOPE-INGEST", prefix, bulk)
    assert isinstance(reply, ErrorReply)
    assert reply.text.startswith(error)
    assert len(world.nodes["anna"].store.keyspace) == keys
    assert world.owners("anna")[PREFIX] == "kevy"


@in_cluster
async def test_an_ingest_without_its_words_is_refused(cluster: Cluster) -> None:
    world = await started(cluster)
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:") == ErrorReply(
        "ERR wrong number of arguments — MOVE-SCOPE-INGEST <prefix> <bulk>"
    )
