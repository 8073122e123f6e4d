"""Following the changes under a prefix from inside the process."""

from __future__ import annotations

import weakref

import attrs
import trio

from .store.journal import Effect, Journal

__all__ = ["Change", "Changes", "ChangesLost"]

# Changes that may wait for a reader before it is told that it has fallen behind.
_HELD = 10_000


class ChangesLost(Exception):
    """The reader was too slow: changes had to be dropped. Read the present state and watch anew."""


@attrs.frozen
class Change:
    """One change of a key, whoever made it.

    ``command`` is the canonical command that makes the same change on a copy; ``key`` is None when everything was
    removed at once. ``offset`` is its number in the node's journal.
    """

    key: bytes | None
    command: tuple[bytes, ...]
    offset: int


class Changes:
    """An asynchronous iterator over :class:`Change`; see ``Node.watch``. It watches from the moment it is made."""

    def __init__(self, journal: Journal, prefix: bytes) -> None:
        self._journal = journal
        self._lost = False
        self._send, self._receive = trio.open_memory_channel[Change](_HELD)
        send, lost = self._send, weakref.ref(self)

        def observe(first: int, group: list[Effect]) -> None:
            for place, (command, key, _) in enumerate(group):
                if key is None or key.startswith(prefix):
                    try:
                        send.send_nowait(Change(key, tuple(command), first + place))
                    except trio.WouldBlock:
                        reader = lost()
                        if reader is not None:
                            reader._fall_behind()
                        return

        self._observer = observe
        journal.observers.append(observe)
        self._finalizer = weakref.finalize(self, _leave, journal, observe)

    def _fall_behind(self) -> None:
        self._lost = True
        self.close()

    def close(self) -> None:
        """Stop watching; an iteration under way ends after what it still holds."""
        self._finalizer()
        self._send.close()

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> Change:
        """The next change; waits for it. Raises :class:`ChangesLost` if some had to be dropped."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._lost:
                raise ChangesLost("changes came faster than they were read") from None
            raise StopAsyncIteration from None


def _leave(journal: Journal, observer: object) -> None:
    journal.observers[:] = [other for other in journal.observers if other is not observer]
