"""What a node decides about its files: trouble and recovery, rewrites, data that are replaced. No task runs here."""

from __future__ import annotations

import errno

import pytest
from support.append_only import Node, read_folder
from support.memory_disk import Call, MemoryDisk
from support.persistence_harness import HISTORY, FilesHarness, as_replica, in_trouble, promote, replaced
from support.store_harness import content

from kevynode.errors import ReplyError
from kevynode.persist.dump import Dump
from kevynode.persist.rewriting import Rewrite
from kevynode.persist.works import FIRST_RETRY, LAST_RETRY, MOST_INCREMENTS
from kevynode.persist.writer import Policy
from kevynode.replicate.lineage import Lineage

ALL_POLICIES = pytest.mark.parametrize("policy", ["always", "everysec", "no"])


def info(files: FilesHarness, field: str) -> str:
    """A field of INFO persistence."""
    reply = files.node.connect().call("INFO", "persistence").decode()
    return next(line.partition(":")[2] for line in reply.split("\r\n") if line.startswith(field + ":"))


# -- trouble and recovery ----------------------------------------------------------------------------------------------


def test_trouble_is_told_and_over_when_all_data_are_in_another_file() -> None:
    files = FilesHarness()
    client = files.connect()
    client.call("SET", "key", "1")
    in_trouble(files)
    assert info(files, "aof_last_write_status") == "err"
    files.work()
    assert info(files, "aof_last_write_status") == "ok"
    assert client.call("SET", "key", "2") == "sent"
    assert files.after_kill() == content(files.node.store)
    events = [(level, event) for level, event, _ in files.node.log.records if event.startswith("append_only")]
    assert events == [("error", "append_only_failed"), ("info", "append_only_recovered")]


def test_recovery_is_tried_again_and_again_but_not_all_the_time() -> None:
    files = FilesHarness()
    in_trouble(files)
    files.disk.read_only()
    files.work()
    waits = []
    for _ in range(9):
        assert files.persistence.begin_work() is None
        wait = files.persistence.seconds_until_work()
        waits.append(wait)
        files.advance(wait)
        files.work()
    assert waits == [FIRST_RETRY * 2**n for n in range(6)] + [LAST_RETRY] * 3
    assert files.persistence.append_only().failed_rewrites == 10
    files.disk.read_only(False)
    files.advance(LAST_RETRY)
    files.work()
    assert files.persistence.problem == ""
    assert files.persistence.append_only().failed_rewrites == 0
    assert files.after_power_loss(1) == content(files.node.store)


def test_a_dump_can_be_written_while_the_append_only_file_cannot() -> None:
    files = FilesHarness()
    in_trouble(files)
    files.disk.fail_next("create")
    files.work()
    assert files.persistence.problem
    files.persistence.save()
    assert isinstance(files.work(), Dump)
    assert files.persistence.dumps().saves == 1


def test_durability_is_not_claimed_in_trouble() -> None:
    files = FilesHarness()
    mark = files.persistence.want_sync()
    assert files.persistence.kept(mark)
    in_trouble(files)
    mark = files.persistence.want_sync()
    assert files.persistence.kept(mark) is None
    assert not files.persistence.is_durable(files.node.store.journal.offset)
    files.work()
    assert files.persistence.kept(mark)
    assert files.persistence.is_durable(files.node.store.journal.offset)


def test_what_is_written_by_the_node_itself_in_trouble_is_in_the_next_base() -> None:
    files = FilesHarness()
    client = files.connect()
    client.call("SET", "mortal", "1", "PX", "100")
    in_trouble(files)
    work, steps = files.begin()
    files.advance(1.0)
    files.node.server.tick()
    client.call("GET", "mortal")
    files.go_on(work, steps)
    assert b"mortal" not in files.after_kill()
    assert files.after_kill() == content(files.node.store)


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_any_call_of_the_disk_may_fail(policy: Policy) -> None:
    """Fail each call of a session in turn: nothing that was answered is lost, and all is well in the end."""
    at = 0
    was_failed = True
    while was_failed:
        files = FilesHarness(policy)
        disk = files.disk
        first = len(disk.calls)

        was_failed = False

        def fail(call: Call, disk: MemoryDisk = disk, number: int = first + at) -> None:
            nonlocal was_failed
            if len(disk.calls) == number + 1 and call.method != "close":
                was_failed = True
                raise OSError(errno.EIO, "I/O error", "somewhere")

        disk.before = fail
        said: dict[bytes, bytes] = {}
        for number in range(12):
            client = files.connect()
            key, value = f"key{number % 5}", str(number)
            outcome = client.call("SET", key, value)
            if number == 4:
                files.persistence.rewrite() if not files.persistence.problem else None
                work, steps = files.begin()
                files.go_on(work, steps)
            if number == 8:
                files.persistence.note_lineage(Lineage(99, ((HISTORY, files.node.store.journal.offset),)))
            if number % 3 == 2:
                files.second()
            for waiting in files.clients:
                if waiting.answers.startswith(b"+OK"):
                    said[key.encode()] = value.encode()
                waiting.answers = b""
            assert outcome != "held"
            for found in (files.after_kill(), files.after_power_loss(number) if policy == "always" else None):
                if found is not None:
                    assert all(int(found.get(name, (b"-1", None))[0]) >= int(least) for name, least in said.items()), (
                        at,
                        number,
                    )
        was_failed = was_failed or len(disk.calls) > first + at
        disk.before = None
        for _ in range(3):
            files.second()
            while files.persistence.begin_work() is not None:
                files.work()
        assert files.persistence.problem == ""
        client = files.connect()
        assert client.call("SET", "last", "1") == "sent"
        assert files.after_kill() == content(files.node.store)
        assert files.persistence.may_ship()
        at += 1
    assert at > 30


