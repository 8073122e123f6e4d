"""Several nodes on this machine, each the writer of a scope, while they run.

::

    nursery
    ├─ node × n          its process: lines of its log and its ready line, until it ends
    ├─ signals           SIGINT, SIGTERM, SIGHUP: stop the nodes; once more: without waiting for their clients
    └─ conductor         waits until all scopes are open, prints the table, and gives the demonstration if wanted
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import local_demo
import trio

from kevynode.probe import ErrorReply, ProbeError, connect, parse_info
from kevynode.status import scopes

__all__ = ["REPLICATION_DISTANCE", "ClusterError", "LocalCluster", "check_port", "free_port", "make_nodes"]

HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 6004
#: Of how many ports the first client port may be one.
PORTS: Final = 1000
REPLICATION_DISTANCE: Final = 10_000
#: Seconds after which it is said what scopes that are not open wait for.
PATIENCE: Final = 5.0
#: Seconds that the nodes get to end; they themselves wait less.
STOP_SECONDS: Final = 20.0
#: Bytes of a line of a log; what is beyond becomes a line of its own.
LINE_LIMIT: Final = 64 << 10
NAMES: Final = ("users", "orders", "carts", "stock", "mail", "search", "prices", "jobs")
COLOURS: Final = (36, 33, 35, 32, 34, 31)

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


class ClusterError(Exception):
    """Why there is no cluster; the text is for whoever started it."""


@dataclass
class LocalNode:
    """One node: what it is called, where it listens, which scope the configuration gives it, and its process."""

    node_id: str
    port: int
    replication_port: int
    prefix: str
    fallback: str
    folder: Path
    colour: int
    process: subprocess.Popen[bytes] | None = None
    ready: trio.Event = field(default_factory=trio.Event)
    ended: bool = False

    @property
    def address(self) -> str:
        """Where its clients connect to."""
        return f"{HOST}:{self.port}"

    @property
    def config_file(self) -> Path:
        """Its configuration, beside its folder."""
        return self.folder.with_suffix(".toml")

    @property
    def command(self) -> list[str]:
        """What starts it, from whatever folder."""
        return [sys.executable, "-P", "-m", "kevynode", "run", "--config", str(self.config_file)]


def prefix_of(number: int) -> str:
    """The prefix that the node ``number``, from 0, writes."""
    return f"app:{NAMES[number] if number < len(NAMES) else f'part{number + 1}'}:"


def free_port(nodes: int) -> int:
    """The first of a row of ports for clients that are free, with those for replication. Raises ClusterError."""
    for first in range(FIRST_PORT, FIRST_PORT + PORTS):
        if all(map(is_free, range(first, first + nodes))) and all(
            is_free(port + REPLICATION_DISTANCE) for port in range(first, first + nodes)
        ):
            return first
    raise ClusterError(f"no {nodes} free ports in a row from {FIRST_PORT} on; choose the first one with --port")


def check_port(first: int, nodes: int) -> int:
    """``first``, if the row of ports from there on is free. Raises ClusterError."""
    for port in range(first, first + nodes):
        for needed in (port, port + REPLICATION_DISTANCE):
            if not is_free(needed):
                raise ClusterError(f"port {needed} is taken; choose another row of ports with --port")
    return first


def is_free(port: int) -> bool:
    """Whether a node could listen on a loopback port now."""
    with socket.socket() as probe:
        # As the node binds, so that a port whose last connections are just closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def make_nodes(count: int, folder: Path, port: int) -> list[LocalNode]:
    """The nodes, each the fallback of the one before it."""
    ids = [f"node-{number + 1}" for number in range(count)]
    return [
        LocalNode(
            node_id,
            port + number,
            port + number + REPLICATION_DISTANCE,
            prefix_of(number),
            ids[(number + 1) % count] if count > 1 else "",
            folder / node_id,
            COLOURS[number % len(COLOURS)],
        )
        for number, node_id in enumerate(ids)
    ]


def configuration(node: LocalNode, nodes: Sequence[LocalNode]) -> str:
    """The file of a node. Peers and scopes are the same in all of them."""
    # A JSON string is a TOML string too.
    text = json.dumps
    lines = [
        "# Written by deploy/local-cluster.sh at each start.",
        "[server]",
        f"bind = {text(HOST)}",
        f"port = {node.port}",
        f"data_dir = {text(str(node.folder))}",
        "",
        "[replication]",
        f"listen_port = {node.replication_port}",
        "",
        "[cluster]",
        f"node_id = {text(node.node_id)}",
    ]
    for peer in nodes:
        replication = f"{HOST}:{peer.replication_port}"
        lines += ["", "[[cluster.peer]]", f"id = {text(peer.node_id)}", f"address = {text(peer.address)}"]
        lines += [f"replication = {text(replication)}"]
    for writer in nodes:
        lines += ["", "[[cluster.scope]]", f"prefix = {text(writer.prefix)}", f"writer = {text(writer.node_id)}"]
        if writer.fallback:
            lines.append(f"fallback = {text(writer.fallback)}")
    return "\n".join(lines) + "\n"


def end_with_parent() -> None:
    """In a child: be told to stop when this process is gone, however it ended. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


