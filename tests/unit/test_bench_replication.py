"""The pure parts of the replication measurements, and their load and probe against a server that answers a script."""

import contextlib
import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import attrs
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

from bench import machine, measuring, replication, suite, tables, workloads  # noqa: E402
from bench import replication_figures as figures  # noqa: E402
from bench import replication_live as live  # noqa: E402
from bench import replication_load as load  # noqa: E402
from bench import replication_probe as probe  # noqa: E402
from bench import replication_servers as servers  # noqa: E402
from bench import replication_syncs as syncs  # noqa: E402


def turn(cpu: float, *, requests: int = 100_000, replica_cpu: float = 0.0, drain: float = 0.0) -> figures.Turn:
    """One round of two seconds."""
    return figures.Turn(requests, 2.0, cpu * 0.9, cpu, replica_cpu, drain, 0.1)


class TestCost:
    def test_ratio_is_the_median_of_the_rounds(self) -> None:
        alone = [turn(1.0), turn(1.0), turn(2.0)]
        row = figures.cost("kevynode", 1, 1, [turn(1.25), turn(2.0), turn(2.5)], alone)
        assert row.ratio == pytest.approx(0.8)
        assert row.cpu == pytest.approx(2.0 / 100_000)
        assert row.loaded_cpu == pytest.approx(1.8 / 100_000)
        assert row.throughput == 50_000

    def test_rounds_of_unlike_size_are_compared_by_command(self) -> None:
        row = figures.cost("kevynode", 1, 1, [turn(1.0, requests=50_000)], [turn(1.0, requests=100_000)])
        assert row.ratio == pytest.approx(0.5)

    def test_replicas_cost_is_that_of_one_and_drain_the_longest(self) -> None:
        turns = [turn(1.0, replica_cpu=3.0, drain=0.5), turn(1.0, replica_cpu=3.0, drain=0.25)]
        row = figures.cost("kevynode", 16, 3, turns, [])
        assert row.replica_cpu == pytest.approx(1.0 / 100_000)
        assert row.drain == 0.5
        assert row.ratio is None

    def test_rounds_at_one_pace_are_compared_among_themselves(self) -> None:
        row = figures.cost("kevynode", 1, 1, [turn(2.0)], [turn(1.0)], [turn(1.25)], [turn(1.0)])
        assert row.ratio == pytest.approx(0.5)
        assert row.pace_ratio == pytest.approx(0.8)

    def test_only_a_kevynode_has_targets(self) -> None:
        alone = [turn(1.0)]
        rows = [
            figures.cost(kind, depth, count, [turn(1.3)], alone)
            for kind in ("kevynode", "valkey")
            for depth, count in ((1, 0), (1, 1), (16, 1), (16, 3))
        ]
        table = figures.cost_table(rows, "a note")
        column = table.columns.index("target")
        assert [row[column] for row in table.rows] == ["", "≥ 0.8 missed", "≥ 0.7 met", "≥ 0.6 met", "", "", "", ""]


class TestLag:
    def test_both_halves_are_shown(self) -> None:
        assert figures.halves([5, 1, 2, 9]) == (5, 9)
        assert figures.halves([]) == (0, 0)
        assert figures.halves([4]) == (0, 4)

    def test_what_valkey_does_not_tell_is_a_dash(self) -> None:
        samples = ((0.1, 10, 100, 5), (0.2, 30, 300, 7))
        courses = [figures.Course(kind, 1, 1000.0, samples, 0.5, True) for kind in ("kevynode", "valkey")]
        rows = figures.course_table(courses).rows
        assert rows[0][3:] == ["10 / 30", "100 / 300", "5 / 7", "0.50", "≤ 1 met", "2"]
        assert rows[1][3:6] == ["10 / 30", "–", "–"]

    def test_a_replica_that_never_catches_up_misses(self) -> None:
        row = figures.course_table([figures.Course("kevynode", 1, 1.0, (), 60.0, False)]).rows[0]
        assert row[6:8] == ["> 60", "≤ 1 missed"]

    def test_visible_times_are_judged_by_both_percentiles(self) -> None:
        times = (*[0.001] * 98, 0.02, 0.02)
        table = figures.visibility_table(
            [
                figures.Visibility("kevynode", 100.0, 99.0, times, 1, 0.0),
                figures.Visibility("valkey", 100.0, 99.0, (), 5, 0.0),
            ]
        )
        target, never = table.columns.index("target"), table.columns.index("never")
        assert table.rows[0][target] == "p50 ≤ 2 met, p99 ≤ 15 missed"
        assert [row[never] for row in table.rows] == ["1", "5"]
        assert len(table.rows[1]) == len(table.columns)


