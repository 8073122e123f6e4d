"""Copies in trouble: nodes that are killed, stopped, sent elsewhere or too slow, and what is left afterwards."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from e2e.commands import kevynode
from e2e.replicating import (
    client_of,
    digest_of,
    end,
    free_ports,
    position_of,
    replication_of,
    start,
    wait_for_field,
    wait_for_log,
    wait_until_equal,
)
from support.node_process import NodeProcess
from support.raw_client import RawClient, Reply, encode

#: Keys of the large data set.
MANY_KEYS = 200_000


def kill(node: NodeProcess) -> None:
    end(node, lambda: node.send_signal(signal.SIGKILL))


def replica_lines(node: NodeProcess) -> list[dict[str, Any]]:
    """What a node's INFO says of each of its replicas."""
    return [line for name, line in replication_of(node).items() if re.fullmatch(r"slave\d+", name)]


def syncs(node: NodeProcess) -> tuple[int, int, int]:
    """How many replicas started over, went on, and would have gone on but could not."""
    with client_of(node) as client:
        stats = client.info("stats")
    return stats["sync_full"], stats["sync_partial_ok"], stats["sync_partial_err"]


@pytest.fixture
def primary() -> Iterator[NodeProcess]:
    """A primary of the test's own, on ports it can be started on again."""
    port, _ = free_ports()
    with start("--port", str(port)) as node:
        yield node


# -- killed ---------------------------------------------------------------------------------------------------------


def test_a_killed_primary_leaves_its_replica_serving(primary: NodeProcess) -> None:
    with start(upstream=primary) as replica:
        with client_of(primary) as writer:
            writer.mset({f"key:{number}": number for number in range(1000)})
            assert writer.wait(1, 5000) == 1
        before = digest_of(primary)
        kill(primary)
        wait_for_field(replica, "master_link_status", "down")
        wait_for_log(replica, " warning upstream_lost ", f"cannot connect to {primary.replication_address}")
        assert digest_of(replica) == before
        with client_of(replica) as reader:
            assert reader.get("key:999") == "999"
            assert reader.role()[3] in ("connect", "connecting")
        shown = kevynode("status", f"127.0.0.1:{replica.port}").stdout
        assert " down " in shown
        assert f"cannot connect to {primary.replication_address}" in shown
        # Promoted it takes writes, in a history of its own.
        with client_of(replica) as writer:
            assert writer.replicaof("NO", "ONE")
            writer.set("key:0", "mine")
            assert writer.role() == ["master", 1001, []]
        replica.check_health()


def test_a_primary_that_comes_back_without_data_is_copied_as_it_is(primary: NodeProcess) -> None:
    with start(upstream=primary) as replica:
        with client_of(primary) as writer:
            writer.set("k", "v")
            assert writer.wait(1, 5000) == 1
        kill(primary)
        wait_for_field(replica, "master_link_status", "down")
        with start("--port", str(primary.port)) as second:
            wait_for_field(replica, "master_link_status", "up")
            with client_of(second) as writer:
                writer.set("new", "1")
            wait_until_equal(replica, second)
            assert syncs(second) == (1, 0, 1)
            [line] = replica_lines(second)
            assert line["last_sync"] == "full"
            assert line["last_sync_reason"].startswith("the replica's history is unknown here: asked history ")
        replica.check_health()


def test_a_killed_replica_keeps_its_place_for_a_while() -> None:
    with start(config="[replication]\nreconnect_window_ms = 600\n") as primary:
        with start(upstream=primary) as replica, start(upstream=primary) as other:
            wait_for_field(primary, "connected_slaves", 2)
            kill(replica)
            wait_for_field(primary, "connected_slaves", 1)
            assert sorted(line["state"] for line in replica_lines(primary)) == ["online", "waiting"]
            with client_of(primary) as writer:
                writer.set("k", "v")
                assert writer.wait(2, 50) == 1
            wait_for_log(primary, " info replica_expired ", f"kevynode-replica-{replica.port}#")
            assert [line["port"] for line in replica_lines(primary)] == [other.port]
            wait_until_equal(other, primary)
        wait_for_field(primary, "repl_backlog_active", 0)
        primary.check_health()


