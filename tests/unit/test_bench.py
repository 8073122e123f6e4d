"""The pure parts of bench/, and its load generator against a server that answers from a script."""

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkout import load_bench

load_bench()

from bench import client, compare, figures, generator, machine, redis_benchmark, report, servers, workloads  # noqa: E402
from bench.comparing import build_parser  # noqa: E402


def sample(
    *, throughput: float = 1000.0, server_cpu: float = 0.5, generator_cpu: float = 0.5, foreign: float = 0.0
) -> figures.Sample:
    """One second of a run with these figures."""
    return figures.Sample(
        requests=int(throughput),
        elapsed=1.0,
        server_cpu=server_cpu,
        generator_cpu=generator_cpu,
        p50=0.001,
        p99=0.002,
        foreign=foreign,
    )


class TestFigures:
    @pytest.mark.parametrize(
        ("values", "share", "expected"),
        [
            ([7.0], 0.5, 7.0),
            ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
            ([1.0, 2.0, 3.0], 0.5, 2.0),
            ([1.0, 2.0, 3.0, 4.0], 0.0, 1.0),
            ([1.0, 2.0, 3.0, 4.0], 1.0, 4.0),
            ([float(i) for i in range(1, 101)], 0.99, 99.0),
            ([float(i) for i in range(1, 1001)], 0.99, 990.0),
        ],
    )
    def test_percentile_is_the_nearest_rank(self, values: list[float], share: float, expected: float) -> None:
        assert figures.percentile(values, share) == expected

    def test_percentile_of_nothing_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no values"):
            figures.percentile([], 0.5)

    @given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.5, 0.9, 0.99]))
    def test_percentile_is_not_exceeded_by_its_share(self, values: list[float], share: float) -> None:
        ordered = sorted(values)
        found = figures.percentile(ordered, share)
        assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-9
        assert sum(value < found for value in ordered) < share * len(ordered)

    def test_row_holds_medians_and_ratios_of_the_same_round(self) -> None:
        # The second round was slow for both: the ratio of that round is as good as any other.
        mine = [sample(throughput=t, server_cpu=1.0) for t in (500, 100, 600)]
        theirs = [sample(throughput=t, server_cpu=0.5) for t in (1000, 200, 1000)]
        row = figures.summarise("GET", 1, "kevynode", mine, theirs)
        assert row.throughput == 500
        assert row.throughput_ratio == pytest.approx(0.5)
        assert row.cpu_per_command == pytest.approx(1.0 / 500)
        assert row.cpu_ratio == pytest.approx(0.25)
        assert row.spread == pytest.approx(1.0)

    def test_row_without_a_baseline_has_no_ratios(self) -> None:
        row = figures.summarise("GET", 1, "kevynode", [sample()], None)
        assert row.throughput_ratio is None
        assert row.cpu_ratio is None

    @pytest.mark.parametrize(
        ("server_cpu", "generator_cpu", "limited"), [(0.7, 0.99, True), (0.99, 0.99, False), (0.7, 0.7, False)]
    )
    def test_row_says_when_the_generator_is_the_limit(
        self, server_cpu: float, generator_cpu: float, limited: bool
    ) -> None:
        row = figures.summarise("GET", 1, "a", [sample(server_cpu=server_cpu, generator_cpu=generator_cpu)], None)
        assert row.generator_limited is limited

    @pytest.mark.parametrize(("foreign", "disturbed"), [(0.05, False), (0.10, False), (0.11, True)])
    def test_row_says_when_it_was_disturbed(self, foreign: float, disturbed: bool) -> None:
        assert figures.summarise("GET", 1, "a", [sample(foreign=foreign)], None).disturbed is disturbed


