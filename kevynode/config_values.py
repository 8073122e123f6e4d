"""The kinds of value a configuration key can have: what each accepts, and how it is read.

A kind reads two shapes: a TOML value (:meth:`Kind.parse`) and the text of an environment variable or a flag
(:meth:`Kind.parse_text`). Both raise :class:`ValueError` with a reason, or with no text when ``accepted`` says it all.
Nothing here touches the network or the file system.
"""

from __future__ import annotations

import ipaddress
import re
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import attrs

__all__ = [
    "Addresses",
    "Boolean",
    "Choice",
    "Endpoint",
    "Identifier",
    "Integer",
    "Kind",
    "Path",
    "PrefixSelection",
    "Size",
    "encode_prefix",
    "join_address",
    "parse_size",
    "show",
    "split_address",
]

T = TypeVar("T")

# As in Valkey: the short units are powers of ten, those with a "b" powers of two.
_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1 << 10,
    "m": 1000**2,
    "mb": 1 << 20,
    "g": 1000**3,
    "gb": 1 << 30,
    "t": 1000**4,
    "tb": 1 << 40,
}
_SIZE = re.compile(r"([0-9]{1,19})\s*([a-z]{0,2})\Z", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}\Z")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Ids stand in wire lines, in `id@host` and `prefix=writer|fallback`, and in file names.
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:#-]{0,63}\Z")

# The bytes a unix socket address can hold on Linux, less the closing NUL.
UNIX_SOCKET_PATH_LIMIT = 107
_INT64_MAX = (1 << 63) - 1


