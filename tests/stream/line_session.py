"""A session that is small enough to see through: commands are lines, replies are lines.

``echo X``, ``fill N`` (N bytes), ``block`` (until somebody's ``push X``), ``shout X`` (to everybody else), ``close``,
``kill`` (everybody else), ``boom`` (raises), ``pause``, ``call`` (the session's ``called``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio


class Ticks:
    """A timer that stands still until something is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Log:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def _note(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))

    debug = info = warning = error = _note

    def names(self) -> list[str]:
        """The events, in order."""
        return [event for event, _ in self.events]


class Room:
    """What the sessions of a test share. Every command costs ``cost`` seconds on the timer."""

    def __init__(self, cost: float = 0.0) -> None:
        self.timer = Ticks()
        self.cost = cost
        self.sessions: list[LineSession] = []
        self.waiting: deque[LineSession] = deque()
        self.elements: list[bytes] = []
        self.executed: list[tuple[LineSession, bytes]] = []
        self.on_command: Callable[[], None] = lambda: None

    def session(self, **options: int) -> LineSession:
        """A new session."""
        session = LineSession(self, **options)
        self.sessions.append(session)
        return session


class LineSession:
    """See the module; ``output_limit`` and ``queue_limit`` are where it stops reading."""

    def __init__(self, room: Room, output_limit: int = 1 << 20, queue_limit: int = 1 << 20) -> None:
        self.room = room
        self.output_limit = output_limit
        self.queue_limit = queue_limit
        self.wake: Callable[[], None] | None = None
        self.peer_gone: Callable[[], bool] | None = None
        self.output_pending = 0
        self.wrote = 0
        self.fd = -1
        self.blocked = False
        self.paused = False
        self.closing = False
        self.discard = False
        self.reasons: list[str] = []
        self.gone = trio.Event()
        self.called: Callable[[], None] = lambda: None
        self.reads: list[int] = []
        self.sends: list[int] = []
        self._partial = b""
        self._queue: deque[bytes] = deque()
        self._output: list[bytes] = []
        self._size = 0

    @property
    def runnable(self) -> bool:
        return bool(self._queue) and not (self.blocked or self.paused or self.closing or self._over())

    @property
    def wants_read(self) -> bool:
        return len(self._queue) < self.queue_limit and not (self.paused or self.closing or self._over())

    @property
    def has_output(self) -> bool:
        return bool(self._output)

    def _over(self) -> bool:
        return self.output_pending + self._size > self.output_limit

    def _reply(self, data: bytes) -> None:
        self._output.append(data)
        self._size += len(data)

    def receive(self, data: bytes) -> None:
        self.reads.append(len(data))
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._queue.extend(lines)

    def run(self, deadline: float) -> bool:
        while self.runnable:
            line = self._queue.popleft()
            self.room.executed.append((self, line))
            self.room.on_command()
            self._execute(*line.partition(b" ")[::2])
            self.room.timer.now += self.room.cost
            if self.room.timer.now > deadline:
                break
        return self.runnable or not self.wants_read

    def take_output(self) -> bytes:
        data = b"".join(self._output)
        self._output.clear()
        self._size = 0
        if data:
            self.sends.append(len(data))
        return data

    def disconnected(self, reason: str) -> None:
        self.reasons.append(reason)
        self.closing = True
        if self in self.room.waiting:
            self.room.waiting.remove(self)
        self.gone.set()

    def write(self, text: bytes) -> None:
        """Output from outside the session's own turn."""
        self._reply(text + b"\n")
        self.rouse()

    def rouse(self) -> None:
        """Tell the driver that something has changed."""
        if self.wake is not None:
            self.wake()

    def _others(self) -> list[LineSession]:
        return [other for other in self.room.sessions if other is not self and not other.gone.is_set()]

    def _execute(self, command: bytes, argument: bytes) -> None:
        if command == b"echo":
            self._reply(argument + b"\n")
        elif command == b"fill":
            self._reply(b"x" * int(argument))
        elif command == b"block":
            self.blocked = True
            self.room.waiting.append(self)
        elif command == b"push":
            self._push(argument)
            self._reply(b"ok\n")
        elif command == b"shout":
            for other in self._others():
                other.write(argument)
        elif command == b"kill":
            for other in self._others():
                other.discard = other.closing = True
                other.rouse()
        elif command == b"close":
            self._reply(b"bye\n")
            self.closing = True
        elif command == b"pause":
            self.paused = True
        elif command == b"call":
            self.called()
        else:
            raise RuntimeError(command.decode())

    def _push(self, element: bytes) -> None:
        for other in self.room.waiting:
            if other.peer_gone is None or not other.peer_gone():
                self.room.waiting.remove(other)
                other.blocked = False
                other.write(element)
                return
        self.room.elements.append(element)
