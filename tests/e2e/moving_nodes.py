"""Three nodes as processes, clients that follow their scopes and know what they were told, and moves between them.

Everything runs in one thread: processes end with the thread that started them, and none is started beside another one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import trio
from e2e.crashing import POLICIES
from e2e.replicating import free_ports
from support.cluster import ClusterClient, ErrorReply
from support.durable_server import HOST, DurableServer, start_node

from kevynode import ScopedClient
from kevynode.client import Uncertain

NAMES: Final = ("anna", "bert", "cleo")
#: What moves, and is anna's by declaration; bert's and cleo's stay where they are.
PREFIX: Final = "a:"
#: Seconds that anything may take.
PATIENCE: Final = 60.0
#: Seconds between two looks at something.
LOOK: Final = 0.02
#: How moves stand that nobody has anything left to do for.
ENDED: Final = frozenset({b"done", b"closed", b"failed", b"active", b"discarded"})
GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, AssertionError)


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that processes do; ``condition`` may be asynchronous."""
    with trio.move_on_after(PATIENCE) as patience:
        while True:
            found = condition()
            if found if not hasattr(found, "__await__") else await found:
                return
            await trio.sleep(LOOK)
    if patience.cancelled_caught:
        raise AssertionError(f"{what} does not come true in {PATIENCE:.0f} s")


class Nodes:
    """Three nodes, each with a folder and ports that it comes back to. A context manager; kills them in the end."""

    def __init__(self, draw: random.Random, folder: Path) -> None:
        self.draw = draw
        self.folder = folder
        self.ports = {name: free_ports()[0] for name in NAMES}
        self.copies = draw.random() < 0.7
        #: Keys under the prefix that nobody changes.
        self.fillers = draw.choice((0, 20, 3000))
        self.policies = {name: draw.choice(POLICIES) for name in NAMES}
        self.running: dict[str, DurableServer] = {}
        self._started: list[tuple[str, DurableServer]] = []
        self._ends = ExitStack()
        for name in NAMES:
            (folder / name).mkdir()
            (folder / f"{name}.toml").write_text(self._config(name), encoding="utf-8")

    def _config(self, name: str) -> str:
        peers = "".join(
            f'[[cluster.peer]]\nid = "{other}"\naddress = "{HOST}:{port}"\n' for other, port in self.ports.items()
        )
        scopes = "".join(f'[[cluster.scope]]\nprefix = "{other[0]}:"\nwriter = "{other}"\n' for other in NAMES)
        replicate = '"all"' if self.copies else "[]"
        return f'[cluster]\nnode_id = "{name}"\nreplicate = {replicate}\n{peers}{scopes}'

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @property
    def addresses(self) -> list[str]:
        """Where clients connect."""
        return [f"{HOST}:{port}" for port in self.ports.values()]

    async def start(self, *names: str) -> None:
        """Start nodes on what they left, and wait until they have loaded it."""
        for name in names:
            server = start_node(
                self.folder / name,
                self.ports[name],
                "--config",
                str(self.folder / f"{name}.toml"),
                policy=self.policies[name],
            )
            self.running[name] = self._ends.enter_context(server)
            self._started.append((name, server))
        for name in names:
            await until(lambda: self._is_ready(name), f"the start of {name}")  # noqa: B023

    def _is_ready(self, name: str) -> bool:
        server = self.running[name]
        assert server.running(), f"{name} has ended:\n{server.log()[-4000:]}"
        return "kevynode ready " in server.log()

    async def kill(self, *names: str) -> None:
        """End nodes as SIGKILL does."""
        for name in names:
            self.check_log(name)
            self.running[name].send_kill()
        for name in names:
            server = self.running.pop(name)
            await until(lambda: not server.running(), f"the end of {name}")  # noqa: B023

    def check_log(self, name: str) -> None:
        """Assert that nothing went wrong that a node noticed."""
        log = self.running[name].log()
        assert "Traceback" not in log, log[-6000:]
        assert " error " not in log, log[-6000:]

    def keep_logs(self) -> None:
        """Leave what every process has printed beside their folders."""
        for number, (name, server) in enumerate(self._started):
            (self.folder / f"{number:02}-{name}.log").write_text(server.log(), encoding="utf-8")

    async def fill(self) -> None:
        """Write what nobody changes, so that there is more or less to move."""
        for start in range(0, self.fillers, 500):
            numbers = range(start, min(start + 500, self.fillers))
            words = [word for number in numbers for word in (f"{PREFIX}{number}", f"{number}" * 40)]
            assert await self.call("anna", "MSET", *words) == "OK"

    # -- asking -------------------------------------------------------------------------------------------------------

    async def call(self, name: str, *words: str | int) -> Any:
        """The reply of a node, on a connection of its own. Raises one of GONE."""
        if name not in self.running:
            raise ConnectionRefusedError(name)
        async with await trio.open_tcp_stream(HOST, self.ports[name]) as stream:
            return await ClusterClient(stream).call(*words)

    async def owner(self, name: str) -> str:
        """Who owns what moves, as a node knows it; empty if it does not answer."""
        try:
            found = await self.call(name, "INFO", "scopes")
        except GONE:
            return ""
        for line in found.decode().splitlines():
            fields = dict(field.partition("=")[::2] for field in line.partition(":")[2].split(","))
            if fields.get("prefix") == PREFIX and "owner" in fields:
                return str(fields["owner"])
        return ""

    async def statuses(self, name: str) -> list[Mapping[bytes, Any]]:
        """The moves that a node knows of."""
        rows = await self.call(name, "MOVE-SCOPE", "STATUS")
        return [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]

    async def move(self, source: str, target: str, answers: list[Any]) -> None:
        """Ask for a move; whoever is asked may end before he answers."""
        try:
            answers.append(await self.call(source, "MOVE-SCOPE", PREFIX, "FROM", source, "TO", target, "TIMEOUT", 8000))
        except GONE:
            answers.append(None)

    # -- at the end ---------------------------------------------------------------------------------------------------

    async def rest(self) -> str:
        """Wait until every move is over and everything is open: who owns what has moved."""

        async def are_over() -> bool:
            rows = [row for name in NAMES for row in await self.statuses(name)]
            return all(row[b"state"] in ENDED for row in rows)

        async def agree() -> bool:
            return len({await self.owner(name) for name in NAMES}) == 1

        await until(are_over, "the end of the moves")
        await until(agree, "agreement on the owner")
        owner = await self.owner(NAMES[0])
        for writer, prefix in ((owner, PREFIX), ("bert", "b:"), ("cleo", "c:")):

            async def is_open(writer: str = writer, prefix: str = prefix) -> bool:
                return bool(await self.call(writer, "DEL", f"{prefix}no such key") == 0)

            await until(is_open, f"the opening of {prefix}")
        return owner

    async def compare(self, owner: str) -> None:
        """Assert that every node holds the same, or nothing of what others own, and that no stage is left over."""
        fillers = [f"{PREFIX}{number}" for number in range(self.fillers)]
        assert await self.call(owner, "EXISTS", PREFIX, *fillers) == self.fillers

        async def is_copied() -> bool:
            digests = {await self.call(name, "DEBUG", "DIGEST") for name in NAMES}
            return len(digests) == 1

        async def is_dropped() -> bool:
            return not any([await self.call(name, "KEYS", f"{PREFIX}*") for name in NAMES if name != owner])

        await until(is_copied if self.copies else is_dropped, "the copies of what has moved")
        left = [path.name for path in self.folder.rglob("kevynode.stage.*")]
        assert not left, left


