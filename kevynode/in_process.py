"""What the program that a node lives in calls: keys and commands, synchronously, and what it may wait for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import enable_ki_protection

from .changes import Changes
from .errors import ReplyError
from .serve.local import LocalClient, to_bytes
from .twins import COMPILED

if COMPILED:
    from .compiled.reading import plain_string

if TYPE_CHECKING:
    from .persist.persistence import Persistence
    from .replicate.replication import Replication
    from .serve.server import Server

__all__ = ["InProcess"]


class News:
    """Something that happens again and again, and that tasks wait for."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def tell(self) -> None:
        """It has happened: wake those who wait."""
        event, self._event = self._event, trio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait until it happens the next time."""
        await self._event.wait()


class InProcess:
    """The part of a node that programs call. Its methods belong to the Trio thread that runs the node.

    Keys and values are ``bytes``, or ``str`` taken as UTF-8.
    """

    def __init__(self, server: Server, replication: Replication, persistence: Persistence) -> None:
        self.server = server
        self.replication = replication
        self.persistence = persistence
        self._local = LocalClient(server)
        self._replication_news = News()
        self._durable_news = News()
        self._saved_news = News()
        replication.on_news = self._replication_news.tell
        persistence.on_durable = self._tell_durable
        persistence.on_saved = self._tell_saved

    def _tell_durable(self) -> None:
        self.server.durable_advanced()
        self._durable_news.tell()

    def _tell_saved(self) -> None:
        self.server.dump_ended()
        self._saved_news.tell()

    @enable_ki_protection
    def get(self, key: bytes | str) -> bytes | None:
        """The string under ``key``, or None. Synchronous. Raises ReplyError (WRONGTYPE) for another type.

        Nothing else runs between this call and the program's next checkpoint, so the answer stays true until then.
        """
        server = self.server
        if COMPILED:
            # What has no deadline needs no clock.
            found = plain_string(server.store, key)
            if found is not None:
                return found
        server.tick()
        value = server.store.read_string(to_bytes(key))
        if server.store.journal.pending:
            server.commit()
        return value

    def set(self, key: bytes | str, value: bytes | str) -> None:
        """Put a string under ``key``. Synchronous: every read after it sees it. It promises memory, not a disk.

        Raises ReplyError where a client would get an error (OOM and the like).
        """
        self.execute(b"SET", key, value)

    @enable_ki_protection
    def execute(self, name: bytes | str, *arguments: bytes | str | int | float) -> Any:
        """Run any command and return its reply as a plain Python value, as RESP3 types it. Synchronous.

        Statuses and verbatim texts are ``str``, bulk strings ``bytes``, maps ``dict``, sets ``set``, nulls None.
        Raises ReplyError. A blocking command does not wait: it answers as if its time had passed.
        """
        return self._local.execute(name, *arguments)

    def watch(self, prefix: bytes | str = b"") -> Changes:
        """The changes of keys under a prefix from now on, as an asynchronous iterator; see ``kevynode.changes``."""
        return Changes(self.server.store.journal, to_bytes(prefix))

    async def wait(self, replicas: int, timeout: float | None = None) -> int:
        """Wait until so many replicas have applied what this program wrote; how many have. As WAIT.

        Applied is in their memory, not on their disks. Gives up after ``timeout`` seconds (None: never). A checkpoint.
        Raises ReplyError on a replica.
        """
        await trio.lowlevel.checkpoint()
        # It asks the replicas how far they are.
        reached: int = self.execute(b"WAIT", replicas, 0)
        with trio.move_on_after(math.inf if timeout is None else timeout):
            while reached < replicas:
                await self._replication_news.wait()
                reached = self._local.count_acknowledged()
        return reached

    async def flush(self) -> None:
        """Wait until everything that this node has done so far is durable, whatever ``appendfsync`` says.

        Raises ReplyError if it cannot be stored, and where no append-only file is kept. A checkpoint.
        """
        await trio.lowlevel.checkpoint()
        mark = self.persistence.want_sync()
        while not (kept := self.persistence.kept(mark)):
            if kept is None:
                reason = self.persistence.problem or "no append-only file is kept"
                raise ReplyError("MISCONF", f"What was written is not durable: {reason}")
            await self._durable_news.wait()

    async def save(self) -> None:
        """Write a dump of all data as of now, beside whatever else goes on, and wait until it is complete.

        Raises ReplyError while another one is being written, and if it comes to nothing. A checkpoint.
        """
        await trio.lowlevel.checkpoint()
        before = self.persistence.dumps()
        self.persistence.save(schedule=True)
        while (facts := self.persistence.dumps()).running is not None or facts.scheduled:
            await self._saved_news.wait()
        if facts.saves == before.saves:
            raise ReplyError("ERR", "The dump could not be written. Check logs.")

    async def synced(self) -> None:
        """Wait until there are data to read: at once on a primary, on a replica when its first copy is complete."""
        await trio.lowlevel.checkpoint()
        while not self.replication.has_data:
            await self._replication_news.wait()
