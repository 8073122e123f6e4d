"""The catalogue of wire errors: prefix, text, and what a client should do about each.

Texts are Valkey's wherever Valkey has the error, because clients match on them.
An :class:`ErrorKind` is a template; calling it makes a fresh :class:`ReplyError` to raise or to return inside a reply.
"""

from __future__ import annotations

import attrs

__all__ = ["ErrorKind", "Misdirected", "Quiesced", "ReplyError"]


class ReplyError(Exception):
    """An error reply, as a client reads it: ``-PREFIX text``.

    ``prefix`` is the upper-case first word (``ERR``, ``WRONGTYPE``, ...), ``text`` the rest of the line, both ``str``;
    bytes that are not UTF-8 travel as surrogate escapes.
    """

    def __init__(self, prefix: str, text: str) -> None:
        super().__init__(prefix, text)
        self.prefix = prefix
        self.text = text

    def __str__(self) -> str:
        return f"{self.prefix} {self.text}" if self.text else self.prefix

    def line(self) -> bytes:
        """The error line without its leading ``-`` and its CRLF; line breaks inside become spaces, as in Valkey."""
        return str(self).encode("utf-8", "surrogateescape").replace(b"\r", b" ").replace(b"\n", b" ")


class Misdirected(ReplyError):
    """A write for a key whose writer is another node. ``writer`` is that node's client address, ``host:port``."""

    def __init__(self, writer: str) -> None:
        super().__init__(MISDIRECTED.prefix, MISDIRECTED.template.format(writer))
        self.writer = writer


class Quiesced(ReplyError):
    """A write for a key whose scope is moving. ``target`` is the new writer's client address, ``host:port``."""

    def __init__(self, target: str) -> None:
        super().__init__(QUIESCED.prefix, QUIESCED.template.format(target))
        self.target = target


@attrs.frozen
class ErrorKind:
    """One kind of error reply: its prefix, its text (a ``str.format`` template) and advice for the client's author."""

    prefix: str
    template: str
    advice: str

    def __call__(self, *values: object) -> ReplyError:
        if not values:
            return ReplyError(self.prefix, self.template)
        # As in Valkey, a client's word is shown up to its first NUL.
        shown = [value.partition("\0")[0] if isinstance(value, str) else value for value in values]
        return ReplyError(self.prefix, self.template.format(*shown))


def text(data: bytes) -> str:
    """Bytes from a client as they appear inside an error text."""
    return data.decode("utf-8", "surrogateescape")


FIX = "Correct the command; sending it again will not help."

# The command line itself.
UNKNOWN_COMMAND = ErrorKind("ERR", "unknown command '{}', with args beginning with: {}", FIX)
UNKNOWN_SUBCOMMAND = ErrorKind("ERR", "unknown subcommand '{}'. Try {} HELP.", FIX)
WRONG_ARITY = ErrorKind("ERR", "wrong number of arguments for '{}' command", FIX)
SYNTAX = ErrorKind("ERR", "syntax error", FIX)
INTERNAL = ErrorKind("ERR", "internal error", "A bug in kevynode: the log has the details. Report it.")

