"""Who may be a peer, and what everybody else is told at that port."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.peer_harness import (
    DIGEST,
    address,
    answered,
    ends,
    join,
    open_cluster,
    settled,
    until,
)
from trio.testing import MockClock

from kevynode.scope import peers
from kevynode.scope.peer_messages import Beat, Hello, Refused, Welcome
from kevynode.scope.peer_wire import encode


@pytest.mark.parametrize(
    ("hello", "code", "text"),
    [
        (Hello(1, "zz", "i", "a"), "unknown", "zz is no declared peer at a"),
        (Hello(2, "b", "i", "a"), "version", "a speaks version 1 of the peer protocol"),
        (Hello(2, "zz", "i", "x"), "version", "a speaks version 1 of the peer protocol"),
        (Hello(1, "b", "i", "c"), "misplaced", "this is a, not c"),
        (Hello(1, "a", "i", "a"), "same-node", "this is a itself, or another node has its id"),
        (Hello(1, "b", "instance-a", "a"), "same-instance", "a and b have one instance: a data directory was copied"),
        (Hello(1, "b", "other", "a"), "twin", f"another node answers to b at {address('b')}: two nodes have one id"),
    ],
)
async def test_who_is_no_peer_is_told_why(autojump_clock: MockClock, hello: Hello, code: str, text: str) -> None:
    async with open_cluster("abc") as cluster:
        for _ in range(5):
            stream = await cluster.network.connect("node-a", 16004)
            await stream.send_all(encode(hello))
            assert await answered(stream) == Refused(1, code, text)
            assert await ends(stream)
        assert cluster.agreed
        assert cluster["a"].log.events("warning").count("peer_refused") == 3
        assert cluster["a"].reasons("peer_refused")[0] == f"{hello.node_id}: {text}"


@pytest.mark.parametrize("said", [b"PEER\r\n", b"PEER 1 b\r\n", b"peer x b i a\r\n", b"*1\r\n$4\r\nPEER\r\n"])
async def test_a_malformed_hello_gets_no_bytes_but_a_line_in_the_log(autojump_clock: MockClock, said: bytes) -> None:
    async with open_cluster("ab") as cluster:
        stream = await cluster.network.connect("node-a", 16004)
        await stream.send_all(said)
        assert await stream.receive_some(100) == b""
        assert cluster["a"].reasons("peer_refused")[0].startswith("PEER expects a version")


async def test_replicas_still_get_in_at_the_same_port_and_others_do_not(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        stream = await cluster.network.connect("node-a", 16004)
        await stream.send_all(b"REPLICATE FROM 0 0 ID r\r\n")
        assert (await stream.receive_some(100)).startswith(b"+ACK ")
        stream = await cluster.network.connect("node-a", 16004)
        await stream.send_all(b"INGEST 1 m p\r\n")
        assert await stream.receive_some(100) == b""
        assert cluster["a"].reasons("replica_refused")[0].startswith("expected REPLICATE command")


async def test_a_hello_may_come_byte_by_byte_with_more_behind_it(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")
        stream = await cluster.network.connect("node-a", 16004)
        said = encode(Hello(1, "b", "i", "a")) + encode(Beat(DIGEST, 4, 0, DIGEST, "loading", "b:1"))
        for byte in said[:-50]:
            await stream.send_all(bytes([byte]))
        await stream.send_all(said[-50:])
        await until(lambda: a.facts("b").state == "loading")
        assert a.kept.announced == {"b": 4}


async def test_of_two_nodes_with_one_id_the_one_at_its_address_is_the_peer(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")
        impostor, _ = await join(cluster, "a", instance="other")
        await settled()
        assert a.facts("b").instance == "other"
        await cluster.start("b")
        assert await ends(impostor)
        await until(lambda: len(cluster.between("a", "b")) == 2)
        await until(lambda: cluster.agreed)
        assert a.facts("b").instance == "instance-b"
        lost = len(a.reasons("peer_link_lost"))
        for _ in range(20):
            stream = await cluster.network.connect("node-a", 16004)
            await stream.send_all(encode(Hello(1, "b", "other", "a")))
            assert isinstance(await answered(stream), Refused)
            await trio.sleep(1)
        assert cluster.agreed
        assert len(a.reasons("peer_link_lost")) == lost


async def test_who_dials_again_takes_over_but_not_for_ever(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")
        streams = [(await join(cluster, "a"))[0] for _ in range(3)]
        assert [await ends(stream, 0.1) for stream in streams] == [True, True, False]
        stream = await cluster.network.connect("node-a", 16004)
        await stream.send_all(encode(Hello(1, "b", "i", "a")))
        refused = await answered(stream)
        assert isinstance(refused, Refused)
        assert (refused.code, refused.text) == ("twin", "3 takeovers within 10 s: two nodes have the id b")
        assert not await ends(streams[-1], 0.1)
        assert a.facts("b").up
        await trio.sleep(21)
        await join(cluster, "a")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (encode(Welcome(1, "c", "i")), "{at} is c, and declared as b"),
        (encode(Welcome(2, "b", "i")), "{at} answers with version 2 of the peer protocol, and was asked for 1"),
        (encode(Welcome(1, "b", "instance-a")), "{at} has the instance of this node: a data directory was copied"),
        (encode(Refused(3, "because", "of that")), "{at} refuses this node (because): of that"),
        (b"-ERR unknown command 'PEER'\r\n", 'PEER was answered with an error, as a client port does: b"-ERR unknown'),
        (b"", "the connection was closed instead of an answer: is this a kevynode?"),
        (None, "no answer within 10 s"),
    ],
)
async def test_a_node_that_is_not_the_peer_is_named(
    autojump_clock: MockClock, answer: bytes | None, problem: str
) -> None:
    async with open_cluster("ab", start=False) as cluster:
        (listener,) = await cluster.network.listen(["node-b"], 16004)
        a = await cluster.start("a")
        attempts = 0
        with trio.move_on_after(60):
            while True:
                (incoming,) = await listener.accept()
                attempts += 1
                stream = incoming.stream()
                hello = await stream.receive_some(4096)
                assert hello == encode(Hello(1, "a", "instance-a", "b"))
                if answer is None:
                    assert await ends(stream, 11)
                else:
                    await stream.send_all(answer)
                    await stream.aclose()
        assert a.facts("b").problem.startswith(f"{address('b')}: {problem.format(at=address('b'))}")
        assert not a.facts("b").up
        assert a.log.events("warning").count("peer_not_reached") == 1
        assert 3 <= attempts <= 25


async def test_an_address_where_nobody_takes_connections_is_given_up_and_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster("ab", start=False) as cluster:
        cluster.swallow("a", "b")
        a = await cluster.start("a")
        await trio.sleep(peers.CONNECT_SECONDS + 0.1)
        assert a.facts("b").problem == f"{address('b')}: no connection was accepted within 5 s"
