"""Peer links with peers that lie, flood, or break something, and with a node of one's own that does."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.network import Wire
from support.peer_harness import (
    DIGEST,
    configuration,
    ends,
    entry,
    join,
    open_cluster,
    settled,
    until,
)
from trio.testing import MockClock

from kevynode.scope import peer_link, peers
from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import Ledger, LedgerError
from kevynode.scope.peer_messages import Beat, CopiesAsked, CopiesHeld, Hello
from kevynode.scope.peer_wire import encode, encode_news
from kevynode.scope.peers import PeerUnreachable

GOOD = Beat(DIGEST, 0, 0, DIGEST, "serving", "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"junk\r\n", "expected a multibulk message"),
        (b"*1\r\n$4\r\nPING\r\n", "unknown message 'PING'"),
        (encode(GOOD) + encode(CopiesHeld(1, ())), "it answers question 1, which nobody asked"),
        (b"*4\r\n$13\r\nCONFIGURATION\r\n$1\r\n0\r\n$1\r\n1\r\n", ""),
        (b"".join(encode(piece) for piece in configuration("ab").messages()), "before the first heartbeat"),
        (encode(GOOD) + b"".join(encode(piece) for piece in configuration("ab").messages()), "with another digest"),
        (b"".join(encode(CopiesAsked(number, (b"p",))) for number in range(30)), "it asks more than 8 questions"),
    ],
)
async def test_a_peer_that_breaks_a_rule_loses_its_link_and_nothing_else_happens(
    autojump_clock: MockClock, said: bytes, reason: str
) -> None:
    async with open_cluster("abc", start=False) as cluster:
        a = await cluster.start("a")
        await cluster.start("c")
        a.counting = 5
        await until(lambda: a.facts("c").up)
        stream, _ = await join(cluster, "a")
        await stream.send_all(said)
        if reason:
            assert await ends(stream)
            assert reason in a.facts("b").problem
        else:
            # Half a message: the silence after it ends the link.
            assert await ends(stream, 11)
        assert not a.facts("b").up
        assert a.facts("c").up
        assert a.log.events("error") == []


async def test_a_peer_that_answers_for_other_prefixes_loses_its_link(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")
        stream, _ = await join(cluster, "a")

        async def ask() -> None:
            with pytest.raises(PeerUnreachable):
                await a.links.ask_copies("b", [b"p"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settled()
            await stream.send_all(encode(CopiesHeld(1, ((b"q", HeldCopy(1, 1, 1)),))))
        assert a.facts("b").problem == "it answers for prefixes that nobody asked for"


@pytest.mark.slow
async def test_a_flood_is_slowed_down_and_then_ended(autojump_clock: MockClock) -> None:
    async with open_cluster("abc", start=False) as cluster:
        a = await cluster.start("a")
        await cluster.start("c")
        await until(lambda: a.facts("c").up)
        stream, _ = await join(cluster, "a")
        taken = 0
        began = trio.current_time()
        try:
            while True:
                await stream.send_all(encode(GOOD) * 100)
                taken += 100
                await trio.sleep(0.01)
        except trio.BrokenResourceError:
            pass
        took = trio.current_time() - began
        assert 25 < took < 60
        assert taken / took < 1500
        assert "it said more than a peer has to say for 30 s" in a.facts("b").problem
        assert a.facts("c").up


@pytest.mark.parametrize("seconds", [0.0, 4.0])
async def test_a_disk_that_fails_or_hangs_costs_the_link_and_nothing_is_lost(
    autojump_clock: MockClock, seconds: float
) -> None:
    async with open_cluster("ab") as cluster:
        a, b = cluster["a"], cluster["b"]
        b.disk = seconds
        b.failure = OSError(28, "No space left on device")
        a.learn(entry())
        await until(lambda: b.reasons("peer_link_lost"))
        assert "No space left on device" in b.reasons("peer_link_lost")[0]
        await until(lambda: cluster.agreed)
        assert b.kept.ledger.entry(b"app:") == entry()


async def test_entries_that_the_ledger_does_not_take_are_the_peers_fault(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")
        a.failure = LedgerError("the ledger is full")
        stream, _ = await join(cluster, "a")
        (page,) = Ledger([entry()]).rows()
        await stream.send_all(encode_news(page))
        assert await ends(stream)
        assert a.facts("b").problem == "the ledger is full"
        assert a.log.events("error") == []


async def test_a_fault_in_the_node_itself_is_logged_and_costs_one_link(autojump_clock: MockClock) -> None:
    async with open_cluster("abc") as cluster:
        a = cluster["a"]
        a.failure = ZeroDivisionError("oops")
        cluster["b"].learn(entry())
        await until(lambda: "peer_failed" in a.log.events("error"))
        await until(lambda: cluster.agreed)
        assert a.kept.ledger.entry(b"app:") == entry()


async def test_stopping_ends_all_links_at_any_moment(autojump_clock: MockClock) -> None:
    for moment in range(40):
        async with open_cluster("ab", start=False) as cluster:
            await cluster.start("a")
            for wire in cluster.network.wires:
                wire.outward.latency = 0.001
            a = cluster["a"]
            await cluster.start("b")
            await trio.sleep(moment * 0.01)
            a.links.announce([entry()])
            await cluster.stop("a")
            assert (a.links._links, a.links._nursery, a.links._refusing) == ({}, None, 0)
            assert not any(facts.up for facts in a.links.facts())
            await trio.sleep(0.1)
            assert not cluster["b"].facts("a").up


async def test_what_the_node_does_not_expect_costs_no_task(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")

        def fail(facts: object) -> None:
            raise ZeroDivisionError("oops")

        a.on_peer_state = fail  # type: ignore[method-assign]
        failures = iter([ZeroDivisionError("in the transport")])
        connect = cluster.network.connect

        async def connect_badly(host: str, port: int) -> trio.abc.Stream:
            for failure in failures:
                raise failure
            return await connect(host, port)

        cluster.network.connect = connect_badly  # type: ignore[method-assign]
        await trio.sleep(0.5)
        await cluster.start("b")
        await until(lambda: cluster.agreed)
        errors = [str(facts["error"]) for _, event, facts in a.log.records if event == "peer_failed"]
        assert errors[0] == "in the transport"
        assert set(errors[1:]) == {"oops"}


async def test_refusals_are_bounded_at_once_and_in_the_log(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        a = cluster["a"]

        def stuck(wire: Wire) -> None:
            wire.outward.capacity = 0

        cluster.network.on_connect = stuck
        streams = []
        for number in range(2 * peers.REFUSALS):
            streams.append(await cluster.network.connect("node-a", 16004))
            await streams[-1].send_all(encode(Hello(1, f"n{number}", "i", "a")))
        await settled()
        assert a.links._refusing == peers.REFUSALS
        # Those beyond are closed without a word, some of the others give up, and the rest is closed in time.
        assert await ends(streams[-1], 0.1)
        for stream in streams[: peers.REFUSALS // 2]:
            await stream.aclose()
        await settled()
        assert a.links._refusing == peers.REFUSALS // 2
        await trio.sleep(peer_link.SILENCE_SECONDS + 0.1)
        assert a.links._refusing == 0
        assert cluster.agreed
