"""SLOWLOG, LATENCY, CLUSTER, DEBUG, ACL."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.session_harness import Client, ServerHarness

from kevynode.config import NodeConfig
from kevynode.serve.digest import data_digest, value_digest
from kevynode.serve.parameters import Parameters
from kevynode.serve.slots import key_slot
from kevynode.serve.slowlog import redact, shorten


@pytest.fixture
def node() -> ServerHarness:
    node = ServerHarness()
    config = NodeConfig.from_dict({"config": {"enable-debug-command": "yes"}})
    node.server.parameters = Parameters(node.server, config)
    return node


# -- SLOWLOG --------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(node: ServerHarness) -> Client:
    """A client of a node on which every command takes a second."""
    ticks = count()
    node.server.perf = lambda: float(next(ticks))
    return node.connect()


def test_slow_commands_are_remembered_with_their_client(node: ServerHarness, slow: Client) -> None:
    slow.call("CLIENT", "SETNAME", "me")
    slow.call("SET", "a", "1")
    assert slow.call("SLOWLOG", "GET", "1") == (
        b"*1\r\n*6\r\n:1\r\n:1700000000\r\n:1000000\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"
        b"$15\r\n127.0.0.1:50000\r\n$2\r\nme\r\n"
    )
    assert slow.call("SLOWLOG", "LEN") == b":3\r\n"
    slow.call("CONFIG", "SET", "slowlog-max-len", "2")
    assert [entry.number for entry in node.server.slow_log.latest(-1)] == [4, 3]
    assert slow.call("SLOWLOG", "GET", "0") == b"*0\r\n"
    assert slow.call("SLOWLOG", "RESET") == b"+OK\r\n"
    assert [entry.argv for entry in node.server.slow_log.latest(-1)] == [[b"SLOWLOG", b"RESET"]]


def test_a_transaction_shows_its_commands_and_not_itself(node: ServerHarness, slow: Client) -> None:
    slow.call("MULTI")
    slow.call("SET", "a", "1")
    slow.call("EXEC")
    assert [entry.argv[0] for entry in node.server.slow_log.latest(-1)] == [b"SET", b"MULTI"]


def test_the_threshold(node: ServerHarness, slow: Client) -> None:
    slow.call("CONFIG", "SET", "slowlog-log-slower-than", "2000000")
    slow.call("SLOWLOG", "RESET")
    slow.call("PING")
    slow.call("GET", "a")
    assert len(node.server.slow_log) == 0
    slow.call("CONFIG", "SET", "slowlog-log-slower-than", "-1")
    slow.call("PING")
    assert len(node.server.slow_log) == 0
    slow.call("CONFIG", "SET", "slowlog-log-slower-than", "0")
    slow.call("GET", "a")
    assert len(node.server.slow_log) == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("GET", "x"), "count should be greater than or equal to -1"),
        (("GET", "-2"), "count should be greater than or equal to -1"),
        (("GET", "1", "2"), "unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP."),
    ],
)
def test_slowlog_errors(node: ServerHarness, words: tuple[str, ...], error: str) -> None:
    assert node.connect().call("SLOWLOG", *words) == f"-ERR {error}\r\n".encode()


def test_long_commands_are_cut() -> None:
    assert shorten([b"x"] * 32) == [b"x"] * 32
    assert shorten([b"x"] * 37) == [b"x"] * 31 + [b"... (6 more arguments)"]
    assert shorten([b"y" * 128, b"y" * 143]) == [b"y" * 128, b"y" * 128 + b"... (15 more bytes)"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"AUTH a", b"AUTH (redacted)"),
        (b"auth a b", b"auth (redacted) (redacted)"),
        (b"HELLO 3 AUTH a b SETNAME c", b"HELLO 3 AUTH (redacted) (redacted) SETNAME c"),
        (b"HELLO 3 AUTH a", b"HELLO 3 AUTH (redacted)"),
        (b"CONFIG SET hz 5 RequirePass a", b"CONFIG SET hz 5 RequirePass (redacted)"),
        (b"CONFIG SET requirepass", b"CONFIG SET requirepass"),
        (b"SET auth a", b"SET auth a"),
    ],
)
def test_passwords_are_left_out(line: bytes, shown: bytes) -> None:
    assert redact(line.split()) == shown.split()


def test_latency_has_nothing_to_tell(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("LATENCY", "LATEST") == b"*0\r\n"
    assert client.call("LATENCY", "HISTORY", "command") == b"*0\r\n"
    assert client.call("LATENCY", "RESET", "a", "b") == b":0\r\n"
    assert client.call("LATENCY", "HISTOGRAM") == b"*0\r\n"
    assert client.call("LATENCY", "GRAPH", "x") == b"-ERR No samples available for event 'x'\r\n"
    assert b"does not sample" in client.call("LATENCY", "DOCTOR")


# -- CLUSTER --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"", 0),
        (b"a", 15495),
        (b"foo", 12182),
        (b"user:{foo}:x", 12182),
        (b"{}foo", 9500),
        (b"a{{b}}", 6215),
        (b"{foo", key_slot(b"{foo")),
        (b"123456789", 12739),
    ],
)
def test_slots(node: ServerHarness, key: bytes, slot: int) -> None:
    assert node.connect().call("CLUSTER", "KEYSLOT", key) == b":%d\r\n" % slot


def test_a_tag_divides_keys_alone() -> None:
    assert key_slot(b"{foo") != key_slot(b"foo")
    assert key_slot(b"foo}{bar}") == key_slot(b"bar")


def test_this_node_owns_all_slots(node: ServerHarness) -> None:
    client = node.connect()
    name = node.server.run_id.encode()
    assert client.call("CLUSTER", "MYID") == b"$40\r\n" + name + b"\r\n"
    assert client.call("CLUSTER", "SLOTS") == (
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:6004\r\n$40\r\n" + name + b"\r\n*0\r\n"
    )
    node.server.advertise = "kevy.example:7000"
    answer = client.call("CLUSTER", "NODES")
    assert answer.endswith(name + b" kevy.example:7000@7000 myself,master - 0 0 0 connected 0-16383\n\r\n")
    shards = client.call("CLUSTER", "SHARDS")
    assert b"$4\r\nport\r\n:7000\r\n" in shards
    assert b"$6\r\nonline\r\n" in shards
    assert b"cluster_state:ok\r\ncluster_slots_assigned:16384\r\n" in client.call("CLUSTER", "INFO")
    assert client.call("CLUSTER", "REPLICAS", name) == b"*0\r\n"
    assert client.call("CLUSTER", "REPLICAS", "x") == b"-ERR Unknown node x\r\n"


def test_by_a_unix_socket_the_first_tcp_listener_is_named(node: ServerHarness) -> None:
    client = node.connect()
    client.session.local = "/run/kevynode.sock:0"
    node.server.listeners = [("unix", "/run/kevynode.sock", 0), ("tcp", "10.0.0.1", 7000)]
    assert b"$8\r\n10.0.0.1\r\n:7000\r\n" in client.call("CLUSTER", "SLOTS")


def test_what_cluster_clients_say_first(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("READONLY") == b"+OK\r\n"
    assert client.call("READWRITE") == b"+OK\r\n"
    assert client.call("ASKING") == b"-ERR This instance has cluster support disabled\r\n"


def test_keys_of_a_slot(node: ServerHarness) -> None:
    client = node.connect()
    for number in range(5):
        client.call("SET", f"{{foo}}{number}", "x")
    client.call("SET", "bar", "x")
    assert client.call("CLUSTER", "COUNTKEYSINSLOT", "12182") == b":5\r\n"
    assert client.call("CLUSTER", "GETKEYSINSLOT", "12182", "3").startswith(b"*3\r\n")
    assert client.call("CLUSTER", "GETKEYSINSLOT", "1", "3") == b"*0\r\n"
    assert client.call("CLUSTER", "COUNTKEYSINSLOT", "16384") == b"-ERR Invalid slot\r\n"
    assert client.call("CLUSTER", "GETKEYSINSLOT", "5", "-1") == b"-ERR Invalid slot or number of keys\r\n"


# -- DEBUG ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "peer", "allowed"),
    [
        ("no", "127.0.0.1:1", False),
        ("local", "127.0.0.1:1", True),
        ("local", "[::1]:1", True),
        ("local", "10.0.0.1:1", False),
        ("local", "nonsense", False),
        ("yes", "10.0.0.1:1", True),
    ],
)
def test_debug_must_be_allowed(node: ServerHarness, setting: str, peer: str, allowed: bool) -> None:
    assert node.server.parameters is not None
    node.server.parameters.put("enable-debug-command", setting)
    client = node.connect()
    client.session.peer = peer
    answer = client.call("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    assert answer == b"+OK\r\n" if allowed else answer.startswith(b"-ERR DEBUG command not allowed.")
    assert node.server.active_expire is not allowed


def fill(client: Client, backwards: bool = False) -> None:
    """Every type of value, in one order or the other."""
    lines = [
        "SET s hello",
        "SET i 12345",
        "SET t x EX 1000",
        "RPUSH l a b c 1 2",
        "SADD st a b c 1 2 3" if not backwards else "SADD st 3 2 1 c b a",
        "ZADD z 1 a 2.5 b inf c -inf d 1e300 e 0.1 f"
        if not backwards
        else "ZADD z 0.1 f 1e300 e -inf d inf c 2.5 b 1 a",
        "HSET h a 1 b 2" if not backwards else "HSET h b 2 a 1",
        "HSET hx a 1 b 2",
        "HEXPIRE hx 1000 FIELDS 1 a",
        "EXPIRE h 500",
    ]
    for line in lines:
        client.call(*line.split())
    if backwards:
        client.call("SET", "other", "x")
        client.call("DEL", "other")


def test_digests_are_valkeys(node: ServerHarness) -> None:
    # Recorded from valkey 9.1 with the same commands.
    client = node.connect()
    assert client.call("DEBUG", "DIGEST") == b"+" + b"0" * 40 + b"\r\n"
    fill(client)
    assert client.call("DEBUG", "DIGEST-VALUE", "s", "i", "t", "l", "st", "h", "never").decode().split() == [
        "*7",
        "+36b23a1456b2dce2c3ed252c456761301dba8060",
        "+e1cf90774e995ae03de66e8109dc5cb9d9c2dc83",
        "+0745672cb1bf060476eedeb8a28f5ffe1ff5a2be",
        "+f48a1249517530ff1906fc79ddbf9b687f71f06f",
        "+c1c3c7d2576a2b431d7257e334e6e5862fb961d2",
        "+8a0adc4c6368e5883c77c9254afa451bf22c023c",
        "+" + "0" * 40,
    ]


def test_digests_mind_content_and_not_order(node: ServerHarness) -> None:
    other = ServerHarness(seed=2)
    fill(node.connect())
    fill(other.connect(), backwards=True)
    assert data_digest(node.store) == data_digest(other.store)
    for command in ("SET s hallo", "LSET l 0 z", "ZADD z 3 a", "HSET h a 2", "SREM st 1", "PERSIST t", "DEL i"):
        before = data_digest(node.store)
        node.connect().call(*command.split())
        assert data_digest(node.store) != before, command


def test_digests_leave_out_what_has_expired(node: ServerHarness) -> None:
    client = node.connect()
    client.call("SET", "a", "1")
    before = data_digest(node.store)
    client.call("SET", "b", "1", "PX", "100")
    node.advance(1)
    assert data_digest(node.store) == before
    assert value_digest(node.store, b"b") == b"0" * 40


def test_debug_object_and_encodings(node: ServerHarness) -> None:
    client = node.connect()
    client.call("SET", "a", "text")
    client.call("RPUSH", "l", "x")
    answer = client.call("DEBUG", "OBJECT", "a")
    assert answer.startswith(b"+Value at:0x")
    assert b" refcount:1 encoding:embstr serializedlength:8 lru:" in answer
    assert b"serializedlength" not in client.call("DEBUG", "OBJECT", "a", "fast")
    assert client.call("DEBUG", "OBJECT", "never") == b"-ERR no such key\r\n"
    assert client.call("DEBUG", "LISTPACK", "l").startswith(b"+")
    assert client.call("DEBUG", "LISTPACK", "a") == b"-ERR Not a listpack encoded object.\r\n"
    assert client.call("DEBUG", "QUICKLIST", "l") == b"-ERR Not a quicklist encoded object.\r\n"
    assert client.call("DEBUG", "HTSTATS-KEY", "a").startswith(b"-ERR The value stored at the specified key")
    assert b"number of entries: 2\n" in client.call("DEBUG", "HTSTATS", "0")
    assert client.call("DEBUG", "HTSTATS", "1") == b"-ERR Out of range database\r\n"


def test_debug_sleep_holds_the_node_up(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("DEBUG", "SLEEP", "1").startswith(b"-ERR DEBUG SLEEP is not available")
    slept: list[float] = []
    node.server.block_for = slept.append
    for seconds in ("0.5", "0", "x", "-1"):
        assert client.call("DEBUG", "SLEEP", seconds) == b"+OK\r\n"
    assert slept == [0.5]


def test_debug_populate(node: ServerHarness) -> None:
    client = node.connect()
    client.call("SET", "key:1", "mine")
    assert client.call("DEBUG", "POPULATE", "3") == b"+OK\r\n"
    assert client.call("MGET", "key:0", "key:1", "key:2") == b"*3\r\n$7\r\nvalue:0\r\n$4\r\nmine\r\n$7\r\nvalue:2\r\n"
    client.call("DEBUG", "POPULATE", "1", "p", "9")
    client.call("DEBUG", "POPULATE", "1", "q", "3")
    assert client.call("MGET", "p:0", "q:0") == b"*2\r\n$9\r\nvalue:0\0\0\r\n$3\r\nval\r\n"
    assert node.store.journal.offset == 5
    assert client.call("DEBUG", "POPULATE", "-1") == b"-ERR value is out of range, must be positive\r\n"
    assert client.call("DEBUG", "POPULATE", "999999999999") == b"-ERR DEBUG POPULATE of more than 4gb is refused\r\n"


@pytest.mark.parametrize(
    ("kind", "resp2", "resp3"),
    [
        ("string", b"$11\r\nHello World\r\n", b"$11\r\nHello World\r\n"),
        ("double", b"$5\r\n3.141\r\n", b",3.141\r\n"),
        ("null", b"$-1\r\n", b"_\r\n"),
        ("set", b"*3\r\n:0\r\n:1\r\n:2\r\n", b"~3\r\n:0\r\n:1\r\n:2\r\n"),
        ("map", b"*6\r\n:0\r\n:0\r\n:1\r\n:1\r\n:2\r\n:0\r\n", b"%3\r\n:0\r\n#f\r\n:1\r\n#t\r\n:2\r\n#f\r\n"),
        ("true", b":1\r\n", b"#t\r\n"),
        ("bignum", b"$37\r\n1234567999999999999999999999999999999\r\n", b"(1234567999999999999999999999999999999\r\n"),
        ("verbatim", b"$25\r\nThis is a verbatim\nstring\r\n", b"=29\r\ntxt:This is a verbatim\nstring\r\n"),
        (
            "push",
            b"-ERR RESP2 is not supported by this command\r\n",
            b"$40\r\nSome real reply following the push reply\r\n>2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n",
        ),
        (
            "attrib",
            b"$39\r\nSome real reply following the attribute\r\n",
            b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n"
            b"$39\r\nSome real reply following the attribute\r\n",
        ),
    ],
)
def test_debug_protocol(node: ServerHarness, kind: str, resp2: bytes, resp3: bytes) -> None:
    client = node.connect()
    assert client.call("DEBUG", "PROTOCOL", kind) == resp2
    client.call("HELLO", "3")
    assert client.call("DEBUG", "PROTOCOL", kind) == resp3


def test_debug_reload_keeps_everything_that_lives(node: ServerHarness) -> None:
    client = node.connect()
    fill(client)
    client.call("SET", "brief", "x", "PX", "10")
    before, used = data_digest(node.store), node.store.used
    deadlines = client.call("PEXPIRETIME", "t"), client.call("HPEXPIRETIME", "hx", "FIELDS", "1", "a")
    assert client.call("DEBUG", "RELOAD") == b"+OK\r\n"
    assert data_digest(node.store) == before
    assert node.store.used == used
    assert (client.call("PEXPIRETIME", "t"), client.call("HPEXPIRETIME", "hx", "FIELDS", "1", "a")) == deadlines
    node.advance(1)
    keys = len(node.store.keyspace)
    client.call("DEBUG", "RELOAD")
    assert len(node.store.keyspace) == keys - 1
    client.call("RPUSH", "l", "more")
    assert client.call("LLEN", "l") == b":6\r\n"
    assert client.call("DEBUG", "RELOAD", "never").startswith(b"-ERR DEBUG RELOAD only supports")
    assert client.call("DEBUG", "RELOAD", "NOSAVE").startswith(b"-ERR DEBUG RELOAD with NOSAVE")


def test_debug_small_things(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("DEBUG", "ERROR", "FOO bar") == b"-FOO bar\r\n"
    assert client.call("DEBUG", "LOG", "hello") == b"+OK\r\n"
    assert ("info", "debug_log", {"message": "hello"}) in node.log.records
    assert client.call("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "10b") == b"+OK\r\n"
    assert client.call("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "x").startswith(b"-ERR argument must be a memory value")
    history = node.server.history_id
    assert client.call("DEBUG", "CHANGE-REPL-ID") == b"+OK\r\n"
    assert node.server.history_id != history
    assert b"+SLEEP <seconds>\r\n" in client.call("DEBUG", "HELP")
    for words in (("NEVER",), ("SLEEP",), ("SLEEP", "1", "2"), ("DIGEST", "x")):
        assert client.call("DEBUG", *words) == (
            f"-ERR unknown subcommand or wrong number of arguments for '{words[0]}'. Try DEBUG HELP.\r\n".encode()
        )


# -- ACL ------------------------------------------------------------------------------------------------------------


def test_the_one_user(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("ACL", "WHOAMI") == b"$7\r\ndefault\r\n"
    assert client.call("ACL", "USERS") == b"*1\r\n$7\r\ndefault\r\n"
    assert client.call("ACL", "LIST") == b"*1\r\n$34\r\nuser default on nopass ~* &* +@all\r\n"
    assert client.call("ACL", "GETUSER", "never") == b"$-1\r\n"
    assert b"nopass" in client.call("ACL", "GETUSER", "default")
    client.call("CONFIG", "SET", "requirepass", "abc")
    digest = b"#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest in client.call("ACL", "LIST")
    assert digest[1:] in client.call("ACL", "GETUSER", "default")


def test_categories(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("ACL", "CAT").startswith(b"*21\r\n$8\r\nkeyspace\r\n")
    assert b"\r\nsetbit\r\n" in client.call("ACL", "CAT", "BITMAP")
    assert client.call("ACL", "CAT", "never") == b"-ERR Unknown category 'never'\r\n"
    assert client.call("ACL", "CAT", "a", "b") == (
        b"-ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.\r\n"
    )


# -- whatever a client may send -------------------------------------------------------------------------------------

_WORDS = st.one_of(
    st.sampled_from(
        b"TYPE ID SKIPME yes no 0 1 -1 99999999999999999999 GET SET hz maxmemory * LIST KILL ON OFF FLAGS IDLE".split()
    ),
    st.binary(max_size=12),
)
_NAMES = st.sampled_from(
    [
        entry.full_name.replace("|", " ").encode().split()
        for entry in ServerHarness().server.all_commands()
        if not entry.on_store and entry.name not in ("populate", "monitor")
    ]
)


@given(name=_NAMES, words=st.lists(_WORDS, max_size=6))
def test_no_argument_makes_a_command_fail_by_itself(name: list[bytes], words: list[bytes]) -> None:
    node = ServerHarness()
    node.server.parameters = Parameters(node.server, NodeConfig.from_dict({"config": {"enable-debug-command": "yes"}}))
    client = node.connect()
    client.call(*name, *words)
    assert node.server.statistics.unexpected_errors == 0, node.log.records
