"""A primary that has everything ready to send, as a process: ``python -m bench.apply_primary``.

It waits for one replica, gives it an empty snapshot, and then sends frames that were made beforehand as fast as the
replica takes them, and asks when all of them are applied. The task is one line of JSON on standard input, the outcome
one line on standard output.
"""

import gc
import json
import random
import socket
import sys
import time

import attrs

from bench import machine
from bench.replication_load import read_line
from bench.workloads import KEYSPACE, STRING_PREFIX, VALUE, number

TIMEOUT = 120.0
READ_BYTES = 4096
SEND_BYTES = 1 << 18
HISTORY = 7
FRAMES_AT_ONCE = 4096


class ApplyFailed(Exception):
    """The replica went away, or never applied everything."""


@attrs.frozen
class Feed:
    """So many SET frames of 64 bytes for the replica that comes to ``port``; ``pid`` is the replica's process."""

    port: int
    pid: int
    frames: int


@attrs.frozen
class Fed:
    """Frames that the replica has applied, the seconds and its CPU seconds for them, and their bytes."""

    frames: int
    seconds: float
    cpu: float
    size: int


def make_frames(count: int) -> bytes:
    """Frames at offsets from 1 on, in one piece: SETs of random keys."""
    from kevynode.replicate import wire

    draw = random.Random(1).randrange
    value = VALUE.encode()
    pieces = []
    for start in range(0, count, FRAMES_AT_ONCE):
        commands = (
            (b"SET", (STRING_PREFIX + number(draw(KEYSPACE))).encode(), value)
            for _ in range(min(FRAMES_AT_ONCE, count - start))
        )
        pieces.append(wire.encode_frames(1 + start, commands))
    return b"".join(pieces)


class Replica:
    """The replica's connection, seen from here."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._read = b""

    def greet(self) -> None:
        """Read the handshake, and send an empty snapshot. Raises ApplyFailed."""
        from kevynode.replicate import wire
        from kevynode.replicate.handshake import HandshakeParser, format_answer
        from kevynode.replicate.lineage import Lineage
        from kevynode.replicate.snapshot import encode_snapshot

        parser = HandshakeParser()
        request = None
        while request is None:
            request = parser.feed(self._receive())
        self._read = parser.rest
        accepted = frozenset({"txn", "ackreq", "lineage"})
        if not accepted <= request.capabilities:
            raise ApplyFailed(f"the replica is no kevynode: it can do {sorted(request.capabilities)}")
        snapshot = b"".join(encode_snapshot([], version=6, cursor=(HISTORY, 1)))
        self._sock.sendall(format_answer(request, Lineage(HISTORY), accepted))
        self._sock.sendall(wire.SNAPSHOT_BEGIN + b"".join(wire.chunks(snapshot)) + wire.snapshot_end(1))

    def send(self, data: bytes) -> None:
        """Send everything; waits as long as the replica does."""
        view = memoryview(data)
        for start in range(0, len(view), SEND_BYTES):
            self._sock.sendall(view[start : start + SEND_BYTES])

    def await_position(self, wanted: int) -> None:
        """Ask, and read acknowledgements until everything before ``wanted`` is applied. Raises ApplyFailed."""
        from kevynode.replicate import wire

        deadline = time.monotonic() + TIMEOUT
        self._sock.sendall(wire.ACK_REQUEST)
        while self._position() < wanted:
            if time.monotonic() > deadline:
                raise ApplyFailed(f"the replica had not applied everything after {TIMEOUT:.0f} s")
            self._read += self._receive()

    def _position(self) -> int:
        """The newest acknowledgement that has been read, 0 if there is none."""
        *lines, self._read = self._read.split(b"\r\n")
        found = [int(line.rpartition(b" ")[2]) for line in lines if line.startswith(b"REPLCONF ACK ")]
        return max(found, default=0)

    def _receive(self) -> bytes:
        data = self._sock.recv(READ_BYTES)
        if not data:
            raise ApplyFailed("the replica ended the connection")
        return data


def feed(task: Feed) -> Fed:
    """Serve one replica. Raises ApplyFailed and OSError."""
    # Before the replica can connect: it does not wait for long.
    frames = make_frames(task.frames)
    with socket.create_server(("127.0.0.1", task.port)) as listener:
        listener.settimeout(TIMEOUT)
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            replica = Replica(sock)
            replica.greet()
            replica.await_position(1)
            cpu, began = machine.process_cpu(task.pid), time.perf_counter()
            replica.send(frames)
            replica.await_position(1 + task.frames)
            elapsed = time.perf_counter() - began
            return Fed(task.frames, elapsed, machine.process_cpu(task.pid) - cpu, len(frames))


def main() -> int:
    """Carry out the task on standard input; exit code 1 and a line on standard error when it fails."""
    task = Feed(**json.loads(read_line(sys.stdin.fileno())))
    gc.disable()
    try:
        fed = feed(task)
    except (ApplyFailed, OSError) as error:
        print(f"bench.apply_primary: {error}", file=sys.stderr)
        return 1
    print(json.dumps(attrs.asdict(fed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
