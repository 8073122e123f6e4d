"""The log: both formats, what cannot be written, what must not be."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.config import LogConfig
from kevynode.log import FileSink, Logger, StreamSink, open_log


class FixedClock:
    """2026-03-01 12:30:05.25 UTC, for ever."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1772368205.25


class MemorySink:
    """Keeps lines; raises ``failure`` while it is set."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failure: Exception | None = None

    def write(self, line: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.lines.append(line.decode())

    def reopen(self) -> None:
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.failure = ValueError("closed")


def logger(level: str = "debug", format: str = "text") -> tuple[Logger, MemorySink]:
    sink = MemorySink()
    return Logger(sink, level=level, format=format, clock=FixedClock()), sink


def test_text_lines() -> None:
    log, sink = logger()
    log.info("client_closed", id=3, reason="end of stream", clean=True, ratio=0.5, name=None, peers=("a", 1), empty="")
    assert sink.lines == [
        "2026-03-01T12:30:05.250Z info client_closed id=3 reason="
        '"end of stream" clean=true ratio=0.5 name=none peers=a,1 empty=""\n'
    ]


def test_json_lines() -> None:
    log, sink = logger(format="json")
    log.warning("x", id=3, text="ü\n", nan=float("nan"), level="loud", raw=b"\xff", none=None)
    assert json.loads(sink.lines[0]) == {
        "time": "2026-03-01T12:30:05.250Z",
        "level": "warning",
        "event": "x",
        "id": 3,
        "text": "ü\n",
        "nan": "nan",
        "level_": "loud",
        "raw": "\\xff",
        "none": None,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain-1.2:3", "plain-1.2:3"),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\\b", '"a\\\\b"'),
        ("x\n2026-01-01T00:00:00Z error forged", '"x\\n2026-01-01T00:00:00Z error forged"'),
        ("\x1b[31m", '"\\x1b[31m"'),
        ("\u2028\u202e", '"\\u2028\\u202e"'),
        ("\udcff", '"\\udcff"'),
        (b"\x00\xfe", '"\\x00\\\\xfe"'),
        ("größe", "größe"),
        (OSError(28, "No space left"), '"OSError: [Errno 28] No space left"'),
    ],
)
def test_values_cannot_start_a_line_or_steer_a_terminal(value: object, shown: str) -> None:
    log, sink = logger()
    log.info("x", v=value)
    assert sink.lines == [f"2026-03-01T12:30:05.250Z info x v={shown}\n"]


@given(st.text() | st.binary())
def test_every_value_makes_one_line(value: str | bytes) -> None:
    for format in ("text", "json"):
        log, sink = logger(format=format)
        log.info("x", v=value)
        [line] = sink.lines
        assert line.endswith("\n")
        assert len(line.splitlines()) == 1
        assert line[:-1].isprintable()


def test_long_values_are_cut() -> None:
    log, sink = logger()
    log.info("x", a="y" * 10_000, b=b"\xff" * 10_000, c=["z" * 2000] * 10)
    assert len(sink.lines[0]) < 7000


def test_fields_that_are_named_like_a_secret_are_hidden() -> None:
    log, sink = logger()
    log.info("x", password="hunter2", requirepass=b"hunter2", old_secret="hunter2")
    assert "hunter2" not in sink.lines[0]
    assert sink.lines[0].count("(hidden)") == 3


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level: str, count: int) -> None:
    log, sink = logger(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("x")
        assert log.enabled(name) == (len(sink.lines) > 0 and sink.lines[-1].split()[1] == name)
    assert len(sink.lines) == count


def test_the_level_can_change_for_bound_loggers_too() -> None:
    log, sink = logger("error")
    bound = log.bind(id=1)
    log.set_level("debug")
    bound.debug("x")
    assert log.level == "debug"
    assert len(sink.lines) == 1
    with pytest.raises(KeyError):
        log.set_level("loud")


def test_bound_fields_come_first() -> None:
    log, sink = logger()
    log.bind(id=7).bind(peer="b").info("x", id=8)
    assert sink.lines == ["2026-03-01T12:30:05.250Z info x id=8 peer=b\n"]


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), ValueError("I/O operation on closed file")]
)
def test_what_cannot_be_written_is_counted_and_told_later(failure: Exception) -> None:
    log, sink = logger()
    sink.failure = failure
    log.info("one")
    log.bind(id=1).info("two")
    sink.failure = None
    log.info("three")
    assert [line.split(" ", 1)[1] for line in sink.lines] == ["info three\n", "warning log_lines_dropped count=2\n"]


def test_what_no_text_can_be_made_of_does_not_raise() -> None:
    log, sink = logger()
    log.info("x", number=10**5000)
    log.info("y")
    assert len(sink.lines) == 2


def test_a_file_is_appended_to_and_reopened(tmp_path: Path) -> None:
    file = tmp_path / "node.log"
    file.write_text("before\n")
    with open_log(LogConfig(output=str(file)), FixedClock()) as log:
        log.info("one")
        file.rename(tmp_path / "node.log.1")
        log.info("two")
        log.reopen()
        log.info("three")
    assert (tmp_path / "node.log.1").read_text().splitlines()[0] == "before"
    assert [line.split()[2] for line in (tmp_path / "node.log.1").read_text().splitlines()[1:]] == ["one", "two"]
    assert [line.split()[2] for line in file.read_text().splitlines()] == ["log_reopened", "three"]
    log.info("after_the_end")
    log.close()


def test_a_file_that_cannot_be_reopened_stays_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(LogConfig(output=str(folder / "node.log")), FixedClock())
    moved = tmp_path / "moved"
    folder.rename(moved)
    log.reopen()
    log.info("still_here")
    log.close()
    assert [line.split(" ", 1)[1] for line in (moved / "node.log").read_text().splitlines()] == [
        'error log_reopen_failed reason="No such file or directory"',
        "info still_here",
    ]


def test_a_file_that_cannot_be_opened_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_log(LogConfig(output=str(tmp_path / "none" / "node.log")))


def test_a_full_disk_ends_a_torn_line_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = FileSink(str(tmp_path / "log"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    with pytest.raises(OSError, match="short write"):
        sink.write(b"whole line\n")
    monkeypatch.setattr(os, "write", real)
    sink.write(b"next\n")
    sink.write(b"last\n")
    sink.close()
    assert (tmp_path / "log").read_bytes() == b"who\nnext\nlast\n"


def test_a_full_device_is_survived() -> None:
    with open_log(LogConfig(output="/dev/full")) as log:
        log.info("x")


@pytest.mark.parametrize("output", ["stderr", "stdout"])
def test_standard_streams(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open_log(LogConfig(output=output), FixedClock()) as log:
        log.info("x", v="ü")
        log.reopen()
    captured = capsys.readouterr()
    text = captured.err if output == "stderr" else captured.out
    assert text.splitlines() == ["2026-03-01T12:30:05.250Z info x v=ü", "2026-03-01T12:30:05.250Z info log_reopened"]


def test_a_stream_that_cannot_take_the_text_or_is_closed() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    log = Logger(StreamSink(lambda: ascii_only))
    log.info("x", v="ü")
    ascii_only.close()
    log.info("y")
