"""What every server that the tests start as a child process is held to, and how it is ended."""

from __future__ import annotations

import ctypes
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

#: Address space a server under test may use, in bytes. A reply that never ends must not take the machine along.
MEMORY_LIMIT: Final = 4 << 30

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


def restrain(end_signal: signal.Signals) -> Callable[[], None]:
    """A ``preexec_fn`` that limits the child's memory and, on Linux, sends it ``end_signal`` when its parent dies.

    A test run that is killed would leave its servers behind otherwise.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def in_child() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(end_signal))

    return in_child


def end(process: subprocess.Popen[Any], seconds: float) -> None:
    """End a child: SIGTERM, and SIGKILL if it is still there after so many seconds. Doing so twice is fine."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