class TestWorkloads:
    def test_request_is_an_array_of_bulk_strings(self) -> None:
        assert workloads.encode_request(["SET", "k", "é"]) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\xc3\xa9\r\n"

    def test_every_random_number_is_drawn_for_itself(self) -> None:
        class Counting:
            def __init__(self) -> None:
                self.next = 0

            def randrange(self, start: int, /) -> int:
                self.next += 1
                return self.next

        filled = workloads.fill_in(["ZADD", workloads.RANDOM, "m:" + workloads.RANDOM], Counting())
        assert filled == ["ZADD", "000000000001", "m:000000000002"]

    @pytest.mark.parametrize("depth", [1, 16, 100])
    def test_batches_hold_depth_requests_and_repeat_for_a_seed(self, depth: int) -> None:
        arguments = workloads.WORKLOADS["SET"].arguments
        batches = workloads.build_batches(arguments, depth, seed=3)
        assert batches == workloads.build_batches(arguments, depth, seed=3)
        assert batches != workloads.build_batches(arguments, depth, seed=4)
        assert len(batches) >= 16
        assert {batch.count(b"*3\r\n$3\r\nSET\r\n") for batch in batches} == {depth}

    @given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(1, 7))
    def test_replies_are_counted_wherever_the_stream_is_cut(self, kinds: list[int], step: int) -> None:
        replies = [(b"+OK\r\n", 1), (b"$4\r\nabcd\r\n", 2), (b"*1\r\n$1\r\nx\r\n", 3)]
        stream = b"".join(replies[kind][0] for kind in kinds)
        counted = sum(
            workloads.count_line_ends(part + b"\n\n", len(part))
            for part in (stream[start : start + step] for start in range(0, len(stream), step))
        )
        assert counted == sum(replies[kind][1] for kind in kinds)

    def test_values_have_no_line_end_and_64_bytes(self) -> None:
        assert len(workloads.VALUE) == 64
        assert "\n" not in workloads.VALUE

    def test_list_for_pops_holds_an_element_per_pop(self) -> None:
        commands = list(workloads.WORKLOADS["LPOP"].before(1234))
        assert commands[0] == ["DEL", workloads.LIST_KEY]
        assert sum(len(argv) - 2 for argv in commands[1:]) == 1234

    def test_clean_up_deletes_every_key_a_workload_fills_and_only_those(self) -> None:
        deleted = {key for argv in workloads.clean_up() for key in argv[1:]}
        touched = set()
        for workload in workloads.WORKLOADS.values():
            touched |= {argv[1] for argv in [*workload.fill(), *workload.before(3)]}
        assert touched <= deleted
        assert all(key.startswith("bench:") for key in deleted)


class TestRedisBenchmark:
    TASK = generator.Task("127.0.0.1", 7000, 50, 16, 8000, ["SET", "k:__rand_int__", "v"], 1)
    HEADING = '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms"\n'

    def test_command_line_asks_for_the_task(self) -> None:
        words = redis_benchmark.command_line("/bin/redis-benchmark", self.TASK)
        assert words[0] == "/bin/redis-benchmark"
        assert words[-4:] == ["--csv", "SET", "k:__rand_int__", "v"]
        options = dict(zip(words[1:-4:2], words[2:-4:2], strict=True))
        assert options == {"-h": "127.0.0.1", "-p": "7000", "-c": "50", "-n": "8000", "-P": "16", "-r": "10000"}

    def test_outcome_comes_from_the_row_of_the_command(self) -> None:
        text = (
            "WARNING: Could not fetch server CONFIG\n"
            + self.HEADING
            + '"PING","1.0","1","1","1","1","1"\n"SET k:__rand_int__ v","4000.00","0.4","0.1","0.319","1.0","1.5"\n'
        )
        outcome = redis_benchmark.read_outcome(text, self.TASK, cpu=0.25)
        assert (outcome.requests, outcome.elapsed, outcome.cpu) == (8000, 2.0, 0.25)
        assert (outcome.p50, outcome.p99) == pytest.approx((0.000319, 0.0015))

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "no heading"),
            ('"test","rps"\n"GET","1.0"\n', "no row for"),
            ('"test","rps"\n"SET k:__rand_int__ v","1.0"\n', "no column 'p50_latency_ms'"),
            (HEADING + '"SET k:__rand_int__ v","0.00","0","0","0","0","0"\n', "counted no requests"),
        ],
    )
    def test_output_without_what_is_needed_is_refused(self, text: str, complaint: str) -> None:
        with pytest.raises(redis_benchmark.UnreadableOutput, match=complaint):
            redis_benchmark.read_outcome(text, self.TASK, cpu=0.0)


