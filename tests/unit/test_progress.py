"""The line on a terminal that says how far something has come."""

from __future__ import annotations

from io import StringIO

import pytest

from kevynode.progress import ProgressBar


class Terminal(StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        return True


def test_it_writes_over_itself_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar.show("loading", 1, 4, "123 keys")
    bar.show("loading", 4, 4)
    bar.clear()
    first, second, blank, rest = terminal.getvalue().split("\r")[1:]
    assert first == "loading [########......................]  25% 123 keys"
    assert second.rstrip() == "loading [##############################] 100%"
    assert len(second) == len(first)
    assert blank.strip() == rest == ""
    bar.clear()
    assert terminal.getvalue().endswith("\r" + rest)


def test_what_has_no_size_is_done() -> None:
    terminal = Terminal()
    ProgressBar(terminal).show("loading", 0, 0)
    assert "100%" in terminal.getvalue()


def test_a_line_that_does_not_fit_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar.show("loading", 1, 4, "many words")
    bar.clear()
    _, line, blank, rest = terminal.getvalue().split("\r")
    assert line == "loading [########......................"
    assert (len(line), len(blank), rest) == (39, 39, "")


def test_nobody_who_cannot_see_it_is_bothered() -> None:
    stream = StringIO()
    bar = ProgressBar(stream)
    bar.show("loading", 1, 2)
    bar.clear()
    assert not bar.is_wanted
    assert stream.getvalue() == ""
