"""A primary and its replica as processes: what clients, operators and strangers at the wrong door see of them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest
import redis
from e2e.commands import PATIENCE, kevynode, start_error
from e2e.replicating import (
    client_of,
    digest_of,
    free_ports,
    position_of,
    replication_of,
    start,
    wait_for_field,
    wait_for_log,
    wait_until_equal,
)
from support.node_process import NodeProcess
from support.raw_client import CLOSED, RawClient, Reply
from support.valkey_server import ValkeyServer

REDIS_CLI = shutil.which("redis-cli")
needs_redis_cli = pytest.mark.skipif(REDIS_CLI is None, reason="redis-cli is not installed")

Pair = tuple[NodeProcess, NodeProcess]


@pytest.fixture(scope="module")
def module_pair() -> Iterator[Pair]:
    """The primary and the replica that the tests of this file share."""
    with start() as primary, start(upstream=primary) as replica:
        yield primary, replica


@pytest.fixture
def pair(module_pair: Pair) -> Iterator[Pair]:
    """A primary without data and its replica, in step; both are to be well afterwards, and equal."""
    primary, replica = module_pair
    with client_of(primary) as client:
        client.flushall()
    wait_until_equal(replica, primary)
    yield primary, replica
    wait_until_equal(replica, primary)
    primary.check_health()
    replica.check_health()


def reply_of_redis_cli(port: int, *words: str) -> list[str]:
    done = subprocess.run(
        [REDIS_CLI or "", "-p", str(port), *words], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.stdout.splitlines()


# -- where it listens -----------------------------------------------------------------------------------------------


def test_the_ready_line_names_the_replication_port() -> None:
    port, replication_port = free_ports()
    with NodeProcess("--port", str(port)) as node:
        assert node.ready_line.endswith(f" client=127.0.0.1:{port} replication=127.0.0.1:{replication_port}")


def test_a_replication_port_of_choice_that_can_be_taken_only_once() -> None:
    _, port = free_ports()
    chosen = {"KEVYNODE_REPLICATION_LISTEN_PORT": str(port)}
    with NodeProcess(config=f"[replication]\nlisten_port = {port}\n") as node:
        assert node.replication_address == f"127.0.0.1:{port}"
        said = start_error("--port", "0", environment=chosen)
        assert said == f"replication.listen_port: cannot listen on 127.0.0.1:{port}: Address already in use"
        node.check_health()


def test_a_standalone_node_has_no_copies() -> None:
    with NodeProcess(config='[replication]\nrole = "standalone"\n') as node, client_of(node) as client:
        assert node.replication_address == "-"
        with pytest.raises(redis.ResponseError, match="not allowed on a standalone node"):
            client.replicaof("127.0.0.1", 16004)
        client.set("k", "v")
        assert client.role() == ["master", 1, []]
        node.check_health()


# -- what clients see -----------------------------------------------------------------------------------------------


def test_a_replica_named_in_a_file(pair: Pair) -> None:
    primary, _ = pair
    config = f'[replication]\nrole = "replica"\nupstream = "{primary.replication_address}"\n'
    with start(config=config) as replica, client_of(primary) as writer, client_of(replica) as reader:
        writer.hset("user:1", mapping={"name": "Ada", "born": "1815"})
        wait_until_equal(replica, primary)
        assert reader.hgetall("user:1") == {"name": "Ada", "born": "1815"}
        assert reader.info("server")["server_name"] == "kevynode"
        assert "config_without_effect" not in replica.log()
    # Its place is kept, but it is not counted any more.
    wait_for_field(primary, "connected_slaves", 1)
    assert {line["state"] for name, line in replication_of(primary).items() if name.startswith("slave")} == {
        "online",
        "waiting",
    }


def test_role_and_info_on_both_sides(pair: Pair) -> None:
    primary, replica = pair
    with client_of(primary) as writer, client_of(replica) as reader:
        writer.set("k", "v")
        assert writer.wait(1, 5000) == 1
        history, offset = position_of(primary)
        [entry] = writer.role()[2]
        assert writer.role()[:2] == ["master", offset]
        assert entry == ["127.0.0.1", str(replica.port), str(offset)]
        port = int(primary.replication_address.rpartition(":")[2])
        assert reader.role() == ["slave", "127.0.0.1", port, "connected", offset]

        stats = writer.info("stats")
        assert (stats["sync_partial_ok"], stats["sync_partial_err"]) == (0, 0)
        assert stats["sync_full"] >= 1
    above, below = replication_of(primary), replication_of(replica)
    assert (above["role"], below["role"]) == ("master", "slave")
    assert above["connected_slaves"] >= 1
    assert above["master_replid"] == below["master_replid"] == f"{history:040x}"
    assert above["master_repl_offset"] == below["slave_repl_offset"] == offset
    assert above["repl_backlog_active"] == 1
    lines = [line for name, line in above.items() if re.fullmatch(r"slave\d+", name)]
    [line] = [line for line in lines if line["port"] == replica.port]
    assert (line["state"], line["offset"], line["sent"], line["lag_frames"]) == ("online", offset, offset, 0)
    assert (line["last_sync"], line["prefixes"]) == ("full", "all")
    assert "asked history none offset 0" in line["last_sync_reason"]
    assert (below["master_host"], below["master_port"]) == ("127.0.0.1", port)
    assert (below["master_link_status"], below["master_sync_in_progress"]) == ("up", 0)
    assert (below["slave_read_only"], below["slave_lag_frames"]) == (1, 0)
    assert below["upstream0"]["state"] == "connected"


def test_a_replica_serves_reads_and_refuses_writes(pair: Pair) -> None:
    primary, replica = pair
    with client_of(primary) as writer, client_of(replica) as reader:
        with writer.pipeline(transaction=True) as batch:
            batch.rpush("queue", "a", "b", "c")
            batch.zadd("board", {"ada": 1.5, "grace": 2})
            batch.set("session", "x", ex=1000)
            batch.sadd("tags", "red")
            batch.execute()
        assert writer.wait(1, 5000) == 1
        assert reader.lrange("queue", 0, -1) == ["a", "b", "c"]
        assert reader.zmscore("board", ["ada", "grace"]) == [1.5, 2.0]
        assert reader.smembers("tags") == {"red"}
        assert reader.pexpiretime("session") == writer.pexpiretime("session")
        for write in (("SET", "k", "v"), ("LPOP", "queue"), ("DEL", "queue"), ("FLUSHALL",)):
            with pytest.raises(redis.exceptions.ReadOnlyError):
                reader.execute_command(*write)
        with pytest.raises(redis.ResponseError, match="WAIT cannot be used with replica instances"):
            reader.wait(1, 10)
        assert reader.dbsize() == 4


def test_wait_counts_replicas_that_have_applied_it(pair: Pair) -> None:
    primary, replica = pair
    with client_of(primary) as writer, client_of(replica) as reader:
        for number in range(50):
            writer.set("counter", number)
            assert writer.wait(1, 5000) == 1
            assert reader.get("counter") == str(number)
        # There is no second one: the count after the time is over.
        writer.set("counter", "again")
        assert writer.wait(2, 50) == 1
        # Its own disk may have it by now; of theirs replicas say nothing.
        assert writer.execute_command("WAITAOF", 0, 1, 20)[1] == 0


def test_a_token_lets_a_client_read_its_own_writes(pair: Pair) -> None:
    primary, replica = pair
    with client_of(primary) as writer, client_of(replica) as reader:
        for number in range(50):
            writer.set("mine", number)
            history, offset = writer.execute_command("REPL.TOKEN")
            assert reader.execute_command("REPL.WAIT", history, offset, "TIMEOUT", 5000) in ("OK", True)
            assert reader.get("mine") == str(number)
        history, offset = position_of(primary)
        for token in ((history, offset + 1), (history + 1, 1)):
            with pytest.raises(redis.ResponseError, match=r"^MISDIRECTED writer is 127\.0\.0\.1:\d+$"):
                reader.execute_command("REPL.WAIT", *token, "TIMEOUT", 20)


@needs_redis_cli
def test_redis_cli_on_both_sides(pair: Pair) -> None:
    primary, replica = pair
    assert reply_of_redis_cli(primary.port, "SET", "greeting", "hello") == ["OK"]
    history, offset = reply_of_redis_cli(primary.port, "REPL.TOKEN")
    assert reply_of_redis_cli(replica.port, "REPL.WAIT", history, offset, "TIMEOUT", "5000") == ["OK"]
    assert reply_of_redis_cli(replica.port, "GET", "greeting") == ["hello"]
    said = reply_of_redis_cli(replica.port, "SET", "greeting", "x")
    assert said[0] == "READONLY You can't write against a read only replica."
    upstream_port = primary.replication_address.rpartition(":")[2]
    assert reply_of_redis_cli(replica.port, "ROLE") == ["slave", "127.0.0.1", upstream_port, "connected", offset]
    assert reply_of_redis_cli(primary.port, "ROLE")[:3] == ["master", offset, "127.0.0.1"]
    information = reply_of_redis_cli(replica.port, "INFO", "replication")
    assert "role:slave" in information
    assert "master_link_status:up" in information
    already = reply_of_redis_cli(replica.port, "REPLICAOF", "127.0.0.1", upstream_port)
    assert already == ["OK Already connected to specified master"]


# -- what operators see ---------------------------------------------------------------------------------------------


def write_and_wait(primary: NodeProcess) -> None:
    """Write something, and wait until the replica has told that it has it: what comes before is acknowledged too."""
    with client_of(primary) as writer:
        writer.incr("written")
        assert writer.wait(1, 5000) == 1


def test_status_as_a_table(pair: Pair) -> None:
    primary, _ = pair
    write_and_wait(primary)
    names = [f"127.0.0.1:{node.port}" for node in pair]
    done = kevynode("status", *names)
    assert (done.returncode, done.stderr) == (0, "")
    nodes, replicas, upstreams = (table.splitlines() for table in done.stdout.split("\n\n"))
    roles = {row.split()[0]: row.split()[3] for row in nodes[1:]}
    assert roles == {names[0]: "master", names[1]: "slave"}
    offset = str(position_of(primary)[1])
    [row] = [row.split() for row in replicas[1:] if f" {names[1]} " in row]
    assert row[3:6] == ["online", offset, offset]
    assert " full " in replicas[1] or " partial " in replicas[1]
    assert upstreams[0].split()[:2] == ["NODE", "FOLLOWS"]
    assert upstreams[1].split()[:5] == [names[1], primary.replication_address, "connected", offset, offset]


def test_status_as_json(pair: Pair) -> None:
    primary, replica = pair
    write_and_wait(primary)
    done = kevynode("status", "--json", f"127.0.0.1:{primary.port}", f"127.0.0.1:{replica.port}")
    assert done.returncode == 0
    above, below = (state["replication"] for state in json.loads(done.stdout))
    offset = position_of(primary)[1]
    assert (above["role"], above["offset"], above["upstreams"]) == ("master", offset, [])
    [line] = [line for line in above["replicas"] if line["port"] == replica.port]
    assert (line["state"], line["offset"]) == ("online", offset)
    assert (below["role"], below["offset"], below["replicas"]) == ("slave", offset, [])
    [line] = below["upstreams"]
    assert (line["state"], line["applied"], line["announced"], line["lag_frames"]) == ("connected", offset, offset, 0)
    assert line["last_sync"] == "full"
    assert "problem" not in line


# -- strangers at the replication port ------------------------------------------------------------------------------

STRANGERS = {
    "a browser": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "b'GET'"),
    "a redis client": (b"*1\r\n$4\r\nPING\r\n", "a Redis or Valkey replica or client sent PING"),
    "a redis replica": (b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n", "sent PSYNC"),
    "tls": (bytes.fromhex("16030100f8010000f40303") + b"\n" * 300, "expected REPLICATE command"),
    "garbage": (b"*1\r\n!\r\n", "malformed request"),
    "endless garbage": (b"x" * 100000, "no complete request in 4096 bytes"),
    "no number": (b"REPLICATE FROM -1 ID r\r\n", "from-offset must be an unsigned decimal"),
    "too few words": (b"REPLICATE FROM 0\r\n", "REPLICATE expects 6 args, got 3"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_shown_the_door(pair: Pair, stranger: str) -> None:
    primary, _ = pair
    sent, reason = STRANGERS[stranger]
    with RawClient(primary.host, int(primary.replication_address.rpartition(":")[2])) as client:
        name = client.address
        client.send_raw(sent)
        assert client.read() == CLOSED
    wait_for_log(primary, " warning replica_refused ", f"peer={name} ", reason)


def test_who_says_nothing_at_the_replication_port_is_no_trouble(pair: Pair) -> None:
    primary, replica = pair
    address = (primary.host, int(primary.replication_address.rpartition(":")[2]))
    silent = [socket.create_connection(address, 5) for _ in range(20)]
    for number, stranger in enumerate(silent):
        stranger.sendall(b"REPLICATE FROM 0 0 ID somebody"[: number + 1])
    with client_of(primary) as writer:
        writer.set("k", "v")
        assert writer.wait(1, 5000) == 1
    for stranger in silent:
        stranger.close()
    assert replication_of(replica)["master_link_status"] == "up"


def test_valkey_as_a_replica_is_turned_away(pair: Pair) -> None:
    primary, _ = pair
    host, _, port = primary.replication_address.rpartition(":")
    with ValkeyServer("--replicaof", host, port) as server, RawClient(server.host, server.port) as client:
        wait_for_log(primary, " warning replica_refused ", "a Redis or Valkey replica or client sent PING")
        assert b"master_link_status:down" in client.call(b"INFO", b"replication").value


@needs_redis_cli
def test_redis_cli_as_a_replica_is_turned_away(pair: Pair) -> None:
    primary, _ = pair
    port = primary.replication_address.rpartition(":")[2]
    done = subprocess.run(
        [REDIS_CLI or "", "-p", port, "--replica"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode != 0
    wait_for_log(primary, " warning replica_refused ", "a Redis or Valkey replica or client sent REPLCONF")


# -- the first mistake of everybody who comes from Redis --------------------------------------------------------------


def test_the_client_port_in_place_of_the_replication_port(pair: Pair) -> None:
    primary, _ = pair
    client_port = f"127.0.0.1:{primary.port}"
    named = f"{client_port} is a client port"
    with start("--replicaof", client_port) as replica:
        wait_for_log(replica, " warning upstream_lost ", named, "replicas connect to the replication port")
        fields = replication_of(replica)
        assert fields["master_link_status"] == "down"
        assert fields["upstream0"]["problem"].startswith(named)
        done = kevynode("status", f"127.0.0.1:{replica.port}")
        assert named in done.stdout
        [state] = json.loads(kevynode("status", "--json", f"127.0.0.1:{replica.port}").stdout)
        assert state["replication"]["upstreams"][0]["problem"].startswith(named)
        with RawClient(replica.host, replica.port) as client:
            # It has never had data to serve, and says so; the right address puts that right.
            assert client.call(b"GET", b"k") == Reply("error", b"LOADING kevynode is loading the dataset in memory")
            host, _, port = primary.replication_address.rpartition(":")
            assert client.call(b"REPLICAOF", host.encode(), port.encode()) == Reply("simple", b"OK")
            wait_for_field(replica, "master_link_status", "up")
            assert digest_of(replica) == digest_of(primary)
        replica.check_health()


def test_a_valkey_server_as_upstream_is_named_a_client_port() -> None:
    with ValkeyServer() as server, start("--replicaof", f"127.0.0.1:{server.port}") as replica:
        wait_for_log(replica, " warning upstream_lost ", f"127.0.0.1:{server.port} is a client port")
        replica.check_health()
