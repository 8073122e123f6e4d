"""``kevynode move-scope``: whom it asks, what it shows meanwhile, how it ends, and what Ctrl-C comes to.

The nodes are stand-ins, whose every answer is a function's: it runs in a thread of its own and may wait.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from support.told_nodes import OK, PATIENCE, ToldNode, array, nodes, row

from kevynode import cli_move
from kevynode.cli import main
from kevynode.scope.source_move import SourceState
from kevynode.scope.target_move import TargetState


def words(line: str) -> list[bytes]:
    return line.encode().split()


def press_ctrl_c() -> None:
    """What a terminal sends."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


# -- a move -----------------------------------------------------------------------------------------------------------


def test_a_move_ends_with_what_it_came_to(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b") as [a, b]:
        figures = {"keys": 1234, "commands": 1300, "bytes": 3072, "window_ms": 17}
        a.rows = lambda looks: (
            array(row(move_id="m0")) if looks == 1 else array(row(move_id="m0"), row(state="done", **figures))
        )
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 0
        assert a.moves == [words("MOVE-SCOPE x: FROM a TO b")]
        assert b.asked == []
    captured = capsys.readouterr()
    assert captured.out == (
        "scope x: moved from a to b: 1,234 keys, 1,300 commands of 3.00K shipped, writes waited for 17 ms\n"
    )
    assert captured.err == ""


def test_a_move_to_a_copy_ships_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b") as [a, _]:
        a.rows = lambda looks: array() if looks == 1 else array(row(keys=1, commands=0, bytes=0, window_ms=3))
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 0
    assert capsys.readouterr().out == "scope x: moved from a to b: 1 key, nothing to ship, writes waited for 3 ms\n"


def test_what_is_wanted_of_a_move_is_passed_on() -> None:
    with nodes("a", "b") as [a, _]:
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address, "--timeout", "1.5", "--force"]) == 0
        assert a.moves == [words("MOVE-SCOPE x: FROM a TO b TIMEOUT 1500 FORCE")]


def test_any_node_is_asked_who_writes_the_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b", "c") as [a, b, c]:
        # It has not heard yet what b knows.
        c.owner = "b"
        assert main(["move-scope", "x:", "--to", "c", "--at", c.address]) == 0
        assert a.moves == [words("MOVE-SCOPE x: FROM a TO c")]
        assert b.moves == c.moves == []
        assert capsys.readouterr().err == f"scope x: is written by a at {a.address}\n"


def test_who_writes_it_already_need_not_be_given_it(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b") as [a, b]:
        assert main(["move-scope", "x:", "--to", "a", "--at", b.address]) == 0
        assert a.moves == b.moves == []
    assert capsys.readouterr().out == "scope x: is written by a already\n"


def test_a_prefix_that_is_not_declared_is_the_nodes_to_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b") as [a, _]:
        a.script = lambda _: b"-ERR MOVE-SCOPE: prefix is not a declared scope\r\n"
        assert main(["move-scope", "y:", "--to", "a", "--at", a.address]) == 1
        assert a.moves == [words("MOVE-SCOPE y: FROM a TO a")]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "kevynode: ERR MOVE-SCOPE: prefix is not a declared scope\n")


def test_a_prefix_is_found_as_info_spells_it() -> None:
    with nodes("a", "b") as [a, b]:
        for node in a, b:
            node.prefix = "a;b:c?"
        assert main(["move-scope", "a,b=c\x01", "--to", "b", "--at", b.address]) == 0
        assert a.moves == [[b"MOVE-SCOPE", b"a,b=c\x01", b"FROM", b"a", b"TO", b"b"]]


