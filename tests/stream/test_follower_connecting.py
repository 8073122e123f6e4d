"""How a follower comes to a link and loses it: deadlines, waits, what it tells meanwhile, and being cancelled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from support.fake_primary import FakePrimary, answer, frames, group, payload, ship
from support.follower_harness import HISTORY, Copy, accept, copying, downgrade, synchronised
from support.memory_transport import MemoryTransport
from support.store_harness import content

from kevynode.replicate import wire
from kevynode.replicate.handshake import Form

settled = trio.testing.wait_all_tasks_blocked


# -- connecting -------------------------------------------------------------------------------------------------------


class Nowhere(MemoryTransport):
    """A network that never answers."""

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError


async def test_attempts_come_slower_and_slower(autojump_clock: trio.testing.MockClock) -> None:
    copy = Copy()
    with trio.move_on_after(60):
        await copy.run()
    losses = copy.sink.losses
    assert losses[0] == "cannot connect to primary:16004: Connection refused"
    # 0.1, 0.2, ... 3.2, then five seconds each; half of that at the least.
    assert 6 + 54 / 5 < len(losses) < 6 + 60 / 2.5
    # The same trouble is told once.
    assert copy.log.of("warning") == ["upstream_lost"]


async def test_waits_are_short_again_after_a_link_that_held(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        primary._listener.close()
        await trio.sleep(30)
        (primary._listener,) = await copy.transport.listen(["primary"], 16004)
        connection = await synchronised(primary, {}, 40)
        await trio.sleep(3)
        await connection.close()
        start = trio.current_time()
        await primary.greet()
        assert trio.current_time() - start <= 0.1


async def test_connecting_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    copy = Copy(transport=Nowhere())
    with trio.move_on_after(5.01):
        await copy.run()
    assert copy.sink.losses == ["primary:16004 did not accept a connection within 5 s"]


async def test_the_handshake_has_a_deadline_that_drips_do_not_move(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection, _ = await primary.greet()
        for byte in b"+ACK 7 0":
            await connection.send(bytes([byte]))
            await trio.sleep(1)
        assert await connection.ended()
        assert copy.sink.losses == ["primary:16004 did not answer the handshake within 10 s"]


@pytest.mark.parametrize("where", ["before", "inside", "behind"])
async def test_a_silent_upstream_is_given_up(where: str, autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        connection, request = await primary.greet()
        stream = accept(request) + ship(40, {"a": "1"})
        stop = {"before": 0, "inside": -20, "behind": len(stream)}[where] or len(accept(request))
        await connection.send(stream[:stop])
        start = trio.current_time()
        assert await connection.ended()
        assert trio.current_time() - start == pytest.approx(10, abs=0.2)
        assert copy.sink.losses == ["primary:16004 was silent for 10 s"]


async def test_weaker_forms_are_asked_for_after_three_closes_and_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copying() as (copy, primary):
        await downgrade(primary, Form.SIX)
        connection = await synchronised(primary, {"a": "1"}, 40)
        start = trio.current_time()
        while trio.current_time() - start < 70:
            await connection.send(wire.ping(HISTORY, 40))
            await trio.sleep(5)
        await connection.close()
        connection, request = await primary.greet((HISTORY, 40))
        assert request.form is Form.EXTENDED
        await connection.send(accept(request) + wire.ping(HISTORY, 40))
        # Who has confirmed the extended form is never asked in another.
        await connection.close()
        for _ in range(7):
            connection, request = await primary.greet((HISTORY, 40))
            assert request.form is Form.EXTENDED
            await connection.close()
        assert copy.data == {"a": "1"}


@pytest.mark.parametrize("said", [b"-ERR unknown command 'REPLICATE'\r\n", b"-NOAUTH Authentication required.\r\n"])
async def test_a_client_port_is_named_and_the_form_stays(said: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        for _ in range(5):
            connection, request = await primary.greet()
            assert request.form is Form.EXTENDED
            await connection.send(said)
            assert await connection.ended()
            assert copy.facts.problem.startswith("primary:16004 is a client port; replicas connect to the replication")
        assert copy.log.of("warning") == ["upstream_lost"]


async def test_the_state_is_told_all_along(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        await settled()
        assert (copy.facts.state, copy.facts.silence, copy.facts.down) == ("handshake", None, 0.0)
        connection, request = await primary.greet()
        await connection.send(accept(request) + wire.SNAPSHOT_BEGIN + wire.chunk(payload({"a": "1"})))
        assert (copy.facts.state, copy.facts.sync_bytes) == ("sync", len(payload({"a": "1"})))
        assert copy.facts.last_sync is not None
        assert copy.facts.last_sync.duration is None
        await trio.sleep(2)
        await connection.send(wire.snapshot_end(40))
        facts = copy.facts
        assert (facts.state, facts.problem, facts.down, facts.sync_bytes) == ("connected", "", None, 0)
        assert facts.last_sync is not None
        assert (facts.last_sync.kind, facts.last_sync.duration) == ("full", 2.0)
        assert copy.follower.received_bytes == len(accept(request) + ship(40, {"a": "1"}))
        assert copy.follower.position_in(HISTORY) is None
        await connection.close()
        assert (copy.facts.state, copy.facts.problem) == (
            "connect",
            "primary:16004 closed the connection while streaming",
        )


class Reset(MemoryTransport):
    """A network whose connections break at the first read."""

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        stream = await super().connect(host, port)
        assert isinstance(stream, trio.StapledStream)

        async def receive_some(max_bytes: int | None = None) -> bytes:
            raise trio.BrokenResourceError from ConnectionResetError("Connection reset by peer")

        stream.receive_stream.receive_some = receive_some
        return stream


async def test_a_broken_connection_is_told_with_its_cause(autojump_clock: trio.testing.MockClock) -> None:
    copy = Copy()
    copy.options["transport"] = copy.transport = Reset()
    async with FakePrimary(copy.transport), trio.open_nursery() as nursery:
        nursery.start_soon(copy.run)
        await settled()
        assert copy.sink.losses == ["the connection to primary:16004 broke: Connection reset by peer"]
        copy.running.cancel()


async def test_an_upstream_that_takes_no_byte_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    copy = Copy()
    copy.options["transport"] = copy.transport = MemoryTransport(trio.testing.lockstep_stream_pair)
    async with FakePrimary(copy.transport), trio.open_nursery() as nursery:
        nursery.start_soon(copy.run)
        await trio.sleep(10.01)
        assert copy.sink.losses == ["primary:16004 took no byte for 10 s"]
        copy.running.cancel()


async def test_a_failure_inside_costs_the_link_only(autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        adopt = copy.sink.adopt

        def fail(*arguments: object) -> None:
            copy.sink.adopt = adopt  # type: ignore[method-assign]
            raise ValueError("no")

        copy.sink.adopt = fail  # type: ignore[assignment,method-assign]
        connection = await synchronised(primary, {"a": "1"}, 40)
        assert await connection.ended()
        assert copy.log.of("error") == ["upstream_failed"]
        assert copy.sink.losses == ["internal error: ValueError('no')"]
        await synchronised(primary, {"a": "2"}, 41)
        assert copy.data == {"a": "2"}


async def test_a_copy_of_everything_takes_no_skip_though_it_was_agreed_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copying(capabilities=frozenset({"skip"})) as (copy, primary):
        connection, _ = await primary.greet()
        await connection.send(answer(HISTORY, 0, ["skip"]) + ship(40, {"a": "1"}) + wire.skip(50))
        assert await connection.ended()
        assert copy.sink.losses == ["primary:16004 sent what is for filtered links only: Skipped"]
        await primary.greet((HISTORY, 40))


@pytest.mark.parametrize("form", [Form.EXTENDED, Form.FIVE])
async def test_the_reason_of_a_fresh_copy_is_kept(form: Form, autojump_clock: trio.testing.MockClock) -> None:
    async with copying() as (copy, primary):
        await downgrade(primary, form)
        await (await synchronised(primary, {"a": "1"}, 40)).close()
        connection, request = await primary.greet()
        await connection.send(accept(request) + ship(60, {"a": "2"}))
        sync = copy.facts.last_sync
        assert sync is not None
        assert sync.reason == (
            "the upstream does not go on at offset 40"
            if form is Form.FIVE
            else "asked for offset 40 of history 7, which the upstream does not go on from"
        )


# -- cancellation -----------------------------------------------------------------------------------------------------


class CancelAtStep(trio.abc.Instrument):
    """Cancels ``scope`` when the follower's task is about to run for the ``number``-th time."""

    def __init__(self, number: int, scope: Callable[[], trio.CancelScope]) -> None:
        self._left = number
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if "Upstream.run" in task.name:
            self._left -= 1
            if self._left == 0:
                self._scope().cancel()


