"""CLIENT: what it tells about connections, and what it does to them."""

from __future__ import annotations

import re

import pytest
from support.session_harness import Client, ServerHarness, request

NAMES = (
    "id addr laddr fd name age idle flags capa db sub psub ssub multi watch qbuf qbuf-free argv-mem multi-mem rbs rbp "
    "obl oll omem tot-mem events cmd user redir resp lib-name lib-ver tot-net-in tot-net-out tot-cmds"
).split()


def lines(answer: bytes) -> list[dict[str, str]]:
    """The clients in a RESP2 reply of CLIENT LIST or INFO."""
    text = answer.partition(b"\r\n")[2].removesuffix(b"\r\n").decode()
    return [dict(field.split("=", 1) for field in line.split(" ")) for line in text.splitlines()]


def ids(client: Client, *words: bytes | str) -> list[int]:
    return [int(line["id"]) for line in lines(client.call("CLIENT", "LIST", *words))]


def test_a_line_has_valkeys_fields_in_their_order(node: ServerHarness) -> None:
    client = node.connect()
    client.call("CLIENT", "SETNAME", "worker")
    client.call("CLIENT", "SETINFO", "LIB-NAME", "lib")
    client.call("CLIENT", "SETINFO", "lib-ver", "1.2")
    node.advance(5)
    answer = client.call("CLIENT", "INFO")
    (line,) = lines(answer)
    assert list(line) == NAMES
    assert (line["id"], line["addr"], line["name"], line["age"], line["flags"], line["cmd"]) == (
        "1",
        "127.0.0.1:50000",
        "worker",
        "5",
        "N",
        "client|info",
    )
    assert (line["lib-name"], line["lib-ver"], line["tot-cmds"], line["resp"]) == ("lib", "1.2", "3", "2")
    assert answer.endswith(b"\n\r\n")


