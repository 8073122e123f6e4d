"""The kinds of value a Valkey parameter can have: how text is read, with Valkey's error texts, and shown again."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any, Final, TypeAlias

import attrs

from ..store import notify

__all__ = [
    "EventClasses",
    "Flag",
    "Integer",
    "MemorySize",
    "OutputLimits",
    "ParameterKind",
    "SavePoints",
    "Seconds",
    "Text",
    "Word",
]

INT32_MAX: Final = (1 << 31) - 1
INT64_MAX: Final = (1 << 63) - 1

# As in Valkey: the short units are powers of ten, those with a "b" powers of two.
_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1 << 10,
    "m": 1000**2,
    "mb": 1 << 20,
    "g": 1000**3,
    "gb": 1 << 30,
}
_SIZE: Final = re.compile(r"([0-9]{0,20})([a-z]{0,2})\Z", re.IGNORECASE)
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})\Z")


def read_size(text: str) -> int | None:
    """Bytes in ``text``: digits and perhaps a unit; nothing at all is 0. None for anything else."""
    match = _SIZE.match(text)
    if match is None or match[2].lower() not in _UNITS or (match[2] and not match[1]):
        return None
    size = int(match[1] or "0") * _UNITS[match[2].lower()]
    return size if size < 1 << 64 else None


class ParameterKind(ABC):
    """Reads and shows the values of a parameter."""

    @abstractmethod
    def parse(self, text: str, current: Any) -> Any:
        """The value ``text`` stands for; ``current`` is the present one. Raises ValueError with Valkey's complaint."""

    def show(self, value: Any) -> str:
        """The value as CONFIG GET shows it."""
        return str(value)


@attrs.frozen
class Flag(ParameterKind):
    """yes or no."""

    def parse(self, text: str, current: Any) -> bool:
        if text.lower() not in ("yes", "no"):
            raise ValueError("argument must be 'yes' or 'no'")
        return text.lower() == "yes"

    def show(self, value: Any) -> str:
        return "yes" if value else "no"


@attrs.frozen
class Integer(ParameterKind):
    """A whole number within bounds, both included; outside them it is refused, or moved to the nearer bound."""

    low: int = 0
    high: int = INT64_MAX
    clamped: bool = False

    def parse(self, text: str, current: Any) -> int:
        if not _INTEGER.match(text) or abs(int(text)) > INT64_MAX or text == "-0":
            raise ValueError("argument couldn't be parsed into an integer")
        value = int(text)
        if self.clamped:
            return min(max(value, self.low), self.high)
        return check_bounds(value, self.low, self.high)


@attrs.frozen
class Seconds(ParameterKind):
    """A length of time, held in milliseconds: clients set whole seconds, and see parts of one that were configured."""

    def parse(self, text: str, current: Any) -> int:
        return Integer(0, INT32_MAX).parse(text, None) * 1000

    def show(self, value: Any) -> str:
        return str(value // 1000) if value % 1000 == 0 else f"{value / 1000:.3f}".rstrip("0")


@attrs.frozen
class MemorySize(ParameterKind):
    """A number of bytes, with or without a unit."""

    low: int = 0
    high: int = INT64_MAX

    def parse(self, text: str, current: Any) -> int:
        value = read_size(text)
        if value is None:
            raise ValueError("argument must be a memory value")
        return check_bounds(value, self.low, self.high)


def check_bounds(value: int, low: int, high: int) -> int:
    """``value``; raises ValueError with Valkey's text if it is out of bounds."""
    if not low <= value <= high:
        raise ValueError(f"argument must be between {low} and {high} inclusive")
    return value


@attrs.frozen
class Word(ParameterKind):
    """One of a few words, in any case."""

    words: tuple[str, ...]

    def parse(self, text: str, current: Any) -> str:
        if text.lower() not in self.words:
            raise ValueError(f"argument(s) must be one of the following: {', '.join(self.words)}")
        return text.lower()


@attrs.frozen
class Text(ParameterKind):
    """Any text; bytes that are not UTF-8 travel as surrogate escapes."""

    def parse(self, text: str, current: Any) -> str:
        return text


@attrs.frozen
class EventClasses(ParameterKind):
    """Flags of kevynode.store.notify, as letters."""

    def parse(self, text: str, current: Any) -> int:
        flags = notify.parse_flags(text)
        if flags is None:
            raise ValueError("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
        return flags

    def show(self, value: Any) -> str:
        return notify.format_flags(value)


# Hard limit and soft limit in bytes, and for how many seconds the soft one may be passed.
_Limit: TypeAlias = tuple[int, int, int]


@attrs.frozen
class OutputLimits(ParameterKind):
    """Limits for some or all classes of clients; classes that are not named keep theirs."""

    def parse(self, text: str, current: Any) -> dict[str, _Limit]:
        words = text.split()
        if len(words) % 4:
            raise ValueError("Wrong number of arguments in buffer limit configuration.")
        limits: dict[str, _Limit] = dict(current)
        for place in range(0, len(words), 4):
            name = {"replica": "slave"}.get(words[place].lower(), words[place].lower())
            if name not in ("normal", "slave", "pubsub"):
                raise ValueError("Invalid client class specified in buffer limit configuration.")
            hard, soft = read_size(words[place + 1]), read_size(words[place + 2])
            seconds = words[place + 3]
            if hard is None or soft is None or not seconds.isdecimal() or len(seconds) > 10:
                raise ValueError("Error in hard, soft or soft_seconds setting in buffer limit configuration.")
            limits[name] = (hard, soft, int(seconds))
        return limits

    def show(self, value: Any) -> str:
        return " ".join(f"{name} {hard} {soft} {seconds}" for name, (hard, soft, seconds) in value.items())


@attrs.frozen
class SavePoints(ParameterKind):
    """Pairs of seconds and changes."""

    def parse(self, text: str, current: Any) -> str:
        words = text.split()
        numbers = [int(word) if word.isdecimal() and len(word) <= 10 else -1 for word in words]
        if len(words) % 2 or any(seconds < 1 for seconds in numbers[::2]) or any(few < 0 for few in numbers[1::2]):
            raise ValueError("Invalid save parameters")
        return " ".join(map(str, numbers))
