"""What ``kevynode status`` shows: a line for each node, one for each of its replicas, one for each primary it follows,
one for each scope as each node sees it, one for each move of a scope, and one for each other node that it knows.

Everything is taken from INFO, so a valkey-server can stand among the nodes; what it does not tell is shown as ``-``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from kevynode.config_values import join_address

__all__ = ["in_columns", "moves", "peers", "replication_state", "scopes", "tables"]

Fields: TypeAlias = Mapping[str, str]
Sections: TypeAlias = Mapping[str, Fields]
# One line of fields, numbers as numbers.
Facts: TypeAlias = dict[str, "str | int"]

_NUMBER: Final = re.compile(r"-?[0-9]{1,19}\Z")
_REPLICA: Final = re.compile(r"slave[0-9]+\Z")
# Facts that are text even where they look like numbers.
_TEXTS: Final = frozenset(
    "id ip host last_sync_reason problem prefix owner writer fallback detail peer address client".split()
)
_UPSTREAM: Final = re.compile(r"upstream[0-9]+\Z")
_SCOPE: Final = re.compile(r"scope[0-9]+\Z")
_MOVE: Final = re.compile(r"move[0-9]+\Z")
_PEER: Final = re.compile(r"peer[0-9]+\Z")

# Columns of the table of nodes: heading, and the INFO fields it is taken from; the first that is there counts.
_NODE: Final = (
    ("ID", ("node_id",)),
    ("VERSION", ("kevynode_version", "valkey_version", "redis_version")),
    ("ROLE", ("role",)),
    ("SCOPES", ("scopes_owned",)),
    ("OFFSET", ("slave_repl_offset", "master_repl_offset")),
    ("REPLICAS", ("connected_slaves",)),
    ("LINK", ("master_link_status",)),
    ("LAG", ("slave_lag_frames",)),
    ("CLIENTS", ("connected_clients",)),
    ("MEMORY", ("used_memory_human", "used_memory")),
    ("UPTIME", ("uptime_in_seconds",)),
)


def replication_state(sections: Sections) -> dict[str, object]:
    """Role, offset, replicas and upstreams of a node as values, from the sections of its INFO."""
    fields = sections.get("replication", {})
    offset = fields.get("slave_repl_offset", fields.get("master_repl_offset"))
    return {
        "role": fields.get("role"),
        "offset": None if offset is None else _value(offset),
        "replicas": _lines(fields, _REPLICA),
        "upstreams": _upstreams(fields),
    }


def scopes(sections: Sections) -> list[Facts]:
    """The declared scopes as a node sees them, in the order of their prefixes, from the sections of its INFO.

    ``writer`` is who the node's configuration names, ``owner`` who writes by its ledger; ``warning`` is there, and says
    what it is, where somebody should look.
    """
    rows = _lines(sections.get("scopes", {}), _SCOPE)
    return [row | {"warning": warning} if (warning := _warning(row)) else row for row in rows]


def moves(sections: Sections) -> list[Facts]:
    """The moves of scopes that a node knows of, the oldest first, from the sections of its INFO."""
    return _lines(sections.get("scopes", {}), _MOVE)


def peers(sections: Sections) -> list[Facts]:
    """The other nodes of the configuration as a node knows them, in its order, from the sections of its INFO.

    ``client`` is where clients find it, ``heard_ms`` how long ago it was last heard, ``ledger`` and ``configuration``
    whether its own is ``equal`` or ``differs``; ``copied`` of its scopes are copied, ``missing`` of them not whole, and
    ``lag_ms`` is how old the copies may be. ``warning`` is there where somebody should look.
    """
    rows = _lines(sections.get("scopes", {}), _PEER)
    return [row | {"warning": warning} if (warning := _trouble(row)) else row for row in rows]


def _trouble(peer: Facts) -> str:
    found = [name for name in ("ledger", "configuration") if peer.get(name) == "differs"]
    told = [f"its {' and '.join(found)} {'differ' if len(found) > 1 else 'differs'}"] if found else []
    if peer.get("link") == "down":
        told.append("no link")
    if peer.get("missing", 0):
        told.append(f"{peer['missing']} of {peer.get('copied', '?')} copies are not whole")
    return "; ".join(told)


def _warning(scope: Facts) -> str:
    owner = scope.get("owner")
    found = []
    if owner != scope.get("writer"):
        found.append(f"the file says {scope.get('writer')}")
    if owner is not None and owner == scope.get("fallback"):
        found.append("written by its fallback, so it has none")
    if scope.get("copy") == "missing":
        found.append("its copy here is not whole")
    if scope.get("copy") == "unreachable":
        found.append("nobody knows where its owner is, so there is no copy here")
    return "; ".join(found)


def _upstreams(fields: Fields) -> list[Facts]:
    found = _lines(fields, _UPSTREAM)
    if not found and "master_host" in fields:
        # A node that has one primary and no line for it.
        status = {"up": "connected"}.get(fields.get("master_link_status", ""), "connect")
        shown = {"host": "master_host", "port": "master_port", "applied": "slave_repl_offset"}
        found = [{name: _value(fields[field]) for name, field in shown.items() if field in fields} | {"state": status}]
    return found


def _lines(fields: Fields, name: re.Pattern[str]) -> list[Facts]:
    return [_facts(line) for field, line in fields.items() if name.match(field)]


def _facts(line: str) -> Facts:
    pairs = (part.partition("=") for part in line.split(","))
    return {name: text if name in _TEXTS else _value(text) for name, _, text in pairs if name}


def _value(text: str) -> str | int:
    return int(text) if _NUMBER.match(text) else text


def tables(states: Iterable[tuple[str, Sections]]) -> list[list[list[str]]]:
    """For (address, sections of INFO) of some nodes: tables of cells, headings first; those without rows left out."""
    nodes = [["NODE", *(heading for heading, _ in _NODE)]]
    replicas = [["NODE", "REPLICA", "ID", "STATE", "ACKED", "SENT", "LAG", "LAST SYNC"]]
    upstreams = [["NODE", "FOLLOWS", "STATE", "APPLIED", "ANNOUNCED", "LAG", "AGE", "LAST SYNC", "PROBLEM"]]
    declared = [["NODE", "SCOPE", "FILE", "OWNER", "EPOCH", "FALLBACK", "STATE", "COPY", "WAITS FOR", "!"]]
    moved = [["NODE", "MOVE", "ROLE", "WITH", "STATE", "EPOCH", "KEYS", "!"]]
    known = [
        ["NODE", "PEER", "AT", "LINK", "HEARD", "STATE", "LEDGER", "CONFIG", "COPIES", "LAG", "AGE", "!", "PROBLEM"]
    ]
    for address, sections in states:
        fields = {name: value for section in sections.values() for name, value in section.items()}
        cells = (next((fields[name] for name in names if name in fields), "-") for _, names in _NODE)
        nodes.append([address, *map(_cell, cells)])
        replication = sections.get("replication", {})
        replicas += _rows(address, _lines(replication, _REPLICA), _replica_cells)
        upstreams += _rows(address, _upstreams(replication), _upstream_cells)
        declared += _rows(address, scopes(sections), _scope_cells)
        moved += _rows(address, moves(sections), _move_cells)
        known += _rows(address, peers(sections), _peer_cells)
    return [table for table in (nodes, declared, moved, known, replicas, upstreams) if len(table) > 1]


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its cells one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _rows(address: str, lines: Iterable[Facts], cells: Callable[[Facts], Sequence[object]]) -> list[list[str]]:
    return [[address, *(_cell(str(cell)) for cell in cells(facts))] for facts in lines]


def _replica_cells(facts: Facts) -> Sequence[object]:
    rest = (facts.get(name, "-") for name in ("id", "state", "offset", "sent"))
    return _address(facts, "ip"), *rest, _lag(facts), _last_sync(facts)


def _upstream_cells(facts: Facts) -> Sequence[object]:
    rest = (facts.get(name, "-") for name in ("state", "applied", "announced"))
    lag = f"{facts['lag_frames']} frames" if "lag_frames" in facts else "-"
    # How long ago this copy was known to have everything: a heartbeat's time while nothing is wrong.
    age = f"{facts['lag_ms']} ms" if "lag_ms" in facts else "-"
    return _address(facts, "host"), *rest, lag, age, _last_sync(facts), facts.get("problem", "-")


def _scope_cells(facts: Facts) -> Sequence[object]:
    names = (facts.get(name, "-") for name in ("writer", "owner", "epoch", "fallback", "state", "copy"))
    detail = facts.get("detail", "-")
    waits_for = f"its move to {detail}" if facts.get("state") == "quiesced" else detail
    return _prefix(facts), *names, waits_for, f"! {facts['warning']}" if "warning" in facts else ""


def _move_cells(facts: Facts) -> Sequence[object]:
    names = (facts.get(name, "-") for name in ("role", "peer", "state", "epoch", "keys"))
    return _prefix(facts), *names, "! in doubt" if facts.get("in_doubt", 0) else ""


def _peer_cells(facts: Facts) -> Sequence[object]:
    link = facts.get("link", "-")
    if "link_seconds" in facts:
        link = f"{link} {facts['link_seconds']} s"
    heard = f"{facts['heard_ms']} ms" if "heard_ms" in facts else "-"
    said = (facts.get(name, "-") for name in ("state", "ledger", "configuration"))
    copied, missing = facts.get("copied", 0), facts.get("missing", 0)
    copies = f"{copied}, {missing} missing" if missing else copied
    lag = f"{facts['lag_frames']} frames" if copied and "lag_frames" in facts else "-"
    age = f"{facts['lag_ms']} ms" if copied and "lag_ms" in facts else "-"
    warning = f"! {facts['warning']}" if "warning" in facts else ""
    where = facts.get("client", "-")
    return facts.get("id", "-"), where, link, heard, *said, copies, lag, age, warning, facts.get("problem", "-")


def _prefix(facts: Facts) -> object:
    prefix = facts.get("prefix", "-")
    # The empty prefix is every key.
    return '""' if prefix == "" else prefix


def _address(facts: Facts, host: str) -> str:
    port = facts.get("port", 0)
    return join_address(str(facts.get(host, "?")), port if isinstance(port, int) else 0)


def _lag(facts: Facts) -> str:
    units = (("lag_frames", "frames"), ("lag_bytes", "B"), ("lag_ms", "ms"))
    return " ".join(f"{facts[name]} {unit}" for name, unit in units if name in facts)


def _last_sync(facts: Facts) -> str:
    if "last_sync" not in facts:
        return ""
    duration = f"{facts['last_sync_ms']} ms" if "last_sync_ms" in facts else "running"
    # The numbers behind the reason would make a line of three hundred characters: INFO and the log have them.
    reason = str(facts.get("last_sync_reason", "")).partition(": ")[0]
    return f"{facts['last_sync']} {duration} {facts.get('last_sync_bytes', 0)} B: {reason}"


def _cell(text: str) -> str:
    """What a node says, as it may stand on a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text[:160]) or "-"
