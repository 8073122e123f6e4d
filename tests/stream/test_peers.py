"""Peer links between whole nodes: what each comes to know of the others, whatever happens to connections and disks."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing
from support.network import Wire
from support.peer_harness import (
    DIGEST,
    Cluster,
    Kept,
    address,
    configuration,
    entry,
    join,
    open_cluster,
    settled,
    until,
)
from trio.testing import MockClock

from kevynode.scope import peer_link
from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import Ledger
from kevynode.scope.peer_messages import Beat, Hello
from kevynode.scope.peer_wire import encode
from kevynode.scope.peers import PeerUnreachable


def slow(wire: Wire) -> None:
    """Make a connection one on which everything takes its time."""
    for lane in wire.lanes:
        lane.pause = 0.01


# -- coming together --------------------------------------------------------------------------------------------------


async def test_nodes_find_each_other_and_say_what_they_are(autojump_clock: MockClock) -> None:
    async with open_cluster("abc") as cluster:
        await trio.sleep(5)
        assert cluster.network.connected == {address(node_id): 2 for node_id in "abc"}
        facts = cluster["a"].facts("b")
        assert (facts.up, facts.state, facts.client_address, facts.address) == (
            True,
            "serving",
            "node-b:6004",
            address("b"),
        )
        assert (facts.ledger_equal, facts.ledger_known, facts.same_configuration, facts.answered) == (True,) * 4
        assert facts.instance == "instance-b"
        assert facts.since > 4
        assert facts.silence is not None
        assert facts.silence <= 1
        for node in cluster.nodes.values():
            assert node.links.unanswered == ()
            # Not all are there at once.
            assert set(node.log.events("warning")) <= {"peer_not_reached"}
            assert node.log.events("error") == []
            # The other's configuration is known before it counts as heard.
            names = [call[0] for call in node.calls if call[1] != node.node_id]
            assert names.index("remembered") < names.index("table") < names.index("answered")


async def test_a_node_that_waits_answers_and_tells_when_it_serves(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")
        a.state = "waiting"
        assert a.links.unanswered == ("b",)
        b = await cluster.start("b")
        await until(lambda: cluster.agreed)
        assert b.facts("a").state == "waiting"
        a.state = "serving"
        a.links.changed()
        await trio.sleep(0.05)
        assert b.facts("a").state == "serving"
        assert [facts.state for facts in b.called("state", "a")][-2:] == ["waiting", "serving"]


async def test_a_node_alone_and_a_kevy_are_nothing_to_dial(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        whole = configuration("ab")
        kevy = attrs.evolve(whole, peers=(whole.peers[0], attrs.evolve(whole.peers[1], kind="kevy")))
        a = await cluster.start("a", declared=kevy)
        await trio.sleep(30)
        assert (a.links.facts(), cluster.network.connected) == ((), {})
        b = await cluster.start("b")
        await until(lambda: b.facts("a").problem)
        assert b.facts("a").problem == f"{address('a')}: {address('a')} refuses this node (unknown): " + (
            "b is declared with kind kevy at a"
        )


async def test_links_to_a_node_before_it_runs_are_closed_without_a_word(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")
        await settled()
        a.links._nursery, nursery = None, a.links._nursery
        stream = await cluster.network.connect("node-a", 16004)
        await stream.send_all(encode(Hello(1, "b", "i", "a")))
        assert await stream.receive_some(100) == b""
        a.links._nursery = nursery
        await cluster.start("b")
        await until(lambda: cluster.agreed)


# -- ledgers ----------------------------------------------------------------------------------------------------------


async def test_a_new_entry_reaches_everybody_at_once(autojump_clock: MockClock) -> None:
    async with open_cluster("abcde") as cluster:
        for wire in cluster.network.wires:
            wire.inward.latency = wire.outward.latency = 0.05
        for node in cluster.nodes.values():
            node.disk = 0.02
        await trio.sleep(3.3)
        before = len(cluster["c"].called("rows"))
        cluster["a"].learn(entry())
        took = await until(lambda: len(cluster.digests) == 1 and cluster["e"].kept.ledger.entry(b"app:"), step=0.01)
        assert took < 0.2
        await until(lambda: cluster.agreed)
        # Nobody sent everything for that.
        await trio.sleep(5)
        assert len(cluster["c"].called("rows")) - before <= 2 * 4


async def test_an_entry_reaches_those_whom_its_maker_does_not_reach(autojump_clock: MockClock) -> None:
    async with open_cluster("abc") as cluster:
        cluster.part("a", "c")
        await settled()
        cluster["a"].learn(entry())
        took = await until(lambda: cluster["c"].kept.ledger.entry(b"app:"), step=0.01)
        assert took < 1
        assert not cluster["c"].facts("a").up


async def test_many_changes_at_once_are_told_together(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        wire = cluster.between("a", "b")[0]
        wire.inward.record = bytearray()
        for number in range(3000):
            cluster["a"].learn(entry(b"%d:" % number))
        await until(lambda: len(cluster["b"].kept.ledger) == 3000)
        assert wire.inward.record.count(b"BEAT") < 10


@pytest.mark.parametrize("seed", range(12))
async def test_ledgers_become_one_whatever_is_in_them_and_whoever_is_cut_off(
    autojump_clock: MockClock, seed: int
) -> None:
    chance = random.Random(seed)
    expected = Ledger()
    async with open_cluster("abc", start=False) as cluster:

        def make() -> None:
            node_id = chance.choice("abc")
            prefix, owner = b"scope:%d:" % chance.randrange(30), chance.choice("abc")
            made = entry(prefix, owner, chance.randint(1, 6), f"move-{chance.randrange(5)}")
            expected.merge([made])
            if node_id in cluster.nodes:
                cluster[node_id].learn(made)
            else:
                cluster.kept[node_id].ledger.merge([made])
                cluster.kept[node_id].version += 1

        for _ in range(chance.randrange(60)):
            make()
        for node_id in "abc":
            await cluster.start(node_id)
        for _ in range(40):
            one, other = chance.sample("abc", 2)
            match chance.randrange(7):
                case 0:
                    cluster.part(one, other)
                case 1:
                    cluster.swallow(one, other)
                case 2:
                    cluster.cut(one, other)
                case 3:
                    if one in cluster.nodes:
                        await cluster.stop(one)
                case 4:
                    if one not in cluster.nodes:
                        await cluster.start(one)
                case 5:
                    cluster.heal(one, other)
                case _:
                    make()
            if one in cluster.nodes:
                cluster[one].disk = chance.choice([0, 0, 0.3])
            await trio.sleep(chance.choice([0, 0.01, 0.5, 3, 12]))
        for pair in ("ab", "bc", "ac"):
            cluster.heal(*pair)
        for node_id in "abc":
            if node_id not in cluster.nodes:
                await cluster.start(node_id)
        # Connections that were swallowed are noticed by then.
        await trio.sleep(peer_link.SILENCE_SECONDS)
        await until(lambda: cluster.agreed, 80)
        await trio.sleep(3)
        assert cluster.agreed
        assert cluster.digests == {expected.digest}
        for node in cluster.nodes.values():
            assert node.links.unanswered == ()
            assert node.kept.announced == {
                other: cluster.kept[other].version
                for other in sorted("abc")
                if other != node.node_id and cluster.kept[other].version
            }
            assert "peer_failed" not in node.log.events("error")


@pytest.mark.slow
async def test_a_large_ledger_is_exchanged_once_both_ways(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        cluster.kept["a"].ledger.merge(entry(b"a:%05d:" % number) for number in range(5000))
        cluster.kept["b"].ledger.merge(entry(b"b:%05d:" % number) for number in range(5000))
        a = await cluster.start("a")
        b = await cluster.start("b")
        await until(lambda: cluster.agreed)
        await trio.sleep(10)
        assert len(a.kept.ledger) == len(b.kept.ledger) == 10000
        assert sum(b.called("rows")) < 4 * 10000
        assert a.links.unanswered == b.links.unanswered == ()


async def test_a_ledger_that_one_node_cannot_take_is_sent_less_and_less_often(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        a, b = cluster["a"], cluster["b"]
        b.learn = lambda *entries: None  # type: ignore[method-assign]
        a.learn(entry())
        await trio.sleep(60)
        soon = len(b.called("rows"))
        assert 3 <= soon <= 10
        await trio.sleep(600)
        assert len(b.called("rows")) - soon <= 12
        assert a.facts("b").ledger_equal is False
        assert b.facts("a").up


# -- going back -------------------------------------------------------------------------------------------------------


async def test_a_restored_backup_is_told_what_version_it_had(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        cluster["a"].learn(entry(b"one:"))
        backup = cluster.kept["a"].copy()
        cluster["a"].learn(entry(b"two:"))
        await until(lambda: cluster["b"].kept.announced.get("a") == 2)
        await cluster.stop("a")
        await cluster.stop("b")
        await cluster.start("b")
        a = await cluster.start("a", kept=backup)
        await until(lambda: cluster.agreed)
        assert max(a.called("remembered", "b")) == 2
        told = [call[0] for call in a.calls if call[0] in ("remembered", "rows", "answered")]
        assert told[0] == "remembered"
        assert told.index("rows") < told.index("answered")
        assert "peer_ledger_went_back" in cluster["b"].log.events("warning")
        # What it has since then is never below that again.
        assert cluster["b"].kept.announced["a"] == 2
        backup.version = 3
        a.links.changed()
        await until(lambda: cluster["b"].kept.announced["a"] == 3)
        await until(lambda: a.facts("b").remembers == 3)


async def test_a_version_counts_once_it_is_remembered_durably(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        cluster["b"].disk = 3.0
        cluster["a"].learn(entry())
        await trio.sleep(2)
        assert cluster["a"].facts("b").remembers == 0
        await trio.sleep(6)
        assert cluster["a"].facts("b").remembers == 1


# -- configurations ---------------------------------------------------------------------------------------------------


async def test_configurations_that_differ_are_shown_and_agree_after_a_restart(autojump_clock: MockClock) -> None:
    scope = b"app:", "a"
    async with open_cluster("ab", scope, start=False) as cluster:
        a = await cluster.start("a")
        other = configuration("ab", (b"app:", "b"), (b"more:", "b"))
        b = await cluster.start("b", declared=other)
        await until(lambda: cluster.agreed and a.facts("b").answered and b.facts("a").answered)
        assert (a.called("table"), b.called("table")) == ([other], [cluster.declared])
        assert [call[0] for call in a.calls if call[0] in ("table", "answered")][:2] == ["table", "answered"]
        assert a.facts("b").same_configuration is False
        assert a.log.events("warning") == ["peer_configuration_differs"]
        await trio.sleep(20)
        assert len(a.called("table")) == 1
        await cluster.stop("b")
        assert a.facts("b").same_configuration is False
        b = await cluster.start("b")
        await until(lambda: cluster.agreed)
        assert (a.called("table"), b.called("table")) == ([other, None], [None])
        assert a.facts("b").same_configuration is True


@pytest.mark.slow
async def test_a_large_configuration_is_known_before_the_peer_counts_as_heard(autojump_clock: MockClock) -> None:
    async with open_cluster("ab", start=False) as cluster:
        a = await cluster.start("a")
        other = configuration("ab", *((b"%05d:" % number, "b") for number in range(20000)))
        cluster.network.on_connect = slow
        await cluster.start("b", declared=other)
        await until(lambda: a.facts("b").ledger_equal)
        assert a.links.unanswered == ("b",)
        await until(lambda: not a.links.unanswered)
        assert a.called("table") == [other]


# -- copies -----------------------------------------------------------------------------------------------------------


async def test_a_peer_says_what_copies_it_holds(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        copies = {b"%04d:" % number: HeldCopy(7, number, number % 10, 1) for number in range(1500)}
        cluster["b"].copies = copies
        asked = [*copies, b"absent:"]
        with trio.fail_after(5):
            assert await cluster["a"].links.ask_copies("b", asked) == copies
            assert await cluster["a"].links.ask_copies("b", []) == {}
            assert await cluster["b"].links.ask_copies("a", asked) == {}


async def test_a_question_ends_with_its_link_and_its_asker_may_give_up(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        a, b = cluster["a"], cluster["b"]
        b.counting = 4
        b.copies[b"p"] = HeldCopy(1, 2, 3)
        with trio.move_on_after(1) as patience:
            await a.links.ask_copies("b", [b"p"])
        assert patience.cancelled_caught
        assert await a.links.ask_copies("b", [b"p"]) == b.copies
        assert cluster.agreed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_later, 1.0, cluster)
            with pytest.raises(PeerUnreachable, match="ended before it answered"):
                await a.links.ask_copies("b", [b"p"])
        cluster.part("a", "b")
        await settled()
        for node_id in ("b", "stranger"):
            with pytest.raises(PeerUnreachable, match="there is no link to"):
                await a.links.ask_copies(node_id, [b"p"])


async def _later(seconds: float, cluster: Cluster) -> None:
    await trio.sleep(seconds)
    cluster.cut("a", "b")


async def test_more_questions_than_a_link_takes_wait_their_turn(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        cluster["b"].counting = 0.1
        cluster["b"].copies[b"p"] = HeldCopy(1, 2, 3)
        answers = []

        async def ask() -> None:
            answers.append(await cluster["a"].links.ask_copies("b", [b"p"]))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert answers == [cluster["b"].copies] * 50
        assert cluster.agreed


# -- connections that fail --------------------------------------------------------------------------------------------


async def test_a_partition_is_noticed_and_heals(autojump_clock: MockClock) -> None:
    async with open_cluster("abc") as cluster:
        a = cluster["a"]
        said = len(a.reasons("peer_not_reached"))
        cluster.part("a", "b")
        await settled()
        assert not a.facts("b").up
        assert a.facts("c").up
        assert a.called("state", "b")[-1].up is False
        cluster["a"].learn(entry())
        await trio.sleep(120)
        assert a.facts("b").problem == f"{address('b')}: cannot connect: Connection refused"
        assert a.facts("b").since > 115
        # It tried on with patience, and said it once.
        assert len(a.reasons("peer_not_reached")) == said + 1
        cluster.heal("a", "b")
        took = await until(lambda: cluster.agreed)
        assert took <= 5.1


async def test_a_half_open_link_ends_by_silence_and_is_made_anew(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        a, b = cluster["a"], cluster["b"]
        cluster.swallow("a", "b")
        await trio.sleep(peer_link.SILENCE_SECONDS - 1.5)
        assert a.facts("b").up
        a.learn(entry())
        await trio.sleep(2.6)
        assert not a.facts("b").up
        assert "nothing was heard for 10 s" in a.facts("b").problem
        assert a.facts("b").ledger_equal is None
        await trio.sleep(10)
        cluster.heal("a", "b")
        # An attempt that hangs ends after 5 s.
        assert await until(lambda: cluster.agreed) <= 15
        assert b.kept.ledger.entry(b"app:") is not None


async def test_one_direction_may_fail_alone(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        wire = cluster.between("a", "b")[0]
        wire.outward.held = True
        cluster["a"].learn(entry())
        await trio.sleep(0.5)
        # The other link carries it.
        assert cluster["b"].kept.ledger.entry(b"app:") is not None
        await trio.sleep(15)
        assert not wire.stands
        assert cluster.agreed
        assert len(cluster.between("a", "b")) == 2


async def test_a_peer_that_does_not_read_loses_its_link(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        b = cluster["b"]
        stream, decoder = await join(cluster, "a", instance="instance-b")
        await until(lambda: "another link took its place" in cluster["a"].reasons("peer_link_lost"))
        wire = cluster.network.wires[-1]
        wire.outward.capacity = 0
        b.stop()
        began = trio.current_time()

        async def talk() -> None:
            beat = Beat(DIGEST, 0, 0, cluster.declared.digest, "serving", "")
            while True:
                await stream.send_all(encode(beat))
                await trio.sleep(1)

        with pytest.RaisesGroup(trio.BrokenResourceError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
        assert 9 <= trio.current_time() - began <= 13
        assert decoder.error is None
        assert "it took no byte for 10 s" in cluster["a"].reasons("peer_link_lost")


async def test_a_peer_may_come_back_at_any_time_with_or_without_its_disk(autojump_clock: MockClock) -> None:
    async with open_cluster("ab") as cluster:
        a = cluster["a"]
        a.learn(entry())
        for number in range(6):
            await cluster.stop("b")
            assert not a.facts("b").up
            kept = cluster.kept["b"] if number % 2 else Kept(f"new-{number}")
            await cluster.start("b", kept=kept)
            assert await until(lambda: cluster.agreed) < 3
            assert a.facts("b").instance == kept.instance
        assert "peer_refused" not in a.log.events("warning")
