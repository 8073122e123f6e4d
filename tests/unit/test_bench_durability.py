"""The pure parts of the durability measurements."""

import importlib.util
import os
import sys
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

from bench import durability, machine, suite, workloads  # noqa: E402
from bench import durability_figures as figures  # noqa: E402
from bench import durability_live as live  # noqa: E402
from bench import durability_servers as servers  # noqa: E402
from bench.figures import Turn  # noqa: E402
from bench.measuring import Failed  # noqa: E402
from bench.servers import Unavailable  # noqa: E402

BARE = figures.Setup("kevynode", "none")
EVERYSEC = figures.Setup("kevynode", "everysec")
ALWAYS = figures.Setup("kevynode", "always")
VALKEY_ALWAYS = figures.Setup("valkey", "always")


def turn(throughput: float, cost: float = 1e-6) -> Turn:
    """One round of two seconds."""
    requests = int(throughput * 2)
    return Turn(requests, 2.0, cost * requests, 0.01)


class TestSpeed:
    def test_everysec_is_compared_with_the_same_server_without_a_file(self) -> None:
        assert figures.rival(EVERYSEC) == BARE
        assert figures.rival(figures.Setup("valkey", "everysec")) == figures.Setup("valkey", "none")

    def test_always_and_no_file_are_compared_with_valkey(self) -> None:
        assert figures.rival(ALWAYS) == VALKEY_ALWAYS
        assert figures.rival(BARE) == figures.Setup("valkey", "none")
        assert figures.rival(VALKEY_ALWAYS) is None

    def test_ratios_are_taken_round_by_round(self) -> None:
        mine = [turn(100_000, 2e-6), turn(90_000, 2e-6), turn(50_000, 4e-6)]
        others = {BARE: [turn(100_000), turn(100_000), turn(100_000)], EVERYSEC: mine}
        row = figures.speed(EVERYSEC, 16, mine, others)
        assert row.throughput_ratio == pytest.approx(0.9)
        assert row.cpu_ratio == pytest.approx(0.5)
        assert row.throughput == 90_000
        assert row.cost == pytest.approx(2e-6)
        assert row.against == BARE

    def test_without_anything_to_compare_with_there_is_no_ratio(self) -> None:
        for setup in (ALWAYS, VALKEY_ALWAYS):
            row = figures.speed(setup, 1, [turn(10)], {setup: [turn(10)]})
            assert (row.against, row.throughput_ratio, row.cpu_ratio) == (None, None, None)

    def test_targets_stand_where_they_are_set(self) -> None:
        others = {BARE: [turn(100)], EVERYSEC: [turn(79)], ALWAYS: [turn(50)], VALKEY_ALWAYS: [turn(100)]}
        speeds = [figures.speed(setup, depth, taken, others) for depth in (1, 16) for setup, taken in others.items()]
        table = figures.speed_table(speeds, "note")
        target = table.columns.index("target")
        assert [row[target] for row in table.rows] == [""] * 5 + ["≥ 0.8 missed", "≥ 0.5 met", ""]
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert table.rows[5][5] == "kevynode none"


class TestLoading:
    def test_ratio_is_taken_for_each_form_of_files(self) -> None:
        loads = [
            figures.Loading(kind, form, 2 << 20, seconds, seconds * 0.9)
            for form, times in (("written", (3.0, 1.0)), ("rewritten", (7.0, 1.0)))
            for _ in range(3)
            for kind, seconds in zip(("kevynode", "valkey"), times, strict=True)
        ]
        table = figures.load_table(loads, 1000, "valkey")
        ratio = table.columns.index("÷ valkey")
        assert [row[:2] + row[ratio:] for row in table.rows] == [
            ["kevynode", "written", "3.0", "≤ 6 met"],
            ["valkey", "written", "–", ""],
            ["kevynode", "rewritten", "7.0", "≤ 6 missed"],
            ["valkey", "rewritten", "–", ""],
        ]
        assert table.rows[0][2:7] == ["2.0", "3", "3.00", "2.70", "333"]

    def test_one_server_alone_has_no_ratio(self) -> None:
        row = figures.load_table([figures.Loading("kevynode", "written", 1, 1.0, 1.0)], 10, "valkey").rows[0]
        assert row[-2:] == ["–", "–"]


def rewritten(kind: str, busy: tuple[float, ...]) -> figures.Rewritten:
    return figures.Rewritten(kind, 1.5, 3 << 20, (0.001,), busy, 10.0, 9.0, 0.02)


class TestRewrites:
    def test_replies_of_all_rounds_count_together(self) -> None:
        rounds = [rewritten("kevynode", (0.001,) * 999), rewritten("kevynode", (0.2, 0.03)), rewritten("valkey", ())]
        rows = figures.stall_table(rounds, realtime=True).rows
        assert rows[1] == ["kevynode", "during", "1.00", "1.00", "30.00", "200.00", "1,001", "p99.9 ≤ 25 missed"]
        assert rows[0][-1] == rows[2][-1] == ""
        assert rows[3] == ["valkey", "during", *["–"] * 5, ""]

    def test_a_probe_without_priority_is_told(self) -> None:
        assert figures.stall_table([rewritten("valkey", (0.1,))], realtime=False).notes

    def test_table_has_a_row_for_each_server(self) -> None:
        table = figures.rewrite_table([rewritten("kevynode", ()), rewritten("valkey", ()), rewritten("kevynode", ())])
        assert table.rows == [
            ["kevynode", "2", "1.50", "3.0", "10", "9", "2%"],
            ["valkey", "1", "1.50", "3.0", "10", "9", "2%"],
        ]


