"""The ledger's file, ``kevynode.ledger`` in the data directory: records that are durable before the next step is taken.

The first line names the format and its version. Behind it stand **appends**, each of one or more records that count
together or not at all. A record is one line of ASCII: a checksum of all that follows, the number of its append in this
file (from 1 on), the version of the ledger with it, ``+`` where more records belong to the append and ``.`` at the
last, and the record's text::

    kevynode-ledger version=1
    5ab11c07 1 1 . settled
    0c3f9e52 2 2 + entry prefix=app: owner=b epoch=4 move=7d1a
    77be6b1d 2 2 . move id=7d1a prefix=app: role=target state=ACTIVATED …

A file comes into being beside its name, with its first append, and takes the name when it is durable. So the first
append is always whole; each later one is durable before the next begins. Only the last one can be torn, then, and only
so that it ends early or has gaps of zeros where blocks were not written. That is cut, and reported. Anything else that
does not fit is damage, also in the last append, for that may have been relied on: the node must not start with it.

A start writes the file anew. Where a sync had failed and the process ended then, the system may still show the bytes
that it has dropped: they would be relied on, and be gone after a loss of power, whatever a second sync answers.

Who calls what, and when:

- *At start*, with the data directory locked: :func:`load`, then ``LedgerFile(disk, data_dir, loaded)``. Where
  ``loaded.cut`` says that an append was torn, log it. What the node goes by is a state of its own, ``loaded.state``.
- *For each step*: ``version = file.append(records)``, in a thread, never two at the same time (hold one lock around
  it); when it has returned, ``state.add(records)`` in the thread of the node, and take the step.
- *After an error*: the step is not taken. Whether the next start finds those records is open until another append, of
  one record at least, has returned, or :meth:`LedgerFile.settle`; then they are gone for good, unless appended again.
  Settle soon: somebody may have been told that what failed is not done.
- *Restoring a backup* of the data directory: leave this file out (remove it). The node then asks all others.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar
from zlib import crc32

import attrs

from ..disk import Disk, DiskFile, write_all
from .ledger import LedgerEntry
from .ledger_records import LedgerState, Record, VersionFloor, parse_record
from .ledger_text import LedgerError

__all__ = [
    "FORMAT_VERSION",
    "LEDGER",
    "Cut",
    "LedgerDamaged",
    "LedgerFile",
    "LedgerFileError",
    "Loaded",
    "NewerLedger",
    "load",
]

#: The name of the file in the data directory.
LEDGER: Final = "kevynode.ledger"
#: The version of the format that is written, and the newest that is read.
FORMAT_VERSION: Final = 1
#: The file is written anew once it is larger than this, and twice as large as it was when it was last made.
REWRITE_SIZE: Final = 256 * 1024
#: No larger file is read: several times what a full ledger takes.
FILE_LIMIT: Final = 256 * 1024 * 1024

T = TypeVar("T")

_FIRST_LINE: Final = b"kevynode-ledger version=%d\n" % FORMAT_VERSION
_ANY_FIRST_LINE: Final = re.compile(rb"kevynode-ledger version=([1-9][0-9]{0,8})\n")
_LINE: Final = re.compile(rb"([0-9a-f]{8}) ([1-9][0-9]{0,15}) (0|[1-9][0-9]{0,15}) ([+.]) ([ -~]+)")
# A gap in a torn append ends where a block of the disk does.
_BLOCK: Final = 512
_GAP: Final = re.compile(rb"\0+")


class LedgerFileError(Exception):
    """The file cannot be used; the text names it, and says what to do. ``path`` is where it is."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path


class NewerLedger(LedgerFileError):
    """The file was written in format ``version``, which is newer than what is known here."""

    def __init__(self, path: str, version: int) -> None:
        super().__init__(
            path,
            f"{path} is written in format version {version}, newer than {FORMAT_VERSION}, the newest known here: "
            "run the kevynode that wrote it",
        )
        self.version = version


