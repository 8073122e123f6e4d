"""Peers and scopes: reading their two spellings, and checking them against each other.

A list is an array of tables (``[[cluster.peer]]``), or one string as kevy writes it
(``peers = "id@host:elect_port[:client_port[:replication_port]],…"``, ``scopes = "prefix=writer[|fallback],…"``).
Every function reports each mistake by its key path and goes on, so that one run names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

import attrs

from kevynode.config_schema import ClusterConfig, PeerConfig, ScopeConfig, options
from kevynode.config_values import Identifier, encode_prefix, join_address, show, split_address

__all__ = ["check_cluster", "read_peer_tables", "read_peer_text", "read_scope_tables", "read_scope_text", "refusal"]

# Takes a key path and what is wrong with it.
Report = Callable[[str, str], None]

_DEFAULT_CLIENT_PORT = 6004
_SCOPE_KEYS = ("prefix", "writer", "fallback")
# Bytes of a prefix: what a line of the ledger, and a message to a peer, hold.
_PREFIX_LIMIT = 1024


def refusal(value: object, accepted: str, reason: str = "", *, secret: bool = False) -> str:
    """The text for a value that is not accepted."""
    shown = "the value" if secret else show(value)
    return f"{shown} is not accepted{': ' + reason if reason else ''} (accepted: {accepted})"


def replication_address(address: str) -> str:
    """Where a peer with this client address takes replicas by default; empty if that port would be above 65535."""
    host, port = split_address(address)
    return join_address(host, port + 10000) if port + 10000 <= 65535 else ""


def _tables(value: object, path: str, report: Report) -> Iterator[tuple[str, Mapping[Any, object]]]:
    if not isinstance(value, list | tuple):
        report(path, refusal(value, f"an array of tables, [[{path}]]"))
        return
    for index, table in enumerate(value):
        at = f"{path}[{index}]"
        if isinstance(table, Mapping):
            yield at, table
        else:
            report(at, refusal(table, "a table"))


def _unknown_keys(at: str, table: Mapping[Any, object], known: tuple[str, ...], report: Report) -> None:
    for key in table:
        if key not in known:
            report(f"{at}.{show_key(key)}", f"unknown key (accepted: {', '.join(known)})")


def show_key(key: object) -> str:
    """A key as it stands in a path: plain where it can be, else quoted and escaped."""
    if isinstance(key, str) and key.isascii() and key.replace("_", "").replace("-", "").isalnum() and len(key) <= 60:
        return key
    return show(key)


def read_peer_tables(value: object, report: Report) -> tuple[PeerConfig, ...]:
    """The peers of ``[[cluster.peer]]``; those with a mistake are reported and left out."""
    known = {name: (default, option.kind) for name, default, option in options(PeerConfig)}
    peers = []
    for at, table in _tables(value, "cluster.peer", report):
        _unknown_keys(at, table, tuple(known), report)
        values: dict[str, Any] = {}
        for name, (default, kind) in known.items():
            if name not in table:
                if default is attrs.NOTHING:
                    report(f"{at}.{name}", f"missing (accepted: {kind.accepted})")
                continue
            try:
                values[name] = kind.parse(table[name])
            except ValueError as error:
                report(f"{at}.{name}", refusal(table[name], kind.accepted, str(error)))
        if {"id", "address"} <= values.keys():
            peers.append(_with_replication(PeerConfig(**values), f"{at}.replication", report))
    return tuple(peers)


def _with_replication(peer: PeerConfig, path: str, report: Report) -> PeerConfig:
    """``peer`` with its replication address filled in."""
    if peer.replication:
        return peer
    address = replication_address(peer.address)
    if not address:
        report(path, "missing: the client port + 10000 is above 65535, so it has no default")
    return attrs.evolve(peer, replication=address)


def read_scope_tables(value: object, report: Report) -> tuple[ScopeConfig, ...]:
    """The scopes of ``[[cluster.scope]]``; those with a mistake are reported and left out."""
    scopes = []
    for at, table in _tables(value, "cluster.scope", report):
        _unknown_keys(at, table, _SCOPE_KEYS, report)
        prefix = _prefix_of(at, table, report)
        writer = _id_of(at, "writer", table, report)
        fallback = _id_of(at, "fallback", table, report) if table.get("fallback", "") != "" else None
        if prefix is not None and writer is not None:
            scopes.append(ScopeConfig(prefix, writer, fallback))
    return tuple(scopes)


def _prefix_of(at: str, table: Mapping[Any, object], report: Report) -> bytes | None:
    accepted = 'a key prefix as text; "" is every key'
    value = table.get("prefix")
    if "prefix" not in table:
        report(f"{at}.prefix", f"missing (accepted: {accepted})")
    elif isinstance(value, bytes):
        return value
    elif not isinstance(value, str):
        report(f"{at}.prefix", refusal(value, accepted))
    else:
        try:
            return encode_prefix(value)
        except ValueError as error:
            report(f"{at}.prefix", refusal(value, accepted, str(error)))
    return None


def _id_of(at: str, name: str, table: Mapping[Any, object], report: Report) -> str | None:
    kind = Identifier()
    if name not in table:
        report(f"{at}.{name}", f"missing (accepted: {kind.accepted})")
        return None
    try:
        return kind.parse(table[name])
    except ValueError:
        report(f"{at}.{name}", refusal(table[name], kind.accepted))
        return None


def _tokens(value: object, path: str, accepted: str, report: Report) -> Iterator[str]:
    if not isinstance(value, str):
        report(path, refusal(value, accepted))
        return
    yield from filter(None, (token.strip() for token in value.split(",")))


def read_peer_text(value: object, report: Report, warn: Report) -> tuple[PeerConfig, ...]:
    """The peers of kevy's ``peers`` string. A peer without a client port is taken to serve clients on 6004."""
    accepted = '"id@host:elect_port[:client_port[:replication_port]],…"'
    peers = []
    for token in _tokens(value, "cluster.peers", accepted, report):
        try:
            node_id, host, ports = _split_peer(token)
            Identifier().parse(node_id)
            if len(ports) == 1:
                warn("cluster.peers", f"{node_id} names no client port; {_DEFAULT_CLIENT_PORT} is assumed")
            client = ports[1] if len(ports) > 1 else _DEFAULT_CLIENT_PORT
            address = join_address(*split_address(join_address(host, client)))
            replication = join_address(*split_address(join_address(host, ports[2]))) if len(ports) > 2 else ""
        except ValueError:
            report("cluster.peers", refusal(token, accepted))
        else:
            peers.append(_with_replication(PeerConfig(node_id, address, replication), "cluster.peers", report))
    return tuple(peers)


