"""CONFIG and the parameters behind it."""

from __future__ import annotations

import math

import pytest
from support.session_harness import ServerHarness

from kevynode.config import NodeConfig
from kevynode.serve.parameter_table import ALIASES, PARAMETERS
from kevynode.serve.parameters import Parameters, check_parameter, without_effect
from kevynode.store import notify


@pytest.fixture
def node() -> ServerHarness:
    node = ServerHarness()
    node.server.parameters = Parameters(node.server)
    return node


def value(node: ServerHarness, name: str) -> str:
    assert node.server.parameters is not None
    return node.server.parameters.shown()[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_reads_what_it_shows(name: str) -> None:
    parameter = PARAMETERS[name]
    shown = parameter.kind.show(parameter.default)
    assert parameter.kind.parse(shown, parameter.default) == parameter.default
    assert check_parameter(name, shown) is None


def test_get_gives_names_as_asked_and_each_once(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("CONFIG", "GET", "MaxMemory") == b"*2\r\n$9\r\nMaxMemory\r\n$1\r\n0\r\n"
    assert client.call("CONFIG", "GET", "never") == b"*0\r\n"
    client.call("HELLO", "3")
    answer = client.call("CONFIG", "GET", "hz", "maxmemory*", "maxmemory", "HZ")
    assert answer.startswith(b"%6\r\n$2\r\nhz\r\n$2\r\n10\r\n$9\r\nmaxmemory\r\n")
    everything = client.call("CONFIG", "GET", "*")
    assert everything.startswith(b"%%%d\r\n" % (len(PARAMETERS) + len(ALIASES)))


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("maxmemory", "1kb", "1024"),
        ("maxmemory", "1k", "1000"),
        ("maxmemory", "2GB", str(2 << 30)),
        ("maxmemory", "", "0"),
        ("hz", "0", "1"),
        ("hz", "100000", "500"),
        ("maxmemory-policy", "ALLKEYS-LRU", "allkeys-lru"),
        ("lazyfree-lazy-expire", "NO", "no"),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("hash-max-ziplist-entries", "7", "7"),
        ("list-max-listpack-size", "-5", "-5"),
        (
            "client-output-buffer-limit",
            "replica 1mb 2kb 3",
            "normal 0 0 0 slave 1048576 2048 3 pubsub 33554432 8388608 60",
        ),
        ("appendonly", "no", "no"),
        ("save", "", ""),
    ],
)
def test_set(node: ServerHarness, name: str, text: str, shown: str) -> None:
    assert node.connect().call("CONFIG", "SET", name.upper(), text) == b"+OK\r\n"
    assert value(node, name) == shown
    assert value(node, ALIASES.get(name, name)) == shown


FAILED = "ERR CONFIG SET failed (possibly related to argument '{}') - {}"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("never", "1", "hz", "1"), "ERR Unknown option or number of arguments for CONFIG SET - 'never'"),
        (("maxmemory", "1", "hz"), "ERR syntax error"),
        (("hz", "10", "HZ", "20"), FAILED.format("HZ", "duplicate parameter")),
        (("hz", "abc"), FAILED.format("hz", "argument couldn't be parsed into an integer")),
        (("hz", "010"), FAILED.format("hz", "argument couldn't be parsed into an integer")),
        (("maxmemory", "-1"), FAILED.format("maxmemory", "argument must be a memory value")),
        (("maxmemory", "1.5gb"), FAILED.format("maxmemory", "argument must be a memory value")),
        (("maxmemory", str(1 << 64)), FAILED.format("maxmemory", "argument must be a memory value")),
        (
            ("maxmemory-samples", "65"),
            FAILED.format("maxmemory-samples", "argument must be between 1 and 64 inclusive"),
        ),
        (("lazyfree-lazy-expire", "maybe"), FAILED.format("lazyfree-lazy-expire", "argument must be 'yes' or 'no'")),
        (("databases", "1"), FAILED.format("databases", "can't set immutable config")),
        (("save", "abc"), FAILED.format("save", "Invalid save parameters")),
        (("save", "1 1"), FAILED.format("save", 'kevynode accepts nothing but ""')),
        (("appendonly", "yes"), FAILED.format("appendonly", "this node keeps its data in memory only")),
        (("dbfilename", "dump.rdb"), FAILED.format("dbfilename", 'kevynode accepts nothing but "dump.kevysnap"')),
        (("appenddirname", "x"), FAILED.format("appenddirname", "can't set immutable config")),
        (
            ("appendfsync", "often"),
            FAILED.format("appendfsync", "argument(s) must be one of the following: everysec, always, no"),
        ),
        (
            ("notify-keyspace-events", "?"),
            FAILED.format("notify-keyspace-events", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
        ),
        (
            ("client-output-buffer-limit", "normal 1 2"),
            FAILED.format("client-output-buffer-limit", "Wrong number of arguments in buffer limit configuration."),
        ),
        (
            ("client-output-buffer-limit", "master 1 2 3"),
            FAILED.format(
                "client-output-buffer-limit", "Invalid client class specified in buffer limit configuration."
            ),
        ),
        (
            ("client-output-buffer-limit", "normal 1 2 -3"),
            FAILED.format(
                "client-output-buffer-limit",
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
            ),
        ),
    ],
)
def test_set_refuses(node: ServerHarness, words: tuple[str, ...], error: str) -> None:
    before = node.server.parameters.shown() if node.server.parameters else {}
    assert node.connect().call("CONFIG", "SET", *words) == f"-{error}\r\n".encode()
    assert node.server.parameters is not None
    assert node.server.parameters.shown() == before


