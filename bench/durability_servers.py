"""Servers that keep their data in files, for the durability measurements: started on a core, on a folder or without."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import machine
from bench.client import Connection, ServerError, parse_info
from bench.durability_figures import NO_FILE, Loading, Setup
from bench.measuring import Failed, free_port
from bench.servers import HOST, TARGETS, Running, Target, child_environment, in_child, started, stop

FOLDER = "appendonlydir"
LOAD_SECONDS = 300.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.01


def command(setup: Setup, directory: Path, port: int) -> list[str]:
    """The command line of a server that keeps its files in ``directory``, as its policy says. Raises Unavailable."""
    words = TARGETS[setup.kind].command(directory, port)
    if setup.policy == NO_FILE:
        return words
    if setup.kind == "valkey":
        return [*words, "--appendonly", "yes", "--appendfsync", setup.policy]
    file = directory.parent / "node.toml"
    file.write_text(configuration(setup.policy), encoding="utf-8")
    return [*(word for word in words if word != "--no-aof"), "--config", str(file)]


def configuration(policy: str) -> str:
    """The text of a kevynode configuration file with this policy."""
    return f'[persistence]\naof = true\nappendfsync = "{policy}"\n'


@contextmanager
def keeping(setup: Setup, core: int) -> Iterator[Running]:
    """A server with nothing in its folder, for as long as the block lasts; raises Unavailable."""
    target = Target(setup.kind, partial(command, setup), announces=TARGETS[setup.kind].announces)
    with started(target, core) as running:
        yield running


def connect(server: Running) -> Connection:
    """A client; raises OSError."""
    return Connection(server.host, server.port)


def persistence_info(connection: Connection) -> Mapping[str, str]:
    """The fields of INFO persistence."""
    reply = connection.call("INFO", "persistence")
    if not isinstance(reply, bytes):
        raise ServerError("INFO has no text")
    return parse_info(reply)


def rewrite(server: Running, seconds: float) -> float:
    """Have the append-only file rewritten; how long it took. Raises Failed if it does not end well in time."""
    with connect(server) as connection:
        began = time.monotonic()
        connection.call("BGREWRITEAOF")
        while True:
            info = persistence_info(connection)
            if info["aof_rewrite_in_progress"] == info["aof_rewrite_scheduled"] == "0":
                break
            if time.monotonic() - began > seconds:
                raise Failed(f"a rewrite of {server.name} took more than {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        ended = time.monotonic()
        if info["aof_last_bgrewrite_status"] != "ok":
            raise Failed(f"a rewrite of {server.name} came to nothing")
    return ended - began


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir())


def data_folder(pid: int) -> Path:
    """The append-only folder of a running server, found by what it holds open. Raises Failed."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = Path(os.readlink(descriptor))
        except OSError:
            continue
        if target.parent.name == FOLDER:
            return target.parent
    raise Failed(f"process {pid} has no append-only file open")


def time_load(kind: str, form: str, folder: Path, core: int, keys: int) -> Loading:
    """Start a server on a copy of ``folder`` and stop it again. Raises Failed and Unavailable."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        data = Path(scratch) / "data"
        shutil.copytree(folder, data / FOLDER)
        # What the copy left to be written must not be written while the server reads.
        os.sync()
        port = free_port()
        words = command(Setup(kind, "everysec"), data, port)
        if kind == "kevynode":
            words[words.index("--port") + 1] = str(port)
        with (Path(scratch) / "output").open("w+b") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(),
                start_new_session=True,
                preexec_fn=in_child(core),  # noqa: PLW1509 - this process has one thread
            )
            try:
                found = _await_keys(process, port)
                ended = time.monotonic()
                cpu = machine.process_cpu(process.pid)
                if found != keys:
                    raise Failed(f"{kind} loaded {found:,} keys, not {keys:,}")
            finally:
                stop(process, STOP_SECONDS)
    return Loading(kind, form, folder_size(folder), ended - began, cpu)


def _await_keys(process: subprocess.Popen[bytes], port: int) -> int:
    """Wait until a server serves, and return how many keys it has."""
    deadline = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"a server ended with code {process.returncode} while it loaded")
        try:
            with Connection(HOST, port) as connection:
                reply = connection.call("DBSIZE")
                if isinstance(reply, int):
                    return reply
        except (OSError, ServerError):
            # It does not listen yet, or it says that it loads.
            time.sleep(POLL_SECONDS)
    raise Failed(f"a server had not loaded after {LOAD_SECONDS:.0f} s")
