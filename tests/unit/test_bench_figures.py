"""The measurements beside the comparison: their arithmetic, their command lines, and the pieces that talk to a peer."""

import contextlib
import io
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkout import load_bench

load_bench()

from bench import (  # noqa: E402
    apply,
    apply_primary,
    idle,
    idle_clients,
    local,
    local_work,
    machine,
    memory,
    memory_figures,
    sink,
    snapshot_work,
    start,
    start_work,
    suite,
)
from bench.figures import Turn  # noqa: E402
from bench.measuring import Failed  # noqa: E402
from bench.suite import Run  # noqa: E402
from bench.tables import Figure, render_text  # noqa: E402
from bench.workloads import VALUE  # noqa: E402
from kevynode.replicate.handshake import CAPABILITIES, Form, HandshakeParser, Request, format_request  # noqa: E402
from kevynode.replicate.stream_decoder import StreamDecoder  # noqa: E402
from kevynode.replicate.wire import Frames, ack  # noqa: E402

MIB = 1 << 20


def turn(throughput: float, cost: float = 1e-6, foreign: float = 0.0) -> Turn:
    """One round of a second."""
    return Turn(int(throughput), 1.0, cost * throughput, foreign)


def facts(figure: Figure) -> tuple[str, bool | None]:
    """What was measured, and the verdict."""
    return figure.measured, figure.reached


class TestIdle:
    def test_memory_is_shared_out_among_the_connections(self) -> None:
        assert idle.Crowded("kevynode", 1000, 10 * MIB, 15 * MIB).each == pytest.approx(5.12)

    def test_loss_is_the_median_of_the_rounds_ratios(self) -> None:
        alone = [turn(1000, 1e-6), turn(500, 1e-6, foreign=0.2), turn(1000, 1e-6)]
        crowded = [turn(900, 2e-6), turn(475, 1.25e-6), turn(800, 1e-6)]
        found = idle.loss("kevynode", 16, alone, crowded)
        assert [found.throughput, found.cpu, found.foreign] == pytest.approx([0.9, 0.8, 0.2])

    def test_figures_are_of_the_node_and_its_worst_depth(self) -> None:
        crowds = [idle.Crowded("valkey", 100, 0, 900 * 1024), idle.Crowded("kevynode", 100, 0, 600 * 1024)]
        losses = [idle.Loss("kevynode", 1, 0.95, 1.0, 0.0), idle.Loss("kevynode", 16, 0.88, 1.0, 0.0)]
        losses.append(idle.Loss("valkey", 1, 0.5, 1.0, 0.0))
        assert [facts(each) for each in idle.figures(crowds, losses, 100)] == [
            ("6.00 KiB", False),
            ("12.0% at depth 16", False),
        ]
        assert [each.reached for each in idle.figures([], [], 100)] == [None, None]
        for table in idle.tables(crowds, losses, idle.SUITE.options_of(idle.build_parser().parse_args([]))):
            assert "kevynode" in render_text(table)

    def test_servers_are_told_to_let_them_all_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bench.servers._valkey_binary", lambda: "valkey-server")
        assert idle.command("valkey", 11_000, tmp_path, 1)[-2:] == ["--maxclients", "11000"]
        words = idle.command("kevynode", 11_000, tmp_path, 1)
        assert Path(words[words.index("--config") + 1]).read_text() == "[server]\nmaxclients = 11000\n"

    def test_the_crowd_asks_once_each_and_counts_what_the_server_has_closed(self) -> None:
        control, end = os.pipe()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closing = threading.Event()
            thread = threading.Thread(target=self._one_by_one, args=(listener, end, closing))
            thread.start()
            crowd = idle_clients.Crowd("127.0.0.1", listener.getsockname()[1], 3)
            held = idle_clients.hold(crowd, control)
            closing.set()
            thread.join()
        os.close(control)
        assert held == idle_clients.Held(3, 1)

    @staticmethod
    def _one_by_one(listener: socket.socket, end: int, closing: threading.Event) -> None:
        peers = []
        for _ in range(3):
            peer = listener.accept()[0]
            assert peer.recv(100) == b"*1\r\n$4\r\nPING\r\n"
            peer.sendall(b"+PONG\r\n")
            peers.append(peer)
        peers.pop(1).close()
        os.close(end)
        closing.wait()
        for peer in peers:
            peer.close()

    def test_too_few_descriptors_are_said_beforehand(self) -> None:
        with pytest.raises(idle_clients.TooFew, match="hard limit"):
            idle_clients.raise_limit(1 << 40)


