"""What our own mistakes cost: an observer or a background job that fails, and passwords in what is remembered."""

from __future__ import annotations

from itertools import count

import pytest
from support.session_harness import ServerHarness

from kevynode.serve.housekeeping import Housekeeper
from kevynode.serve.slowlog import redact
from kevynode.store.journal import Effect


def test_every_observer_hears_of_every_group_though_one_fails() -> None:
    node = ServerHarness()
    heard: list[int] = []

    def broken(_: int, group: list[Effect]) -> None:
        raise ZeroDivisionError

    def leaving(first: int, group: list[Effect]) -> None:
        node.store.journal.observers.remove(leaving)
        heard.append(-1)

    node.store.journal.observers += [broken, leaving, lambda first, _: heard.append(first)]
    client = node.connect()
    with pytest.raises(ZeroDivisionError):
        client.call("SET", "a", "1")
    assert heard == [-1, 0]
    with pytest.raises(ZeroDivisionError):
        client.call("SET", "b", "1")
    assert heard == [-1, 0, 1]
    assert node.server.current is None
    assert not node.store.journal.pending


def test_a_background_job_that_fails_stops_nothing_else() -> None:
    node = ServerHarness()
    keeper = Housekeeper(node.server)
    done: list[str] = []

    def broken(_: object) -> bool:
        raise ZeroDivisionError

    def last(_: object) -> bool:
        done.append("last")
        return False

    keeper.jobs[:] = [broken, *keeper.jobs, last]
    assert keeper.work() > 0
    assert done == ["last"]
    assert node.log.events("error") == ["internal_error"]


@pytest.mark.parametrize(
    "words",
    [
        "AUTH secret",
        "auth default secret",
        "HELLO 3 AUTH default secret",
        "HELLO 3 SETNAME auth AUTH default secret",
        "HELLO 3 AUTH user word AUTH default secret",
        "HELLO 3 AUTH default secret SETNAME auth",
        "CONFIG SET requirepass secret",
        "CONFIG SET maxmemory 1 requirepass secret",
    ],
)
def test_no_password_is_remembered(words: str) -> None:
    assert b"secret" not in redact(words.encode().split())


def test_flushed_data_is_freed_in_slices() -> None:
    node = ServerHarness()
    keeper = Housekeeper(node.server)
    keeper.jobs = [keeper.jobs[1]]
    client = node.connect()
    client.call("MSET", *[f"{part}{number}" for number in range(20_000) for part in ("k", "v")])
    assert client.call("FLUSHALL") == b"+OK\r\n"
    assert client.call("DBSIZE") == b":0\r\n"
    left = [len(node.store.discarded)]
    assert left[0] > 10
    # Each look at the clock takes as long as a quarter of a slice.
    ticks = count()
    node.server.perf = lambda: 1000 + 0.00025 * next(ticks)
    while node.store.discarded:
        keeper.work()
        left.append(len(node.store.discarded))
    assert len(left) > 4
    assert left == sorted(left, reverse=True)
