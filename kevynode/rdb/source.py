"""Bytes that arrive in pieces, and coroutines that read them in steps of bounded work.

A coroutine yields :data:`WANTS_DATA` to be sent the next piece, and :data:`PAUSES` where it has worked for about a
millisecond and could go on at once; then it is sent nothing. :class:`StepReader` drives one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from io import BytesIO
from typing import Final, TypeAlias, TypeVar

__all__ = ["PAUSES", "WANTS_DATA", "FormatError", "Source", "StepReader", "Steps"]

#: What a coroutine here yields, see above.
WANTS_DATA: Final = False
PAUSES: Final = True

#: Small elements that are handled between two pauses.
_PAUSE_AFTER: Final = 1024

T = TypeVar("T")
#: A coroutine that is sent pieces of data and returns a ``T``.
Steps: TypeAlias = Generator[bool, bytes, T]


class FormatError(Exception):
    """The data is not what it should be. ``reason`` says what is wrong, ``offset`` at which byte of the input."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"{reason} (at byte {offset})")
        self.offset = offset
        self.reason = reason


class Source:
    """What has been fed and not yet read: ``buffer`` from ``position`` on. Memory grows only with what has arrived.

    A reader may look into the buffer and advance ``position`` itself.
    """

    __slots__ = ("base", "buffer", "on_passed", "passed", "position")

    def __init__(self) -> None:
        self.buffer = b""
        self.position = 0
        # The input's offset of buffer[0].
        self.base = 0
        # Called with bytes that have been read, in order and without gaps, if anybody wants them; what stands
        # before ``passed`` has been told.
        self.on_passed: Callable[[bytes], None] | None = None
        self.passed = 0

    @property
    def offset(self) -> int:
        """The input's offset of what is read next."""
        return self.base + self.position

    def tell_passed(self) -> None:
        """Call ``on_passed`` with everything that has been read and not been told."""
        if self.on_passed is not None and self.position > self.passed:
            self.on_passed(self.buffer[self.passed : self.position])
        self.passed = self.position

    def refill(self) -> Steps[None]:
        """Wait for the next piece; the whole buffer has been read."""
        self.tell_passed()
        size = len(self.buffer)
        self.buffer = yield WANTS_DATA
        self.base += size
        self.position = self.passed = 0

    def wait(self) -> Steps[None]:
        """Wait until there is something to read."""
        while self.position == len(self.buffer):
            yield from self.refill()

    def take(self, size: int) -> Steps[bytes]:
        """The next ``size`` bytes, waiting for those that have not arrived."""
        start = self.position
        stop = start + size
        if stop <= len(self.buffer):
            self.position = stop
            return self.buffer[start:stop]
        # Grows in place and gives its bytes away without a copy: a text may have hundreds of megabytes.
        collected = BytesIO()
        missing = size
        while True:
            part = self.buffer[self.position : self.position + missing]
            collected.write(part)
            self.position += len(part)
            missing -= len(part)
            if not missing:
                return collected.getvalue()
            yield from self.refill()

    def some(self, limit: int) -> Steps[bytes]:
        """The next bytes, at least one and at most ``limit``, as they have arrived."""
        yield from self.wait()
        start = self.position
        part = self.buffer[start : start + limit]
        self.position += len(part)
        return part


class StepReader(ABC):
    """Drives the coroutine of a subclass, :meth:`_read`, with what is fed. Not thread-safe; nothing blocks."""

    def __init__(self) -> None:
        self.source = Source()
        #: The end has been read. What is fed behind it is counted in ``surplus`` and ignored.
        self.finished = False
        self.surplus = 0
        self._fed = 0
        # Work since the last pause, as a number of small elements.
        self._work = 0
        self._failure: FormatError | None = None
        self._reading = self._read()
        next(self._reading)

    @abstractmethod
    def _read(self) -> Steps[None]:
        """Read the whole input; must want data first."""

    def _is_tired(self, work: int) -> bool:
        """Whether it is time to pause, after ``work`` small elements more (a microsecond or so for each)."""
        self._work += work
        if self._work < _PAUSE_AFTER:
            return False
        self._work = 0
        return True

    def steps(self, data: bytes) -> Iterator[None]:
        """Read the next bytes, some milliseconds' work at most between two steps; exhaust it before the next call.

        Raises FormatError for what cannot be right, and again at every later call.
        """
        if self._failure is not None:
            raise self._failure
        if self.finished or not data:
            self.surplus += len(data)
            return
        self._fed += len(data)
        try:
            pauses = self._reading.send(data)
            while pauses:
                yield
                pauses = self._reading.send(b"")
        except StopIteration:
            self.finished = True
            self.surplus = len(self.source.buffer) - self.source.position
        except FormatError as error:
            self._failure = error
            raise

    def feed(self, data: bytes) -> None:
        """Read the next bytes, all at once. Raises FormatError as :meth:`steps`."""
        for _ in self.steps(data):
            pass

    def _fail(self, error: FormatError) -> FormatError:
        """Remember ``error`` for later calls; it is returned."""
        self._failure = error
        return error
