"""The text that the ledger is written in: one word and its fields, ASCII, with exactly one spelling for everything.

``entry prefix=app:billing: owner=b epoch=4 move=0c1d`` is such a text. Bytes of a prefix that are not plain are escaped
as in a URL. Whoever reads a text writes what it has understood again and compares: a text that says the same in another
way has been damaged, or was made by something else.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

__all__ = [
    "DETAIL_LIMIT",
    "ID_LIMIT",
    "MAX_NUMBER",
    "PREFIX_LIMIT",
    "LedgerError",
    "check_detail",
    "check_id",
    "check_number",
    "check_prefix",
    "escape_prefix",
    "escape_text",
    "fields_of",
    "format_fields",
    "read_number",
    "unescape_prefix",
    "unescape_text",
]

#: The longest prefix that the ledger takes, in bytes: several times what anybody writes, and a line stays a line.
PREFIX_LIMIT: Final = 1024
#: The longest id of a node or of a move, in characters.
ID_LIMIT: Final = 64
#: The highest epoch, version, offset and count: what every reader of numbers can hold.
MAX_NUMBER: Final = 2**53 - 1
#: The longest remark in a record, in bytes of UTF-8.
DETAIL_LIMIT: Final = 256

# As node ids in the configuration.
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-:#]{0,63}")
_PLAIN: Final = ":-._~/"
# No field is longer: a prefix or a remark of which every byte is escaped.
_VALUE_LIMIT: Final = 3 * PREFIX_LIMIT


class LedgerError(ValueError):
    """What was given is nothing that a ledger can hold; the text says why."""


def check_id(value: object, what: str) -> None:
    """Raise LedgerError unless ``value`` is an id of a node or of a move."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise LedgerError(f"{what} is not 1 to {ID_LIMIT} letters, digits and . _ - : # after a letter or digit")


def check_number(value: object, what: str, least: int = 0) -> None:
    """Raise LedgerError unless ``value`` is a whole number from ``least`` to :data:`MAX_NUMBER`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_NUMBER:
        raise LedgerError(f"{what} is not a whole number from {least} to {MAX_NUMBER}")


def check_prefix(value: object) -> None:
    """Raise LedgerError unless ``value`` is a prefix (bytes) that the ledger takes."""
    if not isinstance(value, bytes):
        raise LedgerError(f"a prefix is bytes, not {type(value).__name__}")
    if len(value) > PREFIX_LIMIT:
        raise LedgerError(f"a prefix of {len(value)} bytes is longer than {PREFIX_LIMIT}, the most a ledger takes")


def check_detail(value: object) -> None:
    """Raise LedgerError unless ``value`` is a remark that fits."""
    try:
        if not isinstance(value, str) or len(value.encode("utf-8")) > DETAIL_LIMIT:
            raise LedgerError(f"a remark is text of at most {DETAIL_LIMIT} bytes")
    except UnicodeEncodeError:
        raise LedgerError("a remark is not valid Unicode") from None


def escape_prefix(prefix: bytes) -> str:
    """A prefix as it stands in a field."""
    return quote_from_bytes(prefix, safe=_PLAIN)


def unescape_prefix(value: str) -> bytes:
    """The prefix of a field. Raises nothing: what is no escape stands for itself."""
    return unquote_to_bytes(value)


def escape_text(text: str) -> str:
    """A remark as it stands in a field."""
    return quote(text, safe=_PLAIN)


def unescape_text(value: str) -> str:
    """The remark of a field. Raises LedgerError if it is not UTF-8."""
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise LedgerError("a remark is not valid UTF-8") from None


def read_number(value: str) -> int:
    """The number of a field. Raises LedgerError for anything but decimal digits that are not too many."""
    if not value.isascii() or not value.isdigit() or len(value) > len(str(MAX_NUMBER)):
        raise LedgerError("a number is not written in decimal digits")
    return int(value)


def format_fields(word: str, **fields: object) -> str:
    """``word name=value …`` in the order given; the values must have no spaces."""
    return " ".join([word, *(f"{name}={value}" for name, value in fields.items())])


def fields_of(text: str, word: str, names: tuple[str, ...]) -> list[str]:
    """The values of the fields ``names``, which must be those of ``text``, all and in this order, behind ``word``.

    Raises LedgerError.
    """
    parts = text.split(" ", len(names) + 1)
    if parts[0] != word or len(parts) != len(names) + 1:
        raise LedgerError(f"{word} has other fields than {', '.join(names)}")
    values = []
    for part, name in zip(parts[1:], names, strict=True):
        if not part.startswith(name + "=") or len(part) - len(name) - 1 > _VALUE_LIMIT:
            raise LedgerError(f"{word} has no fitting field {name}")
        values.append(part[len(name) + 1 :])
    return values
