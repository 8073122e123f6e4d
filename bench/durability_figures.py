"""The arithmetic and the tables of the durability measurements. No I/O here."""

import statistics
from collections.abc import Mapping, Sequence

import attrs

from bench.figures import Turn
from bench.tables import MIB, Spread, Table, reply_table, verdict

NO_FILE = "none"
"""The policy of a server that keeps no file."""

POLICIES = (NO_FILE, "everysec", "always")

WINDOW_LIMIT = 2.0
"""Seconds of writes that ``everysec`` may lose at most."""


# -- what the file costs ----------------------------------------------------------------------------------------------


@attrs.frozen
class Setup:
    """A kind of server with a policy."""

    kind: str
    policy: str

    @property
    def name(self) -> str:
        """For progress lines."""
        return f"{self.kind}/{self.policy}"


@attrs.frozen
class Speed:
    """Medians over the rounds of one setup at one depth, and what they are compared with.

    ``throughput_ratio`` is its throughput ÷ that of ``against``, ``cpu_ratio`` the CPU per command of ``against`` ÷ its
    own: above 1 is better in both. They are medians of the ratios round by round, None without a rival.
    """

    setup: Setup
    depth: int
    throughput: float
    cost: float
    against: Setup | None
    throughput_ratio: float | None
    cpu_ratio: float | None
    foreign: float


SPEED_TARGETS = {("kevynode", "everysec", 16): 0.8, ("kevynode", "always", 16): 0.5}
"""The least throughput ratio, by kind, policy and depth."""


def rival(setup: Setup) -> Setup | None:
    """What a setup is compared with: the same server without a file; with ``always`` valkey with the same policy."""
    if setup.policy == "everysec":
        return Setup(setup.kind, NO_FILE)
    if setup.kind != "valkey":
        return Setup("valkey", setup.policy)
    return None


def speed(setup: Setup, depth: int, turns: Sequence[Turn], others: Mapping[Setup, Sequence[Turn]]) -> Speed:
    """The row for ``turns``; ``others`` holds what was measured in the same rounds, in the same order."""
    against = rival(setup)
    pairs = [] if against is None or against not in others else list(zip(turns, others[against], strict=True))
    return Speed(
        setup=setup,
        depth=depth,
        throughput=statistics.median(turn.throughput for turn in turns),
        cost=statistics.median(turn.cost for turn in turns),
        against=against if pairs else None,
        throughput_ratio=statistics.median(mine.throughput / their.throughput for mine, their in pairs)
        if pairs
        else None,
        cpu_ratio=statistics.median(their.cost / mine.cost for mine, their in pairs) if pairs else None,
        foreign=statistics.median(turn.foreign for turn in turns),
    )


def speed_table(speeds: Sequence[Speed], note: str) -> Table:
    """What keeping a file costs."""
    rows = []
    for row in speeds:
        target = SPEED_TARGETS.get((row.setup.kind, row.setup.policy, row.depth))
        rows.append(
            [
                row.setup.kind,
                row.setup.policy,
                str(row.depth),
                f"{row.throughput:,.0f}",
                f"{row.cost * 1e6:.2f}",
                "" if row.against is None else f"{row.against.kind} {row.against.policy}",
                _ratio(row.throughput_ratio),
                "" if target is None else verdict(row.throughput_ratio, target, at_least=True),
                _ratio(row.cpu_ratio),
                f"{row.foreign:.0%}",
            ]
        )
    columns = (
        "server",
        "appendfsync",
        "depth",
        "SET/s",
        "CPU µs/SET",
        "against",
        "throughput ratio",
        "target",
        "CPU ratio",
        "foreign",
    )
    return Table("What the append-only file costs (SET)", columns, rows, [note], left=2)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


# -- loading ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Loading:
    """One start on a folder: seconds from the start of the process until it served, and CPU seconds of it until then.

    ``form`` says what the folder holds: commands as they were ``written``, or ``rewritten`` data.
    """

    kind: str
    form: str
    size: int
    seconds: float
    cpu: float


LOAD_TARGET = 6.0
"""How many times as long as valkey-server a node may take for the same files."""