class TestMemory:
    def test_a_node_is_held_against_valkey(self) -> None:
        found = [
            memory_figures.Filled("kevynode", 1000, MIB, 5 * MIB),
            memory_figures.Filled("valkey", 1000, MIB, 2 * MIB),
        ]
        assert facts(memory_figures.memory_figure(found, 1000)) == ("2.50 ×", False)
        assert memory_figures.memory_table(found).rows[0] == ["kevynode", "1.0", "5.0", "4,194", "2.50"]
        assert memory_figures.memory_figure(found[:1], 1000).reached is None
        assert memory_figures.memory_table(found[:1]).rows[0][-1] == "–"

    def test_each_twin_has_its_own_target(self) -> None:
        encoded = [
            snapshot_work.Encoded((0.5, 0.4, 0.6), MIB, "compiled"),
            snapshot_work.Encoded((0.5, 0.4, 0.6), MIB, "pure"),
        ]
        figures = memory_figures.encoding_figures(encoded, 1000)
        assert [facts(each) for each in figures] == [("0.50 s", False), ("0.50 s", True)]
        assert [each.reached for each in memory_figures.encoding_figures(encoded[1:], 1000)] == [None, True]

    def test_the_median_round_decides_about_pauses(self) -> None:
        rounds = [
            memory_figures.Pauses((0.001,), (0.001, worst), 1.0, 10_000, False, foreign)
            for worst, foreign in ((0.0015, 0.0), (0.5, 0.3), (0.0019, 0.0))
        ]
        figure = memory_figures.pause_figure(rounds)
        assert (facts(figure), figure.foreign) == (("1.9 ms", True), 0.3)
        assert len(memory_figures.pause_table(rounds).rows) == 6
        assert memory_figures.pause_table(rounds).notes
        assert memory_figures.pause_figure([]).reached is None

    def test_shipments_stand_beside_what_is_only_written(self) -> None:
        shipped = [memory_figures.Shipped("form", 2.0, cpu, 3 * MIB, 0.0) for cpu in (0.7, 0.5, 0.6)]
        table = memory_figures.encoding_table([snapshot_work.Encoded((0.4,), MIB, "pure")], shipped)
        assert table.rows[0] == ["pure, written only", "0.40", "0.40", "–", "1", "–"]
        assert table.rows[1] == ["over the network, form", "0.60", "0.50", "2.00", "3", "0%"]

    def test_snapshots_are_really_written(self) -> None:
        encoded = snapshot_work.encode(snapshot_work.Encoding(500, 2, 0, True))
        assert len(encoded.cpu) == 2
        assert encoded.size > 500 * 64


class TestStart:
    def test_what_counts_is_beyond_the_bare_interpreter_of_the_same_round(self) -> None:
        times = start.beyond("m", [0.050, 0.090, 0.070], [0.030, 0.050, 0.060])
        assert times.median == pytest.approx(20)
        assert facts(start.import_figure(times, 0.0)) == ("20.0 ms", True)
        assert facts(start.ready_figure(start.Times("n", (0.5,)), 0.0)) == ("500.0 ms", False)
        assert start.ready_figure().reached is None

    def test_importing_and_starting_are_timed_in_processes(self) -> None:
        core = machine.choose_cores(os.sched_getaffinity(0)).server
        assert start_work.time_import(None, core, {}) > 0
        with pytest.raises(Failed, match="no_such_module"):
            start_work.time_import("no_such_module", core, {})

    def test_the_ready_line_is_waited_for(self) -> None:
        read, write = os.pipe()
        with open(write, "wb") as output:
            output.write(b"a warning\nkevynode ready id=n client=127.0.0.1:7000\n")
        assert start_work.await_ready(read, "kevynode") > 0
        with pytest.raises(Failed, match="ended before it was ready"):
            start_work.await_ready(read, "kevynode")
        os.close(read)


class TestLocal:
    def test_the_ratio_is_the_median_of_the_rounds(self) -> None:
        reading = local.Reading((1e-6, 2e-6, 1e-6), (300e-6, 400e-6, 150e-6))
        assert facts(local.figure(reading, 0.0)) == ("200 ×", True)
        assert local.table(reading, "valkey 9").rows[0] == ["node.get in the program", "1.000", "1.000", "2.000"]

    def test_reads_are_checked_and_counted(self) -> None:
        took = local_work.time_reads({"k": VALUE}.get, ["k"], 0.001)
        assert took.calls >= local_work.CALLS_AT_ONCE
        with pytest.raises(ValueError, match="'k' has the value None"):
            local_work.time_reads(lambda key: None, ["k"], 0.001)

    def test_a_node_is_read_inside(self) -> None:
        assert local_work.inside(local_work.Reads("inside", 0, 0.001)).calls > 0


class Peer:
    """The other end of a connection, which runs in a thread and whose failure is the test's."""

    def __init__(self, work: Callable[[socket.socket], None]) -> None:
        self.ours, self._theirs = socket.socketpair()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,))

    def _run(self, work: Callable[[socket.socket], None]) -> None:
        try:
            with self._theirs:
                work(self._theirs)
        except BaseException as error:
            self._failure = error

    def __enter__(self) -> socket.socket:
        self.ours.settimeout(30)
        self._thread.start()
        return self.ours

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


