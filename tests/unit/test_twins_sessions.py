"""Sessions in the compiled loop do what they do in the pure one, whoever hears of what they write."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.session_harness import ServerHarness, request
from support.twin_inputs import hot_commands, odd_requests, other_commands, state_of

from kevynode.persist.recorder import JournalRecorder
from kevynode.replicate.backlog import Backlog
from kevynode.replicate.lineage import Lineage
from kevynode.scope.ownership import Ownership
from kevynode.scope.scope import Scope
from kevynode.scope.table import OwnershipTable
from kevynode.serve import loop as pure_loop
from kevynode.serve.session import Session
from kevynode.store.journal import Effect

pytest.importorskip("kevynode.compiled.loop", reason="the compiled parts are not built")

from kevynode.compiled import loop as compiled_loop

session_commands = st.one_of(
    hot_commands,
    hot_commands,
    other_commands,
    st.sampled_from(
        [
            (b"PING",),
            (b"MULTI",),
            (b"EXEC",),
            (b"DISCARD",),
            (b"HELLO", b"3"),
            (b"HELLO", b"2"),
            (b"CLIENT", b"REPLY", b"SKIP"),
            (b"CLIENT", b"REPLY", b"OFF"),
            (b"CLIENT", b"REPLY", b"ON"),
            (b"SUBSCRIBE", b"c"),
            (b"UNSUBSCRIBE",),
            (b"PUBLISH", b"c", b"m"),
            (b"WATCH", b"a"),
            (b"BLPOP", b"b", b"0"),
            (b"RESET",),
            (b"QUIT",),
            (b"NOSUCH", b"x"),
            (b"GET",),
            (b"INFO", b"nothing"),
            (b"CONFIG", b"SET", b"slowlog-log-slower-than", b"0"),
            (b"SLOWLOG", b"LEN"),
        ]
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """What several clients send: their number, and bytes that may begin and end anywhere in a command."""
    sent: dict[int, bytes] = {0: b"", 1: b""}
    conversation: list[tuple[int, bytes]] = []
    for _ in range(draw(st.integers(1, 6))):
        client = draw(st.integers(0, 1))
        pipeline = b"".join(request(*argv) for argv in draw(st.lists(session_commands, min_size=1, max_size=6)))
        if draw(st.integers(0, 9)) == 0:
            pipeline += draw(odd_requests)
        pipeline = sent[client] + pipeline
        cut = draw(st.integers(0, len(pipeline))) if draw(st.booleans()) else len(pipeline)
        sent[client] = pipeline[cut:]
        conversation.append((client, pipeline[:cut]))
    return conversation


class Way:
    """A server with two clients, driven one way or the other."""

    def __init__(self, compiled: bool, scopes: bool = False, listeners: Collection[str] = ()) -> None:
        self.node = ServerHarness()
        journal = self.node.server.store.journal
        self.recorder = JournalRecorder(journal, Lineage(3), {})
        self.recorder._records = "file" in listeners
        self.recorder.stop()
        self.backlog = Backlog(1 << 20, journal.offset)
        self.heard: list[Any] = []
        # In any order, and one of them perhaps twice.
        for name in listeners:
            journal.observers.append(
                {"file": self.recorder.observe, "copies": self.backlog.observe, "program": self.hear}[name]
            )
        if scopes:
            table = OwnershipTable([Scope(b"a", "other"), Scope(b"b", "self")])
            self.node.server.ownership = Ownership("self", table, {"other": "there:1", "self": "here:1"})
        self.node.server.tracks_written_keys = scopes
        self.compiled = compiled
        self.node.server.run_commands = compiled_loop.run_commands if compiled else pure_loop.run_commands
        self.sessions = [Session(self.node.server, "peer", "local") for _ in range(2)]
        for session in self.sessions:
            session.peer_gone = lambda: False

    def hear(self, first: int, group: list[Effect]) -> None:
        """Stands for whoever wants to know all about a change."""
        self.heard.append((first, [(list(command), key, told) for command, key, told in group]))

    def send(self, client: int, data: bytes) -> list[bytes]:
        """Feed a client's bytes and run everything; what has come for each client."""
        session = self.sessions[client]
        if not session.closing and session.wants_read:
            if self.compiled:
                compiled_loop.receive_and_run(session, data, float("inf"))
            else:
                session.receive(data)
                session.run(float("inf"))
        for each in self.sessions:
            while each.runnable:
                each.run(float("inf"))
        return [each.take_output() for each in self.sessions]

    def state(self) -> Any:
        server = self.node.server
        statistics = server.statistics
        commands = {entry.full_name: (entry.calls, entry.rejected, entry.failed) for entry in server.all_commands()}
        return (
            state_of(server.store),
            self.heard,
            (b"".join([*self.recorder._pieces, *self.recorder._parts]), self.recorder.offset, self.recorder.mark),
            (self.backlog._pending, self.backlog.next, self.backlog.memory),
            (statistics.input_bytes, statistics.output_bytes, statistics.error_replies, statistics.errors),
            {name: counts for name, counts in commands.items() if any(counts)},
            [
                (
                    session.traffic.commands_run,
                    session.traffic.input_bytes,
                    session.traffic.output_bytes,
                    session.closing,
                    session.discard,
                    session.blocked,
                    session.wrote,
                    session.queued,
                    session.written,
                    # The one holds what follows the command that closes a session, the other drops it.
                    0 if session.closing else session.held_input,
                    None if session.last_command is None else session.last_command.full_name,
                )
                for session in self.sessions
            ],
        )


@given(
    conversations(),
    st.booleans(),
    st.sampled_from(
        [
            (),
            ("file",),
            ("copies",),
            ("program",),
            ("file", "copies"),
            ("copies", "program", "file"),
            ("program", "program"),
        ]
    ),
)
@settings(max_examples=400)
def test_sessions_are_answered_the_same(
    conversation: list[tuple[int, bytes]], scopes: bool, listeners: tuple[str, ...]
) -> None:
    ways = []
    for compiled in (False, True):
        way = Way(compiled, scopes, listeners)
        ways.append(([way.send(client, data) for client, data in conversation], way.state()))
    assert ways[1] == ways[0]


@pytest.mark.parametrize("compiled", [False, True])
def test_all_observers_hear_of_a_write_although_one_fails(compiled: bool) -> None:
    way = Way(compiled, listeners=["program", "file"])

    def fail(_first: int, _group: list[Effect]) -> None:
        raise OSError("no")

    way.node.server.store.journal.observers.insert(0, fail)
    # The first SET is of a key that is new, the others are of one that is there.
    for number in (1, 2, 3):
        with pytest.raises(OSError, match="no"):
            way.send(0, request("SET", "a", "1"))
        assert len(way.heard) == way.recorder.mark == number
        assert way.recorder.offset == way.node.server.store.journal.offset == number
        # What was written stays written, and is not told of again.
        assert not way.node.server.store.journal.pending


def test_a_turn_ends_when_its_time_is_over() -> None:
    """The rest of what was read waits, and is run in the next turn."""
    way = Way(compiled=True)
    session = way.sessions[0]
    assert compiled_loop.receive_and_run(session, request("SET", "a", "1") * 3 + request("GET", "a"), -1.0)
    assert session.take_output() == b"+OK\r\n"
    assert session.queued == 3
    while session.runnable:
        session.run(float("inf"))
    assert session.take_output() == b"+OK\r\n+OK\r\n$1\r\n1\r\n"


def test_nothing_but_a_session_is_run() -> None:
    with pytest.raises((TypeError, AttributeError)):
        compiled_loop.run_commands(object(), 0.0)  # type: ignore[arg-type]
