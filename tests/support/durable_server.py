"""A server that keeps its files in a directory of the test's: it is killed, and another begins where it ended."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from support.child import restrain
from support.raw_client import CLOSED, RawClient, Reply
from support.valkey_server import ServerStartError, valkey_binary

HOST: Final = "127.0.0.1"
#: Seconds that something a test waits for may take until the test fails.
PATIENCE: Final = 30.0
#: Seconds between two looks.
LOOK: Final = 0.002

#: What every node is started with.
_ENVIRONMENT: Final = {"KEVYNODE_CONFIG_ENABLE_DEBUG_COMMAND": "yes"}


class DurableServer:
    """A server process on a port, with its files in a directory; not ready when it is made. A context manager.

    It is killed at the end of the block if it is still there. Its directory stays, it is the caller's.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        *,
        announces: bool = False,
        environment: Mapping[str, str] | None = None,
        file_limit: int | None = None,
    ) -> None:
        """Start ``command``, which listens on ``port``, and ``announces`` it if it says so itself when it serves.

        ``file_limit``: bytes that a file of it may have (soft).
        """
        self.host = HOST
        self._announces = announces
        self.port = port
        self._log = tempfile.NamedTemporaryFile(prefix="durable-", suffix=".log")  # noqa: SIM115 - closed by __exit__
        in_child = restrain(signal.SIGKILL)

        def limit() -> None:
            in_child()
            if file_limit is not None:
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, hard))

        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})},
            preexec_fn=limit,  # noqa: PLW1509 - no thread runs while servers start
        )

    def __enter__(self) -> DurableServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self._log.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def replication_port(self) -> int:
        """Where replicas of a node connect."""
        return self.port + 10000

    def running(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def log(self) -> str:
        """Everything it printed."""
        return Path(self._log.name).read_text(errors="replace")

    def connect(self) -> RawClient:
        """A client. Raises OSError."""
        return RawClient(self.host, self.port)

    def call(self, *words: bytes) -> Reply:
        """Send one command over a connection of its own. Raises OSError."""
        with self.connect() as client:
            return client.call(*words)

    # -- the end ------------------------------------------------------------------------------------------------------

    def send_kill(self) -> None:
        """SIGKILL, and do not wait. May be called in any thread."""
        self._process.send_signal(signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; doing so twice is fine."""
        if self.running():
            self.send_kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait until it is gone; its exit code. Raises AssertionError if it does not go."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended by itself; its exit code. Raises AssertionError if it does not."""
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server does not end; it printed:\n{self.log()[-4000:]}") from None

    def raise_file_limit(self) -> None:
        """Let its files grow again as they like."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard, hard))

    # -- waiting ------------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition()`` is true. Raises AssertionError with ``what`` if it is not, or the server ends."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline or not self.look_away(LOOK):
                raise AssertionError(f"{what}: it does not come to that; the server printed:\n{self.log()[-4000:]}")

    def look_away(self, seconds: float) -> bool:
        """Let some time pass, unless the process ends; whether it is still there."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def wait_until_listening(self) -> None:
        """Wait until clients are answered, whatever the answer. Raises ServerStartError."""
        self._wait_for_start(lambda: self.call(b"PING") is not CLOSED)

    def wait_until_serving(self) -> None:
        """Wait until it has loaded what there was. Raises ServerStartError with what it printed."""
        self._wait_for_start(self._says_ready if self._announces else lambda: self.call(b"DBSIZE").kind == "integer")

    def _says_ready(self) -> bool:
        return "kevynode ready " in self.log()

    def _wait_for_start(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except OSError:
                pass
            if not self.look_away(LOOK):
                break
        code = self._process.poll()
        raise ServerStartError(f"it does not serve (exit code {code}); it printed:\n{self.log()[-4000:]}")

    def info(self, section: bytes) -> dict[str, str]:
        """The fields of a section of INFO. Raises OSError."""
        with self.connect() as client:
            reply = client.call(b"INFO", section)
        if reply.kind != "bulk":
            return {}
        lines = reply.value.decode().splitlines()
        return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def node_command(directory: Path, port: int, *options: str) -> list[str]:
    """The command line of a node with its data in ``directory``."""
    return [sys.executable, "-m", "kevynode", "run", "--port", str(port), "--dir", str(directory), *options]


def start_node(
    directory: Path,
    port: int,
    *options: str,
    policy: str = "everysec",
    environment: Mapping[str, str] | None = None,
    file_limit: int | None = None,
) -> DurableServer:
    """A node with its data in ``directory``, not ready yet. ``environment`` holds further settings."""
    settings = {"KEVYNODE_PERSISTENCE_APPENDFSYNC": policy, **(environment or {})}
    command = node_command(directory, port, *options)
    return DurableServer(command, port, announces=True, environment=settings, file_limit=file_limit)


def start_valkey(
    directory: Path, port: int, *options: str, policy: str = "everysec", aof: bool = True
) -> DurableServer:
    """A valkey-server with its data in ``directory``, not ready yet. Raises ServerStartError if there is none."""
    command = [
        *(str(valkey_binary()), "--port", str(port), "--bind", HOST, "--dir", str(directory), "--save", ""),
        *("--appendonly", "yes" if aof else "no", "--appendfsync", policy, "--enable-debug-command", "yes", *options),
    ]
    return DurableServer(command, port)
