"""The parameters of a running node, under Valkey's names: what CONFIG GET shows and CONFIG SET changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ..config_values import show
from ..errors import ReplyError
from ..store.access import follow_policy
from .memory_only import MemoryOnly
from .output_limit import OutputLimit
from .parameter_kinds import INT64_MAX
from .parameter_table import ALIASES, PARAMETERS, Parameter

if TYPE_CHECKING:
    from ..config import NodeConfig
    from .server import Server

__all__ = ["ParameterError", "Parameters", "check_parameter", "without_effect"]

# Parameters that are an attribute of the store's settings under the same name, with "_" for "-".
_STORE_SETTINGS: Final = (
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "lfu-decay-time",
    "lfu-log-factor",
    "list-max-listpack-size",
    "maxmemory",
    "maxmemory-policy",
    "maxmemory-samples",
    "proto-max-bulk-len",
    "set-max-intset-entries",
    "set-max-listpack-entries",
    "set-max-listpack-value",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
)


class ParameterError(Exception):
    """A change was refused, and nothing has changed. ``name`` is the parameter as the client wrote it."""

    def __init__(self, name: str, reason: str, unknown: bool = False) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason
        self.unknown = unknown


def _find(name: str) -> Parameter | None:
    name = name.lower()
    return PARAMETERS.get(ALIASES.get(name, name))


def check_parameter(name: str, value: str) -> str | None:
    """What is wrong with a parameter of the configuration, in one line, or None. Pure."""
    parameter = _find(name)
    if parameter is None:
        return "not a Valkey parameter that kevynode knows (CONFIG GET * shows those it knows)"
    shown = "the value" if parameter.secret else show(value)
    try:
        parsed = parameter.kind.parse(value, parameter.default)
    except ValueError as error:
        return f"{shown} is not accepted ({error})"
    if parameter.fixed and parsed != parameter.default:
        return f"{shown} is not accepted (accepted: {show(parameter.kind.show(parameter.default))})"
    return None


def without_effect(names: Iterable[str]) -> list[str]:
    """Those of the parameters called ``names`` that are accepted and change nothing."""
    found = ((name, _find(name)) for name in names)
    return [name for name, parameter in found if parameter is not None and parameter.without_effect]


class Parameters:
    """The values of all parameters. A change takes effect at once, by way of the server and of those who watch it."""

    def __init__(self, server: Server, config: NodeConfig | None = None) -> None:
        """Take the defaults, then what ``config`` says, and apply everything to ``server``.

        The configuration must have been checked with :func:`check_parameter`; raises ValueError for what is not fine.
        """
        self._server = server
        self._values: dict[str, Any] = {name: parameter.default for name, parameter in PARAMETERS.items()}
        self._watchers: dict[str, list[Callable[[Any], None]]] = {}
        if config is not None:
            self._values.update(_configured(config))
            for name, text in config.parameters.items():
                parameter = _find(name)
                if parameter is None:
                    raise ValueError(f"{name} is not a parameter")
                self._values[parameter.name] = parameter.kind.parse(text, self._values[parameter.name])
        for name, value in self._values.items():
            self._apply(name, value)

    def value(self, name: str) -> Any:
        """The value of the parameter called ``name``: int (milliseconds for a time that Valkey has in seconds, and the
        configuration here in milliseconds), bool, str, or what its kind makes of the text.
        """
        return self._values[ALIASES.get(name, name)]

    def put(self, name: str, value: Any) -> None:
        """Say what a parameter is (the port that was found, the folder of the files); not checked.

        Raises what somebody who watches it raises, and then it is what it was.
        """
        before, told = self._values[name], list[Callable[[Any], None]]()
        self._values[name] = value
        self._apply(name, value)
        try:
            for action in self._watchers.get(name, ()):
                action(value)
                told.append(action)
        except BaseException:
            self._values[name] = before
            self._apply(name, before)
            for action in told:
                action(before)
            raise

    def watch(self, name: str, action: Callable[[Any], None]) -> None:
        """Call ``action`` with the value now and whenever it changes.

        It may raise ReplyError or ValueError to refuse a value, and must then have changed nothing: CONFIG SET fails
        with that text, and changes nothing either.
        """
        self._watchers.setdefault(name, []).append(action)
        action(self._values[name])

    def shown(self) -> dict[str, str]:
        """Every name, aliases included, with its value as CONFIG GET shows it; sorted."""
        values = {name: parameter.kind.show(self._values[name]) for name, parameter in PARAMETERS.items()}
        upstream = self._server.upstream
        values["replicaof"] = "" if upstream is None else f"{upstream.host} {upstream.port}"
        values.update((alias, values[name]) for alias, name in ALIASES.items())
        return dict(sorted(values.items()))

    def change(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Set several parameters, all or none; raises :class:`ParameterError` for the first that will not do.

        Those who watch are told only of values that are new.
        """
        chosen: list[tuple[str, str, Parameter]] = []
        seen: set[str] = set()
        for name, text in pairs:
            parameter = _find(name)
            if parameter is None:
                raise ParameterError(name, "", unknown=True)
            if parameter.immutable:
                raise ParameterError(name, "can't set immutable config")
            if name.lower() in seen:
                raise ParameterError(name, "duplicate parameter")
            seen.add(name.lower())
            chosen.append((name, text, parameter))
        fresh: dict[str, Any] = {}
        words: dict[str, str] = {}
        for name, text, parameter in chosen:
            current = self._values[parameter.name]
            try:
                value = parameter.kind.parse(text, current)
            except ValueError as error:
                raise ParameterError(name, str(error)) from None
            if parameter.fixed and value != current:
                raise ParameterError(name, f"kevynode accepts nothing but {show(parameter.kind.show(current))}")
            if parameter.name == "appendonly" and value and isinstance(self._server.persistence, MemoryOnly):
                raise ParameterError(name, "this node keeps its data in memory only")
            fresh[parameter.name] = value
            words[parameter.name] = name
        self._put_all(fresh, words)
        for name, value in fresh.items():
            shown = "(hidden)" if PARAMETERS[name].secret else PARAMETERS[name].kind.show(value)
            self._server.log.info("parameter_set", name=name, value=shown, effect=not PARAMETERS[name].without_effect)

    def _put_all(self, fresh: Mapping[str, Any], words: Mapping[str, str]) -> None:
        """Take over ``fresh``, all or nothing and ParameterError; ``words``: the names as the client wrote them."""
        before: dict[str, Any] = {}
        for name, value in fresh.items():
            current = self._values[name]
            if value == current:
                continue
            try:
                self.put(name, value)
            except Exception as error:
                for other, earlier in reversed(before.items()):
                    self.put(other, earlier)
                if isinstance(error, ReplyError):
                    raise ParameterError(words[name], error.text) from None
                if isinstance(error, ValueError):
                    raise ParameterError(words[name], str(error)) from None
                raise
            before[name] = current

    def _apply(self, name: str, value: Any) -> None:
        server = self._server
        if name in _STORE_SETTINGS:
            setattr(server.store.settings, name.replace("-", "_"), value)
            if name == "maxmemory-policy":
                follow_policy(server.store)
        elif name == "requirepass":
            server.set_password(value.encode("utf-8", "surrogateescape") or None)
        elif name == "replica-read-only":
            server.set_replica_read_only(value)
        elif name == "notify-keyspace-events":
            server.events.configure(value)
        elif name == "client-query-buffer-limit":
            server.query_limit = value
        elif name == "client-output-buffer-limit":
            server.output_limits = {kind: OutputLimit(*value[kind]) for kind in ("normal", "pubsub")}
        elif name == "slowlog-log-slower-than":
            # 0 remembers every command, also one that took no measurable time.
            server.slow_after = math.inf if value < 0 else value / 1_000_000 if value else -1.0
        elif name == "slowlog-max-len":
            server.slow_log.limit = value


def _configured(config: NodeConfig) -> Mapping[str, Any]:
    """What the sections of the configuration say, under Valkey's names."""
    persistence, replication = config.persistence, config.replication
    return {
        "appendfsync": persistence.appendfsync,
        "appendonly": persistence.aof,
        "auto-aof-rewrite-min-size": min(persistence.auto_aof_rewrite_min_size, INT64_MAX),
        "auto-aof-rewrite-percentage": persistence.auto_aof_rewrite_percentage,
        "bind": " ".join(config.server.bind),
        "dir": config.server.data_dir,
        "hz": config.expiry.hz,
        "maxclients": config.server.maxclients,
        "maxmemory": config.memory.maxmemory,
        "maxmemory-policy": config.memory.maxmemory_policy,
        "min-replicas-max-lag": replication.min_replicas_max_lag_ms,
        "min-replicas-to-write": replication.min_replicas_to_write,
        "port": config.server.port,
        "repl-backlog-size": min(replication.replication_buffer_size, INT64_MAX),
        "replica-read-only": replication.replica_read_only,
        "timeout": config.server.timeout,
        "unixsocket": config.server.unixsocket,
    }
