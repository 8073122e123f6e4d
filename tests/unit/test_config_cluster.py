"""Peers and scopes: both spellings, and the checks across them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.config import ConfigError, NodeConfig, PeerConfig, ScopeConfig


def problems(cluster: dict[str, Any]) -> list[str]:
    try:
        NodeConfig.from_dict({"cluster": cluster})
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def peer(node_id: str, address: str, **more: object) -> dict[str, object]:
    return {"id": node_id, "address": address, **more}


def test_the_string_forms_of_kevy_are_read() -> None:
    config = NodeConfig.from_dict(
        {
            "cluster": {
                "node_id": "a",
                "peers": "a@10.0.0.1:6204:6004, b@[::1]:6204:7000:9000,, c@db.internal:6204,",
                "scopes": "app:=a|b, x:=c,",
            }
        }
    )
    assert config.cluster.peers == (
        PeerConfig("a", "10.0.0.1:6004", "10.0.0.1:16004"),
        PeerConfig("b", "[::1]:7000", "[::1]:9000"),
        PeerConfig("c", "db.internal:6004", "db.internal:16004"),
    )
    assert config.cluster.scopes == (ScopeConfig(b"app:", "a", "b"), ScopeConfig(b"x:", "c"))
    assert config.warnings == ("cluster.peers: c names no client port; 6004 is assumed",)


@pytest.mark.parametrize(
    "token",
    [
        "a",
        "a@",
        "a@h",
        "@h:1",
        "a@h:x",
        "a@h:1:70000",
        "a@h:1:2:3:4",
        "a@[::1:1",
        "a@::1:1",
        "a b@h:1",
        "a@h:1:0",
        "a@h:",
    ],
)
def test_bad_peer_tokens_are_quoted(token: str) -> None:
    assert problems({"node_id": "z", "peers": f"z@h:1:2,{token}"}) == [
        f'cluster.peers: "{token}" is not accepted (accepted: "id@host:elect_port[:client_port[:replication_port]],…")'
    ]


@pytest.mark.parametrize("token", ["a", "=a", "p:=", "p:=a|", "p:=|b", "p:=a|b|c", "p:=a b"])
def test_bad_scope_tokens_are_quoted(token: str) -> None:
    assert problems({"node_id": "a", "scopes": f"ok:=a,{token}"}) == [
        f'cluster.scopes: "{token}" is not accepted (accepted: "prefix=writer[|fallback],…")'
    ]


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"peers": ["a@h:1"]}, ["cluster.peers: a list is not accepted"]),
        ({"scopes": 3}, ["cluster.scopes: 3 is not accepted"]),
        ({"peer": "a@h:1"}, ['cluster.peer: "a@h:1" is not accepted (accepted: an array of tables, [[cluster.peer]])']),
        ({"peer": [3]}, ["cluster.peer[0]: 3 is not accepted (accepted: a table)"]),
        (
            {"peer": [{"id": "a", "adress": "h:1"}]},
            [
                "cluster.peer[0].adress: unknown key (accepted: id, address, replication, kind)",
                'cluster.peer[0].address: missing (accepted: "host:port", "[ipv6]:port")',
            ],
        ),
        ({"peer": [{"id": 3, "address": "h:1"}]}, ["cluster.peer[0].id: 3 is not accepted"]),
        ({"peer": [peer("a", "h:1", kind="redis")]}, ['(accepted: "kevynode", "kevy")', "node_id: missing"]),
        (
            {"node_id": "a", "peer": [peer("a", "h:60000")]},
            ["cluster.peer[0].replication: missing: the client port + 10000 is above 65535"],
        ),
        (
            {"node_id": "a", "peer": [peer("a", "h:1")], "peers": "a@h:1:2"},
            ["cluster.peers: the same setting as cluster.peer; keep one of them"],
        ),
        ({"node_id": "a", "peer": [peer("a", "h:1"), peer("a", "h:2")]}, ['cluster.peer: "a" is declared twice']),
        (
            {"node_id": "a", "peer": [peer("a", "h:1"), peer("b", "h:10001")]},
            ['cluster.peer: "h:10001" is an address of a and of b'],
        ),
        ({"node_id": "c", "peer": [peer("a", "h:1")]}, ['cluster.node_id: "c" is no declared peer (peers: a)']),
        ({"peer": [peer("a", "h:1")]}, ["cluster.node_id: missing: a node with peers or scopes must know"]),
        ({"scope": [{"prefix": "a:", "writer": "a"}]}, ["cluster.node_id: missing"]),
        ({"scope": {}}, ["cluster.scope: a table is not accepted"]),
        (
            {"node_id": "a", "scope": [{}, {"prefix": 3, "writer": "-"}, {"prefix": "\ud800", "writer": "a", "x": 1}]},
            [
                "cluster.scope[0].prefix: missing",
                "cluster.scope[0].writer: missing",
                "cluster.scope[1].prefix: 3 is not accepted",
                'cluster.scope[1].writer: "-" is not accepted',
                "cluster.scope[2].x: unknown key (accepted: prefix, writer, fallback)",
                "cluster.scope[2].prefix: ",
            ],
        ),
        (
            {"node_id": "a", "scopes": "a:=a,a:=b"},
            ['cluster.scope: prefix "a:" is declared twice'],
        ),
        (
            {"node_id": "a", "scopes": "a:b:=a,a:=b,a:c=a,b=a"},
            [
                'cluster.scope: prefix "a:b:" is nested in "a:"',
                'cluster.scope: prefix "a:c" is nested in "a:"',
            ],
        ),
        (
            {"node_id": "a", "scope": [{"prefix": "", "writer": "a"}, {"prefix": "x", "writer": "a"}]},
            ['cluster.scope: prefix "" is every key, so no other prefix can be declared'],
        ),
        (
            {"node_id": "a", "peer": [peer("a", "h:1")], "scopes": "x:=b|c"},
            [
                'cluster.scope: writer "b" of "x:" is no declared peer',
                'cluster.scope: fallback "c" of "x:" is no declared peer',
            ],
        ),
        ({"node_id": "a", "scopes": "x:=a|a"}, ['cluster.scope: fallback and writer of "x:" are the same node']),
        ({"node_id": "a", "replicate": ["y:"], "scopes": "x:=a"}, ['cluster.replicate: "y:" is no declared scope']),
        # One mistake is told once: not as something that is missing besides.
        ({"node_id": "a b", "peer": [peer("a", "h:1")]}, ['cluster.node_id: "a b" is not accepted']),
        (
            {"node_id": "b", "peer": [peer("a", "h:1"), {"id": "b"}], "scopes": "x:=b"},
            ["cluster.peer[1].address: missing"],
        ),
    ],
    ids=lambda value: str(value)[:70],
)
def test_mistakes(cluster: dict[str, Any], expected: list[str]) -> None:
    found = problems(cluster)
    assert len(found) == len(expected)
    for line, part in zip(found, expected, strict=True):
        assert part in line


def test_an_empty_prefix_alone_and_ids_without_peers_are_fine() -> None:
    assert problems({"node_id": "a", "scope": [{"prefix": "", "writer": "b", "fallback": ""}]}) == []
    config = NodeConfig.from_dict({"cluster": {"node_id": "a", "scope": [{"prefix": b"\xff", "writer": "b"}]}})
    assert config.cluster.scopes == (ScopeConfig(b"\xff", "b", None),)
    assert config.own_peer is None


@given(st.lists(st.text("ab", max_size=3), max_size=6))
def test_prefixes_are_refused_exactly_when_one_begins_with_another(prefixes: list[str]) -> None:
    overlap = any(b.startswith(a) for i, a in enumerate(prefixes) for j, b in enumerate(prefixes) if i != j)
    found = problems({"node_id": "a", "scope": [{"prefix": prefix, "writer": "a"} for prefix in prefixes]})
    assert bool(found) == overlap


@pytest.mark.parametrize(("size", "refused"), [(1024, False), (1025, True)])
def test_a_prefix_is_no_longer_than_peers_can_be_told(size: int, refused: bool) -> None:
    found = problems({"node_id": "a", "scope": [{"prefix": "p" * size, "writer": "a"}]})
    assert found == (["cluster.scope: a prefix has at most 1024 bytes, not 1025"] if refused else [])
