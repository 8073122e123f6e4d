"""Answers leave when what they promise is kept, and nobody is left waiting."""

from __future__ import annotations

import errno

import pytest
from support.append_only import read_folder
from support.memory_disk import MemoryDisk
from support.persistence_harness import FilesHarness
from support.store_harness import content

from kevynode.persist.gate import MOST_EXPOSED
from kevynode.persist.jobs import FreshJob, Job, SyncJob
from kevynode.persist.writer import Policy
from kevynode.replicate.lineage import Lineage

ALL_POLICIES = pytest.mark.parametrize("policy", ["always", "everysec", "no"])


def syncs(disk: MemoryDisk) -> int:
    return sum(call.method == "sync" for call in disk.calls)


# -- what is promised --------------------------------------------------------------------------------------------------


@ALL_POLICIES
def test_what_was_acknowledged_is_in_the_file(policy: Policy) -> None:
    files = FilesHarness(policy)
    client = files.connect()
    for number in range(5):
        assert client.call("SET", f"key{number}", "v") == "sent"
        assert files.after_kill() == content(files.node.store)


def test_always_has_one_sync_for_everybody_in_a_round() -> None:
    files = FilesHarness("always")
    clients = [files.connect() for _ in range(50)]
    before = syncs(files.disk)
    for number, client in enumerate(clients):
        client.run("SET", f"key{number}", "v")
    assert files.settle(*clients) == "sent"
    assert syncs(files.disk) == before + 1
    for seed in range(20):
        assert files.after_power_loss(seed) == content(files.node.store)


def test_always_covers_what_is_read_as_well() -> None:
    files = FilesHarness("always")
    reader = files.connect()
    # A program that lives in the node has written, and nobody has asked the gate since.
    files.connect().run("SET", "key", "v")
    assert reader.call("GET", "key") == "sent"
    for seed in range(20):
        assert files.after_power_loss(seed) == content(files.node.store)


def test_rounds_in_which_nothing_was_written_cost_nothing() -> None:
    files = FilesHarness("always")
    client = files.connect()
    client.call("SET", "key", "v")
    calls = len(files.disk.calls)
    assert client.call("GET", "key") == "sent"
    assert client.call("DEL", "none") == "sent"
    assert len(files.disk.calls) == calls


@pytest.mark.parametrize("policy", ["everysec", "no"])
def test_without_always_nobody_waits_for_a_sync(policy: Policy) -> None:
    files = FilesHarness(policy)
    before = syncs(files.disk)
    client = files.connect()
    for number in range(10):
        assert client.call("SET", f"key{number}", "v") == "sent"
    assert syncs(files.disk) == before


@pytest.mark.parametrize("policy", ["everysec", "no"])
def test_what_is_read_promises_nothing_beyond_the_file(policy: Policy) -> None:
    files = FilesHarness(policy)
    client, reader = files.connect(), files.connect()
    client.call("SET", "key", "v")
    files.persistence.rewrite()
    work, steps = files.begin()
    assert client.call("SET", "key", "w") == "held"
    assert reader.call("GET", "key") == "sent"
    files.go_on(work, steps)
    assert client.answers == b"+OK\r\n+OK\r\n"


def test_always_holds_readers_while_files_change() -> None:
    files = FilesHarness("always")
    client, reader = files.connect(), files.connect()
    client.call("SET", "key", "v")
    files.persistence.rewrite()
    work, steps = files.begin()
    assert client.call("SET", "key", "w") == "held"
    assert reader.call("GET", "key") == "held"
    files.go_on(work, steps)
    assert (client.answers, reader.answers) == (b"+OK\r\n+OK\r\n", b"$1\r\nw\r\n")
    for seed in range(20):
        assert files.after_power_loss(seed) == content(files.node.store)


@ALL_POLICIES
def test_a_change_of_files_holds_answers_no_longer_than_it_lasts(policy: Policy) -> None:
    files = FilesHarness(policy)
    client = files.connect()
    files.persistence.rewrite()
    work, steps = files.begin()
    change = files.step(steps)
    assert isinstance(change, Job)
    assert client.call("SET", "key", "v") == "held"
    change.run()
    # The next step begins with the end of the change; the base is still to be written.
    files.step(steps)
    files.release()
    assert client.answers == b"+OK\r\n"
    assert files.persistence.work is work
    if policy == "always":
        assert files.after_power_loss(1) == content(files.node.store)
    files.go_on(work, steps)


