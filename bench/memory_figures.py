"""The arithmetic and the tables of the measurements of memory and snapshots. No I/O here."""

import statistics
from collections.abc import Sequence

import attrs

from bench.snapshot_work import Encoded
from bench.tables import MIB, NO_PRIORITY, Figure, Spread, Table

NODE = "kevynode"
BASELINE = "valkey"

MEMORY_TARGET = 2.2
"""Resident memory of a node ÷ valkey's, with the same keys."""

CPU_TARGETS = {"compiled": 0.3, "pure": 1.0}
"""CPU seconds that a snapshot of a million keys may take, by twin of the hot parts."""

PAUSE_TARGET = 2.0
"""Milliseconds that clients may wait while a snapshot is written."""


@attrs.frozen
class Filled:
    """Resident bytes of a server without keys, and with them."""

    server: str
    keys: int
    empty: int
    filled: int


@attrs.frozen
class Shipped:
    """A snapshot over the network: seconds, the primary's CPU seconds in them, bytes, and others' load."""

    form: str
    seconds: float
    cpu: float
    size: int
    foreign: float


@attrs.frozen
class Pauses:
    """Reply times of a probe (seconds) before and during a snapshot, while clients wrote ``rate`` SETs a second."""

    quiet: tuple[float, ...]
    busy: tuple[float, ...]
    seconds: float
    rate: float
    realtime: bool
    foreign: float


def memory_table(found: Sequence[Filled]) -> Table:
    """Resident memory, and its ratio to valkey's."""
    base = next((each.filled for each in found if each.server == BASELINE), None)
    rows = [
        [
            each.server,
            f"{each.empty / MIB:,.1f}",
            f"{each.filled / MIB:,.1f}",
            f"{(each.filled - each.empty) / each.keys:,.0f}",
            "–" if base is None else f"{each.filled / base:.2f}",
        ]
        for each in found
    ]
    columns = ("server", "MiB empty", "MiB filled", "bytes a key", "÷ valkey")
    keys = found[0].keys if found else 0
    return Table(f"Resident memory of {keys:,} keys with 64 bytes each", columns, rows)


def memory_figure(found: Sequence[Filled], keys: int) -> Figure:
    """A node beside valkey."""
    sizes = {each.server: each.filled for each in found}
    figure = Figure(f"memory of {keys:,} keys × 64 bytes", f"≤ {MEMORY_TARGET:g} × valkey's")
    if NODE not in sizes or BASELINE not in sizes:
        return figure
    ratio = sizes[NODE] / sizes[BASELINE]
    return attrs.evolve(figure, measured=f"{ratio:.2f} ×", reached=ratio <= MEMORY_TARGET)


def encoding_table(found: Sequence[Encoded], shipped: Sequence[Shipped]) -> Table:
    """CPU for snapshots: written and thrown away, and over the network."""
    rows = []
    for encoded in found:
        median, least = f"{statistics.median(encoded.cpu):.2f}", f"{min(encoded.cpu):.2f}"
        rows.append([f"{encoded.parts}, written only", median, least, "–", f"{encoded.size / MIB:,.0f}", "–"])
    for form in dict.fromkeys(each.form for each in shipped):
        mine = [each for each in shipped if each.form == form]
        rows.append(
            [
                f"over the network, {form}",
                f"{statistics.median(each.cpu for each in mine):.2f}",
                f"{min(each.cpu for each in mine):.2f}",
                f"{statistics.median(each.seconds for each in mine):.2f}",
                f"{mine[0].size / MIB:,.0f}",
                f"{max(each.foreign for each in mine):.0%}",
            ]
        )
    return Table("CPU for a snapshot", ("snapshot", "median s of CPU", "least", "seconds", "MiB", "foreign"), rows)


def encoding_figures(found: Sequence[Encoded], keys: int) -> list[Figure]:
    """A target for each twin."""
    medians = {each.parts: statistics.median(each.cpu) for each in found}
    figures = []
    for parts, target in CPU_TARGETS.items():
        figure = Figure(f"CPU for a snapshot of {keys:,} keys, {parts}", f"≤ {target:g} s")
        if parts in medians:
            figure = attrs.evolve(figure, measured=f"{medians[parts]:.2f} s", reached=medians[parts] <= target)
        figures.append(figure)
    return figures


def pause_table(found: Sequence[Pauses]) -> Table:
    """Reply times before and during a snapshot, a line for each round."""
    rows = []
    for number, each in enumerate(found, 1):
        for when, times in (("before", each.quiet), ("during", each.busy)):
            cells = Spread.of(times).cells() if times else ["–"] * 5
            rows.append([str(number), when, *cells, f"{each.rate:,.0f}", f"{each.foreign:.0%}"])
    columns = ("round", "snapshot", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "replies", "writes/s", "foreign")
    notes = [] if all(each.realtime for each in found) else [NO_PRIORITY]
    return Table("Reply times of a probe connection (SET and GET in turns)", columns, rows, notes, left=2)


def pause_figure(found: Sequence[Pauses]) -> Figure:
    """The longest reply: the median of the rounds' longest, because one of many may be the machine's."""
    figure = Figure("longest pause while a snapshot is written", f"≤ {PAUSE_TARGET:g} ms")
    longest = [max(each.busy) * 1e3 for each in found if each.busy]
    if not longest:
        return figure
    worst = statistics.median(longest)
    foreign = max(each.foreign for each in found)
    return attrs.evolve(figure, measured=f"{worst:.1f} ms", reached=worst <= PAUSE_TARGET, foreign=foreign)
