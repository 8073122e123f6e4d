"""COMMAND: the table as clients see it."""

from __future__ import annotations

import pytest
from support.session_harness import ServerHarness

from kevynode.reply import Pairs
from kevynode.serve.command_docs import Argument, parse_arguments, parse_syntax
from kevynode.serve.commands.command_info import find, has_movable_keys, legacy_range, show_command, show_docs
from kevynode.store.command import TABLE
from kevynode.store.help import help_lines


@pytest.mark.parametrize(
    ("name", "keys", "movable"),
    [
        ("get", (1, 1, 1), False),
        ("mset", (1, -1, 2), False),
        ("del", (1, -1, 1), False),
        ("blpop", (1, -2, 1), False),
        ("lmove", (1, 2, 1), False),
        ("smove", (1, 2, 1), False),
        ("bitop", (2, -1, 1), False),
        ("sinterstore", (1, -1, 1), False),
        ("zunionstore", (1, 1, 1), True),
        ("zunion", (0, 0, 0), True),
        ("sort", (1, 1, 1), True),
        ("object|encoding", (2, 2, 1), False),
        ("ping", (0, 0, 0), False),
    ],
)
def test_where_keys_stand_for_old_clients(
    node: ServerHarness, name: str, keys: tuple[int, int, int], movable: bool
) -> None:
    entry = find(node.server, name.encode())
    assert entry is not None
    assert legacy_range(entry) == keys
    assert has_movable_keys(entry) is movable


def test_info_of_one_command(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("COMMAND", "INFO", "never", "config|never") == b"*2\r\n*-1\r\n*-1\r\n".replace(b"*-1", b"$-1")
    client.call("HELLO", "3")
    assert client.call("COMMAND", "INFO", "GET") == (
        b"*1\r\n*10\r\n$3\r\nget\r\n:2\r\n~2\r\n+fast\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n"
        b"~3\r\n+@fast\r\n+@read\r\n+@string\r\n~0\r\n"
        b"~1\r\n%3\r\n$5\r\nflags\r\n~2\r\n+RO\r\n+access\r\n"
        b"$12\r\nbegin_search\r\n%2\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n%1\r\n$5\r\nindex\r\n:1\r\n"
        b"$9\r\nfind_keys\r\n%2\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n"
        b"%3\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n"
    )


def test_all_of_it(node: ServerHarness) -> None:
    client = node.connect()
    count = len(node.server.table)
    assert client.call("COMMAND", "COUNT") == b":%d\r\n" % count
    assert client.call("COMMAND").startswith(b"*%d\r\n*10\r\n" % count)
    assert client.call("COMMAND", "INFO") == client.call("COMMAND")
    # The list has subcommands, too, as Valkey's has.
    listed = client.call("COMMAND", "LIST")
    assert listed.startswith(b"*%d\r\n" % len(list(node.server.all_commands())))
    assert b"\r\nconfig|get\r\n" in listed
    client.call("HELLO", "3")
    assert client.call("COMMAND", "DOCS").startswith(b"%%%d\r\n" % count)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("ACLCAT", "HYPERLOGLOG"), []),
        (("MODULE", "x"), []),
        (("PATTERN", "xyz*"), []),
        (("PATTERN", "GETRA*"), ["getrange"]),
        (("pattern", "memory|us?ge"), ["memory|usage"]),
    ],
)
def test_list_filters(node: ServerHarness, words: tuple[str, ...], found: list[str]) -> None:
    answer = node.connect().call("COMMAND", "LIST", "FILTERBY", *words)
    assert answer == b"*%d\r\n" % len(found) + b"".join(b"$%d\r\n%b\r\n" % (len(n), n.encode()) for n in found)


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("get a", "a"),
        ("GET a", "a"),
        ("mset a 1 b 2", "a b"),
        ("zunionstore d 2 a b", "d a b"),
        ("memory usage x", "x"),
        ("sort a by w get p limit 0 1 store b", "a b"),
        ("blpop a b 0", "a b"),
        ("lmpop 2 a b left", "a b"),
        ("bitop and d a b", "d a b"),
    ],
)
def test_getkeys(node: ServerHarness, line: str, keys: str) -> None:
    expected = keys.split()
    answer = node.connect().call("COMMAND", "GETKEYS", *line.split())
    assert answer == b"*%d\r\n" % len(expected) + b"".join(b"$%d\r\n%b\r\n" % (len(k), k.encode()) for k in expected)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("get", "Invalid number of arguments specified for command"),
        ("never a", "Invalid command specified"),
        ("object never a", "Invalid command specified"),
        ("ping", "The command has no key arguments"),
        ("config", "The command has no key arguments"),
        ("ssubscribe a", "The command has no key arguments"),
        ("zunionstore d 3 a b", "Invalid arguments specified for command"),
        ("zunion 0 a", "Invalid arguments specified for command"),
        ("zunionstore d x a b", "Invalid arguments specified for command"),
    ],
)
def test_getkeys_refuses(node: ServerHarness, line: str, error: str) -> None:
    assert node.connect().call("COMMAND", "GETKEYS", *line.split()) == f"-ERR {error}\r\n".encode()


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("get a", ["RO access"]),
        ("set a b", ["OW update"]),
        ("set a b get", ["RW access update"]),
        ("lmove a b left right", ["RW access delete", "RW insert"]),
        ("bitfield a get u8 0", ["RO access"]),
        ("bitfield a get u8 0 set u8 0 1", ["RW access update"]),
        ("sort a store b", ["RO access", "OW update"]),
    ],
)
def test_getkeysandflags(node: ServerHarness, line: str, flags: list[str]) -> None:
    answer = node.connect().call("COMMAND", "GETKEYSANDFLAGS", *line.split()).decode()
    rows = answer.split("*2\r\n$1\r\n")[1:] if len(flags) == 1 else answer.split("$1\r\n")[1:]
    assert len(rows) == len(flags)
    for row, expected in zip(rows, flags, strict=True):
        assert {line[1:] for line in row.split("\r\n") if line.startswith("+")} == set(expected.split())


