"""What some clients do that others do not: wait for elements, watch keys, send much at once, empty everything.

A plan names its habits, and each is that of a few clients of its own, with randomness of their own: a plan without them
means what it meant before there were any.
"""

from __future__ import annotations

import math
from typing import Any, Final

import trio
from sim.clients import CODES_OF_WAITERS, Client, command_of, keys_of
from sim.history import UNKNOWN, Operation
from sim.mortals import MortalKey, Span
from sim.talk import GONE, Connection, Refusal, Word, encode
from sim.world import CLIENT_PORT

__all__ = ["HABITS", "Consumer", "Flusher", "Mortician", "Pipeliner", "Watcher"]


class Consumer(Client):
    """Pushes elements to one list, and waits for those of two: an element may be moved to the other one on its way.

    What is asked of them is in :mod:`sim.elements`.
    """

    pause = 0.3

    async def act(self, prefix: bytes) -> None:
        """Push one or two elements, or take one, which is waited for more often than not."""
        random = self._random
        queue, done = _lists(prefix)
        if random.random() < 0.45:
            await self._work(prefix, "push", (b"RPUSH", queue, token := self._token()), token, self._patience())
            return
        kind = random.choice(("pop", "move", "either", "drain"))
        if random.random() < 0.25:
            plain: dict[str, tuple[Word, ...]] = {
                "pop": (b"LPOP", queue),
                "move": (b"LMOVE", queue, done, b"LEFT", b"RIGHT"),
                "either": (b"LMPOP", 2, done, queue, b"LEFT"),
                "drain": (b"LPOP", done),
            }
            await self._work(prefix, kind, plain[kind], b"", self._patience())
            return
        seconds = random.choice((b"0.05", b"0.5", b"2", b"0"))
        blocking: dict[str, tuple[Word, ...]] = {
            "pop": (b"BLPOP", queue, seconds),
            "move": (b"BLMOVE", queue, done, b"LEFT", b"RIGHT", seconds),
            "either": (b"BLMPOP", seconds, 2, done, queue, b"LEFT"),
            "drain": (b"BLPOP", done, seconds),
        }
        # Some hang up while they wait.
        patience = 0.2 if random.random() < 0.15 else 3.0
        await self._work(prefix, kind, blocking[kind], b"", patience)

    async def _work(self, prefix: bytes, kind: Any, words: tuple[Word, ...], argument: bytes, patience: float) -> None:
        node = self._where[prefix]
        begins = Operation(self.name, prefix, kind, argument, trio.current_time(), node=node)
        operation = self.elements.add(prefix, begins)
        replies = await self._ask(node, [words], patience)
        if replies is None:
            if not self._was_sent:
                self.elements.drop(prefix, operation)
            self._where[prefix] = self._random.choice(sorted(self._world.addresses))
            return
        (reply,) = replies
        if self._refused(prefix, reply, words, CODES_OF_WAITERS):
            self.elements.drop(prefix, operation)
            return
        operation.result, operation.ended = _element(reply), trio.current_time()

    async def look(self, prefix: bytes) -> bool:
        """Note what both lists hold, at rest; whether they could be read."""
        reads: list[tuple[Word, ...]] = [(b"LRANGE", key, 0, -1) for key in _lists(prefix)]
        # Who has no copy would answer that there is nothing; what may write is answered by the writer alone.
        commands = [(b"MULTI",), (b"GETEX", prefix + b"done1"), *reads, (b"EXEC",)]
        replies = await self._ask(self._where[prefix], commands, 2.0)
        if replies is None:
            return False
        refusal = next((reply for reply in replies if isinstance(reply, Refusal)), None)
        if self._refused(prefix, refusal, commands[1]):
            return False
        _, one, other = replies[-1]
        self.elements.rest[prefix] = one, other
        return True


def _lists(prefix: bytes) -> tuple[bytes, bytes]:
    """Where elements are pushed, and where they may be moved."""
    return prefix + b"queue", prefix + b"done"


def _element(reply: Any) -> Any:
    """The one element that a reply holds, whatever command it is of; None if it says that there was none."""
    while isinstance(reply, list):
        reply = reply[-1]
    return reply


