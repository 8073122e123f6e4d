"""A node's append-only file without a node: store, journal, writer and folder over one disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from support.memory_disk import MemoryDisk
from support.store_harness import content, find_command

from kevynode.disk import Disk
from kevynode.persist.folder import AppendOnlyFolder
from kevynode.persist.loader import Loaded, exhaust, load
from kevynode.persist.record_reader import Entries
from kevynode.persist.rewriting import Rewrite
from kevynode.persist.writer import AppendOnlyWriter, Policy
from kevynode.replicate.lineage import Lineage
from kevynode.store.apply import Applier
from kevynode.store.journal import Origin
from kevynode.store.store import Store

DATA = "/data"
FOLDER = "/data/appendonlydir"
#: The first increment.
INCREMENT = FOLDER + "/appendonly.aof.1.incr.aof"


def read_folder(
    disk: Disk, data_dir: str = DATA, on_entries: Callable[[Entries, Origin | None], None] | None = None
) -> tuple[Store, Loaded]:
    """What a node finds that starts on this disk; the lock is free again."""
    folder = AppendOnlyFolder.open(disk, data_dir)
    try:
        store = Store(random.Random(1))
        return store, exhaust(load(folder, store, Applier(store), on_entries=on_entries))
    finally:
        folder.close()


class Node:
    """What a node does with its append-only file, step by step."""

    def __init__(self, disk: Disk, policy: Policy = "everysec", history: int = 1, data_dir: str = DATA) -> None:
        self.disk = disk
        self.folder = AppendOnlyFolder.open(disk, data_dir)
        self.store = Store(random.Random(history))
        self.store.now = 1_700_000_000_000
        self.loaded = exhaust(load(self.folder, self.store, Applier(self.store)))
        journal = self.store.journal
        journal.offset = self.loaded.offset
        journal.outside = self.loaded.local
        known = self.loaded.lineage
        lineage = Lineage(history) if known is None else known.branch(history, journal.offset)
        self.writer = AppendOnlyWriter(self.folder, journal, lineage, self.loaded.cursors, policy)

    def start(self) -> bool:
        """Begin to write."""
        job = self.writer.begin_start(instead_of_last=self.loaded.last_is_empty, unproven=self.loaded.unproven)
        job.run()
        return self.writer.end_start(job)

    def do(self, *words: str | bytes) -> None:
        """Run one command, a group of its own."""
        self.do_together(words)

    def do_together(self, *commands: tuple[str | bytes, ...]) -> None:
        """Run commands as one group."""
        for words in commands:
            argv = [word.encode() if isinstance(word, str) else word for word in words]
            find_command(argv).handler(self.store, argv)
        self.store.commit()

    def sync(self) -> bool:
        """Make durable what has been written; whether there was anything, and it worked."""
        job = self.writer.begin_sync()
        if job is None:
            return False
        job.run()
        self.writer.end_sync(job)
        return job.succeeded

    def rewrite(self, *, fresh: bool = False, between: Callable[[], object] | None = None) -> Rewrite:
        """A whole rewrite, with ``between`` called at each step."""
        rewrite = Rewrite(self.writer, self.store, fresh=fresh)
        for job in rewrite.steps():
            if between is not None:
                between()
            if job is not None:
                job.run()
        rewrite.close()
        return rewrite

    def content(self) -> Any:
        """What the store holds."""
        return content(self.store)


def new_node(policy: Policy = "everysec", seed: int = 0) -> tuple[MemoryDisk, Node]:
    """A node that has started on an empty disk."""
    disk = MemoryDisk(seed=seed)
    node = Node(disk, policy)
    assert node.start()
    return disk, node