async def everything(copy: Copy) -> None:
    """A life of a follower: two snapshots, entries, groups, a cut, a resumption."""
    async with FakePrimary(copy.transport) as primary:
        connection, request = await primary.greet((0, 0))
        await connection.send(accept(request) + ship(3, {"a": "1", "b": "2"}))
        await connection.send(frames(3, "SET c 3", "SET d 4") + group(5, "DEL a", "SET e 5") + wire.ping(HISTORY, 7))
        await connection.close()
        connection, request = await primary.greet((HISTORY, 7))
        await connection.send(accept(request) + frames(7, "SET f 6") + group(8, "DEL b", "DEL c"))
        await connection.send(ship(20, {"g": "7"}) + frames(20, "SET h 8"))


async def live_through(number: int) -> tuple[Copy, bool]:
    """Run :func:`everything`, with the follower cancelled at one of its steps; whether it came to that."""
    copy = Copy()
    instrument = CancelAtStep(number, lambda: copy.running)
    trio.lowlevel.add_instrument(instrument)
    try:
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                await copy.run()
                nursery.cancel_scope.cancel()

            nursery.start_soon(follow)
            try:
                await everything(copy)
            except (AssertionError, trio.BrokenResourceError):
                # The script's other end is gone.
                if not copy.running.cancel_called:
                    raise
            nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return copy, copy.running.cancel_called


async def test_cancelled_at_any_step_the_store_is_what_the_journal_says(
    autojump_clock: trio.testing.MockClock,
) -> None:
    whole, _ = await live_through(10**9)
    assert whole.data == {"g": "7", "h": "8"}
    assert sorted(whole.sink.seen) == [3, 5, 7, 8, 10, 20, 21]
    number = 0
    positions = set()
    while True:
        number += 1
        copy, cancelled = await live_through(number)
        if not cancelled:
            break
        offset = copy.store.journal.offset
        assert not copy.store.journal.pending
        assert not copy.store.touched
        assert copy.log.of("error") == []
        assert content(copy.store) == whole.sink.seen.get(offset, {})
        assert copy.sink.seen.get(offset, {}) == content(copy.store)
        positions.add(offset)
    assert positions >= {0, 3, 7, 10}
