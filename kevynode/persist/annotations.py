"""The lines of an append-only file that are no commands: which entries follow, and from whom.

An annotation is one line, ``#kevynode:<word> key=value …`` and a CRLF, printable ASCII. Valkey and its check tool pass
over any line that starts with ``#``, if it has at most 1,023 bytes. Each annotation has exactly one spelling, so that a
line which says anything in another way is known to be damaged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

from ..replicate.lineage import MAX_OFFSET, Lineage
from ..store.journal import Origin

__all__ = [
    "ANNOTATION_LIMIT",
    "FORMAT_VERSION",
    "KINDS",
    "MARK",
    "PLACEMENT",
    "Annotation",
    "AnnotationError",
    "Digest",
    "End",
    "FileHeader",
    "GroupSpan",
    "Local",
    "MadeBy",
    "NewerFormat",
    "Position",
    "UpstreamCursor",
    "parse_annotation",
]

#: Longest annotation in bytes with its CRLF: what Valkey reads at most as one line.
ANNOTATION_LIMIT: Final = 1023
#: The version of the format that is written, and the newest that is read.
FORMAT_VERSION: Final = 1
#: How every annotation begins.
MARK: Final = b"#kevynode:"
#: A file holds everything as of one position, the entries from one position on, or entries that were written before
#: they had a position: they go on where the file before ends.
KINDS: Final = ("base", "incr", "stage")
#: The last of these: a placement.
PLACEMENT: Final = "stage"

_ANY_NUMBER: Final = 2**64 - 1
_ANY_CHECKSUM: Final = 2**32 - 1
# An address as people write it; everything else is escaped.
_PLAIN_IN_ADDRESSES: Final = ":[]"
_VERSION: Final = re.compile(rb"#kevynode:file version=([1-9][0-9]{0,9})[ \r]")


class AnnotationError(ValueError):
    """A line that starts like an annotation and is none; the text says why."""


class NewerFormat(AnnotationError):
    """The file was written in format ``version``, which is newer than what is known here."""

    def __init__(self, version: int) -> None:
        super().__init__(f"is written in format version {version}, newer than {FORMAT_VERSION}, the newest known here")
        self.version = version


class FileHeader(NamedTuple):
    """The first line of every file: what it is, so that a file under another's name is noticed."""

    kind: str
    sequence: int

    @property
    def is_placement(self) -> bool:
        """Whether its entries were written before they were made."""
        return self.kind == PLACEMENT

    def line(self) -> bytes:
        """The annotation."""
        return b"#kevynode:file version=%d kind=%b seq=%d\r\n" % (FORMAT_VERSION, self.kind.encode(), self.sequence)


class Position(NamedTuple):
    """Where the next entry stands: at ``offset`` of the history that ``lineage`` begins with.

    ``after`` is the offset that the next entry would have had without this line; None in the line at the start.
    """

    lineage: Lineage
    offset: int
    after: int | None = None

    def line(self) -> bytes:
        """The annotation; a lineage with all its ancestors fits."""
        ancestors = ",".join(f"{history}@{offset}" for history, offset in self.lineage.ancestors)
        after = "" if self.after is None else f" after={self.after}"
        text = f"#kevynode:position history={self.lineage.history} offset={self.offset} lineage={ancestors}{after}\r\n"
        return text.encode("ascii")


class UpstreamCursor(NamedTuple):
    """Up to where the entries of an upstream are in here; counts together with its entries that follow.

    ``upstream`` is the address it is dialled at. Inside MULTI … EXEC it holds from behind that group on.
    """

    upstream: str
    history: int
    offset: int

    def line(self) -> bytes:
        """The annotation. Raises ValueError if the address is too long for it."""
        return _limited(
            f"#kevynode:cursor upstream={_escape(self.upstream)} history={self.history} offset={self.offset}\r\n"
        )


class MadeBy(NamedTuple):
    """Who made the entries that follow: an upstream, or, with None, the node that wrote the file."""

    origin: Origin | None

    def line(self) -> bytes:
        """The annotation. Raises ValueError if the address of the upstream is too long for it."""
        if self.origin is None:
            return b"#kevynode:origin own\r\n"
        return _limited(f"#kevynode:origin upstream={_escape(self.origin.upstream)} history={self.origin.history}\r\n")


class GroupSpan(NamedTuple):
    """The group that follows takes all offsets up to ``next``, however many entries it has."""

    next: int

    def line(self) -> bytes:
        """The annotation."""
        return b"#kevynode:group next=%d\r\n" % self.next


class Local(NamedTuple):
    """Whether the data hold, from here on, writes that were made beside the stream that they are a copy of.

    No position tells of those. A file whose first lines do not say so begins without any.
    """

    is_local: bool

    def line(self) -> bytes:
        """The annotation."""
        return b"#kevynode:local yes\r\n" if self.is_local else b"#kevynode:local no\r\n"


