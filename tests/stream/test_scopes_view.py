"""What nodes tell of each other and of their copies, and what they give to nobody."""

from __future__ import annotations

import pytest
from support.cluster import HOST, Cluster, ErrorReply, in_cluster
from support.scoped import ScopedCluster, address, misdirected

from kevynode.probe import parse_info
from kevynode.status import Facts, peers, scopes


def told(world: ScopedCluster, name: str) -> tuple[dict[str, Facts], dict[str, Facts]]:
    """What a node's INFO says: its scopes by prefix, and the other nodes by id."""
    sections = parse_info(str(world.nodes[name].execute("INFO", "scopes")))
    return (
        {str(row["prefix"]): row for row in scopes(sections)},
        {str(row["id"]): row for row in peers(sections)},
    )


@in_cluster
async def test_what_is_known_of_each_other_node_is_told(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    await world.write("bert", "SET", "b:1", "v")
    await world.settle()
    rows, others = told(world, "anna")
    assert {prefix: row.get("copy") for prefix, row in rows.items()} == {"a:": None, "b:": "whole", "c:": "whole"}
    assert list(others) == ["bert", "cleo"]
    for name, row in others.items():
        assert (row["client"], row["address"]) == (address(name), f"{HOST}:{world.ports[name] + 10000}")
        assert (row["kind"], row["link"], row["state"]) == ("kevynode", "up", "serving")
        assert (row["ledger"], row["configuration"]) == ("equal", "equal")
        assert (row["copied"], row["missing"], row["copying"], row["lag_frames"]) == (1, 0, "connected", 0)
        assert isinstance(row["heard_ms"], int)
        assert "warning" not in row
        assert "problem" not in row


@in_cluster
async def test_a_node_that_is_away_is_told_with_the_reason_and_its_copy_stays_whole(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", "cleo")
    await world.settle()
    await world.kill("bert")
    await cluster.until(lambda: told(world, "anna")[1]["bert"]["link"] == "down", "the loss of a link")
    rows, others = told(world, "anna")
    assert rows["b:"]["copy"] == "whole"
    assert others["bert"]["warning"] == "no link"
    assert others["bert"]["problem"]
    # What was said on a link that is gone is not said any more.
    assert {"state", "ledger"} & others["bert"].keys() == set()
    assert others["cleo"]["link"] == "up"


@in_cluster
async def test_a_copy_that_is_not_whole_is_said_to_be_missing_and_given_to_nobody(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "bert", replicate=["c:"])
    await cluster.until(lambda: told(world, "anna")[1]["bert"]["link"] == "up", "a link")
    rows, others = told(world, "anna")
    # Nobody has ever seen cleo; bert's scope is not wanted.
    assert (rows["c:"]["copy"], rows["b:"]["copy"]) == ("missing", "none")
    assert rows["c:"]["warning"] == "its copy here is not whole"
    assert (others["cleo"]["copied"], others["cleo"]["missing"]) == (1, 1)
    assert others["cleo"]["warning"] == "no link; 1 of 1 copies are not whole"
    assert "heard_ms" not in others["cleo"]
    # Reads are answered all the same.
    assert await world.write("anna", "GET", "c:1") is None
    withheld = world.nodes["anna"].replication.is_withheld
    assert withheld is not None
    assert withheld(b"c:")
    assert withheld(b"b:")
    await world.start("cleo")
    await world.settle()
    rows, others = told(world, "anna")
    assert rows["c:"]["copy"] == "whole"
    assert others["cleo"]["missing"] == 0
    assert not withheld(b"c:")
    assert not withheld(b"a:")


@in_cluster
async def test_configurations_that_differ_are_told_of_the_node_that_has_the_other_one(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    scope = [{"prefix": "a:", "writer": "bert"}, {"prefix": "b:", "writer": "bert"}, {"prefix": "c:", "writer": "cleo"}]
    await world.start("anna", "cleo")
    await world.start("bert", scope=scope)
    await cluster.until(lambda: told(world, "anna")[1]["bert"].get("configuration") == "differs", "a difference")
    assert "its configuration differs" in str(told(world, "anna")[1]["bert"]["warning"])
    await cluster.until(lambda: "warning" not in told(world, "anna")[1]["cleo"], "a copy of what nobody disputes")
    # What is written nowhere is said to wait, and what for.
    await cluster.until(lambda: told(world, "anna")[0]["a:"]["state"] == "waiting", "the scope's being closed")
    detail = str(told(world, "anna")[0]["a:"]["detail"])
    assert detail.startswith("agreement with bert (there the writer is bert)")


@in_cluster
@pytest.mark.parametrize("advertise", ["", "public.example:7777"])
async def test_a_node_says_itself_where_its_clients_find_it(cluster: Cluster, advertise: str) -> None:
    world = ScopedCluster(cluster)
    tables = world.tables("anna")
    tables["server"]["advertise"] = advertise
    world.nodes["anna"] = await cluster.start_with("anna", tables)
    await world.start("bert", "cleo")
    await world.settle()
    assert [facts["advertise"] for facts in cluster.logged("anna", "advertise_differs")] == [advertise] * bool(
        advertise
    )
    # Where to read what this node has never heard of: nobody knows more of it than the node itself.
    there = advertise or address("anna")
    assert await world.write("anna", "REPL.WAIT", 5, 5) == ErrorReply(f"MISDIRECTED writer is {there}")
    # Redirects of others name what is declared for all, whatever a node says of itself.
    assert await world.write("bert", "SET", "a:1", "v") == misdirected("anna")
    view = world.nodes["bert"].replication
    ports = {link.slot.port for link in view.links.values() if "anna" in link.slot.replica_id}
    assert ports == {7777 if advertise else world.ports["anna"]}
