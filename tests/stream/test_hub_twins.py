"""The compiled rounds of the hub do what the pure ones do, over real sockets. Both are here, whichever runs."""

from __future__ import annotations

import random
import select
import socket
import sys
from collections import deque
from typing import Any

import pytest
from support.session_harness import ServerHarness, request

from kevynode.serve import loop as pure_loop
from kevynode.serve.answers import Verdict, WritingSession
from kevynode.serve.hub_connection import HubConnection
from kevynode.serve.hub_rounds import Rounds as PureRounds
from kevynode.serve.session import Session

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
compiled_hub = pytest.importorskip("kevynode.compiled.hub", reason="the compiled parts are not built")
compiled_loop = pytest.importorskip("kevynode.compiled.loop")

# Its types are those of its twin.
CompiledRounds: type[PureRounds] = compiled_hub.Rounds

CLIENTS = 12
REQUESTS = [
    request("SET", "a", "1") * 5,
    request("SET", "b", "x" * 5000) + request("GET", "b") * 100,
    request("INCR", "a"),
    request("INCR", "b"),
    request("PING"),
    request("COMMAND", "COUNT"),
    request("CLIENT", "REPLY", "OFF"),
    request("QUIT"),
    request("NOSUCH"),
    b"*1\r\n",
    b"*x\r\n",
]


def name_of(connection: HubConnection) -> int:
    """The number of a client."""
    assert isinstance(connection.session, Session)
    return connection.session.id


class Notes:
    """Stands for the hub: writes down what the rounds want of it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.unsettled: list[HubConnection] = []

    def serve_other(self, fd: int, connection: HubConnection | None, mask: int, turn_ends: float) -> bool:
        self.told.append(("other", None if connection is None else name_of(connection), mask, turn_ends))
        return connection is not None and mask == select.EPOLLIN

    def lost(self, connection: HubConnection, error: OSError) -> None:
        self.told.append(("lost", name_of(connection), error.errno))

    def fail(self, connection: HubConnection, error: Exception) -> None:
        self.told.append(("fail", name_of(connection), repr(error)))

    def settle(self, connection: HubConnection) -> None:
        self.told.append(("settle", name_of(connection), connection.lost, connection.ended))
        self.unsettled.append(connection)

    def sift(self, connections: list[HubConnection]) -> list[HubConnection]:
        self.told.append(("sift", [name_of(connection) for connection in connections]))
        for connection in connections[:1]:
            # Its answers are dropped, and it ends.
            connection.ended = True
            connection.plain = False
            self.unsettled.append(connection)
        return connections[1:]


class Gate:
    """Lets answers leave, or not."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.open = True

    def before_answers(self) -> bool:
        self.notes.told.append(("asked",))
        return self.open

    def verdict(self, session: WritingSession) -> Verdict:
        raise AssertionError("the rounds leave that to the hub")


