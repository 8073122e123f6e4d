"""Nodes on real ports that answer the command line what a test tells them to.

Each connection has a thread of its own, so an answer may wait: nobody else is held up by it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from kevynode.resp import RequestParser

#: What a node answers a command; None: it hangs up.
Script = Callable[[list[bytes]], "bytes | None"]

PATIENCE = 10.0
OK = b"+OK 3\r\n"


def bulk(word: str) -> bytes:
    data = word.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(*elements: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(elements), b"".join(elements))


def row(**fields: object) -> bytes:
    """A row of MOVE-SCOPE STATUS, as protocol 2 has it."""
    found = {"prefix": "x:", "move-id": "m1", "role": "source", "state": "quiesced", "peer": "b", "epoch": 1} | {
        name.replace("_", "-"): value for name, value in fields.items()
    }
    pairs = (
        (bulk(name), b":%d\r\n" % value if isinstance(value, int) else bulk(str(value)))
        for name, value in found.items()
    )
    return array(*(word for pair in pairs for word in pair))


class ToldNode:
    """A node on a real port of its own. ``asked`` are the commands that came, but for INFO."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.asked: list[list[bytes]] = []
        self.owner: str | None = node_id
        self.prefix = "x:"
        self.others: dict[str, str] = {}
        self.script: Script = lambda words: OK
        # How often the state of moves was asked for, and what is told of them then.
        self.looks = 0
        self.rows: Callable[[int], bytes] = lambda looks: array()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []

    def __enter__(self) -> ToldNode:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        parser = RequestParser()
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                for words in parser.feed(data):
                    answer = self._answer(words)
                    if answer is None:
                        return
                    connection.sendall(answer)

    def _answer(self, words: list[bytes]) -> bytes | None:
        if words[0] == b"INFO":
            return bulk(self.info())
        self.asked.append(words)
        if words[:2] == [b"MOVE-SCOPE", b"STATUS"]:
            self.looks += 1
            return self.rows(self.looks)
        return self.script(words)

    def info(self) -> str:
        """What it tells of itself."""
        lines = ["# Server", f"node_id:{self.node_id}", "# Scopes"]
        if self.owner is not None:
            lines.append(f"scope0:prefix={self.prefix},owner={self.owner},epoch=0,state=open,writer={self.owner}")
        for number, (name, address) in enumerate(self.others.items()):
            lines.append(f"peer{number}:id={name},kind=kevynode,address=h:1,client={address},link=up")
        return "\r\n".join(lines) + "\r\n"

    @property
    def moves(self) -> list[list[bytes]]:
        """The commands that came, but for looks at what there is."""
        return [words for words in self.asked if words[1] != b"STATUS"]


@contextmanager
def nodes(*names: str) -> Iterator[list[ToldNode]]:
    """Nodes that know of each other; the first one writes the prefix."""
    with ExitStack() as ends:
        found = [ends.enter_context(ToldNode(name)) for name in names]
        for node in found:
            node.owner = names[0]
            node.others = {other.node_id: other.address for other in found if other is not node}
        yield found
