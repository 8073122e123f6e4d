"""The configuration of a node: ``NodeConfig`` from a TOML file, a dictionary, the environment and flags.

A value set later wins over one set earlier: defaults, then the file (or dictionary), then ``KEVYNODE_<SECTION>_<KEY>``
in the environment, then flags. Every mistake is collected, and one :class:`ConfigError` names them all: where it
stands, the dotted key path, and what is accepted. Loading a configuration touches nothing but the file itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self

import attrs
import tomli

from kevynode.config_cluster import (
    check_cluster,
    read_peer_tables,
    read_peer_text,
    read_scope_tables,
    read_scope_text,
    refusal,
    show_key,
)
from kevynode.config_schema import (
    ClusterConfig,
    ExpiryConfig,
    LogConfig,
    MemoryConfig,
    Option,
    PeerConfig,
    PersistenceConfig,
    ReplicationConfig,
    ScopeConfig,
    ServerConfig,
    options,
)
from kevynode.config_values import show

__all__ = [
    "ClusterConfig",
    "ConfigError",
    "ConfigProblem",
    "ExpiryConfig",
    "LogConfig",
    "MemoryConfig",
    "NodeConfig",
    "ParameterCheck",
    "PeerConfig",
    "PersistenceConfig",
    "ReplicationConfig",
    "ScopeConfig",
    "ServerConfig",
    "Setting",
    "flag",
]

# Given the name and value of a Valkey parameter, says what is wrong with them, or None.
ParameterCheck = Callable[[str, str], "str | None"]

_SECTIONS: dict[str, type] = {
    "server": ServerConfig,
    "persistence": PersistenceConfig,
    "memory": MemoryConfig,
    "expiry": ExpiryConfig,
    "log": LogConfig,
    "replication": ReplicationConfig,
    "cluster": ClusterConfig,
}
_SECTION_NAMES = (*list(_SECTIONS)[:5], "config", *list(_SECTIONS)[5:])
_OPTIONS: dict[str, Option] = {
    f"{section}.{name}": option for section, cls in _SECTIONS.items() for name, _, option in options(cls)
}

# Other spellings of a key. Valkey parameters that have a key of their own are the same setting under both names.
_SAME_AS = {
    "replication.listen_port_base": "replication.listen_port",
    "config.port": "server.port",
    "config.bind": "server.bind",
    "config.dir": "server.data_dir",
    "config.unixsocket": "server.unixsocket",
    "config.maxclients": "server.maxclients",
    "config.timeout": "server.timeout",
    "config.appendonly": "persistence.aof",
    "config.appendfsync": "persistence.appendfsync",
    "config.auto-aof-rewrite-percentage": "persistence.auto_aof_rewrite_percentage",
    "config.auto-aof-rewrite-min-size": "persistence.auto_aof_rewrite_min_size",
    "config.maxmemory": "memory.maxmemory",
    "config.maxmemory-policy": "memory.maxmemory_policy",
    "config.hz": "expiry.hz",
    "config.repl-backlog-size": "replication.replication_buffer_size",
    "config.replica-read-only": "replication.replica_read_only",
    "config.min-replicas-to-write": "replication.min_replicas_to_write",
    # kevy's names for Valkey parameters
    "memory.maxmemory_samples": "config.maxmemory-samples",
    "slowlog.slower_than_micros": "config.slowlog-log-slower-than",
    "slowlog.max_len": "config.slowlog-max-len",
    "notification.notify_keyspace_events": "config.notify-keyspace-events",
}

# Keys of a kevy file that mean nothing here. They are accepted, with a warning.
_WITHOUT_MEANING = frozenset(
    {
        "server.threads",
        "server.accept_shards",
        "cluster.enabled",
        "cluster.port_base",
        "cluster.elect_port_base",
        "replication.single_source",
        "advanced.spin_limit",
        "advanced.park_timeout_ms",
        "advanced.tick_check_every",
        "advanced.ring_capacity",
    }
)
_KEVY_SECTIONS = frozenset({"advanced", "slowlog", "notification"})

# Values of these never show in an error or a log.
_SECRETS = frozenset({"config.requirepass", "config.masterauth", "config.primaryauth", "config.tls-key-file-pass"})

_ENVIRONMENT_PREFIX = "KEVYNODE_"
# Read by kevynode.twins, before there is any configuration.
_NO_SETTINGS = frozenset({"KEVYNODE_PURE"})
# What Kubernetes puts into every pod's environment for a service called kevynode…: no setting of ours.
_SERVICE_LINK = re.compile(r"KEVYNODE_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)\Z")
_PARAMETER_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\Z")
_PARAMETER_VALUES = "text, an integer, a number or true/false"


@attrs.frozen
class ConfigProblem:
    """One mistake: ``source`` is the file, variable or flag ("" for a dictionary), ``path`` the dotted key."""

    source: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.path, self.message) if part)


class ConfigError(Exception):
    """Every mistake of a configuration, in ``problems``; its text has one line for each."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@attrs.frozen