class Watcher(Client):
    """Exchanges what a key holds for something else, if it holds still what it held: with WATCH.

    What it reads first may come from a copy that is behind, or from one that becomes the writer in between.
    """

    pause = 0.4

    async def act(self, prefix: bytes) -> None:
        """One exchange, or a look that is given up."""
        random = self._random
        key = random.choice(keys_of(prefix)[:2])
        node = self._where[prefix]
        replies = await self._ask(node, [(b"WATCH", key), (b"GET", key)], self._patience())
        if replies is None or any(isinstance(reply, Refusal) for reply in replies):
            self._where[prefix] = random.choice(sorted(self._world.addresses))
            return
        if random.random() < 0.3:
            # Long enough for a scope to come and go.
            await trio.sleep(random.choice((0.1, 1.0, 3.0)))
        if node not in self._connections:
            return
        words = b"SET", key, self._token()
        operation = Operation(self.name, key, "swap", words[2], trio.current_time(), seen=replies[1], node=node)
        self._history.add(operation)
        replies = await self._ask(node, [(b"MULTI",), words, (b"EXEC",)], self._patience())
        if replies is None:
            self._where[prefix] = random.choice(sorted(self._world.addresses))
            return
        if isinstance(replies[-1], Refusal):
            first = next(reply for reply in replies if isinstance(reply, Refusal))
            self._refused(prefix, first, words)
            self._history.drop(operation)
        elif replies[-1] is None:
            # Somebody was there first, or the key has another writer by now: nothing was done.
            self._history.drop(operation)
        else:
            operation.result, operation.ended = "OK", trio.current_time()


class Pipeliner(Client):
    """Sends many commands at once, and leaves before it has all replies, sometimes in the midst of a command."""

    pause = 0.8

    async def act(self, prefix: bytes) -> None:
        """One pipeline, of operations whose order is checked."""
        random = self._random
        drawn = [self._draw(prefix) for _ in range(random.randrange(2, 8))]
        data = b"".join(encode(command_of(kind, key, argument)) for key, kind, argument in drawn)
        if random.random() < 0.1:
            data = data[: random.randrange(len(data))]
        leaves_after = random.choice((1, *[len(drawn)] * 5))
        patience = random.choice((0.0012, 0.5, 2.0, 2.0, 2.0, 2.0))
        now, node = trio.current_time(), self._where[prefix]
        operations = [self._history.add(Operation(self.name, *one, now, node=node)) for one in drawn]
        refused = await self._send(prefix, operations, data, leaves_after, patience)
        for operation in operations if refused is None else refused:
            self._history.drop(operation)

    async def _send(
        self, prefix: bytes, operations: list[Operation], data: bytes, leaves_after: int, patience: float
    ) -> list[Operation] | None:
        """Which operations were refused; None: nothing was sent. Notes the replies of the others."""
        node = self._where[prefix]
        refused: list[Operation] = []
        sent = whole = False
        try:
            with trio.fail_after(patience):
                connection = self._connections.get(node)
                if connection is None:
                    connection = await Connection.open(self._host, self._world.addresses[node], CLIENT_PORT)
                    self._connections[node] = connection
                sent = True
                await connection.send_part(data)
                for operation in operations[:leaves_after]:
                    reply = await connection.reply()
                    if self._refused(prefix, reply, (operation.kind, operation.key)):
                        refused.append(operation)
                        continue
                    operation.result, operation.ended = reply, trio.current_time()
                    for told in self.on_answered:
                        told(operation, node)
                whole = leaves_after == len(operations)
        except (trio.TooSlowError, *GONE):
            self._where[prefix] = self._random.choice(sorted(self._world.addresses))
        if not whole:
            await self._close(node)
        return refused if sent else None


class Flusher(Client):
    """Empties a node now and then: all that it writes, and nothing of what others do."""

    pause = 5.0

    async def act(self, prefix: bytes) -> None:
        """A transaction that is refused by who does not write the prefix, and empties everything else."""
        node, random = self._where[prefix], self._random
        # Of the other prefixes nobody is told whether they are that node's.
        operations = {
            other: [Operation(self.name, key, "clear", b"", trio.current_time(), node=node) for key in keys_of(other)]
            for other in self._prefixes
        }
        whole = {other: Operation(self.name, other, "clear", b"", trio.current_time()) for other in self._prefixes}
        every = [operation for found in operations.values() for operation in found]
        for operation in every:
            self._history.add(operation)
        self._history.clearings += whole.values()
        words = (b"SET", prefix + b"pair1", b"")
        flush = (random.choice((b"FLUSHALL", b"FLUSHDB")), random.choice((b"SYNC", b"ASYNC")))
        replies = await self._ask(node, [(b"MULTI",), words, flush, (b"EXEC",)], self._patience())
        if replies is None:
            self._where[prefix] = random.choice(sorted(self._world.addresses))
        refusal = None if replies is None else next((one for one in replies if isinstance(one, Refusal)), None)
        if not self._was_sent or (refusal is not None and self._refused(prefix, refusal, words)):
            for operation in every:
                self._history.drop(operation)
            self._history.clearings = [one for one in self._history.clearings if one not in whole.values()]
        elif replies is not None:
            for operation in operations[prefix]:
                operation.result, operation.ended = "OK", trio.current_time()
            if len(self._prefixes) == 1:
                whole[prefix].ended = trio.current_time()


