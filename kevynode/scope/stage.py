"""What has arrived of a slice at the target of a move: a file of RESP commands, and the data that they build.

The file lies in the data directory, ``kevynode.stage.<digest of the move's id>``. It is written in pieces as they come,
made durable before the target says SEALED, and found again after a restart by the move's record. Nothing of it counts
until it is replayed into a :class:`~kevynode.store.staging.PrefixStaging`, which then takes the place of the keys under
the prefix in one step.

Pure but for the injected disk; what takes long is to be called in a thread, or taken step by step.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Final

from ..disk import Disk, DiskFile, write_all
from ..resp import RequestParser
from ..store.apply import Applier, ApplyError
from ..store.staging import PrefixStaging
from ..store.store import Store
from ..twins import COMPILED

if COMPILED:
    from ..compiled.requests import take_plain
else:
    from ..resp import take_plain

__all__ = ["StageDigest", "StageError", "StageFile", "StageReplay", "encode_command", "remove_strays"]

#: How the names of stages begin.
STAGE: Final = "kevynode.stage."
#: Bytes of the file that are read at once.
_PIECE: Final = 1 << 20
#: Bytes that are read, and commands that are applied, between two places at which a replay can be interrupted: less
#: than half of a millisecond's work.
_READ: Final = 16 * 1024
_STEP: Final = 100
#: What rebuilds a key; the word that is the key is the second, of XGROUP the third.
_REBUILDS: Final = frozenset(b"SET HSET RPUSH SADD ZADD XADD XTRIM XSETID XGROUP XCLAIM PEXPIREAT HPEXPIREAT".split())


class StageError(Exception):
    """The bytes of a stage are not what rebuilds keys under its prefix; the text says why, ``key`` where, if it can."""

    def __init__(self, text: str, key: bytes = b"") -> None:
        super().__init__(text)
        self.key = key


def encode_command(command: Sequence[bytes]) -> bytes:
    """A command as it stands in a stage."""
    return b"*%d\r\n" % len(command) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in command])


class StageDigest:
    """The digest of a stage's bytes, 64 hexadecimal digits: what went out and what has come are the same, in order."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=32)

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    @property
    def hexadecimal(self) -> str:
        """The digest of everything added."""
        return self._hash.hexdigest()


class StageFile:
    """The file of one move's stage. Its methods may take long, and raise OSError."""

    def __init__(self, disk: Disk, data_dir: str, move_id: str) -> None:
        self._disk = disk
        self._data_dir = data_dir
        self._path = posixpath.join(data_dir, stage_name(move_id))
        self._file: DiskFile | None = None

    def begin(self) -> None:
        """An empty file, whatever there was."""
        self.close()
        self._file = self._disk.create(self._path)

    def append(self, data: bytes) -> None:
        """The next bytes."""
        assert self._file is not None
        write_all(self._file, data)

    def sync(self) -> None:
        """Make durable what was written, and that there is such a file. Nothing may be appended any more."""
        assert self._file is not None
        self._file.sync()
        self._disk.sync_folder(self._data_dir)
        self.close()

    def close(self) -> None:
        """Close it, and leave it where it is; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def exists(self) -> bool:
        """Whether there is such a file."""
        return self._disk.exists(self._path)

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the file from its beginning."""
        with self._disk.open_read(self._path) as file:
            while piece := file.read(_PIECE):
                yield piece

    def remove(self) -> None:
        """Remove it durably; it need not be there."""
        self.close()
        if self.exists():
            self._disk.remove(self._path)
            self._disk.sync_folder(self._data_dir)


def stage_name(move_id: str) -> str:
    """The name of a move's stage. The id is a peer's word and may hold what no file name should."""
    return STAGE + blake2b(move_id.encode(), digest_size=12).hexdigest()


def remove_strays(disk: Disk, data_dir: str, open_moves: Iterable[str]) -> Collection[str]:
    """Remove the stages of all moves but those that are open; their names. Raises OSError."""
    if not disk.exists(data_dir):
        return ()
    kept = {stage_name(move_id) for move_id in open_moves}
    strays = [name for name in disk.list(data_dir) if name.startswith(STAGE) and name not in kept]
    for name in strays:
        disk.remove(posixpath.join(data_dir, name))
    return strays


class StageReplay:
    """Builds the data of a stage aside, from its bytes in any pieces. After a StageError it is of no use any more."""

    def __init__(self, prefix: bytes, store: Store) -> None:
        self._prefix = prefix
        # A store of its own, of which nobody but the applier knows. Containers are as old as those of the real one.
        self._aside = Store(store.random)
        self._aside.epoch = store.epoch
        self._applier = Applier(self._aside)
        self._parser = RequestParser(take_plain=take_plain)
        self._digest = StageDigest()
        self.commands = 0

    @property
    def digest(self) -> str:
        """The digest of the bytes so far."""
        return self._digest.hexadecimal

    def feed(self, data: bytes) -> Iterator[None]:
        """Apply what ``data`` completes; yields now and then. Raises StageError."""
        self._digest.add(data)
        parser = self._parser
        for place in range(0, len(data), _READ):
            if place:
                yield
            commands = parser.feed(data[place : place + _READ])
            for start in range(0, len(commands), _STEP):
                if start:
                    yield
                some = commands[start : start + _STEP]
                self._check(some)
                self.apply(some)
            if parser.error is not None:
                raise StageError(f"a stage with what is no command: {parser.error.decode('latin-1')}")

    def finish(self) -> PrefixStaging:
        """The data. Raises StageError if the last command is cut off."""
        if not self._parser.plain:
            raise StageError("a stage ends in the midst of a command")
        aside = self._aside
        staging = PrefixStaging((self._prefix,), aside.epoch)
        staging.keyspace, staging.used = aside.keyspace, aside.used
        staging.field_deadline_keys = aside.field_deadline_keys
        return staging

    def _check(self, commands: list[list[bytes]]) -> None:
        prefix = self._prefix
        for command in commands:
            place = 2 if command[0] == b"XGROUP" else 1
            if len(command) <= place or command[0] not in _REBUILDS:
                raise StageError(f"a stage with a command that rebuilds nothing: {command[:1]!r}"[:200])
            if not command[place].startswith(prefix):
                raise StageError(f"a stage with the key {command[place][:64]!r}, which is not under its prefix")

    def apply(self, commands: list[list[bytes]]) -> None:
        """Apply commands, each of which must make exactly one change. Raises StageError."""
        try:
            self._applier.apply_all(commands)
        except ApplyError as error:
            raise StageError(f"a stage with a command that cannot be applied: {error}", error.key or b"") from error
        self.commands += len(commands)
        self._aside.settle()
        self._aside.journal.commit()
