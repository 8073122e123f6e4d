"""The two servers of the comparison, started once for all tests of this folder.

The subject is a kevynode process. ``KEVYNODE_COMPAT_SUBJECT=valkey`` takes a second valkey-server instead, which shows
that the sequences themselves are deterministic; ``KEVYNODE_COMPAT_SUBJECT=HOST:PORT`` takes a running server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.runner import Pair, Server, Side
from support.node_process import NodeProcess
from support.valkey_server import ValkeyServer

_VALKEY_OPTIONS = ("--enable-debug-command", "yes")
_NODE_CONFIG = '[config]\nenable-debug-command = "yes"\n'


class _RunningServer:
    """A server that somebody else started and will stop."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def running(self) -> bool:
        return True

    def diagnosis(self) -> str:
        return ""

    def stop(self) -> None:
        pass


def start_subject() -> Server:
    """The server that KEVYNODE_COMPAT_SUBJECT names."""
    subject = os.environ.get("KEVYNODE_COMPAT_SUBJECT", "kevynode")
    if subject == "kevynode":
        return NodeProcess("--no-aof", config=_NODE_CONFIG)
    if subject == "valkey":
        return ValkeyServer(*_VALKEY_OPTIONS)
    host, _, port = subject.rpartition(":")
    return _RunningServer(host, int(port))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.differential)


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Valkey and the subject, running."""
    valkey = Side("valkey", lambda: ValkeyServer(*_VALKEY_OPTIONS))
    try:
        subject = Side(os.environ.get("KEVYNODE_COMPAT_SUBJECT", "kevynode"), start_subject)
    except BaseException:
        valkey.stop()
        raise
    both = Pair(valkey, subject)
    both.clean()
    yield both
    node = subject.server
    errors = node.errors_logged() if isinstance(node, NodeProcess) else []
    both.stop()
    assert not errors, "the node logged errors:\n" + "\n".join(errors[:20])


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def protocol(request: pytest.FixtureRequest) -> int:
    """The protocol that the clients of a test speak."""
    return int(request.param)


@pytest.fixture(params=[(2, False), (3, False), (3, True)], ids=["resp2", "resp3", "events"])
def mode(request: pytest.FixtureRequest) -> tuple[int, bool]:
    """As ``protocol``, and a third time with the keyspace notifications of each step compared."""
    protocol, events = request.param
    return int(protocol), bool(events)
