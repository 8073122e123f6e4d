"""Nodes in a program, on clocks that a test sets, and clients of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from support.memory_transport import MemoryTransport

from kevynode import Node, NodeConfig, open_node
from kevynode.log import Logger

# Seconds, real or pretended, that a whole test may take.
PATIENCE = 60


class ManualClock:
    """Clocks that stand still until they are set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class TrioClock:
    """The clock of Trio's run, which a test may replace; the wall's begins somewhere else."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall(self) -> float:
        return trio.current_time() + 1_700_000_000


@attrs.define
class Lines:
    """A log that is kept."""

    lines: list[str] = attrs.field(factory=list)

    def write(self, line: bytes) -> None:
        self.lines.append(line.decode())

    def reopen(self) -> None: ...
    def close(self) -> None: ...


@asynccontextmanager
async def opened(*, transport: MemoryTransport | None = None, **options: Any) -> AsyncIterator[Node]:
    """A node over streams in memory, which must not have logged an error in the end."""
    lines = Lines()
    config = options.pop("config", {})
    with trio.fail_after(PATIENCE):
        async with open_node(
            NodeConfig.from_dict({"server": {"port": 0}, "persistence": {"aof": False}, **config}),
            log=Logger(lines),
            transport=transport or MemoryTransport(),
            **options,
        ) as node:
            yield node
    assert [line for line in lines.lines if " error " in line] == []


async def connect(node: Node) -> trio.abc.Stream:
    """A connection to the node's first address."""
    return await node.transport.connect("127.0.0.1", node.port)


async def ask(stream: trio.abc.Stream, request: bytes, expected: bytes) -> None:
    """Send inline commands, and assert that exactly this comes back."""
    await stream.send_all(request + b"\r\n")
    await hear(stream, expected)


async def hear(stream: trio.abc.Stream, expected: bytes) -> None:
    received = b""
    while len(received) < len(expected) and (piece := await stream.receive_some()):
        received += piece
    assert received == expected


async def hear_the_end(stream: trio.abc.Stream) -> None:
    assert await stream.receive_some() == b""
    await stream.aclose()
