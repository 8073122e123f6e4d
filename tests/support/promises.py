"""What a server has promised to clients whom it answered, and whether it kept it after a crash.

A client sends :class:`Step` objects over one connection, from a :class:`Draw`: commands and transactions, most of them
on keys that nobody else writes, some on lists that all share. The server runs them in their order, so what it holds
afterwards must be the outcome of the first so many of them: at least of those that were answered, at most of those that
were sent, and never of half a transaction. A :class:`Ledger` keeps what one client sent and was told, across crashes,
and says what may be there. Nothing here does any I/O.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
from support.raw_client import Reply, encode

#: A list to which every client appends, and how long it is: written together, in one transaction.
PAIRED_LIST: Final = b"all:pairs"
PAIRED_COUNT: Final = b"all:count"
#: A list to which every client appends by plain commands.
COMMON_LIST: Final = b"all:log"
SHARED: Final = frozenset({PAIRED_LIST, PAIRED_COUNT, COMMON_LIST})

#: Milliseconds (unix): nothing that the clients write expires before that.
FAR: Final = 4_000_000_000_000
#: Keys of each type that a client writes.
_KEYS_OF_A_TYPE: Final = 6
#: Elements that a client's own list has at most.
_LIST_LIMIT: Final = 60

Words = tuple[bytes, ...]
#: What a key holds, as Python has it, and its deadline (-1: none).
Content = tuple[Any, int]


class BrokenPromise(AssertionError):
    """A server answered something wrong, or does not hold what it said it would."""


@attrs.frozen
class Step:
    """One command, or a transaction of several: it happens as a whole or not at all."""

    commands: tuple[Words, ...]
    grouped: bool = False

    def encode(self) -> bytes:
        """The requests."""
        requests = [encode(words) for words in self.commands]
        return b"".join([encode((b"MULTI",)), *requests, encode((b"EXEC",))] if self.grouped else requests)

    @property
    def replies(self) -> int:
        """How many replies come for it."""
        return len(self.commands) + 2 if self.grouped else 1

    def outcome(self, replies: list[Reply]) -> list[Reply] | None:
        """What its commands came to, by the ``replies`` for it; None if the server refused it."""
        last = replies[-1]
        if last.kind == "error":
            return None
        return list(last.elements) if self.grouped else [last]


# -- what there should be ---------------------------------------------------------------------------------------------


class Model:
    """The keys of one client, and what it appended to the lists that all share."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Any] = {}
        self.deadlines: dict[bytes, int] = {}
        self.shared: dict[bytes, list[bytes]] = {PAIRED_LIST: [], COMMON_LIST: []}

    def contents(self) -> dict[bytes, Content]:
        """Every key with what it holds."""
        return {key: (value, self.deadlines.get(key, -1)) for key, value in self.keys.items()}

    def apply(self, words: Words) -> Any:
        """Run one command and return what it answers: a number, bytes, None; ``...`` where others have a say in it."""
        return getattr(self, f"_{words[0].decode().lower()}")(*words[1:])

    def _get(self, key: bytes) -> Any:
        return self.keys.get(key)

    def _set(self, key: bytes, value: bytes, *options: bytes) -> Any:
        self.keys[key] = value
        self.deadlines.pop(key, None)
        if options:
            self.deadlines[key] = int(options[1])
        return b"OK"

    def _del(self, *keys: bytes) -> int:
        return sum(self._remove(key) for key in keys)

    def _remove(self, key: bytes) -> bool:
        self.deadlines.pop(key, None)
        return self.keys.pop(key, None) is not None

    def _incr(self, key: bytes) -> Any:
        if key in SHARED:
            return ...
        self.keys[key] = b"%d" % (int(self.keys.get(key, b"0")) + 1)
        return int(self.keys[key])

    def _append(self, key: bytes, more: bytes) -> int:
        self.keys[key] = self.keys.get(key, b"") + more
        return len(self.keys[key])

    def _rpush(self, key: bytes, *elements: bytes) -> Any:
        if key in SHARED:
            self.shared[key] += elements
            return ...
        found = self.keys.setdefault(key, [])
        found += elements
        return len(found)

    def _lpop(self, key: bytes) -> Any:
        found = self.keys.get(key)
        if not found:
            return None
        element = found.pop(0)
        if not found:
            self._remove(key)
        return element

    def _hset(self, key: bytes, field: bytes, value: bytes) -> int:
        found = self.keys.setdefault(key, {})
        new = field not in found
        found[field] = value
        return int(new)

    def _sadd(self, key: bytes, *members: bytes) -> int:
        found = self.keys.setdefault(key, set())
        before = len(found)
        found.update(members)
        return len(found) - before

    def _srem(self, key: bytes, member: bytes) -> int:
        found = self.keys.get(key, set())
        there = member in found
        found.discard(member)
        if there and not found:
            self._remove(key)
        return int(there)

    def _zincrby(self, key: bytes, increment: bytes, member: bytes) -> bytes:
        found = self.keys.setdefault(key, {})
        found[member] = found.get(member, 0) + int(increment)
        return b"%d" % found[member]

    def _pexpireat(self, key: bytes, deadline: bytes) -> int:
        if key not in self.keys:
            return 0
        self.deadlines[key] = int(deadline)
        return 1

    def _persist(self, key: bytes) -> int:
        return int(self.deadlines.pop(key, None) is not None)