# Values and arguments.
WRONG_TYPE = ErrorKind("WRONGTYPE", "Operation against a key holding the wrong kind of value", FIX)
NOT_INTEGER = ErrorKind("ERR", "value is not an integer or out of range", FIX)
NOT_FLOAT = ErrorKind("ERR", "value is not a valid float", FIX)
OUT_OF_RANGE = ErrorKind("ERR", "value is out of range", FIX)
COUNT_OUT_OF_RANGE = ErrorKind(
    "ERR", "value is out of range, value must between -9223372036854775807 and 9223372036854775807", FIX
)
NUMKEYS = ErrorKind("ERR", "numkeys should be greater than 0", FIX)
MUST_BE_POSITIVE = ErrorKind("ERR", "value is out of range, must be positive", FIX)
INDEX_OUT_OF_RANGE = ErrorKind("ERR", "index out of range", FIX)
NO_SUCH_KEY = ErrorKind("ERR", "no such key", FIX)
OVERFLOW = ErrorKind("ERR", "increment or decrement would overflow", FIX)
NAN_OR_INFINITY = ErrorKind("ERR", "increment would produce NaN or Infinity", FIX)
INVALID_EXPIRE = ErrorKind("ERR", "invalid expire time in '{}' command", FIX)
TIMEOUT_NOT_FLOAT = ErrorKind("ERR", "timeout is not a float or out of range", FIX)
TIMEOUT_NEGATIVE = ErrorKind("ERR", "timeout is negative", FIX)
TIMEOUT_OUT_OF_RANGE = ErrorKind("ERR", "timeout is out of range", FIX)
STRING_TOO_LONG = ErrorKind("ERR", "string exceeds maximum allowed size (proto-max-bulk-len)", FIX)
INVALID_CURSOR = ErrorKind("ERR", "invalid cursor", FIX)

# Transactions.
EXEC_WITHOUT_MULTI = ErrorKind("ERR", "EXEC without MULTI", FIX)
DISCARD_WITHOUT_MULTI = ErrorKind("ERR", "DISCARD without MULTI", FIX)
NOT_IN_TRANSACTION = ErrorKind("ERR", "Command '{}' not allowed inside a transaction", FIX)
EXEC_ABORT = ErrorKind("EXECABORT", "Transaction discarded because of previous errors.", FIX)
EXEC_ABORT_BECAUSE = ErrorKind(
    "EXECABORT", "Transaction discarded because of: {}", "Act on the error named in the text."
)

# State of the node or of the connection.
NO_PROTOCOL = ErrorKind("NOPROTO", "unsupported protocol version", "Ask for version 2 or 3.")
OUT_OF_MEMORY = ErrorKind(
    "OOM",
    "command not allowed when used memory > 'maxmemory'.",
    "Free memory, raise maxmemory, or choose an eviction policy.",
)
DISK_TROUBLE = ErrorKind(
    "MISCONF",
    "Errors writing to the AOF file: {}",
    "Reads go on. See to the disk: the node takes writes again by itself when it can keep them.",
)
READ_ONLY = ErrorKind("READONLY", "You can't write against a read only replica.", "Send the write to the primary.")
NO_REPLICAS = ErrorKind(
    "NOREPLICAS",
    "Not enough good replicas to write.",
    "Wait until min-replicas-to-write replicas follow closely again, or set it lower.",
)
STALE = ErrorKind(
    "STALE",
    "replica is stale; read the primary or raise replica_max_staleness_ms",
    "Read from the primary or another replica, or try again once this one has caught up.",
)
LOADING = ErrorKind("LOADING", "kevynode is loading the dataset in memory", "Try again in a moment.")
# Scopes. The first two are raised as Misdirected and Quiesced.
MISDIRECTED = ErrorKind("MISDIRECTED", "writer is {}", "Send the write there, and the next ones of the same scope too.")
QUIESCED = ErrorKind(
    "QUIESCED",
    "migrating to {}",
    "Try again in a moment, here: the move may still come to nothing. After it this node says who the writer is.",
)
SCOPE_CLOSED = ErrorKind(
    "LOADING",
    "scope {} is waiting for {}",
    "Try again in a moment; if it lasts, see to the node that it waits for.",
)
CROSS_SCOPE = ErrorKind(
    "CROSSSCOPE",
    "keys of the scopes {} and {} in one command or transaction",
    "Write the keys of each scope by themselves: two scopes may have two writers at any time.",
)
ROLE_CHANGED = ErrorKind(
    "UNBLOCKED",
    "force unblock from blocking operation, instance state changed (master -> replica?)",
    "The connection closes: connect to the primary, and wait there.",
)
UNBLOCKED = ErrorKind("UNBLOCKED", "client unblocked via CLIENT UNBLOCK", "Somebody ended this wait on purpose.")
SUBSCRIBED = ErrorKind(
    "ERR",
    "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
    "Use a second connection, or HELLO 3.",
)
