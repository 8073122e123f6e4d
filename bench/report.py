"""The table, as text and as Markdown, and the run file as JSON. No I/O here."""

import json
from collections.abc import Callable, Sequence

import attrs

from bench.compare import OWN_GENERATOR, Report
from bench.figures import FOREIGN_LIMIT, SATURATED, Row

FORMAT = 1
"""Version of the run file; raised when a field changes its meaning."""

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


def notes(report: Report) -> list[str]:
    """Warnings of the run, and an explanation of every mark that stands in the table."""
    found = list(report.warnings)
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
    return found


def render_report(report: Report, markdown: bool) -> str:
    """Conditions, table and notes in one text that ends with a line end."""
    table = render_markdown(report.rows) if markdown else render_text(report.rows)
    bullet = "- " if markdown else "! "
    parts = ["\n".join(conditions(report)), table]
    parts += ["\n".join(bullet + note for note in notes(report))] if notes(report) else []
    return "\n\n".join(parts) + "\n"


def render_json(report: Report) -> str:
    """The run file: conditions, every median and every round's sample; times in seconds."""
    results = []
    for row in report.rows:
        taken = report.samples[row.command, row.depth, row.server]
        results.append({**attrs.asdict(row), "rounds": [attrs.asdict(sample) for sample in taken]})
    document = {
        "format": FORMAT,
        "options": attrs.asdict(report.options),
        "machine": report.machine,
        "cores": attrs.asdict(report.cores),
        "servers": [{"name": server.name, "version": server.version} for server in report.servers],
        "baseline": report.baseline,
        "results": results,
        "warnings": report.warnings,
    }
    return json.dumps(document, indent=1) + "\n"
