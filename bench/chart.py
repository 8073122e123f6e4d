"""The comparison as a picture. Needs matplotlib (``pip install -e '.[bench]'``)."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.figures import Row
from bench.servers import Unavailable

_PANELS: tuple[tuple[str, Callable[[Row], float | None]], ...] = (
    ("throughput ÷ {baseline}", lambda row: row.throughput_ratio),
    ("CPU of {baseline} ÷ CPU", lambda row: row.cpu_ratio),
    ("p99 ÷ {baseline} (less is better)", lambda row: row.p99_ratio),
)
_COLOURS = {
    "valkey": "#7f7f7f",
    "redis": "#c44e52",
    "fakeredis": "#ccb974",
    "kevynode": "#1b6ca8",
    "kevynode-pure": "#7fb3d5",
    "control": "#222222",
}
_OTHER_COLOUR = "#937860"
_HIGHEST = 3.0
"""Bars end here: a server that is ten times as slow must not flatten all others."""

_WIDTH = 0.85
"""The share of a command's place that its bars fill."""


def check() -> None:
    """Raises :class:`Unavailable` where nothing can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise Unavailable("a chart needs matplotlib: pip install -e '.[bench]'")


def bars(rows: Sequence[Row], value: Callable[[Row], float | None]) -> dict[str, dict[str, float]]:
    """Heights by server and command, in the order of the rows; what has no value has no bar."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        height = value(row)
        if height is not None:
            found.setdefault(row.server, {})[row.command] = min(height, _HIGHEST)
    return found


def draw(rows: Sequence[Row], baseline: str, title: str, path: Path) -> None:
    """Write a PNG to ``path``: a column for each depth, below each other throughput, CPU and p99 as ratios.

    Raises :class:`Unavailable` without matplotlib, and OSError.
    """
    check()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    depths = list(dict.fromkeys(row.depth for row in rows))
    commands = list(dict.fromkeys(row.command for row in rows))
    width = max(6.0, 1.1 * len(commands) + 2.0)
    figure = Figure(figsize=(width * max(1, len(depths)), 3.2 * len(_PANELS) + 1), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(len(_PANELS), max(1, len(depths)), squeeze=False)
    for line, (label, value) in enumerate(_PANELS):
        for column, depth in enumerate(depths):
            panel = panels[line][column]
            heights = bars([row for row in rows if row.depth == depth and row.server != baseline], value)
            for index, (server, by_command) in enumerate(heights.items()):
                step = _WIDTH / len(heights)
                places = [commands.index(command) - _WIDTH / 2 + step * (index + 0.5) for command in by_command]
                colour = _COLOURS.get(server, _OTHER_COLOUR)
                panel.bar(places, list(by_command.values()), width=step, label=server, color=colour)
            panel.axhline(1.0, color="#7f7f7f", linewidth=1)
            panel.set_xticks(range(len(commands)), commands, fontsize=8)
            panel.set_ylim(0, _HIGHEST if line == len(_PANELS) - 1 else None)
            panel.set_ylabel(label.format(baseline=baseline))
            if not line:
                panel.set_title(f"depth {depth}")
    drawn = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=len(drawn))
    figure.savefig(path, format="png", dpi=110)
