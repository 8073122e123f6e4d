"""What the ledger's file may be relied on for: random appends, with the power failing or the disk refusing at any call.

A model has every append that returned, and those that raised since. After a crash the file must load, and hold all that
returned; of those that raised at most one, whole, and none once another has returned behind it, unless that was of no
records.
"""

from __future__ import annotations

import errno
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.memory_disk import Call, MemoryDisk
from unit.test_ledger_records import records

from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import LEDGER, LedgerFile, Loaded, load
from kevynode.scope.ledger_records import Announced, LedgerState, MoveRecord, MoveRole, MoveState, Record, Settled

DATA = "/data"
PATH = f"{DATA}/{LEDGER}"
#: Crashes at each place.
SEEDS = 6
#: Longer than several blocks, so that a gap can be in an append.
LONG: list[Record] = [LedgerEntry(b"%d:" % number + b"x" * 900, "b", 2, "m1") for number in range(12)]
MOVE = MoveRecord("m1", b"app:", MoveRole.SOURCE, MoveState.REQUESTED, "b", 3)


class PowerCut(BaseException):
    """The power is gone: nothing that runs goes on."""


class Model:
    """A node with a ledger, and all that may be found of it."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        # What returned, and what may be found in its place: each with one append more that raised.
        self.state = LedgerState()
        self.others: list[LedgerState] = []
        self.existed = False
        self.file: LedgerFile | None = None

    def start(self) -> None:
        self.file = None
        loaded = load(self.disk, DATA)
        self.check(loaded)
        # What was loaded holds from now on.
        self.state, self.others, self.existed = loaded.state.copy(), [], loaded.existed
        self.file = LedgerFile(self.disk, DATA, loaded)

    def append(self, appended: list[Record]) -> None:
        assert self.file is not None
        if not appended:
            # Nothing is written: what is open of an append that raised stays so.
            assert self.file.append(appended) == self.state.version
            return
        after = self.state.copy()
        after.add(appended)
        self.others.append(after)
        version = self.file.append(appended)
        assert version == after.version >= self.state.version
        self.state, self.others = after, []
        self.existed = True

    def check(self, loaded: Loaded) -> None:
        """What was found is one of those that may be."""
        assert loaded.state in (self.state, *self.others)
        assert loaded.state.version >= self.state.version
        assert loaded.existed or not self.existed
        assert list(loaded.state.moves) in [list(state.moves) for state in (self.state, *self.others)]

    def crash(self, seed: int) -> Model:
        """This node after a loss of power now, started again."""
        found = Model(self.disk.crash(seed))
        found.state, found.others, found.existed = self.state.copy(), list(self.others), self.existed
        found.start()
        return found


def script() -> list[list[Record]]:
    """Appends of every kind: one record, several, long ones, and those that leave the version as it is."""
    return [
        [Settled()],
        [Announced("b", 3)],
        [MOVE, LedgerEntry(b"app:", "b", 3, "m1")],
        LONG,
        [attrs.evolve(MOVE, state=MoveState.DONE), Announced("c", 9)],
    ]


def run(model: Model, *, restart_before: int | None) -> None:
    model.start()
    for number, appended in enumerate(script()):
        if number == restart_before:
            model.disk = model.disk.kill()
            model.start()
        model.append(appended)


def calls_of_a_run(restart_before: int | None) -> int:
    model = Model(MemoryDisk())
    calls = 0

    def count(call: Call) -> None:
        nonlocal calls
        calls += 1

    counting(model.disk, count)
    run(model, restart_before=restart_before)
    return calls


def counting(disk: MemoryDisk, before: Any) -> None:
    """Have ``before`` called with every call of this disk, and of the one another process finds after it."""
    disk.before = before
    kill = disk.kill

    def killed() -> MemoryDisk:
        found = kill()
        counting(found, before)
        return found

    disk.kill = killed  # type: ignore[method-assign]


@pytest.mark.parametrize("restart_before", [None, 1, 3, 4])
def test_the_power_may_fail_at_every_call(restart_before: int | None) -> None:
    for stop in range(calls_of_a_run(restart_before)):
        model = Model(MemoryDisk(seed=stop))
        calls = 0

        def cut(call: Call, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise PowerCut

        counting(model.disk, cut)
        with pytest.raises(PowerCut):
            run(model, restart_before=restart_before)
        for seed in range(SEEDS):
            found = model.crash(seed)
            # And again while it comes back, and once it goes on.
            found.crash(seed + 1)
            found.append([LedgerEntry(b"later:", "c", 9, "m9")])
            again = found.crash(seed + 2)
            assert again.state == found.state


@pytest.mark.parametrize("restart_before", [None, 1, 3, 4])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_the_disk_may_fail_at_every_call(restart_before: int | None, error: int) -> None:
    for stop in range(calls_of_a_run(restart_before)):
        model = Model(MemoryDisk(seed=stop))
        calls = 0

        def fail(call: Call, model: Model = model, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls == stop + 1:
                model.disk.fail_next(call.method, error)

        counting(model.disk, fail)
        try:
            run(model, restart_before=restart_before)
        except OSError:
            model.disk.before = None
        for seed in range(SEEDS):
            model.crash(seed)
        if model.file is not None:
            # The process goes on.
            model.append([LedgerEntry(b"later:", "c", 9, "m9")])
            for seed in range(SEEDS):
                assert model.crash(seed).state == model.state


steps = st.one_of(
    st.tuples(st.just("append"), st.lists(records, max_size=4)),
    st.tuples(st.just("append"), st.just(LONG)),
    st.tuples(st.sampled_from(["restart", "kill"]), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 2**32)),
    st.tuples(st.just("fail"), st.sampled_from(["write", "sync", "create", "rename", "sync_folder", "open_append"])),
    st.tuples(st.just("cut"), st.integers(0, 12)),
    st.tuples(st.just("shorten"), st.integers(1, 30)),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25), st.integers(0, 2**32))
@example([("fail", "sync_folder"), ("append", [Settled()]), ("append", [])], 1)
def test_what_was_appended_is_there_and_nothing_else(taken: list[tuple[str, Any]], seed: int) -> None:
    model = Model(MemoryDisk(seed=seed))
    model.start()
    for step, value in taken:
        if step == "append":
            try:
                model.append(value)
            except OSError:
                continue
            except PowerCut:
                model = model.crash(seed)
        elif step == "restart":
            model.disk.before = None
            try:
                model.start()
            except OSError:
                model.disk = model.disk.kill()
                model.start()
        elif step == "kill":
            model.disk = model.disk.kill()
            model.start()
        elif step == "crash":
            model = model.crash(value)
        elif step == "fail":
            model.disk.fail_next(value)
        elif step == "shorten":
            model.disk.shorten_next(value)
        else:
            left = value

            def cut(call: Call) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise PowerCut

            model.disk.before = cut
    for number in range(3):
        model.crash(seed + number)