# -- rewrites ----------------------------------------------------------------------------------------------------------


def test_files_are_rewritten_when_they_have_outgrown_the_data() -> None:
    files = FilesHarness()
    files.persistence.settings.rewrite_min_size = 20_000
    client = files.connect()
    began = []
    for number in range(100):
        client.call("SET", "key", "x" * 1000)
        files.second()
        work = files.persistence.begin_work()
        if work is not None:
            began.append(number)
            files.go_on(work, iter(work.steps()))
            files.persistence.measure()
    assert len(began) == 5
    assert files.persistence.append_only().rewrites == 5
    assert files.after_power_loss(1) == content(files.node.store)


def test_many_increments_are_rewritten_into_one() -> None:
    disk = MemoryDisk()
    for number in range(MOST_INCREMENTS + 2):
        node = Node(disk, history=number + 1)
        assert node.start()
        node.do("SET", f"key{number}", "v")
        node.writer.write()
        node.sync()
        node.writer.close()
        node.folder.close()
    files = FilesHarness(disk=disk)
    files.persistence.tick()
    assert files.node.log.events("info") == ["rewrite_due"]


def test_a_rewrite_that_fails_is_not_begun_again_at_once() -> None:
    files = FilesHarness()
    files.persistence.settings.rewrite_min_size = 1000
    client = files.connect()
    client.call("SET", "key", "x" * 2000)
    files.persistence.tick()
    files.disk.fail_next("create")
    work = files.work()
    assert isinstance(work, Rewrite)
    assert not work.done
    assert info(files, "aof_last_bgrewrite_status") == "err"
    files.persistence.tick()
    assert files.persistence.begin_work() is None
    assert client.call("SET", "key", "1") == "sent"
    files.second()
    files.second()
    assert files.work().done
    assert info(files, "aof_last_bgrewrite_status") == "ok"


def test_only_one_rewrite_at_a_time() -> None:
    files = FilesHarness()
    assert files.persistence.rewrite() == "started"
    with pytest.raises(ReplyError, match="already in progress"):
        files.persistence.rewrite()
    work, steps = files.begin()
    with pytest.raises(ReplyError, match="already in progress"):
        files.persistence.rewrite()
    with pytest.raises(ReplyError, match="can't BGSAVE right now"):
        files.persistence.save()
    assert files.persistence.save(schedule=True) == "scheduled"
    with pytest.raises(ReplyError, match="already in progress"):
        files.persistence.save()
    files.go_on(work, steps)
    work, steps = files.begin()
    assert files.persistence.rewrite() == "scheduled"
    assert files.persistence.append_only().rewrite_scheduled
    files.go_on(work, steps)
    assert not files.persistence.dumps().scheduled
    assert files.work().done
    assert not files.persistence.append_only().rewrite_scheduled
    assert files.persistence.begin_work() is None


def test_a_dump_that_is_cancelled_is_no_failure() -> None:
    files = FilesHarness()
    files.connect().call("SET", "key", "1")
    files.persistence.save()
    work, _ = files.begin()
    assert files.persistence.dumps().running is not None
    assert files.persistence.cancel_save() == "running"
    assert files.persistence.dumps().running is None
    files.persistence.save()
    files.end(work)
    assert files.persistence.dumps().last_ok
    assert files.work().done
    assert files.persistence.dumps().saves == 1
    assert files.persistence.cancel_save() is None