class Writer:
    """A client that writes rising numbers to one list and one string, in transactions, and follows the scope."""

    def __init__(self, nodes: Nodes, prefix: str, number: int) -> None:
        self.list = f"{prefix}list:{number}"
        self.last = f"{prefix}last:{number}"
        self.confirmed: list[int] = []
        self.uncertain: list[int] = []
        self._addresses = nodes.addresses[number % 3 :] + nodes.addresses[: number % 3]
        self._pause = nodes.draw.choice((0.001, 0.004, 0.02))
        self._is_over = False

    def stop(self) -> None:
        """Send nothing after what is under way."""
        self._is_over = True

    async def run(self) -> None:
        """Write until told to stop."""
        async with ScopedClient(self._addresses, timeout=PATIENCE) as client:
            for number in itertools.count(1):
                if self._is_over:
                    return
                steps = [("RPUSH", self.list, number), ("SET", self.last, number)]
                try:
                    await client.pipeline(steps, transaction=True)
                except Uncertain:
                    self.uncertain.append(number)
                else:
                    self.confirmed.append(number)
                await trio.sleep(self._pause)

    async def check(self, nodes: Nodes, owner: str) -> None:
        """Assert that everything confirmed is there once and in order, and nothing else but what nobody knows of."""
        stored = [int(item) for item in await nodes.call(owner, "LRANGE", self.list, 0, -1)]
        assert stored == sorted(set(stored)), f"{self.list}: twice, or out of order"
        lost = set(self.confirmed) - set(stored)
        assert not lost, f"{self.list}: {len(lost)} confirmed writes are lost, {sorted(lost)[:5]} … of {stored[-1:]}"
        unknown = set(stored) - set(self.confirmed) - set(self.uncertain)
        assert not unknown, f"{self.list}: {sorted(unknown)[:5]} were never confirmed"
        last = await nodes.call(owner, "GET", self.last)
        assert (last is None) == (not stored), self.last
        assert not stored or int(last) == stored[-1], f"{self.last} is {last}, of {stored[-3:]}"


def is_refusal(answer: Any) -> bool:
    """Whether a move was answered with what a move may come to while nodes are killed."""
    starts = ("ERR MOVE-SCOPE ship failed: ", "ERR MOVE-SCOPE in doubt: ", "ERR MOVE-SCOPE: ", "LOADING ", "QUIESCED ")
    return isinstance(answer, ErrorReply) and answer.text.startswith((*starts, "MISDIRECTED "))
