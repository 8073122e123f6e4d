"""Sessions: pipelines, bad input, transactions, subscriptions and their mixtures, byte for byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.session_harness import ServerHarness, request

from kevynode.serve.output_limit import OutputLimit

PONG = b"+PONG\r\n"


def test_a_pipeline_is_answered_in_order_in_one_output() -> None:
    client = ServerHarness().connect()
    answer = client.send(request("PING") + request("ECHO", "a") + b"PING\r\n" + request("nope"))
    assert answer == PONG + b"$1\r\na\r\n" + PONG + b"-ERR unknown command 'nope', with args beginning with: \r\n"


def test_commands_before_a_protocol_error_run_and_the_connection_closes() -> None:
    client = ServerHarness().connect()
    answer = client.send(request("SET", "k", "v") + b"*1\r\n:1\r\n" + request("SET", "k", "w"))
    assert answer == b"+OK\r\n-ERR Protocol error: expected '$', got ':'\r\n"
    assert client.session.closing
    assert client.node.store.lookup(b"k") == b"v"


def test_what_follows_quit_is_not_run() -> None:
    client = ServerHarness().connect()
    assert client.send(request("QUIT") + request("SET", "k", "v")) == b"+OK\r\n"
    assert client.session.closing
    assert client.node.store.lookup(b"k") is None


def test_a_handler_that_fails_costs_one_error_reply(monkeypatch: object) -> None:
    node = ServerHarness()
    client = node.connect()
    command = node.server.table.get(b"get")
    assert command is not None
    original = command.handler

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    command.handler = broken
    try:
        assert client.send(request("GET", "k") + request("PING")) == b"-ERR internal error\r\n" + PONG
    finally:
        command.handler = original
    assert node.log.events("error") == ["internal_error"]


def test_wrong_arity_and_unknown_subcommand() -> None:
    client = ServerHarness().connect()
    assert client.call("GET") == b"-ERR wrong number of arguments for 'get' command\r\n"
    assert client.call("pubsub") == b"-ERR wrong number of arguments for 'pubsub' command\r\n"
    assert client.call("pubsub", "numpat", "x") == b"-ERR wrong number of arguments for 'pubsub|numpat' command\r\n"
    assert client.call("pubsub", "zz") == b"-ERR unknown subcommand 'zz'. Try PUBSUB HELP.\r\n"


# -- transactions ---------------------------------------------------------------------------------------------------


def test_exec_runs_the_queue_as_one_group() -> None:
    node = ServerHarness()
    client = node.connect()
    groups: list[int] = []
    node.store.journal.observers.append(lambda _, group: groups.append(len(group)))
    assert client.call("MULTI") == b"+OK\r\n"
    assert client.send(request("SET", "a", "1") + request("INCR", "a")) == b"+QUEUED\r\n+QUEUED\r\n"
    assert groups == []
    assert client.call("EXEC") == b"*2\r\n+OK\r\n:2\r\n"
    assert groups == [2]


def test_an_error_while_queuing_discards_the_transaction() -> None:
    client = ServerHarness().connect()
    client.call("MULTI")
    client.call("SET", "a", "1")
    assert client.call("GET").startswith(b"-ERR wrong number")
    assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    assert client.call("GET", "a") == b"$-1\r\n"


def test_an_error_while_running_leaves_the_rest_applied() -> None:
    client = ServerHarness().connect()
    client.call("SET", "s", "x")
    client.call("MULTI")
    client.send(request("INCR", "s") + request("SET", "t", "1"))
    assert client.call("EXEC") == b"*2\r\n-ERR value is not an integer or out of range\r\n+OK\r\n"


def test_multi_and_watch_inside_multi_are_refused_and_abort() -> None:
    for name in ("MULTI", "WATCH"):
        client = ServerHarness().connect()
        client.call("MULTI")
        arguments = (name, "k") if name == "WATCH" else (name,)
        assert (
            client.call(*arguments) == b"-ERR Command '%b' not allowed inside a transaction\r\n" % name.lower().encode()
        )
        assert client.call("EXEC").startswith(b"-EXECABORT")


def test_watch_sees_a_change_by_another_client_and_forgets_after_exec() -> None:
    node = ServerHarness()
    client, other = node.connect(), node.connect()
    client.call("WATCH", "k")
    other.call("SET", "k", "1")
    client.call("MULTI")
    client.call("SET", "k", "2")
    assert client.call("EXEC") == b"*-1\r\n"
    client.call("MULTI")
    client.call("SET", "k", "3")
    assert client.call("EXEC") == b"*1\r\n+OK\r\n"
    assert not node.store.journal.observers


def test_watch_and_expiry() -> None:
    node = ServerHarness()
    client = node.connect()
    client.call("SET", "k", "v", "PX", "1000")
    client.call("WATCH", "k")
    node.advance(2)
    client.call("MULTI")
    assert client.call("EXEC") == b"*-1\r\n"
    # A key that had expired before it was watched makes no change by being removed.
    client.call("SET", "k", "v", "PX", "1000")
    node.store.deletes_expired = False
    node.advance(2)
    client.call("WATCH", "k")
    node.store.deletes_expired = True
    node.connect().call("GET", "k")
    client.call("MULTI")
    assert client.call("EXEC") == b"*0\r\n"


def test_flushall_is_a_change_only_for_keys_that_were_there() -> None:
    node = ServerHarness()
    client, other = node.connect(), node.connect()
    other.call("SET", "there", "1")
    for key, answer in (("there", b"*-1\r\n"), ("absent", b"*0\r\n")):
        client.call("WATCH", key)
        other.call("FLUSHALL")
        client.call("MULTI")
        assert client.call("EXEC") == answer


def test_a_connection_that_ends_leaves_nothing_behind() -> None:
    node = ServerHarness()
    client = node.connect()
    client.call("WATCH", "k")
    client.call("SUBSCRIBE", "c")
    client.session.disconnected("reset by peer")
    assert node.server.sessions == {}
    assert node.server.pubsub.channels == {}
    assert node.store.journal.observers == []


# -- subscriptions --------------------------------------------------------------------------------------------------


def test_messages_reach_listeners_in_their_protocol() -> None:
    node = ServerHarness()
    two, three, sender = node.connect(), node.connect(), node.connect()
    three.call("HELLO", "3")
    assert two.call("SUBSCRIBE", "c") == b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    assert three.call("PSUBSCRIBE", "c*") == b">3\r\n$10\r\npsubscribe\r\n$2\r\nc*\r\n:1\r\n"
    assert sender.call("PUBLISH", "c", "hi") == b":2\r\n"
    assert two.woken
    assert two.read() == b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
    assert three.read() == b">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$2\r\nhi\r\n"


def test_a_resp2_listener_may_only_listen() -> None:
    client = ServerHarness().connect()
    client.call("SUBSCRIBE", "c")
    assert client.call("GET", "k") == (
        b"-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET"
        b" are allowed in this context\r\n"
    )
    assert client.call("PING") == b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
    client.call("UNSUBSCRIBE")
    assert client.call("PING") == PONG


def test_a_client_that_publishes_to_itself_reads_its_reply_first() -> None:
    client = ServerHarness().connect()
    client.call("HELLO", "3")
    client.call("SUBSCRIBE", "c")
    assert client.call("PUBLISH", "c", "m") == b":1\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"


def test_a_listener_that_does_not_read_is_closed_at_the_limit() -> None:
    node = ServerHarness()
    node.server.output_limits["pubsub"] = OutputLimit(1000)
    client, sender = node.connect(), node.connect()
    client.call("SUBSCRIBE", "c")
    for _ in range(20):
        sender.call("PUBLISH", "c", "x" * 100)
    assert client.session.discard
    assert node.log.events("warning") == ["output_limit"]


def test_keyspace_events_follow_the_flags() -> None:
    node = ServerHarness()
    client, other = node.connect(), node.connect()
    node.server.events.configure(0b111111111111111)
    client.call("PSUBSCRIBE", "__key*")
    other.call("SET", "k", "v")
    assert b"__keyspace@0__:k\r\n$3\r\nset" in client.read()
    node.server.events.configure(0)
    other.call("SET", "k", "v")
    assert client.read() == b""


# -- anything at all ------------------------------------------------------------------------------------------------

words = st.sampled_from(
    [b"GET", b"SET", b"MULTI", b"EXEC", b"k", b"1", b"SUBSCRIBE", b"HELLO", b"3", b"QUIT", b"RESET", b""]
)
requests = st.lists(st.lists(words | st.binary(max_size=8), max_size=4).map(lambda argv: request(*argv)), max_size=6)


@given(requests.map(b"".join) | st.binary(max_size=80), st.booleans())
def test_any_input_is_answered_or_closes_and_never_raises(data: bytes, dripped: bool) -> None:
    node = ServerHarness()
    client = node.connect()
    whole = client.send(data)
    if dripped:
        again = ServerHarness().connect()
        parts = [again.send(data[place : place + 1]) for place in range(len(data))]
        assert b"".join(parts) == whole
    assert node.log.events("error") == []