# -- what a client asks for -------------------------------------------------------------------------------------------


class Draw:
    """The steps of one client, in their order. Each value is written once only; the same seed gives the same steps."""

    def __init__(self, name: bytes, seed: int) -> None:
        self.name = name
        self._random = random.Random(f"{seed} {name!r}")
        self._number = 0
        self._lengths: dict[bytes, int] = {}

    def _key(self, kind: str) -> bytes:
        return b"%b:%b:%d" % (self.name, kind.encode(), self._random.randrange(_KEYS_OF_A_TYPE))

    def _token(self) -> bytes:
        """What nobody has written before; now and then it is long."""
        self._number += 1
        token = b"%b.%d" % (self.name, self._number)
        return token + b"." * self._random.choice((0, 0, 0, 10, 100, 5000)) if self._random.random() < 0.2 else token

    def step(self) -> Step:
        """The next one."""
        draw = self._random.random()
        if draw < 0.12:
            return self._pair()
        if draw < 0.24:
            return self._group()
        if draw < 0.30:
            return Step(((b"RPUSH", COMMON_LIST, self._entry()),))
        return Step((self._command(),))

    def _entry(self) -> bytes:
        self._number += 1
        return b"%b.%d" % (self.name, self._number)

    def _pair(self) -> Step:
        return Step(((b"RPUSH", PAIRED_LIST, self._entry()), (b"INCR", PAIRED_COUNT)), grouped=True)

    def _group(self) -> Step:
        """One token under several keys, and some more: all of it or nothing."""
        token = self._token()
        keys = [b"%b:same:%d" % (self.name, number) for number in range(self._random.randrange(2, 5))]
        return Step((*((b"SET", key, token) for key in keys), self._command(), self._command()), grouped=True)

    def _command(self) -> Words:
        draw = self._random
        choice = draw.randrange(15)
        if choice < 4:
            return (b"SET", self._key("string"), self._token())
        if choice == 4:
            return (b"SET", self._key("string"), self._token(), b"PXAT", b"%d" % (FAR + draw.randrange(10**9)))
        if choice == 5:
            return (b"INCR", self._key("count"))
        if choice == 6:
            # A value that grows for ever would soon be most of what is written.
            return (b"APPEND", self._key("append"), b"+") if draw.random() < 0.9 else (b"DEL", self._key("append"))
        if choice in (7, 8):
            return self._on_a_list()
        if choice == 9:
            return (b"HSET", self._key("hash"), b"%d" % draw.randrange(20), self._token())
        if choice == 10:
            verb = b"SADD" if draw.random() < 0.6 else b"SREM"
            return (verb, self._key("set"), b"%d" % draw.randrange(20))
        if choice == 11:
            return (b"ZINCRBY", self._key("zset"), b"%d" % draw.randrange(1, 9), b"%d" % draw.randrange(20))
        if choice == 12:
            return (b"DEL", self._key(draw.choice(("string", "count", "hash", "zset"))), self._key("string"))
        if choice == 13:
            key = self._key(draw.choice(("string", "count", "hash", "set", "list")))
            return (b"PERSIST", key) if draw.random() < 0.3 else (b"PEXPIREAT", key, b"%d" % (FAR + draw.randrange(9)))
        return (b"GET", self._key("string"))

    def _on_a_list(self) -> Words:
        key = self._key("list")
        # About as long as that; a key that expires or is renamed makes no difference to what is asked for.
        length = self._lengths.get(key, 0)
        if length >= _LIST_LIMIT or (length and self._random.random() < 0.3):
            self._lengths[key] = length - 1
            return (b"LPOP", key)
        elements = tuple(self._entry() for _ in range(self._random.randrange(1, 4)))
        self._lengths[key] = length + len(elements)
        return (b"RPUSH", key, *elements)