# -- stopped --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True], ids=["commands", "transactions"])
def test_a_primary_that_stops_hands_over_what_its_replica_lacks(grouped: bool) -> None:
    number_of_writes = 20_000
    write = [encode((b"INCR", b"done")), encode((b"RPUSH", b"list", b"x" * 100))]
    batch = b"".join([encode((b"MULTI",)), *write, encode((b"EXEC",))] if grouped else write)
    replies = 4 if grouped else 2
    with start() as primary, start(upstream=primary) as replica:
        wait_for_field(replica, "master_link_status", "up")
        with RawClient(primary.host, primary.port) as client:
            sender = threading.Thread(target=client.send_raw, args=(batch * number_of_writes,))
            sender.start()
            # As soon as the first replies are there; the burst goes on while the node stops.
            answers = [client.read() for _ in range(replies * 100)]
            primary.send_signal(signal.SIGTERM)
            answers += client.read_to_end()
            sender.join()
        assert primary.wait() == 0
        assert "drain_timeout" not in primary.log()
        counts = [reply.value for reply in answers if reply.kind == "integer"]
        counts += [reply.value[0].value for reply in answers if reply.kind == "array"]
        wait_for_field(replica, "master_link_status", "down")
        with client_of(replica) as reader:
            done, length = int(reader.get("done") or 0), reader.llen("list")
        # Everything that a client was told, and whole transactions only.
        assert done >= max(counts[::2] if not grouped else counts)
        assert done - length in ((0,) if grouped else (0, 1))
        replica.check_health()


def test_a_replica_that_stands_still_catches_up(primary: NodeProcess) -> None:
    with start(upstream=primary) as replica, client_of(primary) as writer:
        writer.set("before", "1")
        assert writer.wait(1, 5000) == 1
        replica.send_signal(signal.SIGSTOP)
        try:
            for number in range(100):
                writer.mset({f"key:{number}:{place}": "x" * 1000 for place in range(100)})
            assert writer.wait(1, 200) == 0
            [line] = replica_lines(primary)
            assert line["state"] == "online"
            assert line["lag_frames"] == 10_000
            assert line["lag_bytes"] > 0
            assert line["lag_ms"] >= 200
        finally:
            replica.send_signal(signal.SIGCONT)
        assert writer.wait(1, 10_000) == 1
        wait_until_equal(replica, primary)
        assert syncs(primary) == (1, 0, 0)
        replica.check_health()


# -- sent elsewhere ---------------------------------------------------------------------------------------------------


def test_roles_change_at_run_time() -> None:
    with start() as first, start() as second, client_of(first) as one, client_of(second) as two:
        one.set("who", "first")
        two.set("who", "second")
        host, _, port = first.replication_address.rpartition(":")
        assert two.replicaof(host, int(port))
        wait_until_equal(second, first)
        assert two.get("who") == "first"
        with pytest.raises(redis.exceptions.ReadOnlyError):
            two.set("who", "me")

        assert two.replicaof("NO", "ONE")
        assert two.role()[0] == "master"
        assert position_of(second)[0] != position_of(first)[0]

        # The other way round: the first stands where the second's history branched off from its own, so it goes on.
        host, _, port = second.replication_address.rpartition(":")
        assert one.replicaof(host, int(port))
        wait_for_field(first, "master_link_status", "up")
        two.set("who", "second again")
        wait_until_equal(first, second)
        assert one.get("who") == "second again"
        assert syncs(second) == (0, 1, 0)
        [line] = replica_lines(second)
        assert line["last_sync"] == "partial"

        # Two that follow each other get nowhere, and do no harm until one of them is sent away again.
        host, _, port = first.replication_address.rpartition(":")
        assert two.replicaof(host, int(port))
        assert two.replicaof("NO", "ONE")
        wait_for_field(first, "master_link_status", "up")
        two.set("who", "second at last")
        wait_until_equal(first, second)
        for node in (first, second):
            node.check_health()


def test_a_replica_of_a_replica(primary: NodeProcess) -> None:
    with start(upstream=primary) as middle, start(upstream=middle) as last, client_of(primary) as writer:
        for number in range(100):
            writer.rpush(f"list:{number % 10}", number)
        writer.lmove("list:0", "list:1")
        writer.hset("hash", mapping={"a": 1})
        writer.pexpire("list:3", 1_000_000)
        wait_until_equal(middle, primary)
        wait_until_equal(last, primary)
        assert position_of(last) == position_of(primary)
        # The last has it all, but the primary counts only whom it serves itself.
        assert writer.wait(2, 50) == 1
        with client_of(middle) as client:
            assert client.role()[0] == "slave"
        assert [line["port"] for line in replica_lines(middle)] == [last.port]
        # The middle gone, the last goes on from the primary where it was.
        kill(middle)
        writer.set("later", "1")
        with client_of(last) as client:
            host, _, port = primary.replication_address.rpartition(":")
            assert client.replicaof(host, int(port))
        wait_until_equal(last, primary)
        assert syncs(primary) == (1, 1, 0)
        last.check_health()


# -- gates ------------------------------------------------------------------------------------------------------------


def may_write(node: NodeProcess) -> bool:
    with RawClient(node.host, node.port) as client:
        return client.call(b"SET", b"probe", b"1") == Reply("simple", b"OK")