class TestApply:
    def test_frames_follow_each_other_from_the_first_offset(self) -> None:
        decoder = StreamDecoder()
        events = decoder.feed(apply_primary.make_frames(5000))
        commands = 0
        for event in events:
            assert isinstance(event, Frames)
            assert event.first == 1 + commands
            commands += len(event.commands)
        assert commands == 5000

    def test_a_replica_is_greeted_and_its_position_awaited(self) -> None:
        def replica(sock: socket.socket) -> None:
            request = Request(Form.EXTENDED, 0, 0, "r", frozenset(CAPABILITIES))
            sock.sendall(format_request(request))
            got = b""
            while b"+ACKREQ\r\n" not in got:
                got += sock.recv(4096)
            assert got.startswith(b"+ACK 7 0\r\n+CAPA 3 ")
            assert b"+SNAPSHOT\r\n" in got
            assert b"+SNAPSHOT_END 1\r\n" in got
            sock.sendall(ack(1) + ack(5)[:7])
            sock.sendall(ack(5)[7:])

        with Peer(replica) as sock:
            it = apply_primary.Replica(sock)
            it.greet()
            it.await_position(5)

    def test_a_replica_of_another_kind_is_refused(self) -> None:
        def replica(sock: socket.socket) -> None:
            sock.sendall(format_request(Request(Form.SIX, 0, 0, "r")))

        with Peer(replica) as sock, pytest.raises(apply_primary.ApplyFailed, match="no kevynode"):
            apply_primary.Replica(sock).greet()

    def test_a_replica_that_leaves_is_a_failure(self) -> None:
        with Peer(lambda sock: None) as sock, pytest.raises((apply_primary.ApplyFailed, OSError)):
            apply_primary.Replica(sock).await_position(5)

    def test_both_ends_are_compared_by_their_cpu(self) -> None:
        applied = apply.rate([turn(1_200_000, 0.5e-6), turn(900_000, 0.5e-6), turn(1_100_000, 0.4e-6)])
        produced = apply.rate([turn(500_000, 1e-6)])
        assert [facts(each) for each in apply.figures(applied, produced)] == [
            ("1,100,000 a second", True),
            ("2.00", True),
        ]
        assert [each.reached for each in apply.figures(applied, None)] == [True, None]
        assert apply.table(applied, produced).rows[0][0] == "replica applies"


class TestSink:
    def test_the_handshake_is_one_that_a_primary_reads(self) -> None:
        request = HandshakeParser().feed(sink.handshake(sink.CAPABILITIES))
        assert request is not None
        assert (request.form, request.capabilities) == (Form.EXTENDED, frozenset(sink.CAPABILITIES))
        plain = HandshakeParser().feed(sink.handshake(()))
        assert plain is not None
        assert plain.form is Form.SIX

    def test_the_end_of_a_snapshot_is_found_wherever_it_is_cut(self) -> None:
        text = b"+ACK 7 1\r\n+SNAPSHOT\r\n" + b"x" * 100 + b"+SNAPSHOT_END 5\r\n"

        def primary(sock: socket.socket) -> None:
            for place in range(0, len(text), 9):
                sock.sendall(text[place : place + 9])

        with Peer(primary) as sock:
            assert len(text) - 9 <= sink.take_snapshot(sock) <= len(text)
            # The end may be found before the last piece has been sent.
            while sock.recv(64):
                pass

    @pytest.mark.parametrize("text", [b"-ERR no\r\n", b"+ACK 7 1\r\n+SNAPSHOT\r\n"])
    def test_a_refusal_or_an_early_end_is_a_failure(self, text: bytes) -> None:
        with Peer(lambda sock: sock.sendall(text)) as sock, pytest.raises(sink.SinkError):
            sink.take_snapshot(sock)

    def test_a_stream_is_counted_until_the_input_ends(self) -> None:
        control, end = os.pipe()

        def primary() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"+ACK 7 1\r\n+SNAPSHOT_END 1\r\n")
                peer.sendall(b"y" * 3_000_000)
                os.close(end)
                with contextlib.suppress(ConnectionResetError):
                    peer.recv(1)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=primary)
            thread.start()
            drained = sink.drain(sink.Sink("127.0.0.1", listener.getsockname()[1]), control)
            thread.join()
        os.close(control)
        assert drained.began <= drained.complete
        # What came with the end of the snapshot is counted there.
        assert drained.snapshot + drained.stream == len(b"+ACK 7 1\r\n+SNAPSHOT_END 1\r\n") + 3_000_000


SUITES: dict[str, suite.Suite[Any]] = {
    "idle": idle.SUITE,
    "memory": memory.SUITE,
    "local": local.SUITE,
    "start": start.SUITE,
    "apply": apply.SUITE,
}


@pytest.mark.parametrize("name", list(SUITES))
def test_figures_that_came_to_nothing_are_in_the_report(name: str) -> None:
    it = SUITES[name]
    options = it.options_of(it.build_parser().parse_args([]))
    run = Run(options, machine.Cores(1, 0), {"processor": "P", "cores": 2, "kernel": "6", "python": "3.11"})
    it.finish(run)
    assert run.figures
    text = suite.render(it, run, markdown=False)
    assert text.count("not measured") == len(run.figures)


def test_a_task_reaches_its_process_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f'{{"keys": 10, "rounds": 1, "core": {core}, "pure": true}}\n'))
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setenv("KEVYNODE_PURE", "")
    assert snapshot_work.main() == 0
    assert '"parts"' in capsys.readouterr().out