class TestMachine:
    STAT = (
        "cpu  100 0 100 900 0 0 0 0 0 0\n"
        "cpu0 10 1 20 500 7 2 3 4 9 9\n"
        "cpu1 5 0 5 500 0 0 0 0 0 0\n"
        "intr 12345 1 2\nctxt 99\n"
    )

    def test_busy_is_all_but_idle_and_disk(self) -> None:
        assert machine.parse_core_times(self.STAT) == {0: 10 + 1 + 20 + 2 + 3 + 4, 1: 10}

    def test_servers_and_load_get_different_cores_where_there_are_two(self) -> None:
        assert machine.choose_cores({0, 1, 5}) == machine.Cores(server=5, generator=0)
        assert machine.choose_cores({2}).shared

    def test_foreign_load_is_that_of_the_busier_core(self) -> None:
        second = machine.TICKS_PER_SECOND
        before, after = {0: 0, 1: 0}, {0: 2 * second, 1: second}
        assert machine.foreign_share(before, after, 2.0, {0: 1.0, 1: 0.9}) == pytest.approx(0.5)
        assert machine.foreign_share(before, after, 2.0, {1: 1.2}) == 0.0

    def test_cpu_clock_of_a_process_counts_its_work(self) -> None:
        before = machine.process_cpu(os.getpid())
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        assert machine.process_cpu(os.getpid()) - before >= 0.019

    def test_listener_is_found_by_its_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert machine.listening_pid(listener.getsockname()[1]) == os.getpid()


class TestReadyLine:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("", None),
            ("kevynode ready id=n client=127.0.0.1:70", None),  # the rest of the line is still to come
            ("a warning\nkevynode ready id=n client=127.0.0.1:7000 replication=127.0.0.1:17000\n", ("127.0.0.1", 7000)),
            ("kevynode ready id=n client=[::1]:7000 replication=[::1]:17000\n", ("::1", 7000)),
            ("client=127.0.0.1:7000\n", None),
        ],
    )
    def test_address_is_taken_from_the_complete_line(self, text: str, address: tuple[str, int] | None) -> None:
        assert servers.find_address(text) == address


class TestRounds:
    @staticmethod
    def _servers(count: int) -> list[servers.Running]:
        return [servers.Running(str(number), "h", 1, 1, "v") for number in range(count)]

    def test_every_server_goes_first_in_turn(self) -> None:
        trio = self._servers(3)
        orders = [[server.name for server in compare.rotated(trio, number)] for number in range(4)]
        assert orders == [["0", "1", "2"], ["1", "2", "0"], ["2", "0", "1"], ["0", "1", "2"]]
        assert compare.rotated([], 5) == []

    def test_size_grows_until_a_run_is_long_enough_to_judge(self) -> None:
        assert compare.next_size(5000, 0.01, 1.0, 50) == (100_000, False)
        assert compare.next_size(5000, 0.2, 1.0, 50) == (25_000, False)
        assert compare.next_size(5000, 0.5, 1.0, 50) == (10_000, True)

    def test_size_is_whole_batches_and_at_least_one(self) -> None:
        assert compare.next_size(5000, 50.0, 1.0, 5000) == (5000, True)
        assert compare.next_size(5000, 0.3, 1.0, 1600) == (16_000, True)