class End(NamedTuple):
    """The last line of a file that is complete: it holds so many ``commands``, without MULTI and EXEC."""

    commands: int

    def line(self) -> bytes:
        """The annotation."""
        return b"#kevynode:end commands=%d\r\n" % self.commands


class Digest(NamedTuple):
    """The line at byte ``place``: the ``crc32`` of all bytes between it and the digest before.

    ``synced``: so many bytes of the file, at most ``place``, were durable when it was written, at least.
    """

    crc32: int
    place: int
    synced: int

    def line(self) -> bytes:
        """The annotation."""
        return b"#kevynode:digest crc32=%d place=%d synced=%d\r\n" % self


Annotation: TypeAlias = FileHeader | Position | UpstreamCursor | MadeBy | GroupSpan | Local | End | Digest


def _limited(text: str) -> bytes:
    line = text.encode("ascii")
    if len(line) > ANNOTATION_LIMIT:
        raise ValueError(f"an annotation has at most {ANNOTATION_LIMIT} bytes, not {len(line)}")
    return line


def _escape(address: str) -> str:
    return quote(address, safe=_PLAIN_IN_ADDRESSES, errors="surrogateescape")


def _number(text: str, limit: int = MAX_OFFSET) -> int:
    # int() alone would take blanks, signs and underscores; the spelling is compared afterwards.
    if not text.isdigit() or len(text) > 20 or int(text) > limit:
        raise AnnotationError(f"a number up to {limit} is expected, not {text[:40]!r}")
    return int(text)


def _lineage(history: str, ancestors: str) -> Lineage:
    pairs = []
    for pair in ancestors.split(",") if ancestors else ():
        ancestor, _, offset = pair.partition("@")
        pairs.append((_number(ancestor), _number(offset)))
    try:
        return Lineage(_number(history), tuple(pairs))
    except AnnotationError:
        raise
    except ValueError as error:
        raise AnnotationError(str(error)) from None


def _header(values: dict[str, str]) -> FileHeader:
    if values["kind"] not in KINDS:
        raise AnnotationError(f"the kind of a file is base, incr or stage, not {values['kind'][:40]!r}")
    if _number(values["version"]) != FORMAT_VERSION:
        raise AnnotationError(f"there is no format version {values['version']}")
    return FileHeader(values["kind"], _number(values["seq"]))


def _position(values: dict[str, str]) -> Position:
    after = values.get("after")
    return Position(
        _lineage(values["history"], values["lineage"]),
        _number(values["offset"]),
        None if after is None else _number(after),
    )


def _cursor(values: dict[str, str]) -> UpstreamCursor:
    upstream = unquote(values["upstream"], errors="surrogateescape")
    return UpstreamCursor(upstream, _number(values["history"], _ANY_NUMBER), _number(values["offset"]))


def _origin(values: dict[str, str]) -> MadeBy:
    if "own" in values:
        return MadeBy(None)
    upstream = unquote(values["upstream"], errors="surrogateescape")
    return MadeBy(Origin(upstream, _number(values["history"], _ANY_NUMBER)))


def _group(values: dict[str, str]) -> GroupSpan:
    return GroupSpan(_number(values["next"]))


def _local(values: dict[str, str]) -> Local:
    return Local("yes" in values)


def _end(values: dict[str, str]) -> End:
    return End(_number(values["commands"]))


def _digest(values: dict[str, str]) -> Digest:
    place = _number(values["place"])
    return Digest(_number(values["crc32"], _ANY_CHECKSUM), place, _number(values["synced"], place))


_PARSERS: Final[dict[str, Callable[[dict[str, str]], Annotation]]] = {
    "file": _header,
    "position": _position,
    "cursor": _cursor,
    "origin": _origin,
    "group": _group,
    "local": _local,
    "end": _end,
    "digest": _digest,
}


def parse_annotation(line: bytes) -> Annotation:
    """What the line, with its CRLF, says. Raises AnnotationError, of which NewerFormat is one."""
    version = _VERSION.match(line)
    if version is not None and int(version[1]) > FORMAT_VERSION:
        raise NewerFormat(int(version[1]))
    if not line.startswith(MARK) or len(line) > ANNOTATION_LIMIT:
        raise AnnotationError("no annotation of kevynode")
    try:
        word, *pairs = line[len(MARK) :].decode("ascii").split()
        values = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
        annotation = _PARSERS[word](values)
    except AnnotationError:
        raise
    except (ValueError, KeyError):
        raise AnnotationError("an annotation that is not known here") from None
    if annotation.line() != line:
        raise AnnotationError("an annotation that is not spelled as it must be")
    return annotation