def test_writes_stop_without_good_replicas() -> None:
    config = "[replication]\nmin_replicas_to_write = 1\nmin_replicas_max_lag_ms = 600\n"
    with start(config=config) as primary, client_of(primary) as writer:
        refused = "NOREPLICAS Not enough good replicas to write."
        with pytest.raises(redis.ResponseError, match=refused):
            writer.set("k", "v")
        with start(upstream=primary) as replica:
            wait_for_field(primary, "min_slaves_good_slaves", 1)
            writer.set("k", "v")
            replica.send_signal(signal.SIGSTOP)
            try:
                wait_for_field(primary, "min_slaves_good_slaves", 0)
                primary.wait_until(lambda: not may_write(primary), "writes are refused")
                # Transactions too, as a whole.
                with pytest.raises(redis.ResponseError, match=refused), writer.pipeline(transaction=True) as batch:
                    batch.get("k").set("k", "w").execute()
                assert writer.get("k") == "v"
            finally:
                replica.send_signal(signal.SIGCONT)
            primary.wait_until(lambda: may_write(primary), "writes are let in")
            wait_until_equal(replica, primary)
        primary.check_health()


def test_a_copy_that_is_too_old_is_not_read() -> None:
    # The primary knows it too, and sends heartbeats as often as that takes.
    config = "[replication]\nreplica_max_staleness_ms = 800\n"
    with start(config=config) as primary, start(upstream=primary, config=config) as replica:
        with client_of(primary) as writer:
            writer.set("k", "v")
            assert writer.wait(1, 5000) == 1
        fresh = Reply("bulk", b"v")
        stale = Reply("error", b"STALE replica is stale; read the primary or raise replica_max_staleness_ms")
        with RawClient(replica.host, replica.port) as reader:
            assert reader.call(b"GET", b"k") == fresh
            primary.send_signal(signal.SIGSTOP)
            try:
                replica.wait_until(lambda: reader.call(b"GET", b"k") == stale, "it is too old")
                assert reader.call(b"ROLE").elements[3] == Reply("bulk", b"connected")
                assert replication_of(replica)["slave_lag_ms"] > 800
            finally:
                primary.send_signal(signal.SIGCONT)
            replica.wait_until(lambda: reader.call(b"GET", b"k") == fresh, "it is fresh again")
        replica.check_health()


# -- much -------------------------------------------------------------------------------------------------------------


def test_a_large_snapshot_while_a_client_writes(primary: NodeProcess) -> None:
    """The replica is the primary's equal in the end, and the client that wrote meanwhile was answered all the time."""
    with RawClient(primary.host, primary.port) as client:
        assert client.call(b"DEBUG", b"POPULATE", b"%d" % MANY_KEYS, b"key", b"32") == Reply("simple", b"OK")
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        with RawClient(primary.host, primary.port) as client:
            while not stop.is_set():
                number = written * 7919 % MANY_KEYS
                replies = client.pipeline(
                    [
                        (b"SET", b"key:%d" % number, b"new %d" % written),
                        (b"DEL", b"key:%d" % (number + 1)),
                        (b"RPUSH", b"list:%d" % (number % 10), b"%d" % written),
                        (b"PEXPIRE", b"key:%d" % (number + 2), b"10000000"),
                    ]
                )
                assert all(reply.kind != "error" for reply in replies)
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with start() as replica, client_of(replica) as client:
            host, _, port = primary.replication_address.rpartition(":")
            client.set("mine", "from before")
            client.replicaof(host, int(port))
            # A snapshot that is called off in the middle changes nothing.
            wait_for_field(replica, "master_sync_in_progress", 1)
            assert client.get("mine") == "from before"
            client.replicaof("NO", "ONE")
            assert (client.get("mine"), client.dbsize()) == ("from before", 1)

            before = written
            client.replicaof(host, int(port))
            wait_for_field(replica, "master_link_status", "up")
            assert client.get("mine") is None
            assert written > before
            stop.set()
            writer.join()
            wait_until_equal(replica, primary)
            [line] = replica_lines(primary)
            assert line["last_sync"] == "full"
            assert line["last_sync_bytes"] > MANY_KEYS * 32
            assert syncs(primary) == (2, 0, 2)
            [state] = json.loads(kevynode("status", "--json", f"127.0.0.1:{replica.port}").stdout)
            assert state["replication"]["upstreams"][0]["last_sync_bytes"] == line["last_sync_bytes"]
            with client_of(replica) as reader, client_of(primary) as source:
                assert reader.dbsize() == source.dbsize()
            replica.check_health()
    finally:
        stop.set()
        writer.join()
    primary.check_health()
