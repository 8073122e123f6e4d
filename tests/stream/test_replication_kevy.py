"""Nodes beside kevy servers: copies of a scripted kevy primary, and scripted kevy replicas of a node.

A kevy of version 5 asks with six arguments and names its history; one of version 2 asks with five and names none.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.cluster import HOST, Cluster, ErrorReply, assert_equal, fill, in_cluster, last_sync, syncs, upstream
from support.fake_primary import FakeConnection, FakePrimary, answer, frames, ship, vector

from kevynode import Node
from kevynode.replicate import wire
from kevynode.replicate.handshake import Form, Request, format_request
from kevynode.replicate.snapshot import SnapshotDecoder
from kevynode.replicate.stream_decoder import StreamDecoder
from kevynode.replicate.stream_events import Chunk, Frames, Ping, SnapshotBegin, SnapshotEnd
from kevynode.store.apply import Applier
from kevynode.store.staging import Staging
from kevynode.store.store import Store

#: What a peer that did not ask for it must never see.
EXTENSIONS = re.compile(rb"\+(TXN|SKIP|CAPA|LINEAGE|ACKREQ|SNAPSHOT_SCOPE)")
KEVY = 0x5EED


# -- a node as a replica ----------------------------------------------------------------------------------------------


async def agree_on(kevy: FakePrimary, form: Form) -> tuple[FakeConnection, Request]:
    """Play a server that knows no form but this one: all others are closed without a byte."""
    while True:
        connection, request = await kevy.greet()
        if request.form is form:
            return connection, request
        assert form.value < request.form.value, f"{request.form} was asked for first"
        await connection.close()


@asynccontextmanager
async def kevy_at(cluster: Cluster, port: int) -> AsyncIterator[FakePrimary]:
    """A scripted primary on a port of the cluster's network."""
    async with FakePrimary(cluster.network, port, HOST) as kevy:
        yield kevy


@in_cluster
async def test_a_copy_of_a_kevy_that_names_its_history(cluster: Cluster) -> None:
    async with kevy_at(cluster, 17000) as kevy:
        replica = await cluster.start("replica", port=7001, upstream=f"{HOST}:17000")
        connection, request = await agree_on(kevy, Form.SIX)
        assert (request.history, request.offset) == (0, 0)
        # As a kevy would call itself.
        assert request.replica_id == "kevy-replica-7001#0"
        data = {"k": "1", "other": "x" * 100}
        await connection.send(answer(KEVY, 0) + ship(5, data, inside=wire.ping(KEVY, 5)))
        assert (replica.get("k"), replica.replication.position) == (b"1", 5)
        assert replica.replication.history == KEVY
        assert last_sync(replica).kind == "full"
        await connection.send(frames(5, "INCR k", "RPUSH l a b", "SET t v EX 100", "INCR other", "LPOP l 2"))
        assert replica.execute("MGET", "k", "other", "l") == [b"2", b"x" * 100, None]
        assert replica.execute("TTL", "t") == 100
        await connection.send(wire.ping(KEVY, 10))
        while await connection.position() != 10:
            pass
        # What failed there fails here, and counts as applied.
        (ignored,) = cluster.logged("replica", "entry_ignored")
        assert "INCR" in ignored["error"]
        assert replica.replication.position == 10
        # It goes on where it was, with the form that is known now.
        await connection.close()
        connection, request = await kevy.greet((KEVY, 10))
        assert request.form is Form.SIX
        await connection.send(answer(KEVY, 10) + frames(10, "SET k 3"))
        assert replica.get("k") == b"3"
        assert last_sync(replica).kind == "partial"


@in_cluster
async def test_a_kevy_that_flushes_sends_a_snapshot_and_names_its_new_history_later(cluster: Cluster) -> None:
    async with kevy_at(cluster, 17000) as kevy:
        replica = await cluster.start("replica", port=7001, upstream=f"{HOST}:17000")
        below = await cluster.start("below", port=7002, upstream=replica)
        connection, _ = await agree_on(kevy, Form.SIX)
        await connection.send(answer(KEVY, 0) + ship(5, {"k": "1"}, inside=wire.ping(KEVY, 5)))
        await connection.send(frames(5, "SET k 2"))
        await cluster.settle(replica, below)
        await connection.send(ship(0, {}))
        assert replica.execute("DBSIZE") == 0
        await connection.send(frames(0, "SET after 1") + wire.ping(KEVY + 1, 1))
        assert replica.replication.history == KEVY + 1
        assert replica.replication.position == 1
        await cluster.settle(replica, below)
        assert below.execute("KEYS", "*") == [b"after"]
        await connection.close()
        await kevy.greet((KEVY + 1, 1))


