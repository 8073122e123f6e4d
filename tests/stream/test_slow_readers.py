"""Real sessions behind a driver whose peer does not read: bounded memory, no work, and an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from stream.driving import PATIENCE, settled, socket_pair
from stream.line_session import Log
from support.session_harness import ServerHarness, request

from kevynode.serve.housekeeping import Housekeeper
from kevynode.serve.hub import Hub
from kevynode.serve.output_limit import OutputLimit
from kevynode.serve.session import Session
from kevynode.serve.stream_driver import StreamDriver
from kevynode.transport import socket_stream

#: Bytes of the value that is asked for, and how often in one read.
SIZE = 100_000
TIMES = 1000


@pytest.mark.parametrize("way", ["hub", "streams"])
@pytest.mark.parametrize("gate", ["plain", "careful"])
async def test_a_peer_that_does_not_read_costs_little_and_can_leave(way: str, gate: str) -> None:
    node = ServerHarness()
    node.connect().call("SET", "k", "x" * SIZE)
    if gate == "careful":
        node.server.gates.add("test")
    near, far = socket_pair("unix")
    session = Session(node.server, "peer", "here")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            driver: Any = Hub(Log()) if way == "hub" else StreamDriver(Log())
            serve: Callable[..., Any] = driver.serve
            if way == "hub":
                await nursery.start(driver.run)
            nursery.start_soon(serve, far if way == "hub" else socket_stream(far), session)
            near.send(request("GET", "k") * TIMES)
            # Only a driver that sleeps lets this return.
            await settled()
            assert session.queued > 0
            assert session.held_output < 3_000_000
            before = session.traffic.commands_run
            await settled()
            assert session.traffic.commands_run == before
            # Reading lets it go on; leaving ends it.
            near.setblocking(False)
            read = 0
            while read < 50 * SIZE:
                await trio.lowlevel.wait_readable(near)
                read += len(near.recv(1 << 20))
            await settled()
            assert session.traffic.commands_run > before
            near.close()
            await settled()
            assert session.gone
            assert node.server.sessions.keys() == {1}
            nursery.cancel_scope.cancel()
        if way == "hub":
            driver.close()


@pytest.mark.parametrize("way", ["hub", "streams"])
async def test_a_listener_that_does_not_read_goes_when_the_seconds_of_the_soft_limit_have_passed(way: str) -> None:
    """Nothing more is sent to it, and it says nothing: it is found by whoever keeps the house."""
    node = ServerHarness()
    node.server.output_limits["pubsub"] = OutputLimit(1 << 30, 100_000, 5)
    house = Housekeeper(node.server)
    near, far = socket_pair("unix")
    session = Session(node.server, "peer", "here")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            driver: Any = Hub(Log()) if way == "hub" else StreamDriver(Log())
            serve: Callable[..., Any] = driver.serve
            if way == "hub":
                await nursery.start(driver.run)
            nursery.start_soon(serve, far if way == "hub" else socket_stream(far), session)
            near.send(request("SUBSCRIBE", "c"))
            await settled()
            node.connect().call("PUBLISH", "c", "x" * 5_000_000)
            await settled()
            assert session.output_pending > 100_000
            # It is noticed in the first second; then there are five, and no more.
            there = []
            for _ in range(7):
                node.advance(1.0)
                house.work()
                await settled()
                there.append(not session.gone)
            assert there == [True] * 6 + [False]
            assert node.log.events("warning") == ["output_limit"]
            nursery.cancel_scope.cancel()
        if way == "hub":
            driver.close()
    near.close()
