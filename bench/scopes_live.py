"""The measurements of scopes. Each blocks for as long as it measures, bounds every wait, and stops what it started."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs

from bench import machine
from bench.compare import calibrate
from bench.figures import Turn
from bench.measuring import GENERATOR_SECONDS, PROBE, Child, Failed, Meter, Say, rotated, start_load, sync_seconds
from bench.replication_probe import Seen, Watch
from bench.scopes_figures import Client, Gate, Move, Routing, Scenario
from bench.scopes_probe import Gap, Met, Visit
from bench.scopes_routing import CALLS, Routed, RoutingTask
from bench.scopes_servers import (
    MOVE_SECONDS,
    Member,
    Moved,
    Place,
    await_copy,
    await_open,
    configuration,
    fill,
    move,
    node,
    nodes,
    plain_text,
    spread_prefixes,
)
from bench.scopes_writer import Followed, Writing
from bench.speed import turn
from bench.tables import between
from bench.workloads import KEYSPACE, VALUE, WORKLOADS

VISITOR = "bench.scopes_probe"
ROUTING = "bench.scopes_routing"
WRITER = "bench.scopes_writer"

MOVING = "bench:moving:"
OWN = "bench:own:"
ELSEWHERE = "bench:elsewhere:"
ALONE = ("--trust-config", "--start-empty")
"""Flags of a node that is to open its scopes though its peer is not there."""

BEAT = 0.001
"""Seconds between two requests of a probe."""

PROBE_CONNECTIONS = 20
"""Connections of a probe that take turns, so that replies of some milliseconds do not have the next ones wait."""

VISITOR_BEAT = 0.002
"""Seconds that the client in the scope that moves pauses between two writes."""

WARM_SHARE = 0.2
"""The share of the time without a move that is not counted: load and probes start in it."""

PAUSE_SECONDS = 0.3
"""Between two moves, so that what one leaves behind is not counted in the next."""

FIRST, SECOND = "a", "b"
LOADERS = 10
"""Clients that write to another scope of each node."""

CLIENT_KEYS = 10_000
ROUTING_ROUNDS = 7


@attrs.frozen
class Options:
    """What to measure. Times in seconds, sizes in bytes, ``write_rate`` in commands a second at each node."""

    parts: tuple[str, ...]
    keys: int
    follow_keys: tuple[int, ...]
    value_size: int
    moves: int
    write_rate: float
    quiet_seconds: float
    scopes: tuple[int, ...]
    depth: int
    connections: int
    rounds: int
    seconds: float
    client_moves: int
    client_tasks: int
    client_seconds: float


# -- moves ------------------------------------------------------------------------------------------------------------


@contextmanager
def _pair(moving: Sequence[str], replicate: str, cores: machine.Cores) -> Iterator[list[Member]]:
    """Two nodes with a scope of their own each; the first one also has those that move."""
    scopes = {OWN + node_id + ":": node_id for node_id in (FIRST, SECOND)}
    scopes |= dict.fromkeys(moving, FIRST)
    with nodes({FIRST: cores.server, SECOND: cores.generator}, scopes, replicate) as members:
        for member in members:
            with member.connect() as connection:
                connection.run(fill(OWN + member.node_id + ":", KEYSPACE, len(VALUE)))
        yield members


def measure_shipping(options: Options, cores: machine.Cores, say: Say) -> Scenario:
    """Moves between two nodes that keep no copies, so that each target begins with nothing."""
    with _pair([MOVING], "none", cores) as members:
        return _scenario(members, MOVING, options.keys, False, options, cores, say)


def measure_following(options: Options, cores: machine.Cores, say: Say) -> list[Scenario]:
    """Moves between two nodes that follow one another; a scope for each number of keys, filled one after the other."""
    prefixes = {keys: f"{MOVING}{keys}:" for keys in options.follow_keys}
    with _pair(list(prefixes.values()), "all", cores) as members:
        return [
            _scenario(members, prefix, keys, True, options, cores, say) for keys, prefix in sorted(prefixes.items())
        ]


def _scenario(
    members: Sequence[Member],
    prefix: str,
    keys: int,
    following: bool,
    options: Options,
    cores: machine.Cores,
    say: Say,
) -> Scenario:
    """Moves to and fro of idle nodes, and as many while clients write to other scopes of theirs, after a quiet time."""
    first, second = members
    with first.connect() as connection:
        connection.run(fill(prefix, keys, options.value_size))
    if following:
        await_copy(first, second, prefix)
    say(f"{prefix} filled with {keys:,} keys")
    meter = Meter(cores, [first.server.pid], [second.server.pid])
    with _visitor(first, prefix, options) as visitor:
        time.sleep(PAUSE_SECONDS)
        idle = _to_and_fro(members, prefix, following, options.moves, [visitor], say)
        met_idle = Met(**visitor.result())
    sync = sync_seconds()
    # The load begins where the scope was left.
    members = rotated(members, options.moves)
    limit = _limit(options)
    quiet_from = time.monotonic() + options.quiet_seconds * WARM_SHARE
    with ExitStack() as stack:
        loads = [stack.enter_context(_load(member, options, limit)) for member in members]
        probes = {member.node_id: stack.enter_context(_probe(member, limit)) for member in members}
        visitor = stack.enter_context(_visitor(members[0], prefix, options))
        time.sleep(options.quiet_seconds)
        began = time.monotonic()
        loaded = _to_and_fro(members, prefix, following, options.moves, [*loads, *probes.values(), visitor], say)
        met = Met(**visitor.result())
        seen = {node_id: Seen(**probe.result()) for node_id, probe in probes.items()}
        for load in loads:
            load.result()
    samples = {node_id: [(moment, value) for moment, value in each.samples] for node_id, each in seen.items()}
    return Scenario(
        keys=keys,
        size=options.value_size,
        following=following,
        moves=tuple(describe(each, met_idle.gaps) for each in idle),
        loaded=tuple(describe(each, met.gaps) for each in loaded),
        quiet={node_id: tuple(between(each, quiet_from, began)) for node_id, each in samples.items()},
        busy={
            node_id: tuple(value for one in loaded for value in between(each, one.began, one.ended))
            for node_id, each in samples.items()
        },
        realtime=met.realtime and all(each.realtime for each in seen.values()),
        sync=sync,
        foreign=meter.share(),
    )


def _limit(options: Options) -> float:
    """Seconds after which measuring processes end, whatever becomes of us."""
    return options.quiet_seconds + options.moves * (2 * MOVE_SECONDS + PAUSE_SECONDS)


def _visitor(source: Member, prefix: str, options: Options) -> Child:
    """A client that writes under the scope, wherever it is."""
    address = source.server.host, source.server.port
    return Child(VISITOR, Visit(*address, prefix + "visitor", VISITOR_BEAT, _limit(options)))


def _to_and_fro(
    members: Sequence[Member], prefix: str, following: bool, count: int, helpers: Sequence[Child], say: Say
) -> list[Moved]:
    """So many moves, there and back again; raises Failed, also where a helper has ended before its time."""
    moved = []
    for number in range(count):
        source, target = rotated(members, number)
        one = move(source, target, prefix)
        moved.append(one)
        say(
            f"{prefix} move {number + 1}: {one.source} → {one.target}, {one.keys:,} keys, "
            f"{'followed' if one.following else f'{one.size:,} bytes shipped'}, window {one.window * 1e3:.0f} ms"
        )
        if following:
            # The next target must have a live copy again.
            await_copy(target, source, prefix)
        time.sleep(PAUSE_SECONDS)
        check(helpers)
    return moved


def check(helpers: Sequence[Child]) -> None:
    """Raise Failed if a measuring process has ended, with what it said if it said something."""
    for helper in helpers:
        if not helper.running():
            helper.result()
            raise Failed("a measuring process ended before its time")


def describe(moved: Moved, gaps: Sequence[Gap]) -> Move:
    """A move with what the client in the scope met during it."""
    met = [length for moment, length, _ in gaps if moment < moved.ended and moment + length > moved.began]
    return Move(
        source=moved.source,
        target=moved.target,
        keys=moved.keys,
        size=moved.size,
        following=moved.following,
        window=moved.window,
        gap=max(met, default=None),
        took=moved.answered - moved.began,
        work=moved.ended - moved.began,
    )


def _load(member: Member, options: Options, seconds: float) -> Child:
    return start_load(
        member.server,
        LOADERS,
        depth=1,
        rate=options.write_rate,
        seconds=seconds,
        keyspace=KEYSPACE,
        prefix=OWN + member.node_id + ":",
    )


def _probe(member: Member, seconds: float) -> Child:
    watch = Watch(
        mode="replies",
        host=member.server.host,
        port=member.server.port,
        interval=BEAT,
        seconds=seconds,
        keyspace=KEYSPACE,
        prefix=OWN + member.node_id + ":",
        connections=PROBE_CONNECTIONS,
    )
    return Child(PROBE, watch)


# -- routing ----------------------------------------------------------------------------------------------------------


def measure_routing(options: Options, cores: machine.Cores, say: Say) -> list[Routing]:
    """What the table of scopes takes for a key, in a process of its own, which asks nobody."""
    # It has the core of the load, and none of ours has the other one.
    meter = Meter(machine.Cores(cores.generator, cores.generator), [], [])
    task = RoutingTask(list(options.scopes), ROUTING_ROUNDS, options.seconds / 10)
    with Child(ROUTING, task) as child:
        rounds = [Routed(**each) for each in child.result(GENERATOR_SECONDS)]
    foreign = meter.share()
    say(f"routing: {len(rounds)} rounds")
    return [
        Routing(
            count,
            call,
            tuple(each.wall for each in rounds if (each.scopes, each.call) == (count, call)),
            tuple(each.cpu for each in rounds if (each.scopes, each.call) == (count, call)),
            foreign,
        )
        for call in CALLS
        for count in options.scopes
    ]


# -- the gate ---------------------------------------------------------------------------------------------------------


def gate_text(place: Place, other: Place, scopes: int) -> str:
    """The configuration of a node that writes that many scopes, which share the workload's keys; 0: none at all.

    As many belong to another node, which need not be there: as in a cluster there are keys that may not be written.
    """
    if not scopes:
        return plain_text(place)
    prefixes = dict.fromkeys(spread_prefixes(scopes), place.node_id)
    prefixes |= {f"{ELSEWHERE}{index:04d}:": other.node_id for index in range(scopes)}
    return configuration(place, [place, other], prefixes, aof=False)


def measure_gate(options: Options, cores: machine.Cores, say: Say) -> list[Gate]:
    """SETs at full speed to nodes with and without scopes, none of which keeps files or has a copy: in turns."""
    turns: dict[int, list[Turn]] = {}
    with ExitStack() as stack:
        members = {}
        for count in (0, *options.scopes):
            place = Place.free(FIRST)
            text = gate_text(place, Place.free(SECOND), count)
            member = stack.enter_context(node(place, text, cores.server, ALONE if count else ()))
            await_open(member, spread_prefixes(count) if count else [])
            with member.connect() as connection:
                connection.run(WORKLOADS["SET"].fill())
            members[count] = member
        sizes = {}
        for count, member in members.items():

            def elapsed(requests: int, member: Member = member) -> float:
                return turn(member.server, options.connections, options.depth, requests, cores).elapsed

            sizes[count] = calibrate(elapsed, options.connections * options.depth, options.seconds)
        for round_number in range(options.rounds):
            for count in rotated(list(members), round_number):
                taken = turn(members[count].server, options.connections, options.depth, sizes[count], cores)
                turns.setdefault(count, []).append(taken)
                say(
                    f"gate round {round_number + 1}: {count} scopes {taken.throughput:,.0f}/s, "
                    f"{taken.cost * 1e6:.2f} µs"
                )
    return [Gate(count, tuple(turns[count]), tuple(turns[0])) for count in options.scopes]


# -- a client that follows --------------------------------------------------------------------------------------------


def measure_client(options: Options, cores: machine.Cores, say: Say) -> Client:
    """A following client that writes as fast as it can while its scope moves to and fro."""
    moved: list[Moved] = []
    with _pair([MOVING], "all", cores) as members:
        first, second = members
        with first.connect() as connection:
            connection.run(fill(MOVING, CLIENT_KEYS, options.value_size))
        await_copy(first, second, MOVING)
        meter = Meter(cores, [first.server.pid], [second.server.pid])
        limit = (options.client_moves + 1) * (2 * MOVE_SECONDS + options.client_seconds)
        addresses = [f"{member.server.host}:{member.server.port}" for member in members]
        with Child(WRITER, Writing(addresses, options.client_tasks, MOVING, limit)) as writer:
            for number in range(options.client_moves):
                time.sleep(options.client_seconds)
                check([writer])
                source, target = rotated(members, number)
                moved.append(move(source, target, MOVING))
                say(f"client: move {number + 1}, window {moved[-1].window * 1e3:.0f} ms")
            time.sleep(options.client_seconds)
            followed = Followed(**writer.result(GENERATOR_SECONDS))
        foreign = meter.share()
    return Client(
        wanted=options.client_moves,
        tasks=options.client_tasks,
        moves=tuple(describe(each, ()) for each in moved),
        acknowledged=followed.acknowledged,
        elapsed=followed.elapsed,
        longest=followed.longest,
        failed=followed.failed,
        failures=tuple(followed.failures),
        missing=followed.missing,
        doubled=followed.doubled,
        disordered=followed.disordered,
        unknown=followed.unknown,
        foreign=foreign,
    )