@in_cluster
async def test_a_copy_of_a_kevy_that_names_no_history(cluster: Cluster) -> None:
    async with kevy_at(cluster, 17000) as kevy:
        replica = await cluster.start("replica", port=7001, upstream=f"{HOST}:17000")
        connection, request = await agree_on(kevy, Form.FIVE)
        assert request.offset == 0
        await connection.send(answer(None, 0) + ship(3, {"k": "1"}))
        assert replica.get("k") == b"1"
        await connection.send(frames(3, "SET k 2"))
        assert replica.get("k") == b"2"
        # It never says anything, and a quiet link is a good one.
        await trio.sleep(100)
        assert upstream(replica).state == "connected"
        await connection.close()
        connection, request = await agree_on(kevy, Form.FIVE)
        assert request.offset == 4
        await connection.send(answer(None, 4) + frames(4, "APPEND k !"))
        assert replica.get("k") == b"2!"
        assert last_sync(replica).kind == "partial"


@pytest.mark.parametrize("first", [6, 4, 0])
@in_cluster
async def test_entries_that_are_missing_or_come_twice_end_the_link_and_are_not_applied(
    cluster: Cluster, first: int
) -> None:
    async with kevy_at(cluster, 17000) as kevy:
        replica = await cluster.start("replica", port=7001, upstream=f"{HOST}:17000")
        connection, _ = await agree_on(kevy, Form.SIX)
        await connection.send(answer(KEVY, 0) + ship(4, {"k": "1"}, inside=wire.ping(KEVY, 4)) + frames(4, "INCR k"))
        await connection.send(frames(first, "INCR k"))
        assert replica.get("k") == b"2"
        assert upstream(replica).problem == f"gap: expected offset 5, got {first}"
        again, _ = await kevy.greet((KEVY, 5))
        await again.send(answer(KEVY, 5) + frames(5, "INCR k"))
        assert replica.get("k") == b"3"


@pytest.mark.parametrize("name", ["v5-live", "v5-snapshot-link", "v2-live", "v2-snapshot-link"])
@in_cluster
async def test_what_real_servers_sent_makes_a_copy_that_others_can_copy(cluster: Cluster, name: str) -> None:
    async with kevy_at(cluster, 17000) as kevy:
        replica = await cluster.start("replica", port=7001, upstream=f"{HOST}:17000")
        below = await cluster.start("below", port=7002, upstream=replica)
        connection, _ = await agree_on(kevy, Form.SIX if name.startswith("v5") else Form.FIVE)
        await connection.send(vector(name))
        assert replica.execute("DBSIZE") > 0
        await cluster.settle(replica, below)


@in_cluster
async def test_a_weaker_form_is_forgotten_so_that_a_server_that_was_renewed_is_asked_anew(
    cluster: Cluster,
) -> None:
    async with kevy_at(cluster, 17000) as kevy:
        replica = await cluster.start("replica", port=7001, upstream=f"{HOST}:17000")
        connection, _ = await agree_on(kevy, Form.SIX)
        await connection.send(answer(KEVY, 0) + ship(5, {"k": "1"}, inside=wire.ping(KEVY, 5)))
        for _ in range(65):
            await trio.sleep(1)
            await connection.send(wire.ping(KEVY, 5))
        await connection.close()
        connection, request = await kevy.greet((KEVY, 5))
        assert request.form is Form.EXTENDED
        await connection.close()
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    await cluster.settle(primary, replica)


