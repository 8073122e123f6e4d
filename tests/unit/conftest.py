"""A node without sockets, a client of it, and its files: what most tests of commands begin with."""

from __future__ import annotations

import pytest
from support.fake_files import FakeFiles
from support.session_harness import Client, ServerHarness


@pytest.fixture
def node() -> ServerHarness:
    """A node on a clock of its own, on which nothing has happened."""
    return ServerHarness()


@pytest.fixture
def client(node: ServerHarness) -> Client:
    """A client that has just connected."""
    return node.connect()


@pytest.fixture
def files(node: ServerHarness) -> FakeFiles:
    """The node's files, of which the test says what becomes of them."""
    return FakeFiles(node)
