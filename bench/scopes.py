"""For how long a move stops writes, what it does to other scopes, what scopes cost: ``python -m bench.scopes``.

``bench/README.md`` explains the method and how to read the tables.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence

import attrs

from bench.measuring import Say
from bench.scopes_figures import (
    CLIENT_TARGET,
    DELAY_TARGET,
    GATE_TARGET,
    ROUTE_TARGET,
    Scenario,
    client_figure,
    client_name,
    client_table,
    delay_figure,
    delay_name,
    gate_figure,
    gate_name,
    gate_table,
    move_table,
    reply_times_table,
    route_figure,
    route_name,
    routing_table,
    window_figure,
    window_name,
    window_target,
)
from bench.scopes_live import (
    Options,
    measure_client,
    measure_following,
    measure_gate,
    measure_routing,
    measure_shipping,
)
from bench.scopes_servers import spread_prefixes
from bench.suite import Measures, Run, Suite, at_least, carry_out, numbers, options_from, parser_of, seconds, sum_up
from bench.tables import Figure

PARTS = ("ship", "follow", "routing", "gate", "client")


def _scope_counts(text: str) -> tuple[int, ...]:
    counts = numbers(1)(text)
    for count in counts:
        try:
            spread_prefixes(count)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return counts


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = parser_of("scopes", "Measure scopes and their moves", PARTS)
    add = parser.add_argument
    add("--keys", type=at_least(1), default=100_000, help="keys that go to an empty target, ship (100000)")
    add("--follow-keys", type=numbers(1), default=(1000, 500_000), help="keys a target has, follow (1000,500000)")
    add("--value-size", type=at_least(1), default=100, help="bytes of a value, ship and follow (100)")
    add("--moves", type=at_least(1), default=10, help="moves to and fro, ship and follow (10)")
    add("--write-rate", type=at_least(1), default=1000, help="SETs a second to another scope of each node (1000)")
    add("--quiet-seconds", type=seconds, default=5.0, help="how long the probes look before the moves (5)")
    add("--scopes", type=_scope_counts, default=(1, 10, 1000), help="scopes declared, routing and gate (1,10,1000)")
    add("--depth", type=at_least(1), default=16, help="requests per round trip, gate (16)")
    add("--connections", type=at_least(1), default=50, help="clients that write, gate (50)")
    add("--rounds", type=at_least(1), default=9, help="rounds whose median counts, gate (9)")
    add("--seconds", type=seconds, default=1.5, help="about how long one round lasts, gate; a tenth: routing (1.5)")
    add("--client-moves", type=at_least(1), default=20, help="moves under a client, client (20)")
    add("--client-tasks", type=at_least(1), default=8, help="calls of it at a time, client (8)")
    add("--client-seconds", type=seconds, default=0.5, help="between two moves, client (0.5)")
    return parser


def _moves(run: Run[Options], name: str, scenarios: Iterable[Scenario]) -> None:
    found = list(scenarios)
    run.tables += [move_table(found), reply_times_table(found)]
    for each in found:
        run.figures += [window_figure(each), delay_figure(each)]
    run.samples[name] = [attrs.asdict(each) for each in found]


def _ship(run: Run[Options], say: Say) -> None:
    _moves(run, "ship", [measure_shipping(run.options, run.cores, say)])


def _follow(run: Run[Options], say: Say) -> None:
    _moves(run, "follow", measure_following(run.options, run.cores, say))


def _routing(run: Run[Options], say: Say) -> None:
    found = measure_routing(run.options, run.cores, say)
    run.tables.append(routing_table(found))
    run.figures += [route_figure(each) for each in found if each.call == "route"]
    run.samples["routing"] = [attrs.asdict(each) for each in found]


def _gate(run: Run[Options], say: Say) -> None:
    options = run.options
    gates = measure_gate(options, run.cores, say)
    note = (
        f"{options.connections} connections, depth {options.depth}, medians of {options.rounds} alternated rounds of "
        f"about {options.seconds:g} s; throughput ratio: with ÷ without; CPU ratio: CPU per SET without ÷ with"
    )
    run.tables.append(gate_table(gates, note))
    run.figures += [gate_figure(gate, options.depth) for gate in gates]
    run.samples["gate"] = [attrs.asdict(gate) for gate in gates]


def _client(run: Run[Options], say: Say) -> None:
    client = measure_client(run.options, run.cores, say)
    run.tables.append(client_table(client))
    run.figures.append(client_figure(client))
    run.samples["client"] = attrs.asdict(client)


MEASURES: Measures[Options] = {
    "ship": _ship,
    "follow": _follow,
    "routing": _routing,
    "gate": _gate,
    "client": _client,
}


def wanted(options: Options) -> list[Figure]:
    """Every figure that these options ask for, none of which has been measured."""
    size = options.value_size

    def moves(keys: int, following: bool) -> list[Figure]:
        window = Figure(window_name(keys, size, following), window_target(keys, following))
        return [window, Figure(delay_name(keys, following), DELAY_TARGET)]

    found = {
        "ship": moves(options.keys, False),
        "follow": [figure for keys in sorted(options.follow_keys) for figure in moves(keys, True)],
        "routing": [Figure(route_name(count), ROUTE_TARGET) for count in options.scopes],
        "gate": [Figure(gate_name(count, options.depth), GATE_TARGET) for count in options.scopes],
        "client": [Figure(client_name(options.client_moves), CLIENT_TARGET)],
    }
    return [figure for part in options.parts for figure in found[part]]


def finish(run: Run[Options]) -> None:
    """The table of all figures."""
    sum_up(run, wanted(run.options))


SUITE = Suite(
    "scopes",
    build_parser,
    options_from(Options),
    MEASURES,
    "nodes on {server}, their peers, load and probes on {generator}",
    finish,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; returns 0, 1 when a part failed, 2 for a wrong argument, 130 if interrupted."""
    return carry_out(SUITE, argv)


if __name__ == "__main__":
    sys.exit(main())