def test_somebody_else_who_is_served_does_not_leave_those_who_wait_behind() -> None:
    files = FilesHarness("always")
    client, other = files.connect(), files.connect()
    # A sync that somebody asked for is under way: what is written now is not covered by it.
    files.persistence.note_lineage(Lineage(88))
    job = files.persistence.begin_sync()
    assert job is not None
    assert client.call("SET", "key", "v") == "held"
    job.run()
    files.writer.end_sync(job)
    assert other.call("GET", "key") == "sent"
    files.release()
    assert client.answers == b"+OK\r\n"


def test_always_does_not_wait_for_the_clock_when_a_sync_has_ended() -> None:
    files = FilesHarness("always")
    client = files.connect()
    files.persistence.note_lineage(Lineage(88))
    job = files.persistence.begin_sync()
    assert job is not None
    assert client.call("SET", "key", "v") == "held"
    job.run()
    files.persistence.end_sync(job)
    files.release()
    assert client.answers == b"+OK\r\n"


# -- everysec: a slow disk ---------------------------------------------------------------------------------------------


def slow_sync(files: FilesHarness) -> SyncJob:
    """Begin the sync of a second, and let two and a half pass."""
    files.advance(1.0)
    job = files.persistence.begin_sync(each_second=True)
    assert job is not None
    files.advance(2.5)
    return job


def test_everysec_holds_writers_when_a_sync_takes_long_and_lets_readers_go_on() -> None:
    files = FilesHarness("everysec")
    client, other, reader = files.connect(), files.connect(), files.connect()
    assert client.call("SET", "key", "1") == "sent"
    job = slow_sync(files)
    assert client.call("SET", "key", "2") == "held"
    assert other.call("SET", "key", "3") == "held"
    assert reader.call("GET", "key") == "sent"
    assert files.persistence.append_only().delayed_syncs == 1
    assert files.persistence.append_only().sync_running
    job.run()
    files.persistence.end_sync(job)
    files.release()
    # They came behind what was synced.
    assert other.answers == b""
    files.sync(each_second=True)
    assert (client.answers, other.answers) == (b"+OK\r\n+OK\r\n", b"+OK\r\n")
    assert client.call("SET", "key", "4") == "sent"
    assert files.persistence.append_only().delayed_syncs == 1


def test_everysec_lets_those_go_who_are_durable_though_others_keep_writing() -> None:
    files = FilesHarness("everysec")
    client, other = files.connect(), files.connect()
    client.call("SET", "key", "1")
    for number in range(3):
        job = slow_sync(files)
        assert client.call("SET", "key", f"{number}") == "held"
        job.run()
        files.persistence.end_sync(job)
        following = files.persistence.begin_sync(each_second=True)
        assert following is not None
        files.advance(2.5)
        # What a timer does, say: it has no client.
        other.run("SET", "other", f"{number}")
        other.held = b""
        files.persistence.before_answers()
        following.run()
        files.persistence.end_sync(following)
        files.release()
        assert client.held == b""


@pytest.mark.parametrize("policy", ["no", "always"])
def test_another_policy_does_not_hold_what_came_late_for_everysec(policy: Policy) -> None:
    files = FilesHarness("everysec")
    client = files.connect()
    client.call("SET", "key", "1")
    job = slow_sync(files)
    assert client.call("SET", "key", "2") == "held"
    files.persistence.set_policy(policy)
    files.release()
    if policy == "no":
        assert client.answers == b"+OK\r\n+OK\r\n"
    job.run()
    files.persistence.end_sync(job)
    files.release()
    assert client.answers == b"+OK\r\n+OK\r\n"
    assert client.call("SET", "key", "3") == "sent"