def make_report() -> compare.Report:
    """A report of two servers and one command, with marks in the second row."""
    options = compare.Options(("valkey", "kevynode"), ("GET",), (1,), 50, 1, 1.0, "own")
    made = compare.Report(
        options,
        machine.Cores(1, 0),
        {"processor": "P", "cores": 2, "kernel": "6", "python": "3.11"},
        servers=[servers.Running("valkey", "h", 1, 1, "9.1"), servers.Running("kevynode", "h", 2, 2, "0.1")],
        baseline="valkey",
    )
    base = [sample(throughput=100_000, server_cpu=0.8)]
    other = [sample(throughput=50_000, server_cpu=0.8, generator_cpu=0.99, foreign=0.2)]
    for name, samples in (("valkey", base), ("kevynode", other)):
        made.rows.append(figures.summarise("GET", 1, name, samples, base))
        made.samples["GET", 1, name] = samples
    return made


class TestReport:
    def test_text_table_is_aligned(self) -> None:
        lines = report.render_text(make_report().rows).splitlines()
        assert [line.split()[:5] for line in lines[1:]] == [
            ["GET", "1", "valkey", "100,000", "1.00"],
            ["GET", "1", "kevynode", "50,000", "0.50"],
        ]
        assert lines[1].split()[5:] == ["8.00", "1.00", "1.000", "2.000", "1.00", "0%", "80%", "50%", "0%"]
        assert lines[2].split()[-1] == "LF"
        column = lines[0].index("commands/s") + len("commands/s")
        assert [line[:column].split()[-1] for line in lines[1:]] == ["100,000", "50,000"]

    def test_markdown_table_has_as_many_cells_in_every_line(self) -> None:
        lines = report.render_markdown(make_report().rows).splitlines()
        assert len(lines) == 4
        assert len({line.count("|") for line in lines}) == 1

    def test_marks_are_explained_only_where_they_stand(self) -> None:
        made = make_report()
        made.warnings.append("redis is left out: reason")
        explained = report.notes(made)
        assert [note.split(":")[0] for note in explained] == ["redis is left out", "L", "F"]
        assert "20%" in explained[2]
        made.rows.pop()
        assert report.notes(made) == ["redis is left out: reason"]

    @pytest.mark.parametrize("markdown", [False, True])
    def test_report_says_versions_and_generator(self, markdown: bool) -> None:
        text = report.render_report(make_report(), markdown)
        assert "valkey 9.1, kevynode 0.1" in text
        assert "our own generator, 50 connections" in text
        assert text.endswith("\n")

    def test_missing_ratio_is_a_dash(self) -> None:
        row = figures.summarise("GET", 1, "kevynode", [sample()], None)
        assert report.cells([row])[0][4] == "–"

    def test_run_file_holds_medians_and_rounds(self) -> None:
        document = json.loads(report.render_json(make_report()))
        assert document["format"] == 1
        assert document["servers"] == [{"name": "valkey", "version": "9.1"}, {"name": "kevynode", "version": "0.1"}]
        second = document["results"][1]
        assert (second["server"], second["throughput_ratio"]) == ("kevynode", 0.5)
        assert second["rounds"][0]["requests"] == 50_000


