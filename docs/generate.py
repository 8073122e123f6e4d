"""Writes the reference pages that follow from the code: ``PYTHONPATH=. python docs/generate.py`` from the root.

A test holds the pages equal to what this prints, so that they cannot grow stale.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import kevynode
from kevynode import errors
from kevynode.errors import ErrorKind
from kevynode.serve.table import TABLE
from kevynode.store.command import Command

FOLDER = Path(__file__).parent

GROUPS = {
    "string": "Strings",
    "bitmap": "Bitmaps",
    "generic": "Keys",
    "hash": "Hashes",
    "list": "Lists",
    "set": "Sets",
    "sorted-set": "Sorted sets",
    "transactions": "Transactions",
    "pubsub": "Pub/sub",
    "connection": "Connections",
    "server": "Server",
    "cluster": "Cluster",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(command: Command) -> str:
    name = command.full_name.replace("|", " ").upper()
    return f"| `{name}{' ' if command.syntax else ''}{_cell(command.syntax)}` | {_cell(command.summary)} |"


def commands() -> str:
    """The page of all commands, by group."""
    lines = [
        "# Commands",
        "",
        "Every command a node knows, from its command table. Replies, errors and edge cases are those of Valkey 9;",
        "[differences.md](differences.md) lists where they are not. `COMMAND DOCS` tells the same at run time.",
    ]
    by_group: dict[str, list[Command]] = {}
    for command in TABLE:
        entries = list(command.subcommands.values()) or [command]
        by_group.setdefault(command.group, []).extend(entries)
    unnamed = by_group.keys() - GROUPS.keys()
    assert not unnamed, f"groups without a title: {unnamed}"
    for group, title in GROUPS.items():
        entries = sorted(by_group.get(group, ()), key=lambda command: command.full_name)
        if entries:
            lines += ["", f"## {title}", "", "| command | |", "|---|---|", *map(_row, entries)]
    return "\n".join(lines) + "\n"


def _kinds() -> list[ErrorKind]:
    """Every kind of error declared anywhere in the package, each text once."""
    found: dict[tuple[str, str], ErrorKind] = {}
    modules = [errors] + [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(kevynode.__path__, "kevynode.")
        if not module.name.endswith("__main__")
    ]
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, ErrorKind):
                found.setdefault((value.prefix, value.template), value)
    return sorted(found.values(), key=lambda kind: (kind.prefix != "ERR", kind.prefix, kind.template))


def error_replies() -> str:
    """The page of all error replies, by prefix."""
    lines = [
        "# Error replies",
        "",
        "What a node can answer instead of a result, and what to do about it. `{}` stands for what the command said.",
        "Texts are Valkey's where Valkey has the error; clients may match on the first word.",
    ]
    prefix = ""
    for kind in _kinds():
        if kind.prefix != prefix:
            prefix = kind.prefix
            lines += ["", f"## {prefix}", "", "| text | what to do |", "|---|---|"]
        lines.append(f"| {_cell(kind.template)} | {_cell(kind.advice)} |")
    return "\n".join(lines) + "\n"


PAGES = {"commands.md": commands, "errors.md": error_replies}


def main() -> int:
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
