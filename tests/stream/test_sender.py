"""The door that replicas knock at, and a sender for each of them, over streams in memory on a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.fake_replica import PATIENCE, FakeReplica
from support.replication_harness import ALL, House
from trio.testing import MockClock

from kevynode.replicate import sender
from kevynode.replicate.handshake import format_request, format_scopes
from kevynode.replicate.primary_states import State

MINUTE = 60.0


@asynccontextmanager
async def open_house(**settings: Any) -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        yield House(nursery, **settings)
        nursery.cancel_scope.cancel()


async def join(house: House, offset: int | None = None, *, lockstep: bool = False, **asked: Any) -> FakeReplica:
    """A replica that has said its handshake."""
    replica = FakeReplica(house.arrive(lockstep), house.request(offset, **asked))
    await replica.hello()
    return replica


async def settled() -> None:
    """Let everybody go on until all wait, without a jump of the clock."""
    await trio.testing.wait_all_tasks_blocked()


async def until(condition: Any) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110  nobody tells
            await trio.sleep(0.05)


# -- handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"REPLICATE FROM 1 2 ID x y\r\n", "REPLICATE expects 6 args, got 7"),
        (b"REPLICATE\r\n", "REPLICATE expects 6 args, got 1"),
        (b"*1\r\n$4\r\nPING\r\n", "expected REPLICATE command"),
        (b"GET / HTTP/1.1\r\n", "expected REPLICATE command"),
        (b"REPLICATE OF 0 ID x\r\n", "expected 'FROM' keyword"),
        (b"REPLICATE FROM 0 IS x\r\n", "expected 'ID' keyword"),
        (b"REPLICATE FROM -1 0 ID x\r\n", "generation must be an unsigned decimal"),
        (b"REPLICATE FROM 18446744073709551616 ID x\r\n", "from-offset must be an unsigned decimal"),
        (b"*5\r\n$9\r\nREPLICATE\r\n$4\r\nFROM\r\n$1\r\n0\r\n$2\r\nID\r\n$1\r\n\xff\r\n", "replica id must be"),
        (b"x" * 5000, "no complete request in 4096 bytes"),
        (b"*1000000000\r\n", "malformed request"),
    ],
)
async def test_a_malformed_handshake_gets_no_bytes_but_a_line_in_the_log(
    autojump_clock: MockClock, said: bytes, reason: str
) -> None:
    async with open_house() as house:
        stream = house.arrive()
        await stream.send_all(said)
        with trio.fail_after(5):
            assert await stream.receive_some(100) == b""
        (logged,) = house.reasons("replica_refused")
        assert logged.startswith(reason)
        assert not len(house.replication.slots)
        assert await joins(house)


async def joins(house: House) -> bool:
    """Whether a replica can join and follow."""
    house.call("SET", "probe", "v")
    replica = await join(house, name="probe")
    await replica.reach(house.replication.position)
    await replica.leave()
    return True


@pytest.mark.parametrize("said", [b"", b"REPLIC", b"*6\r\n$9\r\nREPLICATE\r\n"])
async def test_half_a_handshake_is_closed_at_its_deadline(autojump_clock: MockClock, said: bytes) -> None:
    async with open_house() as house:
        stream = house.arrive()
        await stream.send_all(said)
        with trio.fail_after(sender.HANDSHAKE_DEADLINE + 1):
            assert await stream.receive_some(100) == b""
        assert house.reasons("replica_refused") == ["no handshake in time"]


async def test_who_leaves_in_its_handshake_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        stream = house.arrive()
        await stream.send_all(b"REPLICATE FR")
        await stream.aclose()
        await settled()
        assert house.reasons("replica_gone") == ["end of stream in its handshake"]
        assert house.log.events("warning") == []


async def test_a_handshake_may_come_byte_by_byte_with_more_behind_it(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.call("SET", "a:1", "v")
        house.call("SET", "b:1", "v")
        replica = FakeReplica(house.arrive(), house.request(capabilities=ALL))
        for byte in format_request(replica.request) + format_scopes([b"b:"]):
            await replica.stream.send_all(bytes([byte]))
        await replica.reach(2)
        assert b"b:1" in replica.payload
        assert b"a:1" not in replica.payload
        assert house.slot.prefixes == (b"b:",)


async def test_who_says_nothing_makes_room_for_who_does(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        idle = [house.arrive() for _ in range(sender.GREETINGS)]
        await settled()
        replica = await join(house)
        await replica.reach(0)
        with trio.fail_after(1):
            assert await idle[0].receive_some(100) == b""
        assert house.reasons("replica_refused") == ["too many handshakes at once"]
        await idle[1].send_all(b"junk\r\n")
        assert await idle[1].receive_some(100) == b""


# -- the life of a slot -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["FIVE", "SIX", "EXTENDED"])
async def test_a_replica_joins_follows_and_comes_back_in_time(autojump_clock: MockClock, form: str) -> None:
    async with open_house() as house:
        house.fill(300)
        replica = await join(house, form=form)
        await replica.reach(300)
        house.call("SET", "more", "v")
        await replica.reach(301)
        await replica.leave()
        await settled()
        assert (house.slot.state, house.replication.links) == ("waiting", {})
        house.call("SET", "meanwhile", "v")
        await trio.sleep(MINUTE - 1)
        back = await join(house, replica.position, form=form)
        await back.reach(302)
        assert "301 SET meanwhile v" in back.steps
        assert (house.replication.full_syncs, house.replication.partial_syncs) == (1, 1)


async def test_who_stays_away_too_long_is_forgotten_and_the_backlog_released(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        replica = await join(house)
        await replica.reach(0)
        house.fill(300)
        await replica.reach(300)
        held = house.replication.backlog.memory
        assert held > 300_000
        await replica.leave()
        await trio.sleep(MINUTE + 1)
        assert house.log.events("info")[-1] == "replica_expired"
        assert (len(house.replication.slots), house.replication.active) == (0, False)
        assert house.replication.backlog.memory < 2000
        house.assert_idle()
        house.fill(300)
        assert house.replication.backlog.memory < 2000
        back = await join(house, replica.position)
        await back.until(lambda: "END 600" in back.steps)
        assert house.replication.full_syncs == 2


async def test_the_window_may_be_nothing_at_all_and_change_meanwhile(autojump_clock: MockClock) -> None:
    async with open_house(reconnect_window_ms=0) as house:
        replica = await join(house)
        await replica.reach(0)
        await replica.leave()
        await settled()
        assert len(house.replication.slots) == 0
        replica = await join(house)
        await replica.reach(0)
        house.replication.settings.reconnect_window_ms = 5000
        await replica.leave()
        await trio.sleep(4)
        assert len(house.replication.slots) == 1
        await trio.sleep(2)
        assert len(house.replication.slots) == 0


async def test_a_second_connection_with_the_same_id_takes_over(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.fill(3)
        first = await join(house)
        await first.reach(3)
        second = await join(house, 3)
        await first.until_end()
        house.call("SET", "more", "v")
        await second.reach(4)
        await until(lambda: house.slot.acked == 4)
        assert (house.slot.takeovers, len(house.replication.links), house.slot.connected) == (1, 1, True)
        assert house.reasons("replica_disconnected") == ["cancelled"]


async def test_two_nodes_with_one_id_are_found_out(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        replicas = [await join(house) for _ in range(3)]
        await replicas[2].reach(0)
        late = await join(house)
        refused = bytes(await late.stream.receive_some(1000))
        assert refused.startswith(b"-ERR id 'r' was taken over 3 times")
        # The one that is there stays.
        house.call("SET", "k", "v")
        await replicas[2].reach(1)


async def test_who_connects_faster_than_it_can_be_served_gets_its_last_connection_served(
    autojump_clock: MockClock,
) -> None:
    async with open_house() as house:
        streams = [house.arrive() for _ in range(3)]
        replicas = [FakeReplica(stream, house.request(form="SIX")) for stream in streams]
        async with trio.open_nursery() as nursery:
            for replica in replicas:
                nursery.start_soon(replica.hello)
        await settled()
        assert len(house.replication.links) == 1
        served = 0
        for replica in replicas:
            with trio.move_on_after(0.5):
                await replica.until_end()
            served += not replica.ended
        assert served == 1


async def test_a_node_without_data_says_so_and_takes_its_visitors_for_no_takeovers(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.replication.follow("10.9.9.9", 16004)
        for _ in range(6):
            replica = await join(house)
            assert bytes(await replica.stream.receive_some(100)).startswith(b"-LOADING")
            assert await replica.stream.receive_some(100) == b""
        assert (house.slot.takeovers, house.slot.connected) == (0, False)
        await trio.sleep(MINUTE + 1)
        assert len(house.replication.slots) == 0


async def test_a_failure_inside_costs_a_connection_and_not_the_node(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house() as house:
        for method in ("open_link", "take", "heard"):
            with monkeypatch.context() as patch:
                patch.setattr(house.replication, method, None)
                replica = await join(house)
                if method == "heard":
                    await replica.acknowledge(0)
                await replica.until_end()
            house.assert_idle()
        assert house.log.events("error") == ["sender_failed"] * 3
        assert house.slot.takeovers == 0
        assert await joins(house)


# -- replicas that misbehave ------------------------------------------------------------------------------------------


async def test_a_replica_that_stops_reading_is_closed_and_costs_no_more_than_the_backlog(
    autojump_clock: MockClock,
) -> None:
    async with open_house(backlog_budget=1_000_000) as house:
        other = await join(house, name="other")
        await other.reach(0)
        stuck = await join(house, lockstep=True)
        await stuck.until(lambda: len(stuck.steps) > 2)
        for _ in range(30):
            house.fill(100)
            await other.reach(house.replication.position)
            await trio.sleep(0.5)
        assert "took no byte for 10 s" in house.reasons("replica_disconnected")
        assert house.replication.backlog.memory < 1_200_000
        house.fill(10)
        await other.reach(house.replication.position)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_reading, other, nursery.cancel_scope, 2 * MINUTE)
        assert [slot.replica_id for slot in house.replication.slots] == ["other"]
        assert not house.replication.backlog.pins


async def keep_reading(replica: FakeReplica, scope: trio.CancelScope, seconds: float) -> None:
    scope.deadline = trio.current_time() + seconds
    while await replica.read():
        pass


async def test_a_replica_that_reads_slowly_but_reads_is_served(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        replica = await join(house, lockstep=True)
        await replica.reach(0)
        house.call("SET", "large", b"v" * 2_000_000)
        while replica.position == 0:
            await trio.sleep(4)
            assert await replica.read()
        assert house.reasons("replica_disconnected") == []


@pytest.mark.parametrize(("form", "stays"), [("FIVE", True), ("SIX", False), ("EXTENDED", False)])
async def test_a_silent_replica_is_closed_where_it_could_speak(
    autojump_clock: MockClock, form: str, stays: bool
) -> None:
    async with open_house() as house:
        replica = await join(house, form=form)
        replica.polite = False
        await replica.until(lambda: house.replication.links)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_reading, replica, nursery.cancel_scope, 30)
        assert replica.ended is not stays
        assert house.reasons("replica_disconnected") == ([] if stays else ["silent for 10 s"])


async def test_a_liar_counts_for_nothing(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        house.fill(3)
        replica = await join(house, 3, name="liar")
        await replica.until(lambda: len(replica.steps) > 2)
        for claim in (10**18, 4, 2, 0):
            await replica.acknowledge(claim)
        await settled()
        assert (house.slot.acked, house.replication.slots.acked(4)) == (3, 0)


@pytest.mark.parametrize("junk", [b"\r\n", b"PING\r\n", b"\xff\x00\r\n", b"*1\r\n$4\r\nPING\r\n", b"*-5\r\n", b"$\r\n"])
async def test_junk_is_ignored_line_by_line(autojump_clock: MockClock, junk: bytes) -> None:
    async with open_house() as house:
        replica = await join(house)
        await replica.reach(0)
        await replica.stream.send_all(junk * 1000)
        house.call("SET", "k", "v")
        await replica.reach(1)
        await until(lambda: house.slot.acked == 1)


@pytest.mark.parametrize(("start", "more"), [(b"", b"x"), (b"", b"REPLCONF ACK "), (b"*500000\r\n", b"$1\r\nx\r\n")])
async def test_a_line_without_an_end_costs_its_connection(autojump_clock: MockClock, start: bytes, more: bytes) -> None:
    async with open_house() as house:
        replica = await join(house)
        await replica.reach(0)
        await replica.stream.send_all(start)
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012  it breaks off somewhere
            for _ in range(1000):
                await replica.stream.send_all(more * (16384 // len(more)))
                await settled()
        (reason,) = house.reasons("replica_disconnected")
        assert "too long" in reason
        assert await joins(house)


# -- cancellation -----------------------------------------------------------------------------------------------------


class Stopper(trio.abc.Instrument):
    """Does something behind the n-th step that a sender's tasks make."""

    def __init__(self, house: House, steps: int, how: str) -> None:
        self.house = house
        self.left = steps
        self.how = how
        self.done = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self.done and ("Sender" in task.name or "ReplicaEntrance" in task.name):
            self.left -= 1
            if self.left <= 0:
                self.done = True
                self._stop()

    def _stop(self) -> None:
        if self.how == "the node ends":
            self.house.nursery.cancel_scope.cancel()
        else:
            for link in self.house.replication.links.values():
                assert link.hang_up is not None
                link.hang_up()


