"""Nodes with scopes as processes: what clients are told, what copies hold, and what comes back after a SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from e2e.replicating import client_of, free_ports
from support.node_process import NodeProcess
from support.valkey_server import ServerStartError

NAMES = ("anna", "bert", "cleo")


class Processes:
    """Three nodes that write a scope each, which has the first letter of their name."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self.folder = folder
        self.ports = {name: free_ports()[0] for name in NAMES}
        self.nodes: dict[str, NodeProcess] = {}
        self._ends = ends

    def config(self, name: str) -> str:
        """The configuration of a node."""
        peers = "".join(
            f'[[cluster.peer]]\nid = "{other}"\naddress = "127.0.0.1:{port}"\n' for other, port in self.ports.items()
        )
        scopes = "".join(f'[[cluster.scope]]\nprefix = "{other[0]}:"\nwriter = "{other}"\n' for other in NAMES)
        return f'[persistence]\nappendfsync = "always"\n[cluster]\nnode_id = "{name}"\n{peers}{scopes}'

    def start(self, *names: str, options: tuple[str, ...] = ()) -> None:
        """Start nodes, each on the folder that it left."""
        for name in names:
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            place = ("--port", str(self.ports[name]), "--dir", str(folder))
            self.nodes[name] = self._ends.enter_context(NodeProcess(*place, *options, config=self.config(name)))

    def kill(self, name: str) -> None:
        """End a node as SIGKILL does."""
        self.nodes[name].send_signal(signal.SIGKILL)
        self.nodes.pop(name).wait()

    def call(self, name: str, *words: object) -> object:
        """The reply of a node; errors as their text."""
        with client_of(self.nodes[name]) as client:
            try:
                return client.execute_command(*words)
            except redis.ResponseError as error:
                return str(error)
            except redis.BusyLoadingError as error:
                return f"LOADING {error}"

    def wait_for(self, name: str, expected: object, *words: object) -> None:
        """Wait until a node replies so."""
        self.nodes[name].wait_until(lambda: self.call(name, *words) == expected, f"{words!r} is {expected!r}")

    def opened(self) -> None:
        """Wait until each node takes writes."""
        for name in self.nodes:
            self.wait_for(name, 0, "DEL", f"{name[0]}:no such key")

    def wait_for_copies(self, keys: list[str]) -> None:
        """Wait until all nodes hold the same under these keys."""

        def agree() -> bool:
            return len({repr(self.call(name, "MGET", *keys)) for name in self.nodes}) == 1

        next(iter(self.nodes.values())).wait_until(agree, "copies agree")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as ends:
        found = Processes(tmp_path, ends)
        yield found
        for node in found.nodes.values():
            node.check_health()


def test_three_nodes_write_a_scope_each_and_hold_all(processes: Processes) -> None:
    processes.start("anna", "bert")
    assert processes.call("anna", "SET", "a:1", "v") == "LOADING scope a: is waiting for cleo"
    assert processes.call("anna", "GET", "a:1") is None
    processes.start("cleo")
    processes.opened()
    assert processes.call("bert", "SET", "a:1", "v") == f"MISDIRECTED writer is 127.0.0.1:{processes.ports['anna']}"
    assert str(processes.call("anna", "MSET", "a:1", "v", "b:1", "v")).startswith("CROSSSCOPE ")
    keys = [f"{name[0]}:{number}" for name in NAMES for number in range(50)]
    for name in NAMES:
        words = [word for key in keys if key[0] == name[0] for word in (key, f"{name} {key}")]
        assert processes.call(name, "SET", "free", name) is True
        assert processes.call(name, "MSET", *words) is True
    processes.wait_for_copies(keys)
    assert {processes.call(name, "GET", "free") for name in NAMES} == set(NAMES)
    # After a SIGKILL it has what it acknowledged, and goes on where it was.
    processes.kill("anna")
    assert processes.call("bert", "GET", "a:7") == "anna a:7"
    processes.start("anna")
    processes.opened()
    assert processes.call("anna", "SET", "a:7", "later") is True
    processes.wait_for("cleo", "later", "GET", "a:7")
    processes.wait_for_copies(keys)
    assert "kind=full" not in processes.nodes["anna"].log()


