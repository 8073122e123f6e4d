"""Titled tables as text and Markdown, and what stands in their cells. No I/O here."""

from collections.abc import Sequence

import attrs

from bench.figures import FOREIGN_LIMIT, percentile

MIB = 1 << 20

NO_PRIORITY = "the probe got no real-time priority: its own waits for the core are in its times"


@attrs.frozen
class Table:
    """A titled table of text; the first ``left`` columns are flushed left. ``notes`` stand under it."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    notes: list[str] = attrs.field(factory=list)
    left: int = 1


def render_text(table: Table) -> str:
    """The table for a terminal, columns aligned; ends with a line end."""
    lines = [list(table.columns), *table.rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    shown = []
    for line in lines:
        padded = [
            cell.ljust(width) if index < table.left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  ".join(padded).rstrip())
    return "\n".join([table.title, "", *shown, *(f"! {note}" for note in table.notes)]) + "\n"


def render_markdown(table: Table) -> str:
    """The table in Markdown; ends with a line end."""
    heading = "| " + " | ".join(table.columns) + " |"
    rule = "|" + "|".join("---" if index < table.left else "---:" for index in range(len(table.columns))) + "|"
    body = ["| " + " | ".join(line) + " |" for line in table.rows]
    notes = ["", *(f"- {note}" for note in table.notes)] if table.notes else []
    return "\n".join([f"**{table.title}**", "", heading, rule, *body, *notes]) + "\n"


def verdict(value: float | None, target: float, at_least: bool) -> str:
    """A target beside a figure: ``≥ 0.80 met``, ``≤ 25.0 missed``; ``–`` where there is no figure."""
    if value is None:
        return "–"
    met = value >= target if at_least else value <= target
    return f"{'≥' if at_least else '≤'} {target:g} {'met' if met else 'missed'}"


@attrs.frozen
class Spread:
    """Percentiles of some times, all in seconds."""

    count: int
    p50: float
    p99: float
    p999: float
    worst: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Spread":
        """Those of ``times``, in any order; raises ValueError when there are none."""
        ordered = sorted(times)
        p50, p99, p999 = (percentile(ordered, share) for share in (0.5, 0.99, 0.999))
        return cls(len(ordered), p50, p99, p999, ordered[-1])

    def cells(self) -> list[str]:
        """p50, p99, p99.9 and the maximum in milliseconds, then how many there were."""
        times = (self.p50, self.p99, self.p999, self.worst)
        return [*(f"{each * 1e3:.2f}" for each in times), f"{self.count:,}"]


def between(samples: Sequence[tuple[float, float]], start: float, end: float) -> list[float]:
    """The values of ``samples`` (moment, value) whose moment is in [start, end)."""
    return [value for moment, value in samples if start <= moment < end]


def reply_table(
    groups: Sequence[tuple[str, str, Sequence[float]]], during: str, limit_ms: float, judged: str, realtime: bool
) -> Table:
    """Reply times of a probe connection: for each server, ``before`` and ``during`` something, times in seconds.

    ``during`` is the heading of what goes on; the server ``judged`` is held against ``limit_ms`` at p99.9.
    """
    rows = []
    for server, when, times in groups:
        if not times:
            rows.append([server, when, *["–"] * 5, ""])
            continue
        spread = Spread.of(times)
        judge = server == judged and when == "during"
        target = "p99.9 " + verdict(spread.p999 * 1e3, limit_ms, at_least=False) if judge else ""
        rows.append([server, when, *spread.cells(), target])
    columns = ("server", during, "p50 ms", "p99 ms", "p99.9 ms", "max ms", "replies", "target")
    notes = [] if realtime else [NO_PRIORITY]
    return Table("Reply times of a probe connection (SET and GET in turns)", columns, rows, notes, left=2)


@attrs.frozen
class Figure:
    """What is to be reached, what was measured, and whether that is enough; None: it was not measured.

    ``foreign`` is the share of the busier of our cores that others used meanwhile.
    """

    name: str
    target: str
    measured: str = "–"
    reached: bool | None = None
    foreign: float | None = None


def figure_table(figures: Sequence[Figure]) -> Table:
    """All figures, at the end of a report; those that others disturbed are marked."""
    verdicts = {True: "reached", False: "missed", None: "not measured"}
    rows = [
        [
            figure.name,
            figure.target,
            figure.measured,
            verdicts[figure.reached] + (" F" if is_disturbed(figure) else ""),
            "–" if figure.foreign is None else f"{figure.foreign:.0%}",
        ]
        for figure in figures
    ]
    notes = []
    if any(map(is_disturbed, figures)):
        notes.append(f"F: others used more than {FOREIGN_LIMIT:.0%} of one of the two cores; repeat on a quiet machine")
    return Table("Figures", ("figure", "to reach", "measured", "", "foreign"), rows, notes, left=4)


def is_disturbed(figure: Figure) -> bool:
    """Whether others used more of one of the cores than should be."""
    return figure.foreign is not None and figure.foreign > FOREIGN_LIMIT
