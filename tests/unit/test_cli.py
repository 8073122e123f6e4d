"""The command line: what it prints, where, and its exit status. The node behind ``run`` is a stand-in here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import kevynode
from kevynode.cli import main
from kevynode.config import NodeConfig
from kevynode.log import Logger
from kevynode.twins import IMPLEMENTATION


class StartError(Exception):
    pass


class FakeNode:
    """Stands in for ``kevynode.run``: remembers what it was started with, and ends as it is told to."""

    def __init__(self) -> None:
        self.config: NodeConfig | None = None
        self.failure: BaseException | None = None

    async def run(self, config: NodeConfig, log: Logger) -> None:
        self.config = config
        log.info("serving")
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    fake = FakeNode()
    module: Any = types.ModuleType("kevynode.run")
    module.run = fake.run
    module.StartError = StartError
    monkeypatch.setitem(sys.modules, "kevynode.run", module)
    return fake


@contextmanager
def answering(answer: Callable[[bytes], bytes | None]) -> Iterator[str]:
    """A server for one connection that answers what it receives; yields its address. None closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            # A client that had enough closes with bytes unread, which is a reset.
            with connection, suppress(ConnectionError):
                while request := connection.recv(65536):
                    reply = answer(request)
                    if reply is None:
                        return
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)
        assert not thread.is_alive()


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text.encode()), text.encode())


INFO = (
    "# Server\r\nredis_version:7.2.4\r\nkevynode_version:0.1.0\r\nuptime_in_seconds:5\r\n\r\n"
    "# Clients\r\nconnected_clients:2\r\n# Memory\r\nused_memory_human:1.5M\r\n"
    "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_repl_offset:17\r\nnode_id:a\x1b[31m\r\n"
)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"kevynode {kevynode.__version__} ({IMPLEMENTATION})\n"


@pytest.mark.parametrize(
    "arguments", [[], ["serve"], ["run", "--prot", "1"], ["run", "--por", "1"], ["move-scope", "x:"], ["check-config"]]
)
def test_wrong_use_ends_with_2_and_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: kevynode")