def test_flags_and_numbers_show_what_a_client_is_doing(node: ServerHarness) -> None:
    watcher, listener, waiter, other = node.connect(), node.connect(), node.connect(), node.connect()
    watcher.call("WATCH", "a", "b")
    other.call("SET", "a", "1")
    watcher.call("MULTI")
    watcher.call("GET", "a")
    listener.call("SUBSCRIBE", "x", "y")
    waiter.call("BLPOP", "list", "0")
    other.call("CLIENT", "NO-EVICT", "on")
    other.call("CLIENT", "NO-TOUCH", "ON")
    found = {line["id"]: line for line in lines(other.call("CLIENT", "LIST"))}
    assert [found[number]["flags"] for number in "1234"] == ["xd", "P", "b", "eT"]
    assert (found["1"]["multi"], found["1"]["watch"], found["2"]["sub"]) == ("1", "2", "2")
    assert int(found["1"]["multi-mem"]) > 0
    other.call("CLIENT", "NO-EVICT", "off")
    other.call("CLIENT", "NO-TOUCH", "off")
    assert lines(other.call("CLIENT", "INFO"))[0]["flags"] == "N"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), [1, 2, 3]),
        (("TYPE", "normal"), [1, 3]),
        (("TYPE", "PubSub"), [2]),
        (("TYPE", "replica"), []),
        (("NOT-TYPE", "normal"), [2]),
        (("ID", "1", "3", "99"), [1, 3]),
        (("ID", "1", "3", "TYPE", "normal", "NAME", "a"), [1]),
        (("ID", "1", "ID", "3"), [1, 3]),
        (("NOT-ID", "1"), [2, 3]),
        (("NOT-ID", "1", "NOT-ID", "2", "ID", "1", "3"), [3]),
        (("NAME", "a"), [1]),
        (("NOT-NAME", "a"), [2, 3]),
        (("NAME", ""), []),
        (("SKIPME", "yes"), [1, 2]),
        (("SKIPME", "no"), [1, 2, 3]),
        (("ADDR", "127.0.0.1:50000"), [1, 2, 3]),
        (("ADDR", "127.0.0.1:1"), []),
        (("LADDR", "127.0.0.1:6004"), [1, 2, 3]),
        (("IP", "127.0.0.1"), [1, 2, 3]),
        (("NOT-IP", "127.0.0.1"), []),
        (("USER", "default"), [1, 2, 3]),
        (("MAXAGE", "10"), [1, 2]),
        (("IDLE", "10"), [2]),
        (("DB", "0"), [1, 2, 3]),
        (("FLAGS", "P"), [2]),
        (("NOT-FLAGS", "P"), [1, 3]),
        (("FLAGS", "NP"), []),
        (("LIB-NAME", "x"), [1]),
        (("NOT-LIB-VER", "7"), [2, 3]),
        (("CAPA", "r"), [1]),
        (("NOT-CAPA", "r"), [2, 3]),
    ],
)
def test_filters(node: ServerHarness, words: tuple[str, ...], found: list[int]) -> None:
    named, listener = node.connect(), node.connect()
    listener.call("SUBSCRIBE", "x")
    node.advance(20)
    named.call("CLIENT", "SETNAME", "a")
    named.call("CLIENT", "SETINFO", "lib-name", "x")
    named.call("CLIENT", "SETINFO", "lib-ver", "7")
    named.call("CLIENT", "CAPA", "redirect", "unheard-of")
    assert ids(node.connect(), *words) == found


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("LIST", "TYPE", "x"), "ERR Unknown client type 'x'"),
        (("LIST", "TYPE"), "ERR syntax error"),
        (("LIST", "ID"), "ERR syntax error"),
        (("LIST", "ID", "1", "x"), "ERR syntax error"),
        (("LIST", "ID", "0"), "ERR client-id should be greater than 0"),
        (("LIST", "SKIPME", "maybe"), "ERR syntax error"),
        (("LIST", "MAXAGE", "x"), "ERR maxage is not an integer or out of range"),
        (("LIST", "MAXAGE", "0"), "ERR maxage should be greater than 0"),
        (("LIST", "IDLE", "-1"), "ERR idle should be greater than 0"),
        (("LIST", "NOT-MAXAGE", "1"), "ERR syntax error"),
        (("LIST", "USER", "x"), "ERR No such user 'x'"),
        (("LIST", "DB", "x"), "ERR DB is not an integer or out of range"),
        (("LIST", "FLAGS", "Q"), "ERR Unknown flags found in the provided filter: Q"),
        (("LIST", "NOT-FLAGS", "Q"), "ERR Unknown flags found in the NOT-FLAGS filter: Q"),
        (("LIST", "CAPA", "x"), "ERR Unknown capa found in the provided filter: x"),
        (("KILL", "1.2.3.4:5"), "ERR No such client"),
        (("KILL", "ID", "1", "SKIPME"), "ERR syntax error"),
        (("KILL", "NEVER", "x"), "ERR syntax error"),
        (("SETNAME", "a b"), "ERR Client names cannot contain spaces, newlines or special characters."),
        (("SETINFO", "LIB-NAME", "a b"), "ERR LIB-NAME cannot contain spaces, newlines or special characters."),
        (("SETINFO", "x", "y"), "ERR Unrecognized option 'x'"),
        (("NO-EVICT", "x"), "ERR syntax error"),
        (("REPLY", "x"), "ERR syntax error"),
        (("PAUSE", "x"), "ERR timeout is not an integer or out of range"),
        (("PAUSE", "-1"), "ERR timeout is negative"),
        (("PAUSE", "9223372036854775807"), "ERR timeout is out of range"),
        (("PAUSE", "1", "x"), "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        (("UNBLOCK", "x"), "ERR value is not an integer or out of range"),
        (("UNBLOCK", "1", "x"), "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
        (("TRACKING", "ON"), "ERR client-side caching is not supported by this node"),
        (
            ("CACHING", "yes"),
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode "
            "enabled",
        ),
        (("IMPORT-SOURCE", "on"), "ERR Server is not in import mode"),
        (("NEVER",), "ERR unknown subcommand 'NEVER'. Try CLIENT HELP."),
        (("ID", "x"), "ERR wrong number of arguments for 'client|id' command"),
    ],
)
def test_errors(node: ServerHarness, words: tuple[str, ...], error: str) -> None:
    client = node.connect()
    assert client.call("CLIENT", *words) == f"-{error}\r\n".encode()
    assert client.call("PING") == b"+PONG\r\n"


