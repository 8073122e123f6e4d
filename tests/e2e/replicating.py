"""Nodes that copy each other, as processes: how they are started, and what a test asks of them.

Every node can be asked for a digest of its data. Ports that a test wants to come back to are taken from below those
that the kernel gives to outgoing connections, so that nobody who tries to connect to a node that is gone can get the
node's own port for it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import redis
from support.node_process import NodeProcess

DEBUGGING = {"KEVYNODE_CONFIG_ENABLE_DEBUG_COMMAND": "yes"}


def free_ports() -> tuple[int, int]:
    """A client port and the replication port that goes with it, 10000 above, both free a moment ago."""
    while True:
        port = random.randrange(12000, 22000)
        try:
            for number in (port, port + 10000):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port, port + 10000


def start(*options: str, upstream: NodeProcess | None = None, config: str | None = None) -> NodeProcess:
    """A node, the replica of ``upstream`` if that is given. The caller stops it."""
    follow = () if upstream is None else ("--replicaof", upstream.replication_address)
    return NodeProcess(*follow, *options, config=config, environment=DEBUGGING)


@contextmanager
def client_of(node: NodeProcess) -> Iterator[Any]:
    """A redis-py client, closed at the end."""
    with redis.Redis(host=node.host, port=node.port, decode_responses=True) as client:
        yield client


def replication_of(node: NodeProcess) -> dict[str, Any]:
    """The replication section of a node's INFO, lines of fields as dictionaries."""
    with client_of(node) as client:
        fields: dict[str, Any] = client.info("replication")
    # redis-py makes a number of each value that reads as one, and now and then a history id has no letter in it.
    return fields | {name: f"{fields[name]:0>40}" for name in ("master_replid", "master_replid2")}


def position_of(node: NodeProcess) -> tuple[int, int]:
    """What REPL.TOKEN tells: history and next offset."""
    with client_of(node) as client:
        history, offset = client.execute_command("REPL.TOKEN")
    return int(history), int(offset)


def digest_of(node: NodeProcess) -> str:
    """What DEBUG DIGEST makes of all data."""
    with client_of(node) as client:
        return str(client.execute_command("DEBUG", "DIGEST"))


def wait_for_field(node: NodeProcess, name: str, expected: object) -> None:
    """Wait until a field of INFO's replication section has a value."""
    node.wait_until(lambda: replication_of(node).get(name) == expected, f"{name} is {expected!r}")


def wait_until_equal(replica: NodeProcess, primary: NodeProcess) -> None:
    """Wait until a replica has all that a silent primary has, then compare their data."""
    replica.wait_until(lambda: position_of(replica) == position_of(primary), "the replica has everything")
    with ThreadPoolExecutor(2) as both:
        mine, theirs = both.map(digest_of, (replica, primary))
    assert mine == theirs


def wait_for_log(node: NodeProcess, *parts: str) -> None:
    """Wait until a line of the node's log holds all of ``parts``."""
    node.wait_until(lambda: any(all(part in line for part in parts) for line in node.log().splitlines()), str(parts))


def end(node: NodeProcess, finish: Callable[[], None]) -> None:
    """Have ``finish`` end the process, and wait until it has ended."""
    finish()
    node.wait()