class Setting:
    """One value for one key. ``text`` says that it comes from a variable or a flag and is read as text."""

    source: str
    path: str
    value: object
    text: bool = False


def flag(name: str, path: str, value: str) -> Setting:
    """The setting a command line flag makes; ``name`` stands in errors about it."""
    return Setting(name, path, value, text=True)


def _no_parameters() -> Mapping[str, str]:
    return MappingProxyType({})


@attrs.frozen
class NodeConfig:
    """A checked configuration. Sections are attributes; ``parameters`` is ``[config]``, Valkey name to value.

    >>> config = NodeConfig.from_dict({"server": {"port": 0}, "memory": {"maxmemory": "64mb"}})
    >>> config.server.port, config.memory.maxmemory, config.log.level
    (0, 67108864, 'info')
    >>> NodeConfig.from_dict({"server": {"port": 70000}})
    Traceback (most recent call last):
    kevynode.config.ConfigError: server.port: 70000 is not accepted (accepted: an integer from 0 to 65535)
    """

    server: ServerConfig = attrs.field(factory=ServerConfig)
    persistence: PersistenceConfig = attrs.field(factory=PersistenceConfig)
    memory: MemoryConfig = attrs.field(factory=MemoryConfig)
    expiry: ExpiryConfig = attrs.field(factory=ExpiryConfig)
    log: LogConfig = attrs.field(factory=LogConfig)
    parameters: Mapping[str, str] = attrs.field(factory=_no_parameters, hash=False)
    replication: ReplicationConfig = attrs.field(factory=ReplicationConfig)
    cluster: ClusterConfig = attrs.field(factory=ClusterConfig)
    # Open declared scopes without asking the peers who owns them / without looking for a copy of lost data.
    # For one start only, so they are flags and no keys.
    trust_config: bool = False
    start_empty: bool = False
    # Dotted paths of the keys that were set, whatever their value.
    explicit: frozenset[str] = attrs.field(default=frozenset(), eq=False, repr=False)
    # One line each, for the log at start.
    warnings: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        flags: Iterable[Setting] = (),
        parameters: ParameterCheck | None = None,
        trust_config: bool = False,
        start_empty: bool = False,
    ) -> Self:
        """Read the file at ``path`` (none: defaults only), the environment (None: the process's) and ``flags``.

        ``parameters`` checks the entries of ``[config]``; without it the node's own table does. Blocks for as long as
        reading the file takes. Raises :class:`ConfigError` with every mistake, an unreadable file included.
        """
        reader = _Reader(parameters)
        if path is not None:
            name = os.fspath(path)
            reader.read(_from_tables(name, _parse_file(name, reader), reader))
        reader.read(_from_environment(os.environ if environment is None else environment, reader))
        reader.read(flags)
        return cls(**reader.finish(), trust_config=trust_config, start_empty=start_empty)

    @classmethod
    def from_dict(
        cls,
        tables: Mapping[str, object],
        *,
        environment: Mapping[str, str] | None = None,
        flags: Iterable[Setting] = (),
        parameters: ParameterCheck | None = None,
        trust_config: bool = False,
        start_empty: bool = False,
    ) -> Self:
        """The same from a dictionary of the shape of the file; the environment counts only if it is given."""
        reader = _Reader(parameters)
        reader.read(_from_tables("", tables, reader))
        reader.read(_from_environment(environment or {}, reader))
        reader.read(flags)
        return cls(**reader.finish(), trust_config=trust_config, start_empty=start_empty)

    @property
    def replication_port(self) -> int:
        """The port replicas connect to; 0 is any free port."""
        if self.replication.listen_port:
            return self.replication.listen_port
        port = self.server.port
        return port + 10000 if 0 < port <= 55535 else 0

    @property
    def own_peer(self) -> PeerConfig | None:
        """This node's entry in the peer list, which says what it advertises."""
        return next((peer for peer in self.cluster.peers if peer.id == self.cluster.node_id), None)


