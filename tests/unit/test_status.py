"""What ``kevynode status`` makes of the scopes in the INFO of a node."""

from __future__ import annotations

import json

import pytest
from support.session_harness import ServerHarness

from kevynode import cli
from kevynode.probe import parse_info
from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.ownership import Ownership
from kevynode.serve.info import info_text
from kevynode.status import Sections, moves, scopes, tables

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

    monkeypatch.setattr(cli, "connect", lambda _: Node())
    assert cli.main(["status", "h:1"]) == 0
    assert "! the file says a" in capsys.readouterr().out
    assert cli.main(["status", "--json", "h:1"]) == 0
    [state] = json.loads(capsys.readouterr().out)
    assert [scope["prefix"] for scope in state["scopes"]] == ["app:", "mail:", "own:", "web:"]
    assert state["scopes"][0]["warning"] == "the file says a"
