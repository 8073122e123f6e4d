"""Clients that remember what they were promised, and a server that is killed while they write.

::

    clients = Clients(seed)
    with start_node(directory, port) as server:
        server.wait_until_serving()
        with clients.writing(server, kill_after=5000):
            server.wait()
    with start_node(directory, port) as server:
        server.wait_until_serving()
        clients.check(server)

What they were promised goes on across any number of crashes: each check is about all that has happened before.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from support.durable_server import DurableServer
from support.promises import (
    COMMON_LIST,
    PAIRED_COUNT,
    PAIRED_LIST,
    BrokenPromise,
    Content,
    Draw,
    LargeDraw,
    Ledger,
    check_pairs,
)
from support.raw_client import CLOSED, SILENT, ProtocolViolation, RawClient, Reply

#: Rounds of each kind, and the first seed, where somebody asks for others than usual.
ROUNDS: Final = int(os.environ.get("KEVYNODE_CRASH_ROUNDS", "0"))
FIRST_SEED: Final = int(os.environ.get("KEVYNODE_CRASH_SEED", "1"))
POLICIES: Final = ("always", "everysec", "no")
#: Keys that make a rewrite, a snapshot or a load last long enough to be killed in.
MANY_KEYS: Final = 30_000

#: Steps that a client sends before it reads the answers, at most.
DEPTH: Final = 24
#: Requests that a check sends at a time.
AT_ONCE: Final = 500

#: Keys that only make the data large.
FILLER: Final = b"filler:%d"


def seeds(usual: int) -> range:
    """The seeds of a test that runs ``usual`` times if nobody asks for more."""
    return range(FIRST_SEED, FIRST_SEED + (ROUNDS or usual))


@contextmanager
def told(*what: object) -> Iterator[None]:
    """Tell what was going on if it fails."""
    try:
        yield
    except BaseException as error:
        error.add_note(" ".join(map(str, what)))
        raise


def check_soundness(server: DurableServer) -> None:
    """Assert that nothing went wrong that the node noticed."""
    log = server.log()
    assert "Traceback" not in log, log[-4000:]
    assert " error " not in log, log[-4000:]


def is_kept(server: DurableServer) -> bool:
    """Whether the append-only file holds all data."""
    facts = server.info(b"persistence")
    running = (facts.get("aof_rewrite_in_progress"), facts.get("aof_rewrite_scheduled"))
    return facts.get("aof_enabled") == "1" and running == ("0", "0")


class Clients:
    """Some clients with the ledgers of all they sent, and what makes them send it. The same seed: the same steps.

    ``large``: each of their steps is a transaction of some megabytes.
    """

    def __init__(self, seed: int, number: int = 4, *, large: bool = False) -> None:
        self.seed = seed
        self._ledgers = [Ledger(b"client%d" % each) for each in range(number)]
        self._draws = [(LargeDraw if large else Draw)(ledger.name, seed) for ledger in self._ledgers]
        self._depth = 2 if large else DEPTH
        self._depths = random.Random(f"depths {seed}")
        self._filler = 0
        # The largest count of pairs that anybody has read.
        self._highest = 0

    @property
    def acknowledged(self) -> int:
        """Steps that were answered so far."""
        return sum(ledger.acknowledged for ledger in self._ledgers)

    def fill(self, server: DurableServer, keys: int) -> None:
        """Write ``keys`` keys that nobody changes any more; once only."""
        with server.connect() as client:
            for start in range(0, keys, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, keys))
                words = [word for number in numbers for word in (FILLER % number, _filler_value(number))]
                answer = client.call(b"MSET", *words)
                assert answer == Reply("simple", b"OK"), answer
        self._filler = keys

    @contextmanager
    def writing(
        self,
        server: DurableServer,
        *,
        kill_after: int | None = None,
        victim: DurableServer | None = None,
        forgiven: tuple[bytes, ...] = (),
    ) -> Iterator[Writing]:
        """All clients write to ``server`` while the block lasts, or until the server is gone.

        ``kill_after``: the client that gets this many-th answer kills ``victim`` (else ``server``) at that moment.
        ``forgiven`` are errors that may come instead of an answer: nothing was promised then. Raises BrokenPromise for
        wrong answers when the block ends.
        """
        writing = Writing(server, victim or server, kill_after, forgiven)
        threads = [
            threading.Thread(target=writing.run, args=(ledger, draw, self._next_depths()))
            for ledger, draw in zip(self._ledgers, self._draws, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            yield writing
        finally:
            writing.stop()
            for thread in threads:
                thread.join()
        self._highest = max(self._highest, writing.highest)
        writing.raise_what_went_wrong()

    def _next_depths(self) -> Callable[[], int]:
        """How many steps a client sends at once."""
        return partial(random.Random(self._depths.random()).randint, 1, self._depth)

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def check(self, server: DurableServer) -> int:
        """Compare what there is with what was promised; how many steps nobody was told of. Raises BrokenPromise."""
        with server.connect() as client:
            pairs, log = (
                [element.value for element in client.call(b"LRANGE", key, b"0", b"-1").elements]
                for key in (PAIRED_LIST, COMMON_LIST)
            )
            count = client.call(b"GET", PAIRED_COUNT).value
            found = [_contents(client, ledger.name) for ledger in self._ledgers]
            keys = client.call(b"DBSIZE").value
            self._check_filler(client)
        check_pairs(pairs, count, self._highest)
        self._highest = len(pairs)
        done = 0
        for ledger, contents in zip(self._ledgers, found, strict=True):
            own = ledger.name + b"."
            shared = {
                PAIRED_LIST: [element for element in pairs if element.startswith(own)],
                COMMON_LIST: [element for element in log if element.startswith(own)],
            }
            done += ledger.settle(contents, shared)
        expected = self._filler + sum(map(len, found)) + bool(pairs) + bool(log) + (count is not None)
        if keys != expected:
            raise BrokenPromise(f"there are {keys} keys, not {expected}")
        return done

    def _check_filler(self, client: RawClient) -> None:
        numbers = random.Random(self.seed).sample(range(self._filler), min(self._filler, AT_ONCE))
        for number, reply in zip(numbers, client.pipeline((b"GET", FILLER % each) for each in numbers), strict=True):
            if reply.value != _filler_value(number):
                raise BrokenPromise(f"{FILLER % number!r} is {reply.render()}")


class Writing:
    """One time of writing: what its threads share."""

    def __init__(
        self, server: DurableServer, victim: DurableServer, kill_after: int | None, forgiven: tuple[bytes, ...]
    ) -> None:
        self._server = server
        self._victim = victim
        self._kill_after = kill_after
        self._forgiven = forgiven
        self._lock = threading.Lock()
        self._stopped = False
        self._errors: list[BaseException] = []
        self._killed = threading.Event()
        #: Answers that have come, and refusals.
        self.answers = 0
        self.refusals = 0
        #: The largest count of pairs that was read.
        self.highest = 0

    def stop(self) -> None:
        """Send nothing more; what was sent is still answered."""
        self._stopped = True

    def raise_what_went_wrong(self) -> None:
        """Raise the first error of a client, if there was one."""
        if self._errors:
            raise self._errors[0]

    def wait_for_answers(self, number: int) -> None:
        """Wait until so many more answers have come, or the server is gone."""
        target = self.answers + number
        self._server.wait_until(
            lambda: self.answers >= target or self._errors or not self._server.running(), f"{number} answers"
        )

    def run(self, ledger: Ledger, draw: Draw, depth: Callable[[], int]) -> None:
        """What the thread of a client does."""
        try:
            with self._server.connect() as client:
                while not self._stopped and self._write(client, ledger, draw, depth()):
                    pass
        except (OSError, ProtocolViolation) as error:
            # A reply is cut off where the server was killed; anything else is its fault.
            if self._server.running() and not self._expected_end():
                self._errors.append(error)
        except BaseException as error:
            self._errors.append(error)

    def _write(self, client: RawClient, ledger: Ledger, draw: Draw, depth: int) -> bool:
        """Send some steps and read their answers; whether the connection lasted."""
        steps = [draw.step() for _ in range(depth)]
        ledger.sent(steps)
        client.send_raw(b"".join(step.encode() for step in steps))
        for step in steps:
            replies = []
            for _ in range(step.replies):
                reply = client.read()
                if reply is SILENT:
                    raise BrokenPromise("a client waits for an answer in vain")
                if reply is CLOSED:
                    if not self._expected_end():
                        raise BrokenPromise("a connection was closed, though nobody had killed the server")
                    return False
                replies.append(reply)
            self._count(ledger.answered(replies), replies)
        return True

    def _expected_end(self) -> bool:
        """Whether the server may have gone: it is dead, or is just being killed, or this was to be expected."""
        return self._stopped or self._killed.is_set() or bool(self._forgiven) or not self._server.look_away(0.5)

    def _count(self, error: Reply | None, replies: list[Reply]) -> None:
        if error is not None:
            if not error.value.startswith(self._forgiven or (b"\0",)):
                raise BrokenPromise(f"a client was answered with {error.value!r}")
            self.refusals += 1
            return
        last = replies[-1]
        with self._lock:
            self.answers += 1
            if last.kind == "array" and len(last.value) == 2 and last.value[1].kind == "integer":
                self.highest = max(self.highest, last.value[1].value)
            if self.answers == self._kill_after:
                self._killed.set()
                self._victim.send_kill()


def _filler_value(number: int) -> bytes:
    return b"%d." % number * 4


def _contents(client: RawClient, name: bytes) -> dict[bytes, Content]:
    """Everything under the keys of one client."""
    keys = [reply.value for reply in client.call(b"KEYS", name + b":*").elements]
    types = client.pipeline((b"TYPE", key) for key in keys)
    deadlines = client.pipeline((b"PEXPIRETIME", key) for key in keys)
    readers = [_READ[kind.value] for kind in types]
    values = client.pipeline((*before, key, *behind) for key, (before, behind) in zip(keys, readers, strict=True))
    return {
        key: (_VALUE[kind.value](value), deadline.value)
        for key, kind, value, deadline in zip(keys, types, values, deadlines, strict=True)
    }


def _elements(reply: Reply) -> list[bytes]:
    return [element.value for element in reply.elements]


def _pairs(reply: Reply) -> dict[bytes, bytes]:
    elements = _elements(reply)
    return dict(zip(elements[::2], elements[1::2], strict=True))


#: By type: how a key is read, in words before and behind it.
_READ: Final[dict[bytes, tuple[tuple[bytes, ...], tuple[bytes, ...]]]] = {
    b"string": ((b"GET",), ()),
    b"list": ((b"LRANGE",), (b"0", b"-1")),
    b"hash": ((b"HGETALL",), ()),
    b"set": ((b"SMEMBERS",), ()),
    b"zset": ((b"ZRANGE",), (b"0", b"-1", b"WITHSCORES")),
}
#: By type: the reply as a model has it.
_VALUE: Final[dict[bytes, Callable[[Reply], Any]]] = {
    b"string": lambda reply: reply.value,
    b"list": _elements,
    b"hash": _pairs,
    b"set": lambda reply: set(_elements(reply)),
    b"zset": lambda reply: {member: int(score) for member, score in _pairs(reply).items()},
}
