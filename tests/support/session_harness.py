"""Sessions without I/O, on a clock that the test moves: bytes in, bytes out."""

from __future__ import annotations

import random
from typing import Any

from kevynode.serve.server import Server
from kevynode.serve.session import Session
from kevynode.serve.table import TABLE
from kevynode.store.store import Store


def request(*arguments: bytes | str) -> bytes:
    """A multibulk request."""
    argv = [a.encode() if isinstance(a, str) else a for a in arguments]
    return b"*%d\r\n" % len(argv) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in argv)


class MemoryLog:
    """Keeps what is logged: (level, event, facts)."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, /, **facts: object) -> None:
        self.records.append(("debug", event, facts))

    def info(self, event: str, /, **facts: object) -> None:
        self.records.append(("info", event, facts))

    def warning(self, event: str, /, **facts: object) -> None:
        self.records.append(("warning", event, facts))

    def error(self, event: str, /, **facts: object) -> None:
        self.records.append(("error", event, facts))

    def events(self, level: str) -> list[str]:
        return [event for found, event, _ in self.records if found == level]


class Client:
    """One session, driven as a driver would."""

    def __init__(self, node: ServerHarness, session: Session) -> None:
        self.node = node
        self.session = session
        self.woken = False
        self.hung_up = False
        session.wake = self._wake
        session.peer_gone = lambda: self.hung_up

    def _wake(self) -> None:
        self.woken = True

    def send(self, data: bytes) -> bytes:
        """Feed raw bytes, run everything, and return the answer."""
        self.node.server.tick()
        self.session.receive(data)
        while self.session.runnable:
            self.session.run(float("inf"))
        return self.read()

    def call(self, *arguments: bytes | str) -> bytes:
        """Send one command; the raw answer."""
        return self.send(request(*arguments))

    def read(self) -> bytes:
        """What has come meanwhile; a session that may go on does so first."""
        while self.session.runnable:
            self.session.run(float("inf"))
        return self.session.take_output()


class ServerHarness:
    """A server on a clock of its own: ``wall`` in unix ms, ``monotonic`` in seconds."""

    def __init__(self, seed: int = 1) -> None:
        self.wall = 1_700_000_000_000
        self.monotonic = 1000.0
        self.log = MemoryLog()
        self.store = Store(random.Random(seed))
        self.server = Server(
            self.store, self.log, lambda: self.wall, lambda: self.monotonic, lambda: self.monotonic, TABLE
        )
        self.server.tick()

    def connect(self) -> Client:
        """A new connection."""
        return Client(self, Session(self.server, "127.0.0.1:50000", "127.0.0.1:6004"))

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what falls due."""
        self.wall += round(seconds * 1000)
        self.monotonic += seconds
        self.server.tick()
        self.server.timers.run(self.monotonic)
        self.server.commit()
