"""What looks into the nodes knows clusters that are not as they should be: here they are made by hand."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
from sim.clients import Client
from sim.counted import Counted
from sim.history import History, Operation
from sim.losses import Losses
from sim.plan import draw_plan
from sim.records import Records
from sim.rest import Rest
from sim.trace import Trace, TraceLog
from sim.watch import Watch
from sim.world import Death, Life, World

from kevynode import Node, NodeConfig
from kevynode.replicate.lineage import Lineage
from kevynode.replicate.mesh_following import ScopeCopy
from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import LedgerFile, load
from kevynode.scope.ledger_records import MoveRecord, MoveRole, MoveState, Record
from kevynode.store.journal import Origin


class Cluster:
    """Nodes that were made, and never run."""

    def __init__(self, nursery: trio.Nursery, prefixes: tuple[bytes, ...] = (b"a:",)) -> None:
        self.world = World(1, nursery, Trace())
        self.history = History()
        self.plan = draw_plan(2, "moves")
        assert self.plan.shape == "scoped"
        self.losses = Losses(self.world, self.plan, self.history, prefixes)
        self.watch = self.losses.watch = Watch(self.world, prefixes)
        self.watch.on_opened.append(self.losses.opened)

    def add(self, name: str, writer: str = "") -> Node:
        """A node, at which ``writer`` writes under ``a:``."""
        self.world.declare(name, {})
        tables: dict[str, dict[str, Any]] = {"server": {"port": 6004}, "cluster": {"node_id": name}}
        if writer:
            peers = [{"id": other, "address": f"10.0.0.{place}:6004"} for place, other in enumerate(("n1", "n2"), 1)]
            tables["cluster"] |= {"peer": peers, "scope": [{"prefix": "a:", "writer": writer}]}
        life = Life(name, 1, TraceLog(self.world.trace, name), None, 0.0)  # type: ignore[arg-type]
        host = self.world.network.hosts[name]
        node = Node(NodeConfig.from_dict(tables), life.log, transport=host, random=Random(name))  # type: ignore[arg-type]
        life.node, life.ready = node, True
        self.world.lives[name] = life
        for told in self.world.on_birth:
            told(life)
        if node.member is not None:
            node.server.ownership = node.member.ownership
        return node

    @property
    def failures(self) -> list[str]:
        """What was found."""
        return self.world.failures


def write(node: Node, *words: bytes) -> None:
    """Let a node make an entry, whoever may."""
    node.store.emit(words, words[1])
    node.store.commit()


def change(node: Node) -> None:
    """Let those who look at a node's ownership look."""
    assert node.member is not None
    for observer in node.member.ownership.observers:
        observer()


