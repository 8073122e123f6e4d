"""A whole node in memory that somebody talks to who means no good, on all its ports and as whom it dials.

Whatever is said, the node serves others, keeps what it has, and is itself again when nobody talks to it any more.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from sim.strangers import (
    EVE,
    ONE,
    PREFIXES,
    Choices,
    Talk,
    ask_as_client,
    ask_as_stranger,
    said_by_peer,
    said_in_a_move,
    told_by_primary,
)
from support.cluster import HOST, Cluster, open_cluster
from support.steady_run import run_steadily
from support.store_harness import Content, check_memory, content

from kevynode import Node
from kevynode.replicate.handshake import HandshakeError, Request, parse_request
from kevynode.replicate.parsing import CommandReader, Malformed
from kevynode.scope import peer_messages, peer_wire
from kevynode.store.keyspace import KeyShard
from kevynode.store.store import Store
from kevynode.transport import Incoming

__all__ = ["as_replica", "with_scopes"]

_PORT: Final = 7000
#: Where the node takes eve to be.
_EVES_PORT: Final = 17001
#: Connections of one conversation, those that the node makes included, and seconds that it lasts.
_CONNECTIONS: Final = 30
_LENGTH: Final = 40.0
#: What a node may log as an error because of what others say.
_THEIR_ERRORS: Final = frozenset({"foreign_entry", "diverged"})
_GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


def with_scopes(data: bytes) -> None:
    """Have a node with scopes, whose peer is the stranger, live through the conversation that ``data`` decides."""
    choices = Choices(data)
    run_steadily(_Conversation(choices, _scoped(choices)).live)


def as_replica(data: bytes) -> None:
    """The same for a plain replica, whose primary is the stranger."""
    choices = Choices(data)
    run_steadily(_Conversation(choices, _replica(choices)).live)


def _scoped(choices: Choices) -> dict[str, Any]:
    kind = choices.pick(("kevynode", "kevynode", "kevy"))
    peers = [
        {"id": ONE, "address": f"{HOST}:{_PORT}"},
        {"id": EVE, "address": f"{HOST}:{_EVES_PORT - 10000}", "kind": kind},
    ]
    scopes = [{"prefix": prefix.decode(), "writer": name} for prefix, name in zip(PREFIXES, (ONE, EVE), strict=False)]
    cluster = {"node_id": ONE, "peer": peers, "scope": scopes, "replicate": choices.pick(("all", "all", "none"))}
    return {
        "server": {"port": _PORT, "bind": HOST, "data_dir": "/data"},
        "persistence": {"aof": True, "appendfsync": choices.pick(("everysec", "always"))},
        "cluster": cluster,
    }


def _replica(choices: Choices) -> dict[str, Any]:
    shards = choices.pick((1, 1, 1, 2))
    return {
        "server": {"port": _PORT, "bind": HOST, "data_dir": "/data"},
        "persistence": {"aof": True},
        "replication": {"role": "replica", "upstream": f"{HOST}:{_EVES_PORT}", "upstream_shards": shards},
    }


class _Conversation:
    """One node, and one who talks to it."""

    def __init__(self, choices: Choices, tables: dict[str, Any]) -> None:
        self._choices = choices
        self._tables = tables
        self._connections = 0
        self._beat: peer_messages.Beat | None = None
        self._move = ""

    async def live(self) -> None:
        """The conversation, and then the checks."""
        async with open_cluster() as cluster:
            cluster.expected_errors |= _THEIR_ERRORS
            async with self._eve_listens(cluster):
                node = await cluster.start_with(ONE, self._tables, trust_config=self._choices.number(2) == 0)
                with trio.move_on_after(_LENGTH):
                    while self._choices.left:
                        await self._talk_once(cluster, node)
            await trio.sleep(30)
            held = await self._check(cluster, node)
            await cluster.stop(node)
            node = await cluster.start_with(ONE, self._tables)
            again = await self._check(cluster, node)
            assert again == held, f"before the restart {held}, after it {again}"

    async def _check(self, cluster: Cluster, node: Node) -> Content:
        """That a node is well: what it holds."""
        client = await cluster.connect(node)
        assert await client.call("PING") == "PONG"
        listed = await client.call("CLIENT", "LIST")
        assert listed.count(b"\n") == 1, listed
        await client.aclose()
        assert node.replication.backlog.pins.lowest is None
        check_memory(node.store)
        return content(node.store)

    # -- eve dials ----------------------------------------------------------------------------------------------------

    async def _talk_once(self, cluster: Cluster, node: Node) -> None:
        choices = self._choices
        if choices.number(3) == 0:
            stream = (await cluster.connect(node))._stream
            talk = ask_as_client(choices)
        else:
            stream = await cluster.dial(node)
            talk = ask_as_stranger(choices, lambda: self._beat, lambda: self._move)
        async with stream:
            await self._say(stream, talk)

    async def _say(self, stream: trio.abc.Stream, talk: Talk) -> None:
        """Say some of it, at some pace, and take what comes back."""
        choices = self._choices
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, stream)
            try:
                for piece in _at_most(talk, 1 + choices.number(24)):
                    await stream.send_all(piece)
                    await trio.sleep(choices.pick((0.0, 0.0, 0.0, 0.01, 0.3, 1.5)))
            except _GONE:
                pass
            nursery.cancel_scope.cancel()

    async def _listen(self, stream: trio.abc.Stream) -> None:
        """Remember what a liar can make use of."""
        decoder = peer_wire.PeerDecoder()
        try:
            async for data in stream:
                for message in decoder.feed(bytes(data)):
                    if isinstance(message, peer_messages.Beat):
                        self._beat = message
        except _GONE:
            pass

    # -- eve is dialled -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _eve_listens(self, cluster: Cluster) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            for port in (_EVES_PORT, _EVES_PORT + 1):
                nursery.start_soon(self._accept, cluster, port, nursery)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()

    async def _accept(self, cluster: Cluster, port: int, nursery: trio.Nursery) -> None:
        (listener,) = await cluster.network.listen([HOST], port)
        try:
            while self._connections < _CONNECTIONS:
                for incoming in await listener.accept():
                    self._connections += 1
                    nursery.start_soon(self._answer, incoming)
        finally:
            listener.close()

    async def _answer(self, incoming: Incoming) -> None:
        """Answer as whoever is asked for, most of the time."""
        choices, stream = self._choices, incoming.stream()
        async with stream:
            words = await self._first_command(stream)
            if not words or choices.seldom():
                return
            await self._say(stream, self._answers(words))

    def _answers(self, words: list[bytes]) -> Talk:
        choices = self._choices
        if words[0] == b"PEER":
            name = choices.pick((ONE, "mallory")) if choices.seldom() else EVE
            yield choices.spoilt(peer_wire.encode(peer_messages.Welcome(choices.near(1), name, "eve-1")))
            yield from said_by_peer(choices, lambda: self._beat)
        elif words[0] == b"INGEST":
            self._move = words[2].decode("ascii", "replace")
            yield from said_in_a_move(choices, lambda: self._move)
        else:
            yield from told_by_primary(choices, _request(words), _some_shards)

    async def _first_command(self, stream: trio.abc.Stream) -> list[bytes]:
        reader, buffer, place = CommandReader(), bytearray(), 0
        with trio.move_on_after(5):
            try:
                async for data in stream:
                    buffer += data
                    place, words = reader.read(buffer, place)
                    if words:
                        return words
            except (*_GONE, Malformed):
                pass
        return []


def _at_most(talk: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece, _ in zip(talk, range(count), strict=False):
        yield piece


def _request(words: list[bytes]) -> Request | None:
    try:
        return parse_request(words)
    except HandshakeError:
        return None


def _some_shards() -> list[KeyShard]:
    """Data for a snapshot."""
    store = Store(random.Random(0))
    for key in (b"b:k", b"b:other", b"a:k", b"free"):
        store.put(key, b"shipped")
    return store.freeze()
