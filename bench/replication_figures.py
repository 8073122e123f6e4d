"""The arithmetic and the tables of the replication measurements. No I/O here."""

import statistics
from collections.abc import Mapping, Sequence

import attrs

from bench.tables import MIB, Spread, Table, reply_table, verdict

Lag = tuple[float, int, int, int]
"""One look at a replica: seconds since the load began, entries (valkey: bytes) not applied, bytes and milliseconds."""


def parse_facts(line: str) -> dict[str, str]:
    """The ``name=value`` pairs of one replica's line in INFO."""
    return {name: value for name, equals, value in (part.partition("=") for part in line.split(",")) if equals}


def replica_lines(info: Mapping[str, str]) -> list[dict[str, str]]:
    """What INFO tells of each replica, ``slave0`` first."""
    lines: list[dict[str, str]] = []
    while f"slave{len(lines)}" in info:
        lines.append(parse_facts(info[f"slave{len(lines)}"]))
    return lines


# -- what copies cost the primary -------------------------------------------------------------------------------------


@attrs.frozen
class Turn:
    """One run of the load generator against a primary with its replicas.

    ``loaded_cpu`` are CPU seconds of the primary until the last reply, ``cpu`` until the last replica had applied
    everything, ``drain`` the seconds between the two, ``replica_cpu`` those of all replicas together. ``foreign`` is
    the share of the busier core that none of ours used.
    """

    requests: int
    elapsed: float
    loaded_cpu: float
    cpu: float
    replica_cpu: float
    drain: float
    foreign: float


@attrs.frozen
class Cost:
    """Medians over the rounds of one kind of server with so many replicas; ``ratio`` compares CPU with none.

    Above 1 would be cheaper than without replicas. It is the median of the ratios round by round, None without a
    round to compare with. ``pace_ratio`` is the same, of rounds in which all got as many SETs a second.
    """

    kind: str
    depth: int
    replicas: int
    throughput: float
    loaded_cpu: float
    cpu: float
    ratio: float | None
    pace_ratio: float | None
    replica_cpu: float
    drain: float
    foreign: float


def _cpu_ratio(turns: Sequence[Turn], alone: Sequence[Turn]) -> float | None:
    if not turns or not alone:
        return None
    pairs = zip(turns, alone, strict=True)
    return statistics.median((theirs.cpu / theirs.requests) / (mine.cpu / mine.requests) for mine, theirs in pairs)


def cost(
    kind: str,
    depth: int,
    replicas: int,
    turns: Sequence[Turn],
    alone: Sequence[Turn],
    paced: Sequence[Turn] = (),
    paced_alone: Sequence[Turn] = (),
) -> Cost:
    """The row for ``turns``, compared round by round with the same server ``alone`` (same rounds, same order)."""
    median = statistics.median
    return Cost(
        kind=kind,
        depth=depth,
        replicas=replicas,
        throughput=median(turn.requests / turn.elapsed for turn in turns),
        loaded_cpu=median(turn.loaded_cpu / turn.requests for turn in turns),
        cpu=median(turn.cpu / turn.requests for turn in turns),
        ratio=_cpu_ratio(turns, alone),
        pace_ratio=_cpu_ratio(paced, paced_alone),
        replica_cpu=median(turn.replica_cpu / turn.requests / max(1, replicas) for turn in turns),
        drain=max(turn.drain for turn in turns),
        foreign=median(turn.foreign for turn in turns),
    )


COST_TARGETS = {(1, 1): 0.8, (16, 1): 0.7, (1, 3): 0.6, (16, 3): 0.6}
"""The least CPU ratio of a kevynode primary, by depth and number of replicas."""


def cost_table(costs: Sequence[Cost], note: str) -> Table:
    """What replicas cost their primary."""
    rows = []
    for row in costs:
        target = COST_TARGETS.get((row.depth, row.replicas)) if row.kind == "kevynode" else None
        rows.append(
            [
                row.kind,
                str(row.depth),
                str(row.replicas),
                f"{row.throughput:,.0f}",
                f"{row.loaded_cpu * 1e6:.2f}",
                f"{row.cpu * 1e6:.2f}",
                "–" if row.ratio is None else f"{row.ratio:.2f}",
                "" if target is None else verdict(row.ratio, target, at_least=True),
                "–" if row.pace_ratio is None else f"{row.pace_ratio:.2f}",
                f"{row.replica_cpu * 1e6:.2f}" if row.replicas else "",
                f"{row.drain:.2f}" if row.replicas else "",
                f"{row.foreign:.0%}",
            ]
        )
    columns = (
        "server",
        "depth",
        "replicas",
        "SET/s",
        "CPU µs/SET loaded",
        "CPU µs/SET",
        "CPU ratio",
        "target",
        "at one pace",
        "replica µs/SET",
        "drain s",
        "foreign",
    )
    return Table("What replicas cost their primary (SET)", columns, rows, [note])