def sync(kind: str, duration: float, *, peak: int = 140, busy: tuple[float, ...] = (0.001,)) -> figures.Sync:
    """One sync of a primary that rests at 100 bytes."""
    return figures.Sync(kind, duration, duration + 0.1, (0.001,), busy, 10.0, 9.0, 100, peak, 0.0)


class TestSync:
    def test_duration_is_compared_round_by_round(self) -> None:
        rounds = [sync("kevynode", 6.0), sync("valkey", 2.0), sync("valkey", 1.0), sync("kevynode", 5.0)]
        table = figures.sync_table(rounds, "valkey")
        ratio = table.columns.index("÷ valkey")
        assert [row[ratio] for row in table.rows] == ["4.0", "1.0"]
        assert table.rows[0][ratio + 1] == "≤ 4 met"

    def test_peak_is_the_highest_of_all_rounds_over_the_first_rest(self) -> None:
        table = figures.sync_table([sync("kevynode", 1.0), sync("kevynode", 1.0, peak=160)], "valkey")
        place = table.columns.index("peak ratio")
        assert table.rows[0][place : place + 2] == ["1.60", "≤ 1.5 missed"]
        assert table.rows[0][table.columns.index("÷ valkey")] == "–"

    def test_replies_of_all_rounds_count_together(self) -> None:
        table = figures.probe_table(
            [sync("kevynode", 1.0, busy=(0.001,) * 999), sync("kevynode", 1.0, busy=(0.2, 0.03))], realtime=False
        )
        assert [row[:2] for row in table.rows] == [["kevynode", "before"], ["kevynode", "during"]]
        assert table.rows[1][2:] == ["1.00", "1.00", "30.00", "200.00", "1,001", "p99.9 ≤ 25 missed"]
        assert table.notes

    def test_samples_are_cut_by_their_moment(self) -> None:
        assert tables.between([(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)], 1.5, 3.0) == [0.2]

    def test_fill_sets_every_key_once(self) -> None:
        commands = list(syncs.fill(450))
        keys = [key for command in commands for key in command[1::2]]
        assert keys == [workloads.STRING_PREFIX + workloads.number(index) for index in range(450)]
        assert {command[0] for command in commands} == {"MSET"}
        assert {value for command in commands for value in command[2::2]} == {workloads.VALUE}


class TestStuck:
    def held(self, **changes: float | None) -> figures.Held:
        values = {
            "budget": 32 * tables.MIB,
            "written": 100 * tables.MIB,
            "before": 50 * tables.MIB,
            "stuck": 90 * tables.MIB,
            "waiting": 86 * tables.MIB,
            "after": 50 * tables.MIB,
            "hung_up_at": 10.0,
            "expired_at": 15.0,
            "backlog_gone": True,
        }
        return figures.Held(**{**values, **changes})  # type: ignore[arg-type]

    def test_bound_is_the_budget_and_four_mebibytes(self) -> None:
        rows = figures.held_table(self.held()).rows
        assert rows[2][1:] == ["10.0", "86.0", "+36.0", "≤ 36 met"]
        assert rows[3][1:] == ["15.0", "50.0", "+0.0", "100% given back"]
        over = figures.held_table(self.held(waiting=87 * tables.MIB, after=60 * tables.MIB)).rows
        assert over[2][4] == "≤ 36 missed"
        assert over[3][4] == "73% given back"

    def test_what_did_not_happen_is_missed(self) -> None:
        rows = figures.held_table(self.held(hung_up_at=None, expired_at=None, waiting=0)).rows
        assert [row[4] for row in rows] == ["", "", "missed", "missed"]


