"""A replica that keeps nothing, as a process: ``python -m bench.sink``.

It takes the snapshot of a kevynode primary as fast as it comes, then the stream until its input ends, says once a
second that it lives, and remembers only how much came and when the snapshot was complete. The task is one line of JSON
on standard input, the outcome one line on standard output.
"""

import json
import select
import socket
import sys
import time

import attrs

from bench.replication_load import read_line
from bench.workloads import encode_request

TIMEOUT = 300.0
READ_BYTES = 256 * 1024
END_MARK = b"+SNAPSHOT_END "
ANSWER = b"+ACK "
BEAT_SECONDS = 1.0

CAPABILITIES = ("txn", "ackreq", "lineage")
"""What a kevynode that follows everything asks for."""


class SinkError(Exception):
    """The primary refused, or the connection ended before the snapshot was complete."""


@attrs.frozen
class Sink:
    """Where the primary is, and what it is told the replica can do: nothing is what a kevy server's replica says."""

    host: str
    port: int
    capabilities: tuple[str, ...] = CAPABILITIES


@attrs.frozen
class Drained:
    """Monotonic moments of the request and of the snapshot's end, its bytes, and those that came after it."""

    began: float
    complete: float
    snapshot: int
    stream: int


def handshake(capabilities: tuple[str, ...]) -> bytes:
    """What a replica without data asks."""
    words = ["REPLICATE", "FROM", "0", "0", "ID", "bench-sink"]
    if capabilities:
        words += ["CAPA", str(len(capabilities)), *capabilities]
    return encode_request(words)


def drain(sink: Sink, control: int) -> Drained:
    """Take everything until ``control`` (a descriptor) is at its end and nothing more has arrived.

    Raises SinkError and OSError.
    """
    with socket.create_connection((sink.host, sink.port), timeout=TIMEOUT) as sock:
        began = time.monotonic()
        sock.sendall(handshake(sink.capabilities))
        snapshot = take_snapshot(sock)
        complete = time.monotonic()
        stream = 0
        buffer = bytearray(READ_BYTES)
        spoke = complete
        while True:
            readable, _, _ = select.select([sock.fileno(), control], [], [], BEAT_SECONDS)
            if sock.fileno() in readable:
                size = sock.recv_into(buffer)
                if not size:
                    raise SinkError("the primary ended the stream")
                stream += size
            elif control in readable:
                return Drained(began, complete, snapshot, stream)
            now = time.monotonic()
            if now - spoke >= BEAT_SECONDS:
                spoke = now
                sock.sendall(b"REPLCONF ACK 0\r\n")


def take_snapshot(sock: socket.socket) -> int:
    """Read up to the snapshot's end, and how many bytes that were."""
    buffer = bytearray(READ_BYTES)
    size, tail = 0, b""
    while END_MARK not in tail:
        got = sock.recv_into(buffer)
        if not got:
            raise SinkError(f"the primary ended the connection after {size} bytes")
        if not size and not buffer.startswith(ANSWER[: min(got, len(ANSWER))]):
            raise SinkError(f"the primary answered {bytes(buffer[: min(got, 100)])!r}")
        size += got
        # The mark may be cut by a read; nothing but a short line follows it at once.
        tail = tail[-len(END_MARK) :] + bytes(memoryview(buffer)[:got])
    return size


def main() -> int:
    """Carry out the task on standard input; exit code 1 and a line on standard error when it fails."""
    control = sys.stdin.fileno()
    task = json.loads(read_line(control))
    try:
        drained = drain(Sink(task["host"], task["port"], tuple(task["capabilities"])), control)
    except (SinkError, OSError) as error:
        print(f"bench.sink: {error}", file=sys.stderr)
        return 1
    print(json.dumps(attrs.asdict(drained)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
