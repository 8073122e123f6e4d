"""The measurements of scopes: the arithmetic, and the parts that work without nodes."""

import importlib.util
import os
import random
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


def _load() -> ModuleType:
    """Import bench from the checkout without putting the project's root, and so kevynode, on the import path."""
    spec = importlib.util.spec_from_file_location(
        "bench", BENCH / "__init__.py", submodule_search_locations=[str(BENCH)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = module
    spec.loader.exec_module(module)
    return module


if "bench" not in sys.modules:
    _load()

from bench import __main__ as entrance  # noqa: E402
from bench import (  # noqa: E402
    machine,
    measuring,
    scopes,
    scopes_live,
    scopes_probe,
    scopes_routing,
    scopes_servers,
    scopes_writer,
    suite,
    tables,
    workloads,
)
from bench import scopes_figures as figures  # noqa: E402
from bench.client import Reply, ServerError  # noqa: E402
from bench.figures import Turn  # noqa: E402
from bench.replication_probe import ProbeError  # noqa: E402
from kevynode import NodeConfig  # noqa: E402
from kevynode.scope import OwnershipTable, Scope  # noqa: E402


def move(window: float, gap: float | None = None, *, following: bool = False) -> figures.Move:
    """A move of a hundred thousand keys."""
    return figures.Move("a", "b", 100_000, 15_000_000, following, window, gap, window + 0.1, window + 0.2)


def scenario(
    moves: tuple[figures.Move, ...],
    *,
    keys: int = 100_000,
    following: bool = False,
    quiet: dict[str, tuple[float, ...]] | None = None,
    busy: dict[str, tuple[float, ...]] | None = None,
) -> figures.Scenario:
    return figures.Scenario(keys, 100, following, moves, moves, quiet or {}, busy or {}, True, 0.001, 0.02)


class TestWindows:
    def test_limit_grows_with_the_keys_that_are_shipped_and_not_with_those_that_are_there(self) -> None:
        assert figures.window_limit(100_000, following=False) == 1.0
        assert figures.window_limit(250_000, following=False) == 2.5
        assert figures.window_limit(500_000, following=True) == figures.window_limit(1000, following=True) == 0.05

    def test_the_worst_move_counts_and_the_longer_of_both_views(self) -> None:
        assert figures.window_figure(scenario((move(0.5, 0.6), move(0.9, 0.7)))).reached
        late = figures.window_figure(scenario((move(0.5, 1.01), move(0.5, 0.5))))
        assert late.reached is False
        assert late.measured == "1,010 ms worst, 755 ms median of 2"
        assert figures.window_figure(scenario((move(1.01, 0.5),))).reached is False

    def test_moves_that_went_the_other_way_miss(self) -> None:
        one = scenario((move(0.01, following=True), move(0.01)), following=True)
        figure = figures.window_figure(one)
        assert figure.reached is False
        assert "1 were shipped" in figure.measured
        assert figures.window_figure(scenario((move(0.01, following=True),))).reached is False

    def test_without_a_move_there_is_no_figure(self) -> None:
        assert figures.window_figure(scenario(())).reached is None
        assert figures.move_table([scenario(())]).rows == []

    def test_a_client_that_met_nothing_is_told(self) -> None:
        assert "met no refusal" in figures.window_figure(scenario((move(0.01), move(0.02)))).measured
        row = figures.move_table([scenario((move(0.01),))]).rows[0]
        assert row[5:7] == ["–", "–"]

    def test_table_shows_idle_and_loaded_moves(self) -> None:
        table = figures.move_table([scenario((move(0.5, 0.6), move(0.9, 0.7)))])
        assert [row[1] for row in table.rows] == ["idle", "loaded"]
        assert table.rows[0][2:] == ["2", "700", "900", "650", "700", "0.80", "0.90", "1.0", "2%"]
        assert all(len(row) == len(table.columns) for row in table.rows)


class TestDelays:
    QUIET: tuple[float, ...] = (0.001,) * 98 + (0.002, 0.002)

    def test_double_or_three_milliseconds_more_whichever_is_more(self) -> None:
        assert figures.delay_limit([0.001]) == pytest.approx(0.004)
        assert figures.delay_limit([0.010]) == pytest.approx(0.020)

    def test_each_node_is_held_against_its_own_time_before(self) -> None:
        quiet = {"a": self.QUIET, "b": (0.010,) * 100}
        well = figures.delay_figure(scenario((), quiet=quiet, busy={"a": (0.005,) * 100, "b": (0.020,) * 100}))
        assert well.reached is True
        badly = figures.delay_figure(scenario((), quiet=quiet, busy={"a": (0.006,) * 100, "b": (0.001,) * 100}))
        assert badly.reached is False
        assert badly.measured.startswith("a: 6.00 ms after 2.00 (max 6.0 after 2.0); b: 1.00 ms")

    def test_a_node_without_replies_is_not_passed_over(self) -> None:
        quiet = {"a": self.QUIET, "b": self.QUIET}
        assert figures.delay_figure(scenario((), quiet=quiet, busy={"a": self.QUIET, "b": ()})).reached is False
        assert figures.delay_figure(scenario((), quiet=quiet, busy={})).reached is None

    def test_table_has_a_row_for_each_node_before_and_during(self) -> None:
        table = figures.reply_times_table([scenario((), quiet={"a": self.QUIET, "b": ()}, busy={"a": (0.1,)})])
        assert [row[1:3] for row in table.rows] == [
            ["a", "before"],
            ["a", "during"],
            ["b", "before"],
            ["b", "during"],
        ]
        assert [row[-1] for row in table.rows] == ["", "p99 ≤ 5.00 missed", "", ""]
        assert all(len(row) == len(table.columns) for row in table.rows)


class TestGate:
    def test_ratios_are_taken_round_by_round(self) -> None:
        plain = (Turn(100, 1.0, 0.1, 0.0), Turn(200, 1.0, 0.2, 0.0), Turn(100, 1.0, 0.1, 0.3))
        mine = (Turn(95, 1.0, 0.1, 0.0), Turn(100, 1.0, 0.2, 0.0), Turn(96, 1.0, 0.2, 0.1))
        gate = figures.Gate(10, mine, plain)
        assert gate.throughput_ratio == pytest.approx(0.95)
        assert gate.cpu_ratio == pytest.approx(0.5)
        assert figures.gate_figure(gate, 16).reached is True
        assert figures.gate_figure(figures.Gate(1, mine[1:], plain[1:]), 16).reached is False
        table = figures.gate_table([gate], "note")
        assert [row[0] for row in table.rows] == ["none", "10"]
        assert all(len(row) == len(table.columns) for row in table.rows)

    @pytest.mark.parametrize("count", [1, 10, 100, 1000])
    def test_scopes_share_the_keys_of_the_workload(self, count: int) -> None:
        table = OwnershipTable(Scope(prefix.encode(), "a") for prefix in scopes_servers.spread_prefixes(count))
        places: dict[Scope | None, int] = {}
        for index in range(workloads.KEYSPACE):
            scope = table.lookup((workloads.STRING_PREFIX + workloads.number(index)).encode())
            places[scope] = places.get(scope, 0) + 1
        assert None not in places
        assert set(places.values()) == {workloads.KEYSPACE // count}

    @pytest.mark.parametrize("count", [2, 20, 10_000])
    def test_no_other_number_of_scopes_does(self, count: int) -> None:
        with pytest.raises(ValueError, match=str(count)):
            scopes_servers.spread_prefixes(count)

    def test_nodes_differ_in_their_scopes_alone(self) -> None:
        place, other = scopes_servers.Place("a", 7001, 17001), scopes_servers.Place("b", 7002, 17002)
        for count in (0, 1, 10):
            config = NodeConfig.from_dict(tomllib.loads(scopes_live.gate_text(place, other, count)))
            assert not config.persistence.aof
            writers = [scope.writer for scope in config.cluster.scopes]
            assert sorted(writers) == ["a"] * count + ["b"] * count
            OwnershipTable(Scope(scope.prefix, scope.writer) for scope in config.cluster.scopes)


def client(**changes: object) -> figures.Client:
    values: dict[str, object] = {
        "wanted": 2,
        "tasks": 8,
        "moves": (move(0.1), move(0.2, following=True)),
        "acknowledged": 1000,
        "elapsed": 2.0,
        "longest": 0.3,
        "failed": 0,
        "failures": (),
        "missing": 0,
        "doubled": 0,
        "disordered": 0,
        "unknown": 0,
        "foreign": 0.1,
    }
    return figures.Client(**{**values, **changes})  # type: ignore[arg-type]


class TestClient:
    def test_nothing_may_be_wrong(self) -> None:
        assert figures.client_figure(client()).reached is True
        for field in ("failed", "missing", "doubled", "disordered", "unknown"):
            assert figures.client_figure(client(**{field: 1})).reached is False, field

    def test_no_writes_and_too_few_moves_miss(self) -> None:
        assert figures.client_figure(client(acknowledged=0)).reached is False
        assert figures.client_figure(client(wanted=3)).reached is False

    def test_table_tells_how_calls_failed(self) -> None:
        table = figures.client_table(client(failures=("Uncertain: lost",), elapsed=0.0))
        assert table.notes == ["Uncertain: lost"]
        assert table.rows[0][1:3] == ["1,000", "–"]
        assert len(table.rows[0]) == len(table.columns)

    @pytest.mark.parametrize(
        ("stored", "confirmed", "uncertain", "expected"),
        [
            ([1, 2, 3], [1, 2, 3], [], scopes_writer.Kept()),
            ([1, 3], [1, 3], [2], scopes_writer.Kept()),
            ([1, 2, 3], [1, 3], [2], scopes_writer.Kept()),
            ([1, 3], [1, 2, 3], [], scopes_writer.Kept(missing=1)),
            ([1, 2, 2, 3], [1, 2, 3], [], scopes_writer.Kept(doubled=1)),
            ([1, 3, 2], [1, 2, 3], [], scopes_writer.Kept(disordered=1)),
            ([1, 2, 9], [1, 2], [], scopes_writer.Kept(unknown=1)),
            ([], [1, 2], [], scopes_writer.Kept(missing=2)),
        ],
    )
    def test_lists_are_held_against_what_was_acknowledged(
        self, stored: list[int], confirmed: list[int], uncertain: list[int], expected: scopes_writer.Kept
    ) -> None:
        assert scopes_writer.compare(stored, confirmed, uncertain) == expected


class TestVisitor:
    def test_a_gap_is_from_the_last_write_that_was_taken_to_the_next(self) -> None:
        visitor = scopes_probe.Visitor("h", 1, 10.0)
        assert not visitor.heard(b"+OK\r\n", 10.0)
        assert not visitor.heard(b"-QUIESCED migrating to h:2\r\n", 10.1)
        assert visitor.heard(b"-MISDIRECTED writer is h:2\r\n", 10.2)
        assert visitor.address == ("h", 2)
        assert not visitor.heard(b"-LOADING scope x: is waiting\r\n", 10.3)
        assert not visitor.heard(b"+OK\r\n", 10.5)
        assert not visitor.heard(b"+OK\r\n", 10.6)
        ((moment, length, refusals),) = visitor.met.gaps
        assert (moment, refusals) == (10.0, 3)
        assert length == pytest.approx(0.5)
        assert visitor.met.writes == 3

    def test_nodes_that_name_each_other_are_not_asked_without_a_pause(self) -> None:
        visitor = scopes_probe.Visitor("h", 1, 0.0)
        at_once = [visitor.heard(b"-MISDIRECTED writer is h:%d\r\n" % (2 - turn % 2), 0.0) for turn in range(6)]
        assert at_once == [True, False, False, False, False, False]

    def test_what_is_no_refusal_ends_it(self) -> None:
        with pytest.raises(ProbeError, match="READONLY"):
            scopes_probe.Visitor("h", 1, 0.0).heard(b"-READONLY You can't\r\n", 0.0)

    def test_it_does_not_wait_for_ever(self) -> None:
        visitor = scopes_probe.Visitor("h", 1, 0.0)
        visitor.heard(b"-QUIESCED migrating to h:2\r\n", scopes_probe.PATIENCE)
        with pytest.raises(ProbeError, match="no write was taken"):
            visitor.heard(b"-QUIESCED migrating to h:2\r\n", scopes_probe.PATIENCE + 1)

    def test_it_follows_a_scope_from_one_server_to_another(self) -> None:
        ours, control = os.pipe()
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            moved = f"-MISDIRECTED writer is 127.0.0.1:{second.getsockname()[1]}\r\n".encode()
            refused = b"-QUIESCED migrating to there\r\n"
            scripts = [(first, [b"+OK\r\n", refused, moved], None), (second, [refused, b"+OK\r\n"], control)]
            threads = [threading.Thread(target=answer, args=script) for script in scripts]
            for thread in threads:
                thread.start()
            visit = scopes_probe.Visit("127.0.0.1", first.getsockname()[1], "k", 0.001, 30.0)
            met = scopes_probe.watch(visit, ours)
            for thread in threads:
                thread.join()
        os.close(ours)
        assert [refusals for _, _, refusals in met.gaps] == [3]
        assert met.writes >= 2

    def test_a_move_has_the_gap_that_fell_into_it(self) -> None:
        moved = scopes_servers.Moved("a", "b", 1, 2, 0.1, True, began=10.0, answered=10.3, ended=10.4)
        gaps = [(8.0, 1.0, 4), (9.99, 0.2, 3), (10.35, 0.01, 1), (10.5, 0.7, 2)]
        described = scopes_live.describe(moved, gaps)
        assert described.gap == pytest.approx(0.2)
        assert described.took == pytest.approx(0.3)
        assert described.work == pytest.approx(0.4)
        assert scopes_live.describe(moved, []).gap is None


def answer(server: socket.socket, replies: list[bytes], control: int | None) -> None:
    """Answer one connection from a script, close ``control`` behind it, and then take whatever comes until its end."""
    connection, _address = server.accept()
    with connection:
        for reply in replies:
            assert connection.recv(65536)
            connection.sendall(reply)
        if control is not None:
            os.close(control)
        while connection.recv(65536):
            connection.sendall(b"+OK\r\n")


class TestRouting:
    def test_prefixes_make_a_table(self) -> None:
        for count in (1, 10, 1000):
            found = OwnershipTable(Scope(prefix.encode(), "a") for prefix in scopes_routing.prefixes(count))
            assert len(found) == count
        assert {len(prefix) for prefix in scopes_routing.prefixes(1000)} == {
            len(prefix) for prefix in scopes_routing.prefixes(10)
        }

    def test_most_keys_are_under_a_scope_and_some_are_not(self) -> None:
        table = OwnershipTable(Scope(prefix.encode(), "a") for prefix in scopes_routing.prefixes(100))
        keys = scopes_routing.keys_for(100, random.Random(1))
        scoped = sum(table.lookup(key) is not None for key in keys)
        assert 0.85 < scoped / len(keys) < 0.95
        assert len({table.lookup(key) for key in keys}) == 101

    def test_every_table_is_asked_both_ways_in_every_round(self) -> None:
        found = scopes_routing.run(scopes_routing.RoutingTask([1, 10], 2, 0.0))
        assert [(each.scopes, each.call) for each in found] == [
            (count, call) for _ in range(2) for count in (1, 10) for call in ("route", "lookup")
        ]
        assert all(each.wall > 0 and each.cpu >= 0 for each in found)

    def test_cpu_counts_and_the_clock_is_shown(self) -> None:
        routing = figures.Routing(1000, "route", (0.9e-6, 1.1e-6, 1.2e-6), (0.3e-6, 0.4e-6, 1.4e-6), 0.5)
        figure = figures.route_figure(routing)
        assert (figure.reached, figure.measured) == (True, "0.40 µs of CPU (1.10 on the clock)")
        assert figures.route_figure(figures.Routing(10, "route", (0.5e-6,), (1.1e-6,), 0.0)).reached is False
        assert figures.routing_table([routing]).rows[0][:5] == ["route", "1,000", "1.100", "1.200", "0.400"]


class TestServers:
    def test_configuration_is_one_that_a_node_takes(self) -> None:
        places = [scopes_servers.Place("a", 7001, 17001), scopes_servers.Place("b", 7002, 17002)]
        text = scopes_servers.configuration(places[1], places, {"x:": "a", "y:": "b"}, replicate="none")
        config = NodeConfig.from_dict(tomllib.loads(text))
        assert (config.cluster.node_id, config.cluster.replicate) == ("b", "none")
        assert [(peer.id, peer.replication) for peer in config.cluster.peers] == [
            ("a", "127.0.0.1:17001"),
            ("b", "127.0.0.1:17002"),
        ]
        assert [(scope.prefix, scope.writer) for scope in config.cluster.scopes] == [(b"x:", "a"), (b"y:", "b")]
        assert config.persistence.aof

    def test_fill_sets_every_key_once(self) -> None:
        commands = list(scopes_servers.fill("p:", 450, 100))
        assert [key for command in commands for key in command[1::2]] == [
            "p:" + workloads.number(index) for index in range(450)
        ]
        assert {len(value) for command in commands for value in command[2::2]} == {100}

    def test_rows_of_moves_are_read(self) -> None:
        rows = scopes_servers.status_rows([[b"role", b"source", b"keys", 5], []])
        assert rows == [{"role": "source", "keys": 5}, {}]
        replies: list[Reply] = [b"OK", [b"flat"], [[b"odd"]], [[1, 2]], [[b"a", None]]]
        for reply in replies:
            with pytest.raises(ServerError, match="MOVE-SCOPE STATUS"):
                scopes_servers.status_rows(reply)

    def test_a_process_that_has_ended_is_told_from_one_that_runs(self) -> None:
        assert not scopes_servers.has_ended(os.getpid())
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            assert not scopes_servers.has_ended(process.pid)
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert scopes_servers.has_ended(process.pid)
        assert scopes_servers.has_ended(process.pid)

    def test_a_helper_that_has_ended_is_noticed(self) -> None:
        # It says what is wrong with a task of nothing.
        visit = scopes_probe.Visit("127.0.0.1", measuring.free_port(), "k", 0.001, 1.0)
        with measuring.Child(scopes_live.VISITOR, visit) as child:
            child._process.wait()
            with pytest.raises(measuring.Failed, match="refused"):
                scopes_live.check([child])


class TestCommandLine:
    def options(self, *words: str) -> scopes_live.Options:
        return scopes.SUITE.options_of(scopes.build_parser().parse_args(words))

    def test_defaults_are_every_part_and_the_sizes_that_are_asked_for(self) -> None:
        options = self.options()
        assert options.parts == ("ship", "follow", "routing", "gate", "client")
        assert (options.keys, options.follow_keys, options.value_size) == (100_000, (1000, 500_000), 100)
        assert (options.scopes, options.depth, options.client_moves) == ((1, 10, 1000), 16, 20)

    @pytest.mark.parametrize(
        "words",
        [["--parts", "speed"], ["--scopes", "7"], ["--moves", "0"], ["--follow-keys", ""], ["--seconds", "inf"]],
    )
    def test_wrong_arguments_are_refused(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            scopes.build_parser().parse_args(words)
        assert raised.value.code == 2
        assert words[0] in capsys.readouterr().err

    @pytest.mark.parametrize("subject", ["scopes", "replication", "durability"])
    def test_subjects_can_be_asked_for_by_name(self, subject: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            entrance.main([subject, "--help"])
        assert not raised.value.code
        assert f"bench.{subject}" in capsys.readouterr().out

    def test_every_figure_stands_in_the_report_whether_it_was_measured_or_not(self) -> None:
        options = self.options("--parts", "ship,gate")
        facts: dict[str, str | int] = {"processor": "P", "cores": 2, "kernel": "6", "python": "3.11"}
        run = suite.Run(options, machine.Cores(1, 0), facts, problems=["gate: reason"])
        run.figures.append(figures.window_figure(scenario((move(0.5),))))
        scopes.finish(run)
        assert [figure.reached for figure in run.figures] == [True, None, None, None, None]
        for markdown in (False, True):
            text = suite.render(scopes.SUITE, run, markdown)
            assert "nodes on core 1" in text
            assert "500 ms worst" in text
            assert text.count("not measured") == 4
            assert text.endswith("! gate: reason\n")

    def test_names_of_figures_are_those_that_are_measured(self) -> None:
        wanted = {figure.name: figure.target for figure in scopes.wanted(self.options())}
        turns = (Turn(1, 1.0, 0.1, 0.0),)
        measured = [
            each
            for keys, following in ((100_000, False), (1000, True), (500_000, True))
            for one in [scenario((move(0.1),), keys=keys, following=following)]
            for each in (figures.window_figure(one), figures.delay_figure(one))
        ]
        measured += [figures.route_figure(figures.Routing(n, "route", (1.0,), (1.0,), 0.0)) for n in (1, 10, 1000)]
        measured += [figures.gate_figure(figures.Gate(n, turns, turns), 16) for n in (1, 10, 1000)]
        measured.append(figures.client_figure(client(wanted=20)))
        assert {figure.name: figure.target for figure in measured} == wanted

    def test_figures_that_others_disturbed_are_marked(self) -> None:
        table = tables.figure_table([tables.Figure("n", "t", "m", True, 0.5), tables.Figure("n", "t")])
        assert table.rows == [["n", "t", "m", "reached F", "50%"], ["n", "t", "–", "not measured", "–"]]
        assert len(table.notes) == 1
        quiet = tables.figure_table([tables.Figure("n", "t", "m", False, 0.1)])
        assert (quiet.rows[0][3], quiet.notes) == ("missed", [])
