"""Reading a configuration: precedence, aliases, the text of every kind of mistake."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from kevynode.config import (
    ConfigError,
    NodeConfig,
    PeerConfig,
    ScopeConfig,
    flag,
)


def problems(tables: dict[Any, Any], **options: Any) -> list[str]:
    """What is wrong with ``tables``; nothing if they load."""
    try:
        NodeConfig.from_dict(tables, **options)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_defaults_are_those_of_the_contract() -> None:
    config = NodeConfig.from_dict({})
    assert attrs.asdict(config.server) == {
        "bind": ("127.0.0.1",),
        "port": 6004,
        "data_dir": ".",
        "advertise": "",
        "unixsocket": "",
        "maxclients": 10000,
        "timeout": 0,
    }
    assert attrs.asdict(config.persistence) == {
        "aof": True,
        "appendfsync": "everysec",
        "auto_aof_rewrite_percentage": 100,
        "auto_aof_rewrite_min_size": 64 * 1024 * 1024,
    }
    assert attrs.asdict(config.memory) == {"maxmemory": 0, "maxmemory_policy": "noeviction"}
    assert attrs.asdict(config.expiry) == {"hz": 10, "sample": 20}
    assert attrs.asdict(config.log) == {"level": "info", "output": "stderr", "format": "text"}
    assert attrs.asdict(config.replication) == {
        "role": "primary",
        "upstream": "",
        "upstream_shards": 1,
        "listen_port": 0,
        "replication_buffer_size": 256 * 1024 * 1024,
        "reconnect_window_ms": 60000,
        "replica_read_only": True,
        "replica_max_staleness_ms": 0,
        "min_replicas_to_write": 0,
        "min_replicas_max_lag_ms": 10000,
    }
    assert attrs.asdict(config.cluster) == {"node_id": "", "replicate": "all", "peers": (), "scopes": ()}
    assert dict(config.parameters) == {}
    assert (config.trust_config, config.start_empty) == (False, False)
    assert (config.explicit, config.warnings) == (frozenset(), ())
    assert config == NodeConfig()


FULL = """
[server]
bind = ["10.0.0.1", "::1"]
port = 7000
data_dir = "/var/lib/kevynode"
advertise = "[2001:db8::1]:7000"
unixsocket = "/run/kevynode.sock"
maxclients = 50
timeout = 30
[persistence]
aof = false
appendfsync = "Always"
auto_aof_rewrite_percentage = 0
auto_aof_rewrite_min_size = "1gb"
[memory]
maxmemory = "100mb"
maxmemory_policy = "allkeys-lru"
[expiry]
hz = 500
sample = 5
[log]
level = "warn"
output = "/var/log/kevynode.log"
format = "json"
[config]
slowlog-max-len = 5
Notify-Keyspace-Events = "KEA"
activedefrag = false
[replication]
role = "replica"
upstream = "primary.internal:16004"
upstream_shards = 4
listen_port = 17000
replication_buffer_size = 1000
reconnect_window_ms = 5
replica_read_only = false
replica_max_staleness_ms = 6
min_replicas_to_write = 7
min_replicas_max_lag_ms = 8
[cluster]
node_id = "a"
replicate = ["app:"]
[[cluster.peer]]
id = "a"
address = "10.0.0.1:7000"
replication = "10.0.0.1:9"
[[cluster.peer]]
id = "b"
address = "10.0.0.2:6004"
kind = "kevy"
[[cluster.scope]]
prefix = "app:"
writer = "a"
fallback = "b"
[[cluster.scope]]
prefix = "überall:"
writer = "b"
"""


def test_every_key_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(FULL, encoding="utf-8")
    config = NodeConfig.load(file, environment={})
    assert config.server.bind == ("10.0.0.1", "::1")
    assert config.server.advertise == "[2001:db8::1]:7000"
    assert config.server.unixsocket == "/run/kevynode.sock"
    assert (config.server.maxclients, config.server.timeout) == (50, 30)
    assert attrs.astuple(config.persistence) == (False, "always", 0, 1 << 30)
    assert attrs.astuple(config.memory) == (100 << 20, "allkeys-lru")
    assert attrs.astuple(config.expiry) == (500, 5)
    assert attrs.astuple(config.log) == ("warning", "/var/log/kevynode.log", "json")
    assert config.parameters == {"slowlog-max-len": "5", "notify-keyspace-events": "KEA", "activedefrag": "no"}
    assert attrs.astuple(config.replication) == (
        *("replica", "primary.internal:16004", 4, 17000, 1000, 5, False, 6, 7, 8),
    )
    assert config.cluster.replicate == (b"app:",)
    assert config.cluster.peers == (
        PeerConfig("a", "10.0.0.1:7000", "10.0.0.1:9"),
        PeerConfig("b", "10.0.0.2:6004", "10.0.0.2:16004", "kevy"),
    )
    assert config.cluster.scopes == (
        ScopeConfig(b"app:", "a", "b"),
        ScopeConfig("überall:".encode(), "b", None),
    )
    assert config.own_peer == config.cluster.peers[0]
    assert config == NodeConfig.from_dict(tomli.loads(FULL))


def test_flags_go_before_environment_before_file_before_defaults(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[server]\nport = 1\nmaxclients = 1\ntimeout = 1\n")
    config = NodeConfig.load(
        file,
        environment={"KEVYNODE_SERVER_PORT": "2", "KEVYNODE_SERVER_MAXCLIENTS": "2", "OTHER_SERVER_TIMEOUT": "2"},
        flags=[flag("--port", "server.port", "3")],
    )
    assert (config.server.port, config.server.maxclients, config.server.timeout) == (3, 2, 1)
    assert config.server.data_dir == "."
    assert config.explicit == {"server.port", "server.maxclients", "server.timeout"}


def test_the_environment_of_the_process_counts_for_files_and_not_for_dictionaries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEVYNODE_SERVER_PORT", "1234")
    assert NodeConfig.load().server.port == 1234
    assert NodeConfig.from_dict({}).server.port == 6004


ENVIRONMENT = [
    ("KEVYNODE_SERVER_BIND", "::1, 127.0.0.1", "server.bind", ("::1", "127.0.0.1")),
    ("KEVYNODE_SERVER_DATA_DIR", "/data", "server.data_dir", "/data"),
    ("KEVYNODE_PERSISTENCE_AOF", "no", "persistence.aof", False),
    ("KEVYNODE_PERSISTENCE_AOF", "ON", "persistence.aof", True),
    ("KEVYNODE_MEMORY_MAXMEMORY", "1k", "memory.maxmemory", 1000),
    ("KEVYNODE_MEMORY_MAXMEMORY_POLICY", "volatile-ttl", "memory.maxmemory_policy", "volatile-ttl"),
    ("KEVYNODE_EXPIRY_HZ", "1", "expiry.hz", 1),
    ("KEVYNODE_LOG_LEVEL", "DEBUG", "log.level", "debug"),
    ("KEVYNODE_REPLICATION_MIN_REPLICAS_TO_WRITE", "2", "replication.min_replicas_to_write", 2),
    ("KEVYNODE_REPLICATION_LISTEN_PORT_BASE", "9", "replication.listen_port", 9),
    ("KEVYNODE_CLUSTER_NODE_ID", "a", "cluster.node_id", "a"),
    ("KEVYNODE_CLUSTER_REPLICATE", "none", "cluster.replicate", "none"),
    ("KEVYNODE_CONFIG_MAXMEMORY", "2kb", "memory.maxmemory", 2048),
]


@pytest.mark.parametrize(("name", "text", "path", "value"), ENVIRONMENT)
def test_environment_values_are_read_as_text(name: str, text: str, path: str, value: object) -> None:
    config = NodeConfig.from_dict({}, environment={name: text})
    section, _, key = path.partition(".")
    assert getattr(getattr(config, section), key) == value
    assert config.explicit == {path}


def test_parameters_and_lists_come_from_the_environment_too() -> None:
    config = NodeConfig.from_dict(
        {"cluster": {"node_id": "a", "peer": [{"id": "z", "address": "h:1"}]}},
        environment={
            "KEVYNODE_CONFIG_SLOWLOG_MAX_LEN": "7",
            "KEVYNODE_CLUSTER_PEERS": "a@h:1:2,b@h:3:4",
            "KEVYNODE_CLUSTER_SCOPES": "x:=a|b",
            "KEVYNODE_CLUSTER_REPLICATE": "x:",
        },
    )
    assert config.parameters == {"slowlog-max-len": "7"}
    assert [peer.id for peer in config.cluster.peers] == ["a", "b"]
    assert config.cluster.scopes == (ScopeConfig(b"x:", "a", "b"),)
    assert config.cluster.replicate == (b"x:",)


def test_variables_that_are_no_settings_are_told_from_mistakes() -> None:
    config = NodeConfig.from_dict(
        {},
        environment={
            # Kubernetes describes a service called kevynode, or kevynode-server, like this.
            "KEVYNODE_SERVICE_HOST": "10.0.0.1",
            "KEVYNODE_PORT": "tcp://10.0.0.1:6004",
            "KEVYNODE_PORT_6004_TCP_ADDR": "10.0.0.1",
            "KEVYNODE_SERVER_PORT": "tcp://10.0.0.1:6004",
            "KEVYNODE_SERVER_SERVICE_PORT_CLIENT": "6004",
            "KEVYNODE_SERVR_TIMEOUT": "3",
        },
    )
    assert config.server.port == 6004
    [warning] = config.warnings
    assert warning.startswith("KEVYNODE_SERVR_TIMEOUT: no such section")
    assert problems({}, environment={"KEVYNODE_SERVER_TIMEUOT": "3"}) == [
        "KEVYNODE_SERVER_TIMEUOT: server.timeuot: unknown key (accepted: bind, port, data_dir, advertise, unixsocket, "
        "maxclients, timeout)"
    ]
    assert problems({}, environment={"KEVYNODE_CLUSTER_PEER": "x"}) == [
        "KEVYNODE_CLUSTER_PEER: cluster.peer: cannot be set here; KEVYNODE_CLUSTER_PEERS takes one string"
    ]


MISTAKES: list[tuple[dict[Any, Any], list[str]]] = [
    ({"servre": {}}, ["servre: unknown section (accepted: server, persistence, memory, expiry, log, config, "]),
    ({"a\nb": {}}, ['"a\\nb": unknown section']),
    ({3: {}}, ["3: unknown section"]),
    ({"server": 3}, ["server: 3 is not accepted (accepted: a table, [server])"]),
    ({"server": {"a\nb": 1}}, ['server."a\\nb": unknown key (accepted: bind, port']),
    ({"server": {7: 1}}, ["server.7: unknown key"]),
    ({"advanced": {"x": 1}}, ["advanced.x: unknown key (accepted: park_timeout_ms, ring_capacity"]),
    ({"cluster": {"peer_list": 1}}, ["cluster.peer_list: unknown key (accepted: node_id, replicate, peer, scope"]),
    ({"server": {"port": "6004"}}, ['server.port: "6004" is not accepted (accepted: an integer from 0 to 65535)']),
    ({"server": {"port": True}}, ["server.port: true is not accepted"]),
    ({"server": {"port": 65536}}, ["server.port: 65536 is not accepted"]),
    ({"server": {"port": 10**5000}}, ["server.port: an integer of more than 20 digits is not accepted"]),
    ({"server": {"port": 1.5}}, ["server.port: a value of type float is not accepted"]),
    ({"server": {"bind": "10.0.0.300"}}, ['server.bind: "10.0.0.300" is not accepted (accepted: IPv4 or IPv6']),
    ({"server": {"bind": []}}, ["server.bind: a list is not accepted: no address is given"]),
    ({"server": {"bind": ["::1", "[::1]"]}}, ["server.bind: a list is not accepted: ::1 is given twice"]),
    ({"server": {"bind": [1]}}, ["server.bind: a list is not accepted"]),
    ({"server": {"bind": 1}}, ["server.bind: 1 is not accepted"]),
    ({"server": {"data_dir": ""}}, ['server.data_dir: "" is not accepted: it is empty']),
    ({"server": {"data_dir": "a\0b"}}, ['server.data_dir: "a\\x00b" is not accepted: it holds a control character']),
    ({"server": {"data_dir": "\ud800"}}, ["server.data_dir: ", "not valid Unicode"]),
    ({"server": {"unixsocket": "/" + 107 * "x"}}, ["server.unixsocket: ", "longer than 107 bytes"]),
    ({"server": {"advertise": "host"}}, ['server.advertise: "host" is not accepted (accepted: "host:port"']),
    ({"server": {"advertise": "::1:6004"}}, ['server.advertise: "::1:6004" is not accepted']),
    ({"server": {"advertise": "h:0"}}, ["the port is not from 1 to 65535"]),
    ({"server": {"advertise": "h-:1"}}, ['server.advertise: "h-:1" is not accepted']),
    ({"persistence": {"aof": "yes"}}, ['persistence.aof: "yes" is not accepted (accepted: true or false)']),
    ({"persistence": {"appendfsync": "often"}}, ['(accepted: "always", "everysec", "no")']),
    ({"memory": {"maxmemory": "1.5gb"}}, ['memory.maxmemory: "1.5gb" is not accepted (accepted: bytes as an integer']),
    ({"memory": {"maxmemory": -1}}, ["memory.maxmemory: -1 is not accepted"]),
    ({"memory": {"maxmemory": "9999999tb"}}, ["larger than 2^63 - 1 bytes"]),
    ({"memory": {"maxmemory_policy": 5}}, ["memory.maxmemory_policy: 5 is not accepted"]),
    ({"config": {"no_such": 1}}, ["config.no_such: unknown parameter"]),
    ({"config": {"save": [1]}}, ["config.save: a list is not accepted (accepted: text, an integer"]),
    ({"config": {"requirepass": [1]}}, ["config.requirepass: the value is not accepted"]),
    ({"config": {"maxmemory": "x"}}, ['config.maxmemory: "x" is not accepted']),
    ({"config": {"port": 1}, "server": {"port": 1}}, ["server.port: the same setting as config.port; keep one"]),
    (
        {"replication": {"listen_port": 1, "listen_port_base": 1}},
        ["replication.listen_port_base: the same setting as replication.listen_port"],
    ),
    ({"replication": {"role": "replica"}}, ["replication.upstream: missing: a replica needs it"]),
    ({"replication": {"role": "replica", "upstream": ""}}, ["replication.upstream: missing: a replica needs it"]),
    ({"replication": {"role": "replica", "upstream": "x"}}, ['replication.upstream: "x" is not accepted']),
    ({"replication": {"upstream": "h:1"}}, ["replication.upstream: is set, so replication.role must say"]),
    ({"replication": {"listen_port": 6004}}, ["replication.listen_port: 6004 is the client port as well"]),
    (
        {"replication": {"role": "replica", "upstream": "h:65535", "upstream_shards": 2}},
        ["replication.upstream_shards: the last of these ports would be 65536, above 65535"],
    ),
    ({"cluster": {"node_id": "a b"}}, ['cluster.node_id: "a b" is not accepted (accepted: 1 to 64 letters']),
    ({"cluster": {"replicate": "some"}}, ['cluster.replicate: "some" is not accepted (accepted: "all", "none" or a']),
    ({"cluster": {"replicate": ["x", "x"]}}, ['cluster.replicate: a list is not accepted: "x" is given twice']),
    ({"cluster": {"replicate": [3]}}, ["cluster.replicate: a list is not accepted"]),
    ({"cluster": {"replicate": 3}}, ["cluster.replicate: 3 is not accepted"]),
]


@pytest.mark.parametrize(("tables", "expected"), MISTAKES, ids=[expected[0][:40] for _, expected in MISTAKES])
def test_each_mistake_is_one_line_that_names_path_and_accepted_values(
    tables: dict[Any, Any], expected: list[str]
) -> None:
    [problem] = problems(tables)
    assert "\n" not in problem
    for part in expected:
        assert part in problem


def test_all_mistakes_are_reported_at_once_each_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[server]\nport = -1\nprot = 3\n[log]\nlevel = "loud"\n[cluster]\nnode_id = "a"\nscopes = "p:a"\n')
    with pytest.raises(ConfigError) as caught:
        NodeConfig.load(
            file,
            environment={"KEVYNODE_EXPIRY_HZ": "fast"},
            flags=[flag("--port", "server.port", "x"), flag("--replicaof", "replication.upstream", "nowhere")],
        )
    found = [(problem.source, problem.path) for problem in caught.value.problems]
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    assert found == [
        (str(file), "server.port"),
        (str(file), "server.prot"),
        (str(file), "log.level"),
        (str(file), "cluster.scopes"),
        ("KEVYNODE_EXPIRY_HZ", "expiry.hz"),
        ("--port", "server.port"),
        ("--replicaof", "replication.upstream"),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[server\n", "not valid TOML: "),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"x = " + b"9" * 5000, "not valid TOML: "),
        (b"x = " + b"[" * 100_000, "not valid TOML: "),
        (b"x = 1\nx = 2\n", "not valid TOML: "),
    ],
    ids=["syntax", "encoding", "integer", "nesting", "duplicate"],
)
def test_a_file_that_is_no_toml_is_one_problem(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        NodeConfig.load(file, environment={})
    assert str(caught.value).startswith(f"{file}: {expected}")


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            NodeConfig.load(path, environment={})
        assert str(caught.value) == f"{path}: {reason}"


def test_valkey_names_set_the_keys_that_have_one() -> None:
    config = NodeConfig.from_dict(
        {"config": {"maxmemory": "1mb", "appendonly": "no", "hz": "50", "Bind": "* ::*", "maxmemory-samples": 3}}
    )
    assert config.memory.maxmemory == 1 << 20
    assert config.persistence.aof is False
    assert config.expiry.hz == 50
    assert config.server.bind == ("0.0.0.0", "::")
    assert config.parameters == {"maxmemory-samples": "3"}


def test_parameters_are_checked_by_whoever_knows_them() -> None:
    def check(name: str, value: str) -> str | None:
        return None if name == "lazyfree-lazy-expire" and value == "yes" else f"{name}={value} refused"

    assert problems({"config": {"lazyfree-lazy-expire": True}}, parameters=check) == []
    assert problems({"config": {"lazyfree-lazy-expire": 0.5, "other": "1"}}, parameters=check) == [
        "config.lazyfree-lazy-expire: lazyfree-lazy-expire=0.5 refused",
        "config.other: other=1 refused",
    ]


def test_a_kevy_file_keeps_its_meaning_and_warns_about_the_rest() -> None:
    config = NodeConfig.from_dict(
        {
            "server": {"threads": 8},
            "memory": {"maxmemory_samples": 5},
            "log": {"level": "trace"},
            "slowlog": {"slower_than_micros": 10, "max_len": 3},
            "notification": {"notify_keyspace_events": "KEA"},
            "advanced": {"spin_limit": 3},
            "cluster": {"enabled": True, "port_base": 7001, "elect_port_base": 7201},
            "replication": {"role": "Primary", "upstream": "h:1", "listen_port_base": 17000, "single_source": True},
        }
    )
    assert config.log.level == "debug"
    assert config.replication_port == 17000
    assert config.parameters == {
        "maxmemory-samples": "5",
        "slowlog-log-slower-than": "10",
        "slowlog-max-len": "3",
        "notify-keyspace-events": "KEA",
    }
    assert [warning.partition(":")[0] for warning in config.warnings] == [
        "server.threads",
        "advanced.spin_limit",
        "cluster.enabled",
        "cluster.port_base",
        "cluster.elect_port_base",
        "replication.single_source",
        "replication.upstream",
    ]


@pytest.mark.parametrize(
    ("port", "listen_port", "expected"),
    [(6004, 0, 16004), (0, 0, 0), (55535, 0, 65535), (55536, 0, 0), (6004, 17, 17), (0, 17, 17)],
)
def test_the_replication_port_follows_the_client_port(port: int, listen_port: int, expected: int) -> None:
    config = NodeConfig.from_dict({"server": {"port": port}, "replication": {"listen_port": listen_port}})
    assert config.replication_port == expected


def test_parameters_are_checked_unless_the_caller_brings_a_check_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"config\.no-such"):
        NodeConfig.from_dict({"config": {"no-such": "1"}})
    config = NodeConfig.from_dict({"config": {"no-such": "1"}}, parameters=lambda name, value: None)
    assert config.parameters == {"no-such": "1"}


def test_a_configuration_cannot_be_changed() -> None:
    config = NodeConfig.from_dict({"config": {"save": ""}})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.server.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.parameters["save"] = "1"  # type: ignore[index]


def test_a_problem_survives_pickling_for_programs_that_load_elsewhere() -> None:
    with pytest.raises(ConfigError) as caught:
        NodeConfig.from_dict({"server": {"port": -1}})
    assert pickle.loads(pickle.dumps(caught.value.problems[0])) == caught.value.problems[0]


# Values as TOML has them, and a few that only a dictionary can hold.
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=8)
    | st.sampled_from(["all", "a@h:1:2", "p=a|b", "64mb", "127.0.0.1", "host:1", "replica", "a", "::1"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
known_keys = st.sampled_from(
    "bind port data_dir advertise unixsocket maxclients timeout threads aof appendfsync maxmemory maxmemory_policy hz "
    "sample level output format role upstream upstream_shards listen_port listen_port_base node_id replicate peer "
    "scope peers scopes maxmemory-samples requirepass".split()
)
nodes = st.lists(
    st.dictionaries(st.sampled_from(["id", "address", "kind", "prefix", "writer", "fallback"]), scalars, max_size=5),
    max_size=3,
)
sections = st.sampled_from("server persistence memory expiry log config replication cluster advanced slowlog".split())
tables = st.dictionaries(
    sections | st.text(max_size=5) | st.integers(),
    st.dictionaries(known_keys | st.text(max_size=5) | st.integers(), values | nodes, max_size=5) | values,
    max_size=4,
)
environments = st.dictionaries(
    st.builds("KEVYNODE_{}_{}".format, sections.map(str.upper), known_keys.map(str.upper)),
    st.text(st.characters(blacklist_characters="\0"), max_size=20) | st.sampled_from(["1", "yes", "a@h:1", "h:2"]),
    max_size=3,
)


@pytest.mark.slow
@given(tables, environments)
def test_any_input_loads_or_raises_config_error_with_single_lines(
    tables: dict[Any, Any], environment: dict[str, str]
) -> None:
    for problem in problems(tables, environment=environment):
        assert problem
        assert problem.isprintable() or environment


def test_the_choice_of_the_implementation_is_no_setting() -> None:
    assert NodeConfig.from_dict({}, environment={"KEVYNODE_PURE": "1"}).warnings == ()
