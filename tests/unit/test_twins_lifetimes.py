"""What the compiled parts hold on to, and what is there when something fails in the middle of a turn."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.session_harness import ServerHarness, request

from kevynode.reply import OK
from kevynode.serve import loop as pure_loop
from kevynode.serve.server import Server
from kevynode.serve.session import Session
from kevynode.serve.table import TABLE
from kevynode.store.journal import Journal
from kevynode.store.store import Store

pytest.importorskip("kevynode.compiled.loop", reason="the compiled parts are not built")

from kevynode.compiled import loop as compiled_loop

FOREVER = float("inf")
WAYS = {"pure": pure_loop.run_commands, "compiled": compiled_loop.run_commands}


class OtherJournal(Journal):
    """One that may commit in a way that the compiled loop does not know."""

    __slots__ = ()


class OtherStore(Store):
    """One whose reads and writes the compiled commands do not know."""

    __slots__ = ()


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Whatever goes has to go by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def put_handler(node: ServerHarness, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Has STRLEN do something else."""
    command = node.server.table.get(b"STRLEN")
    assert command is not None
    return lambda handler: monkeypatch.setattr(command, "handler", handler)


def session_of(node: ServerHarness, way: str = "compiled") -> Session:
    node.server.run_commands = WAYS[way]
    return Session(node.server, "peer", "local")


def sessions_alive() -> int:
    return sum(type(thing) is Session for thing in gc.get_objects())


def no_reply(_store: Store, _argv: list[bytes]) -> Any:
    return [b"x", object()]


def come_and_go(node: ServerHarness, way: str) -> None:
    """A client that sends a command, one that has the session fail, and half a command; then it is gone."""
    session = session_of(node, way)
    session.receive(request("SET", "a", "1") + request("STRLEN", "a") + b"*2\r\n$3\r\nGET\r\n$9\r\n")
    with pytest.raises(TypeError):
        session.run(FOREVER)
    assert session.held_input
    session.disconnected("gone")


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("way", WAYS)
def test_a_closed_session_goes_at_once(node: ServerHarness, put_handler: Any, way: str) -> None:
    """With what it has read: half a command may be as long as half a gigabyte, and it need not be found as garbage."""
    put_handler(no_reply)
    before = sessions_alive()
    come_and_go(node, way)
    assert sessions_alive() == before


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_sent_of_a_reply_that_is_none(node: ServerHarness, put_handler: Any, way: str) -> None:
    put_handler(no_reply)
    session = session_of(node, way)
    session.receive(request("SET", "a", "1") + request("STRLEN", "a"))
    with pytest.raises(TypeError):
        session.run(FOREVER)
    assert session.take_output() == b"+OK\r\n"
    assert node.server.current is None
    # What failed is over: the session could go on.
    session.receive(request("GET", "a"))
    assert not session.run(FOREVER)
    assert session.take_output() == b"$1\r\n1\r\n"


def test_a_session_does_not_run_within_its_own_turn(node: ServerHarness, put_handler: Any) -> None:
    session = session_of(node)
    refused: list[str] = []

    def run_again(_store: Store, _argv: list[bytes]) -> Any:
        session.queue.append([b"GET", b"a"])
        with pytest.raises(RuntimeError) as caught:
            session.run(FOREVER)
        refused.append(str(caught.value))
        return OK

    put_handler(run_again)
    session.receive(request("SET", "a", "1") + request("STRLEN", "a"))
    assert not session.run(FOREVER)
    assert refused == ["a session cannot run within its own turn"]
    assert session.take_output() == b"+OK\r\n+OK\r\n$1\r\n1\r\n"
    assert session.traffic.commands_run == 3


@pytest.mark.parametrize(
    "store",
    [lambda: OtherStore(random.Random(1)), lambda: Store(random.Random(1), OtherJournal())],
    ids=["store", "journal"],
)
def test_other_stores_and_journals_are_refused(store: Callable[[], Store]) -> None:
    """What they do otherwise would be passed over in silence."""
    node = ServerHarness()
    node.server = Server(store(), node.log, lambda: 0, lambda: 0.0, lambda: 0.0, TABLE)
    session = session_of(node)
    session.receive(request("GET", "a"))
    with pytest.raises(TypeError):
        session.run(FOREVER)


PIPELINE = b"".join(
    request(*words.split())
    for words in (
        "SET s 1",
        "SET s 22222",
        "GET s",
        "GET none",
        "INCR s",
        "INCR n",
        "MGET s n",
        "MGET s none",
        "HSET h f 1",
        "HSET h f 333",
        "HSET h f 1 g 2",
        "LPUSH l a",
        "RPUSH l b",
        "LRANGE l 0 5",
        "LTRIM l 0 3",
        "SADD m a",
        "SADD m a b",
        "ZADD z 1 a",
        "ZADD z 2.5 a",
        "ZADD z 1 b",
        "GET h",
        "LPUSH s a",
        "ZADD z nan a",
        "INCR h",
        "GET",
        "NOSUCH x",
        "MULTI",
        "SET s 5",
        "EXEC",
        "DEL n",
        "PING",
    )
)


def test_conversations_leave_nothing_behind(node: ServerHarness) -> None:
    """No object is kept that nobody needs, and none is let go of that others still have."""
    known = [OK, OK.wire, node.store, node.store.journal, node.server, *node.server.table]
    heard: list[int] = []
    node.store.journal.observers.append(lambda first, group: heard.append(len(group)))

    def talk(rounds: int) -> None:
        for _ in range(rounds):
            session = session_of(node)
            for cut in (0, 40, 700):
                compiled_loop.receive_and_run(session, PIPELINE[:cut], FOREVER)
                compiled_loop.receive_and_run(session, PIPELINE[cut:], FOREVER)
                session.take_output()
            session.disconnected("gone")
            heard.clear()
            node.log.records.clear()

    talk(40)
    gc.collect()
    references, blocks = [sys.getrefcount(thing) for thing in known], sys.getallocatedblocks()
    talk(200)
    gc.collect()
    assert [sys.getrefcount(thing) for thing in known] == references
    # Fewer than one block in a round: dictionaries and lists have grown a little here and there.
    assert sys.getallocatedblocks() - blocks < 100
