"""A server that keeps files, driven by hand: each round, sync and step of a rewrite happens when a test says so."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from support.append_only import DATA, read_folder
from support.memory_disk import MemoryDisk
from support.session_harness import Client, ServerHarness
from support.store_harness import Content, content

from kevynode.persist.folder import AppendOnlyFolder
from kevynode.persist.gate import Gate
from kevynode.persist.jobs import Job, SyncJob
from kevynode.persist.persistence import Persistence, PersistenceSettings, Work
from kevynode.persist.writer import AppendOnlyWriter, Policy
from kevynode.replicate.lineage import Lineage
from kevynode.store.staging import Staging

#: The history that every one of them begins with.
HISTORY: Final = 77


class FileClient:
    """A connection, and what becomes of its answers."""

    def __init__(self, harness: FilesHarness, client: Client) -> None:
        self.harness = harness
        self.session = client.session
        self._client = client
        #: Answers that have left, and those that were told to wait.
        self.answers = b""
        self.held = b""
        self.dropped = False

    def call(self, *words: str) -> str:
        """Run one command in a round of its own; what becomes of the answer."""
        self.run(*words)
        return self.harness.settle(self)

    def run(self, *words: str) -> None:
        """Run one command, whose answer waits for the end of the round."""
        assert not self.held, "a connection that is held is not read"
        self.held += self._client.call(*words)


class FilesHarness:
    """A node's server, store and files. ``told_open`` counts how often those who wait were told to ask again."""

    def __init__(self, policy: Policy = "everysec", *, disk: MemoryDisk | None = None, begins: bool = True) -> None:
        self.node = ServerHarness()
        self.disk = disk if disk is not None else MemoryDisk()
        store = self.node.store
        self.persistence = Persistence(
            self.disk,
            DATA,
            store,
            self.node.server,
            self.node.log,
            lambda: self.node.monotonic,
            lambda: self.node.wall / 1000,
            PersistenceSettings(policy),
        )
        self.node.server.persistence = self.persistence
        self.persistence.on_open = self._opened
        self.persistence.on_durable = self._durable
        self.persistence.lineage = Lineage(HISTORY)
        self.told_open = self.told_durable = 0
        self.clients: list[FileClient] = []
        if begins:
            folder = AppendOnlyFolder.open(self.disk, DATA)
            writer = AppendOnlyWriter(folder, store.journal, self.persistence.lineage, policy=policy)
            job = writer.begin_start()
            job.run()
            assert writer.end_start(job)
            self.persistence.started(writer)

    @property
    def gate(self) -> Gate:
        """The gate of the writer that is in use."""
        assert self.persistence.gate is not None
        return self.persistence.gate

    @property
    def writer(self) -> AppendOnlyWriter:
        """The writer that is in use."""
        assert self.persistence.writer is not None
        return self.persistence.writer

    def _opened(self) -> None:
        self.told_open += 1

    def _durable(self) -> None:
        self.told_durable += 1

    def connect(self) -> FileClient:
        """A new connection."""
        client = FileClient(self, self.node.connect())
        self.clients.append(client)
        return client

    # -- rounds -------------------------------------------------------------------------------------------------------

    def settle(self, *clients: FileClient) -> str:
        """End a round of these clients; what became of the last one's answers: sent, held or dropped."""
        all_may = self.persistence.before_answers()
        verdict = "send"
        for client in clients:
            verdict = "send" if all_may else self.persistence.verdict(client.session)
            if verdict == "send":
                client.answers += client.held
            if verdict != "hold":
                client.held = b""
            client.dropped = client.dropped or verdict == "drop"
        return {"send": "sent", "hold": "held", "drop": "dropped"}[verdict]

    def release(self) -> None:
        """Do what drivers do when they were told to ask again: each one that is held does."""
        while self.told_open:
            self.told_open = 0
            for client in self.clients:
                if client.held:
                    self.settle(client)

    def advance(self, seconds: float) -> None:
        """Let time pass, and nothing else."""
        self.node.monotonic += seconds
        self.node.wall += round(seconds * 1000)

    def second(self) -> None:
        """A second passes, and what is to be done each second is done."""
        self.advance(1.0)
        self.persistence.tick()
        self.sync(each_second=True)
        self.release()

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def sync(self, *, each_second: bool = False) -> SyncJob | None:
        """Do what is to be synced now."""
        job = self.persistence.begin_sync(each_second=each_second)
        if job is not None:
            job.run()
            self.persistence.end_sync(job)
            self.release()
        return job

    def begin(self) -> tuple[Work, Iterator[Job | None]]:
        """Begin what is due, which must be something."""
        work = self.persistence.begin_work()
        assert work is not None
        return work, iter(work.steps())

    def step(self, steps: Iterator[Job | None]) -> Job | None:
        """Take the next step of something, and tell of it as a driver does. Raises StopIteration behind the last."""
        job = next(steps)
        self.persistence.step_taken()
        return job

    def end(self, work: Work) -> None:
        """Close it."""
        work.close()
        self.persistence.end_work(work)
        self.release()

    def go_on(self, work: Work, steps: Iterator[Job | None]) -> None:
        """Take all further steps, and close it."""
        while self.persistence.work is work:
            try:
                job = self.step(steps)
            except StopIteration:
                break
            if job is not None:
                job.run()
        self.end(work)

    def work(self) -> Work:
        """Do what is due, which must be something."""
        work, steps = self.begin()
        self.go_on(work, steps)
        return work

    # -- what is left -------------------------------------------------------------------------------------------------

    def after_kill(self) -> Content:
        """What another process would find that starts when this one was killed now."""
        return content(read_folder(self.disk.kill())[0])

    def after_power_loss(self, seed: int) -> Content:
        """What would be found after a loss of power now."""
        return content(read_folder(self.disk.crash(seed))[0])


def in_trouble(files: FilesHarness) -> None:
    """Let a write fail."""
    client = files.connect()
    files.disk.fail_next("write", errno.ENOSPC)
    assert client.call("SET", "lost", "1") == "dropped"


def replaced(files: FilesHarness, key: str, offset: int, lineage: Lineage) -> None:
    """Replace all data as a synchronisation does, with one key."""
    staging = Staging(files.node.store.epoch)
    staging.put(key.encode(), b"new")
    files.node.store.replace_all(staging, offset)
    files.persistence.data_replaced(lineage, {})


def as_replica(files: FilesHarness) -> None:
    """Become a copy of another node's stream."""
    files.node.store.journal.follows = True
    files.node.server.become_replica(read_only=True)


def promote(files: FilesHarness) -> None:
    """Become a primary, with a history of one's own."""
    files.node.store.journal.follows = False
    files.node.server.become_primary()
    before = files.persistence.lineage.history
    files.persistence.note_lineage(Lineage(100, ((before, files.node.store.journal.offset),)))
