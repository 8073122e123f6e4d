"""Replies as typed values, and their encoding for RESP2 and RESP3.

A command handler returns a value that says what it *is*; how it looks on the wire is decided late, for the protocol
of the connection that asked:

=====================  ===============================  ==============================
value                  RESP2                            RESP3
=====================  ===============================  ==============================
``bytes``              bulk string                      bulk string
``int``                integer                          integer
``None``               null bulk string                 null
:data:`NULL_ARRAY`     null array                       null
``list``, ``tuple``    array                            array
``dict``               flat array                       map
:class:`SetReply`      array                            set
:class:`Pairs`         flat array                       array of two-element arrays
``float``              bulk string                      double
``bool``               integer 0 or 1                   boolean
:class:`Status`        simple string                    simple string
:class:`Verbatim`      bulk string                      verbatim string
:class:`Push`          array                            push
:class:`ReplyError`    error                            error
=====================  ===============================  ==============================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from .doubles import format_double
from .errors import ReplyError

__all__ = [
    "BULK_HEADERS",
    "NO_REPLY",
    "NULL_ARRAY",
    "OK",
    "QUEUED",
    "Pairs",
    "Push",
    "Reply",
    "SetReply",
    "Status",
    "Verbatim",
    "encode",
    "format_double",
]


class Status:
    """A simple string such as ``+OK``; ``text`` is bytes without CR or LF."""

    __slots__ = ("text", "wire")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.wire = b"+" + text + b"\r\n"

    def __repr__(self) -> str:
        return f"Status({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Status) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class NullArray:
    """The null array of RESP2 (``*-1``), which RESP3 shows as null. Use the one instance, :data:`NULL_ARRAY`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NULL_ARRAY"


class NoReply:
    """What a command returns that writes its own replies or answers nothing (SUBSCRIBE, CLIENT REPLY OFF)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_REPLY"


class SetReply(list[Any]):
    """Elements without order: a set in RESP3, an array in RESP2."""

    __slots__ = ()


class Pairs(list[tuple[Any, Any]]):
    """Two-element rows: an array of arrays in RESP3, one flat array in RESP2 (as for ZRANGE WITHSCORES)."""

    __slots__ = ()


class Push(list[Any]):
    """An out-of-band message: a push in RESP3, an array in RESP2."""

    __slots__ = ()


class Verbatim:
    """Text with a three-letter format (``txt`` or ``mkd``): a verbatim string in RESP3, a bulk string in RESP2."""

    __slots__ = ("format", "text")

    def __init__(self, text: bytes, format: bytes = b"txt") -> None:
        self.text = text
        self.format = format

    def __repr__(self) -> str:
        return f"Verbatim({self.text!r}, {self.format!r})"


Reply: TypeAlias = (
    bytes
    | int
    | float
    | list[Any]
    | tuple[Any, ...]
    | dict[Any, Any]
    | Status
    | NullArray
    | NoReply
    | Verbatim
    | ReplyError
    | None
)

OK: Final = Status(b"OK")
QUEUED: Final = Status(b"QUEUED")
NULL_ARRAY: Final = NullArray()
NO_REPLY: Final = NoReply()


#: The lines that announce short bulk strings: picking one costs less than writing it.
BULK_HEADERS: Final = [b"$%d\r\n" % length for length in range(4096)]

_Encoder: TypeAlias = Callable[[list[bytes], Any, int], None]


def _bytes(out: list[bytes], value: bytes, protocol: int) -> None:
    out.append(b"$%d\r\n%b\r\n" % (len(value), value))


def _int(out: list[bytes], value: int, protocol: int) -> None:
    out.append(b":%d\r\n" % value)


def _none(out: list[bytes], value: None, protocol: int) -> None:
    out.append(b"_\r\n" if protocol == 3 else b"$-1\r\n")


def _null_array(out: list[bytes], value: NullArray, protocol: int) -> None:
    out.append(b"_\r\n" if protocol == 3 else b"*-1\r\n")


def _no_reply(out: list[bytes], value: NoReply, protocol: int) -> None:
    return None


def _bool(out: list[bytes], value: bool, protocol: int) -> None:
    if protocol == 3:
        out.append(b"#t\r\n" if value else b"#f\r\n")
    else:
        out.append(b":1\r\n" if value else b":0\r\n")


def _float(out: list[bytes], value: float, protocol: int) -> None:
    text = format_double(value)
    out.append(b",%b\r\n" % text if protocol == 3 else b"$%d\r\n%b\r\n" % (len(text), text))


def _status(out: list[bytes], value: Status, protocol: int) -> None:
    out.append(value.wire)


def _error(out: list[bytes], value: ReplyError, protocol: int) -> None:
    out.append(b"-%b\r\n" % value.line())


def _verbatim(out: list[bytes], value: Verbatim, protocol: int) -> None:
    if protocol == 3:
        out.append(b"=%d\r\n%b:%b\r\n" % (len(value.text) + 4, value.format, value.text))
    else:
        out.append(b"$%d\r\n%b\r\n" % (len(value.text), value.text))


def _items(out: list[bytes], values: Iterable[Any], protocol: int) -> None:
    headers = BULK_HEADERS
    for value in values:
        if type(value) is bytes:
            length = len(value)
            if length < len(headers):
                out += (headers[length], value, b"\r\n")
            else:
                out.append(b"$%d\r\n%b\r\n" % (length, value))
        else:
            encode_into(out, value, protocol)


def _array(out: list[bytes], value: list[Any], protocol: int) -> None:
    out.append(b"*%d\r\n" % len(value))
    _items(out, value, protocol)


def _set(out: list[bytes], value: SetReply, protocol: int) -> None:
    out.append(b"~%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % len(value))
    _items(out, value, protocol)


def _push(out: list[bytes], value: Push, protocol: int) -> None:
    out.append(b">%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % len(value))
    _items(out, value, protocol)


def _dict(out: list[bytes], value: dict[Any, Any], protocol: int) -> None:
    out.append(b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % (2 * len(value)))
    for pair in value.items():
        _items(out, pair, protocol)


def _pairs(out: list[bytes], value: Pairs, protocol: int) -> None:
    if protocol == 3:
        out.append(b"*%d\r\n" % len(value))
        for pair in value:
            out.append(b"*2\r\n")
            _items(out, pair, protocol)
    else:
        out.append(b"*%d\r\n" % (2 * len(value)))
        for pair in value:
            _items(out, pair, protocol)


_ENCODERS: Final[dict[type, _Encoder]] = {
    bytes: _bytes,
    int: _int,
    type(None): _none,
    bool: _bool,
    float: _float,
    list: _array,
    tuple: _array,
    dict: _dict,
    Status: _status,
    NullArray: _null_array,
    NoReply: _no_reply,
    SetReply: _set,
    Pairs: _pairs,
    Push: _push,
    Verbatim: _verbatim,
}


def encode_into(out: list[bytes], value: Any, protocol: int) -> None:
    """Append the wire form of ``value`` to ``out``; ``protocol`` is 2 or 3. Raises TypeError for what is no reply."""
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        encoder(out, value, protocol)
    elif isinstance(value, ReplyError):
        _error(out, value, protocol)
    else:
        raise TypeError(f"not a reply: {type(value).__name__}")


def encode(value: Any, protocol: int) -> bytes:
    """The wire form of one reply; ``protocol`` is 2 or 3."""
    out: list[bytes] = []
    encode_into(out, value, protocol)
    return b"".join(out)
