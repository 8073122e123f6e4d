"""Moves of scopes between whole nodes, over a network in memory, with disks in memory and a clock that jumps."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.cluster import Cluster, ErrorReply, in_cluster
from support.moving import PREFIX, Follower, Trap, at_most_one_writer, at_rest, open_moves
from support.scoped import ScopedCluster, address, misdirected

from kevynode.errors import ReplyError
from kevynode.scope.ledger_records import AgreedEpoch, MoveRole, MoveState

COPIES = pytest.mark.parametrize("replicate", ["all", []], ids=["follows", "empty"])
MOVE = ("MOVE-SCOPE", "a:", "FROM", "anna", "TO", "bert")
BACK = ("MOVE-SCOPE", "a:", "FROM", "bert", "TO", "anna")


async def started(cluster: Cluster, replicate: Any = "all", **options: Any) -> ScopedCluster:
    world = ScopedCluster(cluster, **options)
    await world.start(*world.ports, replicate=replicate)
    await world.settle()
    return world


async def filled(world: ScopedCluster, count: int = 300) -> None:
    """Every type and deadlines, and some strings more than one chunk holds."""
    client = await world.connect("anna")
    for number in range(count):
        assert await client.call("SET", f"a:{number}", "x" * 1000) == "OK"
    await client.call("SET", "a:mortal", "x", "PX", 3_600_000)
    await client.call("SET", "a:binary", b"\r\n\x00*1\r\n")
    await client.call("HSET", "a:hash", "f", "v", "g", "w")
    await client.call("HPEXPIRE", "a:hash", 7_200_000, "FIELDS", 1, "f")
    await client.call("RPUSH", "a:list", "1", "2", "3")
    await client.call("SADD", "a:set", "x", "y")
    await client.call("ZADD", "a:zset", "1.5", "low", "-inf", "lowest")
    await client.aclose()


@COPIES
@in_cluster
async def test_a_scope_moves_with_everything_in_it(cluster: Cluster, replicate: Any) -> None:
    world = await started(cluster, replicate)
    await filled(world)
    before = world.under("anna", PREFIX)
    reply = await world.write("anna", *MOVE)
    assert reply == ("OK 0" if replicate else "OK 308")
    assert world.under("bert", PREFIX) == before
    assert await world.write("anna", "SET", "a:new", "v") == misdirected("bert")
    assert await world.write("bert", "SET", "a:new", "v") == "OK"
    await at_rest(cluster, world)
    assert world.owners("cleo")[PREFIX] == "bert"
    for name in ("anna", "cleo"):
        assert world.under(name, PREFIX) == (world.under("bert", PREFIX) if replicate else {})
    # Nothing was copied that was there already.
    assert len(cluster.logged("anna", "scope_continued")) == len(cluster.logged("cleo", "scope_continued"))
    assert len(cluster.logged("anna", "scope_continued")) == (1 if replicate else 0)
    assert not [name for disk in cluster.disks.values() for name in disk.list("/data") if "stage" in name]


@in_cluster
async def test_it_is_told_how_much_of_a_slice_has_gone_out(cluster: Cluster) -> None:
    world = await started(cluster, [])
    await filled(world)
    coordinator = world.member("anna").coordinator
    seen: list[tuple[int, int, int, int]] = []

    def look() -> None:
        for row in coordinator.status():
            if row.state == "quiesced" and (found := (row.keys, row.sent_keys, row.commands, row.size)) not in seen:
                seen.append(found)

    async def move() -> None:
        assert await world.write("anna", *MOVE) == "OK 308"

    await world.watching(look, move)
    assert seen == sorted(seen)
    assert {keys for keys, *_ in seen} == {306}
    # Nothing, some of it, and all of it.
    assert seen[0][1:] == (0, 0, 0)
    assert any(0 < sent < 306 and size > 0 for _, sent, _, size in seen)
    (row,) = [row for row in coordinator.status() if row.prefix == PREFIX]
    assert (row.sent_keys, row.commands) == (306, 308)


@COPIES
@in_cluster
async def test_a_scope_moves_to_and_fro_under_a_client_that_follows(cluster: Cluster, replicate: Any) -> None:
    world = await started(cluster, replicate)
    await filled(world, 20)
    client = Follower(world)
    cluster.nursery.start_soon(client.run)

    async def moves() -> None:
        for _ in range(3):
            for command in (MOVE, BACK):
                reply = await world.write(command[3], *command)
                assert isinstance(reply, str), reply
                await trio.sleep(0.1)

    await world.watching(at_most_one_writer(world), moves)
    client.scope.cancel()
    await at_rest(cluster, world)
    assert world.owners("cleo")[PREFIX] == "anna"
    held = world.under("anna", PREFIX)
    assert len(client.acknowledged) > 20
    for key, value in client.acknowledged.items():
        assert held[key][0] == value
    assert client.refused <= {"MISDIRECTED", "QUIESCED", "LOADING"}


@COPIES
@in_cluster
async def test_owners_outlive_restarts_of_everybody(cluster: Cluster, replicate: Any) -> None:
    world = await started(cluster, replicate)
    await filled(world, 10)
    before = world.under("anna", PREFIX)
    await world.write("anna", *MOVE)
    await at_rest(cluster, world)
    for name in tuple(world.nodes):
        await world.kill(name)
    await world.start(*world.ports, replicate=replicate)
    await at_rest(cluster, world)
    assert world.owners("anna")[PREFIX] == "bert"
    assert world.under("bert", PREFIX) == before
    assert await world.write("anna", "SET", "a:1", "v") == misdirected("bert")
    assert await world.write("bert", "SET", "a:1", "v") == "OK"


STATES = [
    *((MoveRole.SOURCE, state) for state in (MoveState.REQUESTED, MoveState.QUIESCED, MoveState.SHIPPED)),
    *((MoveRole.SOURCE, state) for state in (MoveState.FLIPPED, MoveState.ACTIVATED, MoveState.DONE)),
    *((MoveRole.TARGET, state) for state in (MoveState.AGREED, MoveState.SEALED, MoveState.ACTIVATED, MoveState.DONE)),
]


@pytest.mark.slow
@COPIES
@pytest.mark.parametrize("victims", [("anna",), ("bert",), ("anna", "bert")], ids="+".join)
@pytest.mark.parametrize(("role", "state"), STATES, ids=[f"{role.value}-{state.value}" for role, state in STATES])
@in_cluster
async def test_no_end_of_a_node_loses_a_write(
    cluster: Cluster, replicate: Any, role: MoveRole, state: MoveState, victims: tuple[str, ...]
) -> None:
    cluster.expected_errors.update({"move_not_recorded"})
    world = await started(cluster, replicate)
    await filled(world, 5)
    before = world.under("anna", PREFIX)
    client = Follower(world)
    cluster.nursery.start_soon(client.run)
    await trio.sleep(0.05)
    # What differs less than who ends when is mixed, the same way each time.
    seed = STATES.index((role, state)) + len(victims)
    writer = "anna" if role is MoveRole.SOURCE else "bert"
    trap = Trap(world, role, state, told=bool(seed % 2) or writer not in victims)

    async def crash() -> None:
        await trap.sprung.wait()
        for name in victims:
            await (world.kill(name) if seed % 3 else world.lose_power(name, seed))
        await trio.sleep(0.5)
        for name in victims:
            await world.start(name, replicate=replicate)
        await at_rest(cluster, world)

    async def move() -> None:
        try:
            await world.write("anna", *MOVE, "TIMEOUT", 5000)
        except (AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            with trio.fail_after(120):
                await crash()
            nursery.cancel_scope.cancel()

    await world.watching(at_most_one_writer(world), work)
    client.scope.cancel()
    await at_rest(cluster, world)
    owner = world.owners("cleo")[PREFIX]
    if role is MoveRole.SOURCE and state in (MoveState.REQUESTED, MoveState.QUIESCED) and "anna" in victims:
        assert owner == "anna"
    if state in (MoveState.ACTIVATED, MoveState.DONE, MoveState.FLIPPED):
        assert owner == "bert"
    held = world.under(owner, PREFIX)
    assert before.items() <= held.items()
    assert client.acknowledged
    for key, value in client.acknowledged.items():
        assert held[key][0] == value, (key, owner)


# -- what does not move -----------------------------------------------------------------------------------------------


@in_cluster
async def test_requests_that_cannot_begin_say_why(cluster: Cluster) -> None:
    world = await started(cluster)
    arity = "ERR wrong number of arguments — MOVE-SCOPE <prefix> FROM <from-id> TO <to-id>"
    for words, text in {
        "a:": arity,
        "a: FROM anna TO": arity,
        "a: OUT anna TO bert": "ERR MOVE-SCOPE syntax: MOVE-SCOPE <prefix> FROM <from-id> TO <to-id>",
        "a: FROM bert TO anna": 'ERR MOVE-SCOPE: from-id "bert" is not this node ("anna")',
        "a: FROM anna TO zz": 'ERR MOVE-SCOPE: target node "zz" not in [cluster] peers',
        "x: FROM anna TO bert": "ERR MOVE-SCOPE: prefix is not a declared scope",
        "b: FROM anna TO bert": 'ERR MOVE-SCOPE: the writer of the prefix is "bert", not this node ("anna")',
        "ABORT a:": "ERR MOVE-SCOPE: no move of this prefix from here is in flight",
        "ABORT x:": "ERR MOVE-SCOPE: prefix is not a declared scope",
        "RESOLVE a: COMMIT": "ERR MOVE-SCOPE: no move of this prefix to here is in doubt",
        "RESOLVE a: PERHAPS": "ERR MOVE-SCOPE syntax: MOVE-SCOPE RESOLVE <prefix> COMMIT|ABORT",
    }.items():
        assert await world.write("anna", "MOVE-SCOPE", *words.split()) == ErrorReply(text), words
    assert await world.write("anna", "MOVE-SCOPE", "STATUS") == []
    assert world.states("anna")[PREFIX] == "open"


@in_cluster
async def test_a_node_without_scopes_or_a_name_moves_nothing(cluster: Cluster) -> None:
    node = await cluster.start("lone", port=7100)
    client = await cluster.connect(node)
    assert await client.call("MOVE-SCOPE", "a:", "FROM", "lone", "TO", "b") == ErrorReply(
        "ERR MOVE-SCOPE: no [cluster] scopes declared on this node — writes would not quiesce during the move"
    )
    assert await client.call("MOVE-SCOPE", "a:", "FROM", "x", "TO", "b") == ErrorReply(
        'ERR MOVE-SCOPE: from-id "x" is not this node ("lone")'
    )
    nameless = await cluster.start_with("nameless", {"server": {"port": 7200, "bind": "127.0.0.1"}})
    client = await cluster.connect(nameless)
    assert await client.call("MOVE-SCOPE", "a:", "FROM", "x", "TO", "b") == ErrorReply(
        "ERR MOVE-SCOPE: [cluster] node_id is not configured on this node"
    )


@in_cluster
async def test_a_second_move_of_the_prefix_is_refused_and_the_first_one_shown(cluster: Cluster) -> None:
    world = await started(cluster)
    cluster.network.separate("127.0.0.1:17001")
    first = await world.connect("anna")
    await first.send(*MOVE, "TIMEOUT", 3000)
    await trio.sleep(0.1)
    assert await world.write("anna", *MOVE) == ErrorReply(
        "ERR MOVE-SCOPE: migration for this prefix is already in flight"
    )
    (row,) = await world.write("anna", "MOVE-SCOPE", "STATUS", "a:")
    found = dict(zip(row[::2], row[1::2], strict=True))
    assert (found[b"prefix"], found[b"role"], found[b"state"], found[b"peer"]) == (
        b"a:",
        b"source",
        b"asking",
        b"bert",
    )
    info = (await world.write("anna", "INFO", "scopes")).decode()
    assert "moves_known:1" in info
    assert "state=asking" in info
    # Nothing is refused while the target has not been heard.
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await first.reply() == ErrorReply("ERR MOVE-SCOPE ship failed: bert did not answer in time")
    assert world.owners("anna")[PREFIX] == "anna"
    (row,) = await world.write("anna", "MOVE-SCOPE", "STATUS")
    assert row[row.index(b"state") + 1] == b"failed"


@COPIES
@in_cluster
async def test_a_target_that_falls_silent_costs_the_timeout_and_no_more(cluster: Cluster, replicate: Any) -> None:
    world = await started(cluster, replicate)
    await filled(world, 5)
    trap = Trap(world, MoveRole.SOURCE, MoveState.QUIESCED, told=True)
    mover = await world.connect("anna")
    blocked = await world.connect("anna")
    await blocked.send("BLPOP", "a:nothing", 0)
    await mover.send(*MOVE, "TIMEOUT", 2000)
    await trap.sprung.wait()
    cluster.network.separate("127.0.0.1:17001")
    assert await blocked.reply() == ErrorReply(f"QUIESCED migrating to {address('bert')}")
    assert await world.write("anna", "SET", "a:1", "v") == ErrorReply(f"QUIESCED migrating to {address('bert')}")
    assert await world.write("anna", "GET", "a:0") == b"x" * 1000
    reply = await mover.reply()
    assert isinstance(reply, ErrorReply)
    assert reply.text.startswith("ERR MOVE-SCOPE ship failed: bert did not ")
    assert reply.text.endswith(" within 2 s")
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    # The target learns of it when it can be reached again, and keeps nothing.
    cluster.network.unreachable.clear()
    await at_rest(cluster, world)
    assert {world.owners(name)[PREFIX] for name in world.nodes} == {"anna"}
    assert world.states("bert")[PREFIX] == "elsewhere"
    assert not [name for disk in cluster.disks.values() for name in disk.list("/data") if "stage" in name]
    assert await world.write("anna", *MOVE) == ("OK 0" if replicate else "OK 13")


@in_cluster
async def test_an_operator_calls_a_move_off(cluster: Cluster) -> None:
    world = await started(cluster)
    trap = Trap(world, MoveRole.SOURCE, MoveState.QUIESCED, told=True)
    mover = await world.connect("anna")
    await mover.send(*MOVE)
    await trap.sprung.wait()
    cluster.network.separate("127.0.0.1:17001")
    assert await world.write("anna", "MOVE-SCOPE", "ABORT", "a:") == "OK"
    assert await mover.reply() == ErrorReply("ERR MOVE-SCOPE ship failed: aborted by an operator")
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    cluster.network.unreachable.clear()
    await at_rest(cluster, world)
    assert world.owners("bert")[PREFIX] == "anna"


@in_cluster
async def test_a_target_that_keeps_no_files_takes_a_scope_only_by_force(cluster: Cluster) -> None:
    world = ScopedCluster(cluster)
    await world.start("anna", "cleo")
    world.persistence = {"aof": False}
    await world.start("bert")
    await world.settle()
    await filled(world, 3)
    reply = await world.write("anna", *MOVE)
    assert reply == ErrorReply(
        "ERR MOVE-SCOPE ship failed: bert refused: it keeps no files, and the source does; "
        "FORCE moves the prefix all the same"
    )
    assert await world.write("anna", "SET", "a:1", "v") == "OK"
    assert await world.write("anna", *MOVE, "FORCE") == "OK 0"
    await at_rest(cluster, world)
    assert world.owners("anna")[PREFIX] == "bert"


@COPIES
@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
@in_cluster
async def test_an_operator_decides_for_a_source_that_does_not_come_back(
    cluster: Cluster, replicate: Any, commit: bool
) -> None:
    world = await started(cluster, replicate)
    await filled(world, 5)
    before = world.under("anna", PREFIX)
    trap = Trap(world, MoveRole.TARGET, MoveState.SEALED, told=True)
    cluster.nursery.start_soon(lambda: _ignore(world))
    await trap.sprung.wait()
    await world.kill("anna")
    # The one that may know better is asked first.
    early = await world.write("bert", "MOVE-SCOPE", "RESOLVE", "a:", "COMMIT" if commit else "ABORT")
    assert early == ErrorReply("ERR MOVE-SCOPE: anna answers, and decides itself")
    assert await world.write("bert", "SET", "a:1", "v") == ErrorReply(f"QUIESCED migrating to {address('bert')}")
    await trio.sleep(15)
    (row,) = await world.write("bert", "MOVE-SCOPE", "STATUS")
    assert dict(zip(row[::2], row[1::2], strict=True))[b"in-doubt"] == 1
    assert await world.write("bert", "MOVE-SCOPE", "RESOLVE", "a:", "COMMIT" if commit else "ABORT") == "OK"
    if commit:
        await cluster.until(lambda: world.is_open("bert", PREFIX))
        assert world.under("bert", PREFIX) == before
        assert await world.write("bert", "SET", "a:new", "v") == "OK"
    await world.start("anna", replicate=replicate)
    await at_rest(cluster, world)
    assert {world.owners(name)[PREFIX] for name in world.nodes} == {"bert" if commit else "anna"}


@in_cluster
async def test_a_source_that_has_lost_its_records_and_moved_the_scope_on_leaves_nothing_to_commit(
    cluster: Cluster,
) -> None:
    world = await started(cluster, "all")
    await filled(world, 5)
    # Of moves that have come to nothing; cleo agrees to an epoch below.
    await world.member("bert").keeper.append([AgreedEpoch(PREFIX, 5, "m1")])
    trap = Trap(world, MoveRole.TARGET, MoveState.SEALED, told=True)
    cluster.nursery.start_soon(lambda: _ignore(world))
    await trap.sprung.wait()
    await world.lose_disk("anna")
    await trio.sleep(15)
    await world.start("anna", replicate="all")
    await cluster.until(lambda: world.is_open("anna", PREFIX), "the opening at anna")
    assert await world.write("anna", "MOVE-SCOPE", "a:", "FROM", "anna", "TO", "cleo") == "OK 0"
    assert await world.write("cleo", "SET", "a:later", "v") == "OK"
    await cluster.until(lambda: world.owners("bert")[PREFIX] == "cleo", "the news at bert")
    await world.kill("anna")
    await trio.sleep(15)
    reply = await world.write("bert", "MOVE-SCOPE", "RESOLVE", "a:", "COMMIT")
    assert reply == ErrorReply("ERR MOVE-SCOPE: cleo answers, and has the prefix now: ABORT, or stop it first")
    assert await world.write("bert", "MOVE-SCOPE", "RESOLVE", "a:", "ABORT") == "OK"
    await world.start("anna", replicate="all")
    await at_rest(cluster, world)
    assert {world.owners(name)[PREFIX] for name in world.nodes} == {"cleo"}
    assert {world.nodes[name].get("a:later") for name in world.nodes} == {b"v"}


async def _ignore(world: ScopedCluster) -> None:
    try:
        await world.write("anna", *MOVE)
    except (AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@pytest.mark.slow
@COPIES
@pytest.mark.parametrize("state", [MoveState.QUIESCED, MoveState.SHIPPED, MoveState.FLIPPED], ids=lambda s: s.value)
@in_cluster
async def test_connections_that_break_again_and_again_only_take_time(
    cluster: Cluster, replicate: Any, state: MoveState
) -> None:
    world = await started(cluster, replicate)
    await filled(world, 200)
    before = world.under("anna", PREFIX)
    trap = Trap(world, MoveRole.SOURCE, state, told=True)
    mover = await world.connect("anna")
    await mover.send(*MOVE)
    await trap.sprung.wait()
    for _ in range(5):
        for port in (17000, 17001):
            cluster.network.cut(f"127.0.0.1:{port}")
        await trio.sleep(0.05)
    reply = await mover.reply()
    assert isinstance(reply, str), reply
    await at_rest(cluster, world)
    assert {world.owners(name)[PREFIX] for name in world.nodes} == {"bert"}
    assert world.under("bert", PREFIX) == before


@in_cluster
async def test_transactions_and_programs_cannot_wait_for_a_move(cluster: Cluster) -> None:
    world = await started(cluster)
    client = await world.connect("anna")
    assert await client.call("MULTI") == "OK"
    assert await client.call(*MOVE) == ErrorReply("ERR Command 'move-scope' not allowed inside a transaction")
    assert await client.call("DISCARD") == "OK"
    with pytest.raises(ReplyError, match="a move takes time"):
        world.nodes["anna"].execute(*MOVE)
    assert open_moves(world) == []
