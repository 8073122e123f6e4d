"""What a comparison makes of its samples: goals, changes since an earlier run, what is withheld, the picture."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkout import load_bench

load_bench()

from bench import __main__ as command_line  # noqa: E402
from bench import against, chart, compare, comparing, control, goals, machine, report, servers, workloads  # noqa: E402
from bench.client import Connection  # noqa: E402
from bench.figures import Row, Sample, summarise  # noqa: E402

VALKEY = servers.Running("valkey", "h", 1, 1, "9.1")
NODE = servers.Running("kevynode", "h", 2, 2, "0.1")


def sample(cpu: float = 1.0, p99: float = 0.002, foreign: float = 0.0, throughput: int = 1000) -> Sample:
    """One second of a run; ``cpu`` is µs per command."""
    return Sample(throughput, 1.0, cpu * throughput / 1e6, 0.5, 0.001, p99, foreign)


def make_report(*, anyway: bool = False, rounds: int = 2) -> compare.Report:
    """A report of GET at depth 1 on two servers, without samples so far."""
    options = compare.Options(("valkey", "kevynode"), ("GET",), (1,), 50, rounds, 1.0, "own", anyway)
    facts: dict[str, str | int] = {"processor": "P", "cores": 2, "kernel": "6", "python": "3.11"}
    return compare.Report(options, machine.Cores(1, 0), facts, servers=[VALKEY, NODE], baseline="valkey")


class TestControl:
    @given(st.lists(st.sampled_from(sorted(workloads.WORKLOADS)), min_size=1, max_size=4), st.integers(50, 4000))
    def test_every_request_is_answered_once_wherever_the_stream_is_cut(self, names: list[str], step: int) -> None:
        source = Random(1)
        stream, expected = b"", b""
        for name in names:
            workload = workloads.WORKLOADS[name]
            for _ in range(7):
                stream += workloads.encode_request(workloads.fill_in(workload.arguments, source))
                expected += control.REPLIES[name.encode()]
        answers = control.Answers()
        assert b"".join(answers.feed(stream[at : at + step]) for at in range(0, len(stream), step)) == expected

    @pytest.mark.parametrize("name", list(workloads.WORKLOADS))
    def test_its_replies_have_the_lines_that_the_generator_counts(self, name: str) -> None:
        assert control.REPLIES[name.encode()].count(b"\n") == workloads.WORKLOADS[name].line_ends

    def test_it_takes_all_that_prepares_and_cleans_up_a_workload(self) -> None:
        answers = control.Answers()
        for workload in workloads.WORKLOADS.values():
            commands = [*list(workload.fill())[:50], *workload.before(1200), *workloads.clean_up()]
            replies = answers.feed(b"".join(map(workloads.encode_request, commands)))
            assert replies.count(b"\r\n") == len(commands)
            assert b"-" not in replies

    def test_an_unknown_command_is_an_error(self) -> None:
        assert control.Answers().feed(b"*1\r\n$4\r\nINFO\r\n").startswith(b"-ERR")

    def test_it_serves_connections_and_one_that_does_not_read(self) -> None:
        with serving() as port, Connection("127.0.0.1", port) as client, socket.socket() as stubborn:
            stubborn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stubborn.connect(("127.0.0.1", port))
            asked = 2000
            sender = threading.Thread(target=stubborn.sendall, args=(b"*1\r\n$6\r\nLRANGE\r\n" * asked,))
            sender.start()
            assert client.call("PING") == b"PONG"
            left = len(control.REPLIES[b"LRANGE"]) * asked
            while left:
                data = stubborn.recv(1 << 20)
                assert data
                left -= len(data)
            sender.join()


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """A control that serves in a thread until the block ends."""
    it = control.Control()
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            it.turn(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield it.port
    finally:
        ended.set()
        thread.join()
        it.close()


class TestServers:
    def test_pure_node_is_told_so_and_the_other_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(servers.PURE, "1")
        compiled, pure = servers.TARGETS["kevynode"], servers.TARGETS["kevynode-pure"]
        assert servers.PURE not in servers.child_environment(compiled.environment)
        assert servers.child_environment(pure.environment)[servers.PURE] == "1"
        assert servers.child_environment()[servers.PURE] == "1"

    def test_a_node_says_which_parts_it_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        info = {"kevynode_version": "0.1", "redis_version": "7.2", "implementation": "pure"}
        monkeypatch.setattr(servers, "read_info", lambda host, port: info)
        assert servers._version("kevynode-pure", "h", 1) == "0.1 pure"
        node = servers.Running("kevynode", "h", 1, 1, servers._version("kevynode", "h", 1))
        assert len(compare.missing_parts([node, attrs.evolve(node, name="kevynode-pure")])) == 1
        assert compare.missing_parts([attrs.evolve(node, version="0.1 compiled")]) == []
        info.clear()
        info["valkey_version"] = "9.1"
        assert servers._version("valkey", "h", 1) == "9.1"


class TestForeignLoad:
    def take(self, monkeypatch: pytest.MonkeyPatch, made: compare.Report, foreign: list[float]) -> list[str]:
        """Measure with samples of such foreign load in turn; the lines of progress."""
        loads = iter(foreign)
        monkeypatch.setattr(compare, "_calibrate", lambda *_: 1000)
        monkeypatch.setattr(compare, "_measure", lambda *_: sample(foreign=next(loads)))
        said: list[str] = []
        compare._compare_depth(made, workloads.WORKLOADS["GET"], 1, [VALKEY, NODE], said.append)
        assert next(loads, None) is None
        return said

    def test_a_disturbed_round_is_repeated_for_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = make_report()
        said = self.take(monkeypatch, made, [0.0, 0.5, 0.0, 0.0, 0.0, 0.01])
        assert [row.foreign for row in made.rows] == pytest.approx([0.005, 0.0])
        assert [len(samples) for samples in made.samples.values()] == [2, 2]
        assert sum("repeated" in line for line in said) == 1

    def test_what_stays_disturbed_is_withheld(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = make_report(rounds=1)
        self.take(monkeypatch, made, [0.0, 0.5, 0.0, 0.4])
        assert [row.server for row in made.rows] == ["valkey"]
        assert [row.server for row in made.withheld] == ["kevynode"]
        assert "1 rows are withheld" in report.render_report(made, markdown=False)
        assert "GET at depth 1" in report.notes(made)[-1]

    def test_nothing_is_reported_beside_a_disturbed_baseline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = make_report(rounds=1)
        self.take(monkeypatch, made, [0.5, 0.0, 0.5, 0.0])
        assert made.rows == []
        assert made.samples == {}
        assert len(made.withheld) == 2

    def test_anyway_reports_everything_with_a_mark(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = make_report(anyway=True, rounds=1)
        made.load = 0.7
        self.take(monkeypatch, made, [0.5, 0.5])
        assert len(made.rows) == 2
        text = report.render_report(made, markdown=False)
        assert "NOT FOR QUOTING: other processes used 70%" in text
        assert "NOT FOR QUOTING" in report.headline(made)

    def test_a_busy_machine_is_refused_before_anything_starts(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(machine, "load_now", lambda cores, seconds: 0.5)
        monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
        assert comparing.main(["--generator", "own"]) == comparing.BUSY
        shown = capsys.readouterr()
        assert "50%" in shown.err
        assert "--anyway" in shown.err
        assert shown.out == ""


class TestGoals:
    def test_the_worst_command_decides(self) -> None:
        samples = {
            ("GET", 16, "valkey"): [sample(1.0)],
            ("GET", 16, "kevynode"): [sample(1.0)],
            ("SET", 16, "valkey"): [sample(1.0)],
            ("SET", 16, "kevynode"): [sample(1.25)],
        }
        table = goals.goal_table(samples)
        assert table is not None
        assert [row[-2:] for row in table.rows] == [["GET 1.00, SET 0.80", "≥ 0.9 missed"]]

    def test_less_is_better_for_p99_and_missing_commands_are_named(self) -> None:
        samples = {("GET", 1, "valkey"): [sample(p99=0.001)], ("GET", 1, "kevynode"): [sample(p99=0.0012)]}
        table = goals.goal_table(samples)
        assert table is not None
        assert table.rows[-1][-2:] == ["GET 1.20", "≤ 1.3 met (without SET, INCR)"]

    def test_there_is_no_table_without_a_rival(self) -> None:
        assert goals.goal_table({("GET", 16, "kevynode"): [sample()]}) is None

    def test_every_goal_is_about_what_is_compared_by_default(self) -> None:
        for goal in goals.GOALS:
            assert set(goal.commands) <= set(workloads.USUAL)
            assert {goal.server, goal.rival} <= set(servers.TARGETS)


def measured(cpu: float) -> compare.Report:
    """A report in which a GET costs the node so many µs, and valkey one."""
    made = make_report()
    theirs, mine = [sample(1.0)], [sample(cpu)]
    for name, taken in (("valkey", theirs), ("kevynode", mine)):
        made.rows.append(summarise("GET", 1, name, taken, theirs))
        made.samples["GET", 1, name] = taken
    return made


class TestAgainst:
    def run_file(self, folder: Path, made: compare.Report) -> Path:
        file = folder / "run.json"
        file.write_text(report.render_json(made))
        return file

    def test_changes_stand_beside_each_other_and_notable_ones_are_marked(self, tmp_path: Path) -> None:
        before = against.read_run(self.run_file(tmp_path, measured(2.0)))
        table = against.change_table(before, measured(1.6).rows, [])
        assert [row[2:6] + row[-1:] for row in table.rows] == [
            ["valkey", "1.00 → 1.00", "1.00 → 1.00", "+0%", ""],
            ["kevynode", "0.50 → 0.62", "2.00 → 1.60", "-20%", "better"],
        ]
        assert against.change_table(before, measured(2.5).rows, []).rows[1][-1] == "worse"

    def test_a_run_under_other_conditions_says_so(self, tmp_path: Path) -> None:
        before = against.read_run(self.run_file(tmp_path, measured(2.0)))
        now = measured(2.0)
        now.machine = {**now.machine, "python": "3.14"}
        now.servers = [VALKEY, servers.Running("kevynode", "h", 2, 2, "0.2")]
        text = report.render_report(now, markdown=True, before=before)
        assert "python was 3.11, is 3.14" in text
        assert "kevynode was 0.1, is 0.2" in text

    def test_runs_without_a_common_row_say_so(self, tmp_path: Path) -> None:
        before = against.read_run(self.run_file(tmp_path, make_report()))
        table = against.change_table(before, measured(1.0).rows, [])
        assert (table.rows, table.notes) == ([], ["the two runs have no row in common"])

    @pytest.mark.parametrize("text", ["", "[]", '{"format": 99, "results": []}', '{"format": 1}'])
    def test_what_is_no_run_file_is_refused(
        self, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "run.json"
        file.write_text(text)
        with pytest.raises(against.UnusableRun):
            against.read_run(file)
        assert comparing.main(["--generator", "own", "--against", str(file)]) == 1
        assert str(file) in capsys.readouterr().err

    def test_the_run_file_holds_what_was_withheld_apart(self) -> None:
        made = measured(1.0)
        made.withheld.append(made.rows.pop())
        document = json.loads(report.render_json(made))
        assert [row["server"] for row in document["results"]] == ["valkey"]
        assert [row["server"] for row in document["withheld"]] == ["kevynode"]


class TestChart:
    def test_bars_are_cut_off_and_what_has_no_ratio_has_none(self) -> None:
        rows = measured(0.1).rows
        value: Callable[[Row], float | None] = lambda row: row.cpu_ratio  # noqa: E731
        assert chart.bars(rows, value) == {"valkey": {"GET": 1.0}, "kevynode": {"GET": 3.0}}
        alone = [summarise("GET", 1, "kevynode", [sample()], None)]
        assert chart.bars(alone, value) == {}

    @pytest.mark.slow
    def test_it_is_a_png(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        chart.draw(measured(0.7).rows, "valkey", "title", tmp_path / "chart.png")
        assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")

    def test_without_matplotlib_it_says_so_before_it_measures(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert comparing.main(["--generator", "own", "--chart", "x.png"]) == 1
        assert "matplotlib" in capsys.readouterr().err


class TestCommandLine:
    @pytest.mark.parametrize("words", [[], ["--rounds", "1"], ["compare", "--rounds", "1"]])
    def test_compare_is_what_is_done_unless_something_else_is_named(self, words: list[str]) -> None:
        rest = [word for word in words if word != "compare"]
        assert command_line.choose(words) == ("bench.comparing", rest)

    def test_other_commands_get_the_words_behind_them(self) -> None:
        assert command_line.choose(["durability", "--json", "f"]) == ("bench.durability", ["--json", "f"])

    def test_help_and_mistakes_show_what_there_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command_line.main(["--help"]) == 0
        assert "compare" in capsys.readouterr().out
        assert command_line.main(["no-such-thing"]) == 2
        assert "compare" in capsys.readouterr().err

    def test_every_command_has_a_module(self) -> None:
        for module, _ in command_line.COMMANDS.values():
            assert (Path(command_line.__file__).parent / f"{module.removeprefix('bench.')}.py").is_file()
