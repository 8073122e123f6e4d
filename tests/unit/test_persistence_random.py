"""Anything in any order: clients, syncs, rewrites, dumps, failures, other policies; promises are kept all the time."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.append_only import read_folder
from support.memory_disk import MemoryDisk
from support.persistence_harness import FileClient, FilesHarness
from support.store_harness import content

from kevynode.errors import ReplyError
from kevynode.persist.jobs import Job, SyncJob
from kevynode.persist.works import LAST_RETRY, Work
from kevynode.replicate.lineage import Lineage

CLIENTS = 4
METHODS = ["write", "sync", "create", "rename", "sync_folder", "remove", "list", "size"]

ACTIONS = st.one_of(
    st.tuples(st.just("round"), st.lists(st.integers(0, CLIENTS - 1), unique=True, min_size=1)),
    st.tuples(st.just("read"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("program")),
    st.tuples(st.just("begin sync"), st.booleans()),
    st.tuples(st.just("run sync")),
    st.tuples(st.just("end sync")),
    st.tuples(st.just("work")),
    st.tuples(st.just("work")),
    st.tuples(st.just("run job")),
    st.tuples(st.just("tick"), st.sampled_from([0.1, 1.0, 3.0])),
    st.tuples(st.just("rewrite")),
    st.tuples(st.just("save")),
    st.tuples(st.just("cancel save")),
    st.tuples(st.just("ship")),
    st.tuples(st.just("promote")),
    st.tuples(st.just("fail"), st.sampled_from(METHODS), st.sampled_from([errno.EIO, errno.ENOSPC])),
    st.tuples(st.just("policy"), st.sampled_from(["always", "everysec", "no"])),
)


class Run:
    """One node, what its clients were told, and what is under way."""

    def __init__(self, policy: Any) -> None:
        self.files = FilesHarness(policy)
        self.clients = [self.files.connect() for _ in range(CLIENTS)]
        self.program = self.files.connect()
        self.number = 0
        # By key: the highest that was acknowledged, and that was acknowledged or read when it had to be durable.
        self.kept: dict[bytes, int] = {}
        self.durable: dict[bytes, int] = {}
        # What each client waits for.
        self.asked: dict[FileClient, tuple[bytes, int]] = {}
        # Up to where replicas were told, and from which histories on.
        self.shipped = 0
        self.lineages = [self.files.persistence.lineage]
        self.told = {self.files.persistence.lineage.history}
        self.sync: SyncJob | None = None
        self.work: tuple[Work, Iterator[Job | None]] | None = None
        self.job: Job | None = None

    # -- what clients do ----------------------------------------------------------------------------------------------

    def client(self, place: int) -> FileClient:
        """The client in this place; a new one where that was dropped."""
        if self.clients[place].dropped:
            self.files.clients.remove(self.clients[place])
            self.asked.pop(self.clients[place], None)
            self.clients[place] = self.files.connect()
        return self.clients[place]

    def notice(self) -> None:
        """Note what clients have been told."""
        self.files.release()
        for client in self.clients:
            if not client.answers:
                continue
            key, number = self.asked.pop(client)
            if client.answers.startswith(b"+OK"):
                self.kept[key] = max(number, self.kept.get(key, 0))
            else:
                assert client.answers[:1] == b"$" or client.answers.startswith(b"-MISCONF")
            if self.files.persistence.settings.policy == "always" and not self.files.persistence.problem:
                # In trouble reads go on, and promise nothing.
                self.durable.update(self.kept)
                if client.answers[:1] == b"$" and client.answers != b"$-1\r\n":
                    seen = int(client.answers.split(b"\r\n")[1])
                    self.durable[key] = max(seen, self.durable.get(key, 0))
            client.answers = b""

    def do(self, action: tuple[Any, ...]) -> None:
        """One thing happens."""
        files, persistence = self.files, self.files.persistence
        match action:
            case ("round", places):
                batch = []
                for place in places:
                    client = self.client(place)
                    if not client.held:
                        self.number += 1
                        self.asked[client] = (b"key%d" % place, self.number)
                        client.run("SET", f"key{place}", str(self.number))
                        batch.append(client)
                files.settle(*batch)
            case ("read", place):
                client = self.client(place)
                if not client.held:
                    self.asked[client] = (b"key0", 0)
                    client.run("GET", "key0")
                    files.settle(client)
            case ("program",):
                # It writes in memory, and asks nobody; it has a key of its own.
                self.number += 1
                self.program.run("SET", "program", str(self.number))
                self.program.held = b""
            case ("begin sync", each_second):
                if self.sync is None:
                    self.sync = persistence.begin_sync(each_second=each_second)
            case ("run sync",):
                if self.sync is not None and not self.sync.has_run:
                    self.sync.run()
            case ("end sync",):
                self.end_sync()
            case ("work",):
                self.go_on()
            case ("run job",):
                if self.job is not None and not self.job.has_run:
                    self.job.run()
            case ("tick", seconds):
                files.advance(seconds)
                persistence.tick()
            case ("rewrite",) | ("save",):
                try:
                    persistence.rewrite() if action[0] == "rewrite" else persistence.save(schedule=True)
                except ReplyError:
                    pass
            case ("cancel save",):
                persistence.cancel_save()
            case ("ship",):
                if persistence.may_ship():
                    self.shipped = files.node.store.journal.offset
                    self.told.add(persistence.lineage.history)
            case ("promote",):
                if len(self.lineages) < 10:
                    offset = files.node.store.journal.offset
                    self.lineages.append(self.lineages[-1].branch(1000 + len(self.lineages), offset))
                    persistence.note_lineage(self.lineages[-1])
            case ("fail", method, number):
                files.disk.fail_next(method, number)
            case ("policy", policy):
                persistence.set_policy(policy)
        self.notice()

    def end_sync(self) -> None:
        """The sync that has begun ends."""
        if self.sync is not None:
            if not self.sync.has_run:
                self.sync.run()
            job, self.sync = self.sync, None
            self.files.persistence.end_sync(job)

    def go_on(self) -> None:
        """Take a step of what is under way, or begin something."""
        persistence = self.files.persistence
        if self.work is None:
            work = persistence.begin_work()
            if work is not None:
                self.work = (work, iter(work.steps()))
            return
        work, steps = self.work
        if self.job is not None and not self.job.has_run:
            self.job.run()
        if persistence.work is work:
            try:
                self.job = self.files.step(steps)
                return
            except StopIteration:
                pass
        self.work = self.job = None
        self.files.end(work)

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check(self, seed: int) -> None:
        """Whatever happens now, what was told is true."""
        self.look(self.files.disk.kill(), self.kept)
        found = self.look(self.files.disk.crash(seed), self.durable)
        assert self.told <= {found.history, *(history for history, _ in found.ancestors)}

    def look(self, disk: MemoryDisk, least: dict[bytes, int]) -> Lineage:
        store, loaded = read_folder(disk)
        values = {key: int(value) for key, (value, _) in content(store).items()}
        assert all(values.get(key, 0) >= number for key, number in least.items()), (values, least)
        assert loaded.lineage is not None
        if least is self.kept:
            assert loaded.offset >= self.shipped
        return loaded.lineage

    def all_ends(self) -> None:
        """The disk works again: everybody gets an answer, and everything is in the files."""
        self.files.disk._failures.clear()
        for _ in range(8):
            self.end_sync()
            self.sync = self.files.persistence.begin_sync(each_second=True)
            self.notice()
            self.files.advance(LAST_RETRY)
            self.files.persistence.tick()
            for _ in range(30):
                self.go_on()
            self.notice()
        self.end_sync()
        self.notice()
        assert self.work is None
        assert self.files.persistence.problem == ""
        assert not any(client.held for client in self.clients)
        assert self.files.persistence.may_ship()
        assert self.files.persistence.before_answers()
        assert self.files.after_kill() == content(self.files.node.store)
        self.files.persistence.want_sync()
        self.files.sync()
        assert self.files.after_power_loss(1) == content(self.files.node.store)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    policy=st.sampled_from(["always", "everysec", "no"]),
    actions=st.lists(ACTIONS, min_size=20, max_size=70),
    seed=st.integers(0, 2**32),
)
def test_promises_are_kept_whatever_happens(policy: str, actions: list[tuple[Any, ...]], seed: int) -> None:
    run = Run(policy)
    for number, action in enumerate(actions):
        run.do(action)
        if number % 3 == seed % 3 or action[0] in {"fail", "run job", "end sync"}:
            run.check(seed + number)
    run.check(seed)
    run.all_ends()
