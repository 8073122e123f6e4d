"""What has changed since an earlier run: a run file beside the rows of this one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import Row
from bench.tables import Table

FORMAT = 1
"""Version of the run file; raised when a field changes its meaning."""

NOTABLE = 0.10
"""A change of the CPU ratio, or of the CPU per command where there is no ratio, that is marked."""

_CONDITIONS = ("connections", "generator")


class UnusableRun(Exception):
    """A file is no run file of this version; the text says which."""


def read_run(path: Path) -> dict[str, Any]:
    """A run file; raises :class:`UnusableRun` for one that cannot be read or is of another version."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UnusableRun(f"{path}: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT or "results" not in document:
        raise UnusableRun(f"{path} is no run file of format {FORMAT}")
    return document


def _change(before: float | None, now: float | None) -> float | None:
    return None if not before or now is None else now / before - 1


def _percent(change: float | None) -> str:
    return "–" if change is None else f"{change:+.0%}"


def _pair(before: float | None, now: float | None) -> str:
    return " → ".join("–" if value is None else f"{value:.2f}" for value in (before, now))


def _mark(ratio: float | None, cpu: float | None) -> str:
    """``better`` or ``worse`` where the change is notable. A rising ratio is good, rising CPU per command is not."""
    gain = ratio if ratio is not None else -cpu if cpu is not None else 0.0
    return "" if abs(gain) < NOTABLE else "better" if gain > 0 else "worse"


def differing_conditions(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What makes two run files hard to compare: another machine, other options, other versions of the servers."""
    notes = [
        f"{name} was {before['machine'].get(name)}, is {now['machine'].get(name)}"
        for name in ("processor", "kernel", "python")
        if before["machine"].get(name) != now["machine"].get(name)
    ]
    notes += [
        f"{name} was {before['options'].get(name)}, is {now['options'].get(name)}"
        for name in _CONDITIONS
        if before["options"].get(name) != now["options"].get(name)
    ]
    if before["baseline"] != now["baseline"]:
        notes.append(f"ratios were to {before['baseline']}, are to {now['baseline']}")
    versions = {server["name"]: server["version"] for server in before["servers"]}
    notes += [
        f"{server['name']} was {versions[server['name']]}, is {server['version']}"
        for server in now["servers"]
        if versions.get(server["name"], server["version"]) != server["version"]
    ]
    return notes


def change_table(before: dict[str, Any], rows: Sequence[Row], notes: Sequence[str]) -> Table:
    """Every row that is in both runs. The CPU ratio comes first: it changes least with the machine."""
    known = {(old["command"], old["depth"], old["server"]): old for old in before["results"]}
    shown = []
    for row in rows:
        old = known.get((row.command, row.depth, row.server))
        if old is None:
            continue
        ratio = _change(old["cpu_ratio"], row.cpu_ratio)
        cpu = _change(old["cpu_per_command"], row.cpu_per_command)
        shown.append(
            [
                row.command,
                str(row.depth),
                row.server,
                _pair(old["cpu_ratio"], row.cpu_ratio),
                _pair(old["cpu_per_command"] * 1e6, row.cpu_per_command * 1e6),
                _percent(cpu),
                _percent(_change(old["throughput"], row.throughput)),
                _percent(_change(old["p99"], row.p99)),
                _mark(ratio if row.server != before["baseline"] else None, cpu),
            ]
        )
    columns = ("command", "depth", "server", "CPU ratio", "CPU µs/command", "CPU", "commands/s", "p99", "")
    left = [] if shown else ["the two runs have no row in common"]
    return Table("Changes since the earlier run", columns, shown, [*notes, *left], left=3)
