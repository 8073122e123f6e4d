"""One connection of a move: messages go out in order, and come in one by one. A Trio driver."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from .move_messages import Message
from .move_wire import Hello, MessageDecoder, encode
from .peer_link import GONE

__all__ = ["MoveLink"]

#: Bytes that wait to go out, above which chunks wait for room.
OUTBOX: Final = 256 * 1024
#: Seconds in which the other side has to take a byte, and to say one.
SEND_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 60.0

_READ_SIZE: Final = 65536


class MoveLink:
    """A connection about the move of ``hello``, opened by its source (``by_source``) or its target.

    ``opening`` goes out before any message. ``on_message`` gets each message, ``settle`` is waited for between two
    reads, so that nothing piles up.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        hello: Hello,
        by_source: bool,
        on_message: Callable[[MoveLink, Message], None],
        settle: Callable[[MoveLink], Awaitable[None]],
        opening: bytes = b"",
    ) -> None:
        self.hello = hello
        self.by_source = by_source
        #: Why it has ended, or is to end; empty while it goes on.
        self.reason = ""
        #: Whether anything has come over it.
        self.heard = False
        self._stream = stream
        self._on_message = on_message
        self._settle = settle
        self._outbox: deque[bytes] = deque([opening] if opening else ())
        self._size = len(opening)
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self._draining = False

    def send(self, message: Message) -> None:
        """Put a message behind the others. Never blocks; after the end it is dropped."""
        if not self.reason and not self._draining:
            self._put(encode(message))

    async def send_bulk(self, message: Message) -> None:
        """As :meth:`send`, when there is room. Raises BrokenResourceError once the link has ended."""
        while self._size > OUTBOX and not self.reason:
            await self._changed.wait()
        if self.reason:
            raise trio.BrokenResourceError(self.reason)
        self._put(encode(message))

    def end(self, reason: str) -> None:
        """End it; what has not gone out does not."""
        self.reason = self.reason or reason
        self._scope.cancel()
        self._wake()

    def finish(self) -> None:
        """End it when all has gone out."""
        self._draining = True
        self._wake()

    async def serve(self, rest: bytes) -> None:
        """Take ``rest`` as what came first, and go on until the end; ``reason`` says why then."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read(rest)
                    nursery.cancel_scope.cancel()
        finally:
            self.reason = self.reason or "closed"
            self._wake()
            await trio.aclose_forcefully(self._stream)

    def _put(self, data: bytes) -> None:
        self._outbox.append(data)
        self._size += len(data)
        self._wake()

    def _wake(self) -> None:
        event, self._changed = self._changed, trio.Event()
        event.set()

    async def _write(self) -> None:
        try:
            while True:
                while not self._outbox:
                    if self._draining:
                        self.end("nothing is left to say")
                    await self._changed.wait()
                data = b"".join(self._outbox)
                self._outbox.clear()
                with trio.fail_after(SEND_SECONDS):
                    await self._stream.send_all(data)
                self._size -= len(data)
                self._wake()
        except trio.TooSlowError:
            self.end(f"took no byte for {SEND_SECONDS:.0f} s")
        except GONE as error:
            self.end(str(error.__cause__ or error))

    async def _read(self, rest: bytes) -> None:
        decoder = MessageDecoder()
        data = rest
        try:
            while True:
                for message in decoder.feed(data):
                    if self.reason:
                        return
                    self.heard = True
                    self._on_message(self, message)
                if decoder.error is not None:
                    self.end(str(decoder.error))
                    return
                await self._settle(self)
                with trio.fail_after(SILENCE_SECONDS):
                    data = bytes(await self._stream.receive_some(_READ_SIZE))
                if not data:
                    self.end("the other side closed it")
                    return
        except trio.TooSlowError:
            self.end(f"silent for {SILENCE_SECONDS:.0f} s")
        except GONE as error:
            self.end(str(error.__cause__ or error))
