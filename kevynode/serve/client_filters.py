"""The filters that CLIENT LIST and CLIENT KILL share, with their ``NOT-`` forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from .. import errors
from ..errors import FIX, ErrorKind
from ..store.arguments import as_int
from ..store.command import Args
from .client_line import client_flags, client_type

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Filters"]

_UNKNOWN_TYPE = ErrorKind("ERR", "Unknown client type '{}'", FIX)
_ID_TOO_SMALL = ErrorKind("ERR", "client-id should be greater than 0", FIX)
_NO_SUCH_USER = ErrorKind("ERR", "No such user '{}'", FIX)
_NOT_A_NUMBER = ErrorKind("ERR", "{} is not an integer or out of range", FIX)
_NOT_POSITIVE = ErrorKind("ERR", "{} should be greater than 0", FIX)
_NO_SUCH_DATABASE = ErrorKind("ERR", "DB number should be between 0 and 0", FIX)
_UNKNOWN_LETTERS = ErrorKind("ERR", "Unknown {} found in the {} filter: {}", FIX)

# Letters that CLIENT LIST's flags can have in Valkey.
_FLAG_LETTERS: Final = frozenset("bcdeirtuxABEIMNOPRSTU")
_CAPABILITY_LETTERS: Final = frozenset("r")
_TYPES: Final = {
    b"normal": "normal",
    b"pubsub": "pubsub",
    b"slave": "replica",
    b"replica": "replica",
    b"master": "primary",
    b"primary": "primary",
}

_Test: TypeAlias = Callable[["Session", float], bool]


def _type(value: bytes, negated: bool) -> _Test:
    wanted = _TYPES.get(value.lower())
    if wanted is None:
        raise _UNKNOWN_TYPE(errors.text(value))
    return lambda session, now: client_type(session) == wanted


def _user(value: bytes, negated: bool) -> _Test:
    if value != b"default":
        raise _NO_SUCH_USER(errors.text(value))
    return lambda session, now: session.authenticated


def _address(value: bytes, negated: bool) -> _Test:
    wanted = errors.text(value)
    return lambda session, now: session.peer == wanted


def _local_address(value: bytes, negated: bool) -> _Test:
    wanted = errors.text(value)
    return lambda session, now: session.local == wanted


def _host(value: bytes, negated: bool) -> _Test:
    wanted = errors.text(value)
    return lambda session, now: session.peer.rpartition(":")[0].strip("[]") == wanted


def _name(value: bytes, negated: bool) -> _Test:
    return lambda session, now: bool(session.name) and session.name == value


def _library_name(value: bytes, negated: bool) -> _Test:
    return lambda session, now: bool(session.library_name) and session.library_name == value


def _library_version(value: bytes, negated: bool) -> _Test:
    return lambda session, now: bool(session.library_version) and session.library_version == value


def _seconds(value: bytes, name: str) -> int:
    number = as_int(value)
    if number is None:
        raise _NOT_A_NUMBER(name)
    if number <= 0:
        raise _NOT_POSITIVE(name)
    return number


def _age(value: bytes, negated: bool) -> _Test:
    seconds = _seconds(value, "maxage")
    return lambda session, now: int(now - session.created) >= seconds


def _idle(value: bytes, negated: bool) -> _Test:
    seconds = _seconds(value, "idle")
    # Activity is noted on the clock that measures durations.
    return lambda session, now: int(session.server.perf() - session.last_active) >= seconds


def _database(value: bytes, negated: bool) -> _Test:
    number = as_int(value)
    if number is None:
        raise _NOT_A_NUMBER("DB")
    if number != 0:
        raise _NO_SUCH_DATABASE()
    return lambda session, now: True


def _letters(value: bytes, known: frozenset[str], what: str, option: str, negated: bool) -> frozenset[str]:
    text = errors.text(value)
    if not known.issuperset(text):
        raise _UNKNOWN_LETTERS(what, f"NOT-{option}" if negated else "provided", text)
    return frozenset(text)


def _flags(value: bytes, negated: bool) -> _Test:
    wanted = _letters(value, _FLAG_LETTERS, "flags", "FLAGS", negated)
    return lambda session, now: wanted <= frozenset(client_flags(session))


def _capabilities(value: bytes, negated: bool) -> _Test:
    wanted = _letters(value, _CAPABILITY_LETTERS, "capa", "CAPA", negated)
    return lambda session, now: not wanted or session.follows_redirects


# Option -> how its value becomes a test, and whether it has a NOT- form.
_OPTIONS: Final[dict[bytes, tuple[Callable[[bytes, bool], _Test], bool]]] = {
    b"TYPE": (_type, True),
    b"USER": (_user, True),
    b"ADDR": (_address, True),
    b"LADDR": (_local_address, True),
    b"IP": (_host, True),
    b"NAME": (_name, True),
    b"LIB-NAME": (_library_name, True),
    b"LIB-VER": (_library_version, True),
    b"MAXAGE": (_age, False),
    b"IDLE": (_idle, False),
    b"DB": (_database, True),
    b"FLAGS": (_flags, True),
    b"CAPA": (_capabilities, True),
}


class Filters:
    """Which clients a command is about: every test must hold. A second value for an option replaces the first."""

    def __init__(self, skip_me: bool) -> None:
        self.skip_me = skip_me
        self._tests: dict[bytes, _Test] = {}
        self._ids: dict[bytes, set[int]] = {}

    @classmethod
    def parse(cls, words: Args, skip_me: bool) -> Filters:
        """Read ``option value`` pairs (ID and NOT-ID take several values); raises ReplyError as Valkey does."""
        filters = cls(skip_me)
        place = 0
        while place < len(words):
            option = words[place].upper()
            if place + 1 >= len(words):
                raise errors.SYNTAX()
            if option in (b"ID", b"NOT-ID"):
                place = filters._take_ids(words, place + 1, option)
                continue
            filters._take(option, words[place + 1])
            place += 2
        return filters

    def _take(self, option: bytes, value: bytes) -> None:
        if option == b"SKIPME":
            answer = {b"yes": True, b"no": False}.get(value.lower())
            if answer is None:
                raise errors.SYNTAX()
            self.skip_me = answer
            return
        negated = option.startswith(b"NOT-")
        read, negatable = _OPTIONS.get(option.removeprefix(b"NOT-"), (None, False))
        if read is None or (negated and not negatable):
            raise errors.SYNTAX()
        test = read(value, negated)
        self._tests[option] = (lambda session, now: not test(session, now)) if negated else test

    def _take_ids(self, words: Args, place: int, option: bytes) -> int:
        """Read ids up to the next option; the index behind them."""
        # Unlike any other option, one that comes again adds to what it named before.
        ids = self._ids.setdefault(option, set())
        start = place
        while place < len(words):
            number = as_int(words[place])
            if number is None:
                if place == start or words[place].upper() not in _KNOWN:
                    raise errors.SYNTAX()
                break
            if number < 1:
                raise _ID_TOO_SMALL()
            ids.add(number)
            place += 1
        self._tests[option] = (
            (lambda session, now: session.id in ids)
            if option == b"ID"
            else (lambda session, now: session.id not in ids)
        )
        return place

    def select(self, me: Session) -> list[Session]:
        """The clients that every test lets through, oldest first.

        Who is being closed is gone already, unless replies that nobody reads hold it up.
        """
        now = me.server.monotonic()
        return [
            session
            for session in me.server.sessions.values()
            if (session is not me or not self.skip_me)
            and (session is me or not session.closing or (session.output_pending > 0 and not session.discard))
            and all(test(session, now) for test in self._tests.values())
        ]


_KNOWN: Final = frozenset(
    (
        b"SKIPME",
        b"ID",
        b"NOT-ID",
        *_OPTIONS,
        *(b"NOT-" + name for name, (_, negatable) in _OPTIONS.items() if negatable),
    )
)