@pytest.mark.parametrize("command", ["run", "check-config", "status", "move-scope", "check-aof", "import", "export"])
def test_the_help_of_a_command_says_what_it_is_for_and_every_argument_has_a_line(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    usage, description, *arguments = capsys.readouterr().out.strip().split("\n\n")
    assert usage.startswith(f"usage: kevynode {command} ")
    assert description[0].isupper()
    assert description.endswith(".")
    # What an argument means stands behind it, or on the next line where it is long; two blanks are between.
    lines = "\n".join(arguments).replace("\n" + 10 * " ", 2 * " ").splitlines()
    told = [line.strip().partition("  ")[2] for line in lines if line.startswith("  ")]
    assert len(told) > 1
    assert all(told)


@pytest.mark.parametrize(
    "arguments", [["run", "--prot", "1"], ["status", "--jso"], ["move-scope", "x:", "y:", "--abort"]]
)
def test_the_usage_is_that_of_the_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    errors = capsys.readouterr().err
    assert errors.startswith(f"usage: kevynode {arguments[0]} ")
    assert f"kevynode {arguments[0]}: error: unrecognized arguments: " in errors


def test_run_passes_every_flag_on(node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = 1\ntimeout = 7\n")
    status = main(
        [
            *("run", "--config", str(file), "--port", "0", "--bind", "127.0.0.1", "--bind", "::1", "--dir", "/data"),
            *("--node-id", "a", "--replicaof", "h:16004", "--no-aof", "--trust-config", "--start-empty"),
            *("--log-level", "warning"),
        ]
    )
    assert status == 0
    config = node.config
    assert config is not None
    assert config.server == kevynode.config.ServerConfig(("127.0.0.1", "::1"), 0, "/data", timeout=7)
    assert (config.replication.role, config.replication.upstream) == ("replica", "h:16004")
    assert (config.persistence.aof, config.cluster.node_id, config.log.level) == (False, "a", "warning")
    assert (config.trust_config, config.start_empty) == (True, True)
    assert capsys.readouterr().err == ""


def test_run_reports_every_mistake_on_a_line_of_its_own(
    node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = -1\nprot = 1\n")
    assert main(["run", "--config", str(file), "--log-level", "loud"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (accepted")[0] for line in lines] == [
        f"kevynode: {file}: server.port: -1 is not accepted",
        f"kevynode: {file}: server.prot: unknown key",
        'kevynode: --log-level: log.level: "loud" is not accepted',
    ]
    assert node.config is None


def test_run_prints_a_start_error_as_one_line(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.failure = StartError("server.port: 6004 is in use\nby another")
    assert main(["run", "--log-level", "error"]) == 1
    assert capsys.readouterr().err == "kevynode: server.port: 6004 is in use by another\n"


def test_a_start_error_stands_in_a_log_file_too(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.failure = StartError("in use")
    monkeypatch.setenv("KEVYNODE_LOG_OUTPUT", str(tmp_path / "log"))
    assert main(["run"]) == 1
    assert capsys.readouterr().err == "kevynode: in use\n"
    assert (tmp_path / "log").read_text().endswith('error start_failed reason="in use"\n')


def test_ctrl_c_before_the_node_watches_signals_is_a_clean_end(node: FakeNode) -> None:
    node.failure = KeyboardInterrupt()
    assert main(["run"]) == 0


def test_a_fault_in_the_node_is_not_hidden(node: FakeNode) -> None:
    node.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["run"])


def test_run_with_a_log_that_cannot_be_opened(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none" / "log"
    monkeypatch.setenv("KEVYNODE_LOG_OUTPUT", str(path))
    assert main(["run"]) == 1
    assert capsys.readouterr().err == f"kevynode: log.output: {path}: No such file or directory\n"
    assert node.config is None


def test_run_logs_warnings_of_the_configuration(
    node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[server]\nthreads = 4\n[log]\noutput = "stdout"\nformat = "json"\n')
    assert main(["run", "--config", str(file)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["config", "serving"]
    assert events[0]["warning"] == f"{file}: server.threads: has no meaning for kevynode and is ignored"


def test_check_config_of_a_good_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The file alone is checked, whatever the environment says.
    monkeypatch.setenv("KEVYNODE_SERVER_PORT", "x")
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = 1\nthreads = 2\n[cluster]\nreplicate = 'none'\n")
    assert main(["check-config", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"warning: {file}: server.threads: has no meaning for kevynode and is ignored",
        f"{file}: good",
    ]


def test_check_config_of_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = -1\n[expiry]\nhz = 0\n")
    assert main(["check-config", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"kevynode: {file}: server.port: -1 is not accepted (accepted: an integer from 0 to 65535)",
        f"kevynode: {file}: expiry.hz: 0 is not accepted (accepted: an integer from 1 to 500)",
    ]


def test_status_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(lambda _: bulk(INFO)) as address:
        assert main(["status", address]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert dict(zip(heading.split(), row.split(), strict=True)) == {
        "NODE": address,
        "ID": "a?[31m",
        "VERSION": "0.1.0",
        "ROLE": "master",
        "SCOPES": "-",
        "OFFSET": "17",
        "REPLICAS": "0",
        "LINK": "-",
        "LAG": "-",
        "CLIENTS": "2",
        "MEMORY": "1.5M",
        "UPTIME": "5",
    }


def test_status_as_json_with_a_node_that_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        down = f"127.0.0.1:{closed.getsockname()[1]}"
    with answering(lambda _: bulk(INFO)) as address:
        assert main(["status", address, down, "nonsense", "--json"]) == 1
    up, refused, nonsense = json.loads(capsys.readouterr().out)
    assert up["ok"] is True
    assert up["info"]["replication"]["role"] == "master"
    assert refused == {"address": down, "ok": False, "error": f"cannot connect to {down}: Connection refused"}
    assert nonsense["error"] == 'nonsense: no address (accepted: "host:port", "[ipv6]:port")'


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            b"-NOAUTH Authentication required.\r\n",
            "NOAUTH Authentication required. REDISCLI_AUTH in the environment is where it is taken from.",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n", "does not speak the Redis protocol"),
        (b"$99999999999\r\n", "does not speak the Redis protocol"),
        (b"$x\r\n", "does not speak the Redis protocol"),
        (b"$-2\r\n", "does not speak the Redis protocol"),
        (b"*1\r\n" * 20, "does not speak the Redis protocol"),
        (b"+" + b"x" * 70_000, "does not speak the Redis protocol"),
        (b"$-1\r\n", "answered INFO with no text"),
        (b"*2\r\n:1\r\n+x\r\n", "answered INFO with no text"),
        (None, "closed the connection"),
    ],
)
def test_status_of_something_else(reply: bytes | None, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(lambda _: reply) as address:
        assert main(["status", address]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("kevynode: ")
    assert expected in captured.err


def test_status_of_a_node_that_hangs_up_in_a_reply(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"$100\r\nhalf")

        thread = threading.Thread(target=serve)
        thread.start()
        assert main(["status", f"127.0.0.1:{listener.getsockname()[1]}"]) == 1
        thread.join(10)
    assert "closed the connection" in capsys.readouterr().err


def test_ctrl_c_while_the_command_is_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loading(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "kevynode.cli_commands", Loading("kevynode.cli_commands"))
    assert main(["status"]) == 130


def test_a_reader_who_has_had_enough_is_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = 1\n")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "kevynode", "check-config", str(file)]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["import", "x", "--scope", ""], "argument --scope: the prefix is empty"),
        (["import", "x", "--database", "-1"], "argument --database: '-1' is no number of a database"),
        (["export", "--scope", ""], "argument --scope: the prefix is empty"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_the_module_runs_like_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "kevynode", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"kevynode {kevynode.__version__} ({IMPLEMENTATION})\n"


def test_public_names_load_on_first_use_and_pull_in_no_trio() -> None:
    code = (
        "import sys, kevynode\n"
        "assert not [name for name in sys.modules if name.startswith('kevynode.')]\n"
        "kevynode.NodeConfig, kevynode.Misdirected, kevynode.Quiesced, kevynode.ReplyError, kevynode.ConfigError\n"
        "import kevynode.cli\n"
        "assert 'trio' not in sys.modules\n"
        "assert set(kevynode.__all__) <= set(dir(kevynode))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kevynode.nothing  # noqa: B018
