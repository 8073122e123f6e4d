"""Clients that write under every prefix, go where they are sent, give up when it takes too long, and note everything.

Reads that count for the order of operations are made with GETEX, which only who writes the key answers; reads of
copies are checked for what sessions are promised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar, Final

import attrs
import trio
from sim.elements import Elements
from sim.history import History, Operation
from sim.network import Host
from sim.talk import GONE, Connection, Refusal, Word
from sim.world import CLIENT_PORT, World

__all__ = ["CODES_OF_WAITERS", "Client", "Sessions", "command_of", "keys_of"]

#: Errors that say that nothing was done.
HARMLESS: Final = frozenset(
    {"MISDIRECTED", "QUIESCED", "LOADING", "READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "EXECABORT", "OOM"}
)
#: What else those may be told who wait for something: it is none of theirs.
CODES_OF_WAITERS: Final = frozenset({"UNBLOCKED"})
#: The counter under each prefix is only ever counted up.
COUNTER: Final = b"counter"


def keys_of(prefix: bytes) -> list[bytes]:
    """The keys whose order of operations is checked."""
    return [prefix + name for name in (b"r1", b"r2", b"log", COUNTER)]


@attrs.define
class Sessions:
    """What was found of the promises to sessions."""

    reads: int = 0
    waits: int = 0
    pairs: int = 0
    mortals: int = 0
    answers: dict[str, int] = attrs.Factory(dict)


class Client:
    """One client, on a host of its own. ``where`` says for each prefix whom it will ask next."""

    #: Seconds between two things that it does, on average.
    pause: ClassVar[float] = 0.2

    def __init__(self, name: str, host: Host, world: World, history: History, prefixes: Sequence[bytes], seed: str):
        self.name = name
        self.stopped = False
        self.sessions = Sessions()
        #: Whether a node has, or wants, a copy of what is under a prefix.
        self.copies: Callable[[str, bytes], bool] = lambda node, prefix: True
        #: Whether an operator has had a node follow somebody else since then.
        self.redirected: Callable[[str, float], bool] = lambda node, since: False
        #: Called with each operation that was answered, and by whom, in that moment.
        self.on_answered: list[Callable[[Operation, str], object]] = []
        #: What those note who push and take elements.
        self.elements = Elements()
        self._host = host
        self._world = world
        self._history = history
        self._prefixes = tuple(prefixes)
        self._random = Random(seed)
        self._where = {prefix: self._random.choice(sorted(world.addresses)) for prefix in prefixes}
        self._connections: dict[str, Connection] = {}
        self._number = 0

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do one thing after the other until ``stopped``."""
        while not self.stopped:
            await trio.sleep(self._random.expovariate(1 / self.pause))
            await self.act(self._random.choice(self._prefixes))
        await self.close()

    async def act(self, prefix: bytes) -> None:
        """Do one thing under a prefix."""
        draw = self._random.random()
        if draw < 0.62:
            await self._operate(prefix)
        elif draw < 0.72:
            await self._noise(prefix)
        elif draw < 0.80:
            await self._write_pair(prefix)
        elif draw < 0.86:
            await self._read_pair(prefix)
        else:
            await self._session(prefix)

    async def close(self) -> None:
        """Close all connections."""
        for node in tuple(self._connections):
            await self._close(node)

    def _token(self) -> bytes:
        self._number += 1
        return b"%b.%d;" % (self.name.encode(), self._number)

    def _patience(self) -> float:
        """Seconds that this client waits for a reply; sometimes hardly any."""
        return self._random.choice((0.0012, 0.3, 1.5, 1.5, 3.0))

    # -- operations whose order is checked ----------------------------------------------------------------------------

    async def _operate(self, prefix: bytes) -> None:
        key, kind, argument = self._draw(prefix)
        await self.operate(prefix, key, kind, argument, self._patience())

    def _draw(self, prefix: bytes) -> tuple[bytes, Any, bytes]:
        """A key, what to do with it, and an argument for that."""
        random = self._random
        key = random.choice(keys_of(prefix))
        if key.endswith(COUNTER):
            kind, argument = random.choice((("increment", b""), ("increment", b""), ("get", b"")))
        elif key.endswith(b"log"):
            kind, argument = random.choice((("append", self._token()), ("append", self._token()), ("get", b"")))
        else:
            kind, argument = random.choice((("set", self._token()), ("exchange", self._token()), ("get", b"")))
        return key, kind, argument

    async def operate(self, prefix: bytes, key: bytes, kind: Any, argument: bytes, patience: float) -> Operation | None:
        """One operation on the node that is thought to write the key, noted; None if it was refused."""
        words = command_of(kind, key, argument)
        node = self._where[prefix]
        operation = self._history.add(Operation(self.name, key, kind, argument, trio.current_time(), node=node))
        replies = await self._ask(node, [words], patience)
        if replies is None:
            # It may have been done, or may be yet; unless nobody was there.
            if not self._was_sent:
                self._history.drop(operation)
            self._where[prefix] = self._random.choice(sorted(self._world.addresses))
            return None
        if self._refused(prefix, replies[0], words):
            self._history.drop(operation)
            return None
        operation.result, operation.ended = replies[0], trio.current_time()
        for told in self.on_answered:
            told(operation, node)
        return operation

    def _refused(self, prefix: bytes, reply: Any, words: Sequence[Word], also: frozenset[str] = frozenset()) -> bool:
        """Whether nothing was done; then the next attempt goes elsewhere if that is what was said.

        ``also`` are codes that these words may be answered with, beside those that all may.
        """
        if not isinstance(reply, Refusal):
            return False
        answers = self.sessions.answers
        answers[reply.code] = answers.get(reply.code, 0) + 1
        if reply.code not in HARMLESS and reply.code not in also:
            self._world.fail(f"clients: {words!r} was answered with -{reply.text}")
        if reply.code == "MISDIRECTED":
            writer = self._world.name_of(reply.text.rpartition(" ")[2])
            if writer is not None:
                self._where[prefix] = writer
        elif reply.code not in ("QUIESCED", "LOADING") or self._random.random() < 0.1:
            self._where[prefix] = self._random.choice(sorted(self._world.addresses))
        return True

    # -- what else is written -----------------------------------------------------------------------------------------

    async def _noise(self, prefix: bytes) -> None:
        """Other types, deadlines, deletions: what copies must have in the end as their writer has it."""
        random = self._random
        number = b"%d" % random.randrange(4)
        token = self._token()
        words: tuple[Word, ...] = random.choice(
            (
                (b"HSET", prefix + b"hash", number, token),
                (b"HDEL", prefix + b"hash", number),
                (b"RPUSH", prefix + b"list" + number, token, token),
                (b"LMOVE", prefix + b"list" + number, prefix + b"list1", b"LEFT", b"RIGHT"),
                (b"LPOP", prefix + b"list" + number),
                (b"SADD", prefix + b"set", number, token),
                (b"SPOP", prefix + b"set"),
                (b"ZINCRBY", prefix + b"zset", "1.5", number),
                (b"SET", prefix + b"mortal" + number, token, b"PX", random.choice((50, 500, 5000, 500000))),
                (b"PEXPIRE", prefix + b"list" + number, random.choice((100, 3000))),
                (b"DEL", prefix + b"list" + number, prefix + b"hash"),
                (b"SET", prefix + b"large" + number, token * 300),
                (b"SET", b"free" + number, token),
            )
        )
        replies = await self._ask(self._where[prefix], [words], self._patience())
        if replies is not None:
            self._refused(prefix, replies[0], words)

    async def _write_pair(self, prefix: bytes) -> None:
        """Two keys that are only ever written together."""
        token = self._token()
        pair = [(b"SET", prefix + b"pair1", token), (b"SET", prefix + b"pair2", token)]
        replies = await self._ask(self._where[prefix], [(b"MULTI",), *pair, (b"EXEC",)], self._patience())
        if replies is not None and isinstance(replies[-1], Refusal):
            first = next(reply for reply in replies if isinstance(reply, Refusal))
            self._refused(prefix, first, pair[0])

    async def _read_pair(self, prefix: bytes) -> None:
        """Nobody, whoever it is, shows one of them without the other."""
        node = self._random.choice(sorted(self._world.addresses))
        words = (b"MGET", prefix + b"pair1", prefix + b"pair2")
        replies = await self._ask(node, [words], self._patience())
        if replies is None or isinstance(replies[0], Refusal):
            return
        self.sessions.pairs += 1
        one, other = replies[0]
        if one != other:
            self._world.fail(f"replicas: {node} shows half of a transaction under {prefix!r}: {one!r} and {other!r}")

    # -- what sessions are promised -----------------------------------------------------------------------------------

    async def _session(self, prefix: bytes) -> None:
        """Count up, have copies confirm it, or read it elsewhere with a token."""
        random, key = self._random, prefix + COUNTER
        begun = trio.current_time()
        node = self._where[prefix]
        operation = self._history.add(Operation(self.name, key, "increment", b"", begun, node=node))
        wanted = random.choice((1, 1, 2))
        asks_wait = random.random() < 0.5
        second: tuple[Word, ...] = (b"WAIT", wanted, 1000) if asks_wait else (b"REPL.TOKEN",)
        replies = await self._ask(node, [(b"INCR", key), second], 3.0, keep=True)
        if not replies:
            if not self._was_sent:
                self._history.drop(operation)
            return
        if self._refused(prefix, replies[0], (b"INCR", key)):
            self._history.drop(operation)
            return
        operation.result, operation.ended = replies[0], self._first_reply
        if len(replies) < 2 or isinstance(replies[1], Refusal):
            return
        if asks_wait:
            self._waited(operation, node, prefix, replies[1])
        else:
            await self._read_elsewhere(operation, prefix, replies[1])

    def _waited(self, operation: Operation, node: str, prefix: bytes, copies: int) -> None:
        operation.copies = copies
        self.sessions.waits += 1
        if self._unsteady(operation.begun, prefix):
            return
        holders = [
            name
            for name, other in self._world.living().items()
            if name != node
            and (
                int(other.store.keyspace.get(operation.key) or b"0") >= operation.result  # type: ignore[arg-type]
                # It may have had it when it was counted.
                or self.redirected(name, operation.begun)
            )
        ]
        if len(holders) < copies:
            self._world.fail(
                f"sessions: WAIT at {node} counted {copies} copies of {operation.result} in {operation.key!r}, and "
                f"only {holders} have it"
            )

    async def _read_elsewhere(self, operation: Operation, prefix: bytes, token: Any) -> None:
        node = self._random.choice(sorted(self._world.addresses))
        history, offset = token
        waits: tuple[Word, ...] = (b"REPL.WAIT", history, offset, b"TIMEOUT", 1000)
        replies = await self._ask(node, [waits, (b"GET", operation.key)], 3.0)
        if replies is None or replies[0] != "OK" or isinstance(replies[1], Refusal):
            return
        if not self.copies(node, prefix) or self._unsteady(operation.begun, prefix):
            return
        self.sessions.reads += 1
        if int(replies[1] or b"0") < operation.result:
            self._world.fail(
                f"sessions: {node} has waited for {history}@{offset}, and shows {replies[1]!r} in {operation.key!r} "
                f"instead of {operation.result}"
            )

    def _unsteady(self, since: float, prefix: bytes) -> bool:
        """Whether in the meantime anybody has ended, anything may have been lost, or two have taken writes."""
        lives = self._world.lives.values()
        return (
            any(life.dead or life.began > since for life in lives)
            or any(loss.at >= since and prefix.startswith(loss.prefix) for loss in self._history.losses)
            or self._history.disputed(since)
            or self._history.cleared(prefix, since)
        )

    # -- connections --------------------------------------------------------------------------------------------------

    async def _ask(
        self, node: str, commands: Sequence[tuple[Word, ...]], patience: float, keep: bool = False
    ) -> list[Any] | None:
        """Send commands at once; None if not all replies came. ``keep``: those that came are the result then."""
        self._was_sent = False
        self._first_reply = math.inf
        replies: list[Any] = []
        try:
            with trio.fail_after(patience):
                connection = self._connections.get(node)
                if connection is None:
                    connection = await Connection.open(self._host, self._world.addresses[node], CLIENT_PORT)
                    self._connections[node] = connection
                self._was_sent = True
                await connection.send(*commands)
                for _ in commands:
                    replies.append(await connection.reply())
                    self._first_reply = min(self._first_reply, trio.current_time())
        except (trio.TooSlowError, *GONE):
            await self._close(node)
            return replies if keep else None
        return replies

    async def _close(self, node: str) -> None:
        connection = self._connections.pop(node, None)
        if connection is not None:
            with trio.CancelScope(shield=True):
                await connection.aclose()


def command_of(kind: str, key: bytes, argument: bytes) -> tuple[Word, ...]:
    """The words of an operation."""
    match kind:
        case "set":
            return b"SET", key, argument
        case "exchange":
            return b"SET", key, argument, b"GET"
        case "append":
            return b"APPEND", key, argument
        case "increment":
            return b"INCR", key
        case "delete":
            return b"DEL", key
    return b"GETEX", key