async def test_one_writer_is_good(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    one, other = cluster.add("n1", "n1"), cluster.add("n2", "n1")
    change(one)
    change(other)
    write(one, b"SET", b"a:1", b"v")
    assert cluster.failures == []
    assert cluster.watch.writers == {b"a:": {"n1"}}


async def test_two_writers_are_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    change(cluster.add("n1", "n1"))
    change(cluster.add("n2", "n2"))
    (failure,) = cluster.failures
    assert failure.startswith("ownership: ['n1', 'n2'] take writes of b'a:'")


async def test_an_opening_at_an_old_epoch_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    cluster.watch.epochs[b"a:"] = 3
    change(cluster.add("n1", "n1"))
    (failure,) = cluster.failures
    assert "at epoch 0, after 3" in failure


@pytest.mark.parametrize(("state", "command", "found"), [
    ("elsewhere", (b"SET", b"a:1", b"v"), True),
    ("elsewhere", (b"DEL", b"a:1"), False),
    ("quiesced", (b"SET", b"a:1", b"v"), True),
    ("placing", (b"SET", b"a:1", b"v"), False),
    ("elsewhere", (b"SET", b"free", b"v"), False),
])  # fmt: skip
async def test_a_write_by_who_takes_none_is_found(
    nursery: trio.Nursery, state: str, command: tuple[bytes, ...], found: bool
) -> None:
    cluster = Cluster(nursery)
    node = cluster.add("n1", "n2" if state == "elsewhere" else "n1")
    assert node.member is not None
    if state != "elsewhere":
        node.member.ownership.quiesce(b"a:", "n2" if state == "quiesced" else "n1")
    change(node)
    write(node, *command)
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["ownership"] * found


async def test_one_entry_with_two_contents_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    one, other = cluster.add("n1"), cluster.add("n2")
    one.replication.lineage = other.replication.lineage = Lineage(5)
    write(one, b"SET", b"k", b"1")
    write(other, b"SET", b"k", b"1")
    assert cluster.failures == []
    write(one, b"SET", b"k", b"2")
    write(other, b"SET", b"k", b"3")
    (failure,) = cluster.failures
    assert failure.startswith("replicas: entry 1 of history 5 is SET k 3 at n2, and SET k 2 elsewhere")


async def test_a_copied_entry_in_another_place_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    one, other = cluster.add("n1"), cluster.add("n2")
    one.replication.lineage = Lineage(5)
    for value in (b"1", b"2"):
        write(one, b"SET", b"k", value)
    other.store.journal.origin = Origin("n1", 5)
    for offset, found in ((1, 0), (1, 1)):
        other.replication.note_cursor("n1", 5, offset)
        write(other, b"SET", b"k", b"%d" % (1 + found))
        assert len(cluster.failures) == found


SEVERAL = [(b"SET", b"a:1", b"v"), (b"DEL", b"b:1"), (b"DEL", b"free"), (b"DEL", b"a:2")]


@pytest.mark.parametrize(("part", "behind", "found"), [
    ([0, 3], 4, 0),
    ([1], 2, 0),
    ([1], 4, 0),
    ([0, 1, 3], 4, 0),
    ([0], 4, 1),
    ([3], 4, 1),
    ([3, 0], 4, 1),
])  # fmt: skip
async def test_half_of_what_came_together_is_found(
    nursery: trio.Nursery, part: list[int], behind: int, found: int
) -> None:
    cluster = Cluster(nursery, (b"a:", b"b:"))
    one, other = cluster.add("n1"), cluster.add("n2")
    cluster.watch.writers[b"a:"].add("n1")
    cluster.watch.writers[b"b:"].add("n1")
    one.replication.lineage = Lineage(5)
    for words in SEVERAL:
        one.store.emit(words, words[1])
    one.store.commit()
    other.store.journal.origin = Origin("n1", 5)
    other.replication.note_cursor("n1", 5, behind)
    for place in part:
        other.store.emit(SEVERAL[place], SEVERAL[place][1])
    other.store.commit()
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["replicas"] * found


async def test_what_was_made_before_a_restart_is_the_same_in_the_next_history(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    one, other = cluster.add("n1"), cluster.add("n2")
    cluster.watch.writers[b"a:"].add("n1")
    one.replication.lineage = Lineage(5)
    for count in (1, 2):
        for number in range(count):
            one.store.emit((b"SET", b"a:%d" % number, b"v"), b"a:%d" % number)
        one.store.commit()
    one.replication.lineage = one.replication.lineage.branch(6, 3)
    cluster.watch._ready(cluster.world.lives["n1"])
    other.store.journal.origin = Origin("n1", 6)
    for numbers, behind, found in (((0,), 1, 0), ((0, 1), 3, 0), ((1,), 3, 1)):
        other.replication.note_cursor("n1", 6, behind)
        for number in numbers:
            other.store.emit((b"SET", b"a:%d" % number, b"v"), b"a:%d" % number)
        other.store.commit()
        assert len(cluster.failures) == found, cluster.failures


async def test_a_copy_that_is_behind_may_hold_what_was_emptied(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    writer, _ = cluster.add("n1", "n1"), cluster.add("n2", "n1")
    change(writer)
    cluster.history.clearings.append(Operation("c", b"a:", "clear", b"", 0.0))
    cluster.losses._held[b"a:"] = {"n2": {b"a:counter": b"6"}}
    cluster.losses.opened(cluster.world.lives["n1"], b"a:")
    assert cluster.failures == []


async def test_a_lost_disk_that_is_not_made_up_for_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    writer, copy = cluster.add("n1", "n1"), cluster.add("n2", "n1")
    for node, count in ((writer, b"7"), (copy, b"6")):
        node.store.keyspace[b"a:counter"] = count
        change(node)
    assert copy.member is not None
    cluster.losses._held[b"a:"] = {"n2": {b"a:counter": b"6"}}
    cluster.losses.opened(cluster.world.lives["n1"], b"a:")
    assert cluster.failures == []
    writer.store.keyspace[b"a:counter"] = b"5"
    cluster.losses._held[b"a:"] = {"n2": {b"a:counter": b"6"}}
    cluster.losses.opened(cluster.world.lives["n1"], b"a:")
    (failure,) = cluster.failures
    assert failure.startswith("durability: n1 opens b'a:' with b'5' in b'a:counter', and n2 had b'6'")


@pytest.mark.parametrize(("how", "counts"), [("stop", True), ("kill", False), ("lose", False)])
async def test_a_copy_whose_node_was_stopped_is_there_after_its_next_start(
    nursery: trio.Nursery, how: Death, counts: bool
) -> None:
    cluster = Cluster(nursery)
    cluster.losses._plan = attrs.evolve(cluster.plan, policy="always")
    cluster.add("n1", "n1")
    cluster.add("n2", "n1")
    cluster.losses._held[b"a:"] = {"n2": {b"a:counter": b"6"}}
    cluster.world.die("n2", how)
    cluster.losses.opened(cluster.world.lives["n1"], b"a:")
    assert bool(cluster.failures) is counts


async def test_copies_that_differ_at_rest_are_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    rest = Rest(cluster.world, cluster.plan, None, cluster.losses, None)  # type: ignore[arg-type]
    rest._equal("n1", {b"k": (b"1", None)}, "n2", {b"k": (b"1", None)})
    assert cluster.failures == []
    rest._equal("n1", {b"k": (b"1", None)}, "n2", {b"k": (b"2", None)})
    rest._equal("n1", {b"k": (b"1", None)}, "n2", {b"k": (b"1", 5)})
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["replicas"] * 2


async def test_a_plain_replica_that_differs_at_rest_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    plan = attrs.evolve(cluster.plan, nodes=("n1",), replicas={"r1": "n1"})
    rest = Rest(cluster.world, plan, None, cluster.losses, None)  # type: ignore[arg-type]
    node, replica = cluster.add("n1"), cluster.add("r1")
    assert list(rest._nodes()) == ["n1"]
    assert rest._plain_replicas_in_step() == "r1 is to be a replica, and is none"
    replica.replication.role = "slave"
    replica.replication.lineage = node.replication.lineage = Lineage(5)
    assert rest._plain_replicas_in_step() == ""
    rest._compare_plain_replicas(rest._nodes())
    assert cluster.failures == []
    # What is under no scope is copied, too.
    write(node, b"SET", b"free", b"v")
    node.store.keyspace[b"free"] = b"v"
    assert rest._plain_replicas_in_step().startswith("r1 is at (5, 0), and the primary n1 at (5, 1)")
    rest._compare_plain_replicas(rest._nodes())
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["replicas"]


async def test_a_wait_that_counts_too_many_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    cluster.add("n1")
    copy = cluster.add("n2")
    host = cluster.world.network.add("c1", "10.0.8.1")
    client = Client("c1", host, cluster.world, cluster.history, [b"a:"], "seed")
    operation = cluster.history.add(Operation("c1", b"a:counter", "increment", b"", 1.0, 2.0, 4))
    copy.store.keyspace[b"a:counter"] = b"4"
    client._waited(operation, "n1", b"a:", 1)
    assert cluster.failures == []
    copy.store.keyspace[b"a:counter"] = b"3"
    client._waited(operation, "n1", b"a:", 1)
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["sessions"]


def _record(role: MoveRole, state: MoveState, peer: str, epoch: int = 1) -> MoveRecord:
    decision = {MoveState.FLIPPED: MoveState.FLIPPED, MoveState.ABORTED: MoveState.ABORTED}.get(state)
    return MoveRecord("00aa", b"a:", role, state, peer, epoch, decision=decision)


@pytest.mark.parametrize(("steps", "found"), [
    ([("n2", "target", "SEALED"), ("n1", "source", "FLIPPED")], False),
    ([("n1", "source", "FLIPPED")], True),
    ([("n2", "target", "AGREED"), ("n1", "source", "FLIPPED")], True),
    ([("n2", "target", "SEALED"), ("n1", "source", "ABORTED"), ("n2", "target", "ABORTED")], False),
    ([("n2", "target", "SEALED"), ("n2", "target", "ABORTED")], True),
    ([("n2", "target", "AGREED"), ("n2", "target", "ABORTED")], False),
])  # fmt: skip
async def test_records_that_may_not_be_there_are_found(
    nursery: trio.Nursery, steps: list[tuple[str, str, str]], found: bool
) -> None:
    cluster = Cluster(nursery)
    records = Records(cluster.world)
    nodes = {"n1": cluster.add("n1", "n1"), "n2": cluster.add("n2", "n1")}
    for name, role, state in steps:
        member = nodes[name].member
        assert member is not None
        record = _record(MoveRole(role), MoveState(state), "n2" if name == "n1" else "n1")
        records._written(cluster.world.lives[name], lambda records: None, [record])
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["moves"] * found


@pytest.mark.parametrize(("epoch", "found"), [(1, True), (2, False)])
async def test_what_was_sealed_may_be_given_up_for_a_later_opening(
    nursery: trio.Nursery, epoch: int, found: bool
) -> None:
    cluster = Cluster(nursery)
    records = Records(cluster.world)
    records.opened = {b"a:": epoch}
    cluster.add("n2", "n1")
    for state in (MoveState.SEALED, MoveState.ABORTED):
        record = _record(MoveRole.TARGET, state, "n1", epoch=2)
        records._written(cluster.world.lives["n2"], lambda records: None, [record])
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["moves"] * found


class _Slot:
    """What a primary knows of a replica."""

    state = "streaming"
    acked_at = 1.0
    replica_id = "kevynode-replica-6004#n2.aa"
    prefixes: tuple[bytes, ...] | None = None

    def __init__(self, history: int, acked: int) -> None:
        self.history = history
        self.acked = acked


async def test_a_copy_that_counts_for_more_than_it_has_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    counted = Counted(cluster.world, ())
    one, other = cluster.add("n1"), cluster.add("n2")
    one.replication.lineage = other.replication.lineage = Lineage(5)
    for value in (b"1", b"2"):
        write(other, b"SET", b"k", value)
    for acked, target, found in ((2, "10.0.0.1", 0), (3, "10.0.0.9", 0), (3, "10.0.0.1", 1)):
        other.replication.target = target, 16004
        counted._heard(cluster.world.lives["n1"], lambda slot, link, data: None, _Slot(5, acked), None, b"")
        assert len(cluster.failures) == found
    assert cluster.failures[0].startswith("sessions: n2 is counted up to 3, and has applied 2")
    assert counted.looked == 3


async def test_what_an_earlier_life_has_said_is_not_asked_of_the_next_one(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    counted = Counted(cluster.world, ())
    one, other = cluster.add("n1"), cluster.add("n2")
    one.replication.lineage = other.replication.lineage = Lineage(5)
    other.replication.target = "10.0.0.1", 16004
    write(other, b"SET", b"k", b"1")
    life = cluster.world.lives["n1"]
    for link, acked in (("old", 1), ("old", 2)):
        counted._heard(life, lambda slot, link, data: None, _Slot(5, acked), link, b"")
    assert len(cluster.failures) == 1
    cluster.world.lives["n2"].began = trio.current_time() + 1e-9
    counted._heard(life, lambda slot, link, data: None, _Slot(5, 3), "old", b"")
    assert len(cluster.failures) == 1
    cluster.world.lives["n2"].began = 0.0
    counted._heard(life, lambda slot, link, data: None, _Slot(5, 3), "new", b"")
    assert len(cluster.failures) == 2


async def test_a_pin_that_is_not_kept_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    node = cluster.add("n1")
    backlog = node.replication.backlog
    backlog.pins.add(0)
    write(node, b"SET", b"k", b"1")
    assert cluster.failures == []
    backlog.first = 1
    write(node, b"SET", b"k", b"2")
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["pins"]


async def test_the_history_of_a_promotion_is_no_replicas_own(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    promoted, replica = cluster.add("n1"), cluster.add("n2")
    cluster.watch.promoted("n1")
    promoted.replication.role = replica.replication.role = "slave"
    replica.store.journal.offset = 3
    replica.replication.lineage = promoted.replication.lineage
    cluster.watch._ready(cluster.world.lives["n2"])
    assert cluster.failures == []


async def test_a_replica_that_begins_a_history_is_found(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    primary, replica = cluster.add("n1"), cluster.add("n2")
    replica.replication.role = "slave"
    replica.store.journal.offset = 3
    replica.replication.lineage = primary.replication.lineage
    cluster.watch._ready(cluster.world.lives["n2"])
    assert cluster.failures == []
    replica.replication.lineage = primary.replication.lineage.branch(7, 3)
    cluster.watch._ready(cluster.world.lives["n2"])
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["replicas"]


async def test_a_replica_may_have_the_history_that_an_ended_primary_has_begun_last(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    primary, replica = cluster.add("n1"), cluster.add("n2")
    replica.replication.role = "slave"
    replica.store.journal.offset = 3
    primary.replication.lineage = replica.replication.lineage = primary.replication.lineage.branch(7, 3)
    cluster.world.die("n1", "power")
    cluster.watch._ready(cluster.world.lives["n2"])
    assert cluster.failures == []


def write_down(cluster: Cluster, name: str, *records: Record) -> None:
    """Put records into the ledger's file on a node's disk."""
    disk = cluster.world.disks[name]
    file = LedgerFile(disk, "/data", load(disk, "/data"))
    file.append(records)
    file.close()


def moved(state: MoveState, role: MoveRole = MoveRole.SOURCE, decision: MoveState | None = None) -> MoveRecord:
    return MoveRecord("0123", b"a:", role, state, "n2", 3, 7, 10, decision=decision)


@pytest.mark.parametrize(("record", "known"), [
    (LedgerEntry(b"a:", "n2", 3, "0123"), 3),
    (LedgerEntry(b"b:", "n2", 3, "0123"), 0),
    (moved(MoveState.FLIPPED), 3),
    (moved(MoveState.DONE, decision=MoveState.FLIPPED), 3),
    (moved(MoveState.ACTIVATED, MoveRole.TARGET), 3),
    # Nobody has opened it by these.
    (moved(MoveState.AGREED, MoveRole.TARGET), 0),
    (moved(MoveState.SHIPPED), 0),
    (moved(MoveState.DONE, decision=MoveState.ABORTED), 0),
])  # fmt: skip
async def test_an_epoch_is_forgotten_with_the_last_disk_that_knew_of_it(
    nursery: trio.Nursery, record: Record, known: int
) -> None:
    cluster = Cluster(nursery)
    for name in ("n1", "n2"):
        cluster.add(name, "n1")
        write_down(cluster, name, record)
    cluster.watch.epochs[b"a:"] = 3
    # Whatever else is the matter with that disk.
    cluster.world.disks["n2"].fill_up()
    cluster.world.disks["n2"].read_only()
    for how in ("stop", "kill", "power"):
        cluster.watch._dead(cluster.world.lives["n2"], how)
    assert cluster.watch.epochs[b"a:"] == 3
    cluster.world.die("n1", "lose")
    assert cluster.watch.epochs[b"a:"] == known
    cluster.world.die("n2", "lose")
    assert cluster.watch.epochs[b"a:"] == 0
    assert cluster.failures == []


async def test_an_epoch_that_a_copy_is_from_is_forgotten_when_its_node_ends(nursery: trio.Nursery) -> None:
    cluster = Cluster(nursery)
    cluster.add("n1", "n1")
    node = cluster.add("n2", "n1")
    assert node.member is not None
    copy = ScopeCopy(7, 10, 2)
    node.member.mesh = SimpleNamespace(copy_of=lambda prefix: copy)  # type: ignore[assignment]
    cluster.watch.epochs[b"a:"] = 3
    cluster.world.die("n1", "lose")
    assert cluster.watch.epochs[b"a:"] == 2
    cluster.world.die("n2", "kill")
    assert cluster.watch.epochs[b"a:"] == 0
