"""How long the table of scopes takes to say whose key it is, as a process: ``python -m bench.scopes_routing``.

The task is JSON on standard input, the outcome one line on standard output.
"""

import gc
import json
import random
import sys
import time

import attrs

from kevynode.scope import OwnershipTable, Scope

KEYS = 20_000
UNSCOPED_SHARE = 0.1
NODE_ID = "node-0"
CALLS = ("route", "lookup")
LENGTHS = 4
"""How many different lengths the prefixes of a table have, however many there are."""


@attrs.frozen
class RoutingTask:
    """Tables of so many scopes, asked in turns for ``seconds`` each in every one of ``rounds``."""

    counts: list[int]
    rounds: int
    seconds: float


@attrs.frozen
class Routed:
    """Seconds for one key in one round with a table of ``scopes``: on the clock, and of CPU."""

    scopes: int
    call: str
    wall: float
    cpu: float


def prefixes(count: int) -> list[str]:
    """Prefixes none of which begins with another one, of :data:`LENGTHS` lengths in turns."""
    return [f"app{'x' * (index % LENGTHS)}:{index:05d}:" for index in range(count)]


def keys_for(count: int, source: random.Random) -> list[bytes]:
    """Keys under random ones of these prefixes, some of them under none."""
    known = prefixes(count)
    return [
        (("other:" if source.random() < UNSCOPED_SHARE else source.choice(known)) + f"user:{number:08d}").encode()
        for number in range(KEYS)
    ]


def time_calls(table: OwnershipTable, call: str, keys: list[bytes], seconds: float) -> tuple[float, float]:
    """Seconds a key on the clock, and of CPU: whole passes over the keys for about so long, the loop included."""
    calls = 0
    route, lookup, node_id = table.route, table.lookup, NODE_ID
    began, cpu = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - began) < seconds or not calls:
        if call == "route":
            for key in keys:
                route(key, node_id)
        else:
            for key in keys:
                lookup(key)
        calls += len(keys)
    return elapsed / calls, (time.process_time() - cpu) / calls


def run(task: RoutingTask) -> list[Routed]:
    """Time both calls with every table, in turns."""
    source = random.Random(5)
    tables = {}
    for count in task.counts:
        scopes = [Scope(prefix.encode(), f"node-{index % 3}") for index, prefix in enumerate(prefixes(count))]
        tables[count] = OwnershipTable(scopes), keys_for(count, source)
    return [
        Routed(count, call, *time_calls(table, call, keys, task.seconds))
        for _ in range(task.rounds)
        for count, (table, keys) in tables.items()
        for call in CALLS
    ]


def main() -> int:
    """Carry out the task on standard input."""
    task = RoutingTask(**json.load(sys.stdin))
    gc.disable()
    print(json.dumps([attrs.asdict(each) for each in run(task)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
