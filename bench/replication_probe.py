"""A client that watches the clock, as a process: ``python -m bench.replication_probe``.

``replies`` measures how long one request takes, at a fixed beat; ``visible`` how long after a write's reply a replica
shows it. The task is one line of JSON on standard input, the outcome one line on standard output. It ends at the end
of its input, or after the task's seconds. It runs with real-time priority where that is allowed, so that it measures
the servers and not its own wait for the core that it shares with the load.
"""

import gc
import json
import os
import random
import select
import socket
import sys
import time
from typing import Literal

import attrs

from bench.replication_load import read_line
from bench.workloads import STRING_PREFIX, VALUE, encode_request, number

TIMEOUT = 60.0
POLL_SECONDS = 0.0002
"""Pause between two reads that look for a value on the replica."""

PRIORITY = 10
"""Real-time priority, above that of servers which somebody has given one."""

PATIENCE = 10.0
"""Seconds after which a value counts as never arrived."""

VISIBLE_KEY = "bench:visible"


class ProbeError(Exception):
    """A server closed the connection or answered with an error."""


@attrs.frozen
class Watch:
    """What to watch: ``interval`` seconds between requests (``visible``: between values), ``seconds`` in all.

    ``replica_host`` and ``replica_port`` are where ``visible`` reads; ``keyspace`` is how many keys under
    ``prefix`` ``replies`` draws from.
    """

    mode: Literal["replies", "visible"]
    host: str
    port: int
    interval: float
    seconds: float
    keyspace: int = 1
    replica_host: str = ""
    replica_port: int = 0
    prefix: str = STRING_PREFIX


@attrs.define
class Seen:
    """Moments (monotonic, seconds) with what was measured then (seconds); ``missing`` values never arrived."""

    samples: list[tuple[float, float]] = attrs.field(factory=list)
    missing: int = 0
    realtime: bool = False


class Wire:
    """A blocking connection that reads one reply of at most one bulk string."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """Send a request and return its whole reply; raises ProbeError for an error."""
        reply = self.exchange(request)
        if reply.startswith(b"-"):
            raise ProbeError(reply.decode(errors="replace").strip())
        return reply

    def exchange(self, request: bytes) -> bytes:
        """Send a request and return its whole reply, an error as well. Raises ProbeError and OSError."""
        self._socket.sendall(request)
        reply = b""
        while not complete(reply):
            data = self._socket.recv(65536)
            if not data:
                raise ProbeError("the server closed the connection")
            reply += data
        return reply

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def complete(reply: bytes) -> bool:
    """Whether a line, or a bulk string, is there as a whole."""
    line, end, rest = reply.partition(b"\r\n")
    if not end:
        return False
    if not line.startswith(b"$") or line == b"$-1":
        return True
    return len(rest) >= int(line[1:]) + 2


def sent_at(due: float, woke: float, free: float) -> float:
    """From when a reply's time counts.

    A request is ``due`` at its beat. If the connection was ``free`` by then, it counts from when this process ``woke``
    and sent it; if the reply before was late, from when it was due: a client that waits its turn waits too.
    """
    return woke if free <= due else due


def watch_replies(watch: Watch, control: int, seen: Seen) -> None:
    """SET and GET random keys in turns, one each beat."""
    wire = Wire(watch.host, watch.port)
    draw = random.Random(7).random
    clock = time.monotonic
    began = free = clock()
    beat = 0
    while True:
        due = began + beat * watch.interval
        pause = due - clock()
        if pause > 0:
            time.sleep(pause)
        if due - began >= watch.seconds or (not beat % 16 and ended(control)):
            break
        key = watch.prefix + number(int(draw() * watch.keyspace))
        request = encode_request(["SET", key, VALUE] if beat % 2 else ["GET", key])
        start = sent_at(due, clock(), free)
        wire.ask(request)
        free = clock()
        seen.samples.append((start, free - start))
        beat += 1
    wire.close()


def watch_visible(watch: Watch, control: int, seen: Seen) -> None:
    """Write a value nobody has written before on the primary, and read on the replica until it is there."""
    primary = Wire(watch.host, watch.port)
    replica = Wire(watch.replica_host, watch.replica_port)
    read = encode_request(["GET", VISIBLE_KEY])
    clock = time.monotonic
    end = clock() + watch.seconds
    value = 0
    while clock() < end and not ended(control):
        value += 1
        text = f"{os.getpid()}-{value:08d}"
        primary.ask(encode_request(["SET", VISIBLE_KEY, text]))
        acknowledged = now = clock()
        while True:
            found = text.encode() in replica.ask(read)
            now = clock()
            if found or now - acknowledged > PATIENCE:
                break
            time.sleep(POLL_SECONDS)
        if found:
            seen.samples.append((acknowledged, now - acknowledged))
        else:
            seen.missing += 1
        time.sleep(watch.interval)
    primary.close()
    replica.close()


def ended(control: int) -> bool:
    """Whether the input of this process is at its end."""
    return bool(select.select([control], [], [], 0)[0])


def take_priority() -> bool:
    """Have this process go before all others where that is allowed, and say whether it is."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        return False
    return True


def main() -> int:
    """Carry out the task on standard input; exit code 1 and a line on standard error when it fails."""
    control = sys.stdin.fileno()
    watch = Watch(**json.loads(read_line(control)))
    gc.disable()
    seen = Seen(realtime=take_priority())
    try:
        (watch_replies if watch.mode == "replies" else watch_visible)(watch, control, seen)
    except (ProbeError, OSError) as error:
        print(f"bench.replication_probe: {error}", file=sys.stderr)
        return 1
    print(json.dumps(attrs.asdict(seen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
