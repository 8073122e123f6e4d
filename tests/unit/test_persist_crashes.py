"""What a node may rely on after crashes: random work, with the power failing at every call of the disk.

A model remembers the content at every group that has been committed. After a crash the folder must load, and hold what
was there at one of those groups, none before the last that was said to be durable; after the end of the process alone,
none before the last that was said to be written.
"""

from __future__ import annotations

import errno
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.append_only import DATA, FOLDER, Node, read_folder
from support.memory_disk import Call, MemoryDisk
from support.store_harness import content

from kevynode.persist.jobs import Job, SyncJob
from kevynode.persist.rewriting import Rewrite
from kevynode.replicate.lineage import Lineage
from kevynode.store.staging import Staging

#: Longer than several pages, so that a gap can be in a value.
LONG: Final = "v" * 9000
#: Crashes at each place.
SEEDS: Final = 4


class PowerCut(BaseException):
    """The power is gone: nothing that runs goes on."""


class Run:
    """A node at work, and all that it has claimed."""

    def __init__(self, disk: MemoryDisk, history: int = 1) -> None:
        self.disk = disk
        self.node: Node | None = None
        # By mark: the offset behind the group, the content, and whether it is local; and what is claimed of it.
        self.states: list[tuple[int, Any, bool]] = [(0, {}, False)]
        self.durable = self.written = 0
        self.rewrite: Rewrite | None = None
        self.steps: Any = None
        # What another thread has not come to yet.
        self.job: Job | None = None
        self.sync: SyncJob | None = None
        self.number = 0
        self.history = history

    def start(self) -> None:
        node = Node(self.disk, history=self.history)
        self.states = [(node.store.journal.offset, node.content(), node.store.journal.outside)]
        node.store.journal.observers.append(self.observe)
        self.node = node
        node.start()

    def observe(self, first: int, group: Any) -> None:
        assert self.node is not None
        journal = self.node.store.journal
        self.states.append((journal.offset, self.node.content(), journal.outside))

    def claim(self) -> None:
        """Note what is claimed now."""
        assert self.node is not None
        writer = self.node.writer
        assert writer.durable_mark <= writer.mark
        assert writer.durable_mark >= self.durable, "a claim was taken back"
        assert writer.written_mark >= self.written, "a claim was taken back"
        if writer.failed is None and not writer.is_fresh_running:
            assert writer.durable_offset == self.states[writer.durable_mark][0]
        self.durable = writer.durable_mark
        self.written = writer.written_mark
        assert writer.mark == len(self.states) - 1

    def step(self, action: str) -> None:
        node = self.node
        assert node is not None
        self.number += 1
        word = str(self.number)
        match action:
            case "set":
                node.do("SET", "key" + str(self.number % 3), word)
            case "long":
                node.do("SET", "long", word + LONG)
            case "push":
                node.do("RPUSH", "list", word)
            case "group":
                node.do_together(("RPUSH", "list", word), ("INCR", "count"), ("SET", "of", word + LONG))
            case "flush":
                node.do("FLUSHALL")
            case "beside":
                # What is written to a copy has no offset.
                journal = node.store.journal
                journal.follows = True
                node.do("SET", "beside", word)
                journal.follows = False
            case "write":
                node.writer.write()
            case "sync":
                node.writer.write()
                node.sync()
            case "rewrite" | "fresh":
                if self.rewrite is None and (action == "fresh" or node.writer.failed is None):
                    self.rewrite = Rewrite(node.writer, node.store, fresh=action == "fresh")
            case "begin sync":
                if self.sync is None:
                    self.sync = node.writer.begin_sync()
            case "end sync":
                if self.sync is not None:
                    job, self.sync = self.sync, None
                    job.run()
                    node.writer.end_sync(job)
            case "replace":
                self.replace(node)
            case "step":
                self.advance()
            case "finish":
                while self.rewrite is not None:
                    self.advance()
            case "abandon":
                self.abandon()
        self.claim()

    def advance(self) -> None:
        """One step of the rewrite: a job is handed out in one and has run by the next."""
        if self.job is not None:
            job, self.job = self.job, None
            job.run()
        if self.rewrite is None:
            return
        if self.steps is None:
            self.steps = self.rewrite.steps()
        try:
            self.job = next(self.steps)
        except StopIteration:
            self.abandon()

    def abandon(self) -> None:
        if self.job is not None:
            # Whoever gives up waits for it.
            job, self.job = self.job, None
            job.run()
        if self.rewrite is not None:
            self.rewrite.close()
            self.rewrite = self.steps = None

    def replace(self, node: Node) -> None:
        """A full synchronisation: other data, other numbers, another history."""
        staging = Staging(node.store.epoch)
        staging.put(b"number", b"%d" % self.number)
        staging.put(b"long", LONG.encode())
        node.store.journal.outside = False
        node.store.replace_all(staging, self.number * 3 % 50)
        node.writer.note_lineage(Lineage(1000 + self.number))
        fresh = Rewrite(node.writer, node.store, fresh=True)
        self.abandon()
        self.rewrite = fresh

    def check(self, found: MemoryDisk, at_least: int) -> None:
        """Assert that a node that starts on this disk finds one of the states, from a mark on."""
        store, loaded = read_folder(found)
        held = content(store)
        fitting = [mark for mark, (_, state, _) in enumerate(self.states) if state == held]
        assert fitting, "it holds what never was"
        assert fitting[-1] >= at_least, f"it holds mark {fitting[-1]}, {at_least} was claimed"
        if loaded.lineage is not None:
            facts = [(self.states[mark][0], self.states[mark][2]) for mark in fitting if mark >= at_least]
            assert (loaded.offset, loaded.local) in facts


