"""A disk that takes no more: writes are refused with the reason, reads go on, and the node recovers by itself.

The disk is real; it is the process that may not have larger files (RLIMIT_FSIZE), which a test can change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.crashing import Clients
from e2e.replicating import free_ports
from support.durable_server import DurableServer, start_node
from support.raw_client import Reply

OK = Reply("simple", b"OK")
#: Bytes that a file may have.
LIMIT = 300_000
#: What a client may be told instead of that its write was done.
REFUSALS = (b"MISCONF", b"EXECABORT")


@contextmanager
def limited(directory: Path, policy: str) -> Iterator[DurableServer]:
    """A node whose files may not grow beyond LIMIT, serving."""
    with start_node(directory, free_ports()[0], policy=policy, file_limit=LIMIT) as server:
        server.wait_until_serving()
        yield server


def refuses_writes(server: DurableServer) -> bool:
    answer = server.call(b"SET", b"probe", b"1")
    if answer == OK:
        # It may be the first that finds no room.
        assert server.call(b"DEL", b"probe").kind in ("integer", "error", "closed")
    return answer.kind == "error" and answer.value.startswith(b"MISCONF ")


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_writes_are_refused_until_there_is_room(policy: str, tmp_path: Path) -> None:
    clients = Clients(3)
    with limited(tmp_path, policy) as server:
        # Data that are too large for one file: no rewrite helps.
        with server.connect() as client:
            for number in range(20):
                assert client.call(b"SET", b"k", b"%d" % number) == OK
            assert client.call(b"SET", b"large", b"x" * (LIMIT // 2)) == OK
            answer = client.call(b"SET", b"other", b"y" * (LIMIT - LIMIT // 4))
        assert answer.kind in ("error", "closed"), answer
        server.wait_until(lambda: refuses_writes(server), "writes are refused")
        with server.connect() as client:
            for words in ((b"SET", b"k", b"v"), (b"DEL", b"k"), (b"INCR", b"n")):
                answer = client.call(*words)
                assert answer.value.startswith(b"MISCONF Errors writing to the AOF file: "), answer
                assert b"File too large" in answer.value
            assert client.call(b"GET", b"k") == Reply("bulk", b"19")
            assert client.call(b"STRLEN", b"large") == Reply("integer", LIMIT // 2)
        facts = server.info(b"persistence")
        assert facts["aof_last_write_status"] == "err"
        server.raise_file_limit()
        server.wait_until(lambda: not refuses_writes(server), "writes are let in again")
        server.wait_until(lambda: server.info(b"persistence")["aof_last_write_status"] == "ok", "INFO says so")
        # What had been done in memory when the disk was full either stays, or was never there.
        assert server.call(b"DEL", b"large", b"other", b"k", b"probe").kind == "integer"
        with clients.writing(server, kill_after=500):
            server.wait()
    with start_node(tmp_path, free_ports()[0], policy=policy) as server:
        server.wait_until_serving()
        clients.check(server)


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_nothing_acknowledged_is_lost_where_the_disk_is_full(policy: str, tmp_path: Path) -> None:
    clients = Clients(4)
    with limited(tmp_path, policy) as server:
        clients.fill(server, 3000)
        with clients.writing(server, forgiven=REFUSALS):
            server.wait_until(lambda: refuses_writes(server), "writes are refused")
        server.kill()
    with start_node(tmp_path, free_ports()[0], policy=policy) as server:
        server.wait_until_serving()
        server.call(b"DEL", b"probe")
        clients.check(server)


def test_a_rewrite_makes_room_by_itself(tmp_path: Path) -> None:
    """The file is full of what is no longer true; what is fits in it well."""
    clients = Clients(5, number=2)
    with limited(tmp_path, "everysec") as server:
        with server.connect() as client:
            full = False
            for number in range(200):
                answer = client.call(b"SET", b"k", b"%d" % number * 5000)
                full = full or answer.kind != "simple"
                if answer.kind == "closed":
                    break
        assert full
        server.wait_until(lambda: not refuses_writes(server), "writes are let in again")
        assert server.call(b"DEL", b"k", b"probe").kind == "integer"
        with clients.writing(server, kill_after=200):
            server.wait()
    with start_node(tmp_path, free_ports()[0]) as server:
        server.wait_until_serving()
        clients.check(server)


def test_a_replica_hears_nothing_that_its_primary_could_not_write(tmp_path: Path) -> None:
    """What only memory held is gone after the crash, and nobody else may have it."""
    clients = Clients(6)
    primary_dir, replica_dir = tmp_path / "primary", tmp_path / "replica"
    primary_dir.mkdir()
    replica_dir.mkdir()
    with limited(primary_dir, "everysec") as primary:
        follow = ("--replicaof", f"127.0.0.1:{primary.replication_port}")
        with start_node(replica_dir, free_ports()[0], *follow) as replica:
            replica.wait_until_serving()
            replica.wait_until(
                lambda: replica.info(b"replication")["master_link_status"] == "up", "the replica follows"
            )
            clients.fill(primary, 3000)
            with clients.writing(primary, forgiven=REFUSALS):
                primary.wait_until(lambda: refuses_writes(primary), "writes are refused")
            primary.kill()
            with start_node(primary_dir, primary.port) as again:
                again.wait_until_serving()
                again.call(b"DEL", b"probe")
                clients.check(again)
                replica.wait_until(
                    lambda: replica.call(b"REPL.TOKEN") == again.call(b"REPL.TOKEN"), "the replica has everything"
                )
                assert clients.check(replica) == 0
                # It had no more than its primary found again, so it went on; or it lacked some of a base that the
                # primary had written just before the end.
                stats = again.info(b"stats")
                kinds = (stats["sync_full"], stats["sync_partial_ok"])
                lacked = "entries that the replica lacks are no longer held" in str(again.info(b"replication"))
                assert kinds == (("1", "0") if lacked else ("0", "1"))
