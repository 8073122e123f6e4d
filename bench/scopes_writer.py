"""Tasks that write through one following client as fast as they can, as a process: ``python -m bench.scopes_writer``.

Each task appends 1, 2, 3 … to a list of its own, one call after the other. At the end of the input the lists are read
where they are written, and held against what was acknowledged. The task is one line of JSON on standard input, the
outcome one line on standard output.
"""

import gc
import json
import sys
import time
from collections.abc import Sequence
from itertools import pairwise

import attrs
import trio

from bench.replication_load import read_line
from kevynode.client import ClientError, ScopedClient, Uncertain
from kevynode.errors import ReplyError

ITEMS_AT_ONCE = 10_000
FAILURES_LIMIT = 100
FAILURE_PAUSE = 0.1
CALL_SECONDS = 30.0


@attrs.frozen
class Writing:
    """The nodes (``host:port``), how many tasks write, and under which prefix. ``seconds`` at most."""

    nodes: list[str]
    tasks: int
    prefix: str
    seconds: float


@attrs.define
class Task:
    """What came of one task's calls: what was acknowledged, what nobody knows of, and how calls failed."""

    key: str
    confirmed: list[int] = attrs.field(factory=list)
    uncertain: list[int] = attrs.field(factory=list)
    failures: list[str] = attrs.field(factory=list)
    longest: float = 0.0


@attrs.frozen
class Kept:
    """How a list differs from what was acknowledged: items ``missing``, ``doubled``, ``disordered``, ``unknown``."""

    missing: int = 0
    doubled: int = 0
    disordered: int = 0
    unknown: int = 0


@attrs.define
class Followed:
    """All tasks together; ``elapsed`` and ``longest`` (the longest call) in seconds."""

    acknowledged: int = 0
    elapsed: float = 0.0
    longest: float = 0.0
    failed: int = 0
    failures: list[str] = attrs.field(factory=list)
    missing: int = 0
    doubled: int = 0
    disordered: int = 0
    unknown: int = 0


def compare(stored: Sequence[int], confirmed: Sequence[int], uncertain: Sequence[int]) -> Kept:
    """Hold what a list has against what was written to it, in that order, by one task."""
    there = set(stored)
    return Kept(
        missing=len(set(confirmed) - there),
        doubled=len(stored) - len(there),
        disordered=sum(later < earlier for earlier, later in pairwise(stored)),
        unknown=len(there - set(confirmed) - set(uncertain)),
    )


async def write(client: ScopedClient, task: Task, stop: trio.Event) -> None:
    """Append numbers until ``stop``, or until too many calls have failed."""
    number = 0
    while not stop.is_set() and len(task.failures) < FAILURES_LIMIT:
        number += 1
        began = time.monotonic()
        try:
            await client.call("RPUSH", task.key, number)
        except (ClientError, ReplyError) as error:
            task.failures.append(f"{type(error).__name__}: {error}")
            if isinstance(error, Uncertain):
                task.uncertain.append(number)
            await trio.sleep(FAILURE_PAUSE)
        else:
            task.confirmed.append(number)
        task.longest = max(task.longest, time.monotonic() - began)


async def read(client: ScopedClient, key: str) -> list[int]:
    """A whole list, at its writer."""
    found: list[int] = []
    while True:
        some = await client.call("LRANGE", key, len(found), len(found) + ITEMS_AT_ONCE - 1, at_writer=True)
        if not some:
            return found
        found += map(int, some)


async def follow(writing: Writing, control: int) -> Followed:
    """Write until ``control`` (a descriptor) is at its end, then compare. Raises ClientError and ReplyError."""
    stop = trio.Event()
    tasks = [Task(f"{writing.prefix}list:{index}") for index in range(writing.tasks)]
    async with ScopedClient(writing.nodes, timeout=CALL_SECONDS) as client:
        for task in tasks:
            await client.call("DEL", task.key)
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(write, client, task, stop)
            with trio.move_on_after(writing.seconds):
                await trio.lowlevel.wait_readable(control)
            stop.set()
        outcome = Followed(elapsed=time.monotonic() - began)
        for task in tasks:
            kept = compare(await read(client, task.key), task.confirmed, task.uncertain)
            outcome.acknowledged += len(task.confirmed)
            outcome.longest = max(outcome.longest, task.longest)
            outcome.failed += len(task.failures)
            outcome.failures += task.failures[:1]
            outcome.missing += kept.missing
            outcome.doubled += kept.doubled
            outcome.disordered += kept.disordered
            outcome.unknown += kept.unknown
    return outcome


def main() -> int:
    """Carry out the task on standard input; exit code 1 and a line on standard error when it fails."""
    control = sys.stdin.fileno()
    writing = Writing(**json.loads(read_line(control)))
    gc.freeze()
    try:
        outcome = trio.run(follow, writing, control)
    except (ClientError, ReplyError) as error:
        print(f"bench.scopes_writer: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(attrs.asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