class LedgerDamaged(LedgerFileError):
    """Byte ``offset`` of the file, or one not far behind it, is not what was written."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(
            path,
            f"{path} is damaged at byte {offset} ({reason}): put the intact file back; or remove it, and this node "
            "opens its scopes once every other node has told it what it knows",
        )
        self.offset = offset


@attrs.frozen
class Cut:
    """The last append was torn and does not count: ``size`` bytes from ``offset`` on."""

    offset: int
    size: int


@attrs.frozen
class Loaded:
    """What :func:`load` found: the state, whether there was a file, and what of it does not count."""

    state: LedgerState
    existed: bool = False
    cut: Cut | None = None
    #: Bytes in the file as it is now, with one append.
    size: int = 0


def load(disk: Disk, data_dir: str) -> Loaded:
    """Read the ledger of a data directory, which must exist and be locked; without a file an empty one.

    The file is written anew with what is returned, without what was torn, and is durable. Takes long. Raises
    NewerLedger, LedgerDamaged, LedgerFileError, which leave everything as it is, and OSError.
    """
    path = posixpath.join(data_dir, LEDGER)
    if not disk.exists(path):
        return Loaded(LedgerState())
    size = disk.size(path)
    if size > FILE_LIMIT:
        raise LedgerFileError(path, f"{path} has {size} bytes, more than {FILE_LIMIT}: this is no ledger")
    state, cut = _Reading(path, disk.read(path, 0, FILE_LIMIT)).run()
    return Loaded(state, True, cut, _write_anew(disk, data_dir, state))


class LedgerFile:
    """Appends to the file that ``loaded`` was read from, in a data directory that stays locked.

    ``loaded`` must not change before this has returned; afterwards nothing is shared. ``path`` is where the file is.
    """

    def __init__(self, disk: Disk, data_dir: str, loaded: Loaded) -> None:
        self._disk = disk
        self._data_dir = data_dir
        self.path = posixpath.join(data_dir, LEDGER)
        # All that has been appended.
        self._state = loaded.state.copy()
        # Appends in the file, and its size; None: the next append writes another file.
        self._end = (1, loaded.size) if loaded.existed else None
        # Whether the last append has failed.
        self._is_doubtful = False
        # Its size when it was written.
        self._made_size = loaded.size
        self._file: DiskFile | None = None
        self._is_appending = False

    @property
    def version(self) -> int:
        """The version of what is durable."""
        return self._state.version

    @property
    def size(self) -> int | None:
        """Bytes in the file; None while the next append will write another."""
        return None if self._end is None else self._end[1]

    @property
    def is_doubtful(self) -> bool:
        """Whether the next start may find records of which an append has failed."""
        return self._is_doubtful

    def settle(self) -> None:
        """If the last append has failed, have the file hold nothing of it. As :meth:`append` in every other way."""
        if self._is_doubtful:
            self._alone(self._settle)

    def append(self, records: Iterable[Record]) -> int:
        """Make ``records`` durable, all or none, and return the version of the ledger with them.

        Takes long: not for a thread that others wait for, and not while another append runs (RuntimeError). Raises
        OSError; what the file then holds is open until another append has succeeded, which writes a new file. Raises
        LedgerError, before anything is written, for more than a ledger holds.
        """
        return self._alone(partial(self._append, tuple(records)))

    def _alone(self, call: Callable[[], T]) -> T:
        if self._is_appending:
            raise RuntimeError("two appends to the ledger at the same time")
        self._is_appending = True
        try:
            return call()
        finally:
            self._is_appending = False

    def close(self) -> None:
        """Close the file; everything that was appended is durable. The next append opens it again."""
        file, self._file = self._file, None
        if file is not None:
            _close(file)

    def _settle(self) -> None:
        self.close()
        self._made_size = _write_anew(self._disk, self._data_dir, self._state)
        self._end = 1, self._made_size
        self._is_doubtful = False

    def _append(self, records: tuple[Record, ...]) -> int:
        if not records:
            return self._state.version
        version = self._state.version_after(records)
        self._state.ledger.compare(record for record in records if isinstance(record, LedgerEntry))
        end, self._end = self._end, None
        try:
            if end is None or end[1] > max(2 * self._made_size, REWRITE_SIZE):
                self.close()
                state = self._state.copy()
                state.add(records)
                self._made_size = _write_anew(self._disk, self._data_dir, state)
                end = 1, self._made_size
            else:
                number, size = end
                lines = _format(records, number + 1, version)
                if self._file is None:
                    self._file = self._disk.open_append(self.path, create=False)
                write_all(self._file, lines)
                self._file.sync()
                end = number + 1, size + len(lines)
        except BaseException:
            # Nothing is known about the end of the file any more.
            self._is_doubtful = True
            self.close()
            raise
        self._end = end
        self._is_doubtful = False
        self._state.add(records)
        return version


def _write_anew(disk: Disk, data_dir: str, state: LedgerState) -> int:
    """Put a file that holds ``state`` in the place of what is there: its size."""
    # A version alone must be told by some record, too.
    records = tuple(state.records()) or (VersionFloor(max(state.version - 1, 0)),)
    lines = _FIRST_LINE + _format(records, 1, state.version)
    temporary = posixpath.join(data_dir, "temp-" + LEDGER)
    file = disk.create(temporary)
    try:
        write_all(file, lines)
        file.sync()
    finally:
        _close(file)
    disk.rename(temporary, posixpath.join(data_dir, LEDGER))
    disk.sync_folder(data_dir)
    return len(lines)


class _Reading:
    """Goes through the bytes of a file once."""

    def __init__(self, path: str, data: bytes) -> None:
        self._path = path
        self._data = data
        self._state = LedgerState()
        # Appends that are whole, and where the last of them ends.
        self._number = 0
        self._end = 0

    def run(self) -> tuple[LedgerState, Cut | None]:
        """All appends that are whole, and what is behind them. Raises as :func:`load`."""
        self._end = self._first_line()
        while self._end < len(self._data):
            place = self._one_append()
            if place is None:
                return self._state, Cut(self._end, len(self._data) - self._end)
            self._end = place
        if self._number == 0:
            raise LedgerDamaged(self._path, self._end, "it ends before its first record")
        return self._state, None

    def _first_line(self) -> int:
        match = _ANY_FIRST_LINE.match(self._data)
        if match is None:
            raise LedgerDamaged(self._path, 0, "its first line is not that of a ledger")
        if int(match[1]) > FORMAT_VERSION:
            raise NewerLedger(self._path, int(match[1]))
        return match.end()

    def _one_append(self) -> int | None:
        """Take the append at the end of what has been read: where it ends; None if it is torn."""
        place = self._end
        texts: list[str] = []
        version: int | None = None
        while True:
            stop = self._data.find(b"\n", place)
            line = self._data[place : stop if stop >= 0 else len(self._data)]
            found = _read_line(line)
            if stop < 0 and found is None:
                # The line end may be all that is wrong. (Where it is missing the line fits: it counts.)
                found = _read_line(line[:-1])
            if found is None:
                self._check_torn(place, "it does not fit its checksum" if stop >= 0 else "it ends within a line")
                return None
            number, line_version, is_last, text = found
            if number != self._number + 1 or version not in (None, line_version):
                raise LedgerDamaged(self._path, place, "a record stands where it does not belong")
            version = line_version
            texts.append(text)
            place = stop + 1 if stop >= 0 else len(self._data)
            if is_last:
                break
            if place == len(self._data):
                self._check_torn(place, "it ends within an append")
                return None
        self._add(texts, version)
        self._number += 1
        return place

    def _add(self, texts: list[str], version: int) -> None:
        """Add the records of an append that is whole."""
        try:
            records = [parse_record(text) for text in texts]
            expected = self._state.version_after(records)
            self._state.add(records)
        except LedgerError as error:
            raise LedgerDamaged(self._path, self._end, str(error)) from None
        if self._number == 0:
            # Written anew: it stands for all appends before it.
            self._state.version = version
        elif version != expected:
            raise LedgerDamaged(self._path, self._end, f"version {version} follows where {expected} should")

    def _check_torn(self, place: int, reason: str) -> None:
        """Raise LedgerDamaged, at ``place``, unless what follows can be an append that was the last, and torn."""
        data = self._data
        rest = data[place:]
        ends_early = b"\n" not in rest and b"\0" not in rest
        gaps = list(_GAP.finditer(data, self._end))
        has_gaps = bool(gaps) and all(gap.end() == len(data) or gap.end() % _BLOCK == 0 for gap in gaps)
        if self._number == 0 or not (ends_early or has_gaps):
            raise LedgerDamaged(self._path, place, reason)
        for line in data[self._end :].split(b"\n"):
            found = _read_line(line)
            if found is not None and found[0] > self._number + 1:
                raise LedgerDamaged(self._path, place, reason)


def _format(records: tuple[Record, ...], number: int, version: int) -> bytes:
    """The lines of one append."""
    last = len(records) - 1
    lines = []
    for index, record in enumerate(records):
        rest = f"{number} {version} {'.' if index == last else '+'} {record.text()}".encode("ascii")
        lines.append(b"%08x %b\n" % (crc32(rest), rest))
    return b"".join(lines)


def _read_line(line: bytes) -> tuple[int, int, bool, str] | None:
    """The number of the append, the version, whether it is the last record, and its text; None if it is damaged."""
    match = _LINE.fullmatch(line)
    if match is None or int(match[1], 16) != crc32(line[9:]):
        return None
    return int(match[2]), int(match[3]), match[4] == b".", match[5].decode("ascii")


def _close(file: DiskFile) -> None:
    """Close it; whatever goes wrong concerns nobody any more."""
    try:
        file.close()
    except OSError:
        pass
