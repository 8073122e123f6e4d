"""Nodes with scopes as clients see them: who takes a write, who answers reads, and what copies hold."""

from __future__ import annotations

import random

import pytest
import trio
from support.cluster import HOST, Cluster, ClusterClient, ErrorReply, in_cluster
from support.scoped import ScopedCluster, closed, misdirected
from support.store_harness import content

CROSS = ErrorReply("CROSSSCOPE keys of the scopes a: and b: in one command or transaction")


# -- opening ----------------------------------------------------------------------------------------------------------


@in_cluster
async def test_nothing_is_written_before_all_peers_have_answered(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna")
    assert await world.write("anna", "SET", "a:1", "v") == closed("a:", "bert, cleo")
    assert await world.write("anna", "GET", "a:1") is None
    # bert may know of a new writer of it, even of anna.
    assert await world.write("anna", "SET", "b:1", "v") == closed("b:", "bert")
    assert await world.write("anna", "SET", "free", "v") == "OK"
    await world.start("bert")
    await cluster.until(lambda: world.row("anna", b"a:").detail == "cleo")
    assert await world.write("anna", "SET", "b:1", "v") == misdirected("bert")
    assert await world.write("anna", "SET", "a:1", "v") == closed("a:", "cleo")
    assert await world.write("bert", "SET", "b:1", "v") == closed("b:", "cleo")
    await world.start("cleo")
    await world.settle()
    for name in world.nodes:
        assert await world.write(name, "SET", f"{name[0]}:1", name) == "OK"
    await world.settle()
    assert await world.write("cleo", "GET", "a:1") == b"anna"
    waits = [facts["waits_for"] for facts in cluster.logged("anna", "scope_waits") if facts["prefix"] == b"a:"]
    assert waits[:2] == ["bert, cleo", "cleo"]


@pytest.mark.slow
@in_cluster
async def test_a_first_start_waits_for_a_peer_however_long_it_is_away(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert")
    await trio.sleep(600)
    assert await world.write("anna", "SET", "a:1", "v") == closed("a:", "cleo")
    assert await world.write("bert", "MSET", "b:1", "v", "free", "v") == closed("b:", "cleo")
    await world.start("cleo")
    await world.settle()


@in_cluster
async def test_a_node_told_to_trust_its_configuration_waits_for_nobody(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", flags={"trust_config": True, "start_empty": True})
    await world.opened(b"a:")
    assert trio.current_time() < 0.1
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await world.write("anna", "SET", "b:1", "v") == misdirected("bert")
    # It is for one start only, and says nothing about what the peers know.
    await world.stop("anna")
    await world.start("anna")
    await trio.sleep(60)
    assert await world.write("anna", "SET", "a:1", "v") == closed("a:", "bert, cleo")


@in_cluster
async def test_trust_in_the_configuration_brings_no_data_back(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", flags={"trust_config": True})
    await trio.sleep(60)
    reason = "bert, cleo to say what copy they hold"
    assert await world.write("anna", "SET", "a:1", "v") == closed("a:", reason)


@in_cluster
async def test_with_a_ledger_the_peers_are_waited_for_two_seconds(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    for name in tuple(world.nodes):
        await world.stop(name)
    await world.start("anna")
    began = trio.current_time()
    assert await world.write("anna", "SET", "a:1", "w") == closed("a:", "bert, cleo")
    assert await world.write("anna", "GET", "a:1") == b"v"
    await world.opened(b"a:")
    assert 2.0 <= trio.current_time() - began < 2.1
    assert await world.write("anna", "SET", "a:1", "w") == "OK"


@in_cluster
async def test_with_a_ledger_and_all_answers_nothing_is_waited_for(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    await world.stop("anna")
    await world.start("anna")
    began = trio.current_time()
    await world.opened(b"a:")
    assert trio.current_time() - began < 1.0


@in_cluster
async def test_a_node_alone_opens_at_once(cluster: Cluster) -> None:
    world = ScopedCluster(cluster, {b"a:": "anna", b"z:": "anna"}, {"anna": 7000})
    await world.start("anna")
    await world.opened()
    assert trio.current_time() < 0.1
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await world.write("anna", "MSET", "z:1", "v", "free", "v") == "OK"
    await world.kill("anna")
    await world.start("anna")
    await world.opened()
    assert await world.write("anna", "MGET", "a:1", "z:1", "free") == [b"v", b"v", b"v"]


@in_cluster
async def test_the_empty_prefix_is_everything(cluster: Cluster) -> None:
    world = ScopedCluster(cluster, {b"": "anna"}, {"anna": 7000, "bert": 7001})
    await world.start("anna")
    assert await world.write("anna", "SET", "x", "v") == closed("", "bert")
    await world.start("bert")
    await world.settle()
    assert await world.write("anna", "SET", "x", "v") == "OK"
    assert await world.write("bert", "SET", "x", "v") == misdirected("anna")
    await world.settle()
    assert await world.write("bert", "GET", "x") == b"v"


# -- the gate ---------------------------------------------------------------------------------------------------------


@in_cluster
async def test_every_way_to_write_is_held_against_the_scopes(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    client = await world.connect("anna")
    assert await client.call("MSET", "a:1", "x", "b:1", "y") == CROSS
    assert await client.call("RENAME", "a:1", "b:1") == CROSS
    assert await client.call("COPY", "b:1", "c:1") == misdirected("cleo")
    assert await client.call("DEL", "free", "c:1") == misdirected("cleo")
    assert await client.call("SUNIONSTORE", "b:set", "a:1", "c:1") == misdirected("bert")
    assert await client.call("SET", "a:1", "v") == "OK"
    assert await client.call("COPY", "a:1", "free") == 1
    # What is queued is refused at once, and the whole transaction with it.
    replies = await client.pipeline("MULTI", "SET a:1 w", "SET b:1 w", "SET free w", "EXEC")
    assert replies[:2] == ["OK", "QUEUED"]
    assert isinstance(replies[2], ErrorReply)
    assert isinstance(replies[4], ErrorReply)
    assert replies[4].text.startswith("EXECABORT")
    assert await client.call("MGET", "a:1", "free") == [b"v", b"v"]
    # A blocked client of a foreign scope is not let wait.
    assert await client.call("BLPOP", "b:list", 0) == misdirected("bert")
    assert await client.call("BLPOP", "a:list", "c:list", 0) == ErrorReply(
        "CROSSSCOPE keys of the scopes a: and c: in one command or transaction"
    )
    await world.settle()
    assert [set(content(world.nodes[name].store)) for name in ("bert", "cleo")] == [{b"a:1"}, {b"a:1"}]


@in_cluster
async def test_keys_without_a_scope_stay_where_they_are(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    for name in world.nodes:
        assert await world.write(name, "MSET", "free", name, f"{name[0]}:1", name) == "OK"
    await world.settle()
    for name in world.nodes:
        assert await world.write(name, "MGET", "free", "a:1", "b:1", "c:1") == [
            name.encode(), b"anna", b"bert", b"cleo",
        ]  # fmt: skip
    assert await world.write("bert", "FLUSHALL") == "OK"
    await world.settle()
    assert await world.write("bert", "MGET", "free", "a:1", "b:1", "c:1") == [None, b"anna", None, b"cleo"]
    assert await world.write("anna", "MGET", "free", "a:1", "b:1", "c:1") == [b"anna", b"anna", None, b"cleo"]


@in_cluster
async def test_copies_are_counted_as_they_come_and_go(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    for number in range(30):
        for name in world.nodes:
            await world.write(name, "SET", f"{name[0]}:{number}", "v" * number)
            await world.write(name, "RPUSH", f"{name[0]}:l", "v")
    await world.settle()
    await world.write("anna", "DEL", *[f"a:{number}" for number in range(20)])
    await world.settle()
    for name, node in world.nodes.items():
        copied = [prefix for prefix, owner in world.scopes.items() if owner != name]
        assert node.store.foreign_keys == sum(len(world.under(name, prefix)) for prefix in copied)
        assert 0 < node.store.foreign_used < node.store.used


@in_cluster
async def test_nothing_is_copied_where_nothing_is_wanted(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert")
    await world.start("cleo", replicate="none")
    await world.opened()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await world.write("cleo", "SET", "a:1", "v") == misdirected("anna")
    await trio.sleep(5)
    assert not world.under("cleo", b"a:")


@in_cluster
async def test_only_what_is_wanted_is_copied(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert")
    await world.start("cleo", replicate=["a:"])
    await world.opened()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await world.write("bert", "SET", "b:1", "v") == "OK"
    await cluster.until(lambda: world.under("cleo", b"a:"), "the copy")
    await trio.sleep(5)
    assert world.under("cleo", b"b:") == {}
    assert world.under("anna", b"b:")


# -- whatever happens -------------------------------------------------------------------------------------------------


class Writer:
    """A client that writes growing numbers under one prefix of one node, and remembers which were acknowledged."""

    def __init__(self, world: ScopedCluster, name: str, chance: random.Random) -> None:
        self.world = world
        self.name = name
        self.chance = chance
        self.acknowledged: dict[str, int] = {}
        self._number = 0

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            if self.name in self.world.nodes:
                try:
                    client = await self.world.connect(self.name)
                    await self._write(client)
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
                    pass
            await trio.sleep(self.chance.uniform(0.01, 0.2))

    async def _write(self, client: ClusterClient) -> None:
        while True:
            self._number += 1
            number = self._number
            key = f"{self.name[0]}:{self.chance.randrange(12)}"
            if self.chance.random() < 0.2:
                done = await client.call("MSET", key, number, f"free:{self.name}", number)
            else:
                done = await client.call("SET", key, number)
            if done == "OK":
                self.acknowledged[key] = number
            else:
                assert isinstance(done, ErrorReply), done
                assert done.text.startswith("LOADING"), done
            await trio.sleep(self.chance.uniform(0.0, 0.05))

    def check(self) -> None:
        """Assert that the node has what was acknowledged, or something later."""
        for key, number in self.acknowledged.items():
            found = self.world.nodes[self.name].get(key)
            assert found is not None, (self.name, key, number)
            assert int(found) >= number, (self.name, key)


@pytest.mark.parametrize("seed", range(6))
@in_cluster
async def test_copies_equal_their_scopes_whatever_happens_to_nodes_and_network(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    writers = [Writer(world, name, random.Random(f"{seed} {name}")) for name in world.ports]
    async with trio.open_nursery() as nursery:
        for writer in writers:
            nursery.start_soon(writer.run)
        for step in range(12):
            await trio.sleep(chance.uniform(0.0, 1.0))
            name = chance.choice(sorted(world.ports))
            port = world.ports[name] + 10000
            match chance.randrange(5) if name in world.nodes else 9:
                case 0:
                    cluster.network.cut(f"{HOST}:{port}")
                case 1:
                    cluster.network.separate(f"{HOST}:{port}")
                case 2:
                    await world.kill(name)
                case 3:
                    await world.lose_power(name, seed * 100 + step)
                case 4:
                    await world.stop(name)
                case _:
                    await world.start(name)
            if chance.random() < 0.4:
                cluster.network.unreachable.clear()
        cluster.network.unreachable.clear()
        for name in world.ports:
            if name not in world.nodes:
                await world.start(name)
        await world.opened()
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    await world.settle()
    for writer in writers:
        assert writer.acknowledged
        writer.check()
        kept = {key for key in content(world.nodes[writer.name].store) if key.startswith(b"free")}
        assert kept <= {f"free:{writer.name}".encode()}


@in_cluster
async def test_nothing_goes_round(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    for number in range(50):
        for name in world.nodes:
            assert await world.write(name, "SET", f"{name[0]}:{number}", number) == "OK"
    await world.settle()
    positions = [node.replication.position for node in world.nodes.values()]
    # Each has its own entries and those of the two others, once.
    assert positions == [150, 150, 150]
    await trio.sleep(60)
    assert [node.replication.position for node in world.nodes.values()] == positions


@in_cluster
async def test_what_is_open_is_not_taken_for_lost_when_a_peer_comes_back(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    await world.settle()
    changes: list[str] = []
    world.member("anna").ownership.observers.append(lambda: changes.append(world.row("anna", b"a:").state))
    await world.kill("cleo")
    assert await world.write("anna", "SET", "a:1", "later") == "OK"
    cluster.network.separate(f"{HOST}:{world.ports['anna'] + 10000}")
    await world.start("cleo")
    # cleo says that it holds an older copy, with keys in it.
    await trio.sleep(30)
    cluster.network.unreachable.clear()
    await world.settle()
    assert changes == []
    assert not cluster.logged("anna", "scope_restored")
    assert world.nodes["cleo"].get("a:1") == b"later"


@in_cluster
async def test_who_wants_no_copies_keeps_none_of_what_it_gives_away(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert")
    await world.start("cleo", replicate="none")
    await world.opened()
    assert await world.write("cleo", "SET", "c:1", "v") == "OK"
    client = await world.connect("cleo")
    reply = await client.call("MOVE-SCOPE", "c:", "FROM", "cleo", "TO", "anna")
    assert isinstance(reply, str), reply
    assert reply.startswith("OK")
    assert await world.write("anna", "GET", "c:1") == b"v"
    await cluster.until(lambda: not world.under("cleo", b"c:"), "the end of what was given away")
