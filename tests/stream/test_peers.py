"""Peer links between whole nodes: what each comes to know of the others, whatever happens to connections and disks."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing
from support.network import Wire
from support.peer_harness import (
    Cluster,
    Kept,
    address,
    configuration,
    entry,
    open_cluster,
    until,
)
from trio.testing import MockClock

from kevynode.scope import peer_link, peers
from kevynode.scope.copies import HeldCopy
from kevynode.scope.ledger import Ledger, LedgerError
from kevynode.scope.peer_messages import Beat, CopiesAsked, CopiesHeld, Hello, Refused, Welcome
from kevynode.scope.peer_wire import AnswerDecoder, PeerDecoder, encode, encode_news
from kevynode.scope.peers import PeerUnreachable

DIGEST = "0" * 64


def slow(wire: Wire) -> None:
    """Make a connection one on which everything takes its time."""
    for lane in wire.lanes:
        lane.pause = 0.01


async def settled() -> None:
    """Let everybody go on until all wait, without a jump of the clock."""
    await trio.testing.wait_all_tasks_blocked()


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


# -- who may be a peer ------------------------------------------------------------------------------------------------


async def join(
    cluster: Cluster, node_id: str, *, name: str = "b", instance: str = "i", version: int = 1, expected: str = ""
) -> tuple[trio.abc.Stream, PeerDecoder]:
    """A link that the test opened to a node, as ``name``; it has been taken."""
    stream = await cluster.network.connect(f"node-{node_id}", 16004)
    await stream.send_all(encode(Hello(version, name, instance, expected or node_id)))
    answer = await answered(stream)
    assert isinstance(answer, Welcome)
    return stream, PeerDecoder()


async def answered(stream: trio.abc.Stream) -> Welcome | Refused:
    decoder = AnswerDecoder()
    with trio.fail_after(5):
        while True:
            found = decoder.feed(bytes(await stream.receive_some(1)))
            if found is not None:
                return found


async def ends(stream: trio.abc.Stream, seconds: float = 5.0) -> bool:
    """Whether the other side ends a stream in time."""
    with trio.move_on_after(seconds):
        try:
            while await stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
        return True
    return False


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


# -- peers that lie, flood, or break something ------------------------------------------------------------------------


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
        assert a.links._refusing == len(a.links._refusals) == peers.REFUSALS
        # Those beyond are closed without a word, some of the others give up, and the rest is closed in time.
        assert await ends(streams[-1], 0.1)
        for stream in streams[: peers.REFUSALS // 2]:
            await stream.aclose()
        await settled()
        assert a.links._refusing == peers.REFUSALS // 2
        await trio.sleep(peer_link.SILENCE_SECONDS + 0.1)
        assert a.links._refusing == 0
        assert cluster.agreed
