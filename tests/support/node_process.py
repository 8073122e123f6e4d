"""kevynode as a child process: started as a user starts it, ready when it says so, stopped by SIGTERM."""

from __future__ import annotations

import os
import re
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from support.child import end, restrain
from support.raw_client import RawClient, Reply
from support.valkey_server import STOP_TIMEOUT, ServerStartError

#: Seconds a starting node gets until it prints its ready line.
START_TIMEOUT = 20.0
#: Seconds that something a test waits for may take until the test fails.
CONDITION_TIMEOUT = 20.0

_HARMLESS = re.compile(r"^\S+Z (debug|info|warning) ")
_READY = re.compile(r"^kevynode ready id=(?P<id>\S*) client=(?P<client>\S+):(?P<port>\d+) replication=(?P<rep>\S+)$")


def _limits(descriptors: int | None) -> Callable[[], None]:
    """What the child does to itself before it becomes a node."""
    in_child = restrain(signal.SIGTERM)

    def limit() -> None:
        in_child()
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    return limit


class NodeProcess:
    """``python -m kevynode run`` on free loopback ports, in a directory of its own. A context manager."""

    def __init__(
        self,
        *options: str,
        config: str | None = None,
        environment: Mapping[str, str] | None = None,
        descriptors: int | None = None,
    ) -> None:
        """Start a node with further command-line ``options`` and wait for its ready line.

        ``config`` is the text of a configuration file to start with, ``environment`` is added to this process's,
        ``descriptors`` is how many files the node may have open (RLIMIT_NOFILE, soft and hard). Raises
        ServerStartError with what the node printed when it ends or stays silent instead.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="kevynode-"))
        arguments = ["--port", "0", "--dir", str(self.directory), *options]
        if config is not None:
            (self.directory / "node.toml").write_text(config, encoding="utf-8")
            arguments += ["--config", str(self.directory / "node.toml")]
        self._log_path = self.directory / "stderr.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kevynode", "run", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(environment or {})},
                preexec_fn=_limits(descriptors),  # noqa: PLW1509 - no thread runs while servers start
            )
        line = self._first_line()
        match = _READY.match(line)
        self.ready_line = line
        if match is None:
            self._end_process()
            said = self.diagnosis()
            shutil.rmtree(self.directory, ignore_errors=True)
            raise ServerStartError(
                f"kevynode printed no ready line (got {line!r}, exit code {self._process.returncode}); stderr:\n{said}"
            )
        self.node_id = match["id"]
        self.host = match["client"].strip("[]")
        self.port = int(match["port"])
        self.replication_address = match["rep"]

    def _first_line(self) -> str:
        """The first line on stdout, without its end; what came so far when the node ends or is late."""
        stdout = self._process.stdout
        assert stdout is not None
        collected = b""
        deadline = time.monotonic() + START_TIMEOUT
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in collected and selector.select(max(0.0, deadline - time.monotonic())):
                chunk = stdout.read1(4096) if hasattr(stdout, "read1") else stdout.read(1)
                if not chunk:
                    break
                collected += chunk
        return collected.split(b"\n")[0].decode("utf-8", "replace")

    def _end_process(self) -> None:
        end(self._process, STOP_TIMEOUT)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def running(self) -> bool:
        """Whether the process is still alive."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the node."""
        return self._process.pid

    def diagnosis(self) -> str:
        """The last lines the node logged."""
        return self.log()[-4000:]

    def log(self) -> str:
        """Everything the node logged to standard error."""
        return self._log_path.read_text(errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until the process has ended by itself; its exit code. Raises AssertionError if it does not."""
        try:
            return self._process.wait(CONDITION_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the node does not end; its log:\n{self.diagnosis()}") from None

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition()`` is true. Raises AssertionError with ``what`` if it is not, or if the node ends."""
        deadline = time.monotonic() + CONDITION_TIMEOUT
        while not condition():
            try:
                self._process.wait(0.005)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
            raise AssertionError(f"{what}: it does not come to that; the node's log:\n{self.diagnosis()}")

    def check_health(self) -> None:
        """Assert that the node answers, and that it has logged neither a traceback nor an error."""
        assert self.running(), self.diagnosis()
        with RawClient(self.host, self.port) as client:
            assert client.call(b"PING") == Reply("simple", b"PONG"), self.diagnosis()
        log = self.log()
        assert "Traceback" not in log, log[-4000:]
        assert " error " not in log, log[-4000:]

    def errors_logged(self) -> list[str]:
        """The log lines of level error, and whatever is no log line at all (a traceback, say)."""
        lines = self._log_path.read_text(errors="replace").splitlines()
        return [line for line in lines if line and not _HARMLESS.match(line)]

    def stop(self) -> int:
        """Stop the node with SIGTERM (SIGKILL if it does not end) and return its exit code; stopping twice is fine."""
        self._end_process()
        shutil.rmtree(self.directory, ignore_errors=True)
        return int(self._process.returncode)

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
