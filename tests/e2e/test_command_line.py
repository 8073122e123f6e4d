"""``kevynode run`` as a process: the ready line, signals, the log file, errors at start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

READY = re.compile(r"kevynode ready id=\S* client=(\S+):(\d+) replication=\S+\n")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "kevynode", *arguments]


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A node that has said it is ready, and its port. It is killed if the test did not end it."""
    process = subprocess.Popen(
        command("run", "--port", "0", "--dir", str(folder), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            ready = READY.fullmatch(line)
            assert ready, (line, process.stderr and process.stderr.read())
            yield process, int(ready[2])
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_serves_from_its_ready_line_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as (process, port):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"PING\r\n")
            assert client.recv(100) == b"+PONG\r\n"
            process.send_signal(number)
            assert client.recv(100) == b""
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert out == ""
        assert "Traceback" not in err
        for line in err.splitlines():
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|warning) \w+", line)


def test_sighup_goes_on_in_a_new_log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, rotated = tmp_path / "node.log", tmp_path / "node.log.1"
    monkeypatch.setenv("KEVYNODE_LOG_OUTPUT", str(log))
    with running(tmp_path) as (process, _):
        log.rename(rotated)
        os.kill(process.pid, signal.SIGHUP)
        process.terminate()
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 0
    assert " started " in rotated.read_text()
    assert " stopped " in log.read_text()


def test_mistakes_in_file_environment_and_flags_are_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = -1\n")
    monkeypatch.setenv("KEVYNODE_EXPIRY_HZ", "fast")
    done = subprocess.run(
        command("run", "--config", str(file), "--replicaof", "nowhere"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.split(" is not accepted")[0] for line in done.stderr.splitlines()] == [
        f"kevynode: {file}: server.port: -1",
        'kevynode: KEVYNODE_EXPIRY_HZ: expiry.hz: "fast"',
        'kevynode: --replicaof: replication.upstream: "nowhere"',
    ]


def test_a_data_directory_that_is_none_is_said_to_be_missing_or_a_file(tmp_path: Path) -> None:
    file, missing = tmp_path / "file", tmp_path / "missing"
    file.touch()
    for path, reason in ((file, f"{file} is no folder"), (missing, f"there is no folder {missing}: make it first")):
        done = subprocess.run(command("run", "--dir", str(path)), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"kevynode: server.data_dir: {reason}\n"