@ALL_POLICIES
def test_crashes_at_every_call_of_a_rewrite(policy: Policy) -> None:
    """Whatever the disk is doing when the process is killed, or the power goes: what was answered is there."""
    files = FilesHarness(policy)
    said: dict[bytes, bytes] = {}
    found = 0

    def look(call: object) -> None:
        nonlocal found
        found += 1
        disk = files.disk
        disk.before = None
        left = [disk.kill()] + ([disk.crash(seed) for seed in range(4)] if policy == "always" else [])
        disk.before = look
        for one in left:
            data = read_folder(one)[0]
            values = {name: value[0] for name, value in content(data).items()}
            assert all(int(values.get(name, b"-1")) >= int(least) for name, least in said.items())

    number = 0

    def write(count: int) -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            client = files.connect()
            key = f"key{number % 7}"
            client.run("SET", key, str(number))
            files.settle(client)
            files.release()
            if client.answers:
                said[key.encode()] = str(number).encode()

    write(20)
    files.disk.before = look
    for _ in range(2):
        files.persistence.rewrite()
        work, steps = files.begin()
        while files.persistence.work is work:
            write(2)
            try:
                job = files.step(steps)
            except StopIteration:
                files.end(work)
                break
            files.release()
            if job is not None:
                write(1)
                job.run()
                write(1)
        assert work.done
    files.release()
    assert not any(client.held for client in files.clients)
    assert found > 40


# -- data that are replaced --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("under_way", ["nothing", "rewrite", "dump"])
def test_what_was_there_stays_until_what_replaced_it_is_complete(under_way: str) -> None:
    files = FilesHarness()
    client = files.connect()
    for number in range(10):
        client.call("SET", f"key{number}", "old")
    old, offset = content(files.node.store), files.node.store.journal.offset
    other = None
    if under_way != "nothing":
        (files.persistence.rewrite if under_way == "rewrite" else files.persistence.save)()
        other, others = files.begin()
        job = files.step(others)
        if job is not None:
            job.run()
    as_replica(files)
    replaced(files, "new", 5000, Lineage(99))
    new = content(files.node.store)
    if other is not None:
        files.end(other)
    for seed in range(5):
        store, loaded = read_folder(files.disk.crash(seed))
        assert (content(store) == old) == (loaded.offset == offset)
    work, steps = files.begin()
    assert isinstance(work, Rewrite)
    assert work.fresh
    assert not files.persistence.kept(files.persistence.want_sync())
    files.go_on(work, steps)
    assert files.persistence.kept(files.persistence.want_sync())
    for seed in range(5):
        store, loaded = read_folder(files.disk.crash(seed))
        assert content(store) == new
        assert (loaded.lineage, loaded.offset) == (Lineage(99), 5000)
    assert files.persistence.dumps().last_ok
    assert files.persistence.append_only().last_rewrite_ok


def test_data_whose_numbers_are_lower_are_no_trouble() -> None:
    files = FilesHarness()
    client = files.connect()
    for number in range(10):
        client.call("SET", f"key{number}", "old")
    as_replica(files)
    replaced(files, "new", 3, Lineage(99))
    assert client.call("GET", "new") == "sent"
    assert files.persistence.may_ship()
    files.persistence.tick()
    files.work()
    assert files.node.log.events("error") == []
    assert read_folder(files.disk.crash(1))[1].offset == 3


@ALL_POLICIES
def test_what_a_promoted_copy_answers_is_in_the_base_that_it_still_writes(policy: Policy) -> None:
    files = FilesHarness(policy)
    as_replica(files)
    replaced(files, "new", 5000, Lineage(99))
    work, steps = files.begin()
    files.step(steps)
    assert files.persistence.may_ship()
    promote(files)
    client = files.connect()
    assert client.call("SET", "key", "1") == "held"
    assert not files.persistence.may_ship()
    files.go_on(work, steps)
    assert client.answers == b"+OK\r\n"
    assert files.after_kill() == content(files.node.store)
    if policy == "always":
        for seed in range(10):
            assert files.after_power_loss(seed) == content(files.node.store)


def test_what_a_promoted_copy_could_not_store_is_dropped() -> None:
    files = FilesHarness()
    as_replica(files)
    replaced(files, "new", 5, Lineage(99))
    work, steps = files.begin()
    files.step(steps)
    promote(files)
    client, reader = files.connect(), files.connect()
    assert client.call("SET", "key", "1") == "held"
    files.disk.fill_up()
    files.go_on(work, steps)
    assert client.dropped
    assert files.persistence.problem
    assert reader.call("GET", "key") == "sent"
