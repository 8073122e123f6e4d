"""Nodes that are killed at any moment and started again: what they acknowledged is there, whole, once, and in order.

Each round has a seed of its own, which its name tells; a dozen are run. For hundreds, and for others::

    KEVYNODE_CRASH_ROUNDS=300 KEVYNODE_CRASH_SEED=1000 python -m pytest tests/e2e/test_crashes.py

runs 300 rounds of each kind, from seed 1000 on. A kill hits another instruction each time, so a seed that failed may
have to be run some times: the data directory that a failure leaves behind says more.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from e2e.crashing import FIRST_SEED, MANY_KEYS, POLICIES, Clients, check_soundness, seeds, told
from e2e.replicating import free_ports
from support.durable_server import DurableServer, start_node, start_valkey
from support.promises import BrokenPromise
from support.raw_client import Reply

#: How often a node is killed in a round.
CRASHES: Final = 2

pytestmark = pytest.mark.slow


# -- one node ---------------------------------------------------------------------------------------------------------


class Round:
    """A data directory, the clients that write to whatever runs on it, and where the next moment is drawn from."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.draw = random.Random(seed)
        self.directory = directory
        self.port, _ = free_ports()
        self.clients = Clients(seed)
        self.filled = False

    @contextmanager
    def node(self, policy: str, **environment: str) -> Iterator[DurableServer]:
        """A node that serves on the directory, with all that was promised in it; killed at the end if it lives."""
        with start_node(self.directory, self.port, policy=policy, environment=environment) as server:
            server.wait_until_serving()
            self.clients.check(server)
            yield server
            check_soundness(server)

    def fill(self, server: DurableServer) -> None:
        """Have much in there."""
        if not self.filled:
            self.clients.fill(server, MANY_KEYS)
            self.filled = True

    def answers(self, most: int) -> int:
        """After how many answers something happens."""
        return self.draw.randrange(1, most)


def killed_under_load(round_: Round, policy: str) -> None:
    with round_.node(policy) as server, round_.clients.writing(server, kill_after=round_.answers(4000)):
        server.wait()


def killed_again_and_again(round_: Round, policy: str) -> None:
    for _ in range(3):
        with round_.node(policy) as server, round_.clients.writing(server, kill_after=round_.answers(40)):
            server.wait()


def rewrite_stage(folder: Path, base_before: str) -> int:
    """How far a rewrite has come: a new base begun, complete under its own name, in use, and the old files gone."""
    names = {path.name for path in folder.iterdir()}
    manifest = (folder / "appendonly.aof.manifest").read_text()
    base_now = base_named(manifest)
    if base_now != base_before:
        return 4 if base_before not in names else 3
    bases = {name for name in names if name.endswith(".base.aof") and name != base_before}
    return max((1 if name.startswith("temp-") else 2 for name in bases), default=0)


def base_named(manifest: str) -> str:
    """The base that a manifest names; empty if it names none."""
    found = re.search(r"(?m)^file (\S+) seq \d+ type b", manifest)
    return found[1] if found else ""


def killed_in_a_rewrite(round_: Round, policy: str) -> None:
    folder = round_.directory / "appendonlydir"
    with round_.node(policy) as server:
        round_.fill(server)
        before = base_named((folder / "appendonly.aof.manifest").read_text())
        with round_.clients.writing(server) as writing:
            writing.wait_for_answers(round_.answers(500))
            assert b"rewriting started" in server.call(b"BGREWRITEAOF").value
            stage = round_.draw.randrange(5)
            if stage:
                server.wait_until(lambda: rewrite_stage(folder, before) >= stage, f"the rewrite reaches stage {stage}")
            if round_.draw.random() < 0.7:
                writing.wait_for_answers(round_.answers(1500))
            server.kill()


def killed_while_it_rewrites_by_itself(round_: Round, policy: str) -> None:
    """A small file that has grown a little is rewritten: there is a rewrite all the time."""
    settings = {
        "KEVYNODE_PERSISTENCE_AUTO_AOF_REWRITE_MIN_SIZE": "16kb",
        "KEVYNODE_PERSISTENCE_AUTO_AOF_REWRITE_PERCENTAGE": "1",
    }
    with round_.node(policy, **settings) as server, round_.clients.writing(server, kill_after=round_.answers(5000)):
        server.wait()


def killed_in_a_save(round_: Round, policy: str) -> None:
    with round_.node(policy) as server:
        round_.fill(server)
        with round_.clients.writing(server) as writing:
            assert server.call(b"BGSAVE").kind == "simple"
            writing.wait_for_answers(round_.answers(1500))
            server.kill()


def killed_in_a_load(round_: Round, policy: str) -> None:
    with round_.node(policy) as server:
        round_.fill(server)
        with round_.clients.writing(server, kill_after=round_.answers(3000)):
            server.wait()
    for _ in range(3):
        with start_node(round_.directory, round_.port, policy=policy) as server:
            # From before it has read its configuration until it serves.
            server.look_away(round_.draw.random() * 0.8)


