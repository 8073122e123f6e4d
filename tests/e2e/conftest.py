"""A node to talk to: started once for each file of tests, empty for each test, sound after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e.libraries import LIBRARIES, Library
from support.node_process import NodeProcess
from support.raw_client import RawClient, Reply


@pytest.fixture(scope="module")
def module_node() -> Iterator[NodeProcess]:
    """The node that the tests of a file share."""
    with NodeProcess() as process:
        yield process


@pytest.fixture
def node(module_node: NodeProcess) -> Iterator[NodeProcess]:
    """A running node without data; the test fails if the node is not well afterwards."""
    yield module_node
    module_node.check_health()
    with RawClient(module_node.host, module_node.port) as client:
        assert client.call(b"FLUSHALL") == Reply("simple", b"OK")


@pytest.fixture(params=LIBRARIES.values(), ids=list(LIBRARIES))
def library(request: pytest.FixtureRequest) -> Library:
    """A synchronous client library; the test runs with each of them."""
    found: Library = request.param
    return found


@pytest.fixture
def connect(library: Library, node: NodeProcess) -> Iterator[Callable[..., Any]]:
    """Makes clients of the library; they are closed after the test."""
    clients: list[Any] = []

    def make(**options: Any) -> Any:
        clients.append(library.client_class(host=node.host, port=node.port, **library.options, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
        client.connection_pool.disconnect()


@pytest.fixture
def client(connect: Callable[..., Any]) -> Any:
    """One client of the library."""
    return connect()
