"""Clients that write random keys at a given rate, as a process: ``python -m bench.replication_load``.

The task is one line of JSON on standard input, the outcome one line on standard output. It ends at the end of its
input, or after the task's seconds.
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

import attrs

from bench.workloads import DIGITS, STRING_PREFIX, VALUE, count_line_ends

STALL_SECONDS = 30.0
TICK = 0.001
"""How often, in seconds, requests that are due are sent, where no reply comes meanwhile."""


MARK = 0.05
"""Seconds between two counts of what has been answered."""


class LoadError(Exception):
    """The server closed a connection, answered with an error, or stopped answering."""


@attrs.frozen
class Load:
    """SETs of 64-byte values to random ones of ``keyspace`` keys under ``prefix``, ``depth`` of them in one send.

    ``rate`` is in commands a second over all connections together; 0: as fast as replies come.
    """

    host: str
    port: int
    connections: int
    depth: int
    rate: float
    seconds: float
    keyspace: int
    seed: int = 1
    prefix: str = STRING_PREFIX


@attrs.frozen
class Written:
    """Commands answered in all, and how many there were at some moments (monotonic), first and last among them."""

    requests: int
    marks: list[tuple[float, int]]

    @property
    def ended(self) -> float:
        """When the last reply came."""
        return self.marks[-1][0]

    @property
    def rate(self) -> float:
        """Commands a second over the whole time."""
        return self.rate_between(self.marks[0][0], self.ended)

    def rate_between(self, start: float, end: float) -> float:
        """Commands a second between two moments, as exactly as the marks allow; 0 where they do not."""
        inside = [mark for mark in self.marks if start <= mark[0] <= end]
        if len(inside) < 2:
            return 0.0
        (first, before), (last, after) = inside[0], inside[-1]
        return (after - before) / (last - first)


def batch_template(depth: int, prefix: str = STRING_PREFIX) -> bytes:
    """``depth`` SET requests as bytes with a place for a key's number (``%`` and a tuple fill it in) in each."""
    size = len(prefix) + DIGITS
    one = f"*3\r\n$3\r\nSET\r\n${size}\r\n{prefix}%0{DIGITS}d\r\n${len(VALUE)}\r\n{VALUE}\r\n"
    return one.encode() * depth


def due(rate: float, elapsed: float, sent: int, depth: int) -> int:
    """How many batches are to be sent ``elapsed`` seconds after the start when ``sent`` have been."""
    return max(0, int(rate * elapsed / depth) + 1 - sent)


def run(load: Load, control: int) -> Written:
    """Write until ``control`` (a descriptor) becomes readable or the time is over; raises LoadError and OSError."""
    sockets: dict[int, socket.socket] = {}
    try:
        for _ in range(load.connections):
            sock = socket.create_connection((load.host, load.port), timeout=STALL_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets[sock.fileno()] = sock
        return _drive(load, sockets, control)
    finally:
        for sock in sockets.values():
            sock.close()


def _drive(load: Load, sockets: dict[int, socket.socket], control: int) -> Written:
    template = batch_template(load.depth, load.prefix)
    places = range(load.depth)
    draw = random.Random(load.seed).random
    keyspace, depth, rate = load.keyspace, load.depth, load.rate
    waiting = dict.fromkeys(sockets, 0)
    idle = deque(sockets)
    sent = answered = 0
    stopping = False
    clock = time.monotonic
    marks: list[tuple[float, int]] = []
    next_mark = 0.0
    with select.epoll() as poller:
        for descriptor in sockets:
            poller.register(descriptor, select.EPOLLIN)
        poller.register(control, select.EPOLLIN | select.EPOLLHUP)
        began = heard = clock()
        while True:
            now = clock()
            if now >= next_mark:
                marks.append((now, answered * depth))
                next_mark = now + MARK
            stopping = stopping or now - began >= load.seconds
            if stopping and len(idle) == len(sockets):
                break
            wanted = 0 if stopping else due(rate, now - began, sent, depth) if rate else len(idle)
            for _ in range(min(wanted, len(idle))):
                descriptor = idle.popleft()
                sockets[descriptor].sendall(template % tuple([int(draw() * keyspace) for _ in places]))
                waiting[descriptor] = depth
                sent += 1
            ready = poller.poll(TICK if rate and idle and not stopping else 1.0)
            if not ready and len(idle) < len(sockets) and clock() - heard > STALL_SECONDS:
                raise LoadError(f"no reply for {STALL_SECONDS:.0f} s")
            for descriptor, _event in ready:
                if descriptor == control:
                    stopping = True
                    poller.unregister(control)
                    continue
                data = sockets[descriptor].recv(65536)
                if not data or data.startswith(b"-"):
                    raise LoadError(f"the server answered {data[:100]!r}")
                waiting[descriptor] -= count_line_ends(data, len(data))
                heard = now
                if not waiting[descriptor]:
                    answered += 1
                    idle.append(descriptor)
        marks.append((clock(), answered * depth))
    return Written(answered * depth, marks)


def main() -> int:
    """Carry out the task on standard input; exit code 1 and a line on standard error when it fails."""
    load = Load(**json.loads(read_line(sys.stdin.fileno())))
    gc.disable()
    try:
        written = run(load, sys.stdin.fileno())
    except (LoadError, OSError) as error:
        print(f"bench.replication_load: {error}", file=sys.stderr)
        return 1
    print(json.dumps(attrs.asdict(written)))
    return 0


def read_line(descriptor: int) -> bytes:
    """One line, and nothing of what follows it, so that waiting on the descriptor afterwards sees only what is new."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise EOFError("no task")
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
