"""What the commands on strings share: option words, deadlines, sizes, and storing a changed value."""

from __future__ import annotations

from typing import Final

from ... import errors
from .. import notify
from ..arguments import INT64_MAX, parse_int
from ..command import Args
from ..journal import Event
from ..store import Store

__all__ = [
    "CONDITIONS",
    "EXPIRIES",
    "Options",
    "check_size",
    "expire_at_once",
    "parse_deadline",
    "parse_options",
    "put_with_deadline",
    "replace_string",
]

#: The option words of an expiry: what its number counts, and whether it counts from now.
EXPIRIES: Final = frozenset((b"EX", b"PX", b"EXAT", b"PXAT"))
CONDITIONS: Final = frozenset((b"NX", b"XX", b"IFEQ"))
_SECONDS: Final = frozenset((b"EX", b"EXAT"))
_RELATIVE: Final = frozenset((b"EX", b"PX"))


class Options:
    """The options of one SET, GETEX or MSETEX.

    ``condition`` is NX, XX, IFEQ (then ``comparison`` holds the expected value) or empty. ``lifetime`` is KEEPTTL,
    PERSIST, one of :data:`EXPIRIES` (then ``amount`` holds its number as given) or empty.
    """

    __slots__ = ("amount", "comparison", "condition", "get", "lifetime")

    def __init__(self) -> None:
        self.condition = b""
        self.comparison = b""
        self.get = False
        self.lifetime = b""
        self.amount = b""


def parse_options(argv: Args, start: int, allowed: frozenset[bytes]) -> Options:
    """The options from index ``start`` on, of the words in ``allowed`` (capitals). Raises SYNTAX.

    Words that contradict each other are refused. A word may come twice, except IFEQ; the last one counts.
    """
    options = Options()
    place = start
    while place < len(argv):
        word = argv[place].upper()
        if word not in allowed:
            raise errors.SYNTAX()
        if word == b"GET":
            options.get = True
        elif word in CONDITIONS:
            if options.condition and (options.condition != word or word == b"IFEQ"):
                raise errors.SYNTAX()
            options.condition = word
        elif options.lifetime and options.lifetime != word:
            raise errors.SYNTAX()
        else:
            options.lifetime = word
        if word in EXPIRIES or word == b"IFEQ":
            place += 1
            if place == len(argv):
                raise errors.SYNTAX()
            if word == b"IFEQ":
                options.comparison = argv[place]
            else:
                options.amount = argv[place]
        place += 1
    return options


def parse_deadline(store: Store, unit: bytes, amount: bytes, command: str) -> int:
    """The deadline in unix ms that an option of :data:`EXPIRIES` and its number mean; it may lie in the past.

    Raises NOT_INTEGER, and INVALID_EXPIRE (which names the ``command``) for what is not positive or beyond 64 bits.
    """
    deadline = parse_int(amount)
    if unit in _SECONDS:
        deadline *= 1000
    if deadline > 0 and unit in _RELATIVE:
        deadline += store.now
    if not 0 < deadline <= INT64_MAX:
        raise errors.INVALID_EXPIRE(command)
    return deadline


def check_size(store: Store, size: int) -> None:
    """Raise STRING_TOO_LONG if a string of ``size`` bytes is longer than any string may be."""
    if size > store.settings.proto_max_bulk_len:
        raise errors.STRING_TOO_LONG()


def replace_string(store: Store, key: bytes, value: bytes, *events: Event) -> None:
    """Put ``value`` under ``key``, keep the key's deadline, and record both for copies."""
    store.put(key, value, True)
    store.emit((b"SET", key, value), key, *events)
    deadline = store.deadline(key)
    if deadline is not None:
        store.emit((b"PEXPIREAT", key, b"%d" % deadline), key)


def put_with_deadline(store: Store, key: bytes, value: bytes, deadline: int) -> None:
    """Put ``value`` under ``key`` with a deadline (unix ms)."""
    store.put(key, value)
    store.emit((b"SET", key, value), key, (notify.STRING, b"set", key))
    store.set_deadline(key, deadline)
    store.emit((b"PEXPIREAT", key, b"%d" % deadline), key, (notify.GENERIC, b"expire", key))


def expire_at_once(store: Store, key: bytes, *before: Event) -> None:
    """Delete an existing key because it was just given a deadline that has passed; ``before`` is published first."""
    store.delete(key)
    store.emit((b"DEL", key), key, *before, (notify.EXPIRED, b"expired", key))