@pytest.mark.parametrize(
    ("owners", "others", "expected"),
    [
        ("bab", {}, "the nodes do not agree yet who writes it: a, b name others"),
        ("zab", {}, "says that z writes it, and knows no address of z"),
        ("bbb", {"b": "c"}, "should be b, and is c"),
    ],
)
def test_nodes_that_lead_nowhere(
    owners: str, others: dict[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with nodes("a", "b", "c") as found:
        for node, owner in zip(found, owners, strict=True):
            node.owner = owner
        by_id = {node.node_id: node.address for node in found}
        found[0].others |= {name: by_id[place] for name, place in others.items()}
        assert main(["move-scope", "x:", "--to", "c", "--at", found[0].address]) == 1
        assert [node.moves for node in found] == [[], [], []]
    assert expected in capsys.readouterr().err


def test_a_node_without_an_id_writes_no_scope(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("") as [a]:
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 1
        assert capsys.readouterr().err == f"kevynode: {a.address} has no cluster.node_id, so it writes no scope\n"


def test_a_move_that_fails_has_changed_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b") as [a, _]:
        a.script = lambda _: b"-ERR MOVE-SCOPE ship failed: b refused: it is loading its data\r\n"
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 1
    assert capsys.readouterr().err == "kevynode: ERR MOVE-SCOPE ship failed: b refused: it is loading its data\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            b"-ERR MOVE-SCOPE in doubt: the move is decided\r\n",
            "kevynode: ERR MOVE-SCOPE in doubt: the move is decided",
        ),
        (None, "closed the connection; it is not known what became of the move"),
        (b"what?\r\n", "does not speak the Redis protocol; it is not known what became of the move"),
    ],
)
def test_what_nobody_knows_yet_is_no_failure(
    answer: bytes | None, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with nodes("a", "b") as [a, b]:
        a.script = lambda _: answer
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 3
        captured = capsys.readouterr()
        assert expected in captured.err
        assert f"kevynode move-scope x: --status --at {b.address}\n" in captured.err
        assert captured.out == ""


# -- meanwhile --------------------------------------------------------------------------------------------------------


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def until_seen(node: ToldNode, looks: int, rows: Callable[[int], bytes]) -> None:
    """Have a node answer a move only when its state has been looked at so often."""
    seen = threading.Event()

    def answer(count: int) -> bytes:
        if count >= looks:
            seen.set()
        return rows(count)

    def wait(_: list[bytes]) -> bytes:
        assert seen.wait(PATIENCE)
        return OK

    node.rows, node.script = answer, wait


def states(look: int) -> bytes:
    """A move that is a step further at each look."""
    if look == 1:
        return array(row(move_id="m0", state="done"))
    steps = [
        row(state="asking"),
        row(state="quiesced", keys=1500, sent_keys=300, bytes=1024, window_ms=1234),
        row(state="flipped", keys=1500, bytes=2048, window_ms=2345, in_doubt=1),
    ]
    return array(row(move_id="m0", state="done"), row(role="target", move_id="m9"), steps[min(look - 2, 2)])


def test_a_terminal_is_shown_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stderr", terminal)
    with nodes("a", "b") as [a, _]:
        until_seen(a, 5, states)
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 0
    lines = [line.rstrip() for line in terminal.getvalue().split("\r") if line.strip()]
    assert lines[0] == "scope x: to b [..............................]   0% asking"
    assert lines[1].endswith("20% handing over, 300 of 1,500 keys, 1.00K, writes wait for 1.2 s")
    assert lines[2].endswith("64% decided, 1,500 keys, 2.00K, writes wait for 2.3 s, in doubt")
    # The line is empty in the end.
    assert terminal.getvalue().endswith(" \r")


def test_without_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_move, "_LINE", 0.0)
    with nodes("a", "b") as [a, _]:
        until_seen(a, 4, states)
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "scope x: to b: asking",
        "scope x: to b: handing over, 300 of 1,500 keys, 1.00K, writes wait for 1.2 s",
    ]