class TestCommandLine:
    def test_defaults_are_the_whole_comparison(self) -> None:
        arguments = build_parser().parse_args([])
        assert arguments.commands == ("GET", "SET", "INCR", "HSET", "LPUSH", "SADD", "ZADD", "MGET", "LRANGE")
        assert (arguments.depths, arguments.connections, arguments.rounds) == ((1, 16, 100), 50, 5)

    def test_lists_are_read_in_any_case(self) -> None:
        arguments = build_parser().parse_args(
            ["--servers", "valkey,port:7000", "--commands", "lpush/LPOP,get", "--depths", "4,4"]
        )
        assert arguments.servers == ("valkey", "port:7000")
        assert arguments.commands == ("LPUSH", "LPOP", "GET")
        assert arguments.depths == (4,)

    @pytest.mark.parametrize(
        "words",
        [
            ["--servers", "memcached"],
            ["--servers", "port:x"],
            ["--commands", "port:7000"],
            ["--commands", ","],
            ["--depths", "0"],
            ["--seconds", "nan"],
            ["--rounds", "-1"],
        ],
    )
    def test_wrong_arguments_are_refused(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            build_parser().parse_args(words)
        assert raised.value.code == 2
        assert words[0] in capsys.readouterr().err


@contextlib.contextmanager
def scripted_server(reply: bytes, request_size: int, connections: int) -> Iterator[int]:
    """A loopback server that answers every ``request_size`` bytes with ``reply``, in pieces of 3 bytes and the rest."""

    def serve(client_socket: socket.socket) -> None:
        received = 0
        with client_socket, contextlib.suppress(ConnectionError):  # the client may leave at any time
            while data := client_socket.recv(4096):
                received += len(data)
                answers = reply * (received // request_size)
                received %= request_size
                client_socket.sendall(answers[:3])
                client_socket.sendall(answers[3:])

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


class TestGenerator:
    ARGUMENTS: Sequence[str] = ("GET", "k:" + workloads.RANDOM)
    SIZE = len(workloads.encode_request(workloads.fill_in(ARGUMENTS, random.Random(1))))

    def _task(self, port: int, *, requests: int, depth: int, line_ends: int) -> generator.Task:
        return generator.Task("127.0.0.1", port, 3, depth, requests, list(self.ARGUMENTS), line_ends)

    def test_counts_every_reply_of_whole_batches(self) -> None:
        with scripted_server(b"$3\r\nabc\r\n", self.SIZE, connections=3) as port:
            outcome = generator.run(self._task(port, requests=95, depth=10, line_ends=2))
        assert outcome.requests == 100
        assert 0 < outcome.p50 <= outcome.p99 <= outcome.elapsed

    def test_never_opens_more_connections_than_batches(self) -> None:
        with scripted_server(b"+OK\r\n", self.SIZE, connections=2) as port:
            assert generator.run(self._task(port, requests=2, depth=1, line_ends=1)).requests == 2

    def test_error_reply_ends_the_run_with_its_text(self) -> None:
        with (
            scripted_server(b"-ERR unknown command\r\n", self.SIZE, connections=1) as port,
            pytest.raises(generator.GeneratorError, match="-ER"),
        ):
            generator.run(self._task(port, requests=1, depth=1, line_ends=1))

    def test_more_replies_than_requests_end_the_run(self) -> None:
        with (
            scripted_server(b"+OK\r\n+OK\r\n", self.SIZE, connections=1) as port,
            pytest.raises(generator.GeneratorError, match="more than was asked"),
        ):
            generator.run(self._task(port, requests=1, depth=1, line_ends=1))


class TestClient:
    def test_runs_commands_in_chunks_and_raises_error_replies(self) -> None:
        size = len(workloads.encode_request(["PING"]))
        with scripted_server(b"+PONG\r\n", size, connections=1) as port, client.Connection("127.0.0.1", port) as it:
            assert it.run(["PING"] for _ in range(20_000)) == 20_000
            assert it.call("PING") == b"PONG"
        with (
            scripted_server(b"-ERR no\r\n", size, connections=1) as port,
            client.Connection("127.0.0.1", port) as it,
            pytest.raises(client.ServerError, match="ERR no"),
        ):
            it.call("PING")

    def test_nested_reply(self) -> None:
        size = len(workloads.encode_request(["PING"]))
        reply = b"*4\r\n:7\r\n$-1\r\n$2\r\n\r\n\r\n*-1\r\n"
        with scripted_server(reply, size, connections=1) as port, client.Connection("127.0.0.1", port) as it:
            assert it.call("PING") == [7, None, b"\r\n", None]

    def test_info_fields(self) -> None:
        text = b"# Server\r\nredis_version:7.2.4\r\n\r\nos:Linux 6:1\r\n"
        assert client.parse_info(text) == {"redis_version": "7.2.4", "os": "Linux 6:1"}
