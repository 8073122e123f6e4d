"""Sans-I/O parsing of requests in the Redis serialization protocol, multibulk and inline.

:class:`RequestParser` takes bytes as they arrive and gives whole commands. It is exact about limits and answers every
malformed request with the error Valkey sends before it closes the connection.

Two ways lead through it. The fast way cuts a whole read at its line ends once and picks the arguments out of the
pieces; it takes only what is plainly well-formed. Anything else, be it incomplete, unusual or wrong, goes the exact
way, which walks the bytes and keeps its state between reads, so that dripped bytes cost no more than their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = [
    "ARGUMENT_LIMIT",
    "INLINE_LIMIT",
    "ProtocolError",
    "RequestParser",
    "TakePlain",
    "split_inline",
    "take_plain",
]

# Longest inline command, and longest line that announces a length; as Valkey (PROTO_INLINE_MAX_SIZE).
INLINE_LIMIT: Final = 64 * 1024
# Most arguments of one command. Valkey accepts up to 2**31-1; nobody sends that many on purpose.
ARGUMENT_LIMIT: Final = 1024 * 1024
# Largest argument unless proto-max-bulk-len says otherwise, as Valkey.
BULK_LIMIT: Final = 512 * 1024 * 1024
# What a client may announce before it has authenticated, as Valkey.
UNAUTHENTICATED_ARGUMENT_LIMIT: Final = 10
UNAUTHENTICATED_BULK_LIMIT: Final = 16384

#: Bytes, where commands go, and the longest argument -> the bytes that were not taken.
TakePlain: TypeAlias = Callable[[bytes, list[list[bytes]], int], bytes]

_COUNTS: Final = {b"*%d" % count: count for count in range(1, 1024)}
_HEADERS: Final = [b"$%d" % length for length in range(4096)]


class ProtocolError(Exception):
    """The peer broke the protocol; ``text`` (bytes) is what follows ``-ERR Protocol error: `` in the answer."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text.decode("latin-1"))
        self.text = text


