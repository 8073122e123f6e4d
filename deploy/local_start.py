"""Starts a local cluster: its arguments, its folder, and the nodes (``local_nodes``)."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio
from local_nodes import REPLICATION_DISTANCE, ClusterError, LocalCluster, check_port, free_port, make_nodes

__all__ = ["run"]

NODES_LIMIT: Final = 16


@contextmanager
def data_folder(chosen: str | None, demo: bool) -> Iterator[Path]:
    """Where the nodes keep their data; a demonstration has a folder that is gone afterwards, unless one is chosen.

    It is this process' alone. Raises OSError, and BlockingIOError if it is another one's.
    """
    if demo and chosen is None:
        with tempfile.TemporaryDirectory(prefix="kevynode-demo-") as name:
            yield Path(name)
        return
    folder = Path(chosen if chosen is not None else Path(__file__).parents[1] / ".local-cluster" / "data").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # The files of nodes that run elsewhere must not be written again. The system takes the lock back by itself.
    lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "another cluster is running here", str(folder)) from None
        yield folder
    finally:
        os.close(lock)


def read_arguments() -> argparse.Namespace:
    """The arguments, checked."""
    parser = argparse.ArgumentParser(prog="local-cluster.sh", allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=3, metavar="N")
    parser.add_argument("--dir")
    parser.add_argument("--port", type=int, metavar="N")
    parser.add_argument("--demo", action="store_true")
    arguments = parser.parse_args()
    highest = 65535 - REPLICATION_DISTANCE - arguments.nodes + 1
    if not 1 <= arguments.nodes <= NODES_LIMIT:
        parser.error(f"--nodes: from 1 to {NODES_LIMIT}")
    if arguments.port is not None and not 1 <= arguments.port <= highest:
        parser.error(f"--port: from 1 to {highest}")
    if arguments.demo and arguments.nodes < 2:
        parser.error("--demo: needs two nodes or more")
    return arguments


def run() -> int:
    """Read the arguments, run the nodes, and return the exit status. Ctrl-C raises KeyboardInterrupt from here on."""
    arguments = read_arguments()
    count = arguments.nodes
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with data_folder(arguments.dir, arguments.demo) as folder:
            port = free_port(count) if arguments.port is None else check_port(arguments.port, count)
            return trio.run(LocalCluster(make_nodes(count, folder, port), folder, arguments.demo).run)
    except FileExistsError as error:
        return fail(f"{error.filename}: it is no folder")
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else error)
    except ClusterError as error:
        return fail(error)


def fail(problem: object) -> int:
    """Say why there is no cluster; the exit status."""
    sys.stderr.write(f"local-cluster.sh: {problem}\n")
    return 1
