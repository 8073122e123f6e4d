"""A primary and its replica that are killed at any moment: both go on where they were, neither has what the other lost.

More rounds: as in ``test_crashes``.
"""

from __future__ import annotations

import copy
import random
from functools import partial
from pathlib import Path

import pytest
from e2e.crashing import FIRST_SEED, MANY_KEYS, POLICIES, Clients, check_soundness, is_kept, seeds, told
from e2e.replicating import free_ports
from support.durable_server import DurableServer, start_node
from support.raw_client import Reply

pytestmark = pytest.mark.slow


class Pair:
    """A primary and a replica, each with a data directory and ports that it comes back to."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.draw = random.Random(seed)
        self.clients = Clients(seed)
        self._primary_port, self._replica_port = free_ports()[0], free_ports()[0]
        self._folders = directory / "primary", directory / "replica"
        for folder in self._folders:
            folder.mkdir()
        self.policies = self.draw.choice(POLICIES), self.draw.choice(POLICIES)

    def start_primary(self) -> DurableServer:
        """Start it; it is not ready yet."""
        return start_node(self._folders[0], self._primary_port, policy=self.policies[0])

    def start_replica(self, *, follow: bool = True) -> DurableServer:
        """Start it, as a replica or as a node of its own; it is not ready yet."""
        options = ("--replicaof", f"127.0.0.1:{self._primary_port + 10000}") if follow else ()
        return start_node(self._folders[1], self._replica_port, *options, policy=self.policies[1])

    def check(self, primary: DurableServer, replica: DurableServer) -> None:
        """Wait until the replica has all that its primary has, and hold both to what was promised."""
        primary.wait_until_serving()
        replica.wait_until_serving()
        self.clients.check(primary)
        replica.wait_until(lambda: position_of(replica) == position_of(primary), "the replica has everything")
        assert self.clients.check(replica) == 0
        assert primary.call(b"DEBUG", b"DIGEST") == replica.call(b"DEBUG", b"DIGEST")
        check_soundness(primary)
        check_soundness(replica)


def position_of(server: DurableServer) -> tuple[Reply, ...]:
    """History and next offset."""
    return server.call(b"REPL.TOKEN").elements


def has_link(replica: DurableServer) -> bool:
    return replica.info(b"replication").get("master_link_status") == "up"


def wait_for_link(replica: DurableServer) -> None:
    replica.wait_until_serving()
    replica.wait_until(lambda: has_link(replica), "the replica follows")


def syncs(primary: DurableServer) -> tuple[int, int]:
    """How many replicas began anew, and how many went on."""
    stats = primary.info(b"stats")
    return int(stats["sync_full"]), int(stats["sync_partial_ok"])


@pytest.mark.parametrize("seed", seeds(2))
def test_a_primary_that_was_killed_goes_on_with_its_replica(seed: int, tmp_path: Path) -> None:
    pair = Pair(seed, tmp_path)
    with told(pair.policies, tmp_path), pair.start_primary() as first:
        first.wait_until_serving()
        with pair.start_replica() as replica:
            wait_for_link(replica)
            with pair.clients.writing(first, kill_after=pair.draw.randrange(1, 3000)):
                first.wait()
            with pair.start_primary() as second:
                pair.check(second, replica)
                assert syncs(second) == (0, 1)
                with pair.clients.writing(second, kill_after=pair.draw.randrange(1, 2000)):
                    second.wait()
            with pair.start_primary() as third:
                pair.check(third, replica)
                assert syncs(third) == (0, 1)


@pytest.mark.parametrize("seed", seeds(2))
def test_a_replica_that_was_killed_goes_on_where_it_was(seed: int, tmp_path: Path) -> None:
    pair = Pair(seed, tmp_path)
    with told(pair.policies, tmp_path), pair.start_primary() as primary:
        primary.wait_until_serving()
        with pair.start_replica() as replica:
            wait_for_link(replica)
            before, _ = syncs(primary)
            with pair.clients.writing(primary, kill_after=pair.draw.randrange(1, 4000), victim=replica) as writing:
                replica.wait()
                writing.wait_for_answers(500)
        for partial in (1, 2):
            with pair.start_replica() as replica:
                # It catches up while there is more and more, is killed in that, or in following.
                with pair.clients.writing(primary) as writing:
                    writing.wait_for_answers(pair.draw.randrange(1, 3000))
                if partial == 2:
                    pair.check(primary, replica)
                    full, went_on = syncs(primary)
                    assert full == before
                    assert went_on >= 1


@pytest.mark.parametrize("seed", seeds(2))
def test_both_are_killed_and_go_on(seed: int, tmp_path: Path) -> None:
    pair = Pair(seed, tmp_path)
    with told(pair.policies, tmp_path):
        with pair.start_primary() as primary, pair.start_replica() as replica:
            primary.wait_until_serving()
            wait_for_link(replica)
            victims = [primary, replica]
            pair.draw.shuffle(victims)
            with pair.clients.writing(primary, kill_after=pair.draw.randrange(1, 3000), victim=victims[0]):
                victims[0].wait()
                victims[1].kill()
        with pair.start_primary() as primary, pair.start_replica() as replica:
            pair.check(primary, replica)
            assert syncs(primary) == (0, 1)


@pytest.mark.parametrize("whose", ["primary", "replica"])
@pytest.mark.parametrize("seed", seeds(1))
def test_a_snapshot_that_ends_with_one_of_them(seed: int, whose: str, tmp_path: Path) -> None:
    pair = Pair(seed, tmp_path)
    with told(pair.policies, tmp_path), pair.start_primary() as primary:
        primary.wait_until_serving()
        pair.clients.fill(primary, 2 * MANY_KEYS)
        with pair.start_replica(follow=False) as lonely:
            # What it has of its own is what it comes back with until the snapshot is there as a whole.
            lonely.wait_until_serving()
            assert lonely.call(b"MSET", b"mine", b"1", b"too", b"2") == Reply("simple", b"OK")
        with pair.start_replica() as replica:
            victim = primary if whose == "primary" else replica
            replica.wait_until_listening()
            with pair.clients.writing(primary) as writing:
                replica.wait_until(
                    lambda: replica.info(b"replication").get("master_sync_in_progress") == "1" or has_link(replica),
                    "the snapshot begins",
                )
                writing.wait_for_answers(pair.draw.randrange(1, 3000))
                victim.kill()
            if whose == "primary":
                with pair.start_primary() as primary:
                    pair.check(primary, replica)
        if whose == "replica":
            with pair.start_replica(follow=False) as lonely:
                lonely.wait_until_serving()
                if lonely.call(b"GET", b"mine").kind == "bulk":
                    assert lonely.call(b"DBSIZE") == Reply("integer", 2)
                else:
                    assert lonely.call(b"DBSIZE").value > 2 * MANY_KEYS
            with pair.start_replica() as replica:
                pair.check(primary, replica)


def test_a_primary_that_was_killed_after_a_rewrite_is_followed_again(tmp_path: Path) -> None:
    pair = Pair(FIRST_SEED, tmp_path)
    with told(pair.policies, tmp_path), pair.start_primary() as first:
        first.wait_until_serving()
        with pair.start_replica() as replica:
            wait_for_link(replica)
            for server in (first, replica):
                with pair.clients.writing(first) as writing:
                    writing.wait_for_answers(300)
                    assert server.call(b"BGREWRITEAOF").kind == "simple"
                    writing.wait_for_answers(300)
                    server.wait_until(partial(is_kept, server), "the rewrite ends")
            with pair.clients.writing(first, kill_after=pair.draw.randrange(1, 2000)):
                first.wait()
            with pair.start_primary() as second:
                pair.check(second, replica)


def test_a_promoted_replica_keeps_what_it_was_told(tmp_path: Path) -> None:
    pair = Pair(FIRST_SEED, tmp_path)
    with told(pair.policies, tmp_path), pair.start_primary() as primary:
        primary.wait_until_serving()
        with pair.start_replica() as replica:
            wait_for_link(replica)
            with pair.clients.writing(primary) as writing:
                writing.wait_for_answers(500)
            pair.check(primary, replica)
            # From here on they are two.
            others = copy.deepcopy(pair.clients)
            assert replica.call(b"REPLICAOF", b"NO", b"ONE") == Reply("simple", b"OK")
            with others.writing(replica, kill_after=pair.draw.randrange(1, 2000)):
                replica.wait()
        with pair.start_replica(follow=False) as alone:
            alone.wait_until_serving()
            others.check(alone)
            with others.writing(alone, kill_after=pair.draw.randrange(1, 500)):
                alone.wait()
        with pair.start_replica(follow=False) as alone:
            alone.wait_until_serving()
            others.check(alone)
        # As a replica again it is what its primary is, and nothing else.
        with pair.start_replica() as replica:
            with pair.clients.writing(primary) as writing:
                writing.wait_for_answers(500)
            pair.check(primary, replica)


def test_what_was_written_without_a_file_is_not_taken_for_kept(tmp_path: Path) -> None:
    """A replica may have what its primary wrote while it kept no file, and lost."""
    pair = Pair(FIRST_SEED, tmp_path)
    with pair.start_primary() as first:
        first.wait_until_serving()
        with pair.start_replica() as replica:
            wait_for_link(replica)
            pair.clients.fill(first, 1000)
            with first.connect() as client:
                commands = [(b"CONFIG", b"SET", b"appendonly", b"no"), (b"SET", b"x:1", b"v"), (b"SET", b"x:2", b"v")]
                assert client.pipeline(commands) == [Reply("simple", b"OK")] * 3
            replica.wait_until(lambda: position_of(replica) == position_of(first), "the replica has everything")
            # Whatever is done about the file in the background has been done.
            assert first.call(b"SAVE") == Reply("simple", b"OK")
            first.kill()
            with pair.start_primary() as second:
                pair.check(second, replica)