# -- how far behind ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Course:
    """How far a replica was behind in the course of one load at full speed, and ``drain``: seconds until it was not."""

    kind: str
    depth: int
    throughput: float
    samples: tuple[Lag, ...]
    drain: float
    drained: bool


def halves(values: Sequence[int]) -> tuple[int, int]:
    """The largest value of the first and of the second half: a lag that grows without bound shows as twice as much."""
    middle = len(values) // 2
    return max(values[:middle], default=0), max(values[middle:], default=0)


def course_table(courses: Sequence[Course]) -> Table:
    """Lag over time, as largest values of both halves of the load."""
    rows = []
    for course in courses:
        cells = [course.kind, str(course.depth), f"{course.throughput:,.0f}"]
        for column in (1, 2, 3):
            first, second = halves([int(sample[column]) for sample in course.samples])
            known = course.kind == "kevynode" or column == 1
            cells.append(f"{first:,} / {second:,}" if known else "–")
        shown = f"{course.drain:.2f}" if course.drained else f"> {course.drain:.0f}"
        met = verdict(course.drain if course.drained else float("inf"), 1.0, at_least=False)
        rows.append([*cells, shown, met, str(len(course.samples))])
    columns = (
        "server",
        "depth",
        "SET/s",
        "entries behind",
        "bytes behind",
        "ms behind",
        "0 after s",
        "target",
        "looks",
    )
    notes = [
        "behind: largest value in the first / second half of the load; one replica, which shares the load's core",
        "entries: the primary's offset less the replica's (valkey counts bytes); bytes and ms: what the primary tells",
    ]
    return Table("How far a replica is behind while SETs come as fast as they can", columns, rows, notes)


@attrs.frozen
class Visibility:
    """Seconds from a write's acknowledgement to a read on the replica that shows it, under a paced load."""

    kind: str
    rate: float
    achieved: float
    times: tuple[float, ...]
    missing: int
    foreign: float


def visibility_table(found: Sequence[Visibility]) -> Table:
    """Lag as a client sees it."""
    rows = []
    for each in found:
        head = [each.kind, f"{each.rate:,.0f}", f"{each.achieved:,.0f}"]
        if not each.times:
            rows.append([*head, *["–"] * 5, str(each.missing), "–", f"{each.foreign:.0%}"])
            continue
        spread = Spread.of(each.times)
        target = ""
        if each.kind == "kevynode":
            met = verdict(spread.p50 * 1e3, 2, at_least=False), verdict(spread.p99 * 1e3, 15, at_least=False)
            target = "p50 {}, p99 {}".format(*met)
        rows.append([*head, *spread.cells(), str(each.missing), target, f"{each.foreign:.0%}"])
    columns = (
        "server",
        "SET/s wanted",
        "SET/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "values",
        "never",
        "target",
        "foreign",
    )
    return Table("Write acknowledged → readable on the replica, at half of the highest load", columns, rows)


# -- full syncs -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Sync:
    """One full sync. Times in seconds, memory in bytes.

    ``duration`` is from REPLICAOF until the replica says its link is up, ``current`` until a value written then was
    readable on it. ``quiet`` and ``busy`` are a probe connection's reply times without and during the sync; ``rate``
    and ``quiet_rate`` what the writers reached. ``resting`` is the primary's memory before, ``peak`` its highest during
    the sync.
    """

    kind: str
    duration: float
    current: float
    quiet: tuple[float, ...]
    busy: tuple[float, ...]
    quiet_rate: float
    rate: float
    resting: int
    peak: int
    foreign: float


