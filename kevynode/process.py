"""Facts about this process and its machine, as ``kevynode.serve.process_facts`` asks for them."""

from __future__ import annotations

import os
import platform
import resource
import sys

from .serve.process_facts import CpuTimes

__all__ = ["Process"]


class Process:
    """This process. Linux tells everything; elsewhere :meth:`resident` shows the peak instead of the present."""

    def __init__(self) -> None:
        self.executable = sys.executable
        self.system = f"{platform.system()} {platform.release()} {platform.machine()}"
        self.multiplexing = "epoll" if sys.platform == "linux" else "kqueue"
        self.system_memory = _system_memory()
        self._page = resource.getpagesize()

    @property
    def pid(self) -> int:
        """The process id."""
        return os.getpid()

    def resident(self) -> int:
        """Bytes of memory the process holds now."""
        try:
            with open("/proc/self/statm", "rb") as file:
                return int(file.read().split()[1]) * self._page
        except (OSError, IndexError, ValueError):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            # Kilobytes, but bytes on macOS.
            return peak if sys.platform == "darwin" else peak * 1024

    def cpu(self) -> CpuTimes:
        """Processor time spent so far, in seconds."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return CpuTimes(own.ru_stime, own.ru_utime, children.ru_stime, children.ru_utime)


def _system_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0