ACTIONS = st.sampled_from(
    (
        "set,long,push,group,flush,beside,write,write,sync,sync,begin sync,end sync,"
        "rewrite,fresh,step,step,step,finish,abandon,replace"
    ).split(",")
)


def cut_power_at(run: Run, place: int) -> None:
    """Let the power fail before the disk's call with this number."""

    def before(call: Call) -> None:
        if len(run.disk.calls) > place:
            raise PowerCut

    run.disk.before = before


@settings(deadline=None, max_examples=150)
@given(st.lists(ACTIONS, max_size=40), st.integers(0, 400), st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_what_was_durable_is_there_wherever_the_power_fails(actions: list[str], place: int, seeds: list[int]) -> None:
    run = Run(MemoryDisk())
    cut_power_at(run, place)
    try:
        run.start()
        for action in actions:
            run.step(action)
    except PowerCut:
        pass
    run.disk.before = None
    run.check(run.disk.kill(), run.written)
    for seed in seeds:
        found = run.disk.crash(seed)
        run.check(found, run.durable)
        # What was found once is found again, and can be gone on with.
        again = Run(found, history=2)
        again.start()
        assert again.node is not None
        assert again.node.writer.failed is None
        again.step("set")
        again.step("sync")
        again.check(found.crash(seed), 1)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.lists(ACTIONS, min_size=5, max_size=25), st.integers(0, 2**32))
def test_a_folder_loads_after_a_crash_at_every_single_call(actions: list[str], seed: int) -> None:
    whole = Run(MemoryDisk())
    whole.start()
    for action in actions:
        whole.step(action)
    for place in range(len(whole.disk.calls)):
        run = cut_short(actions, place)
        for other in range(SEEDS):
            run.check(run.disk.crash(seed + place + other), run.durable)
        run.check(run.disk.kill(), run.written)


def cut_short(actions: list[str], place: int) -> Run:
    """A life that ends with the disk's call with this number."""
    run = Run(MemoryDisk())
    cut_power_at(run, place)
    ended = False
    try:
        run.start()
        for action in actions:
            run.step(action)
    except PowerCut:
        ended = True
    assert ended
    run.disk.before = None
    return run


EVERYTHING: Final = (
    "set long write sync push group sync beside rewrite step step set beside write finish flush long sync"
    " fresh step set group write step finish set sync rewrite finish push write"
    " rewrite step step replace step set push write finish group sync replace step replace finish sync"
).split()


