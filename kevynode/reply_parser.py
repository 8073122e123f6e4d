"""Sans-I/O parsing of replies in the Redis serialization protocol, versions 2 and 3.

:class:`ReplyParser` takes bytes as they arrive and gives whole replies. A peer that drips bytes costs no more than
their number, and one reply can neither nest without end nor take more memory than the parser was told.

====================================  =================================================================
on the wire                           value
====================================  =================================================================
simple string ``+``, verbatim ``=``   ``str`` (UTF-8; other bytes as surrogate escapes)
error ``-``, bulk error ``!``         :class:`kevynode.errors.ReplyError`, as a value
integer ``:``, big number ``(``       ``int``
bulk string ``$``                     ``bytes``
double ``,``                          ``float``
boolean ``#``                         ``bool``
nulls                                 ``None``
array ``*``                           ``list``
set ``~``                             ``list``, because a set may hold what Python cannot hash
map ``%``                             ``dict``; a list of pairs where a key cannot be hashed
push ``>``, attribute ``|``           none: they answer nothing, and are left out
====================================  =================================================================
"""

from __future__ import annotations

from typing import Any, Final

from .errors import ReplyError

__all__ = ["DEPTH_LIMIT", "LINE_LIMIT", "REPLY_LIMIT", "ReplyParser", "ReplyProtocolError", "error_reply"]

#: Bytes of one reply, unless the parser is told otherwise; as much as the largest value of Valkey's default limits.
REPLY_LIMIT: Final = 512 << 20
#: Longest line: simple strings, errors, numbers and lengths.
LINE_LIMIT: Final = 64 << 10
#: Aggregates inside aggregates; CLUSTER SLOTS and COMMAND need five.
DEPTH_LIMIT: Final = 32
# Digits of the largest number that is read; Python's own limit for texts of integers is 4300.
_DIGITS: Final = 400
# What an element costs beside its bytes, for the limit of a reply.
_ELEMENT: Final = 64
_NOTHING: Final = object()
_LEFT_OUT: Final = object()


class ReplyProtocolError(Exception):
    """The peer does not speak the protocol, or goes beyond the bounds. The parser is of no more use."""


class _Aggregate:
    __slots__ = ("items", "kind", "missing")

    def __init__(self, kind: int, missing: int) -> None:
        self.kind = kind
        self.missing = missing
        self.items: list[Any] = []


def error_reply(line: str) -> ReplyError:
    """The error whose line, without ``-``, this is."""
    prefix, _, text = line.partition(" ")
    return ReplyError(prefix, text)


