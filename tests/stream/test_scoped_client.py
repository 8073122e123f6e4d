"""The scope-following client against scripted nodes, over streams in memory and on a mock clock."""

from __future__ import annotations

import pytest
import trio
from support.network import Network
from support.scoped_world import INFO, OK, A, B, after, always, ended, misdirected, quiesced, world
from support.scripted_nodes import Ends, ScriptedNode

import kevynode
from kevynode.client import BrokenReply, DeadlinePassed, RedirectLoop, ScopedClient, Uncertain
from kevynode.errors import ReplyError
from kevynode.scope import Scope


def test_it_is_a_public_name() -> None:
    assert kevynode.ScopedClient is ScopedClient


async def test_a_call_and_its_reply() -> None:
    async with world(always(b"$1\r\nx\r\n")) as its, its.client() as client:
        assert await client.call("GET", "é", 1) == b"x"
        assert its.nodes[0].asked == [[b"GET", "é".encode(), b"1"]]
        await client.call("GET", "k")
        assert its.network.connected == {A: 1}


async def test_a_redirect_is_followed_and_remembered_for_the_prefix() -> None:
    def first(words: list[bytes]) -> bytes:
        return INFO if words[0] == b"INFO" else misdirected(B)

    async with world(first, always(OK)) as its, its.client() as client:
        assert await client.call("SET", "a:1", "x") == "OK"
        assert await client.call("SET", "a:2", "x") == "OK"
        assert its.asked() == [["SET", "INFO"], ["SET", "SET"]]


async def test_without_prefixes_a_redirect_is_remembered_for_the_key() -> None:
    def first(words: list[bytes]) -> bytes:
        return b"-ERR no such section\r\n" if words[0] == b"INFO" else misdirected(B)

    async with world(first, always(OK)) as its, its.client() as client:
        for key in ("a:1", "a:1", "a:2"):
            assert await client.call("SET", key, "x") == "OK"
        assert its.asked() == [["SET", "INFO", "SET"], ["SET", "SET", "SET"]]


async def test_a_table_of_scopes_saves_the_redirect() -> None:
    async with (
        world(always(b"-ERR wrong node\r\n"), always(OK)) as its,
        its.client(nodes=[A], scopes=[Scope(b"a:", "b")], addresses={"b": B}) as client,
    ):
        assert await client.call("SET", "a:1", "x") == "OK"


async def test_a_loop_of_redirects_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(misdirected(B)), always(misdirected(A))) as its, its.client(hops=5) as client:
        await ended(lambda: client.call("SET", "a:1", "x", timeout=1000), RedirectLoop)
        assert sum(names.count("SET") for names in its.asked()) == 6


async def test_a_move_is_waited_out(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        world(after(5, quiesced(B), misdirected(B)), after(3, quiesced(B), OK)) as its,
        its.client() as client,
    ):
        assert await client.call("INCR", "a:1") == "OK"
        assert trio.current_time() > 0
        assert its.nodes[1].names() == ["INCR"] * 4


@pytest.mark.parametrize("refusal", [b"-LOADING x\r\n", b"-NOREPLICAS x\r\n", b"-READONLY x\r\n", quiesced(B)])
async def test_one_deadline_for_all_waits(autojump_clock: trio.testing.MockClock, refusal: bytes) -> None:
    async with world(always(refusal)) as its, its.client(timeout=3.0) as client:
        error = await ended(lambda: client.call("SET", "a:1", "x"), DeadlinePassed)
        assert refusal[1:].split()[0].decode() in error.last
        assert trio.current_time() <= 3.0
        # It waits ever longer, and does not hammer.
        assert 4 < len(its.nodes[0].asked) < 25


async def test_flapping_nodes_are_borne(autojump_clock: trio.testing.MockClock) -> None:
    """Every answer is another one; the twentieth is right."""
    refusals = [
        misdirected(B),
        quiesced(B),
        b"-READONLY x\r\n",
        misdirected(A),
        b"-LOADING x\r\n",
        b"-NOREPLICAS x\r\n",
    ]
    count = 0

    def flap(words: list[bytes]) -> bytes:
        nonlocal count
        if words[0] == b"INFO":
            return INFO
        count += 1
        return OK if count == 20 else refusals[count % len(refusals)]

    async with world(flap, flap) as its, its.client(timeout=60) as client:
        assert await client.call("SET", "a:1", "x") == "OK"
        assert count == 20
        assert sum(names.count("SET") for names in its.asked()) == 20


