"""How a node starts: where it listens, what it takes from file, environment and flags, what stops it from starting."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from e2e.commands import kevynode, start_error
from support.node_process import NodeProcess
from support.raw_client import RawClient, Reply

PONG = Reply("simple", b"PONG")


def can_listen_on(address: str) -> bool:
    """Whether this machine has the address."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not can_listen_on("::1"), reason="this machine has no ::1")
needs_second_address = pytest.mark.skipif(not can_listen_on("127.0.0.2"), reason="this machine has no 127.0.0.2")


def info_field(client: RawClient, name: bytes) -> bytes:
    """One field of INFO."""
    text = client.call(b"INFO", b"everything").value
    assert isinstance(text, bytes)
    found = re.search(rb"(?m)^" + name + rb":(.*?)\r?$", text)
    assert found, (name, text)
    return found[1]


def test_the_ready_line_says_who_and_where() -> None:
    with NodeProcess() as node:
        assert re.fullmatch(r"kevynode ready id=[0-9a-f]{40} client=127\.0\.0\.1:\d+ replication=\S+", node.ready_line)
        assert node.port > 0
        with RawClient("127.0.0.1", node.port) as client:
            assert client.call(b"PING") == PONG
        node.check_health()


def test_two_starts_are_two_identities() -> None:
    with NodeProcess() as first, NodeProcess() as second:
        assert first.node_id != second.node_id
        assert first.port != second.port


@needs_ipv6
def test_ipv6_alone() -> None:
    with NodeProcess("--bind", "::1") as node:
        assert f" client=[::1]:{node.port} " in node.ready_line
        with RawClient("::1", node.port) as client:
            assert client.call(b"PING") == PONG
            listed = client.call(b"CLIENT", b"LIST").value.decode()
            assert re.search(rf"addr=\[::1\]:\d+ laddr=\[::1\]:{node.port} ", listed)
        with pytest.raises(ConnectionRefusedError):
            RawClient("127.0.0.1", node.port)
        node.check_health()


@needs_second_address
@needs_ipv6
def test_several_addresses_have_one_port() -> None:
    addresses = ("127.0.0.2", "::1", "127.0.0.1")
    with NodeProcess(*(word for address in addresses for word in ("--bind", address))) as node:
        assert f" client=127.0.0.2:{node.port} " in node.ready_line
        for number, address in enumerate(addresses):
            with RawClient(address, node.port) as client:
                assert client.call(b"INCR", b"visits") == Reply("integer", number + 1)
        node.check_health()


@needs_ipv6
def test_addresses_may_stand_in_the_file_as_a_list() -> None:
    with NodeProcess(config='[server]\nbind = ["127.0.0.1", "::1"]\n') as node:
        for address in ("127.0.0.1", "::1"):
            with RawClient(address, node.port) as client:
                assert client.call(b"PING") == PONG


def test_every_address_of_the_machine() -> None:
    with NodeProcess("--bind", "*") as node:
        assert f" client=0.0.0.0:{node.port} " in node.ready_line
        with RawClient("127.0.0.1", node.port) as client:
            assert client.call(b"PING") == PONG


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = '[cluster]\nnode_id = "from-file"\n[log]\nlevel = "error"\n'
    environment = {"KEVYNODE_CLUSTER_NODE_ID": "from-environment"}
    with NodeProcess(config=file) as node:
        assert node.node_id == "from-file"
        assert node.log() == ""
    with NodeProcess(config=file, environment=environment) as node:
        assert node.node_id == "from-environment"
    with NodeProcess("--node-id", "from-flag", config=file, environment=environment) as node:
        assert node.node_id == "from-flag"
    with NodeProcess("--log-level", "info", config=file) as node:
        assert " info started " in node.log()


def test_what_kubernetes_puts_into_the_environment_does_no_harm() -> None:
    environment = {
        "KEVYNODE_SERVICE_HOST": "10.0.0.1",
        "KEVYNODE_SERVICE_PORT": "6004",
        "KEVYNODE_PORT": "tcp://10.0.0.1:6004",
        "KEVYNODE_PORT_6004_TCP": "tcp://10.0.0.1:6004",
        "KEVYNODE_SOMETHING_ELSE": "1",
    }
    with NodeProcess(environment=environment) as node:
        warnings = [line for line in node.log().splitlines() if " warning " in line]
        assert len(warnings) == 1
        assert "KEVYNODE_SOMETHING_ELSE" in warnings[0]
        node.check_health()