class RequestParser:
    """Bytes in, commands out: ``feed`` returns every command completed by the new bytes, as lists of arguments.

    ``take_plain`` may be a twin of this module's function of that name.
    After a protocol error ``error`` holds its text, and later bytes are ignored; the commands before it still count.
    """

    __slots__ = (
        "_arguments",
        "_authenticated",
        "_bulk",
        "_held",
        "_left",
        "_pending",
        "_take_plain",
        "bulk_limit",
        "error",
        "plain",
    )

    def __init__(self, bulk_limit: int = BULK_LIMIT, take_plain: TakePlain | None = None) -> None:
        self.bulk_limit = bulk_limit
        self._take_plain = take_plain or _take_plain
        self._authenticated = True
        # Nothing is left over from what was fed, and no limits hold but the common ones: what comes next may be taken
        # by :func:`take_plain` without asking the parser.
        self.plain = True
        self.error: bytes | None = None
        # State of the exact way: bytes not consumed, arguments of the running command, how many of them are
        # missing, and the announced length of the next one (-1: not announced yet).
        self._pending = bytearray()
        self._arguments: list[bytes] = []
        self._left = 0
        self._bulk = -1
        self._held = 0

    @property
    def authenticated(self) -> bool:
        """Whether the client may send as much as it likes; until it has authenticated limits are narrow."""
        return self._authenticated

    @authenticated.setter
    def authenticated(self, authenticated: bool) -> None:
        self._authenticated = authenticated
        self._note_state()

    @property
    def held(self) -> int:
        """Bytes of the unfinished command that are held in memory."""
        return len(self._pending) + self._held

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that ``data`` completes, in order. Never raises: see ``error``."""
        if self.error is not None:
            return []
        commands: list[list[bytes]] = []
        if self._pending or self._left:
            # The exact way finishes the command under way; what follows it may be plain again.
            self._pending += data
            self._walk(commands, single=True)
            if not commands or not self._pending:
                self._note_state()
                return commands
            data = bytes(self._pending)
            self._pending.clear()
            self._note_state()
        if not self._authenticated:
            # Only the exact way checks the limits that hold before authentication.
            self._pending += data
            self._walk(commands)
            return commands
        rest = self._take_plain(data, commands, self.bulk_limit)
        if rest:
            self._pending += rest
            self._walk(commands)
            self._note_state()
        return commands

    def _note_state(self) -> None:
        self.plain = self._authenticated and not self._pending and not self._left and self.error is None

    def _walk(self, commands: list[list[bytes]], single: bool = False) -> None:
        try:
            self._consume(commands, single)
        except ProtocolError as error:
            self.error = error.text
            self._pending = bytearray()
            self._arguments = []
            self._left = self._held = 0

    def _consume(self, commands: list[list[bytes]], single: bool) -> None:
        """Take whole commands off the pending bytes until they run out, or only the first."""
        pending = self._pending
        place = 0
        try:
            while place < len(pending):
                if self._left == 0:
                    if pending[place] != 0x2A:
                        place, arguments = self._inline(pending, place)
                        if arguments is None:
                            return
                        if arguments:
                            commands.append(arguments)
                            if single:
                                return
                        continue
                    end = self._line_end(pending, place, b"too big mbulk count string")
                    if end < 0:
                        return
                    count = _length(pending[place + 1 : end])
                    place = end + 2
                    if count is None or count > ARGUMENT_LIMIT:
                        raise ProtocolError(b"invalid multibulk length")
                    if count > UNAUTHENTICATED_ARGUMENT_LIMIT and not self._authenticated:
                        raise ProtocolError(b"unauthenticated multibulk length")
                    if count > 0:
                        self._left = count
                        self._arguments = []
                        self._held = 0
                    continue
                if self._bulk < 0:
                    end = self._line_end(pending, place, b"too big bulk count string")
                    if end < 0:
                        return
                    if pending[place] != 0x24:
                        got = pending[place]
                        raise ProtocolError(b"expected '$', got '%c'" % (0x20 if got in b"\r\n" else got))
                    length = _length(pending[place + 1 : end])
                    if length is None or length < 0 or length > self.bulk_limit:
                        raise ProtocolError(b"invalid bulk length")
                    if length > UNAUTHENTICATED_BULK_LIMIT and not self._authenticated:
                        raise ProtocolError(b"unauthenticated bulk length")
                    self._bulk = length
                    place = end + 2
                stop = place + self._bulk
                if len(pending) < stop + 2:
                    return
                if pending[stop : stop + 2] != b"\r\n":
                    raise ProtocolError(b"invalid CRLF in request")
                self._arguments.append(bytes(pending[place:stop]))
                self._held += self._bulk + 64
                place = stop + 2
                self._bulk = -1
                self._left -= 1
                if self._left == 0:
                    commands.append(self._arguments)
                    self._arguments = []
                    self._held = 0
                    if single:
                        return
        finally:
            del pending[:place]

    @staticmethod
    def _line_end(pending: bytearray, place: int, too_long: bytes) -> int:
        """Where the CRLF of a length line starts, or -1 while it has not arrived."""
        end = pending.find(b"\r", place)
        if end < 0:
            if len(pending) - place > INLINE_LIMIT:
                raise ProtocolError(too_long)
            return -1
        if end + 1 == len(pending):
            return -1
        if pending[end + 1] != 0x0A:
            raise ProtocolError(b"invalid CRLF in request")
        return end

    @staticmethod
    def _inline(pending: bytearray, place: int) -> tuple[int, list[bytes] | None]:
        """The arguments of an inline command and where it ends; None while its line has not ended."""
        end = pending.find(b"\n", place)
        if end < 0:
            if len(pending) - place > INLINE_LIMIT:
                raise ProtocolError(b"too big inline request")
            return place, None
        line = bytes(pending[place:end])
        arguments = split_inline(line[:-1] if line.endswith(b"\r") else line)
        if arguments is None:
            raise ProtocolError(b"unbalanced quotes in request")
        return end + 1, arguments


def take_plain(data: bytes, commands: list[list[bytes]], bulk_limit: int) -> bytes:
    """Append the plainly well-formed commands at the start of ``data`` to ``commands``; the bytes not taken.

    Plainly well-formed is an array of bulk strings as every client library sends it, none longer than ``bulk_limit``.
    """
    lines = data.split(b"\r\n")
    place = _take_lines(lines, commands, bulk_limit)
    return data if not place else b"\r\n".join(lines[place:])


_take_plain: Final[TakePlain] = take_plain


def _take_lines(lines: list[bytes], commands: list[list[bytes]], bulk_limit: int) -> int:
    """Append the commands at the start of ``lines``; the index of the first line not taken.

    The last of ``lines`` is what follows the last line end, so it never belongs to a whole command. Commands of two
    and three words, which most are, are unpacked at once.
    """
    last = len(lines) - 1
    place = 0
    headers = _HEADERS
    append = commands.append
    while place < last:
        head = lines[place]
        try:
            if head == b"*3" and place + 7 <= last:
                _, first, name, second, key, third, value = lines[place : place + 7]
                if headers[len(name)] != first or headers[len(key)] != second or headers[len(value)] != third:
                    break
                append([name, key, value])
                place += 7
                continue
            if head == b"*2" and place + 5 <= last:
                _, first, name, second, key = lines[place : place + 5]
                if headers[len(name)] != first or headers[len(key)] != second:
                    break
                append([name, key])
                place += 5
                continue
        except IndexError:
            # An argument longer than the table of headers: compared the slow way below.
            pass
        count = _COUNTS.get(head)
        if count is None:
            break
        end = place + 1 + 2 * count
        if end > last:
            break
        arguments = lines[place + 2 : end : 2]
        announced = lines[place + 1 : end : 2]
        try:
            if announced != [headers[len(argument)] for argument in arguments]:
                break
        except IndexError:
            if announced != [b"$%d" % len(argument) for argument in arguments]:
                break
            if max(map(len, arguments)) > bulk_limit:
                break
        append(arguments)
        place = end
    return place


def _length(digits: bytearray) -> int | None:
    """The signed decimal number of a length line in canonical form, or None."""
    if len(digits) > 20:
        return None
    text = bytes(digits)
    sign = text[:1] == b"-"
    number = text[1:] if sign else text
    if not number.isdigit() or (number[:1] == b"0" and (sign or len(number) > 1)):
        return None
    return -int(number) if sign else int(number)


_BLANKS: Final = b" \n\r\t\v\f"
_ESCAPES: Final = {0x6E: 0x0A, 0x72: 0x0D, 0x74: 0x09, 0x62: 0x08, 0x61: 0x07}
_HEX: Final = b"0123456789abcdefABCDEF"


def split_inline(line: bytes) -> list[bytes] | None:
    """The words of an inline command, with redis-cli's quoting; None if a quote is not closed."""
    if b'"' not in line and b"'" not in line:
        return line.split()
    words: list[bytes] = []
    place, size = 0, len(line)
    while True:
        while place < size and line[place] in _BLANKS:
            place += 1
        if place >= size:
            return words
        word = bytearray()
        while place < size and line[place] not in _BLANKS:
            quote = line[place]
            if quote not in b"\"'":
                word.append(quote)
                place += 1
                continue
            place = _quoted(line, place + 1, quote, word)
            if place < 0:
                return None
        words.append(bytes(word))


def _quoted(line: bytes, place: int, quote: int, word: bytearray) -> int:
    """Append the quoted part from ``place`` on to ``word``; the index behind its closing quote, or -1."""
    size = len(line)
    while place < size:
        char = line[place]
        if char == quote:
            return place + 1
        if quote == 0x22 and char == 0x5C and place + 1 < size:
            following = line[place + 1]
            pair = line[place + 2 : place + 4]
            if following == 0x78 and len(pair) == 2 and pair[0] in _HEX and pair[1] in _HEX:
                word.append(int(pair, 16))
                place += 4
            else:
                word.append(_ESCAPES.get(following, following))
                place += 2
        elif quote == 0x27 and line[place : place + 2] == b"\\'":
            word.append(0x27)
            place += 2
        else:
            word.append(char)
            place += 1
    return -1
