"""How long one read takes, as a process: ``python -m bench.local_work``.

``inside`` asks a node in this process, ``outside`` a server through redis-py. The task is JSON on standard input, the
outcome one line on standard output.
"""

import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import attrs

from bench.workloads import KEYSPACE, STRING_PREFIX, VALUE, number

CALLS_AT_ONCE = 100


@attrs.frozen
class Reads:
    """Reads for about ``seconds`` on ``core``; ``host`` and ``port`` are those of the server outside."""

    where: Literal["inside", "outside"]
    core: int
    seconds: float
    host: str = ""
    port: int = 0


@attrs.frozen
class Took:
    """Seconds for one read, the loop around it included, and how many there were."""

    each: float
    calls: int


def keys() -> list[str]:
    """The keys that are asked for, one after the other. They exist."""
    return [STRING_PREFIX + number(index) for index in range(KEYSPACE)]


def time_reads(get: Callable[[Any], object], wanted: list[Any], seconds: float) -> Took:
    """Read for about so long. Raises ValueError if a key has another value than it was given."""
    if get(wanted[0]) not in (VALUE, VALUE.encode()):
        raise ValueError(f"{wanted[0]!r} has the value {get(wanted[0])!r}")
    source = itertools.cycle(wanted)
    batch = range(CALLS_AT_ONCE)
    calls = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for _ in batch:
            get(next(source))
        calls += CALLS_AT_ONCE
    return Took(elapsed / calls, calls)


def inside(reads: Reads) -> Took:
    """Ask a node that runs in this program."""
    import trio

    from kevynode import NodeConfig, open_node

    async def run() -> Took:
        config = NodeConfig.from_dict({"server": {"port": 0}, "persistence": {"aof": False}, "log": {"level": "error"}})
        async with open_node(config) as node:
            wanted = [key.encode() for key in keys()]
            for key in wanted:
                node.set(key, VALUE)
            return time_reads(node.get, wanted, reads.seconds)

    return trio.run(run)


def outside(reads: Reads) -> Took:
    """Ask a server, one request at a time, over one connection."""
    from redis import Redis

    with Redis(host=reads.host, port=reads.port) as client:
        for key in keys():
            client.set(key, VALUE)
        return time_reads(client.get, keys(), reads.seconds)


def main() -> int:
    """Carry out the task on standard input; exit code 1 and a line on standard error when it fails."""
    reads = Reads(**json.loads(sys.stdin.readline()))
    os.sched_setaffinity(0, {reads.core})
    gc.disable()
    try:
        took = inside(reads) if reads.where == "inside" else outside(reads)
    except (ValueError, OSError, ImportError) as error:
        print(f"bench.local_work: {error}", file=sys.stderr)
        return 1
    print(json.dumps(attrs.asdict(took)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
