"""What ``sh deploy/local-cluster.sh --demo`` shows of running nodes: one writes, the others read and redirect."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kevynode.probe import ErrorReply, Probe, connect

__all__ = ["show"]

#: Seconds that a copy may take to have what was written.
COPY_SECONDS: Final = 10.0
KEYS: Final = 1000


class Demo:
    """Talks with the nodes like redis-cli, and prints it like that. Blocks."""

    def __init__(self, probes: Mapping[str, Probe], say: Callable[[str], None]) -> None:
        self._probes = probes
        self._say = say
        self.is_good = True

    def call(self, node_id: str, *words: str) -> Any:
        """Send a command without showing it; an error is an ErrorReply."""
        try:
            return self._probes[node_id].call(*(word.encode() for word in words))
        except ErrorReply as error:
            return error

    def expect(self, expected: object, node_id: str, *words: str) -> None:
        """Send a command, show it with the reply, and remember if that is not the ``expected`` one."""
        self._show(node_id, words, self.call(node_id, *words), expected)

    def expect_soon(self, expected: object, node_id: str, *words: str) -> None:
        """The same, of a copy that is a moment behind."""
        deadline = time.monotonic() + COPY_SECONDS
        while (reply := self.call(node_id, *words)) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        self._show(node_id, words, reply, expected)

    def tell(self, text: str) -> None:
        """Say what comes next."""
        self._say(f"\n# {text}")

    def remark(self, text: str) -> None:
        """Say something about what was shown."""
        self._say(f"# {text}")

    def _show(self, node_id: str, words: Sequence[str], reply: object, expected: object) -> None:
        shown = str(reply) if isinstance(reply, ErrorReply) else reply
        self._say(f"{node_id}> {shlex.join(words)}\n{_printed(reply)}")
        if shown != expected:
            self.is_good = False
            self._say(f"# That should have been {expected!r}.")


def _printed(reply: object) -> str:
    """A reply as redis-cli prints it."""
    match reply:
        case ErrorReply():
            return f"(error) {reply}"
        case None:
            return "(nil)"
        case int():
            return f"(integer) {reply}"
        case bytes():
            return '"' + reply.decode("utf-8", "backslashreplace") + '"'
        case _:
            return str(reply)


def show(ports: Mapping[str, int], scopes: Sequence[tuple[str, str]], say: Callable[[str], None]) -> bool:
    """Give the demonstration; whether everything was as it should be.

    ``ports`` are the client ports by node id, two at least, ``scopes`` the prefix of each node and the node's id.
    """
    addresses = {node_id: f"127.0.0.1:{port}" for node_id, port in ports.items()}
    probes = {node_id: connect(address) for node_id, address in addresses.items()}
    try:
        demo = Demo(probes, say)
        _show_scopes(demo, addresses, scopes)
    finally:
        for probe in probes.values():
            probe.close()
    say("\n# All of it was as it should be." if demo.is_good else "\n# Not all of it was as it should be.")
    return demo.is_good


def _show_scopes(demo: Demo, addresses: Mapping[str, str], scopes: Sequence[tuple[str, str]]) -> None:
    (prefix, writer), (other_prefix, other), *_ = scopes
    readers = [node_id for node_id in addresses if node_id != writer]
    key = f"{prefix}ada"

    # Of an earlier demonstration with the same data.
    demo.call(writer, "DEL", key, f"{prefix}list")

    demo.tell(f"{writer} writes what is under {prefix}")
    demo.expect("OK", writer, "SET", key, "Ada Lovelace")
    demo.expect(2, writer, "RPUSH", f"{prefix}list", "one", "two")

    demo.tell("The others have live copies, and answer reads from memory.")
    for reader in readers:
        demo.expect_soon(b"Ada Lovelace", reader, "GET", key)
        demo.expect_soon(2, reader, "LLEN", f"{prefix}list")

    demo.tell("A write at one of them is sent on to the writer, and changes nothing.")
    for reader in readers:
        demo.expect(f"MISDIRECTED writer is {addresses[writer]}", reader, "SET", key, "somebody else")
    demo.expect(b"Ada Lovelace", writer, "GET", key)

    demo.tell("Two scopes in one command may have two writers at any time: nobody takes that.")
    demo.expect(
        f"CROSSSCOPE keys of the scopes {prefix} and {other_prefix} in one command or transaction",
        writer,
        *("MSET", key, "x", f"{other_prefix}1", "y"),
    )

    demo.tell("What is under no scope is taken anywhere, and stays there.")
    demo.expect("OK", other, "SET", "demo:greeting", "hello")
    demo.expect(None, writer, "GET", "demo:greeting")

    demo.tell(f"{KEYS} keys at each writer, and all nodes have all of them.")
    for scope_prefix, node_id in scopes:
        words = [word for number in range(KEYS) for word in (f"{scope_prefix}key:{number}", str(number))]
        if demo.call(node_id, "MSET", *words) != "OK":
            demo.is_good = False
    names = [f"{scope_prefix}key:{number}" for scope_prefix, _ in scopes for number in range(KEYS)]
    for node_id in addresses:
        deadline = time.monotonic() + COPY_SECONDS
        while (found := demo.call(node_id, "EXISTS", *names)) != len(names) and time.monotonic() < deadline:
            time.sleep(0.01)
        demo.remark(f"{node_id} has {found} of {len(names)}.")
        demo.is_good = demo.is_good and found == len(names)
