"""A simulated node's disk: :class:`~support.memory_disk.MemoryDisk`, slow at times, and watched for a moment."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from threading import Lock as Mutex
from typing import ClassVar, Final, TypeAlias

import trio
from support.memory_content import Content
from support.memory_disk import Call, MemoryDisk

__all__ = ["SimDisk", "Waiting"]

#: Waits so many seconds, after a call of what is given, if that can be done in this thread; whether it can.
Waiting: TypeAlias = Callable[[float, Callable[[], object] | None], bool]

#: Where nodes keep their append-only files, and which of these are in use.
FOLDER: Final = "/data/appendonlydir"
MANIFEST: Final = f"{FOLDER}/appendonly.aof.manifest"
#: Calls that neither change anything nor take time.
READING: Final = frozenset({"exists", "size", "list", "read", "open_read", "close"})
#: Seconds that a call of a slow disk takes, about: one after the other is as likely.
PACES: Final = (0.0, 0.003, 0.03, 0.3, 1.0, 3.0)


class SimDisk(MemoryDisk):
    """A disk that remembers whether it was ever in trouble, and tells somebody in the midst of a call.

    On a slow one, calls that change something take time in threads, and in those of :mod:`sim.threads` alone: what a
    node has the disk do in its own thread is done before anything else happens.
    """

    #: How calls wait, where they can.
    waiting: ClassVar[Waiting | None] = None

    def __init__(self, seed: int, now: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(seed=seed)
        self.now = now
        # When what no sync has covered yet was first written to each file; and what one covers that has yet to end.
        self._exposed: dict[Content, float] = {}
        self._syncing: dict[Content, float] = {}
        #: What :meth:`exposed_since` was when the process before ended.
        self.exposed_before: float | None = None
        # Since it was last in order: calls fail, or failed.
        self.in_trouble = False
        # Whether it failed in this life of the node.
        self.had_trouble = False
        #: Faults that let some of its calls fail, whatever else is repaired, until they are over.
        self.faults: list[trio.Event] = []
        # Files of which it has not given back what a failed sync had left in memory alone.
        self.forgot: list[str] = []
        #: When it was slow in a call that changes something: from when to when.
        self.busy: list[tuple[float, float]] = []
        #: The node that it belongs to is dead: what is done to it from now on has no effect.
        self.gone = trio.Event()
        self._pace: Random | None = None
        # The longest that a call takes, about.
        self._slowest = 0.0
        # Calls of writing methods that are still made before ``on_moment`` is called; None: it is not.
        self._moment: tuple[int, Callable[[], None]] | None = None
        self.before = self._before

    def at_moment(self, calls: int, then: Callable[[], None]) -> None:
        """Call ``then`` in the midst of the writing call that comes after so many others, once."""
        self._moment = calls, then

    @property
    def is_slow(self) -> bool:
        """Whether calls take time."""
        return self._pace is not None

    def slow(self, seed: int, slowest: float) -> None:
        """Take time for calls from now on, up to ``slowest`` seconds or twice that; a sync more than others."""
        self._pace, self._slowest = Random(f"{seed} pace"), slowest

    def quick(self) -> None:
        """Take no time for calls that begin from now on."""
        self._pace = None

    def exposed_since(self) -> float | None:
        """When something was first written to an increment in use that a loss of power now may take; None: nothing."""
        manifest = self._files.get(MANIFEST)
        if manifest is None:
            return None
        used = [self._files.get(f"{FOLDER}/{name}") for name in manifest.data.decode().split() if "incr" in name]
        found = [times[file] for file in used if file is not None for times in self._times if file in times]
        return min(found, default=None)

    @property
    def _times(self) -> tuple[dict[Content, float], dict[Content, float]]:
        return self._exposed, self._syncing

    def _write(self, path: str, content: Content, data: bytes, offset: int | None) -> int:
        written = super()._write(path, content, data, offset)
        self._exposed.setdefault(content, self.now())
        return written

    def _sync(self, path: str, content: Content) -> None:
        since = self._exposed.pop(content, None)
        if since is not None:
            self._syncing[content] = since
        try:
            super()._sync(path, content)
        except OSError:
            if since is not None:
                self._exposed[content] = since
            raise
        finally:
            self._syncing.pop(content, None)

    def _before(self, call: Call) -> None:
        self.calls.clear()
        if call.method in READING:
            return
        then = self._then()
        seconds = self._takes(call)
        if then is None and not seconds:
            return
        waiting = SimDisk.waiting
        if (waiting is None or not waiting(seconds, then)) and then is not None:
            then()

    def _then(self) -> Callable[[], object] | None:
        """What is to be called if this is the moment."""
        if self._moment is None:
            return None
        left, then = self._moment
        self._moment = None if left == 0 else (left - 1, then)
        return then if left == 0 else None

    def _takes(self, call: Call) -> float:
        if self._pace is None or self.gone.is_set():
            return 0.0
        pace = self._pace.choice(PACES if call.method in ("sync", "sync_folder") else PACES[:4])
        return min(pace, self._slowest) * self._pace.uniform(0.5, 2.0)

    def _wait_for_sync(self, lock: Mutex, path: str) -> None:
        """Nobody may have two syncs of a file at a time: only one of them would hear that bytes are lost."""
        if not lock.acquire(blocking=False):
            raise AssertionError(f"two syncs of {path} at a time")

    def trouble(self) -> None:
        """Something of it begins to fail."""
        self.in_trouble = self.had_trouble = True

    def forgive(self) -> None:
        """What has failed so far has no part in what comes, unless something fails still."""
        self.had_trouble = self.in_trouble or any(not over.is_set() for over in self.faults)

    def repaired(self) -> None:
        """It works again; what has failed has failed."""
        self.in_trouble = False
        self.make_room()
        self.read_only(False)
        self._failures.clear()
        self._shortened.clear()

    def survivor(self, seed: int) -> SimDisk:
        """What another process finds after this one was killed.

        What a failed sync has left in the system's memory alone is never stored by a sync of that process, and in one
        half of the cases some of it is gone from there.
        """
        found = self._found_as(self.kill())
        random = Random(f"{seed} forget")
        if random.random() < 0.5:
            found.forgot = found.forget(random)
        return found

    def after_power_loss(self, seed: int) -> SimDisk:
        """What is found after a loss of power."""
        return self._found_as(self.crash(seed))

    def _found_as(self, found: MemoryDisk) -> SimDisk:
        disk = SimDisk(self.seed, self.now)
        for name in ("_files", "_durable_files", "_folders", "_durable_folders", "_changes"):
            setattr(disk, name, getattr(found, name))
        disk._room, disk._is_read_only = found._room, found._is_read_only
        disk.in_trouble = disk.had_trouble = self.in_trouble
        disk._pace, disk._slowest = self._pace, self._slowest
        disk.busy = self.busy
        disk.exposed_before = self.exposed_since()
        return disk