def test_a_log_of_json_objects() -> None:
    with NodeProcess(environment={"KEVYNODE_LOG_FORMAT": "json", "KEVYNODE_LOG_LEVEL": "debug"}) as node:
        with RawClient(node.host, node.port) as client:
            # A client that hangs up and one that sends nonsense both leave lines.
            client.send_raw(b"*1\r\n!nonsense\r\n")
            assert client.read().kind == "error"
        node.wait_until(lambda: "client_closed" in node.log(), "the end of a client is logged")
        events = [json.loads(line) for line in node.log().splitlines()]
    assert all(event.keys() >= {"time", "level", "event"} for event in events)
    assert {event["event"] for event in events} >= {"started", "protocol_error", "client_closed"}


def test_the_log_may_go_to_standard_output() -> None:
    with NodeProcess("--log-level", "error", environment={"KEVYNODE_LOG_OUTPUT": "stdout"}) as node:
        assert node.ready_line.startswith("kevynode ready ")
        assert node.log() == ""


def test_an_address_of_another_machine_is_a_start_error() -> None:
    said = start_error("--port", "0", "--bind", "192.0.2.1")
    assert said.startswith("server.bind: ")
    assert "192.0.2.1" in said


def test_a_port_in_use_names_key_and_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = start_error("--port", str(port))
    assert said == f"server.bind: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_a_log_that_cannot_be_opened_is_a_start_error(tmp_path: Path) -> None:
    path = str(tmp_path / "no such folder" / "log")
    said = start_error("--port", "0", environment={"KEVYNODE_LOG_OUTPUT": path})
    assert said == f"log.output: {path}: No such file or directory"


def test_check_config_and_run_find_the_same_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        '[server]\nport = 65536\nbindd = "x"\nmaxclients = 0\n[expiry]\nhz = 0\n[nonsense]\n[config]\nno-such = 1\n'
    )
    checked = kevynode("check-config", str(file))
    ran = kevynode("run", "--config", str(file))
    assert (checked.returncode, checked.stdout) == (ran.returncode, ran.stdout) == (1, "")
    assert checked.stderr == ran.stderr
    lines = checked.stderr.splitlines()
    assert all(line.startswith(f"kevynode: {file}: ") for line in lines)
    for path in ("server.port", "server.bindd", "server.maxclients", "expiry.hz", "nonsense", "config.no-such"):
        assert sum(f" {path}: " in line for line in lines) == 1, (path, lines)
    assert len(lines) == 6


def test_check_config_of_a_good_file_and_of_none(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[server]\nport = 0\n[config]\nnotify-keyspace-events = "KEA"\n')
    good = kevynode("check-config", str(file))
    assert (good.returncode, good.stdout, good.stderr) == (0, f"{file}: good\n", "")
    missing = kevynode("check-config", str(tmp_path / "missing.toml"))
    assert (missing.returncode, missing.stdout) == (1, "")
    assert re.fullmatch(r"kevynode: .*missing\.toml.*\n", missing.stderr)


def test_a_file_that_is_no_toml_says_where(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = = 1\n")
    said = start_error("--config", str(file))
    assert said.startswith(f"{file}: ")
    assert "line 2" in said


def test_status_of_a_running_node_and_of_none() -> None:
    with NodeProcess("--node-id", "one") as node, RawClient(node.host, node.port):
        address = f"127.0.0.1:{node.port}"
        table = kevynode("status", address)
        assert (table.returncode, table.stderr) == (0, "")
        heading, row = table.stdout.splitlines()
        shown = dict(zip(heading.split(), row.split(), strict=True))
        assert shown["NODE"] == address
        assert shown["ROLE"] == "master"
        [state] = json.loads(kevynode("status", "--json", address).stdout)
        assert state["address"] == address
        assert state["ok"] is True
        assert state["info"]["server"]["server_name"] == "kevynode"
        node.check_health()
    gone = kevynode("status", "--json", address)
    assert gone.returncode == 1
    [state] = json.loads(gone.stdout)
    assert state["ok"] is False


def test_the_configuration_reaches_the_running_node() -> None:
    config = '[server]\nmaxclients = 77\ntimeout = 500\n[memory]\nmaxmemory = "64mb"\n[config]\nslowlog-max-len = 12\n'
    expected = {b"maxclients": b"77", b"timeout": b"500", b"maxmemory": b"67108864", b"slowlog-max-len": b"12"}
    with NodeProcess("--node-id", "one", config=config) as node, RawClient(node.host, node.port) as client:
        for name, value in expected.items():
            assert client.call(b"CONFIG", b"GET", name).elements == (Reply("bulk", name), Reply("bulk", value))
        assert client.call(b"CONFIG", b"GET", b"port").elements[1] == Reply("bulk", b"%d" % node.port)
        assert client.call(b"CONFIG", b"GET", b"dir").elements[1].value.decode() == str(node.directory)
        assert info_field(client, b"tcp_port") == b"%d" % node.port
        assert info_field(client, b"node_id") == b"one"
        assert info_field(client, b"maxclients") == b"77"
        assert info_field(client, b"process_id") == b"%d" % node.pid
        assert info_field(client, b"kevynode_version") != b""
