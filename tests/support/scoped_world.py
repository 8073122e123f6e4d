"""Nodes that answer as a test says, and a scoped client of them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from support.network import Network
from support.scripted_nodes import Ends, Script, ScriptedNode

from kevynode.client import ScopedClient

A, B, C = "10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"
OK = b"+OK\r\n"
SCOPES = b"# Scopes\r\nscope0:prefix=a:,owner=b,epoch=0,state=elsewhere\r\n"
INFO = b"$%d\r\n%b\r\n" % (len(SCOPES), SCOPES)


def misdirected(address: str) -> bytes:
    return b"-MISDIRECTED writer is %b\r\n" % address.encode()


def quiesced(address: str) -> bytes:
    return b"-QUIESCED migrating to %b\r\n" % address.encode()


def always(answer: bytes | Ends | None) -> Script:
    return lambda words: answer


def after(count: int, first: bytes | Ends | None, then: bytes | Ends | None) -> Script:
    """One answer for the first commands, another for the rest."""
    left = count

    def script(words: list[bytes]) -> bytes | Ends | None:
        nonlocal left
        left -= 1
        return first if left >= 0 else then

    return script


class World:
    """Nodes on ports 1, 2, ... and the network between them and the client."""

    def __init__(self, network: Network, nodes: list[ScriptedNode]) -> None:
        self.network = network
        self.nodes = nodes

    def client(self, **options: Any) -> ScopedClient:
        addresses = options.pop("nodes", [node.address for node in self.nodes])
        return ScopedClient(addresses, transport=self.network, random=random.Random(1), **options)

    def asked(self) -> list[list[str]]:
        return [node.names() for node in self.nodes]


@asynccontextmanager
async def world(*scripts: Script) -> AsyncIterator[World]:
    network = Network()
    nodes = [ScriptedNode(network, port, script) for port, script in enumerate(scripts, 1)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
        yield World(network, nodes)
        nursery.cancel_scope.cancel()


async def ended(call: Callable[[], Awaitable[Any]], kind: type[Exception]) -> Any:
    with pytest.raises(kind) as caught:
        await call()
    return caught.value
