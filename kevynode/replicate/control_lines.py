"""The lines of a stream that start with ``+`` or ``-``: what each of them means to a replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import attrs

from .lineage import ANCESTOR_LIMIT, HISTORY_LIMIT, MAX_OFFSET
from .parsing import unsigned
from .stream_events import (
    CONTROL_LINE_LIMIT,
    EXTENSION_LINE_LIMIT,
    GROUP_LIMIT,
    Accepted,
    Acknowledged,
    AckRequested,
    Ancestors,
    ErrorLine,
    Event,
    Ping,
    ScopeSnapshotBegin,
    Skip,
    SnapshotBegin,
    SnapshotEnd,
    WireError,
)

__all__ = ["GroupBegin", "line_limit", "parse_control_line"]

_ANY_NUMBER: Final = 2**64 - 1


@attrs.frozen
class GroupBegin:
    """``+TXN``: the next ``count`` frames belong together. Known to the decoder only, which delivers them whole."""

    count: int


ControlLine: TypeAlias = Event | GroupBegin


def _number(word: bytes, limit: int) -> int:
    number = unsigned(word, limit)
    if number is None:
        raise ValueError
    return number


def _ack(words: list[bytes]) -> Acknowledged:
    if len(words) == 1:
        return Acknowledged(None, _number(words[0], _ANY_NUMBER))
    history, offset = words
    return Acknowledged(_number(history, _ANY_NUMBER), _number(offset, _ANY_NUMBER))


def _ping(words: list[bytes]) -> Ping:
    if len(words) == 1:
        return Ping(0, _number(words[0], MAX_OFFSET))
    history, offset = words
    return Ping(_number(history, _ANY_NUMBER), _number(offset, MAX_OFFSET))


def _accepted(words: list[bytes]) -> Accepted:
    if _number(words[0], len(words)) != len(words) - 1:
        raise ValueError
    return Accepted(frozenset(word.decode("ascii") for word in words[1:]))


def _ancestors(words: list[bytes]) -> Ancestors:
    if len(words) > ANCESTOR_LIMIT:
        raise ValueError
    pairs = []
    for word in words:
        history, at, offset = word.partition(b"@")
        pair = _number(history, HISTORY_LIMIT - 1), _number(offset, MAX_OFFSET)
        if not at or pair[0] == 0:
            raise ValueError
        pairs.append(pair)
    return Ancestors(tuple(pairs))


def _scope_snapshot(words: list[bytes]) -> ScopeSnapshotBegin:
    # The empty prefix leaves no word behind.
    epoch, digits = words if len(words) == 2 else (words[0], b"")
    if len(words) > 2:
        raise ValueError
    return ScopeSnapshotBegin(_number(epoch, _ANY_NUMBER), bytes.fromhex(digits.decode("ascii")))


def _group(words: list[bytes]) -> GroupBegin:
    (count,) = words
    number = _number(count, _ANY_NUMBER)
    if number > GROUP_LIMIT:
        raise WireError("group too large", b"%d frames" % number)
    if number == 0:
        raise ValueError
    return GroupBegin(number)


def _skip(words: list[bytes]) -> Skip:
    (offset,) = words
    return Skip(_number(offset, MAX_OFFSET))


def _end(words: list[bytes]) -> SnapshotEnd:
    (offset,) = words
    return SnapshotEnd(_number(offset, MAX_OFFSET))


def _snapshot(words: list[bytes]) -> SnapshotBegin:
    if words:
        raise ValueError
    return SnapshotBegin()


def _ack_requested(words: list[bytes]) -> AckRequested:
    if words:
        raise ValueError
    return AckRequested()


_LINES: Final[dict[bytes, Callable[[list[bytes]], ControlLine]]] = {
    b"+PING": _ping,
    b"+SKIP": _skip,
    b"+TXN": _group,
    b"+ACKREQ": _ack_requested,
    b"+SNAPSHOT": _snapshot,
    b"+SNAPSHOT_SCOPE": _scope_snapshot,
    b"+SNAPSHOT_END": _end,
    b"+ACK": _ack,
    b"+CAPA": _accepted,
    b"+LINEAGE": _ancestors,
}

_LONG_LINES: Final = (b"-", b"+CAPA ", b"+LINEAGE ", b"+SNAPSHOT_SCOPE ")


def line_limit(line: bytes | bytearray) -> int:
    """How long the control line that starts with ``line`` may become, in bytes without its line end."""
    return EXTENSION_LINE_LIMIT if line.startswith(_LONG_LINES) else CONTROL_LINE_LIMIT


def parse_control_line(line: bytes) -> ControlLine:
    """What ``line`` says, given without its line end. Raises :class:`WireError`."""
    if line.startswith(b"-"):
        return ErrorLine(line[1:].decode("utf-8", "surrogateescape"))
    word, *words = line.split(b" ")
    if words and not words[-1]:
        del words[-1]
    parse = _LINES.get(word)
    if parse is None:
        raise WireError("unknown control line", line)
    try:
        return parse(words)
    except (ValueError, IndexError):
        raise WireError("malformed control line", line) from None
