"""Nodes that answer what a test tells them to, over a network in memory or over real sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio

from kevynode.resp import RequestParser
from kevynode.transport import Transport

#: What comes back for a command: bytes, bytes after which the connection ends, or nothing for ever.
Answer: TypeAlias = "bytes | Ends | None"
Script: TypeAlias = Callable[[list[bytes]], Answer]


class Ends:
    """An answer, whole or not, behind which the connection breaks."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data


class ScriptedNode:
    """A node whose every answer is a function's. ``asked`` are the commands that reached it, in order."""

    def __init__(self, network: Transport, port: int, script: Script, host: str = "10.0.0.1") -> None:
        self.address = f"{host}:{port}"
        self.script = script
        self.asked: list[list[bytes]] = []
        self.connections = 0
        # The most connections at a time.
        self.most = 0
        self._network = network
        self._host = host
        self._port = port

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        (listener,) = await self._network.listen([self._host], self._port)
        self.address = listener.address
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    for incoming in await listener.accept():
                        nursery.start_soon(self._serve, incoming.stream())
        finally:
            listener.close()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        self.most = max(self.most, self.connections)
        parser = RequestParser()
        try:
            while True:
                data = await stream.receive_some()
                if not data:
                    return
                for words in parser.feed(bytes(data)):
                    self.asked.append(words)
                    answer = self.script(words)
                    if isinstance(answer, Ends):
                        await stream.send_all(answer.data)
                        return
                    if answer is not None:
                        await stream.send_all(answer)
        except trio.BrokenResourceError:
            pass
        finally:
            self.connections -= 1
            with trio.CancelScope(shield=True):
                await stream.aclose()

    def names(self) -> list[str]:
        """The names of the commands that reached it."""
        return [words[0].decode() for words in self.asked]
