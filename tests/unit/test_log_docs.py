"""The page about the log has every warning and every error that the code can log."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import kevynode
from kevynode import leftovers

ROOT = Path(__file__).parents[2]
PACKAGE = Path(kevynode.__file__).parent

#: What decides between levels: called like the methods of a log.
CHOSEN = {"say", "tell"}


def is_loud(function: ast.expr) -> bool:
    """Whether a call logs a warning or an error, or may do so."""
    if isinstance(function, ast.Name):
        return function.id in CHOSEN
    return isinstance(function, ast.Attribute) and function.attr in ("warning", "error")


def made_elsewhere() -> set[str]:
    """Warnings whose names are not where they are logged."""
    code = Path(leftovers.__file__).read_text(encoding="utf-8")
    return set(re.findall(r'\("([a-z_]+)", (?:ledger|path)\)', code))


def logged() -> set[str]:
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            event = node.args[-1]
            # The command line has a say() of its own, for people: without fields.
            logs = (is_loud(node.func) and node.keywords) or ast.unparse(node.func) == "Refusals"
            if logs and isinstance(event, ast.Constant) and isinstance(event.value, str):
                found.add(event.value)
    return found


def test_every_warning_and_error_has_its_line() -> None:
    found = logged() | made_elsewhere()
    # It finds what there is, however it is logged.
    assert {"append_only_failed", "peer_link_lost", "upstream_lost", "peer_refused", "foreign_data_not_read"} <= found
    page = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")
    told = {
        name for row in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE) for name in re.findall("`([a-z_]+)`", row)
    }
    assert told == found