def _split_peer(token: str) -> tuple[str, str, list[int]]:
    node_id, at, rest = token.partition("@")
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or not tail.startswith(":"):
            raise ValueError
        words = tail[1:].split(":")
    else:
        host, *words = rest.split(":")
    if not at or not host or not 1 <= len(words) <= 3 or not all(w.isascii() and w.isdigit() for w in words):
        raise ValueError
    ports = [int(word[:6]) for word in words]
    if max(ports) > 65535:
        raise ValueError
    return node_id, host, ports


def read_scope_text(value: object, report: Report) -> tuple[ScopeConfig, ...]:
    """The scopes of kevy's ``scopes`` string."""
    accepted = '"prefix=writer[|fallback],…"'
    scopes = []
    for token in _tokens(value, "cluster.scopes", accepted, report):
        prefix, equals, owners = token.partition("=")
        writer, bar, fallback = owners.partition("|")
        try:
            if not equals or not prefix:
                raise ValueError
            Identifier().parse(writer)
            if bar:
                Identifier().parse(fallback)
            scopes.append(ScopeConfig(encode_prefix(prefix), writer, fallback if bar else None))
        except ValueError:
            report("cluster.scopes", refusal(token, accepted))
    return tuple(scopes)


def check_cluster(cluster: ClusterConfig, report: Report, *, knows_peers: bool = True) -> None:
    """Check ids, prefixes and references against each other.

    ``knows_peers``: no peer was left out for a mistake; else nobody is said to be no peer.
    """
    _check_peers(cluster, report)
    _check_prefixes(cluster, report)
    _check_references(cluster, report, {peer.id for peer in cluster.peers} if knows_peers else set())


def _check_peers(cluster: ClusterConfig, report: Report) -> None:
    ids: set[str] = set()
    addresses: dict[str, str] = {}
    for peer in cluster.peers:
        if peer.id in ids:
            report("cluster.peer", f"{show(peer.id)} is declared twice")
        ids.add(peer.id)
        for address in filter(None, (peer.address, peer.replication)):
            if address in addresses:
                report("cluster.peer", f"{show(address)} is an address of {addresses[address]} and of {peer.id}")
            addresses[address] = peer.id
    if not cluster.node_id and (ids or cluster.scopes):
        report("cluster.node_id", "missing: a node with peers or scopes must know which one it is")


def _check_prefixes(cluster: ClusterConfig, report: Report) -> None:
    """Refuse duplicate and nested prefixes. Sorted, a prefix stands directly before what begins with it."""
    previous: bytes | None = None
    for prefix in sorted(scope.prefix for scope in cluster.scopes):
        if len(prefix) > _PREFIX_LIMIT:
            report("cluster.scope", f"a prefix has at most {_PREFIX_LIMIT} bytes, not {len(prefix)}")
            continue
        if previous is None or not prefix.startswith(previous):
            previous = prefix
        elif prefix == previous:
            report("cluster.scope", f"prefix {_show_prefix(prefix)} is declared twice")
        elif previous == b"":
            report("cluster.scope", 'prefix "" is every key, so no other prefix can be declared')
            return
        else:
            report("cluster.scope", f"prefix {_show_prefix(prefix)} is nested in {_show_prefix(previous)}")


def _check_references(cluster: ClusterConfig, report: Report, ids: Set[str]) -> None:
    """Check whoever is named against the ``ids`` of the peers; none: nobody is."""
    if cluster.node_id and ids and cluster.node_id not in ids:
        report("cluster.node_id", f"{show(cluster.node_id)} is no declared peer (peers: {', '.join(sorted(ids))})")
    for scope in cluster.scopes:
        shown = _show_prefix(scope.prefix)
        for role, node_id in (("writer", scope.writer), ("fallback", scope.fallback)):
            if ids and node_id is not None and node_id not in ids:
                report("cluster.scope", f"{role} {show(node_id)} of {shown} is no declared peer")
        if scope.fallback == scope.writer:
            report("cluster.scope", f"fallback and writer of {shown} are the same node")
    declared = {scope.prefix for scope in cluster.scopes}
    if isinstance(cluster.replicate, tuple):
        for prefix in cluster.replicate:
            if prefix not in declared:
                report("cluster.replicate", f"{_show_prefix(prefix)} is no declared scope")


def _show_prefix(prefix: bytes) -> str:
    return show(prefix.decode("utf-8", "backslashreplace"))
