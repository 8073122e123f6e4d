"""Clients that write to a node of a cluster until it ends, and know what they were told; and disks that are slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from support.cluster import Cluster, ClusterClient, ErrorReply

from kevynode import Node
from kevynode.persist.jobs import Job
from kevynode.store.store import Store

#: Seconds that anything takes at most.
LONGEST = 1000.0


class Promises:
    """What clients were told about their keys: each writes one rising number under two keys, in a transaction."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        #: The number that each was told is written, the highest that it sent, and the highest that anybody read.
        self.kept: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        #: Errors that were answered, and connections that were lost without an answer.
        self.errors: list[str] = []
        self.dropped = 0

    async def write(self, node: Node, name: str, pause: float = 0.0) -> None:
        """Write until cancelled, or until nobody listens any more."""
        while True:
            try:
                client = await self.cluster.connect(node)
            except OSError:
                return
            try:
                while True:
                    await self._transact(client, name)
                    await trio.sleep(pause)
            except (AssertionError, trio.BrokenResourceError):
                self.dropped += 1
                await trio.sleep(0.01)

    async def _transact(self, client: ClusterClient, name: str) -> None:
        number = self.sent[name] = self.sent.get(name, 0) + 1
        *_, answer = await client.pipeline("MULTI", f"SET a:{name} {number}", f"SET b:{name} {number}", "EXEC")
        if answer == ["OK", "OK"]:
            self.kept[name] = number
        else:
            assert isinstance(answer, ErrorReply)
            self.errors.append(answer.text)
            await trio.sleep(0.02)

    async def read(self, node: Node, name: str, pause: float = 0.0) -> None:
        """Read what somebody writes, until cancelled or until nobody listens any more."""
        try:
            client = await self.cluster.connect(node)
            while True:
                value = await client.call("GET", f"a:{name}")
                self.seen[name] = max(int(value or 0), self.seen.get(name, 0))
                await trio.sleep(pause)
        except (OSError, AssertionError, trio.BrokenResourceError):
            return

    def so_far(self) -> dict[str, int]:
        """What was told until now."""
        return dict(self.kept)

    def check(self, store: Store, kept: dict[str, int] | None = None) -> None:
        """Assert that what was told is in a store, and transactions whole or not at all."""
        for name, number in (self.kept if kept is None else kept).items():
            found = int(store.read_string(b"a:" + name.encode()) or 0)
            assert number <= found <= self.sent[name], (name, number, found)
        for name in self.sent:
            assert store.read_string(b"a:" + name.encode()) == store.read_string(b"b:" + name.encode()), name


class SlowJobs:
    """Has what a node does in threads take as long as ``delay`` says, in seconds of the test's clock.

    ``held``: nothing ends before :meth:`release`. ``running`` is how many are under way; ``on_jobs`` is told of the
    jobs among them whenever one more begins.
    """

    def __init__(self, node: Node, delay: Callable[[], float] = lambda: 0.0) -> None:
        self.delay = delay
        self.held = False
        self.running = 0
        self.on_jobs: Callable[[list[Job]], None] = lambda jobs: None
        self._jobs: list[Job] = []
        self._released = trio.Event()
        node.files.in_thread = self._run  # type: ignore[method-assign]

    def hold(self) -> None:
        """Let nothing end from now on."""
        self.held = True

    def release(self) -> None:
        """Let everything go on."""
        self.held = False
        self._released.set()
        self._released = trio.Event()

    async def _run(self, call: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        self.running += 1
        job = getattr(call, "__self__", None)
        jobs = [job] if isinstance(job, Job) else []
        self._jobs += jobs
        self.on_jobs(self._jobs)
        try:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.delay())
                # A test that fails while it holds them ends all the same.
                with trio.move_on_after(LONGEST):
                    while self.held:
                        await self._released.wait()
            return call()
        finally:
            self.running -= 1
            for job in jobs:
                self._jobs.remove(job)