def killed_when_the_policy_changes(round_: Round, policy: str) -> None:
    with round_.node(policy) as server, round_.clients.writing(server) as writing:
        for _ in range(4):
            writing.wait_for_answers(round_.answers(400))
            other = round_.draw.choice(POLICIES).encode()
            assert server.call(b"CONFIG", b"SET", b"appendfsync", other) == Reply("simple", b"OK")
        writing.wait_for_answers(round_.answers(400))
        server.kill()


def has_rewritten(server: DurableServer, times: int) -> bool:
    """Whether so many rewrites have ended well since it was started."""
    return server.info(b"persistence")["aof_rewrites"] == f"{times}"


def killed_after_the_file_was_switched_off_and_on(round_: Round, policy: str) -> None:
    """What was written meanwhile is in no file, until all data is in a new one."""
    with round_.node(policy) as server:
        round_.fill(server)
        with round_.clients.writing(server) as writing:
            for number in (1, 2):
                assert server.call(b"CONFIG", b"SET", b"appendonly", b"no") == Reply("simple", b"OK")
                writing.wait_for_answers(round_.answers(300))
                assert server.call(b"CONFIG", b"SET", b"appendonly", b"yes") == Reply("simple", b"OK")
                writing.wait_for_answers(round_.answers(300))
                server.wait_until(partial(has_rewritten, server, number), "there is a file again")
            writing.wait_for_answers(round_.answers(1000))
            server.kill()


MOMENTS: Final[tuple[Callable[[Round, str], None], ...]] = (
    killed_under_load,
    killed_in_a_rewrite,
    killed_while_it_rewrites_by_itself,
    killed_in_a_load,
    killed_again_and_again,
    killed_in_a_save,
    killed_when_the_policy_changes,
    killed_after_the_file_was_switched_off_and_on,
)


@pytest.mark.parametrize("seed", seeds(12))
def test_nothing_acknowledged_is_lost(seed: int, tmp_path: Path) -> None:
    round_ = Round(seed, tmp_path)
    for crash in range(CRASHES):
        # Each moment comes first in its turn, then any of them.
        moment = round_.draw.choice(MOMENTS) if crash else MOMENTS[seed % len(MOMENTS)]
        policy = round_.draw.choice(POLICIES)
        with told("crash", crash, moment.__name__, policy, tmp_path):
            moment(round_, policy)
    with told("afterwards", tmp_path), round_.node(round_.draw.choice(POLICIES)) as server:
        # What was found is there again when the node has ended in peace.
        assert server.stop() == 0
    with told("after a peaceful end", tmp_path), round_.node("everysec") as server:
        assert round_.clients.check(server) == 0


@pytest.mark.parametrize("seed", seeds(2))
def test_a_large_transaction_is_whole(seed: int, tmp_path: Path) -> None:
    """A kill may cut a large write short."""
    round_ = Round(seed, tmp_path)
    round_.clients = Clients(seed, number=2, large=True)
    for _ in range(3):
        with round_.node("no") as server, round_.clients.writing(server, kill_after=round_.answers(12)):
            server.wait()
    with round_.node("no"):
        pass


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_the_disk_gets_its_turn_under_full_load(policy: str, tmp_path: Path) -> None:
    """A thread that syncs shares the interpreter with a hub that is always busy."""
    round_ = Round(FIRST_SEED, tmp_path)
    with round_.node(policy) as server, round_.clients.writing(server) as writing, server.connect() as client:
        writing.wait_for_answers(100)
        for number in range(3):
            assert client.call(b"SET", b"safe", b"%d" % number) == Reply("simple", b"OK")
            durable = client.call(b"WAITAOF", b"1", b"0", b"15000").elements
            assert durable == (Reply("integer", 1), Reply("integer", 0)), durable
        assert client.call(b"DEL", b"safe") == Reply("integer", 1)


def test_nobody_is_held_for_good_by_rewrites(tmp_path: Path) -> None:
    round_ = Round(FIRST_SEED, tmp_path)
    with round_.node("everysec") as server:
        round_.fill(server)
        with round_.clients.writing(server) as writing:
            for number in range(1, 11):
                server.call(b"BGREWRITEAOF")
                server.wait_until(partial(has_rewritten, server, number), "it is rewritten")
                writing.wait_for_answers(50)
        # Every client has had all its answers, or this would not have ended.
        round_.clients.check(server)


# -- the harness itself -----------------------------------------------------------------------------------------------


@pytest.mark.differential
def test_valkey_keeps_its_promises_too(tmp_path: Path) -> None:
    clients = Clients(FIRST_SEED)
    port, _ = free_ports()
    for policy in POLICIES:
        with start_valkey(tmp_path, port, policy=policy) as server:
            server.wait_until_serving()
            clients.check(server)
            with clients.writing(server, kill_after=2000):
                server.wait()
    with start_valkey(tmp_path, port) as server:
        server.wait_until_serving()
        clients.check(server)


@pytest.mark.differential
def test_a_server_that_keeps_nothing_is_found_out(tmp_path: Path) -> None:
    clients = Clients(FIRST_SEED)
    port, _ = free_ports()
    with start_valkey(tmp_path, port, aof=False) as server:
        server.wait_until_serving()
        with clients.writing(server, kill_after=2000):
            server.wait()
    with start_valkey(tmp_path, port, aof=False) as server:
        server.wait_until_serving()
        with pytest.raises(BrokenPromise):
            clients.check(server)
