"""HELP subcommands, written from the command table."""

from __future__ import annotations

from ..errors import FIX, ErrorKind
from ..reply import Reply, Status
from .command import Args, Command, command

__all__ = ["UNKNOWN_FORM", "add_help", "help_lines"]

UNKNOWN_FORM = ErrorKind("ERR", "unknown subcommand or wrong number of arguments for '{}'. Try {} HELP.", FIX)


def help_lines(container: Command) -> list[Status]:
    """One entry for each subcommand: how it is written, and what it does."""
    lines = [f"{container.name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for name in sorted(container.subcommands):
        entry = container.subcommands[name]
        if entry.name != "help":
            lines += [f"{entry.name.upper()} {entry.syntax}".rstrip(), f"    {entry.summary}"]
    lines += ["HELP", "    Print this help."]
    return [Status(line.encode()) for line in lines]


def add_help(container: Command, since: str = "5.0.0") -> None:
    """Give a container the subcommand HELP; ``since`` is the version that brought it."""

    @command(
        "help",
        arity=2,
        flags="loading stale",
        group=container.group,
        since=since,
        summary="Says how each subcommand is written.",
        complexity="O(1)",
        parent=container,
        categories="connection" if container.group == "connection" or container.name == "command" else "",
        on_store=False,
    )
    def show_help(_: object, argv: Args) -> Reply:
        return list(help_lines(container))
