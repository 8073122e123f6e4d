"""The table, as text and as Markdown, and the run file as JSON. No I/O here."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from bench.against import FORMAT, change_table, differing_conditions
from bench.compare import OWN_GENERATOR, Report
from bench.figures import FOREIGN_LIMIT, SATURATED, Row
from bench.goals import goal_table
from bench.tables import Table
from bench.tables import render_markdown as table_in_markdown
from bench.tables import render_text as table_in_text

_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("command", lambda row: row.command),
    ("depth", lambda row: str(row.depth)),
    ("server", lambda row: row.server),
    ("commands/s", lambda row: f"{row.throughput:,.0f}"),
    ("throughput ratio", lambda row: _ratio(row.throughput_ratio)),
    ("CPU µs/command", lambda row: f"{row.cpu_per_command * 1e6:.2f}"),
    ("CPU ratio", lambda row: _ratio(row.cpu_ratio)),
    ("p50 ms", lambda row: f"{row.p50 * 1e3:.3f}"),
    ("p99 ms", lambda row: f"{row.p99 * 1e3:.3f}"),
    ("p99 ratio", lambda row: _ratio(row.p99_ratio)),
    ("spread", lambda row: f"{row.spread:.0%}"),
    ("server busy", lambda row: f"{min(1.0, row.server_busy):.0%}"),
    ("load busy", lambda row: f"{min(1.0, row.generator_busy):.0%}"),
    ("foreign", lambda row: f"{row.foreign:.0%}"),
    ("", lambda row: ("L" if row.generator_limited else "") + ("F" if row.disturbed else "")),
)
_TEXT_COLUMNS = (0, 2)
"""Columns that are flushed left; the others hold numbers."""


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table's body as text, a list per row."""
    return [[show(row) for _, show in _COLUMNS] for row in rows]


def render_text(rows: Sequence[Row]) -> str:
    """The table for a terminal, columns aligned."""
    table = [[name for name, _ in _COLUMNS], *cells(rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(_COLUMNS))]
    lines = []
    for line in table:
        padded = [
            cell.ljust(width) if index in _TEXT_COLUMNS else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def render_markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    heading = "| " + " | ".join(name for name, _ in _COLUMNS) + " |"
    rule = "|" + "|".join("---" if index in _TEXT_COLUMNS else "---:" for index in range(len(_COLUMNS))) + "|"
    return "\n".join([heading, rule, *("| " + " | ".join(line) + " |" for line in cells(rows))])


def conditions(report: Report) -> list[str]:
    """What the figures were taken under, in sentences."""
    options, cores, machine = report.options, report.cores, report.machine
    generator = "our own generator" if options.generator == OWN_GENERATOR else "redis-benchmark"
    versions = ", ".join(f"{server.name} {server.version}" for server in report.servers)
    placing = f"servers on core {cores.server}, load on core {cores.generator}"
    return [
        f"Servers: {versions}. Ratios are to {report.baseline}; above 1.00 is better than it.",
        f"Load: {generator}, {options.connections} connections, 64-byte values, medians of {options.rounds} alternated "
        f"rounds of about {options.seconds:g} s.",
        f"Machine: {machine['processor']}, {machine['cores']} core(s) allowed, {placing}; Linux {machine['kernel']}, "
        f"Python {machine['python']}.",
    ]


def headline(report: Report) -> str:
    """What stands over a picture of it."""
    disturbed = report.load > FOREIGN_LIMIT or any(row.disturbed for row in report.rows)
    return conditions(report)[0] + ("\nNOT FOR QUOTING: others used the machine meanwhile" if disturbed else "")


def notes(report: Report) -> list[str]:
    """Warnings of the run, and an explanation of every mark that stands in the table, and of what is not in it."""
    found = list(report.warnings)
    if report.load > FOREIGN_LIMIT:
        found.insert(0, f"NOT FOR QUOTING: other processes used {report.load:.0%} of one of the two cores at the start")
    if any(row.generator_limited for row in report.rows):
        found.append(
            f"L: the load generator's core was at least {SATURATED:.0%} busy while the server's was not; the "
            "throughput is a lower bound, the CPU per command holds"
        )
    disturbed = [row for row in report.rows if row.disturbed]
    if disturbed:
        found.append(
            f"F: other processes used more than {FOREIGN_LIMIT:.0%} of one of the two cores in {len(disturbed)} of "
            f"{len(report.rows)} rows (at most {max(row.foreign for row in disturbed):.0%}); repeat on a quiet machine"
        )
    if report.withheld:
        where = dict.fromkeys(f"{row.command} at depth {row.depth}" for row in report.withheld)
        found.append(
            f"{len(report.withheld)} rows are withheld, because other processes used more than {FOREIGN_LIMIT:.0%} of "
            f"one of the two cores (at most {max(row.foreign for row in report.withheld):.0%}): {', '.join(where)}"
        )
    return found


def render_report(report: Report, markdown: bool, before: dict[str, Any] | None = None) -> str:
    """Conditions, table, notes, goals, and the changes since the run ``before``, in one text that ends with a line end.

    ``before`` is the document of a run file.
    """
    table = render_markdown(report.rows) if markdown else render_text(report.rows)
    bullet = "- " if markdown else "! "
    parts = ["\n".join(conditions(report)), table]
    parts += ["\n".join(bullet + note for note in notes(report))] if notes(report) else []
    tables: list[Table | None] = [goal_table(report.samples)]
    if before is not None:
        tables.append(change_table(before, report.rows, differing_conditions(before, document(report))))
    show = table_in_markdown if markdown else table_in_text
    parts += [show(each).rstrip("\n") for each in tables if each is not None]
    return "\n\n".join(parts) + "\n"


def document(report: Report) -> dict[str, Any]:
    """What stands in the run file: conditions, every median and every round's sample; times in seconds."""
    results = []
    for row in report.rows:
        taken = report.samples[row.command, row.depth, row.server]
        results.append({**attrs.asdict(row), "rounds": [attrs.asdict(sample) for sample in taken]})
    return {
        "format": FORMAT,
        "options": attrs.asdict(report.options),
        "machine": report.machine,
        "cores": attrs.asdict(report.cores),
        "servers": [{"name": server.name, "version": server.version} for server in report.servers],
        "baseline": report.baseline,
        "load": report.load,
        "results": results,
        "withheld": [attrs.asdict(row) for row in report.withheld],
        "warnings": report.warnings,
    }


def render_json(report: Report) -> str:
    """The run file as text."""
    return json.dumps(document(report), indent=1) + "\n"
