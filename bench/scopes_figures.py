"""The arithmetic and the tables of the measurements of scopes. No I/O here."""

import statistics
from collections.abc import Sequence

import attrs

from bench.figures import Turn
from bench.tables import NO_PRIORITY, Figure, Spread, Table

WINDOW_PER_KEYS = 100_000
SHIPPED_WINDOW = 1.0
"""Seconds without writes for every :data:`WINDOW_PER_KEYS` keys that are shipped."""

FOLLOWED_WINDOW = 0.05
"""Seconds without writes where the target follows, however many keys there are."""

DELAY_FACTOR = 2.0
DELAY_SECONDS = 0.003
"""What a move may add to other scopes' p99: so many times what it was, or so much, whichever is more."""

ROUTE_SECONDS = 1e-6
GATE_RATIO = 0.95
"""The least throughput of a node with scopes, compared with one without."""


# -- moves ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Move:
    """One move; times in seconds.

    ``window`` is how long its source says that writes were refused, ``gap`` what a client that writes at a steady beat
    saw: from its last write at the source until its first one at the target, and so at least the time without
    writes. None: that client saw no refusal at all. ``took`` is until the reply, ``work`` until both nodes were done.
    """

    source: str
    target: str
    keys: int
    size: int
    following: bool
    window: float
    gap: float | None
    took: float
    work: float

    @property
    def without_writes(self) -> float:
        """What is held against the target: the longer of both."""
        return max(self.window, self.gap or 0.0)


@attrs.frozen
class Scenario:
    """Moves of one scope to and fro: ``moves`` of idle nodes, and ``loaded`` ones while clients write to other scopes.

    ``keys`` of ``size`` bytes; ``following`` says that targets have a live copy. ``quiet`` and ``busy`` are reply times
    of other scopes by node, in seconds: before the loaded moves, and during them. ``sync`` is what it took to make a
    few bytes durable, which a move does half a dozen times while writes are refused; ``foreign`` is that of all moves.
    """

    keys: int
    size: int
    following: bool
    moves: tuple[Move, ...]
    loaded: tuple[Move, ...]
    quiet: dict[str, tuple[float, ...]]
    busy: dict[str, tuple[float, ...]]
    realtime: bool
    sync: float
    foreign: float

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.keys:,} keys × {self.size} bytes, {'target follows' if self.following else 'empty target'}"


def window_limit(keys: int, following: bool) -> float:
    """How long writes may be refused for so many keys, in seconds."""
    return FOLLOWED_WINDOW if following else SHIPPED_WINDOW * keys / WINDOW_PER_KEYS


def delay_limit(quiet: Sequence[float]) -> float:
    """The highest p99 that other scopes may have during a move, for their reply times without one."""
    before = Spread.of(quiet).p99
    return max(before * DELAY_FACTOR, before + DELAY_SECONDS)


def window_name(keys: int, size: int, following: bool) -> str:
    """The name of a figure."""
    return f"window, {keys:,} keys × {size} bytes, {'target follows' if following else 'empty target'}"


def window_target(keys: int, following: bool) -> str:
    """What is to be reached."""
    return f"≤ {window_limit(keys, following) * 1e3:,.0f} ms"


def window_figure(scenario: Scenario) -> Figure:
    """The longest time without writes of all moves of idle nodes. Moves that went another way than asked miss."""
    keys, following = scenario.keys, scenario.following
    worst = max((move.without_writes for move in scenario.moves), default=None)
    name, target = window_name(keys, scenario.size, following), window_target(keys, following)
    if worst is None:
        return Figure(name, target)
    middle = statistics.median(move.without_writes for move in scenario.moves)
    measured = f"{worst * 1e3:,.0f} ms worst, {middle * 1e3:,.0f} ms median of {len(scenario.moves)}"
    others = sum(move.following is not following for move in scenario.moves)
    if others:
        measured += f"; {others} {'were shipped' if following else 'were not'}"
    unseen = sum(move.gap is None for move in scenario.moves)
    if unseen == len(scenario.moves):
        measured += "; the client met no refusal"
    return Figure(name, target, measured, worst <= window_limit(keys, following) and not others, scenario.foreign)


def delay_name(keys: int, following: bool) -> str:
    """The name of a figure."""
    return f"other scopes' p99, {keys:,} keys, {'target follows' if following else 'empty target'}"


DELAY_TARGET = f"≤ {DELAY_FACTOR:g} × before, or + {DELAY_SECONDS * 1e3:g} ms"


