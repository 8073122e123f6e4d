"""The manifest of the append-only folder: which files make up the data, and in which order.

Format and names are Valkey's, so that its server loads the folder: a line for each file, ``file <name> seq <number>
type <b|h|i>``, with further pairs of keys and values allowed behind. A base (``b``) holds everything as of one moment,
increments (``i``) what came after, in order; files of the history (``h``) are superseded and may be removed.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import attrs

from ..resp import split_inline

__all__ = [
    "FILE_LIMIT",
    "LINE_LIMIT",
    "NAME",
    "Manifest",
    "ManifestError",
    "ManifestFile",
    "base_name",
    "increment_name",
    "manifest_name",
]

#: What the names of the files begin with.
NAME: Final = "appendonly.aof"
#: Longest line, without its line end, as Valkey.
LINE_LIMIT: Final = 1023
#: Most files of a manifest that is read; nobody has that many who compacts now and then.
FILE_LIMIT: Final = 100_000

_SEQUENCE_LIMIT: Final = 2**63 - 1
_SEQUENCE: Final = re.compile("[1-9][0-9]{0,18}")
_TYPES: Final = "bhi"
_KEYS: Final = ("file", "seq", "type")


class ManifestError(ValueError):
    """A manifest that is none. ``line`` is the number of the line, from 1 on; 0 if it is about the whole."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line
        self.reason = reason


class ManifestFile(NamedTuple):
    """One line: the file's ``name`` in the folder, its number, and its type, ``b``, ``h`` or ``i``.

    ``more`` holds what else the line says, as pairs; Valkey marks there where entries of an increment begin and end.
    """

    name: str
    sequence: int
    type: str
    more: tuple[tuple[str, str], ...] = ()

    @property
    def is_rdb(self) -> bool:
        """Whether it is a base that Valkey wrote in its snapshot format, by its name."""
        return self.name.endswith(".rdb")