class TestTables:
    TABLE = tables.Table("Title", ("a", "b"), [["x", "1"], ["yy", "22"]], ["note"])

    def test_text_is_aligned(self) -> None:
        assert tables.render_text(self.TABLE).splitlines() == ["Title", "", "a    b", "x    1", "yy  22", "! note"]

    def test_markdown_has_as_many_cells_in_every_line(self) -> None:
        lines = tables.render_markdown(self.TABLE).splitlines()
        assert lines[2:6] == ["| a | b |", "|---|---:|", "| x | 1 |", "| yy | 22 |"]
        assert lines[-1] == "- note"

    def test_verdict_says_target_and_outcome(self) -> None:
        assert tables.verdict(0.8, 0.8, at_least=True) == "≥ 0.8 met"
        assert tables.verdict(25.1, 25, at_least=False) == "≤ 25 missed"
        assert tables.verdict(None, 25, at_least=False) == "–"

    def test_percentiles_need_no_order(self) -> None:
        spread = tables.Spread.of([0.003, 0.001, 0.002])
        assert spread.cells() == ["2.00", "3.00", "3.00", "3.00", "3"]
        with pytest.raises(ValueError, match="no values"):
            tables.Spread.of([])

    def test_report_names_what_failed(self) -> None:
        options = replication.SUITE.options_of(replication.build_parser().parse_args([]))
        facts: dict[str, str | int] = {"processor": "P", "cores": 2, "kernel": "6", "python": "3.11"}
        run = suite.Run(options, machine.Cores(1, 0), facts, [self.TABLE], problems=["sync: reason"])
        for markdown in (False, True):
            text = suite.render(replication.SUITE, run, markdown)
            assert "primaries on core 1" in text
            assert "Title" in text
            assert text.endswith("! sync: reason\n")


class TestInfo:
    def test_replica_lines_end_with_the_first_that_is_missing(self) -> None:
        info = {
            "slave0": "ip=::1,port=7,state=online,lag_ms=3",
            "slave1": "ip=,odd",
            "slave3": "ip=x",
            "role": "master",
        }
        assert figures.replica_lines(info) == [
            {"ip": "::1", "port": "7", "state": "online", "lag_ms": "3"},
            {"ip": ""},
        ]

    def test_position_is_what_a_replica_applied_or_a_primary_wrote(self) -> None:
        assert servers.position({"slave_repl_offset": "5", "master_repl_offset": "9"}) == 5
        assert servers.position({"master_repl_offset": "9"}) == 9
        assert servers.position({}) == 0

    def test_configuration_file_holds_port_and_settings(self) -> None:
        text = servers.configuration(17000, {"reconnect_window_ms": 1000})
        assert text.splitlines() == ["[replication]", "listen_port = 17000", "reconnect_window_ms = 1000"]

    def test_peak_memory_is_at_least_what_is_held_now(self) -> None:
        assert 0 < servers.memory(os.getpid()) <= servers.memory(os.getpid(), "VmHWM") * 1.1
        with pytest.raises(measuring.Failed, match="tells no"):
            servers.memory(os.getpid(), "VmNothing")


class TestRounds:
    def test_every_setup_goes_first_in_turn(self) -> None:
        assert [measuring.rotated("abc", number) for number in range(4)] == [
            list("abc"),
            list("bca"),
            list("cab"),
            list("abc"),
        ]
        assert measuring.rotated([], 3) == []

    def test_none_is_always_measured_and_valkey_has_one_replica_at_most(self) -> None:
        assert live.counts_of("kevynode", (1, 3)) == [0, 1, 3]
        assert live.counts_of("kevynode", (3, 0, 1)) == [0, 3, 1]
        assert live.counts_of("valkey", (0, 1, 3)) == [0, 1]


