"""What ``kevynode status`` makes of the scopes in the INFO of a node."""

from __future__ import annotations

import json

import pytest
from support.session_harness import ServerHarness

from kevynode import cli_commands
from kevynode.cli import main
from kevynode.probe import parse_info
from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.ownership import Ownership
from kevynode.serve.info import info_text
from kevynode.status import Sections, moves, peers, scopes, tables

SCOPES = (
    Scope(b"app:", "a"),
    Scope(b"mail:", "a", fallback="b"),
    Scope(b"own:", "a"),
    Scope(b"web:", "b", fallback="c"),
)


def table_of(*told: tuple[str, Sections]) -> list[dict[str, str]]:
    """The rows of the table of scopes by their headings."""
    [(heading, *rows)] = [table for table in tables(told) if "SCOPE" in table[0]]
    return [dict(zip(heading, row, strict=True)) for row in rows]


@pytest.fixture
def ownership() -> Ownership:
    return Ownership("a", OwnershipTable(SCOPES), {"a": "h:1", "b": "h:2", "c": "h:3"})


def told_by(ownership: Ownership, *sections: str) -> str:
    node = ServerHarness()
    node.server.ownership = ownership
    return info_text(node.server, sections)


def test_a_row_for_each_scope_as_each_node_sees_it(ownership: Ownership) -> None:
    ownership.close(b"app:", "b, c to say what copy they hold")
    ownership.quiesce(b"own:", "b")
    sections = parse_info(told_by(ownership))
    rows = table_of(("h:1", sections), ("h:2", {}), ("h:3", sections))
    assert [row["NODE"] for row in rows] == ["h:1"] * 4 + ["h:3"] * 4
    assert [(row["SCOPE"], row["STATE"], row["WAITS FOR"]) for row in rows[:4]] == [
        ("app:", "waiting", "b; c to say what copy they hold"),
        ("mail:", "open", "-"),
        ("own:", "quiesced", "its move to b"),
        ("web:", "elsewhere", "-"),
    ]
    assert [(row["FILE"], row["OWNER"], row["EPOCH"], row["FALLBACK"], row["!"]) for row in rows[:4]] == [
        ("a", "a", "0", "-", "-"),
        ("a", "a", "0", "b", "-"),
        ("a", "a", "0", "-", "-"),
        ("b", "b", "0", "c", "-"),
    ]


def test_what_differs_from_the_file_is_marked(ownership: Ownership) -> None:
    ownership.set_owner(b"app:", "c", 7)
    ownership.set_owner(b"mail:", "b", 3)
    ownership.set_owner(b"web:", "b", 12)
    rows = table_of(("h:1", parse_info(told_by(ownership))))
    assert {row["SCOPE"]: (row["FILE"], row["OWNER"], row["EPOCH"], row["!"]) for row in rows} == {
        "app:": ("a", "c", "7", "! the file says a"),
        "mail:": ("a", "b", "3", "! the file says a; written by its fallback, so it has none"),
        "own:": ("a", "a", "0", "-"),
        "web:": ("b", "b", "12", "-"),
    }


def test_how_many_scopes_a_node_owns_is_in_its_row(ownership: Ownership) -> None:
    sections = parse_info(told_by(ownership))
    [nodes, _] = tables([("h:1", sections), ("h:2", {})])
    assert [row[nodes[0].index("SCOPES")] for row in nodes[1:]] == ["3", "-"]


def test_values_for_programs() -> None:
    ownership = Ownership("1", OwnershipTable([Scope(b"12", "1", fallback="2"), Scope(b"app:", "1")]), {})
    ownership.set_owner(b"12", "2", 4)
    first, second = scopes(parse_info(told_by(ownership, "scopes")))
    # Prefixes and ids are text, though they may look like numbers.
    assert (first["prefix"], first["owner"], first["writer"], first["fallback"], first["epoch"]) == (
        *("12", "2", "1", "2"),
        4,
    )
    assert "warning" in first
    assert second == {"prefix": "app:", "owner": "1", "epoch": 0, "state": "open", "writer": "1"}


def test_the_scope_of_every_key(ownership: Ownership) -> None:
    everything = Ownership("a", OwnershipTable([Scope(b"", "a")]), {})
    [row] = table_of(("h:1", parse_info(told_by(everything))))
    assert (row["SCOPE"], row["OWNER"]) == ('""', "a")


def test_moves_have_a_table_of_their_own() -> None:
    sections = parse_info(
        "# Scopes\r\n"
        "move0:prefix=app:,id=1-a,role=source,state=quiesced,peer=7,epoch=4,keys=12,in_doubt=0\r\n"
        "move1:prefix=,id=2-a,role=target,state=sealed,peer=c,epoch=5,keys=0,in_doubt=1\r\n"
    )
    [moved] = [table for table in tables([("h:1", sections)]) if "MOVE" in table[0]]
    assert [" ".join(row) for row in moved] == [
        "NODE MOVE ROLE WITH STATE EPOCH KEYS !",
        "h:1 app: source 7 quiesced 4 12 -",
        'h:1 "" target c sealed 5 0 ! in doubt',
    ]
    assert [(move["peer"], move["epoch"], move["in_doubt"]) for move in moves(sections)] == [("7", 4, 0), ("c", 5, 1)]