def test_names(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("CLIENT", "GETNAME") == b"$-1\r\n"
    assert client.call("CLIENT", "SETNAME", "a") == b"+OK\r\n"
    assert client.call("CLIENT", "GETNAME") == b"$1\r\na\r\n"
    assert client.call("CLIENT", "SETNAME", "") == b"+OK\r\n"
    assert client.call("CLIENT", "GETNAME") == b"$-1\r\n"


def test_kill_closes_others_at_once_and_oneself_after_the_answer(node: ServerHarness) -> None:
    me, other, third = node.connect(), node.connect(), node.connect()

    def fates() -> list[tuple[bool, bool]]:
        return [(client.session.closing, client.session.discard) for client in (me, other, third)]

    assert me.call("CLIENT", "KILL", "ID", "2") == b":1\r\n"
    assert fates() == [(False, False), (True, True), (False, False)]
    assert other.woken
    assert ids(me) == [1, 3]
    assert me.call("CLIENT", "KILL", "TYPE", "normal") == b":1\r\n"
    assert fates() == [(False, False), (True, True), (True, True)]
    assert me.call("CLIENT", "KILL", "ID", "1", "SKIPME", "no") == b":1\r\n"
    assert fates()[0] == (True, False)


def test_a_killed_client_does_not_wait_any_more(node: ServerHarness) -> None:
    me, waiter = node.connect(), node.connect()
    waiter.call("BLPOP", "list", "0")
    assert me.call("CLIENT", "KILL", "127.0.0.1:50000") == b"+OK\r\n"
    other = node.connect()
    assert other.call("RPUSH", "list", "x") == b":1\r\n"
    assert other.call("LLEN", "list") == b":1\r\n"


def test_pause_write_lets_readers_through(node: ServerHarness) -> None:
    me, other = node.connect(), node.connect()
    me.call("CLIENT", "PAUSE", "1000", "WRITE")
    assert other.call("GET", "a") == b"$-1\r\n"
    assert other.call("SET", "a", "1") == b""
    node.advance(0.9)
    assert other.read() == b""
    node.advance(0.2)
    assert other.read() == b"+OK\r\n"
    assert not node.server.gates


def test_pause_all_and_unpause(node: ServerHarness) -> None:
    me, other = node.connect(), node.connect()
    me.call("CLIENT", "PAUSE", "100000", "WRITE")
    me.call("CLIENT", "PAUSE", "1", "write")
    assert other.send(request("SET", "a", "1") + request("GET", "a")) == b""
    node.advance(50)
    assert other.read() == b""
    assert me.call("CLIENT", "UNPAUSE") == b"+OK\r\n"
    assert other.read() == b"+OK\r\n$1\r\n1\r\n"
    me.call("CLIENT", "PAUSE", "10")
    assert other.call("GET", "a") == b""
    node.advance(1)
    assert other.read() == b"$1\r\n1\r\n"


def test_reply_off_skip_on(node: ServerHarness) -> None:
    client = node.connect()
    skip, ping = request("CLIENT", "REPLY", "SKIP"), request("PING")
    assert client.send(skip + ping + ping) == b"+PONG\r\n"
    assert client.send(request("CLIENT", "REPLY", "OFF") + ping + skip + ping) == b""
    assert client.send(ping) == b""
    assert client.send(request("CLIENT", "REPLY", "ON") + ping) == b"+OK\r\n+PONG\r\n"


def test_unblock(node: ServerHarness) -> None:
    me, waiter = node.connect(), node.connect()
    assert me.call("CLIENT", "UNBLOCK", "2") == b":0\r\n"
    waiter.call("BLPOP", "list", "0")
    assert me.call("CLIENT", "UNBLOCK", "2") == b":1\r\n"
    assert waiter.read() == b"*-1\r\n"
    waiter.call("BLPOP", "list", "0")
    assert me.call("CLIENT", "UNBLOCK", "2", "ERROR") == b":1\r\n"
    assert waiter.read() == b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"
    assert me.call("CLIENT", "UNBLOCK", "99") == b":0\r\n"


def test_client_side_caching_is_told_to_be_off(node: ServerHarness) -> None:
    client = node.connect()
    client.call("HELLO", "3")
    assert client.call("CLIENT", "TRACKING", "OFF") == b"+OK\r\n"
    assert client.call("CLIENT", "GETREDIR") == b":-1\r\n"
    assert client.call("CLIENT", "TRACKINGINFO") == (
        b"%3\r\n$5\r\nflags\r\n~1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n"
    )


def test_help_names_every_subcommand(node: ServerHarness) -> None:
    client = node.connect()
    answer = client.call("CLIENT", "HELP")
    entry = node.server.table.by_name[b"client"]
    assert b"+CLIENT <subcommand>" in answer
    for name in entry.subcommands:
        assert re.search(rb"\r\n\+" + name.upper() + rb"\b", answer), name


def test_nothing_is_told_before_authentication(node: ServerHarness) -> None:
    node.server.password = b"secret"
    client = node.connect()
    for words in (("NEVER",), ("GET",), ("CLIENT", "ID"), ("PING",)):
        assert client.call(*words) == b"-NOAUTH Authentication required.\r\n"
    assert client.call("AUTH") == b"-ERR wrong number of arguments for 'auth' command\r\n"
    assert client.call("AUTH", "wrong").startswith(b"-WRONGPASS ")
    assert client.call("AUTH", "secret") == b"+OK\r\n"
    assert client.call("NEVER").startswith(b"-ERR unknown command")
    assert node.server.statistics.denied_logins == 1
