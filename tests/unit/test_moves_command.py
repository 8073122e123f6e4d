"""MOVE-SCOPE and MOVE-SCOPE-INGEST: the exact texts, and what is understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.errors import ReplyError
from kevynode.reply import Status, encode
from kevynode.scope import move_command
from kevynode.scope.move_command import (
    AbortRequest,
    MoveRequest,
    ResolveRequest,
    Standing,
    StatusRequest,
    answer,
    check_ingest,
    check_move,
    parse_ingest,
    parse_move,
    status_reply,
)
from kevynode.scope.move_machine import MoveStatus
from kevynode.scope.moves import Outcome
from kevynode.store.rebuild import rebuild_commands
from kevynode.store.values import Set


def words(line: str) -> list[bytes]:
    return [word.encode() for word in line.split()]


def refusal(line: str) -> str:
    with pytest.raises(ReplyError) as caught:
        parse_move(words(line))
    return f"-{caught.value}"


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("MOVE-SCOPE app: FROM a TO b", MoveRequest(b"app:", "a", "b", 30.0, False)),
        ("move-scope app: from a to b force timeout 1500", MoveRequest(b"app:", "a", "b", 1.5, True)),
        ("MOVE-SCOPE app: FROM a TO b TIMEOUT 1", MoveRequest(b"app:", "a", "b", 0.001, False)),
        ("MOVE-SCOPE STATUS FROM a TO b", MoveRequest(b"STATUS", "a", "b")),
        ("MOVE-SCOPE status", StatusRequest(None)),
        ("MOVE-SCOPE STATUS app:", StatusRequest(b"app:")),
        ("MOVE-SCOPE ABORT app:", AbortRequest(b"app:")),
        ("MOVE-SCOPE resolve app: commit", ResolveRequest(b"app:", True)),
        ("MOVE-SCOPE RESOLVE app: ABORT", ResolveRequest(b"app:", False)),
    ],
)
def test_what_is_asked_for(line: str, request_: move_command.Request) -> None:
    assert parse_move(words(line)) == request_


ARITY = "-ERR wrong number of arguments — MOVE-SCOPE <prefix> FROM <from-id> TO <to-id>"
SYNTAX = "-ERR MOVE-SCOPE syntax: MOVE-SCOPE <prefix> FROM <from-id> TO <to-id>"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("MOVE-SCOPE", ARITY),
        ("MOVE-SCOPE app:", ARITY),
        ("MOVE-SCOPE app: FROM a TO", ARITY),
        ("MOVE-SCOPE ABORT", ARITY),
        ("MOVE-SCOPE RESOLVE app:", ARITY),
        ("MOVE-SCOPE STATUS a b", ARITY),
        ("MOVE-SCOPE app: TO a FROM b", SYNTAX),
        ("MOVE-SCOPE app: FROM a TO b NOW", SYNTAX),
        ("MOVE-SCOPE app: FROM a TO b FORCE FORCE", SYNTAX),
        ("MOVE-SCOPE app: FROM a TO b TIMEOUT", SYNTAX),
        ("MOVE-SCOPE app: FROM a TO b TIMEOUT 1 TIMEOUT 1", SYNTAX),
        ("MOVE-SCOPE app: FROM a TO b TIMEOUT 0", "-ERR MOVE-SCOPE: TIMEOUT takes milliseconds from 1 to 86400000"),
        ("MOVE-SCOPE app: FROM a TO b TIMEOUT x", "-ERR MOVE-SCOPE: TIMEOUT takes milliseconds from 1 to 86400000"),
        ("MOVE-SCOPE RESOLVE app: maybe", "-ERR MOVE-SCOPE syntax: MOVE-SCOPE RESOLVE <prefix> COMMIT|ABORT"),
    ],
)
def test_what_is_not_understood(line: str, error: str) -> None:
    assert refusal(line) == error


def test_ids_are_text() -> None:
    with pytest.raises(ReplyError, match="syntax"):
        parse_move([b"MOVE-SCOPE", b"app:", b"FROM", b"\xff", b"TO", b"b"])


GOOD = Standing("a", frozenset({"a", "b"}), {b"app:": "a", b"web:": "b"}, frozenset())


@pytest.mark.parametrize(
    ("request_", "standing", "error"),
    [
        (MoveRequest(b"app:", "b", "a"), GOOD, '-ERR MOVE-SCOPE: from-id "b" is not this node ("a")'),
        (MoveRequest(b"app:", 'b"\\\n', "a"), GOOD, '-ERR MOVE-SCOPE: from-id "b\\"\\\\\\u{a}" is not this node ("a")'),
        (MoveRequest(b"app:", "a", "zz"), GOOD, '-ERR MOVE-SCOPE: target node "zz" not in [cluster] peers'),
        (MoveRequest(b"app:", "a", "b"), Standing("", (), {}, ()),
         "-ERR MOVE-SCOPE: [cluster] node_id is not configured on this node"),
        (MoveRequest(b"app:", "a", "b"), Standing("a", ("a", "b"), {}, ()),
         "-ERR MOVE-SCOPE: no [cluster] scopes declared on this node — writes would not quiesce during the move"),
        (MoveRequest(b"app:", "a", "b"), Standing("a", ("b",), {b"app:": "a"}, (b"app:",)),
         "-ERR MOVE-SCOPE: migration for this prefix is already in flight"),
        (MoveRequest(b"web:", "a", "b"), GOOD, '-ERR MOVE-SCOPE: the writer of the prefix is "b", not this node ("a")'),
        (MoveRequest(b"web:", "a", "b"), Standing("a", ("b",), {b"web:": "b"}, (), (b"web:",)),
         "-ERR MOVE-SCOPE: prefix has already been migrated"),
        (MoveRequest(b"none:", "a", "b"), GOOD, "-ERR MOVE-SCOPE: prefix is not a declared scope"),
        (MoveRequest(b"app:", "a", "a"), GOOD, '-ERR MOVE-SCOPE: "a" is the writer of the prefix already'),
    ],
)  # fmt: skip
def test_why_a_move_does_not_begin(request_: MoveRequest, standing: Standing, error: str) -> None:
    with pytest.raises(ReplyError) as caught:
        check_move(request_, standing)
    assert f"-{caught.value}" == error


def test_a_move_that_may_begin() -> None:
    check_move(MoveRequest(b"app:", "a", "b"), GOOD)


def test_answers() -> None:
    assert answer(Outcome("moved", commands=12)) == Status(b"OK 12")
    failed = answer(Outcome("failed", "the disk is full"))
    assert encode(failed, 2) == b"-ERR MOVE-SCOPE ship failed: the disk is full\r\n"
    assert str(answer(Outcome("in doubt", "it goes on"))) == "ERR MOVE-SCOPE in doubt: it goes on"


def test_status() -> None:
    row = MoveStatus(b"app:", "m1", "source", "quiesced", "b", 4, True, 10, 20, 300, 0.0123, False, "x", 7)
    other = MoveStatus(b"web:", "m2", "target", "sealed", "c", 1, False, 0, 0, 0, 0.0, True)
    (only,) = status_reply([row, other], b"app:")
    assert only == {
        b"prefix": b"app:", b"move-id": b"m1", b"role": b"source", b"state": b"quiesced", b"peer": b"b", b"epoch": 4,
        b"following": 1, b"keys": 10, b"sent-keys": 7, b"commands": 20, b"bytes": 300, b"window-ms": 12,
        b"in-doubt": 0, b"detail": b"x",
    }  # fmt: skip
    assert [each[b"in-doubt"] for each in status_reply([row, other])] == [0, 1]
    assert encode(status_reply([row]), 2).startswith(b"*1\r\n*28\r\n$6\r\nprefix\r\n$4\r\napp:\r\n")


def bulk(*commands: list[bytes]) -> bytes:
    return b"".join(encode(each, 2) for each in commands)


def test_a_bulk_of_everything() -> None:
    commands = [
        [b"SET", b"app:1", b"v"],
        [b"pexpireat", b"app:1", b"5"],
        *rebuild_commands(b"app:2", Set.of([b"m"])),
        [b"XGROUP", b"CREATE", b"app:s", b"g", b"0-0", b"MKSTREAM"],
        [b"XGROUP", b"CREATECONSUMER", b"app:s", b"g", b"c"],
    ]
    request = parse_ingest([b"MOVE-SCOPE-INGEST", b"app:", bulk(*commands)])
    assert [key for key, _ in request.commands] == [b"app:1", b"app:1", b"app:2", b"app:s", b"app:s"]
    assert [each for _, each in request.commands] == commands
    assert parse_ingest([b"MOVE-SCOPE-INGEST", b"app:", b""]).commands == ()


MALFORMED = "-ERR MOVE-SCOPE-INGEST: malformed bulk"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"PING\r\n", MALFORMED),
        (b"*1\r\n$4\r\nPING\r\n", MALFORMED),
        (bulk([b"SET", b"app:1", b"v"])[:-1], MALFORMED),
        (bulk([b"SET", b"app:1", b"v"]) + b"\r\n", MALFORMED),
        (b"*3\r\n$3\r\nSET\r\n$99999999999\r\n", MALFORMED),
        (b"*99999999999\r\n", MALFORMED),
        (bulk([b"SET", b"app:1"]), MALFORMED),
        (bulk([b"SET", b"web:1", b"v"]),
         "-ERR MOVE-SCOPE-INGEST: key 'web:1' refused by this node: ERR it is not under the prefix app:"),
        (bulk([b"DEL", b"app:1", b"web:1"]),
         "-ERR MOVE-SCOPE-INGEST: key 'app:1' refused by this node: ERR unknown command 'DEL'"),
        (bulk([b"XGROUP", b"DESTROY", b"app:1", b"g"]),
         "-ERR MOVE-SCOPE-INGEST: key 'DESTROY' refused by this node: ERR unknown command 'XGROUP'"),
    ],
)  # fmt: skip
def test_a_bad_bulk_is_refused_as_a_whole(data: bytes, error: str) -> None:
    with pytest.raises(ReplyError) as caught:
        parse_ingest([b"MOVE-SCOPE-INGEST", b"app:", data])
    assert f"-{caught.value}" == error


@given(st.binary(max_size=60))
def test_junk_is_refused_or_understood(data: bytes) -> None:
    refused = "ERR MOVE-SCOPE-INGEST: "
    try:
        parse_ingest([b"MOVE-SCOPE-INGEST", b"", data])
    except ReplyError as error:
        refused = str(error)
    assert refused.startswith("ERR MOVE-SCOPE-INGEST: ")


@pytest.mark.parametrize("argv", [[], [b"app:"], [b"app:", b"", b""]])
def test_an_ingest_has_two_arguments(argv: list[bytes]) -> None:
    with pytest.raises(ReplyError) as caught:
        parse_ingest([b"MOVE-SCOPE-INGEST", *argv])
    assert str(caught.value) == "ERR wrong number of arguments — MOVE-SCOPE-INGEST <prefix> <bulk>"


def test_only_kevy_peers_may_send_what_they_own() -> None:
    owners = {b"app:": "k", b"web:": "b"}
    check_ingest(b"app:", owners, {"k"}, moving=False)
    for prefix, moving, text in [
        (b"none:", False, "not a declared scope"),
        (b"app:", True, "already in flight"),
        (b"web:", False, '"b", the writer of the prefix, is no peer of kind kevy'),
    ]:
        with pytest.raises(ReplyError, match=text):
            check_ingest(prefix, owners, {"k"}, moving)
