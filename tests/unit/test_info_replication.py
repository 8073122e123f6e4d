"""What INFO, CONFIG and the status command tell of replication, against one that the test plays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.fake_replication import FakeReplication, replica, upstream
from support.session_harness import Client, ServerHarness

from kevynode.cli import main
from kevynode.config import NodeConfig
from kevynode.probe import parse_info
from kevynode.replication_view import BacklogFacts, SyncFacts
from kevynode.serve.info import info_text
from kevynode.serve.parameters import Parameters
from kevynode.status import replication_state, tables


@pytest.fixture
def fake(node: ServerHarness) -> FakeReplication:
    return FakeReplication(node)


@pytest.fixture
def client(node: ServerHarness, fake: FakeReplication) -> Client:
    return node.connect()


def section(node: ServerHarness, name: str) -> dict[str, str]:
    return parse_info(info_text(node.server, [name]))[name]


def replicas_of(sections: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    found = replication_state(sections)["replicas"]
    assert isinstance(found, list)
    return found


def test_a_lone_primary(node: ServerHarness) -> None:
    node.server.parameters = Parameters(node.server)
    node.connect().call("SET", "k", "v")
    fields = section(node, "replication")
    assert list(fields.items())[:4] == [
        ("role", "master"),
        ("connected_slaves", "0"),
        ("replicas_waiting_psync", "0"),
        ("master_failover_state", "no-failover"),
    ]
    assert fields["master_replid"] == f"{node.server.view.history:040x}" == node.server.history_id
    assert fields["master_replid2"] == "0" * 40
    assert (fields["master_repl_offset"], fields["second_repl_offset"]) == ("1", "-1")
    assert (fields["repl_backlog_active"], fields["repl_backlog_size"]) == ("0", str(256 << 20))
    assert (fields["repl_backlog_first_byte_offset"], fields["repl_backlog_histlen"]) == ("0", "0")


def test_a_primary(node: ServerHarness, fake: FakeReplication) -> None:
    fake.fixed_position = 100
    fake.previous = (0xDEF, 40)
    fake.replica_list = [replica(state="waiting", replica_id="away", silence=30.0), replica(prefixes=(b"a:", b"b:"))]
    fake.backlog_facts = BacklogFacts(active=True, budget=1 << 20, memory=5000, first=20, next=100)
    fields = section(node, "replication")
    assert (fields["role"], fields["connected_slaves"]) == ("master", "1")
    assert fields["slave0"] == (
        "ip=10.0.0.2,port=6005,state=online,offset=90,sent=100,lag=1,type=replica,id=r1,lag_frames=10,lag_bytes=420,"
        "lag_ms=7,prefixes=2,last_sync=full,last_sync_ms=12,last_sync_bytes=4096,last_sync_reason=no cursor"
    )
    assert fields["slave1"].startswith("ip=10.0.0.2,port=6005,state=waiting,offset=90,sent=100,lag=30,")
    assert (fields["master_replid"], fields["master_repl_offset"]) == (f"{0xABC:040x}", "100")
    assert (fields["master_replid2"], fields["second_repl_offset"]) == (f"{0xDEF:040x}", "40")
    assert (fields["repl_backlog_active"], fields["repl_backlog_size"]) == ("1", "1048576")
    assert (fields["repl_backlog_first_byte_offset"], fields["repl_backlog_histlen"]) == ("20", "80")
    memory = section(node, "memory")
    assert memory["mem_replication_backlog"] == memory["mem_total_replication_buffers"] == "5000"
    assert memory["mem_not_counted_for_evict"] == "5000"
    assert int(memory["used_memory"]) == node.server.rates.memory() + 5000
    assert int(memory["used_memory_peak"]) >= int(memory["used_memory"])
    assert "master_host" not in fields


def test_words_from_elsewhere_cannot_forge_a_field(node: ServerHarness, fake: FakeReplication) -> None:
    evil = "x,state=online\r\nrole:slave"
    fake.replica_list = [replica(replica_id=evil, last_sync=SyncFacts("partial", evil, None))]
    text = info_text(node.server, ["replication"])
    assert text.count("\r\nrole:") == 1
    [facts] = replicas_of(parse_info(text))
    assert (facts["id"], facts["state"]) == ("x;state:online??role:slave", "online")
    assert facts["last_sync_reason"] == "x;state:online??role:slave"
    assert "last_sync_ms" not in facts


def test_good_replicas_are_counted_where_they_are_asked_for(client: Client, fake: FakeReplication) -> None:
    fake.good = 2
    assert b"min_slaves_good_slaves" not in client.call("INFO", "replication")
    client.call("CONFIG", "SET", "min-replicas-to-write", "1")
    assert b"\r\nmin_slaves_good_slaves:2\r\n" in client.call("INFO", "replication")
    client.call("CONFIG", "SET", "min-slaves-max-lag", "0")
    assert b"min_slaves_good_slaves" not in client.call("INFO", "replication")


def test_a_replica(node: ServerHarness, fake: FakeReplication) -> None:
    node.server.become_replica(read_only=True)
    fake.fixed_position = 95
    fake.upstream_list = [upstream()]
    fields = section(node, "replication")
    assert list(fields)[:6] == [
        "role",
        "master_host",
        "master_port",
        "master_link_status",
        "master_last_io_seconds_ago",
        "master_sync_in_progress",
    ]
    expected = {
        "role": "slave",
        "master_host": "10.0.0.1",
        "master_port": "16004",
        "master_link_status": "up",
        "master_last_io_seconds_ago": "0",
        "master_sync_in_progress": "0",
        "slave_read_repl_offset": "95",
        "slave_repl_offset": "95",
        "slave_lag_frames": "5",
        "slave_lag_ms": "3",
        "slave_read_only": "1",
        "slave_priority": "100",
        "connected_slaves": "0",
        "master_repl_offset": "95",
        "upstream0": "host=10.0.0.1,port=16004,state=connected,applied=95,announced=100,lag_frames=5,lag_ms=3,"
        "last_sync=partial,last_sync_ms=1,last_sync_bytes=0,last_sync_reason=resumed",
    }
    assert {name: fields.get(name) for name in expected} == expected
    assert not fields.keys() & {"master_link_down_since_seconds", "master_sync_read_bytes"}


def test_a_replica_that_has_lost_its_primary(node: ServerHarness, fake: FakeReplication) -> None:
    node.server.become_replica(read_only=False)
    fake.upstream_list = [upstream(state="connect", problem="refused", down=12.7, staleness_ms=None, last_sync=None)]
    fields = section(node, "replication")
    assert (fields["master_link_status"], fields["master_last_io_seconds_ago"]) == ("down", "-1")
    assert (fields["master_link_down_since_seconds"], fields["slave_read_only"]) == ("12", "0")
    assert fields["upstream0"].endswith(",lag_frames=5,problem=refused")
    assert "slave_lag_ms" not in fields


def test_a_replica_that_receives_a_snapshot(node: ServerHarness, fake: FakeReplication) -> None:
    node.server.become_replica(read_only=True)
    fake.upstream_list = [upstream(), upstream(port=16005, state="sync", sync_bytes=77, down=0.5, silence=None)]
    fields = section(node, "replication")
    # Of several the worst is shown under Valkey's names.
    assert (fields["master_port"], fields["master_link_status"]) == ("16005", "down")
    assert (fields["master_sync_in_progress"], fields["master_sync_read_bytes"]) == ("1", "77")
    assert fields["master_sync_last_io_seconds_ago"] == "-1"
    assert fields["slave_lag_frames"] == "10"
    assert "sync_bytes=77" in fields["upstream1"]


def test_traffic_and_its_reset(client: Client, node: ServerHarness, fake: FakeReplication) -> None:
    fake.full_syncs, fake.partial_syncs, fake.partial_refused = 3, 2, 1
    fake.sent_bytes, fake.received_bytes = 5000, 700
    fields = section(node, "stats")
    assert (fields["sync_full"], fields["sync_partial_ok"], fields["sync_partial_err"]) == ("3", "2", "1")
    assert (fields["total_net_repl_output_bytes"], fields["total_net_repl_input_bytes"]) == ("5000", "700")
    assert int(fields["total_net_output_bytes"]) == node.server.statistics.output_bytes + 5000
    client.call("CONFIG", "RESETSTAT")
    fake.sent_bytes += 1
    fields = section(node, "stats")
    assert (fields["sync_full"], fields["total_net_repl_output_bytes"]) == ("0", "1")
    assert fields["total_net_repl_input_bytes"] == "0"


def test_the_rates_of_replication(node: ServerHarness, fake: FakeReplication) -> None:
    node.server.rates.sample()
    fake.sent_bytes, fake.received_bytes = 4096, 2048
    node.advance(2)
    node.server.rates.sample()
    fields = section(node, "stats")
    assert fields["instantaneous_output_repl_kbps"] == fields["instantaneous_output_kbps"] == "2.00"
    assert fields["instantaneous_input_repl_kbps"] == "1.00"


def test_the_history_belongs_to_replication(client: Client) -> None:
    client.call("CONFIG", "GET", "port")
    client.session.server.parameters.put("enable-debug-command", "yes")  # type: ignore[union-attr]
    assert client.call("DEBUG", "CHANGE-REPL-ID").startswith(b"-ERR the history of a node")


# -- parameters -----------------------------------------------------------------------------------------------------


def test_parameters_reach_those_who_watch(node: ServerHarness) -> None:
    config = NodeConfig.from_dict(
        {"replication": {"min_replicas_max_lag_ms": 2500, "min_replicas_to_write": 1, "replication_buffer_size": 4096}}
    )
    parameters = node.server.parameters = Parameters(node.server, config)
    heard: list[tuple[str, Any]] = []
    for name in ("repl-backlog-size", "min-replicas-to-write", "min-replicas-max-lag", "replica-read-only"):
        parameters.watch(name, lambda value, name=name: heard.append((name, value)))  # type: ignore[misc]
    assert [value for _, value in heard] == [4096, 1, 2500, True]
    heard.clear()
    client = node.connect()
    # Milliseconds that were configured are shown as what they are; Valkey's seconds are whole.
    assert client.call("CONFIG", "GET", "min-slaves-max-lag").endswith(b"$3\r\n2.5\r\n")
    assert client.call("CONFIG", "SET", "min-slaves-max-lag", "3", "repl-backlog-size", "1mb") == b"+OK\r\n"
    assert client.call("CONFIG", "SET", "min-replicas-to-write", "0", "slave-read-only", "no") == b"+OK\r\n"
    assert heard == [
        ("min-replicas-max-lag", 3000),
        ("repl-backlog-size", 1 << 20),
        ("min-replicas-to-write", 0),
        ("replica-read-only", False),
    ]
    assert client.call("CONFIG", "GET", "min-replicas-max-lag").endswith(b"$1\r\n3\r\n")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("2.5", "argument couldn't be parsed into an integer"),
        ("-1", "argument must be between 0 and 2147483647 inclusive"),
        ("10s", "argument couldn't be parsed into an integer"),
    ],
)
def test_a_lag_that_will_not_do(client: Client, value: str, complaint: str) -> None:
    assert client.call("CONFIG", "SET", "min-replicas-max-lag", value) == (
        f"-ERR CONFIG SET failed (possibly related to argument 'min-replicas-max-lag') - {complaint}\r\n".encode()
    )


# -- status ---------------------------------------------------------------------------------------------------------

VALKEY_REPLICA = {
    "replication": {
        "role": "slave",
        "master_host": "127.0.0.1",
        "master_port": "7801",
        "master_link_status": "up",
        "slave_repl_offset": "14",
        "slave0": "ip=::1,port=7802,state=online,offset=14,lag=1,type=replica",
    }
}


def test_status_of_a_primary_and_its_replica(node: ServerHarness, fake: FakeReplication) -> None:
    fake.replica_list = [replica(replica_id="42")]
    primary = parse_info(info_text(node.server, ["replication"]))
    other = ServerHarness()
    copies = FakeReplication(other)
    other.server.become_replica(read_only=True)
    copies.upstream_list = [upstream(problem="it is slow")]
    copy = parse_info(info_text(other.server, ["replication"]))
    nodes, replicas, upstreams = tables([("a:1", primary), ("b:1", copy)])
    assert [row[0] for row in nodes] == ["NODE", "a:1", "b:1"]
    assert dict(zip(nodes[0], nodes[2], strict=True))["LAG"] == "5"
    assert dict(zip(*replicas, strict=True)) == {
        "NODE": "a:1",
        "REPLICA": "10.0.0.2:6005",
        "ID": "42",
        "STATE": "online",
        "ACKED": "90",
        "SENT": "100",
        "LAG": "10 frames 420 B 7 ms",
        "LAST SYNC": "full 12 ms 4096 B: no cursor",
    }
    assert dict(zip(*upstreams, strict=True)) == {
        "NODE": "b:1",
        "FOLLOWS": "10.0.0.1:16004",
        "STATE": "connected",
        "APPLIED": "95",
        "ANNOUNCED": "100",
        "LAG": "5 frames",
        "AGE": "3 ms",
        "LAST SYNC": "partial 1 ms 0 B: resumed",
        "PROBLEM": "it is slow",
    }
    state = replication_state(primary)
    assert (state["role"], state["offset"], state["upstreams"]) == ("master", 0, [])
    [facts] = replicas_of(primary)
    assert (facts["id"], facts["offset"], facts["lag_bytes"]) == ("42", 90, 420)


def test_status_of_a_running_sync(node: ServerHarness, fake: FakeReplication) -> None:
    fake.replica_list = [
        replica(state="send_bulk", last_sync=SyncFacts("full", "no cursor: asked offset 0", None)),
        replica(),
    ]
    fake.replica_list[1] = replica(last_sync=None)
    _, replicas = tables([("a:1", parse_info(info_text(node.server, ["replication"])))])
    assert [row[-1] for row in replicas[1:]] == ["full running 0 B: no cursor", "-"]


def test_status_of_a_valkey_replica() -> None:
    state = replication_state(VALKEY_REPLICA)
    assert state["upstreams"] == [{"host": "127.0.0.1", "port": 7801, "applied": 14, "state": "connected"}]
    _, replicas, upstreams = tables([("v:1", VALKEY_REPLICA)])
    assert replicas[1] == ["v:1", "[::1]:7802", "-", "online", "14", "-", "-", "-"]
    assert upstreams[1] == ["v:1", "127.0.0.1:7801", "connected", "14", "-", "-", "-", "-", "-"]


def test_status_of_something_that_tells_nothing() -> None:
    assert replication_state({}) == {"role": None, "offset": None, "replicas": [], "upstreams": []}
    # A node may say what it likes.
    odd = {"replication": {"slave0": "port=x,,=,ip", "upstream0": "port=99999999999999999999999"}}
    assert [len(table) for table in tables([("o:1", odd)])] == [2, 2, 2]
    assert json.dumps(replication_state(odd))


def test_the_command_shows_both(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"address": "v:1", "ok": True, "replication": {}, "info": VALKEY_REPLICA}
    monkeypatch.setattr("kevynode.cli_commands._state", lambda _: answer)
    assert main(["status", "v:1"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert [block.split()[1] for block in blocks] == ["ID", "REPLICA", "FOLLOWS"]
