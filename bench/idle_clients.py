"""Connections that do nothing, as a process: ``python -m bench.idle_clients``.

The task is one line of JSON on standard input. Each connection asks one PING, so that it has been served; then they are
held until the input ends, which is the time to count those that the server has closed meanwhile.
"""

import json
import resource
import socket
import sys

import attrs

from bench.replication_load import read_line
from bench.workloads import encode_request

TIMEOUT = 30.0
SPARE_DESCRIPTORS = 50


class TooFew(Exception):
    """This process may not open that many descriptors, or the server did not answer one of the connections."""


@attrs.frozen
class Crowd:
    """So many connections to a server."""

    host: str
    port: int
    connections: int


@attrs.frozen
class Held:
    """How many connections there were, and how many of them the server had closed when they were let go."""

    connections: int
    closed: int


def raise_limit(connections: int) -> None:
    """Allow this process that many sockets; raises :class:`TooFew` where the hard limit is lower."""
    wanted = connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise TooFew(f"{wanted} open files are needed, and the hard limit is {hard}: ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def is_closed(sock: socket.socket) -> bool:
    """Whether the peer has ended the connection."""
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def hold(crowd: Crowd, control: int) -> Held:
    """Connect, ask, and hold until ``control`` (a descriptor) is at its end. Raises TooFew and OSError."""
    raise_limit(crowd.connections)
    request = encode_request(["PING"])
    sockets = []
    try:
        for _ in range(crowd.connections):
            sock = socket.create_connection((crowd.host, crowd.port), timeout=TIMEOUT)
            sockets.append(sock)
            sock.sendall(request)
            reply = sock.recv(64)
            if not reply.startswith(b"+PONG"):
                raise TooFew(f"connection {len(sockets)} was answered {reply!r}")
        # Nothing follows: it waits for the end of the input.
        with open(control, "rb", closefd=False) as rest:
            rest.read()
        return Held(len(sockets), sum(map(is_closed, sockets)))
    finally:
        for sock in sockets:
            sock.close()


def main() -> int:
    """Carry out the task on standard input; exit code 1 and a line on standard error when it fails."""
    control = sys.stdin.fileno()
    crowd = Crowd(**json.loads(read_line(control)))
    try:
        held = hold(crowd, control)
    except (TooFew, OSError) as error:
        print(f"bench.idle_clients: {error}", file=sys.stderr)
        return 1
    print(json.dumps(attrs.asdict(held)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