class TestWindow:
    def test_the_worst_is_judged(self) -> None:
        windows = [
            figures.Window(EVERYSEC, 10.0, (0.5, 1.9), 0, 0.0),
            figures.Window(EVERYSEC, 10.0, (0.5, 2.1), 0, 0.0),
            figures.Window(EVERYSEC, 10.0, (0.5,), 1, 0.0),
            figures.Window(figures.Setup("valkey", "everysec"), 10.0, (0.5, 5.0), 0, 0.0),
            figures.Window(EVERYSEC, 10.0, (), 3, 0.0),
        ]
        table = figures.window_table(windows)
        target = table.columns.index("target")
        assert [row[target] for row in table.rows] == ["max s ≤ 2 met", "max s ≤ 2 missed", "max s ≤ 2 missed", "", ""]
        assert [row[target - 1] for row in table.rows] == ["0", "0", "1", "0", "3"]
        assert all(len(row) == len(table.columns) for row in table.rows)


class TestCommandLine:
    def test_defaults_are_every_part(self) -> None:
        options = durability.SUITE.options_of(durability.build_parser().parse_args([]))
        assert options.parts == ("throughput", "load", "rewrite", "loss")
        assert (options.servers, options.policies) == (("kevynode", "valkey"), ("none", "everysec", "always"))
        assert (options.depths, options.connections, options.keys) == ((1, 16), 50, 1_000_000)

    def test_names_run_in_their_order(self) -> None:
        words = ["--parts", "Rewrite, load", "--policies", "always,none", "--servers", "kevynode"]
        options = durability.SUITE.options_of(durability.build_parser().parse_args(words))
        assert (options.parts, options.policies) == (("load", "rewrite"), ("none", "always"))
        assert live.setups_of(options) == [BARE, ALWAYS]

    @pytest.mark.parametrize(
        "words",
        [
            ["--parts", "speed"],
            ["--policies", "sometimes"],
            ["--depths", "0"],
            ["--rounds", "0"],
            ["--seconds", "nan"],
            ["--keys", "many"],
        ],
    )
    def test_wrong_arguments_are_refused(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            durability.build_parser().parse_args(words)
        assert raised.value.code == 2
        assert words[0] in capsys.readouterr().err

    def test_report_names_what_failed(self) -> None:
        options = durability.SUITE.options_of(durability.build_parser().parse_args([]))
        facts: dict[str, str | int] = {"processor": "P", "cores": 2, "kernel": "6", "python": "3.11"}
        table = figures.rewrite_table([rewritten("kevynode", ())])
        run = suite.Run(options, machine.Cores(1, 0), facts, [table], problems=["load: reason"])
        for markdown in (False, True):
            text = suite.render(durability.SUITE, run, markdown)
            assert "servers on core 1" in text
            assert "A rewrite" in text
            assert text.endswith("! load: reason\n")


class TestServers:
    def command(self, setup: figures.Setup, directory: Path) -> list[str]:
        try:
            return servers.command(setup, directory, 1234)
        except Unavailable as missing:
            pytest.skip(str(missing))

    @pytest.mark.parametrize("kind", ["kevynode", "valkey"])
    def test_a_policy_is_told_to_the_server(self, kind: str, tmp_path: Path) -> None:
        directory = tmp_path / "data"
        directory.mkdir()
        bare = self.command(figures.Setup(kind, "none"), directory)
        kept = self.command(figures.Setup(kind, "always"), directory)
        if kind == "valkey":
            assert kept == [*bare, "--appendonly", "yes", "--appendfsync", "always"]
        else:
            assert "--no-aof" in bare
            assert "--no-aof" not in kept
            text = Path(kept[kept.index("--config") + 1]).read_text(encoding="utf-8")
            assert text == servers.configuration("always")

    def test_configuration_file_holds_the_policy(self) -> None:
        assert servers.configuration("everysec").splitlines() == [
            "[persistence]",
            "aof = true",
            'appendfsync = "everysec"',
        ]

    def test_folder_of_a_process_is_found_by_what_it_has_open(self, tmp_path: Path) -> None:
        folder = tmp_path / servers.FOLDER
        folder.mkdir()
        with pytest.raises(Failed, match="no append-only file"):
            servers.data_folder(os.getpid())
        with (folder / "one").open("wb") as file:
            file.write(b"12345")
            file.flush()
            assert servers.data_folder(os.getpid()) == folder
            assert servers.folder_size(folder) == 5


class TestLoad:
    def test_every_small_key_is_set_once(self) -> None:
        commands = list(live.small_keys(300))
        assert [command[0] for command in commands] == ["SET"] * 300
        assert len({command[1] for command in commands}) == 300
        assert commands[7][1:] == [workloads.STRING_PREFIX + workloads.number(7), workloads.number(7)]
