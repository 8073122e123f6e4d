"""INFO, MEMORY, TIME, ROLE, WAIT, SHUTDOWN: the node as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from support.session_harness import Client, ServerHarness, request

from kevynode.config import NodeConfig
from kevynode.errors import ReplyError
from kevynode.probe import parse_info
from kevynode.process import Process
from kevynode.serve.info import human_size
from kevynode.serve.parameters import Parameters
from kevynode.serve.process_facts import CpuTimes
from kevynode.serve.server import Shutdown

# Fields that monitoring tools read, by section.
EXPECTED = {
    "server": "redis_version server_name kevynode_version implementation redis_mode os process_id run_id tcp_port hz "
    "uptime_in_seconds uptime_in_days",
    "clients": "connected_clients maxclients blocked_clients pubsub_clients watching_clients paused_actions",
    "memory": "used_memory used_memory_human used_memory_rss used_memory_peak used_memory_dataset total_system_memory "
    "maxmemory maxmemory_policy mem_fragmentation_ratio mem_clients_normal",
    "persistence": "loading rdb_changes_since_last_save rdb_last_save_time rdb_last_bgsave_status aof_enabled",
    "stats": "total_connections_received total_commands_processed instantaneous_ops_per_sec total_net_input_bytes "
    "total_net_output_bytes rejected_connections expired_keys evicted_keys keyspace_hits keyspace_misses "
    "pubsub_channels total_error_replies unexpected_error_replies",
    "replication": "role connected_slaves master_replid master_repl_offset repl_backlog_size",
    "cpu": "used_cpu_sys used_cpu_user",
    "cluster": "cluster_enabled",
}


class FakeProcess:
    """A process with round numbers."""

    pid = 42
    executable = "/bin/python"
    system = "Linux 6 x86_64"
    multiplexing = "epoll"
    system_memory = 1 << 30

    def resident(self) -> int:
        return 64 << 20

    def cpu(self) -> CpuTimes:
        return CpuTimes(1.5, 2.25, 0.0, 0.5)


@pytest.fixture
def node() -> ServerHarness:
    node = ServerHarness()
    node.server.parameters = Parameters(node.server, NodeConfig())
    node.server.process = FakeProcess()
    node.server.listeners = [("tcp", "127.0.0.1", 6004), ("unix", "/run/k.sock", 0)]
    return node


def info(client: Client, *sections: str) -> dict[str, dict[str, str]]:
    answer = client.call("INFO", *sections)
    assert answer.startswith(b"$")
    return parse_info(answer.partition(b"\r\n")[2].decode())


def headings(client: Client, *sections: str) -> list[str]:
    text = client.call("INFO", *sections).decode()
    return [line[2:] for line in text.split("\r\n") if line.startswith("# ")]


def test_sections_and_their_order(node: ServerHarness) -> None:
    client = node.connect()
    plain = "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster Keyspace".split()
    assert headings(client) == plain
    assert headings(client, "default") == plain
    everything = headings(client, "everything")
    assert everything == headings(client, "ALL")
    assert everything[7:11] == ["Modules", "Commandstats", "Errorstats", "Latencystats"]
    assert headings(client, "keyspace", "CPU", "commandstats", "cpu") == ["CPU", "Commandstats", "Keyspace"]
    assert client.call("INFO", "never") == b"$0\r\n\r\n"
    client.call("HELLO", "3")
    assert client.call("INFO", "cluster") == b"=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n"


@pytest.mark.parametrize("section", EXPECTED)
def test_fields_that_tools_read(node: ServerHarness, section: str) -> None:
    found = info(node.connect())[section]
    assert set(EXPECTED[section].split()) <= set(found)


def test_identity_and_facts_of_the_process(node: ServerHarness) -> None:
    node.server.version = "1.2.3"
    node.advance(90_000)
    found = info(node.connect(), "server", "cpu", "memory")
    server = found["server"]
    assert (server["redis_version"], server["server_name"], server["kevynode_version"]) == (
        "7.2.4",
        "kevynode",
        "1.2.3",
    )
    assert (server["tcp_port"], server["process_id"], server["uptime_in_days"]) == ("6004", "42", "1")
    assert server["listener0"] == "name=tcp,bind=127.0.0.1,port=6004"
    assert server["listener1"] == "name=unix,path=/run/k.sock"
    assert len(server["run_id"]) == 40
    assert found["cpu"]["used_cpu_user"] == "2.250000"
    assert found["memory"]["used_memory_rss"] == str(64 << 20)
    assert found["memory"]["total_system_memory_human"] == "1.00G"


def test_without_facts_of_the_process_their_fields_are_left_out(node: ServerHarness) -> None:
    node.server.process = None
    found = info(node.connect())
    assert "used_memory_rss" not in found["memory"]
    assert "process_id" not in found["server"]
    assert "cpu" not in found


def test_clients_are_counted_by_what_they_do(node: ServerHarness) -> None:
    me, waiter, listener, watcher = (node.connect() for _ in range(4))
    waiter.call("BLPOP", "a", "b", "5")
    listener.call("SUBSCRIBE", "x")
    watcher.call("WATCH", "k", "l")
    me.call("CLIENT", "PAUSE", "5000", "WRITE")
    found = info(me)["clients"]
    assert found["connected_clients"] == "4"
    assert (found["blocked_clients"], found["clients_in_timeout_table"]) == ("1", "1")
    assert found["total_blocking_keys"] == "2"
    assert found["pubsub_clients"] == "1"
    assert (found["watching_clients"], found["total_watched_keys"]) == ("1", "2")
    assert (found["paused_reason"], found["paused_actions"]) == ("client_pause", "write")
    assert found["paused_timeout_milliseconds"] == "5000"


def test_memory_adds_up(node: ServerHarness) -> None:
    client = node.connect()
    before = info(client, "memory")["memory"]
    for number in range(100):
        client.call("SET", f"key{number}", "x" * 1000)
    client.call("CONFIG", "SET", "maxmemory", "10mb")
    after = info(client, "memory")["memory"]
    grown = int(after["used_memory"]) - int(before["used_memory"])
    assert 100_000 < grown < 130_000
    assert int(after["used_memory"]) == int(after["used_memory_overhead"]) + int(after["used_memory_dataset"])
    assert int(after["used_memory_peak"]) >= int(after["used_memory"])
    assert (after["maxmemory"], after["maxmemory_human"]) == (str(10 << 20), "10.00M")
    client.call("FLUSHALL")
    assert int(info(client, "memory")["memory"]["used_memory_peak"]) >= int(after["used_memory"])


def test_counters(node: ServerHarness) -> None:
    client = node.connect()
    client.call("SET", "a", "1")
    client.call("GET", "a")
    client.call("GET", "b")
    client.call("INCR", "never", "x")
    client.call("LPUSH", "a", "x")
    found = info(client, "all")
    assert (found["stats"]["keyspace_hits"], found["stats"]["keyspace_misses"]) == ("1", "1")
    assert found["stats"]["total_error_replies"] == "2"
    assert found["errorstats"] == {"errorstat_ERR": "count=1", "errorstat_WRONGTYPE": "count=1"}
    assert found["commandstats"]["cmdstat_get"].startswith("calls=2,usec=")
    assert found["commandstats"]["cmdstat_incr"].endswith("rejected_calls=1,failed_calls=0")
    assert found["commandstats"]["cmdstat_lpush"].endswith("rejected_calls=0,failed_calls=1")
    assert found["persistence"]["rdb_changes_since_last_save"] == "1"


def test_nodes_in_one_process_count_for_themselves(node: ServerHarness) -> None:
    client, other = node.connect(), ServerHarness()
    neighbour = other.connect()
    client.call("SET", "a", "1")
    client.call("INCR", "never", "x")
    client.call("LPUSH", "a", "x")
    client.call("CLIENT", "ID")
    assert info(neighbour, "stats")["stats"]["total_commands_processed"] == "0"
    assert list(info(neighbour, "commandstats")["commandstats"]) == ["cmdstat_info"]
    neighbour.call("SET", "a", "1")
    neighbour.call("CONFIG", "RESETSTAT")
    found = info(client, "all")
    assert found["stats"]["total_commands_processed"] == "3"
    assert set(found["commandstats"]) == {"cmdstat_set", "cmdstat_incr", "cmdstat_lpush", "cmdstat_client|id"}
    assert found["commandstats"]["cmdstat_incr"].endswith("rejected_calls=1,failed_calls=0")
    assert found["commandstats"]["cmdstat_lpush"].endswith("rejected_calls=0,failed_calls=1")


def test_rates_come_from_samples(node: ServerHarness) -> None:
    client = node.connect()
    node.server.rates.sample()
    for _ in range(50):
        client.call("PING")
    node.advance(0.5)
    node.server.rates.sample()
    found = info(client, "stats")["stats"]
    assert found["instantaneous_ops_per_sec"] == "100"
    # 14 bytes each.
    assert found["instantaneous_input_kbps"] == f"{50 * 14 / 0.5 / 1024:.2f}"
    node.server.rates.reset()
    assert info(client, "stats")["stats"]["instantaneous_ops_per_sec"] == "0"


def test_keyspace(node: ServerHarness) -> None:
    client = node.connect()
    assert "keyspace" not in info(client, "keyspace")
    client.call("SET", "a", "1")
    client.call("SET", "b", "1", "PX", "1000")
    client.call("SET", "c", "1", "PX", "3000")
    client.call("HSET", "h", "f", "v")
    client.call("HEXPIRE", "h", "100", "FIELDS", "1", "f")
    assert info(client, "keyspace")["keyspace"]["db0"] == "keys=4,expires=2,avg_ttl=2000,keys_with_volatile_items=1"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1536, "1.50K"), (1 << 20, "1.00M"), (5 << 40, "5.00T")],
)
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


def test_this_process() -> None:
    process = Process()
    assert process.pid > 0
    assert 1 << 20 < process.resident() < 1 << 40
    assert process.system_memory > process.resident()
    assert process.cpu().user > 0
    assert process.system


def test_memory_commands(node: ServerHarness) -> None:
    client = node.connect()
    client.call("SET", "a", "1")
    client.call("HELLO", "3")
    stats = client.call("MEMORY", "STATS")
    for name in (
        b"peak.allocated",
        b"total.allocated",
        b"db.0",
        b"keys.count",
        b"dataset.percentage",
        b"fragmentation",
    ):
        assert b"\r\n" + name + b"\r\n" in stats
    assert client.call("MEMORY", "DOCTOR").startswith(b"=")
    assert client.call("MEMORY", "PURGE") == b"+OK\r\n"
    assert client.call("MEMORY", "MALLOC-STATS") == b"$45\r\nStats not supported for the current allocator\r\n"
    assert b"+USAGE key [SAMPLES count]\r\n" in client.call("MEMORY", "HELP")


def test_doctor_names_what_is_wrong(node: ServerHarness) -> None:
    client = node.connect()
    client.call("SET", "a", "x" * (8 << 20))
    node.server.rates.memory()
    client.call("SET", "b", "x" * (8 << 20))
    node.server.rates.memory()
    client.call("DEL", "b")
    answer = client.call("MEMORY", "DOCTOR")
    assert b"The peak was" in answer
    assert b"The process holds" in answer


def test_time_lastsave_role(node: ServerHarness) -> None:
    client = node.connect()
    node.wall += 123
    assert client.call("TIME") == b"*2\r\n$10\r\n1700000000\r\n$6\r\n123000\r\n"
    assert client.call("LASTSAVE") == b":1700000000\r\n"
    client.call("SET", "a", "1")
    assert client.call("ROLE") == b"*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n"


def test_wait_without_replicas(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("WAIT", "0", "0") == b":0\r\n"
    assert client.call("WAIT", "-1", "10") == b":0\r\n"
    assert client.send(request("WAIT", "1", "100") + request("PING")) == b""
    node.advance(0.2)
    assert client.read() == b":0\r\n+PONG\r\n"
    assert client.call("WAITAOF", "0", "0", "10") == b"*2\r\n:0\r\n:0\r\n"
    assert client.call("WAITAOF", "0", "2", "100") == b""
    node.advance(0.2)
    assert client.read() == b"*2\r\n:0\r\n:0\r\n"
    # Nobody waits inside a transaction.
    client.call("MULTI")
    client.call("WAIT", "1", "0")
    assert client.call("EXEC") == b"*1\r\n:0\r\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("WAIT", "x", "1"), "ERR value is not an integer or out of range"),
        (("WAIT", "1", "x"), "ERR timeout is not an integer or out of range"),
        (("WAIT", "1", "-1"), "ERR timeout is negative"),
        (("WAITAOF", "2", "0", "1"), "ERR value is out of range, value must between 0 and 1"),
        (("WAITAOF", "0", "-1", "1"), "ERR value is out of range, must be positive"),
        (("WAITAOF", "1", "0", "1"), "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."),
        (("SHUTDOWN", "never"), "ERR syntax error"),
        (("SHUTDOWN", "SAVE", "NOSAVE"), "ERR syntax error"),
        (("SHUTDOWN", "ABORT", "NOW"), "ERR syntax error"),
        (("SHUTDOWN", "ABORT"), "ERR No shutdown in progress."),
        (("SHUTDOWN",), "ERR Errors trying to SHUTDOWN. Check logs."),
    ],
)
def test_errors(node: ServerHarness, words: tuple[str, ...], error: str) -> None:
    assert node.connect().call(*words) == f"-{error}\r\n".encode()


@pytest.mark.parametrize(
    ("words", "wish"),
    [
        ((), Shutdown()),
        (("NOSAVE",), Shutdown(save=False)),
        (("save", "now", "FORCE"), Shutdown(save=True, now=True, force=True)),
    ],
)
def test_shutdown_asks_the_node_and_answers_nothing(
    node: ServerHarness, words: tuple[str, ...], wish: Shutdown
) -> None:
    wishes: list[Any] = []
    node.server.on_shutdown = wishes.append
    assert node.connect().call("SHUTDOWN", *words) == b""
    assert wishes == [wish]


def test_a_refused_shutdown_is_an_error(node: ServerHarness) -> None:
    def refuse(wish: Shutdown) -> None:
        raise ReplyError("ERR", "not now")

    node.server.on_shutdown = refuse
    assert node.connect().call("SHUTDOWN") == b"-ERR not now\r\n"


def test_monitor_sees_commands_but_no_administration_and_no_passwords(node: ServerHarness) -> None:
    watcher, client = node.connect(), node.connect()
    assert watcher.call("MONITOR") == b"+OK\r\n"
    client.call("SET", "a", b'x"\\\n\x00\xff')
    client.call("CONFIG", "GET", "hz")
    client.call("HELLO", "2", "AUTH", "default", "hunter2")
    client.call("MULTI")
    client.call("GET", "a")
    client.call("EXEC")
    start = "+1700000000.000000 [0 127.0.0.1:50000] "
    assert watcher.read().decode() == "".join(
        start + line + "\r\n"
        for line in (
            r'"SET" "a" "x\"\\\n\x00\xff"',
            '"HELLO" "2" "AUTH" "(redacted)" "(redacted)"',
            '"MULTI"',
            '"GET" "a"',
            '"EXEC"',
        )
    )
    assert watcher.call("RESET") == b"+RESET\r\n"
    client.call("GET", "a")
    assert watcher.read() == b""
    assert not node.server.gates
