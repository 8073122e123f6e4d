"""Prefixes that kevy servers give away, taken by whole nodes over a network in memory."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import trio
from support.cluster import HOST, Cluster, ErrorReply, in_cluster
from support.memory_disk import Call
from support.scoped import PORTS, SCOPES, ScopedCluster, address, misdirected
from support.session_harness import request
from support.store_harness import check_memory

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


REFUSED = "ERR MOVE-SCOPE-INGEST: key '%s' refused by this node: "
MALFORMED = "ERR MOVE-SCOPE-INGEST: malformed bulk"
NOT_KEVY = 'ERR MOVE-SCOPE-INGEST: "anna", the writer of the prefix, is no peer of kind kevy'

#: By name: prefix, bulk, and how the error begins.
BAD: dict[str, tuple[str, bytes, str]] = {
    "half a command": ("k:", b"*2\r\n$3\r\nSET\r\n", MALFORMED),
    "inline": ("k:", b"SET k:1 v\r\n", MALFORMED),
    "behind a good one": ("k:", BULK + b"\r\n", MALFORMED),
    "a length that lies": ("k:", BULK + b"*3\r\n$3\r\nSET\r\n$3\r\nk:1\r\n$9\r\nv\r\n", MALFORMED),
    "a negative length": ("k:", b"*3\r\n$3\r\nSET\r\n$-1\r\n$1\r\nv\r\n", MALFORMED),
    "a huge count": ("k:", b"*2147483647\r\n$3\r\nSET\r\n", MALFORMED),
    "a huge length": ("k:", b"*3\r\n$3\r\nSET\r\n$2147483647\r\nk:1\r\n", MALFORMED),
    "an empty command": ("k:", BULK + b"*0\r\n", MALFORMED),
    "no command": ("k:", BULK + b"*-1\r\n", MALFORMED),
    "a command within one": ("k:", b"*2\r\n*1\r\n$4\r\nPING\r\n$3\r\nk:1\r\n", MALFORMED),
    "a command without a value": ("k:", BULK + request("SET", "k:1"), MALFORMED),
    "FLUSHALL": ("k:", BULK + request("FLUSHALL", "k:1", "x"), REFUSED % "k:1"),
    "DEL": ("k:", BULK + request("DEL", "k:list", "k:set"), REFUSED % "k:list"),
    "MOVE-SCOPE": ("k:", BULK + request("MOVE-SCOPE", "k:", "FROM", "anna", "TO", "bert"), REFUSED % "k:"),
    "EVAL": ("k:", BULK + request("EVAL", "k:x", "0"), REFUSED % "k:x"),
    "MSET": ("k:", BULK + request("MSET", "k:1", "v", "k:2", "v"), REFUSED % "k:1"),
    "a key of another scope": ("k:", BULK + request("SET", "a:1", "x"), REFUSED % "a:1"),
    "a key of no scope": ("k:", BULK + request("SET", "k", "x"), REFUSED % "k"),
    "a group of another scope": ("k:", BULK + request("XGROUP", "CREATE", "a:s", "g", "0"), REFUSED % "a:s"),
    "another type": ("k:", BULK + request("SADD", "k:list", "x"), REFUSED % "k:list"),
    "words too few": ("k:", BULK + request("HSET", "k:h", "x"), REFUSED % "k:h"),
    "words too many": ("k:", BULK + request("SET", "k:1", "v", "AND", "MORE"), REFUSED % "k:1"),
    "no score": ("k:", BULK + request("ZADD", "k:z", "one", "m"), REFUSED % "k:z"),
    "a score that is none": ("k:", BULK + request("ZADD", "k:z", "nan", "m"), REFUSED % "k:z"),
    "a deadline of nothing": ("k:", BULK + request("PEXPIREAT", "k:none", "9000000000000"), REFUSED % "k:none"),
    "no deadline": ("k:", BULK + request("PEXPIREAT", "k:list", "soon"), REFUSED % "k:list"),
    "no id": ("k:", BULK + request("XADD", "k:s", "now", "f", "v"), REFUSED % "k:s"),
    "an id that is too low": (
        "k:",
        request("XADD", "k:s", "5-1", "f", "v") + request("XADD", "k:s", "4-1", "f", "v"),
        REFUSED % "k:s",
    ),
    "a scope that is not declared": (
        "x:",
        request("SET", "x:1", "v"),
        "ERR MOVE-SCOPE-INGEST: prefix is not a declared scope",
    ),
    "a part of a scope": (
        "k:sub:",
        request("SET", "k:sub:1", "v"),
        "ERR MOVE-SCOPE-INGEST: prefix is not a declared scope",
    ),
    "a scope of its own": ("a:", request("SET", "a:1", "v"), NOT_KEVY),
    "a scope of another node": ("b:", request("SET", "b:1", "v"), NOT_KEVY.replace("anna", "bert")),
}


def nothing_has_changed(world: ScopedCluster, held: dict[bytes, Any]) -> None:
    assert world.under("anna", b"") == held
    check_memory(world.nodes["anna"].store)
    assert world.owners("anna")[PREFIX] == "kevy"
    assert world.states("anna") == {b"a:": "open", b"b:": "elsewhere", b"c:": "elsewhere", PREFIX: "elsewhere"}
    assert not world.member("anna").keeper.state.agreed
    assert not world.member("anna")._taken


@pytest.mark.parametrize("name", BAD)
@in_cluster
async def test_a_bad_bulk_leaves_nothing_behind(cluster: Cluster, name: str) -> None:
    prefix, bulk, error = BAD[name]
    world = await started(cluster)
    assert await world.write("anna", "MSET", "a:1", "v", "free", "v") == "OK"
    held = world.under("anna", b"")
    position = world.nodes["anna"].replication.position
    reply = await world.write("anna", "MOVE-SCOPE-INGEST", prefix, bulk)
    assert isinstance(reply, ErrorReply), reply
    assert reply.text.startswith(error), reply
    nothing_has_changed(world, held)
    assert world.nodes["anna"].replication.position == position
    # And a good one is taken then.
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:", BULK) == "OK 6"
    assert world.is_open("anna", PREFIX)


@in_cluster
async def test_a_bulk_that_ends_anywhere_leaves_nothing_behind(cluster: Cluster) -> None:
    world = await started(cluster)
    held = world.under("anna", b"")
    client = await world.connect("anna")
    ends = {0}
    for command in BULK.split(b"*")[1:]:
        ends.add(max(ends) + len(command) + 1)
    for end in range(1, len(BULK)):
        if end not in ends:
            reply = await client.call("MOVE-SCOPE-INGEST", "k:", BULK[:end])
            assert reply == ErrorReply(MALFORMED), (end, reply)
    nothing_has_changed(world, held)


@in_cluster
async def test_a_large_bulk_that_finds_the_disk_full_leaves_nothing_behind(cluster: Cluster) -> None:
    world = await started(cluster)
    bulk = b"".join(request("SET", f"k:{number}", "x" * 1000) for number in range(100))

    def fail(call: Call) -> None:
        if "/stage-" in call.path and call.method in ("create", "write"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)

    cluster.disk("anna").before = fail
    reply = await world.write("anna", "MOVE-SCOPE-INGEST", "k:", bulk)
    cluster.disk("anna").before = None
    assert isinstance(reply, ErrorReply)
    assert "it cannot be recorded" in reply.text
    assert world.under("anna", PREFIX) == {}
    # It is copied from its writer again.
    assert not world.member("anna")._taken
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:", bulk) == "OK 100"
    assert len(world.under("anna", PREFIX)) == 100


@in_cluster
async def test_two_bulks_at_a_time_are_one_and_a_refusal(cluster: Cluster) -> None:
    world = await started(cluster)
    first, second, third = [await world.connect("anna") for _ in range(3)]
    await first.send("MOVE-SCOPE-INGEST", "k:", BULK)
    await second.send("MOVE-SCOPE-INGEST", "k:", BULK)
    await third.send("MOVE-SCOPE-INGEST", "k:", request("SET", "k:other", "v"))
    replies = [await client.reply() for client in (first, second, third)]
    moving = ErrorReply("ERR MOVE-SCOPE-INGEST: migration for this prefix is already in flight")
    assert replies.count("OK 6") == 1
    assert replies.count(moving) == 2
    assert await world.write("anna", "EXISTS", "k:string", "k:other") == 1


@in_cluster
async def test_an_empty_scope_is_taken_too(cluster: Cluster) -> None:
    world = await started(cluster)
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:", b"") == "OK 0"
    assert await world.write("anna", "SET", "k:1", "v") == "OK"
    await cluster.until(lambda: world.owners("bert")[PREFIX] == "anna", "the news")
    assert await world.write("bert", "MOVE-SCOPE-INGEST", "k:", b"") == ErrorReply(NOT_KEVY)


@in_cluster
async def test_nothing_is_moved_to_a_kevy_server(cluster: Cluster) -> None:
    world = await started(cluster)
    assert await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "kevy") == ErrorReply(
        'ERR MOVE-SCOPE: target node "kevy" not in [cluster] peers'
    )
    assert await world.write("anna", "SET", "a:1", "v") == "OK"


#: What changes something on a disk, or makes a change durable.
CHANGES = frozenset({"write", "sync", "create", "open_append", "rename", "remove", "sync_folder"})


@pytest.mark.slow
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power"])
@pytest.mark.parametrize("calls", range(8))
@in_cluster
async def test_a_node_that_ends_has_all_of_a_bulk_or_nothing_of_it(cluster: Cluster, calls: int, power: bool) -> None:
    world = await started(cluster)
    held = world.under("anna", b"")
    ended = trio.Event()
    cluster.expected_errors |= {"append_only_failed", "append_only_unsynced", "rewrite_failed"}
    seen = 0

    def end(call: Call) -> None:
        nonlocal seen
        seen += call.method in CHANGES
        if seen > calls:
            ended.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)

    cluster.disk("anna").before = end
    client = await world.connect("anna")
    await client.send("MOVE-SCOPE-INGEST", "k:", BULK)
    # It may be done with fewer calls.
    with trio.move_on_after(2):
        await ended.wait()
    await (world.lose_power("anna", calls) if power else world.kill("anna"))
    cluster.disk("anna").before = None
    await world.start("anna", **_peers(world.ports))
    await world.opened(b"a:")
    await trio.sleep(3)
    if world.owners("anna")[PREFIX] == "anna":
        assert len(world.under("anna", PREFIX)) == 5
        assert world.is_open("anna", PREFIX)
    else:
        assert await world.write("anna", "SET", "k:1", "v") == misdirected_to_kevy(world)
        assert {key for key in world.under("anna", b"") if not key.startswith(PREFIX)} == set(held)
    # The server asks again, as it has had no answer.
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:", BULK) == "OK 6"
    assert len(world.under("anna", PREFIX)) == 5
    await cluster.until(lambda: all(world.owners(name)[PREFIX] == "anna" for name in world.nodes))
    await world.settle()


@in_cluster
async def test_an_ingest_without_its_words_is_refused(cluster: Cluster) -> None:
    world = await started(cluster)
    assert await world.write("anna", "MOVE-SCOPE-INGEST", "k:") == ErrorReply(
        "ERR wrong number of arguments — MOVE-SCOPE-INGEST <prefix> <bulk>"
    )