async def start_shards(cluster: Cluster, *kevys: FakePrimary) -> tuple[Node, list[FakeConnection]]:
    """A copy of a kevy of several shards, which has sent its data: key "shard<n>" on each."""
    tables: dict[str, Any] = {
        "server": {"port": 7005, "bind": HOST},
        "cluster": {"node_id": "replica"},
        "replication": {"role": "replica", "upstream": f"{HOST}:17000", "upstream_shards": len(kevys)},
    }
    replica = await cluster.start_with("replica", tables)
    connections: list[FakeConnection] = []
    for number, kevy in enumerate(kevys):
        connection, _ = await agree_on(kevy, Form.SIX)
        if number:
            # Until all have sent theirs there is nothing to see.
            assert replica.server.loading
        history = KEVY + number
        begin = answer(history, 0) + ship(10 * number, {f"shard{number}": "1"}, inside=wire.ping(history, 0))
        await connection.send(begin)
        connections.append(connection)
    assert not replica.server.loading
    return replica, connections


@in_cluster
async def test_a_copy_of_all_shards_of_a_kevy_has_a_history_of_its_own(cluster: Cluster) -> None:
    async with kevy_at(cluster, 17000) as first, kevy_at(cluster, 17001) as second:
        replica, connections = await start_shards(cluster, first, second)
        assert replica.execute("MGET", "shard0", "shard1") == [b"1", b"1"]
        below = await cluster.start("below", port=7002, upstream=replica)
        await cluster.until(lambda: below.get("shard1") if not below.server.loading else None)
        history, position = replica.replication.history, replica.replication.position
        assert history not in (KEVY, KEVY + 1)
        await connections[1].send(frames(10, "INCR shard1", "RPUSH l a"))
        await connections[0].send(frames(0, "INCR shard0", "INCR l"))
        assert replica.replication.history == history
        # What failed is no entry here.
        assert replica.replication.position == position + 3
        await cluster.until(lambda: below.replication.position == position + 3)
        assert_equal(replica, below)
        # A token of a shard's history can be waited for here.
        client = await cluster.connect(replica)
        assert await client.call("REPL.WAIT", KEVY, 2) == "OK"
        assert await client.call("REPL.WAIT", KEVY + 1, 12) == "OK"
        refused = await client.call("REPL.WAIT", KEVY + 1, 13, "TIMEOUT", 10)
        assert isinstance(refused, ErrorReply)
        # One of them is lost and goes on by itself.
        await connections[1].close()
        again, _ = await second.greet((KEVY + 1, 12))
        await again.send(answer(KEVY + 1, 12) + frames(12, "INCR shard1"))
        assert replica.execute("MGET", "shard0", "shard1") == [b"2", b"3"]


@in_cluster
async def test_when_one_shard_starts_over_all_do_and_the_old_data_serve_until_then(cluster: Cluster) -> None:
    async with kevy_at(cluster, 17000) as first, kevy_at(cluster, 17001) as second:
        replica, connections = await start_shards(cluster, first, second)
        history = replica.replication.history
        await connections[1].close()
        again, request = await second.greet()
        assert (request.history, request.offset) == (KEVY + 1, 10)
        await again.send(answer(KEVY + 7, 10) + ship(3, {"shard1": "new"}, inside=wire.ping(KEVY + 7, 3)))
        assert replica.get("shard1") == b"1"
        other, request = await first.greet()
        assert (request.history, request.offset) == (0, 0)
        await other.send(answer(KEVY, 0) + ship(4, {"shard0": "new"}, inside=wire.ping(KEVY, 4)))
        assert replica.execute("MGET", "shard0", "shard1") == [b"new", b"new"]
        assert replica.replication.history != history


# -- a node as a primary ----------------------------------------------------------------------------------------------