def sync_table(syncs: Sequence[Sync], baseline: str) -> Table:
    """Duration and memory, medians over the rounds; the ratio is to ``baseline`` round by round."""
    rows = []
    theirs = [sync.duration for sync in syncs if sync.kind == baseline]
    for kind in dict.fromkeys(sync.kind for sync in syncs):
        mine = [sync for sync in syncs if sync.kind == kind]
        pairs = [(sync.duration, other) for sync, other in zip(mine, theirs, strict=False)]
        ratio = statistics.median(ours / other for ours, other in pairs) if pairs else None
        memory = max(sync.peak / mine[0].resting for sync in mine)
        ours = kind != baseline
        rows.append(
            [
                kind,
                str(len(mine)),
                f"{statistics.median(sync.duration for sync in mine):.2f}",
                f"{statistics.median(sync.current for sync in mine):.2f}",
                "–" if ratio is None else f"{ratio:.1f}",
                verdict(ratio, 4, at_least=False) if ours else "",
                f"{mine[0].resting / MIB:.0f}",
                f"{max(sync.peak for sync in mine) / MIB:.0f}",
                f"{memory:.2f}",
                verdict(memory, 1.5, at_least=False) if ours else "",
                f"{statistics.median(sync.quiet_rate for sync in mine):,.0f}",
                f"{statistics.median(sync.rate for sync in mine):,.0f}",
                f"{max(sync.foreign for sync in mine):.0%}" if ours else "",
            ]
        )
    columns = (
        "server",
        "rounds",
        "sync s",
        "current after s",
        "÷ " + baseline,
        "target",
        "resting MiB",
        "peak MiB",
        "peak ratio",
        "target",
        "writes/s before",
        "writes/s during",
        "foreign",
    )
    return Table("A full sync while clients write", columns, rows)


STALL_TARGET_MS = 25.0
"""The longest that a reply may be delayed by a sync at p99.9."""


def probe_table(syncs: Sequence[Sync], realtime: bool) -> Table:
    """Reply times of the probe connection without and during a sync, over all rounds together."""
    groups = []
    for kind in dict.fromkeys(sync.kind for sync in syncs):
        mine = [sync for sync in syncs if sync.kind == kind]
        groups.append((kind, "before", [time for sync in mine for time in sync.quiet]))
        groups.append((kind, "during", [time for sync in mine for time in sync.busy]))
    return reply_table(groups, "sync", STALL_TARGET_MS, "kevynode", realtime)


# -- a replica that reads nothing -------------------------------------------------------------------------------------


@attrs.frozen
class Held:
    """Memory of a primary whose replica stopped reading, in bytes; moments in seconds since it stopped.

    ``before`` is after the same load without a replica, ``stuck`` the most until the primary hung up, ``waiting`` the
    most from then until the slot expired, ``after`` the least in the seconds behind that. ``None``: it did not happen.
    """

    budget: int
    written: int
    before: int
    stuck: int
    waiting: int
    after: int
    hung_up_at: float | None
    expired_at: float | None
    backlog_gone: bool


def held_table(held: Held) -> Table:
    """Growth against the budget, phase by phase."""
    allowed = held.budget + 4 * MIB

    def row(name: str, value: int, moment: float | None, target: str) -> list[str]:
        shown = "–" if moment is None else f"{moment:.1f}"
        return [name, shown, f"{value / MIB:.1f}", f"{(value - held.before) / MIB:+.1f}", target]

    bound = verdict((held.waiting - held.before) / MIB, allowed / MIB, at_least=False)
    given = held.waiting - held.before
    back = "" if given <= 0 else f"{(held.waiting - held.after) / given:.0%} given back"
    rows = [
        row("before, same load", held.before, None, ""),
        row("stuck, before its deadline", held.stuck, 0.0, ""),
        row("after its deadline", held.waiting, held.hung_up_at, bound if held.hung_up_at is not None else "missed"),
        row("after its slot expired", held.after, held.expired_at, back if held.expired_at is not None else "missed"),
    ]
    columns = ("primary's memory", "from s", "MiB", "growth MiB", "target")
    notes = [
        f"budget {held.budget / MIB:.0f} MiB; about {held.written / MIB:.0f} MiB of frames written while it was stuck; "
        f"the backlog was {'released' if held.backlog_gone else 'NOT released'} with the slot"
    ]
    return Table("A replica that stops reading", columns, rows, notes)