async def ship_once(house: House) -> bool:
    """A ship while there are writes, as far as it gets; whether it was completed."""
    house.fill(400)
    replica = await join(house)
    house.fill(20, key="meanwhile")
    try:
        await replica.until(lambda: replica.position == 420)
    except (AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
        return False
    return True


async def test_a_ship_may_be_cancelled_at_every_step(autojump_clock: MockClock) -> None:
    for steps in range(1, 300):
        async with open_house() as house:
            stopper = Stopper(house, steps, "the link ends")
            trio.lowlevel.add_instrument(stopper)
            completed = await ship_once(house)
            trio.lowlevel.remove_instrument(stopper)
            if not completed:
                await settled()
                house.assert_idle()
                assert house.log.events("error") == []
            again = await join(house)
            await again.reach(house.replication.position)
            await settled()
            # The old link is gone, and the new one has all and holds nothing.
            assert not house.replication.backlog.pins
            assert house.replication._gate.running == 0
            assert len(house.replication.links) == 1
            if not stopper.done:
                break
    assert steps > 10


async def test_the_node_may_end_at_every_step_of_a_ship(autojump_clock: MockClock) -> None:
    for steps in range(1, 300):
        async with trio.open_nursery() as outer:
            house = await outer.start(run_house)
            stopper = Stopper(house, steps, "the node ends")
            trio.lowlevel.add_instrument(stopper)
            completed = await ship_once(house)
            trio.lowlevel.remove_instrument(stopper)
            house.nursery.cancel_scope.cancel()
        house.assert_idle()
        assert len(house.replication.slots) == 0
        assert not house.replication.active
        assert house.log.events("error") == []
        if completed and not stopper.done:
            break
    assert steps > 10


async def run_house(*, task_status: trio.TaskStatus[House]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(House(nursery))


async def test_connections_that_wait_when_the_node_ends_are_closed(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as outer:
        house = await outer.start(run_house)
        replicas = [FakeReplica(house.arrive(), house.request(form="SIX")) for _ in range(4)]
        for replica in replicas:
            await replica.hello()
        house.nursery.cancel_scope.cancel()
    for replica in replicas:
        await replica.until_end()


# -- leaving ----------------------------------------------------------------------------------------------------------


async def test_a_drain_sends_everything_first_and_lets_the_replica_close(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        replica = await join(house, lockstep=True)
        await replica.reach(0)
        absent = await join(house, name="absent")
        await absent.reach(0)
        await absent.leave()
        await settled()
        house.beating.cancel()
        house.fill(500)
        drained = trio.Event()

        async def drain() -> None:
            await house.entrance.drain()
            drained.set()

        house.nursery.start_soon(drain)
        await replica.until(lambda: replica.position == 500)
        assert not drained.is_set()
        await replica.until_end()
        assert not drained.is_set()
        await replica.acknowledge()
        await replica.leave()
        with trio.fail_after(1):
            await drained.wait()
        assert "shutting down" in house.reasons("replica_disconnected")
        assert len(house.replication.slots) == 0


async def test_nobody_comes_in_during_a_drain(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        early = house.arrive()
        staying = await join(house, name="staying", lockstep=True)
        await staying.reach(0)
        house.fill(300)
        house.nursery.start_soon(house.entrance.drain)
        await settled()
        # One that was there before its handshake, one that comes again, and one that is new.
        await early.send_all(format_request(house.request(name="early")))
        assert await early.receive_some(100) == b""
        again = FakeReplica(house.arrive(), house.request(name="staying"))
        assert await again.stream.receive_some(100) == b""
        await staying.until(lambda: staying.position == 300)
        assert house.replication.links
        assert all(link.state is not State.SNAPSHOT for link in house.replication.links.values())


async def test_a_drain_without_replicas_is_over_at_once(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        with trio.fail_after(1):
            await house.entrance.drain()