def test_set_is_all_or_nothing(node: ServerHarness) -> None:
    client = node.connect()
    assert client.call("CONFIG", "SET", "maxmemory", "5", "hz", "abc").startswith(b"-ERR CONFIG SET failed")
    assert value(node, "maxmemory") == "0"
    assert client.call("CONFIG", "SET", "maxmemory", "5", "hz", "7") == b"+OK\r\n"
    assert (value(node, "maxmemory"), value(node, "hz")) == ("5", "7")


def test_a_change_reaches_what_it_is_about(node: ServerHarness) -> None:
    server, client = node.server, node.connect()
    assert server.parameters is not None
    seen: list[int] = []
    server.parameters.watch("hz", seen.append)
    for name, text in (
        ("hz", "50"),
        ("maxmemory", "100mb"),
        ("maxmemory-policy", "allkeys-lfu"),
        ("set-max-intset-entries", "3"),
        ("requirepass", "secret"),
        ("notify-keyspace-events", "Kg"),
        ("client-query-buffer-limit", "2mb"),
        ("client-output-buffer-limit", "pubsub 7 5 3"),
        ("slowlog-max-len", "9"),
        ("slowlog-log-slower-than", "2000"),
    ):
        assert client.call("CONFIG", "SET", name, text) == b"+OK\r\n"
    assert seen == [10, 50]
    assert server.store.settings.maxmemory == 100 << 20
    assert server.store.settings.set_max_intset_entries == 3
    assert server.store.tracker is not None
    assert server.password == b"secret"
    assert server.store.settings.notify_keyspace_events == notify.KEYSPACE | notify.GENERIC
    assert server.query_limit == 2 << 20
    assert server.output_limits == {"normal": (0, 0, 0), "pubsub": (7, 5, 3)}
    assert server.slow_log.limit == 9
    assert server.slow_after == 0.002
    client.call("CONFIG", "SET", "slowlog-log-slower-than", "-1")
    assert server.slow_after == math.inf
    client.call("CONFIG", "SET", "slowlog-log-slower-than", "0", "requirepass", "")
    assert server.slow_after < 0
    assert server.password is None


def test_passwords_stay_out_of_the_log(node: ServerHarness) -> None:
    node.connect().call("CONFIG", "SET", "requirepass", "hunter2")
    assert any(event == "parameter_set" for _, event, _ in node.log.records)
    assert "hunter2" not in repr(node.log.records)


def test_parameters_start_with_the_configuration() -> None:
    node = ServerHarness()
    config = NodeConfig.from_dict(
        {
            "server": {"port": 7000, "bind": "127.0.0.1 ::1", "maxclients": 7},
            "memory": {"maxmemory": "1mb", "maxmemory_policy": "allkeys-lru"},
            "config": {"slowlog-max-len": 3, "Requirepass": "x", "enable-debug-command": "local"},
        },
        parameters=check_parameter,
    )
    parameters = Parameters(node.server, config)
    shown = parameters.shown()
    assert (shown["port"], shown["bind"], shown["maxclients"]) == ("7000", "127.0.0.1 ::1", "7")
    assert node.store.settings.maxmemory == 1 << 20
    assert node.store.settings.maxmemory_policy == "allkeys-lru"
    assert node.server.slow_log.limit == 3
    assert node.server.password == b"x"
    assert parameters.value("enable-debug-command") == "local"
    parameters.put("port", 7001)
    assert parameters.value("port") == 7001


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("maxmemory-samples", "5", None),
        ("MAXMEMORY-SAMPLES", "5", None),
        ("zset-max-ziplist-entries", "5", None),
        ("enable-debug-command", "local", None),
        ("databases", "1", None),
        ("daemonize", "no", None),
        ("databases", "16", '"16" is not accepted (accepted: "1")'),
        ("maxmemory-samples", "x", '"x" is not accepted (argument couldn\'t be parsed into an integer)'),
        ("never", "1", "not a Valkey parameter that kevynode knows (CONFIG GET * shows those it knows)"),
    ],
)
def test_check_parameter(name: str, text: str, complaint: str | None) -> None:
    assert check_parameter(name, text) == complaint


def test_what_has_no_effect_is_known() -> None:
    assert without_effect(["lazyfree-lazy-expire", "maxmemory", "lua-time-limit"]) == [
        "lazyfree-lazy-expire",
        "lua-time-limit",
    ]


def test_resetstat_zeroes_counters(node: ServerHarness) -> None:
    client = node.connect()
    client.call("GET", "a")
    client.call("NEVER")
    assert node.server.statistics.error_replies == 1
    assert client.call("CONFIG", "RESETSTAT") == b"+OK\r\n"
    assert node.server.statistics.error_replies == 0
    assert node.store.misses == 0
    # RESETSTAT itself counts.
    assert node.server.rates.commands() == 1


def test_rewrite_is_refused(node: ServerHarness) -> None:
    assert node.connect().call("CONFIG", "REWRITE").startswith(b"-ERR Rewriting config file: ")