def _check_parameter(name: str, value: str) -> str | None:
    """What is wrong with an entry of ``[config]``, by the node's own table; loaded only where there is an entry."""
    from .serve.parameters import check_parameter

    return check_parameter(name, value)


class _Reader:
    """Takes settings in rising precedence, keeps the last value of each key, and collects what is wrong."""

    def __init__(self, parameters: ParameterCheck | None) -> None:
        self._check_parameter = parameters or _check_parameter
        self._problems: list[ConfigProblem] = []
        self._warnings: list[str] = []
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}

    def problem(self, source: str, path: str, message: str) -> None:
        self._problems.append(ConfigProblem(source, path, message))

    def warn(self, source: str, path: str, message: str) -> None:
        self._warnings.append(str(ConfigProblem(source, path, message)))

    def read(self, layer: Iterable[Setting]) -> None:
        """Take one layer; a key set twice in it, under two names, is a mistake."""
        given: dict[str, str] = {}
        for setting in layer:
            target = self._target(setting)
            if target is None:
                continue
            if target in given:
                self.problem(setting.source, setting.path, f"the same setting as {given[target]}; keep one of them")
            given[target] = setting.path
            self._sources[target] = setting.source
            self._take(setting, target)

    def _target(self, setting: Setting) -> str | None:
        """The key that ``setting`` is for, or None after saying why there is none."""
        path = _SAME_AS.get(setting.path, setting.path)
        if path in _WITHOUT_MEANING:
            self.warn(setting.source, setting.path, "has no meaning for kevynode and is ignored")
            return None
        if path in ("cluster.peer", "cluster.peers"):
            return "cluster.peers"
        if path in ("cluster.scope", "cluster.scopes"):
            return "cluster.scopes"
        section, _, key = path.partition(".")
        if path in _OPTIONS or (section == "config" and _PARAMETER_NAME.match(key)):
            return path
        if section == "config":
            self.problem(
                setting.source, path, "unknown parameter (accepted: Valkey's names, such as maxmemory-samples)"
            )
        else:
            self.problem(setting.source, path, f"unknown key (accepted: {', '.join(_keys(section))})")
        return None

    def _take(self, setting: Setting, target: str) -> None:
        def report(path: str, message: str) -> None:
            self.problem(setting.source, path, message)

        def warn(path: str, message: str) -> None:
            self.warn(setting.source, path, message)

        if setting.path == "cluster.peers":
            self._values[target] = read_peer_text(setting.value, report, warn)
        elif setting.path == "cluster.peer":
            self._values[target] = read_peer_tables(setting.value, report)
        elif setting.path == "cluster.scopes":
            self._values[target] = read_scope_text(setting.value, report)
        elif setting.path == "cluster.scope":
            self._values[target] = read_scope_tables(setting.value, report)
        elif target.startswith("config."):
            self._take_parameter(setting, target)
        else:
            self._take_option(setting, target)

    def _take_option(self, setting: Setting, target: str) -> None:
        kind = _OPTIONS[target].kind
        # Under its Valkey name a value may be written as Valkey writes it: "yes", "100".
        as_text = setting.text or (setting.path.startswith("config.") and isinstance(setting.value, str))
        try:
            self._values[target] = kind.parse_text(str(setting.value)) if as_text else kind.parse(setting.value)
        except ValueError as error:
            self.problem(setting.source, setting.path, refusal(setting.value, kind.accepted, str(error)))

    def _take_parameter(self, setting: Setting, target: str) -> None:
        value = setting.value
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, int | float):
            value = show(value) if isinstance(value, int) else repr(value)
        if not isinstance(value, str):
            secret = target in _SECRETS
            self.problem(setting.source, setting.path, refusal(value, _PARAMETER_VALUES, secret=secret))
            return
        complaint = self._check_parameter(target.removeprefix("config."), value)
        if complaint is not None:
            self.problem(setting.source, setting.path, complaint)
        self._values[target] = value

    def finish(self) -> dict[str, Any]:
        """The arguments of ``NodeConfig``, or a ``ConfigError`` with everything that was found."""
        sections = {name: cls(**self._section(name)) for name, cls in _SECTIONS.items()}
        self._check_replication(sections["server"], sections["replication"])
        has_read_peers = not any(problem.path.startswith("cluster.peer") for problem in self._problems)
        check_cluster(sections["cluster"], self._report, knows_peers=has_read_peers)
        if self._problems:
            raise ConfigError(self._problems)
        return {
            **sections,
            "parameters": MappingProxyType(self._section("config")),
            "explicit": frozenset(self._values),
            "warnings": tuple(self._warnings),
        }

    def _section(self, name: str) -> dict[str, Any]:
        start = name + "."
        return {path.removeprefix(start): value for path, value in self._values.items() if path.startswith(start)}

    def _report(self, path: str, message: str) -> None:
        """A mistake between keys; it is laid to the place that set the key it names."""
        target = {"cluster.peer": "cluster.peers", "cluster.scope": "cluster.scopes"}.get(path, path)
        if target in self._sources and target not in self._values:
            # Its value could not be read, which has been reported already.
            return
        self.problem(self._sources.get(target, ""), path, message)

    def _check_replication(self, server: ServerConfig, replication: ReplicationConfig) -> None:
        if replication.role == "replica":
            if not replication.upstream:
                self._report("replication.upstream", 'missing: a replica needs it (accepted: "host:port")')
        elif replication.upstream and "replication.role" in self._values:
            source = self._sources["replication.upstream"]
            self.warn(source, "replication.upstream", f'has no effect while replication.role is "{replication.role}"')
        elif replication.upstream and "replication.role" not in self._sources:
            self._report("replication.upstream", 'is set, so replication.role must say "replica", or "primary"')
        if replication.listen_port and replication.listen_port == server.port:
            self._report("replication.listen_port", f"{server.port} is the client port as well")
        if replication.upstream and replication.upstream_shards > 1:
            last = int(replication.upstream.rpartition(":")[2]) + replication.upstream_shards - 1
            if last > 65535:
                self._report("replication.upstream_shards", f"the last of these ports would be {last}, above 65535")


