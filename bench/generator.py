"""Our own load generator: one process, one epoll loop, prebuilt requests, replies counted by their line ends.

It is started as ``python -m bench.generator`` with a :class:`Task` as JSON on standard input and prints one line of
JSON. It stays light on purpose: per batch one ``send``, one or a few ``recv`` and one scan, nothing is parsed.
"""

import gc
import json
import select
import socket
import sys
import time

import attrs

from bench.figures import percentile
from bench.workloads import ERROR, build_batches, count_line_ends

READ_BYTES = 64 * 1024
STALL_SECONDS = 30.0
"""A server that answers nobody for this long is reported instead of waited for."""


class GeneratorError(Exception):
    """The server closed a connection, answered with an error, or stopped answering."""


@attrs.frozen
class Task:
    """What to send: at least ``requests`` requests in whole batches of ``depth`` over ``connections`` connections.

    ``arguments`` and ``line_ends`` are the workload's; ``seed`` fixes the random numbers in the requests.
    """

    host: str
    port: int
    connections: int
    depth: int
    requests: int
    arguments: list[str]
    line_ends: int
    seed: int = 1

    @property
    def batches(self) -> int:
        """How many batches are sent in all."""
        return -(-self.requests // self.depth)


@attrs.frozen
class Outcome:
    """What came of it: replies counted, seconds from first send to last reply, own CPU seconds in that time, and
    the seconds from a batch's send to its last reply as percentiles over all batches."""

    requests: int
    elapsed: float
    cpu: float
    p50: float
    p99: float


class _Client:
    """One connection: its socket, the line ends still to come for its batch, and when that batch went out."""

    __slots__ = ("sent_at", "sock", "unsent", "waiting")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.waiting = 0
        self.sent_at = 0.0
        self.unsent = b""


def run(task: Task) -> Outcome:
    """Connect, send, count, and return the figures; raises :class:`GeneratorError` or OSError."""
    batches = build_batches(task.arguments, task.depth, task.seed)
    clients: dict[int, _Client] = {}
    try:
        for _ in range(min(task.connections, task.batches)):
            sock = socket.create_connection((task.host, task.port), timeout=STALL_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            clients[sock.fileno()] = _Client(sock)
        return _drive(task, batches, clients)
    finally:
        for client in clients.values():
            client.sock.close()


def _drive(task: Task, batches: list[bytes], clients: dict[int, _Client]) -> Outcome:
    readable, writable = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT
    line_ends = task.depth * task.line_ends
    pool = len(batches)
    to_send = task.batches
    to_finish = to_send
    latencies: list[float] = []
    buffer = bytearray(READ_BYTES)
    clock = time.perf_counter

    def transmit(client: _Client, data: bytes) -> bytes:
        """Send what fits and return the rest."""
        try:
            return data[client.sock.send(data) :]
        except BlockingIOError:
            return data

    with select.epoll() as poller:
        started, cpu_started = clock(), time.process_time()
        for descriptor, client in clients.items():
            to_send -= 1
            client.waiting = line_ends
            client.sent_at = clock()
            client.unsent = transmit(client, batches[to_send % pool])
            poller.register(descriptor, writable if client.unsent else readable)
        while to_finish:
            ready = poller.poll(STALL_SECONDS)
            if not ready:
                raise GeneratorError(f"no reply for {STALL_SECONDS:.0f} s with {to_finish} batches to go")
            for descriptor, event in ready:
                client = clients[descriptor]
                if client.unsent and event & select.EPOLLOUT:
                    client.unsent = transmit(client, client.unsent)
                    if not client.unsent:
                        poller.modify(descriptor, readable)
                if not event & ~select.EPOLLOUT:
                    continue
                size = client.sock.recv_into(buffer)
                if not size:
                    raise GeneratorError("the server closed a connection")
                if client.waiting == line_ends and buffer[0] == ERROR:
                    raise GeneratorError(f"the server answered {buffer[: min(size, 100)].decode(errors='replace')!r}")
                client.waiting -= count_line_ends(buffer, size)
                if client.waiting > 0:
                    continue
                if client.waiting < 0:
                    raise GeneratorError("the server sent more than was asked for")
                now = clock()
                latencies.append(now - client.sent_at)
                to_finish -= 1
                if to_send:
                    to_send -= 1
                    client.waiting = line_ends
                    client.sent_at = now
                    client.unsent = transmit(client, batches[to_send % pool])
                    if client.unsent:
                        poller.modify(descriptor, writable)
        elapsed, cpu = clock() - started, time.process_time() - cpu_started
    latencies.sort()
    return Outcome(
        requests=task.batches * task.depth,
        elapsed=elapsed,
        cpu=cpu,
        p50=percentile(latencies, 0.50),
        p99=percentile(latencies, 0.99),
    )


def main() -> int:
    """Run the task on standard input; one line on standard error and exit code 1 when it fails."""
    task = Task(**json.load(sys.stdin))
    gc.disable()
    try:
        outcome = run(task)
    except (GeneratorError, OSError) as error:
        print(f"bench.generator: {error}", file=sys.stderr)
        return 1
    print(json.dumps(attrs.asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
