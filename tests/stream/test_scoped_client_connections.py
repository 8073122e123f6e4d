"""The connections of the scoped client: greeted, bounded, and given up."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.scoped_world import OK, A, B, always, ended, misdirected, world
from support.scripted_nodes import Ends

from kevynode.client import ScopedClient, Uncertain
from kevynode.client_routing import NODES_LIMIT
from kevynode.errors import ReplyError


@pytest.mark.parametrize(
    ("options", "greeting"),
    [
        ({"password": "p"}, [b"AUTH", b"p"]),
        ({"username": "u", "password": "p"}, [b"AUTH", b"u", b"p"]),
        ({"protocol": 3}, [b"HELLO", b"3"]),
        ({"protocol": 3, "password": "p"}, [b"HELLO", b"3", b"AUTH", b"default", b"p"]),
    ],
)
async def test_a_greeting_on_each_connection(options: dict[str, Any], greeting: list[bytes]) -> None:
    async with world(always(OK)) as its, its.client(**options) as client:
        await client.call("PING")
        await client.call("PING")
        assert its.nodes[0].asked == [greeting, [b"PING"], [b"PING"]]


async def test_a_password_that_is_wrong() -> None:
    async with world(always(b"-WRONGPASS x\r\n")) as its, its.client(password="p") as client:
        error = await ended(lambda: client.call("SET", "a:1", "x"), ReplyError)
        assert error.prefix == "WRONGPASS"
        assert its.network.to(A) == []


async def test_a_connection_that_ends_while_greeting_was_never_used(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(Ends()), always(OK)) as its, its.client(password="p") as client:
        assert await client.call("INCR", "a:1") == "OK"
        assert its.asked() == [["AUTH"], ["AUTH", "INCR"]]


async def test_a_greeting_without_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(None), always(OK)) as its, its.client(password="p") as client:
        assert await client.call("INCR", "a:1") == "OK"
        assert trio.current_time() == 1.0


async def test_a_closed_client() -> None:
    async with world(always(OK)) as its:
        client = its.client()
        await client.call("PING")
        await client.aclose()
        await client.aclose()
        assert its.network.to(A) == []
        await ended(lambda: client.call("PING"), trio.ClosedResourceError)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"hops": -1}, {"connections": 0}, {"protocol": 4}, {"username": "u"}, {"nodes": []}]
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ScopedClient(**{"nodes": [A], **options})


async def test_nodes_beyond_the_bound_lose_their_connections() -> None:
    """Redirects may name any number of nodes; connections to those that were not used for long are closed."""
    ports = range(1, NODES_LIMIT + 11)
    async with world(*(always(OK) for _ in ports)) as its, its.client() as client:
        for number, node in enumerate(its.nodes):
            client.routes.learn([b"%d" % number], node.address)
            assert await client.call("SET", number, "x") == "OK"
        assert sum(len(its.network.to(node.address)) for node in its.nodes) <= NODES_LIMIT + 1
        assert its.network.to(A) == []
        client.routes.learn([b"0"], A)
        assert await client.call("SET", 0, "x") == "OK"


async def test_the_writer_of_a_broken_prefix_question_is_still_remembered() -> None:
    """The node breaks off when it is asked for the prefixes; the call goes on all the same."""

    def first(words: list[bytes]) -> bytes | Ends:
        return Ends() if words[0] == b"INFO" else misdirected(B)

    async with world(first, always(OK)) as its, its.client() as client:
        assert await client.call("SET", "a:1", "x") == "OK"
        assert await client.call("SET", "a:1", "x") == "OK"
        assert its.nodes[0].names() == ["SET", "INFO"]


async def test_a_read_at_the_writer_that_fails_there() -> None:
    async with world(lambda words: b"-WRONGTYPE x\r\n") as its, its.client() as client:
        error = await ended(lambda: client.call("GET", "a:1", at_writer=True), ReplyError)
        assert error.prefix == "WRONGTYPE"
        assert its.nodes[0].names() == ["ZREMRANGEBYRANK", "GET"]


async def test_a_node_that_goes_away_while_a_long_pipeline_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    async with world(always(None)) as its, its.client() as client:

        def narrow(wire: Any) -> None:
            wire.inward.capacity = 4096
            wire.inward.limit = 20000

        its.network.on_connect = narrow
        await ended(lambda: client.pipeline([("SET", "a:1", b"y" * 100000)]), Uncertain)