@attrs.frozen
class Manifest:
    """The files in use: at most one ``base``, the ``increments`` in order, and superseded ones in ``history``.

    >>> manifest = Manifest().with_base(1).with_increment(1)
    >>> print(manifest.format().decode(), end="")
    file appendonly.aof.1.base.aof seq 1 type b
    file appendonly.aof.1.incr.aof seq 1 type i
    """

    base: ManifestFile | None = None
    increments: tuple[ManifestFile, ...] = ()
    history: tuple[ManifestFile, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest as kevynode or Valkey wrote it. Raises ManifestError."""
        if not data:
            raise ManifestError(0, "the manifest is empty")
        base: ManifestFile | None = None
        increments: list[ManifestFile] = []
        history: list[ManifestFile] = []
        names: set[str] = set()
        lines = data.split(b"\n")
        if lines.pop():
            raise ManifestError(len(lines) + 1, "the line does not end")
        if len(lines) > FILE_LIMIT:
            raise ManifestError(0, f"more than {FILE_LIMIT} files")
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_LIMIT:
                raise ManifestError(number, f"the line is longer than {LINE_LIMIT} bytes")
            if line.startswith(b"#"):
                continue
            file = _parse_line(number, line)
            if file.name in names:
                raise ManifestError(number, f"the file {file.name} stands twice")
            names.add(file.name)
            if file.type == "b":
                if base is not None:
                    raise ManifestError(number, "a second base")
                base = file
            elif file.type == "i":
                if increments and file.sequence <= increments[-1].sequence:
                    raise ManifestError(number, "increments must stand in order of their numbers")
                increments.append(file)
            else:
                history.append(file)
        return cls(base, tuple(increments), tuple(history))

    def format(self) -> bytes:
        """The manifest as a file: base, history and increments, as Valkey orders them."""
        files = [*([] if self.base is None else [self.base]), *self.history, *self.increments]
        return b"".join(map(_format_line, files))

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """What has to be loaded, in order."""
        return self.increments if self.base is None else (self.base, *self.increments)

    def left_out(self) -> ManifestFile | None:
        """A superseded file that nothing in use can have superseded; None if there is none, as in all that are written.

        Bits that change on a disk make one of a file in use, which would be left out, and removed.
        """
        bases = [file for file in self.history if ".base." in file.name]
        increments = [file for file in self.history if ".incr." in file.name]
        for file in bases:
            if self.base is None or file.sequence >= self.base.sequence:
                return file
        if not self.increments:
            # Valkey supersedes all of them where it has switched the file off, with the base before.
            return increments[0] if increments and not bases else None
        first = self.increments[0].sequence
        return next((file for file in increments if file.sequence >= first), None)

    @property
    def next_base(self) -> int:
        """The number of the next base; no base that is known here has it."""
        return 1 + max((file.sequence for file in (self.base, *self.history) if file is not None), default=0)

    @property
    def next_increment(self) -> int:
        """The number of the next increment; no increment that is known here has it."""
        return 1 + max((file.sequence for file in (*self.increments, *self.history)), default=0)

    def with_base(self, sequence: int, *, keep_from: int | None = None) -> Manifest:
        """With a new base in place of all files, or of those before increment ``keep_from``; they become history."""
        kept = tuple(file for file in self.increments if keep_from is not None and file.sequence >= keep_from)
        superseded = tuple(file._replace(type="h") for file in self.files if file not in kept)
        return Manifest(ManifestFile(base_name(sequence), sequence, "b"), kept, (*self.history, *superseded))

    def with_increment(self, sequence: int) -> Manifest:
        """With one more increment at the end. Raises ValueError if its number is not above the others'."""
        if self.increments and sequence <= self.increments[-1].sequence:
            raise ValueError(f"increment {sequence} cannot follow {self.increments[-1].sequence}")
        increment = ManifestFile(increment_name(sequence), sequence, "i")
        return attrs.evolve(self, increments=(*self.increments, increment))

    def without_history(self) -> Manifest:
        """Without the superseded files, once they are removed."""
        return attrs.evolve(self, history=())


def base_name(sequence: int) -> str:
    """The name of a base of RESP commands."""
    return f"{NAME}.{sequence}.base.aof"


def increment_name(sequence: int) -> str:
    """The name of an increment."""
    return f"{NAME}.{sequence}.incr.aof"


def manifest_name() -> str:
    """The name of the manifest."""
    return f"{NAME}.manifest"


def _parse_line(number: int, line: bytes) -> ManifestFile:
    words = split_inline(line)
    if words is None:
        raise ManifestError(number, "a quote is not closed")
    if len(words) < 2 * len(_KEYS) or len(words) % 2:
        raise ManifestError(number, "expected: file <name> seq <number> type <b|h|i>")
    values: dict[str, str] = {}
    for key, value in zip(words[::2], words[1::2], strict=True):
        name = key.decode("utf-8", "surrogateescape").lower()
        if name in values:
            raise ManifestError(number, f"{name!r} is said twice")
        values[name] = value.decode("utf-8", "surrogateescape")
    for name in _KEYS:
        if name not in values:
            raise ManifestError(number, f"{name!r} is missing")
    sequence = values["seq"]
    if not _SEQUENCE.fullmatch(sequence) or int(sequence) > _SEQUENCE_LIMIT:
        raise ManifestError(number, f"the number of a file is 1 or more, not {sequence[:40]!r}")
    if values["type"] not in _TYPES or len(values["type"]) != 1:
        raise ManifestError(number, f"the type of a file is b, h or i, not {values['type'][:40]!r}")
    if values["file"] in ("", ".", "..") or "/" in values["file"] or "\0" in values["file"]:
        raise ManifestError(number, f"{values['file']!r} is no name of a file in this folder")
    more = tuple((key, value) for key, value in values.items() if key not in _KEYS)
    return ManifestFile(values["file"], int(sequence), values["type"], more)


def _format_line(file: ManifestFile) -> bytes:
    pairs = [("file", file.name), ("seq", str(file.sequence)), ("type", file.type), *file.more]
    return b" ".join(_quoted(word) for pair in pairs for word in pair) + b"\n"


def _quoted(word: str) -> bytes:
    """The word as it is if no reader takes it for anything else, otherwise in quotes."""
    data = word.encode("utf-8", "surrogateescape")
    if data and all(0x20 < byte < 0x7F and byte not in b"\"'\\" for byte in data):
        return data
    return b'"%b"' % b"".join(
        b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\x%02x" % byte for byte in data
    )