def delay_figure(scenario: Scenario) -> Figure:
    """The p99 of the node that comes off worst."""
    name = delay_name(scenario.keys, scenario.following)
    nodes = [node for node in scenario.quiet if scenario.quiet[node] and scenario.busy.get(node)]
    if not nodes:
        return Figure(name, DELAY_TARGET)
    parts = []
    reached = len(nodes) == len(scenario.quiet)
    for node in nodes:
        before, during = Spread.of(scenario.quiet[node]), Spread.of(scenario.busy[node])
        reached = reached and during.p99 <= delay_limit(scenario.quiet[node])
        parts.append(
            f"{node}: {during.p99 * 1e3:.2f} ms after {before.p99 * 1e3:.2f} (max {during.worst * 1e3:.1f} after "
            f"{before.worst * 1e3:.1f})"
        )
    return Figure(name, DELAY_TARGET, "; ".join(parts), reached, scenario.foreign)


def move_table(scenarios: Sequence[Scenario]) -> Table:
    """Every scenario's moves."""
    rows = []
    phases = [(one, *phase) for one in scenarios for phase in (("idle", one.moves), ("loaded", one.loaded))]
    for each, load, moves in phases:
        if not moves:
            continue
        gaps = [move.gap for move in moves if move.gap is not None]
        windows = [move.window for move in moves]
        rows.append(
            [
                each.name,
                load,
                str(len(moves)),
                f"{statistics.median(windows) * 1e3:,.0f}",
                f"{max(windows) * 1e3:,.0f}",
                f"{statistics.median(gaps) * 1e3:,.0f}" if gaps else "–",
                f"{max(gaps) * 1e3:,.0f}" if gaps else "–",
                f"{statistics.median(move.took for move in moves):.2f}",
                f"{statistics.median(move.work for move in moves):.2f}",
                f"{each.sync * 1e3:.1f}",
                f"{each.foreign:.0%}",
            ]
        )
    columns = (
        "scope",
        "nodes",
        "moves",
        "window ms",
        "max",
        "client's ms",
        "max",
        "reply after s",
        "all done s",
        "sync ms",
        "foreign",
    )
    notes = [
        "window: for how long the source says that it refused writes; client's: from a client's last write at the "
        "source to its first one at the target; medians; sync: what it takes to make a few bytes durable"
    ]
    return Table("Moves of a scope, to and fro", columns, rows, notes, left=2)


def reply_times_table(scenarios: Sequence[Scenario]) -> Table:
    """Reply times of a scope that does not move, at both nodes."""
    rows = []
    for each in scenarios:
        for node in each.quiet:
            for when, times in (("before", each.quiet[node]), ("during", each.busy.get(node, ()))):
                head = [each.name, node, when]
                if not times:
                    rows.append([*head, *["–"] * 5, ""])
                    continue
                spread = Spread.of(times)
                limit = ""
                if when == "during" and each.quiet[node]:
                    allowed = delay_limit(each.quiet[node])
                    limit = f"p99 ≤ {allowed * 1e3:.2f} {'met' if spread.p99 <= allowed else 'missed'}"
                rows.append([*head, *spread.cells(), limit])
    columns = ("moving", "node", "move", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "replies", "target")
    notes = [] if all(each.realtime for each in scenarios) else [NO_PRIORITY]
    return Table("Reply times of other scopes (SET and GET in turns)", columns, rows, notes, left=3)


# -- routing ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Routing:
    """Seconds for one key with a table of ``scopes``, by round: on the clock, and of CPU."""

    scopes: int
    call: str
    walls: tuple[float, ...]
    cpus: tuple[float, ...]
    foreign: float


def route_name(scopes: int) -> str:
    """The name of a figure."""
    return f"routing a key, {scopes:,} {'scope' if scopes == 1 else 'scopes'}"


ROUTE_TARGET = f"≤ {ROUTE_SECONDS * 1e6:g} µs"


def route_figure(routing: Routing) -> Figure:
    """Medians over the rounds. CPU counts: on a machine that others use the clock says how many they are."""
    wall, cpu = statistics.median(routing.walls), statistics.median(routing.cpus)
    measured = f"{cpu * 1e6:.2f} µs of CPU ({wall * 1e6:.2f} on the clock)"
    return Figure(route_name(routing.scopes), ROUTE_TARGET, measured, cpu <= ROUTE_SECONDS, routing.foreign)


def routing_table(found: Sequence[Routing]) -> Table:
    """Both calls with every table."""
    rows = [
        [
            each.call,
            f"{each.scopes:,}",
            f"{statistics.median(each.walls) * 1e6:.3f}",
            f"{max(each.walls) * 1e6:.3f}",
            f"{statistics.median(each.cpus) * 1e6:.3f}",
            str(len(each.walls)),
            f"{each.foreign:.0%}",
        ]
        for each in found
    ]
    columns = ("call", "scopes", "µs/key", "max", "CPU µs/key", "rounds", "foreign")
    return Table("OwnershipTable: whose key is it?", columns, rows)


