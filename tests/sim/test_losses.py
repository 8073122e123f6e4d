"""What the rules let go: shown ends, starts and promotions that are made by hand, at times that are known."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing
from sim.clients import Client
from sim.disk import SimDisk
from sim.exposure import Place, common, working_before
from sim.history import Loss, Operation
from sim.test_checkers import Cluster, write
from sim.world import Death, Life

from kevynode import Node
from kevynode.persist.writer import Policy
from kevynode.replicate.lineage import Lineage

A = b"a:"
FIRST = Lineage(5)


class Lives:
    """One node of a cluster, which writes under ``a:`` and is started again and again."""

    def __init__(self, nursery: trio.Nursery, policy: Policy, name: str = "n1") -> None:
        self.cluster = Cluster(nursery)
        self.losses = self.cluster.losses
        self.losses._plan = attrs.evolve(self.cluster.plan, policy=policy)
        self.name = name

    def start(self, found: Place | None, *, ready: bool = True) -> Node:
        """A start that finds that."""
        disk = self.cluster.world.disks.get(self.name)
        node = self.cluster.add(self.name, self.name)
        if disk is not None:
            self.cluster.world.disks[self.name] = disk
        life = self.life
        life.began, life.ready = trio.current_time(), ready
        lineage, offset = (None, 0) if found is None else (found.lineage, found.offset)
        node.replication.restored(lineage, offset, {}, False, True)
        if ready:
            for told in self.cluster.world.on_ready:
                told(life)
        return node

    @property
    def life(self) -> Life:
        """The present one."""
        return self.cluster.world.lives[self.name]

    @property
    def place(self) -> Place:
        """Where its data stand."""
        found = self.losses.exposure.place(self.name)
        assert found is not None
        return found

    def end(self, how: Death) -> None:
        """End it."""
        self.cluster.world.die(self.name, how)

    @property
    def found(self) -> list[Loss]:
        """What may have been lost."""
        return self.cluster.history.losses

    @property
    def failures(self) -> list[str]:
        """What is wrong with what was lost."""
        return [failure for failure in self.cluster.failures if failure.startswith("durability")]


@pytest.mark.parametrize(("one", "other", "first"), [
    (Place(FIRST, 9), None, 0),
    (Place(FIRST, 9), Place(FIRST, 4), 4),
    (Place(FIRST.branch(6, 7), 9), Place(FIRST, 4), 4),
    (Place(FIRST.branch(6, 7), 9), Place(FIRST, 8), 7),
    (Place(FIRST.branch(6, 7), 9), Place(FIRST.branch(8, 5), 8), 5),
    (Place(FIRST.branch(6, 7).branch(8, 3), 9), Place(FIRST, 8), 3),
    (Place(FIRST, 9), Place(Lineage(7), 9), 0),
])  # fmt: skip
def test_data_share_what_comes_before_the_first_branch(one: Place, other: Place | None, first: int) -> None:
    assert common(one, other) == first


@pytest.mark.parametrize(("idle", "moment"), [
    ([], 8.0),
    ([(9.0, 9.5)], 7.5),
    ([(9.0, 9.5), (9.2, 9.8)], 7.2),
    ([(9.0, 20.0)], 7.0),
    ([(1.0, 8.0)], 8.0),
    ([(1.0, 8.5)], 0.5),
    ([(1.0, 9.9), (3.0, 4.0)], -0.9),
    ([(12.0, 13.0)], 8.0),
])  # fmt: skip
def test_time_in_which_nothing_could_be_done_does_not_count(idle: list[tuple[float, float]], moment: float) -> None:
    assert working_before(10.0, 2.0, idle) == pytest.approx(moment)


@pytest.mark.parametrize(("policy", "how", "kept", "rule", "wrong"), [
    # Entries are made after 1, 2 and 3 seconds, and it ends half a second later.
    ("everysec", "power", 3, None, False),
    ("everysec", "power", 1, (2.0, 4.1, False), False),
    ("everysec", "power", 0, (1.0, 3.1, False), True),
    ("everysec", "kill", 2, (3.0, 5.1, True), True),
    ("everysec", "kill", 3, None, False),
    ("no", "power", 0, (1.0, float("inf"), False), False),
    ("no", "kill", 2, (3.0, float("inf"), True), True),
    ("always", "power", 2, None, False),
    ("always", "power", 0, None, True),
])  # fmt: skip
async def test_an_end_may_take_what_the_policy_says(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    policy: Policy,
    how: Death,
    kept: int,
    rule: tuple[float, float, bool] | None,
    wrong: bool,
) -> None:
    lives = Lives(nursery, policy)
    node = lives.start(None)
    for _ in range(3):
        await trio.sleep(1)
        write(node, b"SET", b"a:1", b"v")
    await trio.sleep(0.5)
    lineage = node.replication.lineage
    lives.end(how)
    assert lives.found == []
    await trio.sleep(3)
    lives.start(Place(lineage, kept))
    losses = [(loss.since, loss.until, loss.only_reads) for loss in lives.found]
    assert losses == [pytest.approx(rule)] * (rule is not None)
    assert all((loss.at, loss.prefix) == (3.5, A) for loss in lives.found)
    assert [failure.partition(":")[0] for failure in lives.failures] == ["durability"] * wrong


@pytest.mark.parametrize("how", ["power", "kill"])
async def test_what_a_slow_disk_could_not_store_may_be_older(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, how: Death
) -> None:
    lives = Lives(nursery, "everysec")
    node = lives.start(None)
    await trio.sleep(1)
    write(node, b"SET", b"a:1", b"v")
    await trio.sleep(8)
    lives.cluster.world.disks["n1"].busy.append((1.0, 9.0))
    lives.end(how)
    lives.start(Place(node.replication.lineage, 0))
    assert lives.failures == []
    (loss,) = lives.found
    operation = Operation("c1", b"a:1", "increment", b"", 1.0, 1.1, 1)
    late = Operation("c1", b"a:1", "increment", b"", 5.0, 5.1, 2)
    read = Operation("c1", b"a:1", "get", b"", 5.0, 5.1, b"1")
    assert [loss.may_take(one) for one in (operation, late, read)] == [how == "power", False, True]


async def test_a_loss_of_power_before_the_next_start_has_loaded_takes_what_a_kill_had_left(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lives = Lives(nursery, "everysec")
    node = lives.start(None)
    write(node, b"SET", b"a:1", b"v")
    await trio.sleep(0.9)
    lives.end("kill")
    await trio.sleep(5)
    # It is born, and ends before it has found anything.
    lives.cluster.add("n1", "n1")
    lives.life.ready = False
    lives.end("power")
    await trio.sleep(5)
    lives.start(Place(node.replication.lineage, 0))
    assert lives.failures == []
    (loss,) = lives.found
    assert (loss.at, loss.only_reads, loss.until) == (0.9, False, 2.1)


async def test_what_a_start_has_found_is_not_lost_any_more(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lives = Lives(nursery, "everysec")
    node = lives.start(None)
    write(node, b"SET", b"a:1", b"v")
    await trio.sleep(0.9)
    lives.end("kill")
    lineage = node.replication.lineage
    await trio.sleep(1)
    lives.start(Place(lineage, 1))
    assert lives.found == []
    await trio.sleep(0.1)
    lives.end("power")
    await trio.sleep(1)
    lives.start(Place(lineage, 0))
    assert [failure.rpartition(": ")[2] for failure in lives.failures] == ["it had been there before that start"]


async def test_an_entry_that_comes_again_is_as_old_as_that(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lives = Lives(nursery, "everysec")
    node = lives.start(None)
    lineage = node.replication.lineage
    write(node, b"SET", b"a:1", b"v")
    await trio.sleep(0.5)
    lives.end("power")
    node = lives.start(Place(lineage, 0))
    await trio.sleep(5)
    # As a replica gets it, which goes on with the history that it has.
    node.replication.lineage = lineage
    write(node, b"SET", b"a:1", b"v")
    await trio.sleep(1)
    lives.end("power")
    lives.start(Place(lineage, 0))
    assert lives.failures == []
    assert [(loss.since, loss.until) for loss in lives.found] == [(0.0, 2.1), (0.0, pytest.approx(7.6))]


async def test_an_entry_that_comes_again_behind_a_copy_that_lacked_it_is_as_old_as_that(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lives = Lives(nursery, "everysec")
    node = lives.start(Place(FIRST, 0))
    lineage = node.replication.lineage
    write(node, b"SET", b"a:1", b"v")
    await trio.sleep(5)
    # It is told to copy one that is behind, and has the entry from that one later.
    node.store.journal.offset = 0
    node.replication.adopt(lineage.history, 0, (), "full", "")
    await trio.sleep(5)
    write(node, b"SET", b"a:1", b"v")
    await trio.sleep(1)
    lives.end("power")
    lives.start(Place(lineage, 0))
    assert lives.failures == []
    (loss,) = lives.found
    assert (loss.since, loss.until) == pytest.approx((0.0, 12.1))


async def test_a_promotion_takes_what_the_replica_lacks_from_that_moment_on(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lives = Lives(nursery, "always")
    lives.losses._plan = attrs.evolve(lives.losses._plan, shape="replicated", nodes=("n1", "n2", "n3"))
    lives.losses.primary = "n1"
    primary = lives.start(None)
    lives.name = "n2"
    replica = lives.start(None)
    replica.replication.role, replica.replication.lineage = "slave", primary.replication.lineage
    write(primary, b"SET", b"a:1", b"v")
    write(replica, b"SET", b"a:1", b"v")
    await trio.sleep(7)
    write(primary, b"SET", b"a:1", b"w")
    lives.name = "n1"
    lives.end("power")
    await trio.sleep(1)
    told: list[str] = []
    lives.losses.on_promoted.append(told.append)
    replica.replication.promote()
    assert told == ["n2"]
    assert lives.losses.primary == "n2"
    (loss,) = lives.found
    assert (loss.at, loss.since, loss.safe_copies, loss.why) == (8.0, 7.0, 2, "promotion")


def _begin_files(disk: SimDisk) -> None:
    """A manifest that names one increment."""
    disk.make_folder("/data/appendonlydir")
    manifest = disk.create("/data/appendonlydir/appendonly.aof.manifest")
    manifest.write(b"file appendonly.aof.1.incr.aof seq 1 type i\n")


@pytest.mark.parametrize(("policy", "how", "why"), [
    ("always", "kill", "failing"),
    ("always", "power", "at once"),
    ("no", "kill", "slow"),
    ("everysec", "kill", "slow"),
])  # fmt: skip
async def test_a_promoted_replica_that_had_not_stored_it_loses_what_others_had_acknowledged(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, policy: Policy, how: Death, why: str
) -> None:
    lives = Lives(nursery, policy)
    lives.losses._plan = attrs.evolve(lives.losses._plan, shape="replicated")
    lives.losses.primary = "n1"
    replica = lives.start(None)
    if why == "failing":
        lives.losses.trouble_begins("n1")
    await trio.sleep(1)
    write(replica, b"SET", b"a:1", b"v")
    if why == "slow":
        lives.cluster.world.disks["n1"].busy.append((1.0, 3.0))
    lives.losses._promoted["n1"] = 2.0
    await trio.sleep(1 if why == "at once" else 2)
    lineage = replica.replication.lineage
    lives.end(how)
    lives.start(Place(lineage, 0))
    assert lives.failures == []
    (loss,) = lives.found
    before = Operation("c1", b"a:1", "increment", b"", 1.5, 1.6, 1)
    after = Operation("c1", b"a:1", "increment", b"", 2.5, 2.6, 2)
    assert (loss.may_take(before), loss.may_take(after)) == (True, False)


async def test_what_is_written_late_is_exposed_from_then_on(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lives = Lives(nursery, "everysec")
    node = lives.start(None)
    disk = lives.cluster.world.disks["n1"]
    _begin_files(disk)
    await trio.sleep(1)
    write(node, b"SET", b"a:1", b"v")
    # The files are being changed meanwhile, so nothing is written and nobody is answered.
    await trio.sleep(4)
    disk.busy.append((1.0, 5.0))
    disk.create("/data/appendonlydir/appendonly.aof.1.incr.aof").write(b"what a sync has yet to store")
    await trio.sleep(0.5)
    lives.end("power")
    lives.start(Place(node.replication.lineage, 0))
    assert lives.failures == []
    (loss,) = lives.found
    assert (loss.since, loss.until) == pytest.approx((1.0, 7.1))


@pytest.mark.parametrize(("policy", "kind", "begun", "found"), [
    ("everysec", "increment", 3.0, False),
    ("everysec", "increment", 3.2, True),
    ("everysec", "get", 3.2, False),
    ("no", "increment", 3.2, False),
])  # fmt: skip
async def test_an_answer_while_too_much_is_exposed_is_found(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, policy: Policy, kind: str, begun: float, found: bool
) -> None:
    lives = Lives(nursery, policy)
    lives.start(None)
    disk = lives.cluster.world.disks["n1"]
    _begin_files(disk)
    await trio.sleep(1)
    file = disk.create("/data/appendonlydir/appendonly.aof.1.incr.aof")
    file.write(b"what a sync has yet to store")
    await trio.sleep(3)
    operation = Operation("c1", b"a:1", kind, b"", begun, 4.0, 1)  # type: ignore[arg-type]  # one of the kinds
    lives.losses.answered(operation, "n1")
    assert [failure.partition(":")[0] for failure in lives.failures] == ["durability"] * found
    file.sync()
    lives.losses.answered(attrs.evolve(operation, begun=3.9), "n1")
    assert len(lives.failures) == found


async def test_a_sync_covers_what_was_written_before_it_began(autojump_clock: trio.testing.MockClock) -> None:
    disk = SimDisk(1, trio.current_time)
    _begin_files(disk)
    file = disk.create("/data/appendonlydir/appendonly.aof.1.incr.aof")
    file.write(b"first")
    await trio.sleep(1)

    def write_meanwhile(call: object) -> None:
        disk.before = None
        assert disk.exposed_since() == 0.0
        file.write(b"second")

    disk.before = write_meanwhile
    file.sync()
    assert disk.exposed_since() == 1.0
    disk.fail_next("sync")
    await trio.sleep(1)
    with pytest.raises(OSError, match="Input/output error"):
        file.sync()
    assert disk.exposed_since() == 1.0
    file.write(b"second")
    file.sync()
    assert disk.exposed_since() is None


async def test_a_copy_that_an_operator_replaces_may_have_had_what_it_was_counted_for(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lives = Lives(nursery, "always")
    lives.start(None)
    cluster, exposure = lives.cluster, lives.losses.exposure
    replica = cluster.add("n2")
    client = Client("c1", cluster.world.network.add("c1", "10.0.8.1"), cluster.world, cluster.history, [A], "seed")
    client.redirected = exposure.redirected
    operation = cluster.history.add(Operation("c1", b"a:counter", "increment", b"", 1.0, 2.0, 4))
    await trio.sleep(0.5)
    assert replica.replication.follow("10.0.0.1", 16004)
    await trio.sleep(1)
    assert not replica.replication.follow("10.0.0.1", 16004)
    client._waited(operation, "n1", A, 1)
    assert [failure.partition(":")[0] for failure in cluster.failures] == ["sessions"]
    cluster.failures.clear()
    assert replica.replication.follow("10.0.0.3", 16004)
    client._waited(operation, "n1", A, 1)
    assert cluster.failures == []
