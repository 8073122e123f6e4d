"""What INFO shows about the process, as it is injected into the serve layer."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["CpuTimes", "ProcessFacts"]


class CpuTimes(NamedTuple):
    """Seconds of processor time: of this process, and of those it has waited for."""

    system: float
    user: float
    system_children: float
    user_children: float


class ProcessFacts(Protocol):
    """Facts about the process and its machine. None of the methods blocks for longer than reading a small file."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def executable(self) -> str:
        """Path of the program, or of the interpreter that runs it."""
        ...

    @property
    def system(self) -> str:
        """Name, release and machine of the operating system, as ``uname`` prints them."""
        ...

    @property
    def multiplexing(self) -> str:
        """How the process waits for many sockets at once: ``epoll``, ``kqueue``."""
        ...

    @property
    def system_memory(self) -> int:
        """Bytes of memory in the machine; 0 where that is unknown."""
        ...

    def resident(self) -> int:
        """Bytes of memory the process holds now; 0 where that is unknown."""
        ...

    def cpu(self) -> CpuTimes:
        """Processor time spent so far."""
        ...