@pytest.mark.parametrize("failing", [b"-LOADING not now\r\n", None])
def test_a_move_goes_on_though_nothing_can_be_shown(failing: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    with nodes("a", "b") as [a, _]:
        until_seen(a, 2, lambda look: array() if look == 1 else failing)  # type: ignore[arg-type,return-value]
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 0


def test_every_state_of_a_move_has_a_name_for_people() -> None:
    called_off = {"aborting", "aborted", "closing", "closed", "failed"}
    assert set(cli_move.STEPS) == {state.value for state in SourceState} - called_off
    percents = [percent for _, percent in cli_move.STEPS.values()]
    assert percents == sorted(percents)
    assert {state.value for state in TargetState} >= cli_move._SETTLED


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C counts, also where the tests were started in the background of a script, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted:
    """A node that is asked for a move, at which Ctrl-C is pressed; ``abort`` answers the call that ends it."""

    def __init__(self, node: ToldNode, abort: Callable[[Interrupted], bytes | None]) -> None:
        self.ends = threading.Event()
        self.answer: bytes | None = b"-ERR MOVE-SCOPE ship failed: aborted by an operator\r\n"
        self.aborts = 0
        self._abort = abort
        node.script = self._script

    def _script(self, words: list[bytes]) -> bytes | None:
        if words[1] == b"ABORT":
            self.aborts += 1
            return self._abort(self)
        press_ctrl_c()
        assert self.ends.wait(PATIENCE)
        return self.answer

    def end(self, answer: bytes | None) -> None:
        """Answer the move."""
        self.answer = answer
        self.ends.set()


def test_ctrl_c_calls_the_move_off(capsys: pytest.CaptureFixture[str]) -> None:
    def abort(state: Interrupted) -> bytes:
        state.ends.set()
        return b"+OK\r\n"

    with nodes("a", "b") as [a, _]:
        Interrupted(a, abort)
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 130
        assert a.moves[-1] == words("MOVE-SCOPE ABORT x:")
    captured = capsys.readouterr()
    assert captured.out == "scope x: stays with a: the move was called off\n"
    assert captured.err == "Calling the move off; Ctrl-C once more leaves it to itself.\n"


def test_ctrl_c_may_be_faster_than_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    def abort(state: Interrupted) -> bytes:
        if state.aborts < 3:
            return b"-ERR MOVE-SCOPE: no move of this prefix from here is in flight\r\n"
        state.ends.set()
        return b"+OK\r\n"

    with nodes("a", "b") as [a, _]:
        state = Interrupted(a, abort)
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 130
        assert state.aborts == 3
    assert "called off" in capsys.readouterr().out


def test_ctrl_c_behind_the_decision_waits_for_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    def abort(state: Interrupted) -> bytes:
        state.end(OK)
        return b"-ERR MOVE-SCOPE: the move is decided; it can only go forward\r\n"

    with nodes("a", "b") as [a, _]:
        Interrupted(a, abort)
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 0
    captured = capsys.readouterr()
    assert captured.out == "scope x: moved from a to b\n"
    assert "It cannot be called off: ERR MOVE-SCOPE: the move is decided; it can only go forward\n" in captured.err


def test_ctrl_c_twice_leaves_the_move_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    def abort(state: Interrupted) -> bytes:
        press_ctrl_c()
        assert state.ends.wait(PATIENCE)
        return b"+OK\r\n"

    with nodes("a", "b") as [a, b]:
        state = Interrupted(a, abort)
        try:
            assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 130
        finally:
            state.ends.set()
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.endswith(
            f"The move goes on at a; how it ends is told by\n    kevynode move-scope x: --status --at {b.address}\n"
        )


def test_ctrl_c_at_a_node_that_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    def abort(state: Interrupted) -> None:
        state.end(None)

    with nodes("a", "b") as [a, _]:
        Interrupted(a, abort)
        assert main(["move-scope", "x:", "--to", "b", "--at", a.address]) == 3
    assert "it is not known what became of the move" in capsys.readouterr().err


# -- what else there is to do of a move -------------------------------------------------------------------------------


def test_the_moves_that_the_nodes_know_of_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b", "c") as [a, b, c]:
        c.owner = None
        a.rows = lambda _: array(row(state="flipped", keys=7, bytes=2048, window_ms=40, in_doubt=1, detail="odd\x1b"))
        b.rows = lambda _: array(row(role="target", peer="a", state="sealed", keys=7, window_ms=0))
        assert main(["move-scope", "x:", "--at", b.address, "--status"]) == 0
        addresses = {node.node_id: node.address for node in (a, b, c)}
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        "NODE ID WRITER ROLE WITH STATE EPOCH KEYS SHIPPED WINDOW ! DETAIL".split(),
        [addresses["b"], *"b a target a sealed 1 7 0B - - -".split()],
        [addresses["a"], *"a a source b flipped 1 7 2.00K 40 ms ! in doubt odd?".split()],
        [addresses["c"], *"c - - - - - - - - - -".split()],
    ]