class Mortician(Client):
    """Sets keys with deadlines, changes those, and looks whether they are there as long as they are to be."""

    pause = 0.3

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Those that may be there still, and under which prefixes.
        self._mortals: list[tuple[bytes, MortalKey]] = []

    async def act(self, prefix: bytes) -> None:
        """Set one, change one, or look at one."""
        random = self._random
        if len(self._mortals) < 3:
            await self._set(prefix)
            return
        number = random.randrange(len(self._mortals))
        prefix, mortal = self._mortals[number]
        draw = random.random()
        if draw < 0.3:
            known = await self._change(prefix, mortal)
        elif draw < 0.7:
            known = await self._look_at_writer(prefix, mortal)
        else:
            known = await self._look_anywhere(prefix, mortal)
        if not known or random.random() < 0.05:
            self._mortals.remove((prefix, mortal))

    async def _set(self, prefix: bytes) -> None:
        key, value, since = prefix + b"brief." + self._token(), self._token(), trio.current_time()
        milliseconds = self._random.choice((150, 1000, 4000, 20000))
        clock, reply = await self._timed(prefix, (b"SET", key, value, b"PX", milliseconds))
        if reply == "OK" and clock is not None:
            self._mortals.append((prefix, MortalKey(key, value, since, clock.later(milliseconds / 1000))))

    async def _change(self, prefix: bytes, mortal: MortalKey) -> bool:
        """Give it another deadline, or none; whether it is worth while to look at it again."""
        milliseconds = self._random.choice((150, 1000, 4000, 20000))
        words, lasts = self._random.choice(
            (
                ((b"PEXPIRE", mortal.key, milliseconds), milliseconds / 1000),
                ((b"GETEX", mortal.key, b"PX", milliseconds), milliseconds / 1000),
                ((b"SET", mortal.key, mortal.value, b"XX", b"PX", milliseconds), milliseconds / 1000),
                ((b"PERSIST", mortal.key), math.inf),
                ((b"SET", mortal.key, mortal.value, b"XX"), math.inf),
            )
        )
        clock, reply = await self._timed(prefix, words)
        if clock is None:
            # It may have been done, or may be yet, when nobody knows.
            return False
        if words[0] == b"PERSIST" and reply == 0:
            # It had no deadline, or is gone.
            return mortal.deadline.high == math.inf
        elif reply in (None, 0):
            self._tell(prefix, mortal, mortal.gone(self._latest()), True)
            return False
        elif not isinstance(reply, Refusal):
            mortal.changed(clock.later(lasts))
        return True

    async def _look_at_writer(self, prefix: bytes, mortal: MortalKey) -> bool:
        clock, reply = await self._timed(prefix, (b"GETEX", mortal.key))
        if reply == mortal.value and clock is not None:
            self._tell(prefix, mortal, mortal.shown(clock, True), True)
        if reply is None:
            self._tell(prefix, mortal, mortal.gone(self._latest()), True)
        return reply is not None

    async def _look_anywhere(self, prefix: bytes, mortal: MortalKey) -> bool:
        node = self._random.choice(sorted(self._world.addresses))
        clock, reply = await self._timed(prefix, (b"GET", mortal.key), node)
        if reply == mortal.value and clock is not None:
            self._tell(prefix, mortal, mortal.shown(clock, False), False)
        return True

    def _tell(self, prefix: bytes, mortal: MortalKey, wrong: str, by_writer: bool) -> None:
        self.sessions.mortals += 1
        history, world = self._history, self._world
        lost = any(loss.at >= mortal.since and prefix.startswith(loss.prefix) for loss in history.losses)
        lost = lost or history.disputed(mortal.since) or history.cleared(prefix, mortal.since) or world.evicts
        if wrong and not (by_writer and lost):
            world.fail(f"deadlines: {wrong}")

    def _latest(self) -> float:
        """The latest moment that any clock has shown so far."""
        return max(life.clock.highest for life in self._world.lives.values())

    async def _timed(self, prefix: bytes, words: tuple[Word, ...], node: str = "") -> tuple[Span | None, Any]:
        """What the node's clock said meanwhile, None if nobody knows, and the reply."""
        node = node or self._where[prefix]
        life = self._world.lives[node]
        began, jump = life.clock.wall(), life.clock.jump
        replies = await self._ask(node, [words], self._random.choice((0.0012, 1.5, 1.5, 1.5)))
        same = self._world.lives[node] is life and life.clock.jump == jump
        clock = Span(began, life.clock.wall()) if same else None
        if replies is None:
            self._where[prefix] = self._random.choice(sorted(self._world.addresses))
            return None, UNKNOWN
        self._refused(prefix, replies[0], words)
        return clock, replies[0]


#: Who has which habit, and how many of them there are.
HABITS: Final[dict[str, tuple[type[Client], int]]] = {
    "wait": (Consumer, 3),
    "watch": (Watcher, 2),
    "pipeline": (Pipeliner, 1),
    "flush": (Flusher, 1),
    "deadlines": (Mortician, 2),
}