@pytest.mark.parametrize("before", ["no", "everysec"])
def test_from_the_change_to_always_on_everything_that_is_answered_is_durable(before: Policy) -> None:
    files = FilesHarness(before)
    client = files.connect()
    client.call("SET", "key", "1")
    files.persistence.set_policy("always")
    assert client.call("GET", "key") == "sent"
    for seed in range(20):
        assert files.after_power_loss(seed) == content(files.node.store)


def test_everysec_loses_no_more_than_was_acknowledged_within_two_seconds() -> None:
    """However long syncs take: from the first answer that a loss of power would belie to the last one."""
    files = FilesHarness("everysec")
    client, reader = files.connect(), files.connect()
    answered: list[tuple[float, int]] = []
    job: SyncJob | None = None
    ends = 0
    for tick in range(400):
        files.advance(0.1)
        if job is None and tick % 10 == 0:
            job = files.persistence.begin_sync(each_second=True)
            ends = tick + tick * 7919 % 45
        elif job is not None and tick >= ends:
            job.run()
            files.persistence.end_sync(job)
            files.release()
            job = None
        if not client.held:
            client.run("INCR", "number")
            files.settle(client)
        assert reader.call("GET", "number") == "sent"
        answered += [(files.node.monotonic, int(number)) for number in client.answers.split(b":")[1:]]
        client.answers = b""
        found = int(files.after_power_loss(tick).get(b"number", (b"0", None))[0])
        lost = [when for when, value in answered if value > found]
        assert not lost or lost[-1] - lost[0] <= MOST_EXPOSED
    assert files.gate.delayed > 2
    assert len(answered) > 100


# -- trouble -----------------------------------------------------------------------------------------------------------


@ALL_POLICIES
def test_what_could_not_be_written_is_never_answered(policy: Policy) -> None:
    files = FilesHarness(policy)
    client, other, reader = files.connect(), files.connect(), files.connect()
    assert other.call("SET", "other", "1") == "sent"
    files.disk.fail_next("write", errno.ENOSPC)
    client.run("SET", "key", "1")
    reader.run("GET", "other")
    files.settle(client, reader)
    assert client.dropped
    assert reader.answers == b"$1\r\n1\r\n"
    assert other.call("GET", "other") == "sent"
    assert other.call("SET", "other", "2") == "sent"
    assert other.answers.endswith(b"-MISCONF Errors writing to the AOF file: No space left on device\r\n")
    assert files.persistence.problem.endswith("No space left on device")


def test_always_answers_nothing_whose_sync_has_failed() -> None:
    files = FilesHarness("always")
    client = files.connect()
    files.disk.fail_next("sync")
    assert client.call("SET", "key", "1") == "dropped"
    assert files.persistence.problem


def test_a_failure_right_behind_a_change_of_files_is_noticed_before_anything_is_answered() -> None:
    """The program that lives in the node has written while files changed, and that cannot be written."""
    files = FilesHarness("everysec")
    client, program = files.connect(), files.connect()
    files.persistence.rewrite()
    work, steps = files.begin()
    change = files.step(steps)
    assert change is not None
    program.run("SET", "program", "1")
    change.run()
    files.disk.fail_next("write", errno.ENOSPC)
    next(steps)
    # A driver has a round at any time.
    assert client.call("SET", "key", "1") != "sent"
    assert files.persistence.problem
    files.go_on(work, steps)


def test_an_expired_key_that_is_read_in_trouble_does_not_cost_the_reader_its_connection() -> None:
    files = FilesHarness("everysec")
    client, reader = files.connect(), files.connect()
    client.call("SET", "key", "1", "PX", "100")
    files.disk.fail_next("write", errno.ENOSPC)
    assert client.call("SET", "other", "1") == "dropped"
    files.advance(1.0)
    files.node.server.tick()
    assert reader.call("GET", "key") == "sent"
    assert reader.answers == b"$-1\r\n"
    files.work()
    assert files.persistence.problem == ""
    assert reader.call("SET", "other", "2") == "sent"
    assert files.after_kill() == content(files.node.store)


# -- entries for replicas ----------------------------------------------------------------------------------------------