@pytest.mark.parametrize("line", [b"-MISCONF disk\r\n", b"-ERR x\r\n", b"-OOM x\r\n", b"-CROSSSCOPE x\r\n"])
async def test_other_errors_are_raised_at_once(line: bytes) -> None:
    async with world(always(line), always(OK)) as its, its.client() as client:
        error = await ended(lambda: client.call("SET", "a:1", "x"), ReplyError)
        assert error.line() == line[1:-2]
        assert its.asked() == [["SET"], []]


@pytest.mark.parametrize("partial", [b"", b"$5\r\nab"])
async def test_a_write_without_an_answer_is_never_repeated(partial: bytes) -> None:
    async with world(always(Ends(partial)), always(OK)) as its, its.client() as client:
        error = await ended(lambda: client.call("INCR", "a:1"), Uncertain)
        assert error.address == A
        assert its.asked() == [["INCR"], []]


@pytest.mark.parametrize("partial", [b"", b"$5\r\nab"])
async def test_reads_and_what_may_be_repeated_go_on_elsewhere(partial: bytes) -> None:
    async with world(always(Ends(partial)), always(OK)) as its:
        async with its.client() as client:
            assert await client.call("GET", "a:1") == "OK"
        async with its.client() as client:
            assert await client.call("SET", "a:1", "x", idempotent=True) == "OK"
        assert its.asked() == [["GET", "SET"], ["GET", "SET"]]


async def test_a_read_that_must_not_be_repeated() -> None:
    async with world(always(Ends()), always(OK)) as its, its.client() as client:
        await ended(lambda: client.call("GET", "a:1", idempotent=False), Uncertain)


async def test_a_node_that_is_silent_uses_up_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(None)) as its, its.client(timeout=2.0) as client:
        await ended(lambda: client.call("SET", "a:1", "x"), Uncertain)
        assert trio.current_time() == 2.0
        await ended(lambda: client.call("GET", "a:1", timeout=1.0, at_writer=True), DeadlinePassed)
        assert trio.current_time() == 3.0
        assert its.network.to(A) == []


async def test_a_write_that_was_lost_may_have_been_done(autojump_clock: trio.testing.MockClock) -> None:
    """Sent again, because it may be: but in the end nobody may say that nothing was done."""
    async with world(always(None)) as its, its.client(timeout=2.0) as client:
        error = await ended(lambda: client.call("SET", "a:1", "x", idempotent=True), Uncertain)
        assert error.address == A
        error = await ended(lambda: client.pipeline([("SET", "a:1", "x")], idempotent=True), Uncertain)
        assert trio.current_time() == 4.0


async def test_reads_leave_a_silent_node_while_there_is_time(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(None), always(b":1\r\n")) as its, its.client(timeout=4.0) as client:
        assert await client.call("GET", "a:1") == 1
        assert trio.current_time() == 2.0
        # It is left alone for ten times as long.
        await trio.sleep(19)
        assert await client.call("GET", "a:1") == 1
        assert trio.current_time() == 21.0
        await trio.sleep(2)
        its.nodes[0].script = always(b":0\r\n")
        assert await client.call("GET", "a:1") == 0


async def test_reads_go_elsewhere_while_all_connections_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        world(lambda words: None if words[0] == b"BLPOP" else b":1\r\n", always(b":2\r\n")) as its,
        its.client(connections=1) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: ended(lambda: client.call("BLPOP", "q", 0, timeout=100), Uncertain))
        await trio.sleep(1)
        assert await client.call("GET", "a:1", timeout=2) == 2
        error = await ended(lambda: client.call("SET", "q", 0, timeout=2), DeadlinePassed)
        assert "free" in str(error)
        assert its.nodes[0].names() == ["BLPOP"]


async def test_who_waits_in_vain_does_not_think_ill_of_the_node(autojump_clock: trio.testing.MockClock) -> None:
    """A wait that lasts longer than its call is no failure: free keys go on being written where they were."""
    async with (
        world(lambda words: None if words[0] == b"BLPOP" else OK, always(OK)) as its,
        its.client(timeout=2) as client,
    ):
        await ended(lambda: client.call("BLPOP", "free", 0), Uncertain)
        assert await client.call("SET", "free", 1) == "OK"
        assert its.asked() == [["BLPOP", "SET"], []]


