"""What ``sh deploy/local-cluster.sh --demo`` shows of running nodes: one writes, the others read and redirect."""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import trio

from kevynode import ReplyError, ScopedClient
from kevynode.client import ClientError
from kevynode.probe import ErrorReply, Probe, ProbeError, connect

__all__ = ["show"]

#: Seconds that a copy may take to have what was written.
COPY_SECONDS: Final = 30.0
KEYS: Final = 1000
#: Seconds that a move may take, and one write while a scope moves.
MOVE_SECONDS: Final = 30.0
#: Writes that there are at least before a move, and after it.
WRITES: Final = 200


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

    def expect_like(self, pattern: str, node_id: str, *words: str) -> None:
        """The same, of a reply of which only the form is known."""
        reply = self.call(node_id, *words)
        is_like = isinstance(reply, str) and re.fullmatch(pattern, reply) is not None
        self._show(node_id, words, reply, reply if is_like else pattern)

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

    ``ports`` are the client ports by node id, two at least, ``scopes`` the prefixes and the id of the
    node that writes each of them.
    """
    addresses = {node_id: f"127.0.0.1:{port}" for node_id, port in ports.items()}
    with ExitStack() as ends:
        try:
            probes = {node_id: ends.enter_context(connect(address)) for node_id, address in addresses.items()}
            demo = Demo(probes, say)
            _show_scopes(demo, addresses, scopes)
        except ProbeError as error:
            say(f"\n# That is the end of it: {error}.")
            return False
    say("\n# All of it was as it should be." if demo.is_good else "\n# Not all of it was as it should be.")
    return demo.is_good


def _show_scopes(demo: Demo, addresses: Mapping[str, str], scopes: Sequence[tuple[str, str]]) -> None:
    (prefix, writer), (other_prefix, _), *_ = scopes
    readers = [node_id for node_id in addresses if node_id != writer]
    other = readers[0]
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

    demo.tell("A write at one of them changes nothing, and is answered with the writer's address.")
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

    _show_copies(demo, addresses, scopes)
    _show_move(demo, addresses, (prefix, writer), other)


def _show_copies(demo: Demo, addresses: Mapping[str, str], scopes: Sequence[tuple[str, str]]) -> None:
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


class FollowingWriter:
    """Appends numbers to one list, as a client that follows scopes, in a thread of its own."""

    def __init__(self, key: str, addresses: Sequence[str]) -> None:
        self.key = key
        #: How many numbers were acknowledged; each of them from 0 on.
        self.acknowledged = 0
        self.problem = ""
        self._addresses = addresses
        self._ends = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def wait_for(self, writes: int) -> None:
        """Wait until so many more writes were acknowledged, or it has failed."""
        goal = self.acknowledged + writes
        while self.acknowledged < goal and self._thread.is_alive():
            time.sleep(0.001)

    def stop(self) -> None:
        """End after the write that is under way."""
        self._ends.set()
        self._thread.join()

    async def _run(self) -> None:
        async with ScopedClient(self._addresses, timeout=MOVE_SECONDS) as client:
            try:
                while not self._ends.is_set():
                    await client.call("RPUSH", self.key, self.acknowledged)
                    self.acknowledged += 1
            except (ClientError, ReplyError) as error:
                self.problem = str(error)


def _show_move(demo: Demo, addresses: Mapping[str, str], scope: tuple[str, str], target: str) -> None:
    prefix, source = scope
    key = f"{prefix}log"
    demo.call(source, "DEL", key)
    demo.tell(f"{prefix} moves to {target} and back, while a client appends to {key} as fast as it can.")
    writer = FollowingWriter(key, list(addresses.values()))
    writer.start()
    for giver, taker in ((source, target), (target, source)):
        writer.wait_for(WRITES)
        started = time.monotonic()
        demo.expect_like(r"OK \d+", giver, "MOVE-SCOPE", prefix, "FROM", giver, "TO", taker)
        demo.remark(f"That took {time.monotonic() - started:.3f} seconds.")
        demo.expect(f"MISDIRECTED writer is {addresses[taker]}", giver, "SET", f"{prefix}ada", "somebody else")
        writer.wait_for(WRITES)
    writer.stop()
    demo.remark(f"{writer.acknowledged} writes of the client were acknowledged.")
    expected = [b"%d" % number for number in range(writer.acknowledged)]
    for node_id in addresses:
        deadline = time.monotonic() + COPY_SECONDS
        while (found := demo.call(node_id, "LRANGE", key, "0", "-1")) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        demo.remark(f"{node_id} has {'each of them once, in order' if found == expected else 'something else'}.")
        demo.is_good = demo.is_good and found == expected
    if writer.problem:
        demo.is_good = False
        demo.remark(f"The client failed: {writer.problem}")