def test_replicas_hear_of_a_lineage_when_it_is_durable() -> None:
    files = FilesHarness("no")
    assert files.persistence.may_ship()
    files.persistence.note_lineage(Lineage(88))
    assert not files.persistence.may_ship()
    job = files.persistence.begin_sync()
    assert job is not None
    assert not files.persistence.may_ship()
    job.run()
    assert files.told_open == 0
    files.persistence.end_sync(job)
    assert files.told_open
    assert files.persistence.may_ship()


def test_replicas_are_told_when_they_may_go_on_though_clients_did_not_have_to_wait() -> None:
    files = FilesHarness("everysec")
    client = files.connect()
    files.persistence.note_lineage(Lineage(88))
    assert not files.persistence.may_ship()
    assert client.call("SET", "key", "1") == "sent"
    job = files.persistence.begin_sync()
    assert job is not None
    job.run()
    files.told_open = 0
    files.persistence.end_sync(job)
    assert files.told_open
    assert files.persistence.may_ship()


def test_a_lineage_that_a_change_of_files_has_made_durable_is_told() -> None:
    files = FilesHarness("everysec")
    files.persistence.note_lineage(Lineage(88))
    files.persistence.rewrite()
    work, steps = files.begin()
    assert files.persistence.begin_sync() is None
    files.go_on(work, steps)
    for _ in range(2):
        files.second()
    assert files.persistence.may_ship()


def test_a_lineage_noted_while_a_base_comes_into_use_is_told_when_it_is_durable_itself() -> None:
    files = FilesHarness("everysec")
    client = files.connect()
    client.call("SET", "key", "1")
    files.disk.fail_next("write", errno.ENOSPC)
    client.call("SET", "key", "2")
    work, steps = files.begin()
    job = files.step(steps)
    while not isinstance(job, FreshJob):
        job = files.step(steps)
    job.run()
    files.persistence.note_lineage(Lineage(88))
    files.go_on(work, steps)
    lost = [files.disk.crash(seed) for seed in range(20)]
    if files.persistence.may_ship():
        assert {read_folder(disk)[1].lineage for disk in lost} == {Lineage(88)}
    files.second()
    assert files.persistence.may_ship()


def test_a_sync_that_failed_has_not_made_a_lineage_durable() -> None:
    files = FilesHarness("everysec")
    files.persistence.note_lineage(Lineage(88))
    files.disk.fail_next("sync")
    files.sync()
    assert not files.persistence.may_ship()
    files.work()
    files.second()
    assert files.persistence.may_ship()


def test_always_ships_nothing_that_is_not_durable() -> None:
    files = FilesHarness("always")
    client = files.connect()
    client.run("SET", "key", "1")
    assert files.persistence.may_ship()
    for seed in range(20):
        assert files.after_power_loss(seed) == content(files.node.store)
    client.held = b""
    files.disk.fail_next("sync")
    client.run("SET", "key", "2")
    assert not files.persistence.may_ship()


def test_what_nobody_waits_for_is_synced_when_somebody_asks() -> None:
    files = FilesHarness("always")
    writer = files.persistence.writer
    assert writer is not None
    program = files.connect()
    program.run("SET", "key", "1")
    files.persistence.hand_over()
    assert (writer.written_mark, writer.durable_mark) == (1, 0)
    assert files.persistence.may_ship()
    assert writer.durable_mark == 1
    files.connect().run("SET", "key", "2")
    files.persistence.hand_over()
    assert (writer.written_mark, writer.durable_mark) == (2, 1)
    # Its reader is not told before it is durable.
    assert files.connect().call("GET", "key") == "sent"
    assert writer.durable_mark == 2


def test_whoever_waits_for_a_first_base_hears_that_there_is_none() -> None:
    files = FilesHarness(begins=False)
    files.persistence.switch_on()
    mark = files.persistence.want_sync()
    assert files.persistence.kept(mark) is False
    files.disk.fill_up()
    work = files.persistence.begin_work()
    assert work is not None
    for job in work.steps():
        if job is not None:
            job.run()
    work.close()
    files.persistence.end_work(work)
    assert files.persistence.kept(mark) is None
    assert "No space left" in files.persistence.problem
