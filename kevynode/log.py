"""The log: one line for each event, as text or JSON.

Text is ``<RFC 3339 UTC> <level> <event> key=value…``. A value is quoted when it has to be, and everything unprintable
in it is escaped, so that what a client sends can neither start a line nor steer a terminal. Fields that are named like
a secret are hidden. Writing never raises: a line that cannot be written is counted, and the count is logged when
writing works again.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, Self, TextIO

from kevynode.clock import Clock, SystemClock
from kevynode.config_schema import LogConfig

__all__ = ["LEVELS", "FileSink", "Logger", "Sink", "StreamSink", "open_log"]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# Longer values are cut: a log line is for people, and an argument of a client can have 512 MB.
VALUE_LIMIT = 1024

_SECRET_WORDS = ("password", "passwd", "requirepass", "masterauth", "primaryauth", "secret", "private_key")
_RESERVED = frozenset({"time", "level", "event"})


class Sink(Protocol):
    """Where lines go. ``write`` may raise ``OSError`` or ``ValueError``; the logger counts that."""

    def write(self, line: bytes) -> None:
        """Append a whole line, its newline included."""
        ...

    def reopen(self) -> None:
        """Open the target anew, for log rotation; on ``OSError`` the old one stays in use."""
        ...

    def close(self) -> None:
        """Let go of the target."""
        ...


class StreamSink:
    """The process's standard output or error; looked up for each line, because programs replace them."""

    def __init__(self, stream: Callable[[], TextIO]) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        """Write and flush the line."""
        stream = self._stream()
        stream.write(line.decode("utf-8"))
        stream.flush()

    def reopen(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """The stream belongs to the process."""


class FileSink:
    """A file that is appended to, one ``write(2)`` for each line. Raises ``OSError`` if it cannot be opened."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = self._open()
        self._torn = False

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, line: bytes) -> None:
        """Append the line; what a full disk cut off is ended before the next line."""
        if self._descriptor < 0:
            raise ValueError("the log is closed")
        if self._torn:
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        self._torn = written < len(line)
        if self._torn:
            raise OSError("short write to the log")

    def reopen(self) -> None:
        """Switch to a new file at the path; the old one stays in use if that fails."""
        fresh = self._open()
        self.close()
        self._descriptor = fresh
        self._torn = False

    def close(self) -> None:
        """Close the file; lines written later are dropped."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Logger:
    """Writes events that are important enough. Cheap when they are not: one comparison.

    >>> import sys
    >>> class Noon:
    ...     monotonic = wall = staticmethod(lambda: 43200.0)
    >>> log = Logger(StreamSink(lambda: sys.stdout), clock=Noon())
    >>> log.info("client_closed", id=3, reason="end of stream")
    1970-01-01T12:00:00.000Z info client_closed id=3 reason="end of stream"
    """

    def __init__(self, sink: Sink, *, level: str = "info", format: str = "text", clock: Clock | None = None) -> None:
        self._sink = sink
        self._format = _json_line if format == "json" else _text_line
        self._clock: Clock = clock or SystemClock()
        self._fields: dict[str, object] = {}
        self._shared = _Shared()
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Change the least important level that is written, for bound loggers too; ``KeyError`` if there is none."""
        self._shared.threshold = LEVELS[level]
        self._shared.level = level

    @property
    def level(self) -> str:
        """The least important level that is written."""
        return self._shared.level

    def enabled(self, level: str) -> bool:
        """Whether events of this level are written; ask before computing costly fields."""
        return LEVELS[level] >= self._shared.threshold

    def bind(self, **fields: object) -> Logger:
        """A logger to the same place, with the same level, that adds ``fields`` to every event."""
        child = Logger.__new__(type(self))
        child.__dict__.update(self.__dict__)
        child._fields = {**self._fields, **fields}
        return child

    def debug(self, event: str, /, **fields: object) -> None:
        """What only someone searching for a fault wants to see."""
        if self._shared.threshold <= 10:
            self._write("debug", event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """What happened, in normal operation."""
        if self._shared.threshold <= 20:
            self._write("info", event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """What an operator should look at some day."""
        if self._shared.threshold <= 30:
            self._write("warning", event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """What an operator should look at now."""
        if self._shared.threshold <= 40:
            self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        try:
            self._sink.write(self._format(self._clock.wall(), level, event, {**self._fields, **fields}))
        # ValueError: a closed stream, or a number no text can be made of. OverflowError: a time beyond all dates.
        except (OSError, ValueError, OverflowError):
            self._shared.dropped += 1
            return
        if self._shared.dropped:
            count, self._shared.dropped = self._shared.dropped, 0
            self._write("warning", "log_lines_dropped", {"count": count})

    def reopen(self) -> None:
        """Open a log file anew (SIGHUP). If that fails the old file stays in use and the log says so."""
        try:
            self._sink.reopen()
        except OSError as error:
            self.error("log_reopen_failed", reason=error.strerror or str(error))
        else:
            self.info("log_reopened")

    def close(self) -> None:
        """Close a log file; later events are dropped."""
        self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Shared:
    """What a logger and those bound to it have in common."""

    threshold = LEVELS["info"]
    level = "info"
    # Lines that could not be written since the last one that could.
    dropped = 0


def open_log(config: LogConfig, clock: Clock | None = None) -> Logger:
    """The log that ``config`` describes. Raises ``OSError`` if its file cannot be opened."""
    sink: Sink
    if config.output == "stderr":
        sink = StreamSink(lambda: sys.stderr)
    elif config.output == "stdout":
        sink = StreamSink(lambda: sys.stdout)
    else:
        sink = FileSink(config.output)
    return Logger(sink, level=config.level, format=config.format, clock=clock)


def _timestamp(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(name: str, value: object) -> str | int | float | bool | None:
    """``value`` as something both formats can show: numbers stay, the rest becomes text of bounded length."""
    if any(word in name for word in _SECRET_WORDS):
        return "(hidden)"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value[: VALUE_LIMIT + 1]).decode("utf-8", "backslashreplace")
    elif isinstance(value, BaseException):
        text = f"{type(value).__name__}: {value}"
    elif isinstance(value, list | tuple | set | frozenset):
        text = ",".join(str(_plain("", item)) for item in value)
    else:
        text = str(value)
    return text if len(text) <= VALUE_LIMIT else text[: VALUE_LIMIT - 1] + "…"


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def _text_value(value: str | int | float | bool | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    if value and value.isprintable() and not any(char in ' "\\=' for char in value):
        return value
    return '"' + "".join(map(_escape, value)) + '"'


def _text_line(now: float, level: str, event: str, fields: dict[str, object]) -> bytes:
    words = [_timestamp(now), level, event]
    words += [f"{name}={_text_value(_plain(name, value))}" for name, value in fields.items()]
    return (" ".join(words) + "\n").encode("utf-8", "backslashreplace")


def _json_line(now: float, level: str, event: str, fields: dict[str, object]) -> bytes:
    entry: dict[str, object] = {"time": _timestamp(now), "level": level, "event": event}
    for name, value in fields.items():
        entry[name + "_" if name in _RESERVED else name] = _plain(name, value)
    return (json.dumps(entry) + "\n").encode("ascii")