@pytest.mark.slow
def test_a_life_with_everything_may_end_at_any_call_in_many_ways() -> None:
    whole = Run(MemoryDisk())
    whole.start()
    for action in EVERYTHING:
        whole.step(action)
    for place in range(len(whole.disk.calls)):
        run = cut_short(EVERYTHING, place)
        for seed in range(40):
            run.check(run.disk.crash(seed), run.durable)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(ACTIONS, min_size=3, max_size=20),
    st.lists(st.integers(0, 20), max_size=3),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 2**32), min_size=1, max_size=4),
)
def test_what_a_process_found_of_another_is_durable_once_it_has_started(
    actions: list[str], failing: list[int], forgets: int, seeds: list[int]
) -> None:
    """Also if syncs had failed: the system tells the second process nothing of that, and may forget the bytes."""
    run = Run(MemoryDisk())
    run.start()
    for number, action in enumerate(actions):
        if number in failing:
            run.disk.fail_next("sync")
        run.step(action)
    found = run.disk.kill()
    if forgets % 2:
        found.forget(Random(forgets))
        run.check(found.kill(), run.durable)
    else:
        run.check(found.kill(), run.written)
    second = Run(found, history=2)
    second.start()
    assert second.node is not None
    assert second.node.writer.failed is None
    for action in ("set", "write", "sync"):
        second.step(action)
    for seed in seeds:
        second.check(second.disk.crash(seed), second.durable)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(ACTIONS, max_size=30),
    st.integers(0, 200),
    st.sampled_from([errno.EIO, errno.ENOSPC]),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_a_failing_call_is_reported_and_claims_nothing(
    actions: list[str], place: int, error: int, times: int, seed: int
) -> None:
    run = Run(MemoryDisk())
    run.start()
    place += len(run.disk.calls)
    left = [times]
    failed: list[str] = []

    def before(call: Call) -> None:
        if len(run.disk.calls) > place and left[0] and call.method in CHANGING:
            left[0] -= 1
            failed.append(call.method)
            run.disk.fail_next(call.method, error)

    run.disk.before = before
    for action in actions:
        run.step(action)
        run.check(run.disk.crash(seed), run.durable)
        run.check(run.disk.kill(), run.written)
    run.disk.before = None
    recover(run)
    assert run.node is not None
    run.check(run.disk.crash(seed), len(run.states) - 1)
    assert read_folder(run.disk.kill())[1].offset == run.node.store.journal.offset


CHANGING: Final = frozenset(("write", "sync", "create", "rename", "sync_folder", "remove", "open_append", "truncate"))


def recover(run: Run) -> None:
    """The disk is well again: have the node find out, and make everything durable."""
    node = run.node
    assert node is not None
    run.step("finish")
    run.step("end sync")
    run.step("sync")
    if node.writer.failed is not None:
        rewrite = node.rewrite(fresh=True)
        assert rewrite.failed is None
    run.step("sync")
    assert node.writer.failed is None
    assert node.writer.durable_mark == node.writer.mark


@settings(deadline=None, max_examples=100)
@given(st.lists(ACTIONS, max_size=30), st.integers(0, 60_000), st.integers(0, 2**32))
def test_a_full_disk_is_reported_and_claims_nothing(actions: list[str], room: int, seed: int) -> None:
    run = Run(MemoryDisk())
    run.start()
    run.disk.fill_up(room)
    for action in actions:
        run.step(action)
        run.check(run.disk.crash(seed), run.durable)
        run.check(run.disk.kill(), run.written)
    run.disk.make_room()
    recover(run)
    run.check(run.disk.crash(seed), len(run.states) - 1)


@pytest.mark.slow
def test_every_single_failing_call_of_a_life_with_everything() -> None:
    actions = EVERYTHING
    whole = Run(MemoryDisk())
    whole.start()
    first = len(whole.disk.calls)
    for action in actions:
        whole.step(action)
    methods = set()
    for place in range(first, len(whole.disk.calls)):
        run = Run(MemoryDisk())
        run.start()
        call = whole.disk.calls[place]
        if call.method not in CHANGING:
            continue
        methods.add(call.method)

        def before(seen: Call, run: Run = run, place: int = place) -> None:
            if len(run.disk.calls) == place + 1:
                run.disk.fail_next(seen.method)

        run.disk.before = before
        for action in actions:
            run.step(action)
            if len(run.disk.calls) > place:
                run.check(run.disk.crash(place), run.durable)
                run.check(run.disk.kill(), run.written)
        recover(run)
        run.check(run.disk.crash(place), len(run.states) - 1)
        names = run.disk.list(FOLDER)
        assert not [name for name in names if name.startswith("temp-") and not name.endswith(".manifest")]
    assert methods >= {"write", "sync", "create", "rename", "sync_folder", "remove"}


def test_a_disk_that_takes_no_changes_at_the_start_is_an_error() -> None:
    disk = MemoryDisk()
    Node(disk).folder.close()
    node = Node(disk)
    disk.read_only()
    assert not node.start()
    assert node.writer.failed is not None
    assert "Read-only" in node.writer.failed
    assert not node.writer.write()
    assert DATA in node.writer.failed
