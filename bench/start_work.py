"""How long processes take to start: the pieces that ``bench.start`` puts together. Each blocks until it is done."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.measuring import Failed
from bench.servers import TARGETS, child_environment, find_address, in_child, stop

READY_SECONDS = 30.0


def time_process(words: Sequence[str], core: int, changes: Mapping[str, str | None]) -> float:
    """Seconds from the start of a process to its end. Raises Failed if it does not end well."""
    began = time.perf_counter()
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=child_environment(changes),
        preexec_fn=in_child(core),
        timeout=READY_SECONDS,
        check=False,
    )
    elapsed = time.perf_counter() - began
    if done.returncode:
        raise Failed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{words[0]} failed")
    return elapsed


def time_import(module: str | None, core: int, changes: Mapping[str, str | None]) -> float:
    """Seconds that Python takes to start, import a module (None: nothing) and end."""
    return time_process([sys.executable, "-c", f"import {module}" if module else "pass"], core, changes)


def time_ready(kind: str, core: int) -> float:
    """Seconds from the start of ``kevynode run``, in an empty folder and as it comes, to its ready line."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        # As a user would start it: with the files that it keeps unless told otherwise.
        words = [word for word in TARGETS[kind].command(Path(scratch), 0) if word != "--no-aof"]
        began = time.perf_counter()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(TARGETS[kind].environment),
            start_new_session=True,
            preexec_fn=in_child(core),  # noqa: PLW1509 - this process has one thread
        )
        try:
            assert process.stdout is not None
            return await_ready(process.stdout.fileno(), kind) - began
        finally:
            stop(process)
            if process.stdout is not None:
                process.stdout.close()


def await_ready(output: int, kind: str) -> float:
    """Read until the ready line; the moment it was there. Raises Failed where the output ends before."""
    text = b""
    while True:
        data = os.read(output, 65536)
        now = time.perf_counter()
        if not data:
            raise Failed(f"{kind} ended before it was ready: {text[-500:].decode(errors='replace')}")
        text += data
        if find_address(text.decode(errors="replace")) is not None:
            return now