class TestCommandLine:
    def test_defaults_are_every_part(self) -> None:
        options = replication.SUITE.options_of(replication.build_parser().parse_args([]))
        assert options.parts == ("throughput", "lag", "sync", "slow")
        assert (options.servers, options.depths, options.replicas) == (("kevynode", "valkey"), (1, 16), (0, 1, 3))
        assert (options.connections, options.keys, options.budget) == (50, 1_000_000, 32 << 20)

    def test_parts_run_in_their_order(self) -> None:
        arguments = replication.build_parser().parse_args(["--parts", "Slow, lag", "--depths", "4,4", "--budget", "2"])
        options = replication.SUITE.options_of(arguments)
        assert (options.parts, options.depths, options.budget) == (("lag", "slow"), (4,), 2 << 20)

    @pytest.mark.parametrize(
        "words",
        [
            ["--parts", "lag,speed"],
            ["--servers", ""],
            ["--depths", "0"],
            ["--replicas", "-1"],
            ["--rounds", "0"],
            ["--seconds", "inf"],
            ["--keys", "many"],
            ["--window-ms", "10"],
        ],
    )
    def test_wrong_arguments_are_refused(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            replication.build_parser().parse_args(words)
        assert raised.value.code == 2
        assert words[0] in capsys.readouterr().err


class TestLoad:
    def test_template_is_so_many_requests(self) -> None:
        key = workloads.STRING_PREFIX + workloads.number(7)
        assert load.batch_template(1) % 7 == workloads.encode_request(["SET", key, workloads.VALUE])
        other = workloads.encode_request(["SET", workloads.STRING_PREFIX + workloads.number(123456), workloads.VALUE])
        assert load.batch_template(2) % (7, 123456) == load.batch_template(1) % 7 + other

    def test_first_batch_is_due_at_once_and_the_others_at_their_time(self) -> None:
        assert load.due(1000, 0.0, 0, 1) == 1
        assert load.due(1000, 0.0105, 1, 1) == 10
        assert load.due(1000, 0.0105, 20, 1) == 0
        assert load.due(1600, 0.0105, 0, 16) == 2

    def test_rate_is_taken_between_the_marks_inside(self) -> None:
        written = load.Written(400, [(0.0, 0), (1.0, 100), (2.0, 300), (3.0, 400)])
        assert written.rate == pytest.approx(400 / 3)
        assert written.rate_between(0.9, 2.5) == 200.0
        assert written.rate_between(2.5, 2.9) == 0.0
        assert written.ended == 3.0

    def test_line_is_read_and_nothing_behind_it(self) -> None:
        reading, writing = os.pipe()
        try:
            os.write(writing, b"task\nrest")
            assert load.read_line(reading) == b"task\n"
            assert os.read(reading, 10) == b"rest"
            os.close(writing)
            with pytest.raises(EOFError):
                load.read_line(reading)
        finally:
            os.close(reading)


@contextlib.contextmanager
def answering(reply: bytes, request_size: int, connections: int) -> Iterator[int]:
    """A loopback server that answers every ``request_size`` bytes of each connection with ``reply``."""

    def serve(client_socket: socket.socket) -> None:
        received = 0
        with client_socket, contextlib.suppress(ConnectionError):  # the client may leave at any time
            while data := client_socket.recv(4096):
                received += len(data)
                client_socket.sendall(reply * (received // request_size))
                received %= request_size

    def accept() -> None:
        threads = []
        for _ in range(connections):
            threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        yield listener.getsockname()[1]
        acceptor.join()


@contextlib.contextmanager
def open_input() -> Iterator[int]:
    """A descriptor at which nothing is to be read."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


class TestAgainstAScript:
    SIZE = len(load.batch_template(1) % 0)

    @pytest.mark.parametrize("rate", [0.0, 500.0])
    def test_every_request_sent_is_answered_before_the_load_ends(self, rate: float) -> None:
        with answering(b"+OK\r\n", self.SIZE, connections=3) as port, open_input() as control:
            task = load.Load("127.0.0.1", port, 3, 4, rate, 0.1, 1000)
            written = load.run(task, control)
        assert written.requests > 0
        assert written.requests % 4 == 0
        assert written.marks[-1][1] == written.requests

    def test_load_ends_with_its_input(self) -> None:
        reading, writing = os.pipe()
        os.close(writing)
        try:
            with answering(b"+OK\r\n", self.SIZE, connections=1) as port:
                written = load.run(load.Load("127.0.0.1", port, 1, 1, 0.0, 3600.0, 10), reading)
        finally:
            os.close(reading)
        assert written.requests > 0

    def test_error_reply_ends_the_load(self) -> None:
        with (
            answering(b"-ERR no\r\n", self.SIZE, connections=1) as port,
            open_input() as control,
            pytest.raises(load.LoadError, match="-ERR no"),
        ):
            load.run(load.Load("127.0.0.1", port, 1, 1, 0.0, 3600.0, 10), control)

    def test_wire_reads_whole_replies_only(self) -> None:
        size = len(workloads.encode_request(["PING"]))
        for reply in (b"+PONG\r\n", b"$-1\r\n", b"$4\r\n\r\n\r\n\r\n", b"$0\r\n\r\n"):
            with answering(reply, size, connections=1) as port:
                wire = probe.Wire("127.0.0.1", port)
                assert wire.ask(workloads.encode_request(["PING"])) == reply
                wire.close()

    def test_error_reply_ends_the_probe(self) -> None:
        size = len(workloads.encode_request(["PING"]))
        with answering(b"-LOADING busy\r\n", size, connections=1) as port:
            wire = probe.Wire("127.0.0.1", port)
            with pytest.raises(probe.ProbeError, match="LOADING"):
                wire.ask(workloads.encode_request(["PING"]))
            wire.close()


class TestProbe:
    @pytest.mark.parametrize(
        ("reply", "whole"),
        [
            (b"", False),
            (b"+OK", False),
            (b"+OK\r\n", True),
            (b"$2\r\nab", False),
            (b"$2\r\nab\r\n", True),
            (b"$-1\r\n", True),
            (b"-ERR x\r\n", True),
        ],
    )
    def test_reply_is_complete_with_its_last_byte(self, reply: bytes, whole: bool) -> None:
        assert probe.complete(reply) is whole

    def test_waiting_behind_a_late_reply_counts_and_waking_late_does_not(self) -> None:
        assert probe.sent_at(due=10.0, woke=10.3, free=9.9) == 10.3
        assert probe.sent_at(due=10.0, woke=10.8, free=10.8) == 10.0

    def test_requests_of_a_line_go_out_one_after_the_other_and_count_from_when_they_were_due(self) -> None:
        request = workloads.encode_request(["PING"])
        with answering(b"+PONG\r\n", len(request), connections=1) as port:
            line = probe.Line("127.0.0.1", port)
            line.ask(10.0, request, 10.5)
            line.ask(11.0, request, 11.5)
            line.ask(12.0, request, 12.5)
            # The first one counts from when it went out, the others from when they should have.
            assert line.hear(15.0) == (10.5, 4.5)
            assert line.hear(16.0) == (11.0, 5.0)
            assert line.hear(16.5) == (12.0, 4.5)
            assert line.start is None
            line.ask(20.0, request, 20.5)
            assert line.hear(21.0) == (20.5, 0.5)
            line.wire.close()

    def test_an_error_ends_a_line(self) -> None:
        request = workloads.encode_request(["PING"])
        with answering(b"-LOADING busy\r\n", len(request), connections=1) as port:
            line = probe.Line("127.0.0.1", port)
            line.ask(1.0, request, 1.0)
            with pytest.raises(probe.ProbeError, match="LOADING"):
                line.hear(2.0)
            line.wire.close()

    def test_lines_take_turns_until_the_time_is_over(self) -> None:
        size = len(workloads.encode_request(["GET", workloads.STRING_PREFIX + workloads.number(0)]))
        seen = probe.Seen()
        with answering(b"$-1\r\n", size, connections=6) as port, open_input() as control:
            watch = probe.Watch("replies", "127.0.0.1", port, 3600.0, 3600.0, connections=3)
            reading, writing = os.pipe()
            os.close(writing)
            try:
                # Its input is at its end, which it sees before the first beat.
                probe.watch_replies(watch, reading, seen)
            finally:
                os.close(reading)
            assert seen.samples == []
            probe.watch_replies(attrs.evolve(watch, interval=1e-6, seconds=1e-6), control, seen)
        # As many as one round has beats for.
        assert seen.samples