class LargeDraw(Draw):
    """Transactions only, each of some megabytes, with one token under all keys."""

    def step(self) -> Step:
        """The next one."""
        value = self._entry() + b"." * 100_000
        return Step(tuple((b"SET", b"%b:large:%d" % (self.name, number), value) for number in range(30)), grouped=True)


# -- what was sent and answered ---------------------------------------------------------------------------------------


def plain(reply: Reply) -> Any:
    """A reply as :meth:`Model.apply` has it."""
    return reply if reply.kind == "error" else reply.value


class Ledger:
    """What one client sent, what it was told, and what its keys must therefore hold. Lives longer than a connection."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.acknowledged = 0
        #: The outcome of everything that was answered.
        self.model = Model()
        self._open: deque[Step] = deque()

    def sent(self, steps: Iterable[Step]) -> None:
        """These are about to be sent."""
        self._open.extend(steps)

    def answered(self, replies: list[Reply]) -> Reply | None:
        """The replies for the oldest step that has none; the error if it was refused. Raises BrokenPromise."""
        step = self._open.popleft()
        outcome = step.outcome(replies)
        if outcome is None:
            return replies[-1]
        if len(outcome) != len(step.commands):
            raise BrokenPromise(f"{step} was answered with {replies}")
        for words, reply in zip(step.commands, outcome, strict=True):
            expected = self.model.apply(words)
            if expected is not ... and plain(reply) != expected:
                raise BrokenPromise(f"{words} was answered with {reply}, not {expected!r}")
        self.acknowledged += 1
        return None

    @property
    def oldest(self) -> Step:
        """The oldest step that has no answer; IndexError if there is none."""
        return self._open[0]

    def settle(self, found: Mapping[bytes, Content], shared: Mapping[bytes, list[bytes]]) -> int:
        """Find out how much of what was never answered was done, given all that is there; how many steps that were.

        ``found`` are the keys of this client, ``shared`` its elements in the lists of all. Raises BrokenPromise if no
        number of steps leads there. Afterwards nothing is open.
        """
        candidate = copy.deepcopy(self.model)
        first = _differences(candidate, found, shared)
        done = 0
        differences = first
        while differences and self._open:
            for words in self._open.popleft().commands:
                candidate.apply(words)
            done += 1
            differences = _differences(candidate, found, shared)
        self._open.clear()
        if differences:
            raise BrokenPromise(
                f"{self.name.decode()}: what is there is no outcome of its first steps ({self.acknowledged} answered, "
                f"{done} sent and not answered). Against what was answered:\n  " + "\n  ".join(first[:12])
            )
        self.model = candidate
        return done


def _differences(model: Model, found: Mapping[bytes, Content], shared: Mapping[bytes, list[bytes]]) -> list[str]:
    expected = model.contents()
    if expected == found and model.shared == shared:
        return []
    lines = [
        f"{key!r}: {_short(found.get(key, 'nothing'))}, not {_short(expected.get(key, 'nothing'))}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    for key, elements in model.shared.items():
        there = shared[key]
        if there != elements:
            same = 0
            while same < min(len(there), len(elements)) and there[same] == elements[same]:
                same += 1
            lines.append(
                f"{key!r}: {len(there)} elements, not {len(elements)}; from {same} on {there[same : same + 3]}, not "
                f"{elements[same : same + 3]}"
            )
    return lines


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 160 else f"{text[:100]} … {text[-50:]}"


def check_pairs(pairs: list[bytes], count: bytes | None, highest: int) -> None:
    """What transactions of all clients wrote: a list, and how long it is; ``highest`` has been read of that before."""
    if int(count or b"0") != len(pairs):
        raise BrokenPromise(f"{PAIRED_COUNT!r} is {count!r}, but {PAIRED_LIST!r} has {len(pairs)} elements")
    if len(set(pairs)) != len(pairs):
        raise BrokenPromise(f"{PAIRED_LIST!r} has an element twice")
    if len(pairs) < highest:
        raise BrokenPromise(f"{PAIRED_COUNT!r} was {highest} before, and is {len(pairs)} now")
