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
from collections import deque
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
    ``prefix`` ``replies`` draws from, and ``connections`` how many take turns to ask.
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
    connections: int = 1


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
        refuse_error(reply)
        return reply

    def exchange(self, request: bytes) -> bytes:
        """Send a request and return its whole reply, an error as well. Raises ProbeError and OSError."""
        self.send(request)
        reply = b""
        while not complete(reply):
            reply += self.receive()
        return reply

    def send(self, request: bytes) -> None:
        """Send a request; raises OSError."""
        self._socket.sendall(request)

    def receive(self) -> bytes:
        """What has come, once something has. Raises ProbeError and OSError."""
        data = self._socket.recv(65536)
        if not data:
            raise ProbeError("the server closed the connection")
        return data

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def refuse_error(reply: bytes) -> None:
    """Raise ProbeError for an error."""
    if reply.startswith(b"-"):
        raise ProbeError(reply.decode(errors="replace").strip())


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


class Line:
    """One of the connections that take turns: what is under way on it, and the requests that wait for that."""

    def __init__(self, host: str, port: int) -> None:
        self.wire = Wire(host, port)
        #: From when the request under way counts; None: there is none.
        self.start: float | None = None
        self.waiting: deque[tuple[float, bytes]] = deque()
        self._reply = b""

    def ask(self, due: float, request: bytes, now: float) -> None:
        """Send a request, or have it wait for its turn."""
        if self.start is None:
            self.start = sent_at(due, now, due)
            self.wire.send(request)
        else:
            self.waiting.append((due, request))

    def hear(self, now: float) -> tuple[float, float] | None:
        """Take what has come: when the request counts from and what its reply took, if it is there as a whole."""
        assert self.start is not None
        self._reply += self.wire.receive()
        if not complete(self._reply):
            return None
        refuse_error(self._reply)
        sample = self.start, now - self.start
        self._reply, self.start = b"", None
        if self.waiting:
            due, request = self.waiting.popleft()
            self.start = sent_at(due, now, now)
            self.wire.send(request)
        return sample


def watch_replies(watch: Watch, control: int, seen: Seen) -> None:
    """SET and GET random keys in turns, one each beat, and each on the next connection."""
    lines = [Line(watch.host, watch.port) for _ in range(watch.connections)]
    by_socket = {line.wire.fileno(): line for line in lines}
    draw = random.Random(7).random
    clock = time.monotonic
    began = heard = clock()
    beat = 0
    stopping = False
    while True:
        now = clock()
        while not stopping and (due := began + beat * watch.interval) <= now:
            stopping = due - began >= watch.seconds or (not beat % 16 and ended(control))
            if not stopping:
                key = watch.prefix + number(int(draw() * watch.keyspace))
                request = encode_request(["SET", key, VALUE] if beat % 2 else ["GET", key])
                lines[beat % len(lines)].ask(due, request, clock())
                beat += 1
        busy = [descriptor for descriptor, line in by_socket.items() if line.start is not None]
        if stopping and not busy:
            break
        pause = TIMEOUT if stopping else max(0.0, began + beat * watch.interval - clock())
        for descriptor in select.select(busy, [], [], pause)[0]:
            heard = clock()
            sample = by_socket[descriptor].hear(heard)
            if sample is not None:
                seen.samples.append(sample)
        if busy and clock() - heard > TIMEOUT:
            raise ProbeError(f"no reply for {TIMEOUT:.0f} s")
        if not busy:
            heard = clock()
    for line in lines:
        line.wire.close()


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