def _keys(section: str) -> list[str]:
    """The keys of a section as an error lists them."""
    names = [path.removeprefix(section + ".") for path in _OPTIONS if path.startswith(section + ".")]
    if section == "cluster":
        names += ["peer", "scope", "peers", "scopes"]
    return names or sorted(
        path.partition(".")[2] for path in {*_SAME_AS, *_WITHOUT_MEANING} if path.startswith(section + ".")
    )


def _parse_file(name: str, reader: _Reader) -> Mapping[str, object]:
    try:
        with open(name, "rb") as file:
            text = file.read().decode("utf-8")
    except OSError as error:
        reader.problem(name, "", error.strerror or str(error))
        return {}
    except UnicodeDecodeError as error:
        reader.problem(name, "", f"not UTF-8 at byte {error.start}")
        return {}
    try:
        return tomli.loads(text)
    # ValueError: tomli's own error, and integers too long for int(). RecursionError: nesting without end.
    except (ValueError, RecursionError) as error:
        reader.problem(name, "", f"not valid TOML: {error}")
        return {}


def _from_tables(source: str, tables: Mapping[str, object], reader: _Reader) -> Iterator[Setting]:
    """The settings of a file or dictionary; what is no section is reported to ``reader``."""
    for section, table in tables.items():
        if section not in _SECTION_NAMES and section not in _KEVY_SECTIONS:
            reader.problem(source, show_key(section), f"unknown section (accepted: {', '.join(_SECTION_NAMES)})")
        elif not isinstance(table, Mapping):
            reader.problem(source, section, refusal(table, "a table, [" + section + "]"))
        else:
            for key, value in table.items():
                name = key.lower() if section == "config" and isinstance(key, str) else key
                yield Setting(source, f"{section}.{show_key(name)}", value)


def _from_environment(environment: Mapping[str, str], reader: _Reader) -> Iterator[Setting]:
    """The settings of ``KEVYNODE_<SECTION>_<KEY>``; other variables that begin so get a warning."""
    for name in sorted(environment):
        if not name.startswith(_ENVIRONMENT_PREFIX) or name in _NO_SETTINGS:
            continue
        section, _, key = name.removeprefix(_ENVIRONMENT_PREFIX).lower().partition("_")
        path = f"{section}.{key.replace('_', '-') if section == 'config' else key}"
        if _SERVICE_LINK.match(name) and (path not in _OPTIONS or "://" in environment[name]):
            continue
        if section not in _SECTION_NAMES or not key:
            reader.warn(name, "", f"no such section (sections: {', '.join(_SECTION_NAMES)}); it is ignored")
        elif path in ("cluster.peer", "cluster.scope"):
            reader.problem(name, path, f"cannot be set here; {name}S takes one string")
        else:
            yield Setting(name, path, environment[name], text=True)