def test_a_lost_disk_is_made_up_for_by_the_copies(processes: Processes) -> None:
    processes.start(*NAMES)
    processes.opened()
    keys = [f"a:{number}" for number in range(200)]
    assert processes.call("anna", "MSET", *[word for key in keys for word in (key, f"value of {key}")]) is True
    processes.wait_for_copies(keys)
    processes.kill("anna")
    (processes.folder / "anna").rename(processes.folder / "lost")
    processes.start("anna")
    processes.opened()
    assert processes.call("anna", "MGET", *keys) == [f"value of {key}" for key in keys]
    assert processes.call("anna", "SET", "a:new", "v") is True
    processes.wait_for_copies([*keys, "a:new"])
    assert "scope_restored" in processes.nodes["anna"].log()


@pytest.mark.parametrize("options", [(), ("--no-aof",)], ids=["aof", "memory"])
def test_two_nodes_on_one_data_directory_cannot_be(processes: Processes, options: tuple[str, ...]) -> None:
    processes.start("anna", options=options)
    first = processes.nodes["anna"]
    processes.ports["anna"] = free_ports()[0]
    with pytest.raises(ServerStartError, match="exit code 1"):
        processes.start("anna", options=options)
    assert processes.nodes["anna"] is first


# -- the command line -------------------------------------------------------------------------------------------------


class Mover:
    """``kevynode move-scope`` as a process."""

    def __init__(self, processes: Processes, *arguments: str) -> None:
        command = [sys.executable, "-m", "kevynode", "move-scope", *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]
        self._processes = processes

    def wait_for_move(self, name: str, state: str) -> None:
        """Wait until a move of its prefix has come to a state at a node."""
        node = self._processes.nodes[name]
        node.wait_until(lambda: state in str(self._processes.call(name, "MOVE-SCOPE", "STATUS")), state)

    def end(self) -> tuple[int, str, str]:
        """Exit status, output and errors."""
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors


@contextmanager
def mover(processes: Processes, *arguments: str) -> Iterator[Mover]:
    found = Mover(processes, *arguments)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.communicate()


@contextmanager
def stopped(processes: Processes, name: str) -> Iterator[None]:
    """A node that is there and does nothing."""
    process = processes.nodes[name]
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_a_scope_is_moved_by_asking_any_node(processes: Processes) -> None:
    processes.start(*NAMES)
    processes.opened()
    assert processes.call("anna", "MSET", "a:1", "one", "a:2", "two") is True
    processes.wait_for_copies(["a:1", "a:2"])
    at_cleo = ("--at", f"127.0.0.1:{processes.ports['cleo']}")
    with mover(processes, "a:", "--to", "bert", *at_cleo) as command:
        status, output, errors = command.end()
    assert status == 0
    assert output.startswith("scope a: moved from anna to bert: 2 keys, nothing to ship, writes waited for ")
    assert errors == f"scope a: is written by anna at 127.0.0.1:{processes.ports['anna']}\n"
    processes.wait_for("bert", True, "SET", "a:1", "later")
    with mover(processes, "a:", "--status", *at_cleo) as command:
        status, output, errors = command.end()
    assert (status, errors) == (0, "")
    rows = {line.split()[1]: line.split()[2:6] for line in output.splitlines()}
    assert rows == {
        "ID": ["WRITER", "ROLE", "WITH", "STATE"],
        "anna": ["bert", "source", "bert", "done"],
        "bert": ["bert", "target", "anna", "active"],
        "cleo": ["bert", "-", "-", "-"],
    }


def test_ctrl_c_leaves_the_scope_where_it_was(processes: Processes) -> None:
    processes.start(*NAMES)
    processes.opened()
    with (
        stopped(processes, "bert"),
        mover(processes, "a:", "--to", "bert", "--at", f"127.0.0.1:{processes.ports['anna']}") as command,
    ):
        command.wait_for_move("anna", "asking")
        command.process.send_signal(signal.SIGINT)
        status, output, errors = command.end()
    assert (status, output) == (130, "scope a: stays with anna: the move was called off\n")
    assert "Traceback" not in errors
    assert processes.call("anna", "SET", "a:1", "v") is True


def test_a_node_that_dies_in_the_midst_of_a_move_is_no_answer(processes: Processes) -> None:
    processes.start(*NAMES)
    processes.opened()
    with (
        stopped(processes, "bert"),
        mover(processes, "a:", "--to", "bert", "--at", f"127.0.0.1:{processes.ports['anna']}") as command,
    ):
        command.wait_for_move("anna", "asking")
        processes.kill("anna")
        status, output, errors = command.end()
    assert (status, output) == (3, "")
    assert "closed the connection; it is not known what became of the move\n" in errors
    assert f"kevynode move-scope a: --status --at 127.0.0.1:{processes.ports['bert']}\n" in errors
    processes.start("anna")
    processes.opened()
    assert processes.call("anna", "SET", "a:1", "v") is True