# -- the gate ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Gate:
    """Rounds of a node with so many ``scopes``, and of one without any in the same rounds, in the same order."""

    scopes: int
    turns: tuple[Turn, ...]
    plain: tuple[Turn, ...]

    @property
    def throughput_ratio(self) -> float:
        """With ÷ without, the median of the rounds."""
        pairs = zip(self.turns, self.plain, strict=True)
        return statistics.median(mine.throughput / theirs.throughput for mine, theirs in pairs)

    @property
    def cpu_ratio(self) -> float:
        """CPU for a SET without ÷ with, the median of the rounds."""
        pairs = zip(self.turns, self.plain, strict=True)
        return statistics.median(theirs.cost / mine.cost for mine, theirs in pairs)

    @property
    def foreign(self) -> float:
        """The median of the rounds of both."""
        return statistics.median(turn.foreign for turn in (*self.turns, *self.plain))


def gate_name(scopes: int, depth: int) -> str:
    """The name of a figure."""
    return f"SET with {scopes:,} {'scope' if scopes == 1 else 'scopes'} ÷ without, depth {depth}"


GATE_TARGET = f"≥ {GATE_RATIO:g}"


def gate_figure(gate: Gate, depth: int) -> Figure:
    """The throughput counts."""
    ratio = gate.throughput_ratio
    measured = f"{ratio:.3f} (CPU {gate.cpu_ratio:.3f})"
    return Figure(gate_name(gate.scopes, depth), GATE_TARGET, measured, ratio >= GATE_RATIO, gate.foreign)


def gate_table(gates: Sequence[Gate], note: str) -> Table:
    """The node without scopes first."""
    rows = []
    if gates:
        rows.append(["none", *_speed_cells(gates[0].plain), "", "", f"{_foreign(gates[0].plain):.0%}"])
    for gate in gates:
        ratios = [f"{gate.throughput_ratio:.3f}", f"{gate.cpu_ratio:.3f}"]
        rows.append([f"{gate.scopes:,}", *_speed_cells(gate.turns), *ratios, f"{_foreign(gate.turns):.0%}"])
    columns = ("scopes", "SET/s", "CPU µs/SET", "throughput ratio", "CPU ratio", "foreign")
    return Table("What asking for the scope of every key costs (SET)", columns, rows, [note])


def _speed_cells(turns: Sequence[Turn]) -> list[str]:
    median = statistics.median
    return [
        f"{median(turn.throughput for turn in turns):,.0f}",
        f"{median(turn.cost for turn in turns) * 1e6:.2f}",
    ]


def _foreign(turns: Sequence[Turn]) -> float:
    return statistics.median(turn.foreign for turn in turns)


# -- a client that follows --------------------------------------------------------------------------------------------


@attrs.frozen
class Client:
    """What came of a following client's writes, ``tasks`` at a time, while a scope moved to and fro.

    ``wanted`` moves were to be made. ``missing``, ``doubled``, ``disordered`` and ``unknown`` count items of the lists
    that were written, held against what was acknowledged. ``elapsed`` and ``longest`` (the longest call) in seconds.
    """

    wanted: int
    tasks: int
    moves: tuple[Move, ...]
    acknowledged: int
    elapsed: float
    longest: float
    failed: int
    failures: tuple[str, ...]
    missing: int
    doubled: int
    disordered: int
    unknown: int
    foreign: float


def client_name(moves: int) -> str:
    """The name of a figure."""
    return f"a following client, {moves} moves to and fro"


CLIENT_TARGET = "every write once, in order; no call fails"


def client_figure(client: Client) -> Figure:
    """Nothing may be wrong at all, and there must have been something."""
    wrong = client.failed + client.missing + client.doubled + client.disordered + client.unknown
    measured = (
        f"{client.acknowledged:,} acknowledged: {client.missing} missing, {client.doubled} twice, {client.disordered} "
        f"out of order, {client.unknown} never sent; {client.failed} calls failed; {len(client.moves)} moves"
    )
    reached = not wrong and client.acknowledged > 0 and len(client.moves) == client.wanted
    return Figure(client_name(client.wanted), CLIENT_TARGET, measured, reached, client.foreign)


def client_table(client: Client) -> Table:
    """What the client did."""
    windows = [move.window for move in client.moves]
    row = [
        str(client.tasks),
        f"{client.acknowledged:,}",
        f"{client.acknowledged / client.elapsed:,.0f}" if client.elapsed else "–",
        str(client.failed),
        f"{client.longest * 1e3:,.0f}",
        f"{len(client.moves)}",
        str(sum(move.following for move in client.moves)),
        f"{statistics.median(windows) * 1e3:,.0f}" if windows else "–",
        f"{max(windows) * 1e3:,.0f}" if windows else "–",
        f"{client.foreign:.0%}",
    ]
    columns = (
        "tasks",
        "acknowledged",
        "calls/s",
        "failed",
        "longest call ms",
        "moves",
        "to a copy",
        "window ms",
        "max",
        "foreign",
    )
    return Table("A client that follows a scope", columns, [row], list(client.failures[:5]))