def show(value: object) -> str:
    """``value`` as it stands in an error: one line, escaped, at most about sixty characters."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int):
        # Beyond 20 digits the value says nothing more, and str() refuses integers of thousands of digits.
        text = str(value) if abs(value) < 10**20 else "an integer of more than 20 digits"
    elif isinstance(value, str):
        text = '"' + value[:200].encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, list | tuple):
        text = "a list"
    else:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def parse_size(text: str) -> int:
    """Bytes in ``text``: digits and a unit of Valkey's (``b k kb m mb g gb t tb``, any case); raises ``ValueError``."""
    match = _SIZE.match(text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError
    size = int(match[1]) * _UNITS[match[2].lower()]
    if size > _INT64_MAX:
        raise ValueError("larger than 2^63 - 1 bytes")
    return size


def encode_prefix(text: str) -> bytes:
    """A key prefix written as text, in bytes (UTF-8; undecodable bytes of the environment come through unchanged)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode") from None


def _host(text: str) -> str:
    """``text`` if it is an IP address (with or without brackets) or a host name, else ``ValueError``."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        return bare
    # A name of digits and dots only is a mistyped address, never a host.
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(map(_LABEL.match, labels)) or labels[-1].isdigit():
        raise ValueError
    return text


def join_address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Host (no brackets) and port of ``host:port`` or ``[ipv6]:port``; raises ``ValueError``."""
    head, colon, tail = text.strip().rpartition(":")
    if not colon or (":" in head and not head.startswith("[")) or not re.fullmatch(r"[0-9]{1,5}", tail, re.ASCII):
        raise ValueError
    port = int(tail)
    if not 1 <= port <= 65535:
        raise ValueError("the port is not from 1 to 65535")
    return _host(head), port


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    if _CONTROL.search(value):
        raise ValueError("it holds a control character")
    return value


class Kind(ABC, Generic[T]):
    """One kind of value. ``accepted`` says in a few words what is taken."""

    @property
    @abstractmethod
    def accepted(self) -> str:
        """What is accepted, as it stands in errors and in the documentation."""

    @abstractmethod
    def parse(self, value: object) -> T:
        """Read a TOML value; raises ``ValueError``."""

    def parse_text(self, text: str) -> T:
        """Read the text of an environment variable or a flag; raises ``ValueError``."""
        return self.parse(text)


@attrs.frozen
class Integer(Kind[int]):
    """A whole number within bounds, both included."""

    low: int
    high: int

    @property
    def accepted(self) -> str:
        return f"an integer from {self.low} to {self.high}"

    def parse(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError
        return value

    def parse_text(self, text: str) -> int:
        if not _INTEGER.match(text.strip()):
            raise ValueError
        return self.parse(int(text))


@attrs.frozen
class Size(Kind[int]):
    """A number of bytes: an integer, or text with a unit."""

    @property
    def accepted(self) -> str:
        return "bytes as an integer, or text with a unit: k, m, g, t (1k = 1000), kb, mb, gb, tb (1kb = 1024)"

    def parse(self, value: object) -> int:
        if isinstance(value, str):
            return parse_size(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _INT64_MAX:
            raise ValueError
        return value


@attrs.frozen
class Boolean(Kind[bool]):
    """true or false; as text also yes, no, on, off, 1 and 0."""

    @property
    def accepted(self) -> str:
        return "true or false"

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def parse_text(self, text: str) -> bool:
        word = text.strip().lower()
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0"):
            return False
        raise ValueError


@attrs.frozen
class Choice(Kind[str]):
    """One of a few words, in any case. ``aliases`` are other spellings that are read and replaced."""

    words: tuple[str, ...]
    aliases: dict[str, str] = attrs.field(factory=dict, eq=False)

    @property
    def accepted(self) -> str:
        return ", ".join(f'"{word}"' for word in self.words)

    def parse(self, value: object) -> str:
        word = _text(value).strip().lower()
        word = self.aliases.get(word, word)
        if word not in self.words:
            raise ValueError
        return word


@attrs.frozen
class Path(Kind[str]):
    """A path, or one of the words that ``what`` names. ``limit`` is its greatest length in bytes."""

    what: str
    optional: bool = False
    limit: int = 4096

    @property
    def accepted(self) -> str:
        return self.what

    def parse(self, value: object) -> str:
        path = _text(value)
        if not path and not self.optional:
            raise ValueError("it is empty")
        if len(encode_prefix(path)) > self.limit:
            raise ValueError(f"longer than {self.limit} bytes")
        return path


@attrs.frozen
class Identifier(Kind[str]):
    """A node id."""

    optional: bool = False

    @property
    def accepted(self) -> str:
        return "1 to 64 letters, digits and . _ - : # that begin with a letter or digit" + (
            ', or ""' if self.optional else ""
        )

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        if value == "" and self.optional:
            return value
        if not _IDENTIFIER.match(value):
            raise ValueError
        return value


@attrs.frozen
class Endpoint(Kind[str]):
    """``host:port``, kept in the form that :func:`join_address` writes."""

    optional: bool = False

    @property
    def accepted(self) -> str:
        return '"host:port", "[ipv6]:port"' + (' or ""' if self.optional else "")

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        if value == "" and self.optional:
            return value
        return join_address(*split_address(value))


@attrs.frozen
class Addresses(Kind[tuple[str, ...]]):
    """One or more addresses to listen on."""

    @property
    def accepted(self) -> str:
        return (
            'IPv4 or IPv6 addresses or host names, as a list or as text divided by spaces or commas; "*" is every'
            ' IPv4 address, "::" every IPv6 one'
        )

    def parse(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            words: list[object] = [*value.replace(",", " ").split()]
        elif isinstance(value, list | tuple):
            words = list(value)
        else:
            raise ValueError
        found: list[str] = []
        for word in words:
            if not isinstance(word, str):
                raise ValueError
            address = {"*": "0.0.0.0", "::*": "::"}.get(word) or _host(word)
            if address in found:
                raise ValueError(f"{address} is given twice")
            found.append(address)
        if not found:
            raise ValueError("no address is given")
        return tuple(found)


@attrs.frozen
class PrefixSelection(Kind["str | tuple[bytes, ...]"]):
    """``"all"``, ``"none"`` or a list of key prefixes."""

    @property
    def accepted(self) -> str:
        return '"all", "none" or a list of key prefixes'

    def parse(self, value: object) -> str | tuple[bytes, ...]:
        if isinstance(value, str):
            if value.lower() not in ("all", "none"):
                raise ValueError
            return value.lower()
        if not isinstance(value, list | tuple):
            raise ValueError
        found: list[bytes] = []
        for item in value:
            prefix = encode_prefix(item) if isinstance(item, str) else item
            if not isinstance(prefix, bytes):
                raise ValueError
            if prefix in found:
                raise ValueError(f"{show(item)} is given twice")
            found.append(prefix)
        return tuple(found)

    def parse_text(self, text: str) -> str | tuple[bytes, ...]:
        if text.strip().lower() in ("all", "none"):
            return self.parse(text.strip())
        return self.parse([word for word in text.split(",") if word])
