"""A server without a store, ``python -m bench.control``: what a command costs where nothing is looked up.

One process, one thread, one epoll object: it reads every ready socket, then answers them all, as a node does. It knows
the replies of the workloads by heart and takes whatever has the shape of the request before it for one more of the
same. What it costs is what the interpreter and the kernel take for moving the bytes: no server written in Python can
cost less.
"""

import platform
import select
import socket

from bench.workloads import ERROR, LIST_RANGE, MGET_KEYS, VALUE

HOST = "127.0.0.1"
READ_BYTES = 64 * 1024

_BULK = f"${len(VALUE)}\r\n{VALUE}\r\n".encode()

REPLIES: dict[bytes, bytes] = {
    b"PING": b"+PONG\r\n",
    b"GET": _BULK,
    b"SET": b"+OK\r\n",
    b"INCR": b":100\r\n",
    b"LPUSH": b":100000\r\n",
    b"RPUSH": b":100000\r\n",
    b"LPOP": _BULK,
    b"LRANGE": b"*%d\r\n" % LIST_RANGE + _BULK * LIST_RANGE,
    b"HSET": b":0\r\n",
    b"SADD": b":0\r\n",
    b"ZADD": b":0\r\n",
    b"MGET": b"*%d\r\n" % MGET_KEYS + _BULK * MGET_KEYS,
    b"DEL": b":1\r\n",
}
_UNKNOWN = b"%cERR unknown command\r\n" % ERROR


def read_request(data: bytes, start: int) -> tuple[int, int, bytes] | None:
    """The request that begins at ``start``: where its first argument begins, its end, its name; None if incomplete.

    Nothing is checked: it only ever hears from the load generators.
    """
    line = data.find(b"\r\n", start)
    if line < 0:
        return None
    place = line + 2
    head = place
    name = b""
    for index in range(int(data[start + 1 : line])):
        line = data.find(b"\r\n", place)
        if line < 0:
            return None
        size = int(data[place + 1 : line])
        place = line + 2 + size + 2
        if place > len(data):
            return None
        if not index:
            name = data[line + 2 : place - 2].upper()
            head = place
    return head, place, name


class Answers:
    """The answers to one connection: requests as bytes in, replies as bytes out."""

    __slots__ = ("_head", "_reply", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        # What the last request began with, all of it up to its first argument, its length, and its reply.
        self._head = b""
        self._size = 0
        self._reply = b""

    def feed(self, data: bytes) -> bytes:
        """The replies to all requests that are complete now."""
        if self._rest:
            data = self._rest + data
        size, head = self._size, self._head
        count = len(data) // size if size else 0
        if count:
            # The numbers in the requests of a workload have a fixed width: those of one kind are all of one length.
            end = count * size
            if end == len(data):
                if data.count(head) == count:
                    self._rest = b""
                    return self._reply * count
            elif data.count(head, 0, end) == count and data.startswith(head[: len(data) - end], end):
                return self._reply * count + self._one_by_one(data[end:])
        return self._one_by_one(data)

    def _one_by_one(self, data: bytes) -> bytes:
        replies = []
        place = 0
        while (found := read_request(data, place)) is not None:
            head, end, name = found
            self._head, self._size = data[place:head], end - place
            self._reply = REPLIES.get(name, _UNKNOWN)
            replies.append(self._reply)
            place = end
        self._rest = data[place:]
        return b"".join(replies)


class Connection:
    """A client: its socket, its answers, and what of them has not been sent."""

    __slots__ = ("answers", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answers = Answers()
        self.unsent = b""


class Control:
    """The server. ``port`` is 0 for any free one."""

    def __init__(self, port: int = 0) -> None:
        """Listen; raises OSError."""
        self._listener = socket.create_server((HOST, port), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._poller = select.epoll()
        self._poller.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}

    def run(self) -> None:
        """Serve until something is raised."""
        while True:
            self.turn()

    def turn(self, seconds: float | None = None) -> None:
        """Wait for ready sockets, for ``seconds`` at most; read them all, then answer them."""
        events = self._poller.poll(seconds)
        answered = []
        for descriptor, _ in events:
            connection = self._connections.get(descriptor)
            if connection is None:
                self._accept()
                continue
            if connection.unsent:
                answered.append((connection, b""))
                continue
            try:
                data = connection.sock.recv(READ_BYTES)
            except ConnectionError:
                data = b""
            if data:
                answered.append((connection, connection.answers.feed(data)))
            else:
                self._end(connection)
        for connection, replies in answered:
            self._send(connection, replies)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[sock.fileno()] = Connection(sock)
        self._poller.register(sock, select.EPOLLIN)

    def _send(self, connection: Connection, replies: bytes) -> None:
        data = connection.unsent + replies if connection.unsent else replies
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            self._end(connection)
            return
        if connection.unsent or sent != len(data):
            connection.unsent = data[sent:]
            # Nothing is read from a client before it has read its replies.
            self._poller.modify(connection.sock, select.EPOLLOUT if connection.unsent else select.EPOLLIN)

    def _end(self, connection: Connection) -> None:
        self._poller.unregister(connection.sock)
        del self._connections[connection.sock.fileno()]
        connection.sock.close()

    def close(self) -> None:
        """Close everything."""
        for connection in list(self._connections.values()):
            self._end(connection)
        self._poller.close()
        self._listener.close()


def version() -> str:
    """What the report calls it."""
    return f"bare epoll, Python {platform.python_version()}"


def main() -> None:
    """Listen on any free loopback port, print the ready line, and serve until the process is ended."""
    control = Control()
    print(f"control ready client={HOST}:{control.port}", flush=True)
    control.run()


if __name__ == "__main__":
    main()