PEERS = (
    "# Scopes\r\n"
    "peer0:id=7,kind=kevynode,address=h:16002,client=h:6002,link=up,link_seconds=9,heard_ms=250,state=serving,"
    "ledger=equal,configuration=equal,copied=2,missing=0,copying=connected,lag_frames=3,lag_ms=90\r\n"
    "peer1:id=c,kind=kevynode,address=h:16003,client=h:6003,link=down,link_seconds=4,copied=2,missing=1,"
    "copying=connect,lag_frames=0,problem=h:16003: cannot connect: refused\r\n"
    "peer2:id=d,kind=kevynode,address=h:16004,client=h:6004,link=up,link_seconds=0,heard_ms=0,state=waiting,"
    "ledger=differs,configuration=differs,copied=0,missing=0,copying=connected,lag_frames=0,lag_ms=5\r\n"
    "peer3:id=e,kind=kevy,address=h:16005,client=h:6005,link=none,heard_ms=10,copied=1,missing=0,copying=sync,"
    "lag_frames=0\r\n"
)


def test_the_other_nodes_have_a_table_of_their_own() -> None:
    [known] = [table for table in tables([("h:1", parse_info(PEERS))]) if "PEER" in table[0]]
    assert known == [
        ["NODE", "PEER", "AT", "LINK", "HEARD", "STATE", "LEDGER", "CONFIG", "COPIES", "LAG", "AGE", "!", "PROBLEM"],
        ["h:1", "7", "h:6002", "up 9 s", "250 ms", "serving", "equal", "equal", "2", "3 frames", "90 ms", "-", "-"],
        [
            *("h:1", "c", "h:6003", "down 4 s", "-", "-", "-", "-", "2, 1 missing", "0 frames", "-"),
            *("! no link; 1 of 2 copies are not whole", "h:16003: cannot connect: refused"),
        ],
        [
            *("h:1", "d", "h:6004", "up 0 s", "0 ms", "waiting", "differs", "differs", "0", "-", "-"),
            *("! its ledger and configuration differ", "-"),
        ],
        ["h:1", "e", "h:6005", "none", "10 ms", "-", "-", "-", "1", "0 frames", "-", "-", "-"],
    ]


def test_the_other_nodes_are_values_for_programs() -> None:
    found = peers(parse_info(PEERS))
    assert [(peer["id"], peer["link"], "warning" in peer) for peer in found] == [
        ("7", "up", False),
        ("c", "down", True),
        ("d", "up", True),
        ("e", "none", False),
    ]
    assert (found[0]["heard_ms"], found[0]["lag_ms"]) == (250, 90)


@pytest.mark.parametrize(
    ("copy", "warning"),
    [
        ("whole", "-"),
        ("none", "-"),
        ("missing", "! its copy here is not whole"),
        ("unreachable", "! nobody knows where its owner is, so there is no copy here"),
    ],
)
def test_how_it_is_with_a_copy_is_in_the_row_of_its_scope(copy: str, warning: str) -> None:
    line = f"scope0:prefix=b:,owner=b,epoch=0,state=elsewhere,writer=b,copy={copy}"
    [row] = table_of(("h:1", parse_info(f"# Scopes\r\n{line}\r\n")))
    assert (row["COPY"], row["!"]) == (copy, warning)


def test_a_node_without_scopes_has_no_table_of_them() -> None:
    sections = parse_info(info_text(ServerHarness().server, ()))
    assert scopes(sections) == []
    assert all("SCOPE" not in table[0] for table in tables([("h:1", sections)]))


def test_what_a_node_says_reaches_no_terminal_as_it_is() -> None:
    sections = parse_info("# Scopes\r\nscope0:prefix=a\x1b[31m,owner=x\x9b,state=\t\r\nscope1:\r\n")
    rows = table_of(("h:1", sections))
    assert [(row["SCOPE"], row["OWNER"], row["STATE"]) for row in rows] == [("a?[31m", "x?", "?"), ("-", "-", "-")]


def test_scopes_are_printed_and_in_the_json(
    ownership: Ownership, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ownership.set_owner(b"app:", "c", 7)
    text = told_by(ownership)

    class Node:
        def __enter__(self) -> Node:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def call(self, *words: bytes) -> bytes:
            assert words == (b"INFO",)
            return text.encode()

    monkeypatch.setattr(cli_commands, "connect", lambda _: Node())
    assert main(["status", "h:1"]) == 0
    assert "! the file says a" in capsys.readouterr().out
    assert main(["status", "--json", "h:1"]) == 0
    [state] = json.loads(capsys.readouterr().out)
    assert [scope["prefix"] for scope in state["scopes"]] == ["app:", "mail:", "own:", "web:"]
    assert state["scopes"][0]["warning"] == "the file says a"
    assert state["peers"] == []