def _plain(arguments: list[Argument]) -> list[object]:
    """Arguments as (type, token, name or inner arguments, marks)."""
    return [
        (
            argument.type,
            argument.token,
            _plain(argument.arguments) if argument.arguments else argument.name,
            "".join(
                mark
                for mark, holds in zip(
                    "?*+", (argument.optional, argument.multiple, argument.multiple_token), strict=True
                )
                if holds
            ),
        )
        for argument in arguments
    ]


def word(name: str) -> tuple[str, str, str, str]:
    return ("pure-token", name, name.lower(), "")


@pytest.mark.parametrize(
    ("syntax", "arguments"),
    [
        ("", []),
        ("key", [("key", "", "key", "")]),
        ("key [key ...]", [("key", "", "key", "*")]),
        ("[message]", [("string", "", "message", "?")]),
        ("[section [section ...]]", [("string", "", "section", "?*")]),
        ("key value [key value ...]", [("block", "", [("key", "", "key", ""), ("string", "", "value", "")], "*")]),
        ("[NX|XX]", [("oneof", "", [word("NX"), word("XX")], "?")]),
        ("[NX | XX]", [("oneof", "", [word("NX"), word("XX")], "?")]),
        ("<ON | OFF>", [("oneof", "", [word("ON"), word("OFF")], "")]),
        ("LEFT|RIGHT", [("oneof", "", [word("LEFT"), word("RIGHT")], "")]),
        ("[AGGREGATE SUM|MIN]", [("oneof", "AGGREGATE", [word("SUM"), word("MIN")], "?")]),
        ("[AGGREGATE <SUM | MIN>]", [("oneof", "AGGREGATE", [word("SUM"), word("MIN")], "?")]),
        ("[CH] score", [("pure-token", "CH", "ch", "?"), ("double", "", "score", "")]),
        (
            "[LIMIT offset count]",
            [("block", "LIMIT", [("integer", "", "offset", ""), ("integer", "", "count", "")], "?")],
        ),
        ("[GET pattern [GET pattern ...]]", [("pattern", "GET", "pattern", "?*+")]),
        ("[WEIGHTS weight [weight ...]]", [("double", "WEIGHTS", "weight", "?*")]),
        (
            "[EX seconds|PX milliseconds|KEEPTTL]",
            [
                (
                    "oneof",
                    "",
                    [("integer", "EX", "seconds", ""), ("integer", "PX", "milliseconds", ""), word("KEEPTTL")],
                    "?",
                )
            ],
        ),
    ],
)
def test_syntax_becomes_arguments(syntax: str, arguments: list[object]) -> None:
    assert _plain(parse_arguments(syntax)) == arguments


@pytest.mark.parametrize("syntax", ["[key", "<a | b", "key ["])
def test_open_brackets_are_a_mistake(syntax: str) -> None:
    with pytest.raises(ValueError, match="not closed"):
        parse_arguments(syntax)


def test_every_command_can_be_shown_and_documented(node: ServerHarness) -> None:
    for entry in node.server.all_commands():
        assert len(show_command(entry)) == 10
        docs = show_docs(entry)
        assert docs[b"summary"], entry.full_name
        assert docs[b"since"][:1].isdigit(), entry.full_name
        assert bool(docs.get(b"arguments")) == bool(entry.syntax), entry.full_name
    assert not isinstance(parse_syntax("key", 1), Pairs)


def test_docs_have_the_fields_that_clients_read(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("COMMAND", "DOCS", "never") == b"*0\r\n"
    client.call("HELLO", "3")
    answer = client.call("COMMAND", "DOCS", "strlen", "client|no-evict")
    assert answer.startswith(b"%2\r\n$6\r\nstrlen\r\n%5\r\n$7\r\nsummary\r\n")
    assert (
        b"$9\r\narguments\r\n*1\r\n%4\r\n$4\r\nname\r\n$3\r\nkey\r\n$4\r\ntype\r\n$3\r\nkey\r\n"
        b"$12\r\ndisplay_text\r\n$3\r\nkey\r\n$14\r\nkey_spec_index\r\n:0\r\n"
    ) in answer
    assert b"$15\r\nclient|no-evict\r\n" in answer
    assert b"$11\r\nsubcommands\r\n%" in client.call("COMMAND", "DOCS", "client")


def test_containers_have_help_and_need_a_subcommand(node: ServerHarness) -> None:
    client = node.connect()
    containers = [entry for entry in TABLE if entry.subcommands and entry.name != "command"]
    assert len(containers) >= 8
    for entry in containers:
        assert client.call(entry.name) == f"-ERR wrong number of arguments for '{entry.name}' command\r\n".encode()
        assert client.call(entry.name, "never") == (
            f"-ERR unknown subcommand 'never'. Try {entry.name.upper()} HELP.\r\n".encode()
        )
        answer = client.call(entry.name, "HELP")
        assert answer.startswith(b"*")
        assert answer.endswith(b"+HELP\r\n+    Print this help.\r\n")
        for line in help_lines(entry):
            assert b"\r\n" not in line.text