def test_a_node_that_does_not_answer_is_said_beside_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b") as [a, _]:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            a.others["c"] = f"127.0.0.1:{closed.getsockname()[1]}"
        assert main(["move-scope", "x:", "--at", a.address, "--status"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert captured.err == f"kevynode: cannot connect to {a.others['c']}: Connection refused\n"


def test_a_move_is_called_off_at_the_node_that_writes(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b") as [a, b]:
        assert main(["move-scope", "x:", "--at", b.address, "--abort"]) == 0
        assert (a.moves, b.moves) == ([words("MOVE-SCOPE ABORT x:")], [])
        assert capsys.readouterr().out == "scope x: stays with a: the move was called off\n"
        a.script = lambda _: b"-ERR MOVE-SCOPE: no move of this prefix from here is in flight\r\n"
        assert main(["move-scope", "x:", "--at", b.address, "--abort"]) == 1
    assert capsys.readouterr().err == "kevynode: ERR MOVE-SCOPE: no move of this prefix from here is in flight\n"


@pytest.mark.parametrize(
    ("decision", "line"),
    [
        ("commit", "is written by b: the move was decided by hand"),
        ("abort", "was dropped by b: the move was decided by hand"),
    ],
)
def test_a_move_is_decided_at_its_target(decision: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b", "c") as [a, b, c]:
        a.rows = lambda _: array(row(role="target", state="discarded"))
        b.rows = lambda _: array(row(role="target", state="active"), row(role="target", state="sealed", in_doubt=1))
        assert main(["move-scope", "x:", "--at", c.address, "--resolve", decision]) == 0
        assert b.moves == [words(f"MOVE-SCOPE RESOLVE x: {decision.upper()}")]
        assert a.moves == c.moves == []
    assert capsys.readouterr().out == f"scope x: {line}\n"


def test_where_no_move_is_to_be_decided_the_node_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with nodes("a", "b") as [_, b]:
        b.script = lambda _: b"-ERR MOVE-SCOPE: no move of this prefix to here is in doubt\r\n"
        assert main(["move-scope", "x:", "--at", b.address, "--resolve", "commit"]) == 1
        assert b.moves == [words("MOVE-SCOPE RESOLVE x: COMMIT")]
    assert capsys.readouterr().err == "kevynode: ERR MOVE-SCOPE: no move of this prefix to here is in doubt\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--to b --status", "not allowed with argument"),
        ("--status --force", "--timeout and --force go with --to"),
        ("--abort --timeout 3", "--timeout and --force go with --to"),
        ("--resolve perhaps", "invalid choice"),
        ("--force", "one of the arguments --to --status --abort --resolve is required"),
        ("--to b --timeout 0", "argument --timeout: '0' is no number of seconds above 0, and at most 86400"),
        ("--to b --timeout=-1", "argument --timeout: '-1' is no number of seconds above 0, and at most 86400"),
        ("--to b --timeout nan", "argument --timeout: 'nan' is no number of seconds above 0, and at most 86400"),
        ("--to b --timeout inf", "argument --timeout: 'inf' is no number of seconds above 0, and at most 86400"),
        ("--to b --timeout x", "argument --timeout: 'x' is no number of seconds above 0, and at most 86400"),
    ],
)
def test_wrong_use(arguments: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["move-scope", "x:", *arguments.split()])
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err