async def test_a_lost_write_leaves_its_node_out_for_a_moment_only(autojump_clock: trio.testing.MockClock) -> None:
    async with world(after(1, None, OK), always(OK)) as its, its.client(timeout=5) as client:
        await ended(lambda: client.call("SET", "free", 1), Uncertain)
        assert await client.call("SET", "free", 1) == "OK"
        await trio.sleep(1)
        assert await client.call("SET", "free", 1) == "OK"
        assert its.asked() == [["SET", "SET"], ["SET"]]


async def test_free_keys_stay_where_they_are_written(autojump_clock: trio.testing.MockClock) -> None:
    """One that is written beside a scope's, at its writer, is not thought to be of that scope."""

    def first(words: list[bytes]) -> bytes:
        if words[0] == b"INFO":
            return INFO
        return misdirected(B) if any(word.startswith(b"a:") for word in words) else b":0\r\n"

    async with world(first, always(b":1\r\n")) as its, its.client() as client:
        assert await client.call("MSET", "free", 1, "a:1", 2) == 1
        assert await client.call("SET", "free", 1) == 0
        assert await client.call("MSET", "free", 1, "a:2", 2) == 1
        assert its.asked() == [["MSET", "INFO", "SET"], ["MSET", "MSET"]]


async def test_while_the_nearest_node_loads_others_take_their_writes(autojump_clock: trio.testing.MockClock) -> None:
    def other(words: list[bytes]) -> bytes:
        return INFO if words[0] == b"INFO" else OK

    async with world(always(b"-LOADING kevynode is loading\r\n"), other) as its, its.client() as client:
        assert await client.call("SET", "a:1", "x") == "OK"
        assert its.asked() == [["SET"], ["INFO", "SET"]]
        await ended(lambda: client.call("SET", "free", "x"), DeadlinePassed)
        assert its.nodes[1].names() == ["INFO", "SET"]


async def test_a_node_that_cannot_be_reached_is_left_out(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(OK), always(OK)) as its, its.client() as client:
        its.network.separate(A)
        assert await client.call("SET", "a:1", "x") == "OK"
        assert await client.call("GET", "a:1") == "OK"
        assert its.asked() == [[], ["SET", "GET"]]
        its.network.unreachable.clear()
        await trio.sleep(5)
        assert await client.call("GET", "a:1") == "OK"
        assert its.asked()[0] == ["GET"]


async def test_a_writer_that_comes_back_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(misdirected(B)), always(OK)) as its, its.client() as client:
        its.network.separate(B)

        async def come_back() -> None:
            await trio.sleep(2)
            its.network.unreachable.clear()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
            assert await client.call("SET", "a:1", "x") == "OK"
        assert trio.current_time() < 3
        assert its.nodes[1].names() == ["SET"]


async def test_a_writer_that_stays_away(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(misdirected(B)), always(OK)) as its, its.client(timeout=3) as client:
        its.network.separate(B)
        error = await ended(lambda: client.call("SET", "a:1", "x"), DeadlinePassed)
        assert B in error.last
        assert len(its.nodes[0].asked) < 25


async def test_connecting_has_a_bound_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    class Deaf(Network):
        async def connect(self, host: str, port: int) -> trio.abc.Stream:
            if port == 1:
                await trio.sleep_forever()
            return await super().connect(host, port)

    network = Deaf()
    node = ScriptedNode(network, 2, always(OK))
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        async with ScopedClient([A, B], transport=network, connect_seconds=0.5) as client:
            assert await client.call("SET", "a:1", "x") == "OK"
            assert trio.current_time() == 0.5
        async with ScopedClient([A], transport=network, timeout=0.3) as client:
            await ended(lambda: client.call("SET", "a:1", "x"), DeadlinePassed)
        nursery.cancel_scope.cancel()


async def test_a_cancelled_call_leaves_no_connection_for_others(autojump_clock: trio.testing.MockClock) -> None:
    """The late answer to a cancelled call must not be taken for the answer to the next one."""
    async with (
        world(lambda words: None if words[1] == b"slow" else b"$%d\r\n%b\r\n" % (len(words[1]), words[1])) as its,
        its.client(connections=1) as client,
    ):
        with trio.move_on_after(1):
            await client.call("GET", "slow", timeout=10)
        assert its.network.to(A) == []
        assert await client.call("GET", "k") == b"k"


