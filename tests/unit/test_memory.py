"""What memory is counted: for one key, for all of them, and against how a process really grows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import memory_probe
from support.store_harness import Harness

from kevynode.store import memory, values
from kevynode.store.memory import MemoryMeter, key_memory

TESTS = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", memory_probe.KINDS)
def test_as_much_as_the_process_grows(kind: str) -> None:
    """Within ten percent; ``python -m support.memory_probe KIND`` in the folder of tests shows the two numbers."""
    # The other process must find the same kevynode as this one.
    done = subprocess.run(
        [sys.executable, "-m", "support.memory_probe", kind],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=True,
    )
    process, counted = map(int, done.stdout.split())
    assert process > 25_000_000
    assert 0.9 < counted / process < 1.1, f"the process grew by {process}, the count by {counted}"


def test_usage() -> None:
    harness = Harness()
    assert harness.call("MEMORY", "USAGE", "missing") is None
    harness.call("SET", "k", "v" * 1000)
    plain = harness.call("MEMORY", "USAGE", "k")
    assert 1000 < plain < 1300
    assert harness.call("MEMORY", "USAGE", "k", "SAMPLES", 0) == plain
    assert harness.call("MEMORY", "USAGE", "k", "samples", 5, "SAMPLES", 1) == plain
    harness.call("EXPIRE", "k", 100)
    assert harness.call("MEMORY", "USAGE", "k") > plain
    harness.now += 100_001
    assert harness.call("MEMORY", "USAGE", "k") is None


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("SAMPLES",), "ERR syntax error"),
        (("SAMPLES", -1), "ERR syntax error"),
        (("SAMPLES", "abc"), "ERR value is not an integer or out of range"),
        (("FOO", 1), "ERR syntax error"),
        (("SAMPLES", 1, "FOO"), "ERR syntax error"),
    ],
)
def test_usage_errors(words: tuple[str | int, ...], error: str) -> None:
    harness = Harness()
    assert harness.text("MEMORY", "USAGE", "missing", *words) == error


@pytest.mark.parametrize(
    ("fill", "empty"),
    [
        (("HSET", "k", *range(20_000)), ("HDEL", "k", *range(0, 20_000, 2))),
        (("SADD", "k", *range(10_000)), ("SREM", "k", *range(10_000))),
        (("RPUSH", "k", *range(10_000)), ("LPOP", "k", 10_000)),
        (("ZADD", "k", *range(20_000)), ("ZREM", "k", *range(1, 20_000, 2))),
        (("SET", "k", "v" * 100_000), ("DEL", "k")),
    ],
)
def test_counts_come_back_to_zero(fill: tuple[str | int, ...], empty: tuple[str | int, ...]) -> None:
    harness = Harness()
    harness.call(*fill)
    harness.check_memory()
    assert harness.store.used > 100_000
    harness.call(*empty)
    harness.check_memory()
    assert harness.store.used == 0


def test_usage_adds_up_to_the_whole() -> None:
    harness = Harness()
    for number in range(3000):
        harness.call("SET", f"string:{number}", number)
        harness.call("SADD", f"set:{number}", 1, 2, 3)
    total = sum(key_memory(harness.store, key, value) for key, value in harness.store.keyspace.items())
    assert total == pytest.approx(harness.store.memory(), rel=0.1)


def test_the_meter_follows_the_store() -> None:
    harness = Harness()
    meter = MemoryMeter(harness.store)
    for number in range(20_000):
        harness.call("SET", number, "v")
        if number % 997 == 0:
            assert meter.used() == pytest.approx(harness.store.memory(), rel=0.15, abs=40_000)
    harness.call("FLUSHALL")
    assert meter.used() == harness.store.memory()


def test_the_meter_walks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    meter = MemoryMeter(harness.store)
    walks = 0
    measure = memory.MemoryMeter.measure

    def counted(self: MemoryMeter) -> None:
        nonlocal walks
        walks += 1
        measure(self)

    monkeypatch.setattr(memory.MemoryMeter, "measure", counted)
    for number in range(10_000):
        harness.call("SET", number, "v")
        meter.used()
    assert walks < 120


def test_what_a_flush_removes_is_held_by_nobody_but_those_who_free_it() -> None:
    harness = Harness()
    meter = MemoryMeter(harness.store)
    harness.call("MSET", *(word for number in range(3000) for word in (f"key:{number}", "v")))
    meter.used()
    harness.call("FLUSHALL")
    discarded = harness.store.discarded
    assert len(discarded) > 1
    # The list's own reference, and the one that the question takes.
    assert {sys.getrefcount(discarded[place]) for place in range(len(discarded))} == {2}


def test_sizes_of_bytes() -> None:
    for size in (0, 1, 14, 15, 16, 31, 100, 4096):
        real = sys.getsizeof(b"x" * size)
        assert real <= values.bytes_memory(b"x" * size) < real + 16
