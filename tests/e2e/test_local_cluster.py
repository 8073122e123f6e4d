"""``sh deploy/local-cluster.sh``: nodes with a scope each, until it is told to end."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest
from support.child import end, restrain

from kevynode.probe import ErrorReply, Probe, connect

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: Seconds until what a test waits for must have happened.
PATIENCE = 60.0

_ROW = re.compile(r"    (?P<prefix>app:\S+) +(?P<writer>node-\d+) +127\.0\.0\.1:(?P<port>\d+) +(?P<fallback>\S+)")


class Script:
    """The script as a child, with an interpreter that has the package: nothing is set up. A context manager."""

    def __init__(self, *options: str) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            ["sh", str(ROOT / "deploy" / "local-cluster.sh"), "--python", sys.executable, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            preexec_fn=restrain(signal.SIGTERM),  # noqa: PLW1509  no other thread runs yet
        )

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read on until ``pattern`` matches in what was printed."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = re.search(pattern, self.output, re.DOTALL | re.MULTILINE)
            if found is not None:
                return found
            assert self._read(deadline), f"no {pattern!r} in:\n{self.output}"

    def end(self, number: signal.Signals | None = signal.SIGTERM) -> int:
        """Send it a signal, if any, read all that it still prints, and return its exit status."""
        if number is not None:
            self._process.send_signal(number)
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE)

    def hang_up(self) -> None:
        """Read no more of what it prints."""
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self, deadline: float) -> bool:
        """Take what it prints next; False: it has ended, or is late."""
        assert self._process.stdout is not None
        if self._process.stdout.closed:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return False
        chunk = os.read(self._process.stdout.fileno(), 65536)
        self.output += chunk.decode("utf-8", "replace")
        return bool(chunk)

    def table(self) -> dict[str, tuple[str, str, str]]:
        """Prefix: writer, its port, fallback, once the table is printed."""
        self.wait_for(r"Ctrl-C stops the nodes")
        rows = (_ROW.match(line) for line in self.output.splitlines())
        return {row["prefix"]: (row["writer"], row["port"], row["fallback"]) for row in rows if row is not None}

    def __enter__(self) -> Script:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        end(self._process, PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def clients(table: dict[str, tuple[str, str, str]]) -> Iterator[list[Probe]]:
    probes = [connect(f"127.0.0.1:{port}") for _, port, _ in table.values()]
    try:
        yield probes
    finally:
        for probe in probes:
            probe.close()


def node_processes(folder: Path, name: str = "") -> list[str]:
    """The ids of processes that were started with a configuration in ``folder``, whose name begins with ``name``."""
    listed = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if f"--config {folder}/{name}" in line]


def closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def read_soon(probe: Probe, key: bytes, expected: bytes) -> None:
    """Read a copy until it has what was written."""
    deadline = time.monotonic() + PATIENCE
    while probe.call(b"GET", key) != expected:
        assert time.monotonic() < deadline, f"{probe.address} has no copy of {key!r}"


def run_examples(ports: list[str]) -> None:
    """The programs on the page about scopes, with the nodes at other ports."""
    page = (ROOT / "docs" / "scopes.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(programs) == 2
    for program, printed in zip(programs, ("b'three apples'\n", "Ada\n"), strict=True):
        code = re.sub("600[45]", lambda found: ports[int(found[0]) - 6004], program)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (printed, "")


def test_three_nodes_with_a_scope_each_that_find_their_data_again(tmp_path: Path) -> None:
    folder = tmp_path / "some data"
    with Script("--dir", str(folder)) as script:
        table = script.table()
        assert [(writer, fallback) for writer, _, fallback in table.values()] == [
            ("node-1", "node-2"),
            ("node-2", "node-3"),
            ("node-3", "node-1"),
        ]
        first, second, third = (prefix.encode() + b"key" for prefix in table)
        with clients(table) as (one, two, three):
            assert [one.call(b"SET", first, b"1"), two.call(b"SET", second, b"2")] == ["OK", "OK"]
            assert three.call(b"SET", third, b"3") == "OK"
            for probe in (one, two, three):
                for key, value in ((first, b"1"), (second, b"2"), (third, b"3")):
                    read_soon(probe, key, value)
            with pytest.raises(ErrorReply, match=f"MISDIRECTED writer is {re.escape(one.address)}"):
                two.call(b"SET", first, b"x")
            assert one.call(b"SET", b"greeting", b"hello") == "OK"
        run_examples([port for _, port, _ in table.values()])
        assert len(node_processes(folder)) == 3
        assert re.search(r"^node-2 \| \S+ info started ", script.output, re.MULTILINE)
        assert script.end() == 0, script.output
    assert node_processes(folder) == []
    assert all(closed(int(port)) for _, port, _ in table.values())
    with Script("--dir", str(folder)) as script:
        with clients(script.table()) as (one, two, three):
            assert [one.call(b"GET", first), one.call(b"GET", b"greeting")] == [b"1", b"hello"]
            assert [two.call(b"GET", second), three.call(b"GET", third)] == [b"2", b"3"]
        assert script.end(signal.SIGINT) == 0, script.output
    assert node_processes(folder) == []


def test_the_others_go_on_when_a_node_is_gone(tmp_path: Path) -> None:
    with Script("--dir", str(tmp_path), "--nodes", "2") as script:
        table = script.table()
        first, second = (prefix.encode() + b"key" for prefix in table)
        with clients(table) as (one, two):
            assert one.call(b"SET", first, b"1") == "OK"
            read_soon(two, first, b"1")
            [victim] = node_processes(tmp_path, "node-1.toml")
            os.kill(int(victim), signal.SIGKILL)
            again = script.wait_for(r"node-1 ended \(status -9\); the others go on.*^    (\S[^\n]* run [^\n]*)$")
            assert again[1].endswith(f" run --config {tmp_path}/node-1.toml")
            assert [two.call(b"GET", first), two.call(b"SET", second, b"2")] == [b"1", "OK"]
        assert script.end() == 0, script.output
    assert node_processes(tmp_path) == []


def test_a_node_that_does_not_start_ends_them_all(tmp_path: Path) -> None:
    # A ledger that is none.
    (tmp_path / "node-2").mkdir()
    (tmp_path / "node-2" / "kevynode.ledger").write_text("something else")
    with Script("--dir", str(tmp_path)) as script:
        assert script.end(None) == 1
        assert "node-2 did not start (status 1)" in script.output
    assert node_processes(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell children")
def test_no_node_outlives_a_script_that_is_killed(tmp_path: Path) -> None:
    with Script("--dir", str(tmp_path), "--nodes", "2") as script:
        script.table()
        assert script.end(signal.SIGKILL) == -9
    deadline = time.monotonic() + PATIENCE
    while node_processes(tmp_path):
        assert time.monotonic() < deadline, "nodes are left behind"


def test_nobody_has_to_read_what_it_prints(tmp_path: Path) -> None:
    with Script("--dir", str(tmp_path), "--nodes", "2") as script:
        script.wait_for("Starting 2 nodes")
        script.hang_up()
        assert script.end(None) == 0
    assert node_processes(tmp_path) == []


def test_the_demonstration(tmp_path: Path) -> None:
    with Script("--demo", "--dir", str(tmp_path)) as script:
        assert script.end(None) == 0, script.output
        assert "# All of it was as it should be." in script.output
        assert "(error) MISDIRECTED writer is 127.0.0.1:" in script.output
        said = "\n".join(line for line in script.output.splitlines() if not re.match(r"node-\d \|", line))
        for giver, taker in (("node-1", "node-2"), ("node-2", "node-1")):
            assert f"{giver}> MOVE-SCOPE app:users: FROM {giver} TO {taker}\nOK " in said
        assert said.count("has each of them once, in order.") == 3
    assert node_processes(tmp_path) == []


def test_a_demonstration_ends_with_one_of_its_nodes(tmp_path: Path) -> None:
    with Script("--demo", "--dir", str(tmp_path), "--nodes", "2") as script:
        script.wait_for("keys at each writer, and all nodes have all of them")
        [victim] = node_processes(tmp_path, "node-2.toml")
        os.kill(int(victim), signal.SIGKILL)
        assert script.end(None) == 1
        assert "Traceback" not in script.output
        assert "# Not all of it was as it should be." in script.output or "# That is the end of it: " in script.output
    assert node_processes(tmp_path) == []


def test_after_a_move_and_a_restart_the_new_writer_is_named(tmp_path: Path) -> None:
    with Script("--dir", str(tmp_path), "--nodes", "2") as script:
        table = script.table()
        key = next(iter(table)).encode() + b"key"
        with clients(table) as (one, _):
            assert one.call(b"SET", key, b"1") == "OK"
            assert one.call(*b"MOVE-SCOPE app:users: FROM node-1 TO node-2".split()).startswith("OK ")
        assert script.end() == 0, script.output
    with Script("--dir", str(tmp_path), "--nodes", "2") as script:
        table = script.table()
        # node-2 was its fallback.
        assert [(prefix, writer, fallback) for prefix, (writer, _, fallback) in table.items()] == [
            ("app:users:", "node-2", "-"),
            ("app:orders:", "node-2", "node-1"),
        ]
        command = script.wait_for(r"redis-cli -p (\d+) SET app:users:1 Ada +# node-2 writes")
        assert command[1] == table["app:users:"][1]
        with connect(f"127.0.0.1:{command[1]}") as two:
            assert [two.call(b"GET", key), two.call(b"SET", key, b"2")] == [b"1", "OK"]
        assert script.end() == 0, script.output
    with Script("--dir", str(tmp_path), "--nodes=1") as script:
        script.wait_for(r"Not open yet:\n +app:users: was moved to node-2, which is not among these nodes$")
        assert script.end() == 0, script.output


def test_a_second_cluster_leaves_the_first_one_alone(tmp_path: Path) -> None:
    with Script("--dir", str(tmp_path), "--nodes", "2") as script:
        ports = [int(port) for _, port, _ in script.table().values()]
        written = (tmp_path / "node-1.toml").read_text()
        with Script("--dir", str(tmp_path)) as second:
            assert second.end(None) == 1
            assert second.output == f"local-cluster.sh: {tmp_path}: another cluster is running here\n"
        with Script("--dir", str(tmp_path / "other"), "--port", str(ports[1]), "--nodes", "2") as second:
            assert second.end(None) == 1
            assert second.output.startswith(f"local-cluster.sh: port {ports[1]} is taken; choose another row of ports")
        assert (tmp_path / "node-1.toml").read_text() == written
        assert script.end() == 0, script.output


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with Script("--dir", str(file)) as script:
        assert script.end(None) == 1
        assert script.output == f"local-cluster.sh: {file}: it is no folder\n"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--nodes"], "local-cluster.sh: --nodes needs a value"),
        (["--nodes", "0"], "--nodes: from 1 to 16"),
        (["--nodes=17"], "--nodes: from 1 to 16"),
        (["--port", "x"], "argument --port: invalid int value: 'x'"),
        (["--demo", "--nodes=1"], "--demo: needs two nodes or more"),
        (["--what"], "local-cluster.sh: what is --what?"),
        (["more"], "local-cluster.sh: what is more?"),
    ],
)
def test_wrong_use(options: list[str], problem: str) -> None:
    with Script(*options) as script:
        assert script.end(None) == 2
        assert "usage:" in script.output
        assert problem in script.output
