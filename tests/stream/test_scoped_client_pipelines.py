"""Pipelines and transactions of the scoped client: sent in order, and again only where nothing was done."""

from __future__ import annotations

import pytest
import trio
from support.scoped_world import INFO, OK, B, after, always, ended, misdirected, quiesced, world
from support.scripted_nodes import Ends

from kevynode.client import DeadlinePassed, Uncertain
from kevynode.errors import ReplyError


async def test_a_pipeline_goes_to_the_writer_and_answers_in_order() -> None:
    async with world(always(misdirected(B)), lambda words: b"$1\r\n%b\r\n" % words[1]) as its, its.client() as client:
        assert await client.pipeline([("SET", "a", 1), ("GET", "b"), ("SET", "c", 1)]) == [b"a", b"b", b"c"]
        assert await client.pipeline([]) == []
        assert its.nodes[1].names() == ["SET", "GET", "SET"]


async def test_what_was_refused_at_the_end_is_sent_again(autojump_clock: trio.testing.MockClock) -> None:
    """The move begins in the middle: what was done is not done again, and the order of writes stays."""
    done: list[bytes] = []

    def source(words: list[bytes]) -> bytes:
        if len(done) == 2:
            return misdirected(B)
        done.append(words[1])
        return OK

    def target(words: list[bytes]) -> bytes:
        done.append(words[1])
        return OK

    async with world(source, target) as its, its.client() as client:
        keys = [f"a:{number}" for number in range(6)]
        assert await client.pipeline([("SET", key, 1) for key in keys]) == ["OK"] * 6
        assert done == [key.encode() for key in keys]


async def test_a_refusal_before_a_write_that_was_done_stays() -> None:
    async with world(after(1, quiesced(B), OK)) as its, its.client() as client:
        replies = await client.pipeline([("SET", "a:1", 1), ("SET", "a:1", 2)])
        assert str(replies[0]).startswith("QUIESCED")
        assert replies[1] == "OK"
        assert its.nodes[0].names() == ["SET", "SET"]


async def test_the_rest_of_a_pipeline_may_run_out_of_time(autojump_clock: trio.testing.MockClock) -> None:
    async with world(after(1, OK, quiesced(B))) as its, its.client(timeout=1) as client:
        replies = await client.pipeline([("SET", "a:1", 1), ("SET", "a:1", 2)])
        assert replies[0] == "OK"
        assert isinstance(replies[1], DeadlinePassed)


async def test_a_pipeline_that_breaks_says_what_came() -> None:
    async with world(after(2, OK, Ends())) as its, its.client() as client:
        error = await ended(lambda: client.pipeline([("SET", "a:1", 1)] * 4), Uncertain)
        assert error.replies == ["OK", "OK"]


async def test_replies_are_read_while_a_long_pipeline_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    """The node reads nothing more before its replies are taken."""
    value = b"$100000\r\n" + b"x" * 100000 + b"\r\n"
    async with world(always(value)) as its, its.client() as client:
        its.network.on_connect = lambda wire: setattr(wire.inward, "capacity", 4096)
        replies = await client.pipeline([("ECHO", b"y" * 100000)] * 50)
        assert [len(reply) for reply in replies] == [100000] * 50


async def test_a_long_pipeline_that_breaks() -> None:
    async with world(after(3, OK, Ends())) as its, its.client() as client:
        error = await ended(lambda: client.pipeline([("SET", "a:1", b"y" * 10000)] * 50), Uncertain)
        assert error.replies == ["OK"] * len(error.replies)
        assert len(error.replies) <= 3


@pytest.mark.parametrize(
    "refused",
    [
        [OK, misdirected(B), b"-EXECABORT Transaction discarded because of previous errors.\r\n"],
        [OK, b"+QUEUED\r\n", b"-EXECABORT Transaction discarded because of: MISDIRECTED writer is 10.0.0.1:2\r\n"],
        [OK, b"+QUEUED\r\n", misdirected(B)],
    ],
    ids=["queued", "executed", "bare"],
)
async def test_a_transaction_that_was_refused_is_done_where_it_belongs(refused: list[bytes]) -> None:
    answers = iter(refused)

    def first(words: list[bytes]) -> bytes:
        return INFO if words[0] == b"INFO" else next(answers)

    granted = iter([OK, b"+QUEUED\r\n", b"*1\r\n:1\r\n"])
    async with world(first, lambda words: next(granted)) as its, its.client() as client:
        assert await client.pipeline([("INCR", "a:1")], transaction=True) == [1]
        assert its.nodes[1].names() == ["MULTI", "INCR", "EXEC"]


@pytest.mark.parametrize(
    "answers",
    [
        [OK, b"+QUEUED\r\n", b"-CROSSSCOPE x\r\n", b"-EXECABORT Transaction discarded because of previous errors.\r\n"],
        [OK, misdirected(B), b"-CROSSSCOPE x\r\n", b"-EXECABORT Transaction discarded because of previous errors.\r\n"],
        [OK, b"+QUEUED\r\n", b"+QUEUED\r\n", b"-EXECABORT Transaction discarded because of: CROSSSCOPE x\r\n"],
    ],
    ids=["queued", "elsewhere", "executed"],
)
async def test_a_transaction_over_two_scopes_is_nobodys(answers: list[bytes]) -> None:
    """However it was found out, it is said as it is for one command, and no node is tried after the other."""
    left = iter(answers)
    async with world(lambda words: next(left), always(OK)) as its, its.client() as client:
        commands = [("SET", "a:1", "x"), ("SET", "b:1", "x")]
        error = await ended(lambda: client.pipeline(commands, transaction=True), ReplyError)
        assert str(error) == "CROSSSCOPE x"
        assert its.nodes[1].asked == []


async def test_a_transaction_that_is_wrong() -> None:
    answers = iter(
        [OK, b"-ERR unknown command\r\n", b"-EXECABORT Transaction discarded because of previous errors.\r\n"]
    )
    async with world(lambda words: next(answers)) as its, its.client() as client:
        error = await ended(lambda: client.pipeline([("NOSUCH", "a:1")], transaction=True), ReplyError)
        assert error.prefix == "EXECABORT"