async def test_connections_to_a_node_are_bounded_and_used_again(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(OK)) as its, its.client(connections=3) as client:
        its.network.on_connect = lambda wire: setattr(wire.inward, "latency", 0.1)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(client.call, "SET", f"a:{number}", "x")
        assert its.nodes[0].most == 3
        assert its.network.connected == {A: 3}
        assert len(its.nodes[0].asked) == 20


async def test_a_reply_beyond_the_limit() -> None:
    async with world(always(b"$5000\r\n" + b"x" * 5000 + b"\r\n")) as its, its.client(reply_limit=1000) as client:
        error = await ended(lambda: client.call("GET", "a:1"), BrokenReply)
        assert "1000" in str(error)
        assert its.asked() == [["GET"]]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400\r\n", OK + OK])
async def test_what_does_not_speak_the_protocol(answer: bytes) -> None:
    async with world(always(answer)) as its, its.client() as client:
        await ended(lambda: client.call("GET", "a:1"), BrokenReply)
        assert its.network.to(A) == []


async def test_a_read_at_the_writer_is_one_only_there() -> None:
    def copy(words: list[bytes]) -> bytes:
        return b"$5\r\nstale\r\n" if words[0] == b"GET" else misdirected(B)

    def writer(words: list[bytes]) -> bytes:
        return b"$5\r\nfresh\r\n" if words[0] == b"GET" else b"-WRONGTYPE x\r\n"

    async with world(copy, writer) as its, its.client() as client:
        assert await client.call("GET", "a:1") == b"stale"
        assert await client.call("GET", "a:1", at_writer=True) == b"fresh"
        # The writer has changed: what is remembered is found out.
        its.nodes[0].script, its.nodes[1].script = writer, lambda words: copy(words).replace(b".1:2", b".1:1")
        assert await client.call("GET", "a:1", at_writer=True) == b"fresh"
        assert await client.pipeline([("GET", "a:1"), ("GET", "a:2")], at_writer=True) == [b"fresh"] * 2


async def test_a_read_of_several_keys_at_the_writer_asks_for_all_of_them() -> None:
    def copy(words: list[bytes]) -> bytes:
        if words[0] == b"LMPOP" and b"b:1" in words:
            return b"-CROSSSCOPE keys of the scopes a: and b:\r\n"
        if words[0] == b"MGET":
            return b"*2\r\n+old\r\n+old\r\n"
        return misdirected(B) if any(word.startswith(b"a:") for word in words) else b":0\r\n"

    def writer(words: list[bytes]) -> bytes:
        return b"-ERR syntax error\r\n" if words[0] == b"LMPOP" else b"*2\r\n+new\r\n+new\r\n"

    async with world(copy, writer) as its, its.client() as client:
        assert await client.call("MGET", "free", "a:1", at_writer=True) == ["new", "new"]
        assert await client.pipeline([("MGET", "free", "a:1")] * 2, at_writer=True) == [["new", "new"]] * 2
        for read in (
            lambda: client.call("MGET", "a:1", "b:1", at_writer=True),
            lambda: client.pipeline([("GET", "a:1"), ("GET", "b:1")], at_writer=True),
        ):
            its.nodes[1].script = copy
            error = await ended(read, ReplyError)
            assert error.prefix == "CROSSSCOPE"


async def test_a_read_at_the_writer_is_asked_as_a_whole_again(autojump_clock: trio.testing.MockClock) -> None:
    """Who was the writer when it was asked, and loads when it is read, may not be the writer any more."""
    answers = iter([b":0\r\n", b"-STALE x\r\n", misdirected(B), b"+old\r\n"])
    writer = iter([b":0\r\n", b"+new\r\n"])

    def first(words: list[bytes]) -> bytes:
        return INFO if words[0] == b"INFO" else next(answers)

    async with (
        world(first, lambda words: next(writer)) as its,
        its.client(nodes=[A]) as client,
    ):
        assert await client.call("GET", "a:1", at_writer=True) == "new"
        assert its.nodes[1].names() == ["ZREMRANGEBYRANK", "GET"]