class PlayedKevy:
    """A connection of a scripted kevy replica, and all that it was sent."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._decoder = StreamDecoder()
        self.raw = bytearray()
        self.events: list[Any] = []
        self.ended = False

    async def read(self) -> None:
        """Take what comes, in a task of its own."""
        try:
            async for data in self._stream:
                self.raw += data
                self.events += self._decoder.feed(bytes(data))
                assert self._decoder.error is None
        except trio.BrokenResourceError:
            pass
        self.ended = True

    async def send(self, data: bytes) -> None:
        """Say something, and let the primary act on it."""
        await self._stream.send_all(data)
        await trio.testing.wait_all_tasks_blocked()

    async def close(self) -> None:
        await self._stream.aclose()
        await trio.testing.wait_all_tasks_blocked()

    def commands(self) -> list[tuple[int, list[bytes]]]:
        """The entries that have come, with their offsets."""
        entries: list[tuple[int, list[bytes]]] = []
        for event in self.events:
            if isinstance(event, Frames):
                entries += enumerate(event.commands, event.first)
        return entries

    def kinds(self) -> list[type]:
        """What came, without chunks and entries."""
        return [type(event) for event in self.events if isinstance(event, SnapshotBegin | SnapshotEnd | Ping)]


async def ask(cluster: Cluster, primary: Node, form: Form, history: int = 0, offset: int = 0) -> PlayedKevy:
    """A kevy that asks with five or six arguments."""
    name = "kevy-replica-0" if form is Form.FIVE else "kevy-replica-6005#0"
    played = PlayedKevy(await cluster.dial(primary))
    cluster.nursery.start_soon(played.read)
    await played.send(format_request(Request(form, history, offset, name)))
    return played


@in_cluster
async def test_five_arguments_get_entries_from_the_beginning_and_nothing_else_ever(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    kevy = await ask(cluster, primary, Form.FIVE)
    await trio.sleep(5)
    assert kevy.raw == b"+ACK 0\r\n"
    client = await cluster.connect(primary)
    await client.pipeline("SET a 1", "MULTI", "SET b 2", "SET c 3", "EXEC")
    await trio.sleep(30)
    assert kevy.raw == b"+ACK 0\r\n" + frames(0, "SET a 1", "SET b 2", "SET c 3")
    assert not kevy.ended
    # It says nothing, so it counts for nobody who waits.
    assert await client.call("WAIT", 1, 50) == 0


@in_cluster
async def test_five_arguments_get_a_snapshot_where_there_are_data_and_go_on_as_far_as_they_were_served(
    cluster: Cluster,
) -> None:
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    kevy = await ask(cluster, primary, Form.FIVE)
    position = primary.replication.position
    assert kevy.raw.startswith(b"+ACK 0\r\n+SNAPSHOT\r\n")
    # Not the newer version, which it could not read: it loses the deadlines of fields.
    assert b"KEVYSNAP\x04" in kevy.raw
    assert kevy.raw.endswith(b"+SNAPSHOT_END %d\r\n" % position)
    primary.set("a", "1")
    await trio.testing.wait_all_tasks_blocked()
    assert kevy.commands() == [(position, [b"SET", b"a", b"1"])]
    await kevy.close()
    primary.set("a", "2")
    again = await ask(cluster, primary, Form.FIVE, offset=position + 1)
    assert again.commands() == [(position + 1, [b"SET", b"a", b"2"])]
    await again.close()
    # Nobody knows what it has that claims more than it was sent.
    primary.set("a", "3")
    liar = await ask(cluster, primary, Form.FIVE, offset=position + 3)
    assert liar.kinds() == [SnapshotBegin, SnapshotEnd]
    assert syncs(primary) == (2, 1, 1)


@in_cluster
async def test_five_arguments_start_over_after_a_flush(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    kevy = await ask(cluster, primary, Form.FIVE)
    primary.set("a", "1")
    primary.execute("FLUSHALL")
    primary.set("b", "2")
    await trio.testing.wait_all_tasks_blocked()
    assert kevy.ended
    assert b"FLUSHALL" not in kevy.raw
    assert b"$1\r\nb" not in kevy.raw
    again = await ask(cluster, primary, Form.FIVE, offset=primary.replication.position - 2)
    assert again.kinds() == [SnapshotBegin, SnapshotEnd]


@in_cluster
async def test_six_arguments_get_heartbeats_and_no_word_that_they_do_not_know(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    kevy = await ask(cluster, primary, Form.SIX)
    history, position = primary.replication.history, primary.replication.position
    assert kevy.raw.startswith(b"+ACK %d 0\r\n" % history)
    assert SnapshotEnd in kevy.kinds()
    # Deadlines of fields make it the newer version.
    assert b"KEVYSNAP\x06" in kevy.raw
    await kevy.send(b"REPLCONF ACK %d\r\n" % position)
    client = await cluster.connect(primary)
    await client.pipeline("SET a 1", "MULTI", "SET b 2", "SET c 3", "EXEC", "LMOVE list other LEFT RIGHT")
    await trio.testing.wait_all_tasks_blocked()
    assert [offset for offset, _ in kevy.commands()] == list(range(position, position + 5))
    assert [command[0] for _, command in kevy.commands()] == [b"SET", b"SET", b"SET", b"RPUSH", b"LPOP"]
    await trio.sleep(3.5)
    beats = [event for event in kevy.events if isinstance(event, Ping)]
    assert len(beats) >= 4
    assert beats[-1].history == history
    assert beats[-1].next_offset == position + 5
    assert not EXTENSIONS.search(kevy.raw)
    facts = primary.server.view.replicas()
    assert [(each.port, each.state, each.acked) for each in facts] == [(6005, "online", position)]


@in_cluster
async def test_six_arguments_are_asked_by_a_heartbeat(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    kevy = await ask(cluster, primary, Form.SIX)
    await trio.sleep(0.4)
    before = len([event for event in kevy.events if isinstance(event, Ping)])
    client = await cluster.connect(primary)
    await client.call("SET", "a", 1)
    await client.send("WAIT", 1, 0)
    await trio.testing.wait_all_tasks_blocked()
    assert len([event for event in kevy.events if isinstance(event, Ping)]) == before + 1
    await kevy.send(b"REPLCONF ACK %d\r\n" % primary.replication.position)
    assert await client.reply() == 1
    assert not EXTENSIONS.search(kevy.raw)


@in_cluster
async def test_six_arguments_get_a_snapshot_in_place_of_a_flush_on_the_same_link(cluster: Cluster) -> None:
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    kevy = await ask(cluster, primary, Form.SIX)
    kevy.events.clear()
    kevy.raw.clear()
    client = await cluster.connect(primary)
    await client.pipeline("SET a 1", "FLUSHALL", "SET b 2", "MULTI", "SET c 3", "FLUSHDB", "SET d 4", "EXEC", "SET e 5")
    await trio.sleep(0.1)
    position = primary.replication.position
    assert not kevy.ended
    assert b"FLUSH" not in kevy.raw
    ends = [event.next_offset for event in kevy.events if isinstance(event, SnapshotEnd)]
    assert ends
    assert ends[-1] <= position
    # Snapshot and entries together make what there is, whatever the snapshots held already.
    assert b"KEVYSNAP\x04" in kevy.raw
    copied = copied_from(kevy)
    assert copied == {b"d": b"4", b"e": b"5"}
    assert syncs(primary)[1:] == (0, 0)


def copied_from(kevy: PlayedKevy) -> dict[bytes, bytes]:
    """The strings that a replica holds after all that it was sent."""
    store = Store(random.Random(0))
    applier = Applier(store)
    staging = Staging(store.epoch)
    decoder = SnapshotDecoder(staging)
    for event in kevy.events:
        match event:
            case SnapshotBegin():
                staging = Staging(store.epoch)
                decoder = SnapshotDecoder(staging)
            case Chunk():
                decoder.feed(event.data)
            case SnapshotEnd():
                decoder.finish()
                store.replace_all(staging, event.next_offset)
            case Frames():
                for command in event.commands:
                    applier.apply(command)
                    store.commit()
    return {key: value for key, value in store.keyspace.items() if isinstance(value, bytes)}


@pytest.mark.parametrize(
    ("history", "back", "kind"),
    [(0, 0, "full"), (0, 2, "partial"), (0, -1, "full"), (1, 0, "full")],
)
@in_cluster
async def test_six_arguments_resume_in_the_same_history_only(
    cluster: Cluster, history: int, back: int, kind: str
) -> None:
    primary = await cluster.start("primary", port=7000)
    fill(primary)
    first = await ask(cluster, primary, Form.SIX)
    primary.set("a", "1")
    primary.set("a", "2")
    await first.close()
    running, position = primary.replication.history, primary.replication.position
    if history == 0 and back == 0:
        # Across a branch a peer that knows of none cannot go on.
        primary.execute("REPLICAOF", HOST, 17009)
        primary.execute("REPLICAOF", "NO", "ONE")
    again = await ask(cluster, primary, Form.SIX, running + history, position - back)
    if kind == "full":
        assert SnapshotBegin in again.kinds()
        assert syncs(primary) == (2, 0, 1)
    else:
        assert SnapshotBegin not in again.kinds()
        assert [command[2] for _, command in again.commands()] == [b"1", b"2"]
        assert syncs(primary) == (1, 1, 0)
    assert again.raw.startswith(b"+ACK %d %d\r\n" % (primary.replication.history, position - back))
