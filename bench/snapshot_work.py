"""What it costs to write a snapshot, without a network, as a process: ``python -m bench.snapshot_work``.

The task is JSON on standard input, the outcome one line on standard output.
"""

import gc
import json
import os
import random
import sys
import time

import attrs

from bench.servers import PURE
from bench.workloads import STRING_PREFIX, VALUE, number


@attrs.frozen
class Encoding:
    """So many keys of 64 bytes as a snapshot, ``rounds`` times, on ``core``; ``pure``: without the compiled parts."""

    keys: int
    rounds: int
    core: int
    pure: bool


@attrs.frozen
class Encoded:
    """CPU seconds of each round, the snapshot's bytes, and which twin of the hot parts wrote it."""

    cpu: tuple[float, ...]
    size: int
    parts: str


def encode(encoding: Encoding) -> Encoded:
    """Freeze a store and write it, again and again."""
    from kevynode import twins
    from kevynode.replicate.snapshot import encode_snapshot
    from kevynode.store.store import Store

    store = Store(random.Random(1))
    value = VALUE.encode()
    for index in range(encoding.keys):
        # Each value is an object of its own, as it is when it has come from a client.
        store.put((STRING_PREFIX + number(index)).encode(), bytes(bytearray(value)))
    gc.collect()
    gc.freeze()
    spent = []
    size = 0
    for _ in range(encoding.rounds):
        began = time.process_time()
        size = sum(map(len, encode_snapshot(store.freeze())))
        spent.append(time.process_time() - began)
    return Encoded(tuple(spent), size, twins.IMPLEMENTATION)


def main() -> int:
    """Carry out the task on standard input."""
    encoding = Encoding(**json.loads(sys.stdin.readline()))
    os.sched_setaffinity(0, {encoding.core})
    # Read when the node's modules are imported, which has not happened yet.
    os.environ[PURE] = "1" if encoding.pure else "0"
    print(json.dumps(attrs.asdict(encode(encoding))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