class Side:
    """One kind of rounds with its clients, half of them of either of two servers."""

    def __init__(self, kind: type[PureRounds], step: float) -> None:
        self.notes = Notes()
        hub: Any = self.notes
        self.servers = [ServerHarness().server, ServerHarness().server]
        for server in self.servers:
            server.run_commands = pure_loop.run_commands if kind is PureRounds else compiled_loop.run_commands
        self.epoll = select.epoll()
        self.connections: dict[int, HubConnection] = {}
        self.near: list[socket.socket] = []
        self.far: list[HubConnection] = []
        self.sessions: list[Session] = []
        # Clients that will not send any more.
        self.silent: set[int] = set()
        self.now = 0.0
        self.step = step
        for number in range(CLIENTS):
            near, far = socket.socketpair()
            for end in (near, far):
                end.setblocking(False)
            session = Session(self.servers[number % 2], "peer", "local")
            connection = HubConnection(hub, far, session)
            self.sessions.append(session)
            self.near.append(near)
            self.far.append(connection)
            self.connections[connection.fd] = connection
            self.epoll.register(connection.fd, select.EPOLLIN)
        # Who is in it makes no difference to the rounds.
        self.queue: deque[HubConnection] = deque()
        self.gate = Gate(self.notes)
        self.rounds = kind(
            hub,
            self.connections,
            self.queue,
            self.epoll,
            self.timer,
            0.5,
            4096,
            CLIENTS // 2,
            lambda now: self.notes.told.append(("batch", now)),
            self.gate,
        )

    def timer(self) -> float:
        """Each look at the clock takes a while."""
        self.now += self.step
        return self.now

    def round(self, deadline: float, whole: bool) -> Any:
        """One round, or as many as there are to be ``whole``; everything that can be seen of it."""
        found: Any = 0
        answered: list[HubConnection] = []
        unsettled: list[HubConnection] = []
        if whole:
            found = self.rounds.serve(self.now + deadline)
        else:
            if not self.rounds.left:
                found = self.rounds.look()
            answered, unsettled = self.rounds.serve_sockets(self.now + deadline)
            self.rounds.send_answers(answered)
        for connection in [*unsettled, *self.notes.unsettled]:
            if (connection.ended or connection.session.closing) and not connection.closed:
                self.epoll.unregister(connection.fd)
                del self.connections[connection.fd]
                connection.closed = True
        self.notes.unsettled.clear()
        return (
            found,
            self.rounds.left,
            self.rounds.looks,
            [name_of(connection) for connection in answered],
            [name_of(connection) for connection in unsettled],
        )

    def seen(self) -> Any:
        """What everybody can see by now."""
        traffic = [session.traffic for session in self.sessions]
        told = list(self.notes.told)
        self.notes.told.clear()
        return (
            told,
            [self.read(near) for near in self.near],
            [(server.statistics.input_bytes, server.statistics.output_bytes) for server in self.servers],
            [(each.input_bytes, each.output_bytes, each.commands_run) for each in traffic],
            [{entry.name: entry.calls for entry in server.table if entry.calls} for server in self.servers],
        )

    @staticmethod
    def read(near: socket.socket) -> bytes:
        try:
            return near.recv(1 << 20)
        except BlockingIOError:
            return b"nothing"

    def close(self) -> None:
        self.epoll.close()
        for near, connection in zip(self.near, self.far, strict=True):
            near.close()
            connection.sock.close()


def conversation(kind: type[PureRounds], seed: int, step: float) -> list[Any]:
    """What rounds of a kind come to, for clients that do whatever the seed says. ``step`` is what a look at the clock
    takes."""
    chance = random.Random(seed)
    side = Side(kind, step)
    try:
        seen = []
        for _ in range(40):
            for number, (near, connection) in enumerate(zip(side.near, side.far, strict=True)):
                match chance.randrange(8):
                    case 0 | 1 | 2 | 3 if number not in side.silent:
                        near.send(chance.choice(REQUESTS[:4] if chance.randrange(3) else REQUESTS))
                    case 4 if not chance.randrange(10):
                        side.silent.add(number)
                        near.shutdown(socket.SHUT_WR)
                    case 5 if not connection.closed:
                        connection.plain = bool(chance.randrange(3))
            side.gate.open = chance.randrange(10) > 0
            side.queue.clear()
            if chance.randrange(3) == 0:
                side.queue.append(side.far[0])
            # Sockets that are never read would be found ready for ever if time stood still and nobody were queued.
            whole = bool(side.queue) or step > 0.0
            longest = 3.0 if whole else 100.0
            seen.append((side.round(chance.choice([0.0, 1.0, longest]), whole), side.seen()))
        return seen
    except OSError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    finally:
        side.close()


@pytest.mark.parametrize("step", [0.0, 0.25], ids=["at once", "slowly"])
@pytest.mark.parametrize("seed", range(20))
def test_rounds_do_the_same(seed: int, step: float) -> None:
    pure, compiled = (conversation(kind, seed, step) for kind in (PureRounds, CompiledRounds))
    for number, (one, other) in enumerate(zip(pure, compiled, strict=True)):
        assert other == one, (seed, number)