def load_table(loads: Sequence[Loading], keys: int, baseline: str) -> Table:
    """Medians over the rounds; ratios are taken round by round."""
    rows = []
    for form, kind in dict.fromkeys((each.form, each.kind) for each in loads):
        mine = [each for each in loads if (each.form, each.kind) == (form, kind)]
        theirs = [each for each in loads if (each.form, each.kind) == (form, baseline)]
        pairs = list(zip(mine, theirs, strict=False)) if kind != baseline else []
        ratio = statistics.median(ours.seconds / other.seconds for ours, other in pairs) if pairs else None
        seconds = statistics.median(each.seconds for each in mine)
        rows.append(
            [
                kind,
                form,
                f"{mine[0].size / MIB:.1f}",
                str(len(mine)),
                f"{seconds:.2f}",
                f"{statistics.median(each.cpu for each in mine):.2f}",
                f"{keys / seconds:,.0f}",
                "–" if ratio is None else f"{ratio:.1f}",
                verdict(ratio, LOAD_TARGET, at_least=False) if kind != baseline else "",
            ]
        )
    columns = ("server", "files", "MiB", "rounds", "ready after s", "CPU s", "keys/s", "÷ " + baseline, "target")
    return Table(f"Starting on {keys:,} keys, both servers on the same files", columns, rows, left=2)


# -- rewriting --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Rewritten:
    """One rewrite while clients write. Seconds; ``size`` bytes of what it left.

    ``quiet`` and ``busy`` are a probe connection's reply times before and during it; ``quiet_rate`` and ``rate`` what
    the writers reached.
    """

    kind: str
    duration: float
    size: int
    quiet: tuple[float, ...]
    busy: tuple[float, ...]
    quiet_rate: float
    rate: float
    foreign: float


STALL_TARGET_MS = 25.0
"""The longest that a reply may be delayed by a rewrite at p99.9."""


def rewrite_table(rewrites: Sequence[Rewritten]) -> Table:
    """How long they took, medians over the rounds."""
    median = statistics.median
    rows = []
    for kind in dict.fromkeys(each.kind for each in rewrites):
        mine = [each for each in rewrites if each.kind == kind]
        rows.append(
            [
                kind,
                str(len(mine)),
                f"{median(each.duration for each in mine):.2f}",
                f"{mine[-1].size / MIB:.1f}",
                f"{median(each.quiet_rate for each in mine):,.0f}",
                f"{median(each.rate for each in mine):,.0f}",
                f"{max(each.foreign for each in mine):.0%}",
            ]
        )
    columns = ("server", "rounds", "rewrite s", "file MiB", "writes/s before", "writes/s during", "foreign")
    return Table("A rewrite of the append-only file while clients write", columns, rows)


def stall_table(rewrites: Sequence[Rewritten], realtime: bool) -> Table:
    """Reply times of the probe connection before and during a rewrite, over all rounds together."""
    groups = []
    for kind in dict.fromkeys(each.kind for each in rewrites):
        mine = [each for each in rewrites if each.kind == kind]
        groups.append((kind, "before", [time for each in mine for time in each.quiet]))
        groups.append((kind, "during", [time for each in mine for time in each.busy]))
    return reply_table(groups, "rewrite", STALL_TARGET_MS, "kevynode", realtime)


# -- what a loss of power would take ----------------------------------------------------------------------------------


@attrs.frozen
class Window:
    """How long writes stayed in danger under full load: seconds from a write's reply until the server said it was safe.

    ``unsafe`` never became so in time.
    """

    setup: Setup
    throughput: float
    times: tuple[float, ...]
    unsafe: int
    foreign: float


def window_table(windows: Sequence[Window]) -> Table:
    """The window in which a loss of power costs acknowledged writes."""
    rows = []
    for each in windows:
        head = [each.setup.kind, each.setup.policy, f"{each.throughput:,.0f}"]
        if not each.times:
            rows.append([*head, *["–"] * 4, str(each.unsafe), "", f"{each.foreign:.0%}"])
            continue
        spread = Spread.of(each.times)
        target = ""
        if each.setup.kind == "kevynode" and each.setup.policy == "everysec":
            worst = float("inf") if each.unsafe else spread.worst
            target = "max s " + verdict(worst, WINDOW_LIMIT, at_least=False)
        shown = (f"{value:.3f}" for value in (spread.p50, spread.p99, spread.worst))
        rows.append([*head, *shown, f"{spread.count:,}", str(each.unsafe), target, f"{each.foreign:.0%}"])
    columns = ("server", "appendfsync", "SET/s", "p50 s", "p99 s", "max s", "writes", "never", "target", "foreign")
    return Table("Write acknowledged → on the disk, as WAITAOF tells, under full load", columns, rows, left=2)
