"""Any commands at a node with scopes: only keys of one scope of ours change at a time, and nobody else notices."""

from __future__ import annotations

from compat.generate import ANYTHING
from hypothesis import given
from hypothesis import strategies as st
from support.session_harness import ServerHarness, request

from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.ownership import Ownership
from kevynode.store.journal import Effect

Commands = list[tuple[bytes, ...]]

# The keys of the commands begin with the letter of their type, some with "k".
LETTERS = (b"s1", b"s2", b"s3", b"h", b"l1", b"l2", b"e", b"z", b"y", b"k")

KEYS = (b"s1", b"s2", b"k", b"l1", b"l2", b"e1", b"e2", b"z1", b"z2", b"h1")

commands = st.lists(ANYTHING, min_size=1, max_size=25)
scopes = st.dictionaries(st.sampled_from(LETTERS), st.sampled_from("ab"), max_size=8)


def declared(owners: dict[bytes, str]) -> Ownership:
    table = OwnershipTable(Scope(prefix, owner) for prefix, owner in owners.items())
    return Ownership("a", table, {"a": "10.0.0.1:6004", "b": "10.0.0.2:6004"})


def filled() -> ServerHarness:
    node = ServerHarness()
    client = node.connect()
    for key in (b"s1", b"s2", b"k"):
        client.call("SET", key, "10")
    for key in (b"l1", b"l2"):
        client.call("RPUSH", key, "a", "b", "c")
    for key in (b"e1", b"e2"):
        client.call("SADD", key, "a", "b", "1")
    for key in (b"z1", b"z2"):
        client.call("ZADD", key, "1", "a", "2", "b")
    client.call("HSET", "h1", "a", "1", "b", "2")
    return node


@given(scopes, commands, st.booleans())
def test_only_keys_of_one_open_scope_change_at_a_time(
    owners: dict[bytes, str], lines: Commands, in_transaction: bool
) -> None:
    node = filled()
    groups: list[list[Effect]] = []
    node.store.journal.observers.append(lambda _, group: groups.append(list(group)))
    ownership = node.server.ownership = declared(owners)
    if in_transaction:
        lines = [(b"MULTI",), *lines, (b"EXEC",)]
    # One client, whose last wait nobody ends, is replaced by the next.
    client = node.connect()
    for line in lines:
        if client.session.blocked or client.session.closing:
            client.session.disconnected("replaced")
            client = node.connect()
        client.call(*line)
    # What others write is all still there.
    assert all(node.store.keyspace.get(key) is not None for key in KEYS if ownership.is_elsewhere(key))
    for group in groups:
        keys = [key for _, key, _ in group if key is not None]
        assert not any(ownership.is_elsewhere(key) for key in keys)
        flushed = any(command[0] in (b"FLUSHALL", b"DEL") for command, _, _ in group)
        assert flushed or len({ownership.prefix_of(key) for key in keys} - {None}) <= 1


@given(commands, st.booleans())
def test_whoever_writes_keys_of_no_scope_notices_nothing(lines: Commands, in_transaction: bool) -> None:
    if in_transaction:
        lines = [(b"MULTI",), *lines, (b"EXEC",)]
    data = b"".join(request(*line) for line in lines)
    plain, scoped = filled(), filled()
    scoped.server.ownership = declared({b"app:": "a", b"sweb:": "b", b"zz": "b"})
    answers = [node.connect().send(data) for node in (plain, scoped)]
    assert answers[0] == answers[1]
    assert plain.store.used == scoped.store.used