class ReplyParser:
    """Bytes in, replies out.

    >>> parser = ReplyParser()
    >>> parser.feed(b"+OK\\r\\n$3\\r\\nab")
    ['OK']
    >>> parser.feed(b"c\\r\\n*2\\r\\n:1\\r\\n$-1\\r\\n")
    [b'abc', [1, None]]
    """

    __slots__ = ("_blob", "_blob_kind", "_buffer", "_open", "_searched", "_used", "limit")

    def __init__(self, limit: int = REPLY_LIMIT) -> None:
        self.limit = limit
        self._buffer = bytearray()
        # Up to where the buffer is known to hold no line end.
        self._searched = 0
        # The aggregates that are not complete, the outermost first.
        self._open: list[_Aggregate] = []
        # Bytes of the blob that is announced, or -1.
        self._blob = -1
        self._blob_kind = 0
        # What the reply under way takes, by the measure of the limit.
        self._used = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of a reply is held: this is where a connection may end."""
        return not self._buffer and not self._open and self._blob < 0

    def feed(self, data: bytes | bytearray) -> list[Any]:
        """The replies that ``data`` completes, in order; errors are values. Raises :class:`ReplyProtocolError`."""
        self._buffer += data
        replies: list[Any] = []
        place = 0
        while True:
            value, place = self._next(place)
            if value is _NOTHING:
                break
            whole = self._put(value)
            if whole is not _NOTHING:
                replies.append(whole)
        del self._buffer[:place]
        self._searched = max(0, self._searched - place)
        return replies

    def _next(self, place: int) -> tuple[Any, int]:
        """The next value that is no aggregate, or an aggregate without elements, and where it ends."""
        while True:
            if self._blob >= 0:
                return self._take_blob(place)
            end = self._buffer.find(b"\r\n", max(place, self._searched))
            if end < 0:
                if len(self._buffer) - place > LINE_LIMIT:
                    raise ReplyProtocolError("a line is too long")
                # A CR at the end may be the first half of a line end.
                self._searched = max(place, len(self._buffer) - 1)
                return _NOTHING, place
            if end - place > LINE_LIMIT:
                raise ReplyProtocolError("a line is too long")
            line = bytes(self._buffer[place:end])
            place = end + 2
            self._use(len(line))
            value = self._line(line)
            if value is not _NOTHING:
                return value, place

    def _take_blob(self, place: int) -> tuple[Any, int]:
        end = place + self._blob
        if len(self._buffer) < end + 2:
            return _NOTHING, place
        if self._buffer[end : end + 2] != b"\r\n":
            raise ReplyProtocolError("a string does not end where it said")
        data = bytes(self._buffer[place:end])
        self._blob = -1
        kind = self._blob_kind
        if kind == 0x24:
            return data, end + 2
        shown = data.decode("utf-8", "surrogateescape")
        # A verbatim string begins with three letters for its kind, and a colon.
        return (shown[4:] if kind == 0x3D else error_reply(shown)), end + 2

    def _line(self, line: bytes) -> Any:
        """The value of a line; _NOTHING when it only announces what follows."""
        if not line:
            raise ReplyProtocolError("an empty line")
        kind, rest = line[0], line[1:]
        if kind == 0x2B:
            return rest.decode("utf-8", "surrogateescape")
        if kind == 0x2D:
            return error_reply(rest.decode("utf-8", "surrogateescape"))
        if kind in b":(":
            return _integer(rest)
        if kind in b"$=!":
            return self._begin_blob(kind, _integer(rest))
        if kind in b"*~%>|":
            return self._begin_aggregate(kind, _integer(rest))
        if kind == 0x5F and not rest:
            return None
        if kind == 0x23 and rest in (b"t", b"f"):
            return rest == b"t"
        if kind == 0x2C:
            return _double(rest)
        raise ReplyProtocolError(f"{line[:40]!r} is no reply")

    def _begin_blob(self, kind: int, size: int) -> Any:
        if size == -1 and kind == 0x24:
            return None
        if size < 0:
            raise ReplyProtocolError("a negative length")
        self._use(size)
        self._blob = size
        self._blob_kind = kind
        return _NOTHING

    def _begin_aggregate(self, kind: int, count: int) -> Any:
        if count == -1 and kind == 0x2A:
            return None
        if count < 0:
            raise ReplyProtocolError("a negative number of elements")
        if kind in b"%|":
            count *= 2
        # Nothing is allocated by what is announced, but what cannot fit is not waited for.
        if self._used + count * _ELEMENT > self.limit:
            raise ReplyProtocolError(f"a reply takes more than {self.limit} bytes")
        if len(self._open) >= DEPTH_LIMIT:
            raise ReplyProtocolError("a reply is nested too deeply")
        self._open.append(_Aggregate(kind, count))
        return _NOTHING if count else self._put_up()

    def _put(self, value: Any) -> Any:
        """Put a value where it belongs; the whole reply if that completes one."""
        while value is not _LEFT_OUT:
            if not self._open:
                self._used = 0
                return value
            aggregate = self._open[-1]
            aggregate.items.append(value)
            aggregate.missing -= 1
            if aggregate.missing:
                return _NOTHING
            value = self._put_up()
        # An attribute stands before a value, and counts as no element.
        if not self._open:
            self._used = 0
        return _NOTHING

    def _put_up(self) -> Any:
        """The complete innermost aggregate as a value."""
        aggregate = self._open.pop()
        items = aggregate.items
        if aggregate.kind in b">|":
            return _LEFT_OUT
        if aggregate.kind != 0x25:
            return items
        pairs = list(zip(items[::2], items[1::2], strict=True))
        try:
            return dict(pairs)
        except TypeError:
            return pairs

    def _use(self, size: int) -> None:
        self._used += size + _ELEMENT
        if self._used > self.limit:
            raise ReplyProtocolError(f"a reply takes more than {self.limit} bytes")


def _integer(digits: bytes) -> int:
    plain = digits[1:] if digits[:1] in (b"-", b"+") else digits
    if not plain.isdigit() or len(plain) > _DIGITS:
        raise ReplyProtocolError(f"{digits[:40]!r} is no number")
    return int(digits)


def _double(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        raise ReplyProtocolError(f"{text[:40]!r} is no number") from None
