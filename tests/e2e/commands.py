"""Runs the ``kevynode`` command to its end, for what it prints and how it exits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping

# Seconds that a command which ends by itself may take.
PATIENCE = 30


def kevynode(
    *arguments: str, environment: Mapping[str, str] | None = None, descriptors: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself. ``descriptors`` is RLIMIT_NOFILE of the process, soft and hard."""

    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    return subprocess.run(
        [sys.executable, "-m", "kevynode", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **(environment or {})},
        preexec_fn=limit,
    )


def start_error(*arguments: str, environment: Mapping[str, str] | None = None, descriptors: int | None = None) -> str:
    """Run a node that cannot start, and return what it says after ``kevynode: ``; it is the only line it prints."""
    done = kevynode("run", *arguments, environment=environment, descriptors=descriptors)
    assert (done.returncode, done.stdout) == (1, ""), done
    lines = [line for line in done.stderr.splitlines() if not line.startswith("20")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("kevynode: ")
    return lines[0].removeprefix("kevynode: ")
