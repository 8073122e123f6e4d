"""Policies and the append-only file are changed while the node runs, and dumps are written. No task runs here."""

from __future__ import annotations

import random

import pytest
from support.append_only import DATA
from support.persistence_harness import FilesHarness, as_replica, in_trouble, promote, replaced
from support.store_harness import content

from kevynode.errors import ReplyError
from kevynode.persist.dump import load_dump
from kevynode.persist.works import FIRST_RETRY
from kevynode.replicate.lineage import Lineage
from kevynode.store.store import Store

# -- policies, on and off ----------------------------------------------------------------------------------------------


def test_it_can_be_switched_on_while_the_node_runs() -> None:
    files = FilesHarness(begins=False)
    client = files.connect()
    client.call("SET", "key", "1")
    assert files.persistence.append_only().enabled is False
    files.persistence.switch_on()
    files.persistence.switch_on()
    assert files.persistence.append_only().enabled
    # Nothing is promised, and nobody waits, until all that there is has been written.
    assert client.call("SET", "key", "2") == "sent"
    mark = files.persistence.want_sync()
    assert not files.persistence.kept(mark)
    assert not files.persistence.is_durable(client.session.wrote)
    files.work()
    assert files.persistence.is_durable(0)
    files.sync()
    assert files.persistence.kept(mark)
    assert files.after_power_loss(1) == content(files.node.store)
    assert client.call("SET", "key", "3") == "sent"
    assert files.after_kill() == content(files.node.store)


def test_a_switch_on_that_comes_to_nothing_is_tried_again_and_refuses_no_write() -> None:
    files = FilesHarness(begins=False)
    files.disk.fill_up(after=0)
    client = files.connect()
    client.call("SET", "key", "1")
    files.persistence.switch_on()
    files.work()
    assert client.call("SET", "key", "2") == "sent"
    files.disk.make_room()
    assert files.persistence.begin_work() is None
    files.advance(FIRST_RETRY)
    files.work()
    assert files.after_power_loss(1) == content(files.node.store)


def test_a_switch_on_that_is_refused_leaves_nothing_locked() -> None:
    files = FilesHarness(begins=False)
    files.disk.read_only()
    with pytest.raises(ReplyError, match="cannot be switched on"):
        files.persistence.switch_on()
    files.disk.read_only(False)
    assert not files.persistence.append_only().enabled
    files.persistence.switch_on()
    files.work()


@pytest.mark.parametrize("state", ["well", "rewriting", "fresh", "failed", "held"])
def test_it_can_be_switched_off_at_any_time(state: str) -> None:
    files = FilesHarness("always" if state == "held" else "everysec")
    client = files.connect()
    client.call("SET", "key", "1")
    work = job = None
    if state == "failed":
        in_trouble(files)
    if state in {"rewriting", "fresh"}:
        if state == "fresh":
            as_replica(files)
            replaced(files, "new", 5, Lineage(99))
            promote(files)
        else:
            files.persistence.rewrite()
        work, steps = files.begin()
        files.step(steps)
        assert client.call("SET", "key", "2") == "held"
    if state == "held":
        files.persistence.note_lineage(Lineage(99))
        job = files.persistence.begin_sync()
        assert client.call("SET", "key", "2") == "held"
    files.persistence.switch_off()
    files.persistence.switch_off()
    files.release()
    assert client.held == b""
    assert not files.persistence.append_only().enabled
    assert client.call("SET", "key", "3") == "sent"
    assert files.persistence.kept(0) is None
    # It begins when the folder is free.
    files.persistence.switch_on()
    assert files.persistence.append_only().enabled
    files.persistence.switch_off()
    assert not files.persistence.append_only().enabled
    files.persistence.switch_on()
    if job is not None:
        job.run()
        files.persistence.end_sync(job)
    if work is not None:
        files.end(work)
    retired = files.persistence.retired
    assert retired is not None
    retired.close()
    retired.folder.close()
    files.persistence.retired_closed()
    files.work()
    assert client.call("SET", "key", "4") == "sent"
    assert files.after_kill() == content(files.node.store)
    assert not files.persistence.append_only().rewrite_scheduled


def test_a_policy_can_be_changed_with_a_sync_under_way() -> None:
    files = FilesHarness("everysec")
    client = files.connect()
    client.call("SET", "key", "1")
    job = files.persistence.begin_sync(each_second=True)
    assert job is not None
    files.persistence.set_policy("always")
    assert client.call("SET", "key", "2") == "held"
    job.run()
    files.persistence.end_sync(job)
    files.release()
    assert client.answers == b"+OK\r\n+OK\r\n"
    for seed in range(10):
        assert files.after_power_loss(seed) == content(files.node.store)
    files.persistence.set_policy("no")
    client.call("SET", "key", "3")
    assert files.persistence.begin_sync(each_second=True) is None
    files.persistence.want_sync()
    assert files.sync() is not None


# -- dumps -------------------------------------------------------------------------------------------------------------


def dumped(files: FilesHarness) -> Store:
    """What is in the dump."""
    store = Store(random.Random(1))
    steps = load_dump(files.disk.kill(), DATA, store, files.node.wall)
    for _ in steps:
        pass
    return store


def test_a_dump_holds_the_data_as_of_its_beginning() -> None:
    files = FilesHarness()
    client = files.connect()
    client.call("SET", "key", "1")
    files.persistence.save()
    work, steps = files.begin()
    before = content(files.node.store)
    assert client.call("SET", "key", "2") == "sent"
    files.go_on(work, steps)
    assert content(dumped(files)) == before
    assert files.persistence.dumps().changes == 1
    assert files.persistence.dumps().last_save == files.node.wall // 1000


def test_a_dump_that_fails_says_so_and_leaves_the_last_one() -> None:
    files = FilesHarness()
    client = files.connect()
    client.call("SET", "key", "1")
    assert files.persistence.save_now() == ""
    client.call("SET", "key", "2")
    files.disk.fail_next("sync")
    assert files.persistence.save_now()
    assert not files.persistence.dumps().last_ok
    assert content(dumped(files)) == {b"key": (b"1", None)}
    assert files.persistence.dumps().saves == 1
    assert client.call("SET", "key", "3") == "sent"
