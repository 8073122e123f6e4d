"""Runs sequences on valkey and on the subject, step by step, and compares every reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from compat import accepted
from compat.compare import NAMED, Comparison, comparison_for
from compat.sequences import BLOCK, CALL, LEAVE, READ, SEND, Sequence_, Step, clients_of, needs_id, substitute
from support.raw_client import CLOSED, SILENT, RawClient, Reply

#: Seconds within which a server must show that a client is blocked, or gone.
SETTLE_TIMEOUT: Final = 5.0

#: Sent last on every client: its echo says that nothing else is on the way.
_END: Final = b"__end_of_sequence__"

#: How many differing steps of one sequence are shown.
_SHOWN: Final = 4


class Server(Protocol):
    """What a server under comparison offers; ValkeyServer and NodeProcess do."""

    host: str
    port: int

    def running(self) -> bool: ...
    def diagnosis(self) -> str: ...
    def stop(self) -> object: ...


class Difference(AssertionError):
    """The two servers answered differently; the message shows the sequence and both replies."""


class Side:
    """One server and the connection that the tests keep to it for looking around and cleaning up."""

    def __init__(self, name: str, start: Callable[[], Server]) -> None:
        self.name = name
        self._start = start
        self.server = start()
        self.control = self._connect_control()
        self._saved_config: dict[bytes, bytes] = {}

    def connect(self, protocol: int = 2) -> RawClient:
        """A new client."""
        return RawClient(self.server.host, self.server.port, protocol)

    def _connect_control(self) -> RawClient:
        """The control connection. Expiry is left to access: when a background cycle strikes is a matter of chance."""
        client = self.connect()
        client.call(b"DEBUG", b"SET-ACTIVE-EXPIRE", b"0")
        return client

    def ensure_running(self) -> None:
        """Start the server again if it is gone, so that one crash fails one test."""
        if not self.server.running():
            self.server.stop()
            self.server = self._start()
            self.control.close()
            self.control = self._connect_control()

    def stop(self) -> None:
        """Close the control connection and stop the server."""
        self.control.close()
        self.server.stop()

    def client_flags(self, address: str) -> str | None:
        """The flags CLIENT LIST shows for the client at this address; None when the server does not know it."""
        listing = self.control.call(b"CLIENT", b"LIST")
        assert listing.kind in ("bulk", "verbatim"), f"{self.name}: CLIENT LIST answered {listing.render()}"
        for line in str(listing.value, "latin-1").splitlines():
            fields = dict(field.partition("=")[::2] for field in line.split(" "))
            if fields.get("addr") == address:
                return fields.get("flags", "")
        return None

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until the condition holds. Raises AssertionError after SETTLE_TIMEOUT."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f"{self.name}: {what} did not happen within {SETTLE_TIMEOUT} s"

    def remember_config(self, names: tuple[bytes, ...]) -> None:
        """Note the present values of these parameters for ``clean``."""
        for name in names:
            answer = self.control.call(b"CONFIG", b"GET", name)
            for key, value in zip(answer.elements[::2], answer.elements[1::2], strict=False):
                self._saved_config.setdefault(key.value, value.value)

    def clean(self, settle: bool = True) -> None:
        """Empty the keyspace and put back the configuration; with ``settle`` wait until only we are connected."""
        self.ensure_running()
        if self.control.call(b"PING") != Reply("simple", b"PONG"):
            self.control.close()
            self.control = self._connect_control()
        self.control.call(b"CLIENT", b"UNPAUSE")
        self.control.call(b"REPLICAOF", b"NO", b"ONE")
        for name, value in self._saved_config.items():
            self.control.call(b"CONFIG", b"SET", name, value)
        self._saved_config.clear()
        self.control.call(b"FLUSHALL")
        if settle:
            self.wait_until(lambda: self._clients() <= 1, "closing of the tests' clients")

    def _clients(self) -> int:
        listing = self.control.call(b"CLIENT", b"LIST")
        return len(bytes(listing.value or b"").splitlines())


class Pair:
    """Valkey and the subject."""

    def __init__(self, valkey: Side, subject: Side) -> None:
        self.valkey = valkey
        self.subject = subject

    @property
    def sides(self) -> tuple[Side, Side]:
        """Valkey first."""
        return self.valkey, self.subject

    def clean(self, settle: bool = True) -> None:
        """Empty both servers."""
        for side in self.sides:
            side.clean(settle)

    def stop(self) -> None:
        """Stop both servers."""
        for side in self.sides:
            side.stop()


class _Performer:
    """The clients of one sequence on one server."""

    def __init__(self, side: Side, sequence: Sequence_, protocol: int, events: bool, clock: dict[str, Any]) -> None:
        self._side = side
        self._clients = {number: side.connect(protocol) for number in clients_of(sequence.steps)}
        self._blocked: set[int] = set()
        self._left: set[int] = set()
        self._variables = dict(clock)
        for number, client in self._clients.items():
            self._variables[f"addr:{number}"] = client.address.encode()
            self._variables[f"laddr:{number}"] = client.server_address.encode()
            if needs_id(sequence.steps, number):
                self._variables[f"id:{number}"] = b"%d" % client.call(b"CLIENT", b"ID").value
        self._listener: RawClient | None = None
        if events:
            side.remember_config((b"notify-keyspace-events",))
            side.control.call(b"CONFIG", b"SET", b"notify-keyspace-events", b"KEA")
            self._listener = side.connect()
            self._listener.call(b"PSUBSCRIBE", b"__key*__:*")

    def perform(self, step: Step) -> Reply:
        """Do one step and return what it gave: a reply, several, or the outcome of a step that reads nothing."""
        client = self._clients[step.client]
        argv = tuple(substitute(word, self._variables) for word in step.argv)
        if step.action == CALL:
            self._remember_config(argv)
            return client.call(*argv)
        if step.action == SEND:
            client.send(*argv)
            return Reply("several", ())
        if step.action == READ:
            self._blocked.discard(step.client)
            if step.replies == 1:
                return client.read()
            return Reply("several", tuple(client.read() for _ in range(step.replies)))
        if step.action == BLOCK:
            client.send(*argv)
            self._blocked.add(step.client)
            self._side.wait_until(lambda: self._settled(client), "blocking of a client")
            return Reply("simple", b"(replied)" if client.readable() else b"(blocked)")
        assert step.action == LEAVE
        address = client.address
        client.close()
        self._left.add(step.client)
        self._side.wait_until(lambda: self._side.client_flags(address) is None, "end of a client")
        return Reply("simple", b"(left)")

    def _settled(self, client: RawClient) -> bool:
        return client.readable() or "b" in (self._side.client_flags(client.address) or "")

    def _remember_config(self, argv: tuple[bytes, ...]) -> None:
        if len(argv) > 3 and argv[0].lower() == b"config" and argv[1].lower() == b"set":
            self._side.remember_config(argv[2::2])

    def events(self) -> tuple[Reply, ...]:
        """The keyspace notifications since the last call, as (channel, payload) replies."""
        if self._listener is None:
            return ()
        self._listener.send(b"PING", _END)
        collected: list[Reply] = []
        while True:
            message = self._listener.read()
            if message.kind != "array" or message.value[0].value == b"pong":
                return tuple(collected)
            collected.append(Reply("several", message.value[2:]))

    def leftovers(self) -> Reply:
        """What the clients receive beyond the replies that the steps read."""
        found = []
        for number, client in self._clients.items():
            if number in self._blocked or number in self._left:
                continue
            client.send(b"PING", _END)
            while True:
                reply = client.read()
                if _ends(reply):
                    break
                found.append(Reply("several", (Reply("integer", number), reply)))
        return Reply("several", tuple(found))

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        if self._listener is not None:
            self._listener.close()


def _ends(reply: Reply) -> bool:
    """Whether this is the answer to the last PING of a client, in whatever state the client is."""
    echoed = Reply("bulk", _END)
    return (
        reply in (CLOSED, SILENT, echoed, Reply("simple", b"QUEUED"))
        or reply.kind == "error"
        or echoed in reply.elements
    )


class Transactions:
    """Which commands each client has queued, so that EXEC's replies are compared as the commands' own are."""

    def __init__(self, choose: Callable[[Sequence[bytes]], Comparison] = comparison_for) -> None:
        """``choose`` names the comparison for a command."""
        self._choose = choose
        self._queues: dict[int, list[Comparison]] = {}

    def comparison(self, step: Step, reply: Reply) -> Comparison:
        """The comparison for the reply to this step."""
        if step.how:
            chosen = NAMED[step.how]
        else:
            chosen = self._choose(step.argv)
        name = step.argv[0].lower() if step.argv else b""
        if step.action != CALL:
            return chosen
        if name == b"exec":
            queued = self._queues.pop(step.client, None)
            return _each(queued) if queued is not None and not step.how else chosen
        if name == b"multi" and reply == Reply("simple", b"OK"):
            self._queues[step.client] = []
        elif name in (b"discard", b"reset"):
            self._queues.pop(step.client, None)
        elif step.client in self._queues and reply == Reply("simple", b"QUEUED"):
            self._queues[step.client].append(chosen)
            return NAMED["exact"]
        return chosen


def _each(comparisons: list[Comparison]) -> Comparison:
    def compare(expected: Reply, actual: Reply) -> bool:
        if expected.kind != "array" or actual.kind != "array" or len(expected.value) != len(comparisons):
            return expected == actual
        if len(actual.value) != len(comparisons):
            return False
        return all(one(e, a) for one, e, a in zip(comparisons, expected.value, actual.value, strict=True))

    return compare


def run(pair: Pair, sequence: Sequence_, protocol: int, events: bool = False) -> None:
    """Run a sequence on both servers and compare. Raises Difference with every step that differs.

    With ``events`` the keyspace notifications that each step causes are compared too, channel, payload and order.
    """
    __tracebackhide__ = True
    pair.subject.ensure_running()
    moment = time.time()
    clock = {"now": int(moment), "nowms": int(moment * 1000)}
    performers = [_Performer(side, sequence, protocol, events, clock) for side in pair.sides]
    differences: list[str] = []
    try:
        _run_steps(performers, sequence, differences)
    finally:
        if not pair.subject.server.running():
            differences.append(f"{pair.subject.name} has stopped:\n{pair.subject.server.diagnosis()}")
        for performer in performers:
            performer.close()
        blocks = any(step.action in (BLOCK, LEAVE, SEND) for step in sequence.steps)
        pair.clean(settle=blocks)
    if differences:
        name = pair.subject.name
        mode = f"RESP{protocol}" + (" with keyspace notifications" if events else "")
        lines = [f"  {index + 1:3}  {step.shown()}" for index, step in enumerate(sequence.steps)]
        shown = "\n".join(differences[:_SHOWN])
        more = len(differences) - _SHOWN
        rest = f"\n… and {more} more" if more > 0 else ""
        raise Difference(
            f"{name} differs from valkey in {sequence.name!r}, {mode}:\n" + "\n".join(lines) + f"\n{shown}{rest}"
        )


def _run_steps(performers: list[_Performer], sequence: Sequence_, differences: list[str]) -> None:
    transactions = Transactions()
    for index, step in enumerate(sequence.steps):
        expected, actual = (performer.perform(step) for performer in performers)
        assert expected != SILENT, f"valkey does not answer step {index + 1} of {sequence.name!r}: {step.shown()}"
        comparison = transactions.comparison(step, expected)
        if not comparison(expected, actual) and accepted.find(step.argv, expected, actual) is None:
            differences.append(_describe(f"step {index + 1}: {step.shown()}", expected, actual))
        expected_events, actual_events = (performer.events() for performer in performers)
        if expected_events != actual_events:
            differences.append(
                _describe(
                    f"notifications of step {index + 1}: {step.shown()}",
                    Reply("several", expected_events),
                    Reply("several", actual_events),
                )
            )
        if actual in (SILENT, CLOSED) and expected != actual:
            return
    expected, actual = (performer.leftovers() for performer in performers)
    if expected != actual:
        differences.append(_describe("what is left to read at the end", expected, actual))


def _describe(where: str, expected: Reply, actual: Reply) -> str:
    return f"{where}\n  valkey:   {expected.render('    ')}\n  subject:  {actual.render('    ')}"