class LocalCluster:
    """The nodes while they run."""

    def __init__(self, nodes: Sequence[LocalNode], data: Path, demo: bool) -> None:
        self.nodes = nodes
        self.data = data
        self._demo = demo
        self._status = 0
        self._stops = 0
        self._scope = trio.CancelScope()

    async def run(self) -> int:
        """Start the nodes, and be there until they have ended; the exit status."""
        self._say(f"Starting {len(self.nodes)} node{'s'[: len(self.nodes) > 1]}, with data in {self.data} ...")
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            try:
                for node in self.nodes:
                    self._start(node)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                    async with trio.open_nursery() as running:
                        for node in self.nodes:
                            running.start_soon(self._watch, node)
                        running.start_soon(self._conduct)
                    # All of them have ended.
                    nursery.cancel_scope.cancel()
            finally:
                self._kill()
        return self._status

    # -- processes -----------------------------------------------------------------------------------------------------

    def _start(self, node: LocalNode) -> None:
        node.folder.mkdir(parents=True, exist_ok=True)
        node.config_file.write_text(configuration(node, self.nodes), encoding="utf-8")
        node.process = subprocess.Popen(
            node.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for this process, which then stops the nodes in order.
            process_group=0,
            preexec_fn=end_with_parent,  # noqa: PLW1509  no other thread runs yet
        )

    async def _watch(self, node: LocalNode) -> None:
        process = node.process
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, node, process.stdout.fileno())
            nursery.start_soon(self._read, node, process.stderr.fileno())
        status = await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        node.ended = True
        if self._stops:
            return
        if not node.ready.is_set():
            self._say(f"{node.node_id} did not start (status {status}): see its lines above. Stopping the others.")
            self._status = 1
            self._stop()
        elif all(other.ended for other in self.nodes):
            self._say(f"{node.node_id} ended (status {status}), and was the last one.")
            self._status = 1
            self._stop()
        else:
            self._say(
                f"{node.node_id} ended (status {status}); the others go on. What they hold copies of can still be"
                f" read,\nand writes for {node.prefix} wait for it to be back:\n\n    {shlex.join(node.command)}\n"
            )

    async def _read(self, node: LocalNode, descriptor: int) -> None:
        """Show what a node prints, until it ends."""
        rest = b""
        async with trio.lowlevel.FdStream(os.dup(descriptor)) as stream:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LINE_LIMIT:
                    lines.append(rest)
                    rest = b""
                for line in lines:
                    self._show(node, line)
        if rest:
            self._show(node, rest)

    def _show(self, node: LocalNode, line: bytes) -> None:
        text = "".join(
            char if char.isprintable() else "?" for char in line.decode("utf-8", "replace").replace("\t", " ")
        )
        if text.startswith("kevynode ready "):
            node.ready.set()
        width = max(len(other.node_id) for other in self.nodes)
        prefix = f"{node.node_id:<{width}} |"
        self._say(f"\x1b[{node.colour}m{prefix}\x1b[0m {text}" if sys.stdout.isatty() else f"{prefix} {text}")

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _obey(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _ in signals:
            if not self._stops:
                self._say("Stopping the nodes; once more to end them without waiting for their clients.")
            self._stop()
            # From now on nothing lasts for ever.
            scope.deadline = min(scope.deadline, trio.current_time() + STOP_SECONDS)

    def _stop(self) -> None:
        """Ask the nodes to end; asked a second time they do not wait for clients."""
        self._stops += 1
        self._scope.cancel()
        for node in self.nodes:
            if node.process is not None and not node.ended:
                node.process.terminate()

    def _kill(self) -> None:
        """Leave no process behind, whatever has happened."""
        for node in self.nodes:
            if node.process is not None:
                if node.process.poll() is None:
                    self._say(f"{node.node_id} does not end, and is killed.")
                    self._status = 1
                    node.process.kill()
                node.process.wait()

    # -- what there is to see ------------------------------------------------------------------------------------------

    async def _conduct(self) -> None:
        with self._scope:
            for node in self.nodes:
                await node.ready.wait()
            owners = await self._wait_for_scopes()
            self._print_table(owners)
            if not self._demo:
                self._print_hints(owners)
                return
            ports = {node.node_id: node.port for node in self.nodes}
            show = partial(
                local_demo.show, ports, [(node.prefix, owners[node.prefix]) for node in self.nodes], self._say
            )
            # Not while something is written, nor for longer than that.
            is_good = await trio.to_thread.run_sync(show, abandon_on_cancel=True)
            self._status = 0 if is_good else 1
            self._stop()

    async def _wait_for_scopes(self) -> dict[str, str]:
        """The owner of each prefix, once all of them are open."""
        said = ""
        until = trio.current_time() + PATIENCE
        while True:
            owners, waits = await trio.to_thread.run_sync(self._look_at_scopes, abandon_on_cancel=True)
            if len(owners) == len(self.nodes):
                return owners
            if trio.current_time() >= until and waits != said:
                self._say(f"Not open yet:\n{waits}")
                said = waits
            await trio.sleep(0.1)

    def _look_at_scopes(self) -> tuple[dict[str, str], str]:
        """The owners of the scopes that are open, and what the others wait for."""
        owners: dict[str, str] = {}
        waits: list[str] = []
        for node in self.nodes:
            try:
                with connect(node.address) as probe:
                    sections = parse_info(probe.call(b"INFO", b"scopes").decode("utf-8", "replace"))
            except (ProbeError, ErrorReply) as error:
                waits.append(f"    {node.node_id} does not answer: {error}")
                continue
            rows = scopes(sections)
            owners |= {str(row["prefix"]): node.node_id for row in rows if row["state"] == "open"}
            known = {other.node_id for other in self.nodes}
            for row in rows:
                if row["state"] == "waiting":
                    waits.append(f"    {row['prefix']} of {node.node_id} waits for {row.get('detail', '?')}")
                elif row["owner"] not in known:
                    waits.append(f"    {row['prefix']} was moved to {row['owner']}, which is not among these nodes")
        return owners, "\n".join(dict.fromkeys(waits))

    def _print_table(self, owners: dict[str, str]) -> None:
        addresses = {node.node_id: node.address for node in self.nodes}
        rows = [("SCOPE", "WRITER", "CLIENT ADDRESS", "FALLBACK")]
        rows += [
            (node.prefix, owner, addresses[owner], node.fallback if node.fallback not in ("", owner) else "-")
            for node in self.nodes
            for owner in (owners[node.prefix],)
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        self._say("\n" + "\n".join(f"    {line}" for line in lines) + "\n")

    def _print_hints(self, owners: dict[str, str]) -> None:
        prefix = self.nodes[0].prefix
        writer = next(node for node in self.nodes if node.node_id == owners[prefix])
        other = next((node for node in self.nodes if node is not writer), writer)
        command = Path(sys.executable).with_name("kevynode")
        kevynode = shlex.quote(str(command)) if command.exists() else f"{shlex.quote(sys.executable)} -P -m kevynode"
        tried = [
            (f"redis-cli -p {writer.port} SET {prefix}1 Ada", f"{writer.node_id} writes what is under this scope"),
            (f"redis-cli -p {other.port} GET {prefix}1", "every node has a live copy"),
            (f"redis-cli -p {other.port} SET {prefix}1 Grace", f"MISDIRECTED writer is {writer.address}"),
            (f"redis-cli -p {other.port} SET greeting hello", "under no scope: stays where it was written"),
        ]
        commands = [
            f"{kevynode} status {' '.join(node.address for node in self.nodes)}",
            f"{kevynode} move-scope {prefix} --to {other.node_id} --at {writer.address}",
        ]
        if other is writer:
            tried = [tried[0], tried[3]]
            commands.pop()
        width = max(len(line) for line, _ in tried)
        lines = [f"{line:<{width}}  # {remark}" for line, remark in tried] + commands
        said = "\n".join(f"    {line}" for line in lines)
        self._say(f"Try in another terminal:\n\n{said}\n\nCtrl-C stops the nodes.\n")

    def _say(self, text: str) -> None:
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody reads any more; what is still to be said goes nowhere.
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for the rest of the process
            if not self._stops:
                self._stop()
