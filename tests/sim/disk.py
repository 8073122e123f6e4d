"""A simulated node's disk: :class:`~support.memory_disk.MemoryDisk`, and a moment at which somebody is called."""

from __future__ import annotations

from collections.abc import Callable

from support.memory_disk import PAGE, Call, MemoryDisk


class SimDisk(MemoryDisk):
    """A disk that remembers whether it was ever in trouble, and tells somebody in the midst of a call."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        # Since it was last in order: calls fail, or failed.
        self.in_trouble = False
        # Whether it failed in this life of the node.
        self.had_trouble = False
        # Calls of writing methods that are still made before ``on_moment`` is called; None: it is not.
        self._moment: tuple[int, Callable[[], None]] | None = None
        self.before = self._before

    def at_moment(self, calls: int, then: Callable[[], None]) -> None:
        """Call ``then`` in the midst of the writing call that comes after so many others, once."""
        self._moment = calls, then

    def _before(self, call: Call) -> None:
        self.calls.clear()
        if self._moment is None or call.method in ("exists", "size", "list", "read", "open_read", "close"):
            return
        left, then = self._moment
        if left > 0:
            self._moment = left - 1, then
            return
        self._moment = None
        then()

    def trouble(self) -> None:
        """Something of it begins to fail."""
        self.in_trouble = self.had_trouble = True

    def repaired(self) -> None:
        """It works again; what has failed has failed."""
        self.in_trouble = False
        self.make_room()
        self.read_only(False)
        self._failures.clear()
        self._shortened.clear()

    def survivor(self) -> SimDisk:
        """What another process finds after this one was killed.

        What a failed sync has left in the system's memory alone is written back with that process's first sync, as if
        the system still knew of it. Linux may not: then a node that starts on such bytes takes them for stored.
        """
        found = self.kill()
        for content in found._files.values():
            if content.data != content.durable:
                content.dirty.update(range((len(content.data) + PAGE - 1) // PAGE))
        return self._found_as(found)

    def after_power_loss(self, seed: int) -> SimDisk:
        """What is found after a loss of power."""
        return self._found_as(self.crash(seed))

    def _found_as(self, found: MemoryDisk) -> SimDisk:
        disk = SimDisk(self.seed)
        for name in ("_files", "_durable_files", "_folders", "_durable_folders", "_changes"):
            setattr(disk, name, getattr(found, name))
        disk._room, disk._is_read_only = found._room, found._is_read_only
        disk.in_trouble = disk.had_trouble = self.in_trouble
        return disk
