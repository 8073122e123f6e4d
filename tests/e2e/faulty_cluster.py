"""Three nodes as processes that are killed, stopped for a while, cut off, with the clients and checks of simulations.

What befalls them is drawn from a seed before they start. When it hits them is up to the machine.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from e2e.crashing import POLICIES
from e2e.hosts import Hosts, NamespaceHosts
from e2e.moving_nodes import ENDED, PATIENCE, until
from sim.clients import Client, keys_of
from sim.history import History, Operation
from sim.linear import check_key
from sim.talk import GONE, Connection, Refusal, Word
from support.durable_server import DurableServer

__all__ = ["NAMES", "PREFIXES", "FaultyCluster", "Round", "draw_rounds"]

NAMES: Final = ("anna", "bert", "cleo")
#: Who writes what at first.
PREFIXES: Final = {b"a:": "anna", b"b:": "bert"}
PORT: Final = 6004
#: What a node writes down in a move.
STATES: Final = ("REQUESTED", "AGREED", "QUIESCED", "SEALED", "SHIPPED", "FLIPPED", "ACTIVATED", "DONE")
#: How many seconds what lasts may last: less than a link needs to be given up, and more.
SPANS: Final = (0.05, 0.3, 1.0, 2.0)


@attrs.frozen
class Fault:
    """One thing that befalls nodes: when the log of one of them shows a record, or after some seconds."""

    kind: str
    nodes: tuple[str, ...]
    record: str
    delay: float
    span: float


@attrs.frozen
class Round:
    """A move, unless there is none, and what befalls the cluster meanwhile."""

    prefix: bytes
    target: str
    timeout: int
    faults: tuple[Fault, ...]


def draw_rounds(draw: random.Random, count: int, *, network: bool) -> list[Round]:
    """What befalls a cluster: nodes are killed and stopped; with ``network`` it is bad connections more than that."""
    kinds = ["kill", "kill", "pause", "pause", "rewrite", "abort"]
    if network:
        kinds = ["kill", "pause", "cut", "cut", "cut one way", "cut one way", "isolate", "lossy", "slow"]
    return [
        Round(
            draw.choice(sorted(PREFIXES)),
            draw.choice((*NAMES, *NAMES, "")),
            draw.choice((300, 2000, 8000)),
            tuple(_draw_fault(draw, kinds) for _ in range(draw.choice((1, 1, 2)))),
        )
        for _ in range(count)
    ]


def _draw_fault(draw: random.Random, kinds: list[str]) -> Fault:
    return Fault(
        draw.choice(kinds),
        tuple(draw.sample(NAMES, draw.choice((2, 2, 3)))),
        draw.choice(STATES) if draw.random() < 0.5 else "",
        draw.choice((0.0, 0.01, 0.05, 0.2)) * draw.random(),
        draw.choice(SPANS) * draw.uniform(0.5, 1.5),
    )


@attrs.define
class _Life:
    """One run of a node, as clients of simulations look at it."""

    began: float
    dead: bool = False


class ProcessClient(Client):
    """A simulation's client that looks at nodes by asking them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # What WAIT has just counted.
        self._counted: list[tuple[Operation, str, bytes, int]] = []

    def go_to(self, prefix: bytes, node: str) -> None:
        """Ask this node next for what is under a prefix."""
        self._where[prefix] = node

    def _waited(self, operation: Operation, node: str, prefix: bytes, copies: int) -> None:
        operation.copies = copies
        self.sessions.waits += 1
        self._counted.append((operation, node, prefix, copies))

    async def _session(self, prefix: bytes) -> None:
        await super()._session(prefix)
        while self._counted:
            await self._count_copies(*self._counted.pop())

    async def _count_copies(self, operation: Operation, writer: str, prefix: bytes, copies: int) -> None:
        """What WAIT has counted is there, unless nobody can tell any more."""
        found = {}
        for name in sorted(self._world.addresses):
            if name != writer:
                replies = await self._ask(name, [(b"GET", operation.key)], 3.0)
                if replies is None or isinstance(replies[0], Refusal):
                    return
                found[name] = int(replies[0] or b"0")
        holders = [name for name, count in found.items() if count >= operation.result]
        if len(holders) < copies and not self._unsteady(operation.begun, prefix):
            self._world.fail(
                f"sessions: WAIT at {writer} counted {copies} copies of {operation.result} in {operation.key!r}, and "
                f"the others have {found}"
            )


class FaultyCluster:
    """Three nodes on hosts: the world that clients of simulations know. A context manager; kills them in the end."""

    def __init__(self, draw: random.Random, folder: Path, hosts: Hosts) -> None:
        self.addresses = dict(hosts.addresses)
        self.lives: dict[str, _Life] = {}
        self.failures: list[str] = []
        self.history = History()
        self.policies = {name: draw.choice(POLICIES) for name in NAMES}
        self.copies = draw.choice(('"all"', '"all"', "[]"))
        self.clients: list[ProcessClient] = []
        self._seed = draw.random()
        self._fillers = 0
        self._hosts = hosts
        self._folder = folder
        self._running: dict[str, DurableServer] = {}
        self._started: list[tuple[str, DurableServer]] = []
        self._busy: dict[str, trio.Lock] = {name: trio.Lock() for name in NAMES}
        self._answers: list[Any] = []
        self._ends = ExitStack()
        self._kinds: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "rewrite": self._rewrite,
            "abort": self._abort,
            "cut": self._spoil,
            "cut one way": self._spoil,
            "isolate": self._spoil,
            "lossy": self._spoil,
            "slow": self._spoil,
        }

    def __enter__(self) -> FaultyCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    # -- what the clients of simulations ask --------------------------------------------------------------------------

    def fail(self, text: str) -> None:
        """Something is not as it should be."""
        self.failures.append(text)

    def name_of(self, address: str) -> str | None:
        """The node with this client address."""
        return next((name for name, own in self.addresses.items() if address == f"{own}:{PORT}"), None)

    async def connect(self, address: str, port: int) -> trio.abc.Stream:
        """A connection to a node. Raises OSError."""
        return await self._hosts.connect(address, port)

    # -- processes ----------------------------------------------------------------------------------------------------

    def _config(self, name: str) -> str:
        peers = "".join(
            f'[[cluster.peer]]\nid = "{other}"\naddress = "{address}:{PORT}"\n'
            for other, address in self.addresses.items()
        )
        scopes = "".join(
            f'[[cluster.scope]]\nprefix = "{prefix.decode()}"\nwriter = "{writer}"\n'
            for prefix, writer in PREFIXES.items()
        )
        return (
            f'[server]\nbind = "{self.addresses[name]}"\nport = {PORT}\ndata_dir = "{self._folder / name}"\n'
            f'[persistence]\nappendfsync = "{self.policies[name]}"\nauto_aof_rewrite_min_size = "64kb"\n'
            f'[cluster]\nnode_id = "{name}"\nreplicate = {self.copies}\n{peers}{scopes}'
        )

    async def start(self, *names: str) -> None:
        """Start nodes on what they left, and wait until they have loaded it."""
        for name in names:
            path = self._folder / f"{name}.toml"
            path.write_text(self._config(name), encoding="utf-8")
            command = [*self._hosts.inside(name), sys.executable, "-m", "kevynode", "run", "--config", str(path)]
            server = self._ends.enter_context(DurableServer(command, PORT, announces=True))
            self._running[name] = server
            self._started.append((name, server))
        for name in names:
            await until(lambda: self._is_ready(name), f"the start of {name}")  # noqa: B023
            self.lives[name] = _Life(trio.current_time())

    def _is_ready(self, name: str) -> bool:
        server = self._running[name]
        assert server.running(), f"{name} has ended:\n{server.log()[-4000:]}"
        return "kevynode ready " in server.log()

    def stop(self) -> None:
        """End all nodes as SIGTERM does, and hold them to it."""
        for name, server in self._running.items():
            assert server.stop() == 0, f"{name}:\n{server.log()[-4000:]}"

    def keep_logs(self) -> None:
        """Leave what every process has printed beside their folders, and what went wrong."""
        (self._folder / "failure.txt").write_text(traceback.format_exc(), encoding="utf-8")
        for number, (name, server) in enumerate(self._started):
            (self._folder / f"{number:02}-{name}.log").write_text(server.log(), encoding="utf-8")

    def check_logs(self) -> None:
        """Assert that nothing went wrong that a node noticed."""
        for name, server in self._started:
            log = server.log()
            assert "Traceback" not in log, f"{name}:\n{log[-6000:]}"
            assert " error " not in log, f"{name}:\n{log[-6000:]}"

    # -- rounds -------------------------------------------------------------------------------------------------------

    async def carry_out(self, round_: Round) -> None:
        """A round; afterwards nothing befalls anybody, and all nodes run."""
        async with trio.open_nursery() as nursery:
            if round_.target:
                nursery.start_soon(self._move, round_)
            for fault in round_.faults:
                nursery.start_soon(self._befall, fault)

    async def _move(self, round_: Round) -> None:
        source = await self.owner(round_.prefix, *NAMES)
        if source and source != round_.target:
            words = ("MOVE-SCOPE", round_.prefix, "FROM", source, "TO", round_.target, "TIMEOUT", round_.timeout)
            self._answers.append(await self.ask(source, *words, patience=round_.timeout / 1000 + 3))

    async def _befall(self, fault: Fault) -> None:
        if fault.record:
            found = f"state={fault.record} "
            server = self._running[fault.nodes[0]]
            before = server.log().count(found)
            with trio.move_on_after(0.5):
                while server.log().count(found) == before:  # noqa: ASYNC110  another process writes it
                    await trio.sleep(0.001)
        await trio.sleep(fault.delay)
        await self._kinds[fault.kind](fault)

    async def _kill(self, fault: Fault) -> None:
        # The others of a fault that names three are killed as well.
        victims = fault.nodes if len(fault.nodes) > 2 else fault.nodes[:1]
        async with trio.open_nursery() as nursery:
            for name in victims:
                nursery.start_soon(self._kill_one, name, fault.span)

    async def _kill_one(self, name: str, span: float) -> None:
        async with self._busy[name]:
            self.lives[name].dead = True
            server = self._running[name]
            assert server.running(), f"{name} has ended:\n{server.log()[-4000:]}"
            server.send_kill()
            await until(lambda: not server.running(), f"the end of {name}")
            await trio.sleep(span)
            await self.start(name)

    async def _pause(self, fault: Fault) -> None:
        name = fault.nodes[0]
        async with self._busy[name]:
            process = self._running[name].pid
            os.kill(process, signal.SIGSTOP)
            await trio.sleep(fault.span)
            os.kill(process, signal.SIGCONT)

    async def _rewrite(self, fault: Fault) -> None:
        await self.ask(fault.nodes[0], "BGREWRITEAOF")

    async def _abort(self, fault: Fault) -> None:
        for prefix in PREFIXES:
            await self.ask(fault.nodes[0], "MOVE-SCOPE", "ABORT", prefix)

    async def _spoil(self, fault: Fault) -> None:
        """Make connections bad for a while."""
        hosts = self._hosts
        assert isinstance(hosts, NamespaceHosts)
        one, other = fault.nodes[:2]
        ways = hosts.ways(one)
        match fault.kind:
            case "cut":
                ways = hosts.ways(one, other)
            case "cut one way":
                ways = [(one, other)]
        if fault.kind == "lossy":
            hosts.set_weather(ways, loss=0.15, jitter=0.004)
        elif fault.kind == "slow":
            hosts.set_weather(ways, latency=0.04, jitter=0.08)
        else:
            hosts.set_weather(ways, cut=True)
        await trio.sleep(fault.span)
        hosts.set_weather(ways)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def ask(self, name: str, *words: Word, patience: float = 3.0) -> Any:
        """The reply of a node, on a connection of its own; None if there is none."""
        try:
            with trio.fail_after(patience):
                connection = Connection(await self.connect(self.addresses[name], PORT))
                try:
                    return await connection.call(*words)
                finally:
                    with trio.CancelScope(shield=True):
                        await connection.aclose()
        except (trio.TooSlowError, *GONE):
            return None

    async def owner(self, prefix: bytes, *names: str) -> str:
        """Who owns a prefix, by the first of these nodes that answers; empty if none does."""
        for name in names:
            found = await self.ask(name, "INFO", "scopes")
            for line in found.decode().splitlines() if isinstance(found, bytes) else ():
                fields = dict(field.partition("=")[::2] for field in line.partition(":")[2].split(","))
                if fields.get("prefix") == prefix.decode() and "owner" in fields:
                    return str(fields["owner"])
        return ""

    async def _moves(self, name: str) -> list[Mapping[bytes, Any]] | None:
        rows = await self.ask(name, "MOVE-SCOPE", "STATUS")
        return [dict(zip(row[::2], row[1::2], strict=True)) for row in rows] if isinstance(rows, list) else None

    # -- clients ------------------------------------------------------------------------------------------------------

    def make_clients(self, number: int) -> None:
        """Clients that note all they do."""
        for name in (f"c{place}" for place in range(1, number + 1)):
            # All that clients ask of a world and of a host is here.
            client = ProcessClient(name, self, self, self.history, sorted(PREFIXES), f"{self._seed} {name}")
            client.copies = lambda node, prefix: self.copies != "[]"
            self.clients.append(client)

    async def wait_for_replies(self, more: int) -> None:
        """Wait until so many more operations under each prefix have had their replies."""

        def count(prefix: bytes) -> int:
            return sum(one.known for key in keys_of(prefix) for one in self.history.operations.get(key, ()))

        goals = {prefix: count(prefix) + more for prefix in PREFIXES}
        await until(
            lambda: all(count(prefix) >= goal for prefix, goal in goals.items()), f"{more} replies under each prefix"
        )

    async def fill(self, count: int) -> None:
        """Write keys that nobody changes (`count` a multiple of 500), so that there is something to move."""
        self._fillers = count
        for start in range(0, self._fillers, 500):
            words = [b for number in range(start, start + 500) for b in (b"a:%d" % number, b"%d" % number * 30)]
            assert await self.ask("anna", "MSET", *words, patience=PATIENCE) == "OK"

    # -- at the end ---------------------------------------------------------------------------------------------------

    async def rest(self) -> dict[bytes, str]:
        """Wait until every move is over and everything is open: who writes what."""

        async def moves_are_over() -> bool:
            found = [await self._moves(name) for name in NAMES]
            return all(rows is not None and all(row[b"state"] in ENDED for row in rows) for rows in found)

        owners: dict[bytes, str] = {}
        await until(moves_are_over, "the end of the moves")
        for prefix in PREFIXES:

            async def agree(prefix: bytes = prefix) -> bool:
                found = {await self.owner(prefix, name) for name in NAMES}
                owners[prefix] = next(iter(found))
                return len(found) == 1 and "" not in found

            async def is_open(prefix: bytes = prefix) -> bool:
                return bool(await self.ask(owners[prefix], "DEL", prefix + b"no such key") == 0)

            await until(agree, f"agreement on the owner of {prefix!r}")
            await until(is_open, f"the opening of {prefix!r}")
        return owners

    async def check(self) -> None:
        """Assert that what clients were told can be, and that all nodes hold the same."""
        owners = await self.rest()
        reader = self.clients[0]
        for prefix, owner in owners.items():
            reader.go_to(prefix, owner)
            for key in keys_of(prefix):
                assert await reader.operate(prefix, key, "get", b"", PATIENCE) is not None, key
            fillers = [b"a:%d" % number for number in range(self._fillers)] if prefix == b"a:" else []
            assert await self.ask(owner, "EXISTS", prefix, *fillers) == len(fillers)
        await reader.close()
        for key, operations in sorted(self.history.operations.items()):
            verdict = check_key(operations)
            if verdict.outcome == "bad":
                self.fail(f"linearizability: no order explains {key!r}:\n      {verdict.detail}")
        assert not self.failures, "\n".join(self.failures)
        await until(lambda: self._are_equal(owners), "that all copies equal their writer")
        left = [path.name for path in self._folder.rglob("kevynode.stage.*")]
        assert not left, left

    async def _are_equal(self, owners: dict[bytes, str]) -> bool:
        """Whether every node holds what the writer does, or nothing of what another one writes without copies."""
        for prefix, owner in owners.items():
            expected = await self._held(owner, prefix)
            for name in NAMES:
                if name != owner and await self._held(name, prefix) != (expected if self.copies != "[]" else {}):
                    return False
        return True

    async def _held(self, name: str, prefix: bytes) -> dict[bytes, tuple[Any, Any]]:
        """What a node holds under a prefix: digests and deadlines. Raises one of GONE, and TooSlowError."""
        with trio.fail_after(PATIENCE):
            connection = Connection(await self.connect(self.addresses[name], PORT))
            try:
                keys = sorted(await connection.call("KEYS", prefix + b"*"))
                if not keys:
                    return {}
                await connection.send(("DEBUG", "DIGEST-VALUE", *keys), *(("PEXPIRETIME", key) for key in keys))
                digests = await connection.reply()
                return {key: (digest, await connection.reply()) for key, digest in zip(keys, digests, strict=True)}
            finally:
                await connection.aclose()
