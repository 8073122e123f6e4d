"""What a node does by itself to keys that others write: nothing. And what it tells about them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.session_harness import Client, ServerHarness
from support.store_harness import recorded

from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.ownership import Ownership
from kevynode.serve.housekeeping import Housekeeper
from kevynode.serve.info import info_text
from kevynode.store.apply import Applier
from kevynode.store.eviction import Evictor
from kevynode.store.expiry import ExpirySweeper
from kevynode.store.foreign import ForeignCount, foreign_changes
from kevynode.store.store import Store
from kevynode.store.values import bytes_memory, value_memory

PAST = "1000"


def never() -> bool:
    return False


def is_web(key: bytes) -> bool:
    return key.startswith(b"web:")


@pytest.fixture
def ownership() -> Ownership:
    table = OwnershipTable([Scope(b"app:", "a"), Scope(b"own:", "a", "b"), Scope(b"web:", "b")])
    return Ownership("a", table, {"a": "10.0.0.1:6004", "b": "10.0.0.2:6004"})


@pytest.fixture
def node(ownership: Ownership) -> ServerHarness:
    node = ServerHarness()
    node.server.ownership = ownership
    return node


def applied(node: ServerHarness, *lines: str) -> None:
    """What the stream of another node brings."""
    with foreign_changes(node.store):
        Applier(node.store).apply_all([line.encode().split() for line in lines])
    node.store.commit()


def counted(store: Store) -> tuple[int, int]:
    """Keys and bytes of ``web:``, one by one."""
    found = [(k, v) for shard in store.keyspace.shards() for k, v in shard.items() if is_web(k)]
    return len(found), sum(bytes_memory(key) + value_memory(value) for key, value in found)


# -- expiry ----------------------------------------------------------------------------------------------------------


def test_what_has_expired_elsewhere_is_hidden_and_stays(node: ServerHarness, client: Client) -> None:
    applied(node, "SET web:1 v", f"PEXPIREAT web:1 {PAST}", "HSET web:h f v g v", f"HPEXPIREAT web:h {PAST} FIELDS 1 f")
    client.call("SET", "app:1", "v")
    client.call("PEXPIRE", "app:1", "5")
    client.call("SET", "k", "v", "PX", "5")
    node.advance(1)
    effects = recorded(node.store)
    assert client.call("GET", "web:1") == b"$-1\r\n"
    assert client.call("EXISTS", "web:1") == b":0\r\n"
    assert client.call("HGET", "web:h", "f") == b"$-1\r\n"
    assert client.call("KEYS", "web:1") == b"*0\r\n"
    ExpirySweeper(node.store).sweep(never)
    assert sorted(key for _, key, _ in effects if key) == [b"app:1", b"k"]
    assert client.call("DBSIZE") == b":2\r\n"
    # The writer says so itself.
    applied(node, "DEL web:1")
    assert client.call("DBSIZE") == b":1\r\n"


def test_a_scope_that_is_moving_or_closed_keeps_what_has_expired(
    node: ServerHarness, client: Client, ownership: Ownership
) -> None:
    for key in ("app:1", "own:1"):
        client.call("SET", key, "v", "PX", "5")
    ownership.quiesce(b"app:", "b")
    ownership.close(b"own:", "b")
    node.advance(1)
    effects = recorded(node.store)
    assert client.call("GET", "app:1") == b"$-1\r\n"
    assert ExpirySweeper(node.store).sweep(never) == 0
    assert effects == []
    ownership.resume(b"app:")
    ownership.open(b"own:")
    assert client.call("GET", "own:1") == b"$-1\r\n"
    assert [key for _, key, _ in effects] == [b"own:1"]


def test_a_sweep_does_not_go_on_for_what_it_may_not_delete(node: ServerHarness) -> None:
    applied(node, *(f"SET web:{number} v" for number in range(200)))
    applied(node, *(f"PEXPIREAT web:{number} {PAST}" for number in range(200)))
    sweeper = ExpirySweeper(node.store)
    assert not sweeper.work(never)
    assert (sweeper.time_cap_reached, len(node.store.keyspace)) == (0, 200)


# -- eviction --------------------------------------------------------------------------------------------------------


def filled(own: int, foreign: int, policy: str) -> tuple[Store, Evictor]:
    store = Store(random.Random(1))
    store.now = 1_700_000_000_000
    store.settings.maxmemory_policy = policy
    evictor = Evictor(store, lambda: store.used)
    for number in range(own + foreign):
        key = b"%b:%d" % (b"own" if number < own else b"web", number)
        store.put(key, b"v" * 64)
        store.set_deadline(key, store.now + 1000 + number)
    store.commit()
    store.foreign = is_web
    store.foreign_keys, store.foreign_used = counted(store)
    return store, evictor


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-ttl", "volatile-random"])
@pytest.mark.parametrize(("own", "foreign"), [(500, 20_000), (50, 50), (3, 4000)])
def test_only_our_own_keys_are_evicted(policy: str, own: int, foreign: int) -> None:
    store, evictor = filled(own, foreign, policy)
    effects = recorded(store)
    # Room for all but what is ours.
    store.settings.maxmemory = store.foreign_used
    for _ in range(10_000):
        if not evictor.make_room(never):
            break
        if store.used <= store.settings.maxmemory:
            break
    assert {key for _, key, _ in effects if key and is_web(key)} == set()
    assert len(effects) == own
    assert len(store.keyspace) == foreign


def test_where_nothing_is_ours_to_evict_memory_is_out() -> None:
    store, evictor = filled(0, 3000, "allkeys-lru")
    store.settings.maxmemory = 1
    assert not evictor.make_room(never)
    # Also where nobody has counted them.
    store.foreign_keys = 0
    assert any(not evictor.make_room(never) for _ in range(100))
    assert len(store.keyspace) == 3000


def test_copies_do_not_count_toward_maxmemory(node: ServerHarness, client: Client) -> None:
    housekeeper = Housekeeper(node.server)
    applied(node, *(f"SET web:{number} {'v' * 100}" for number in range(1000)))
    node.store.settings.maxmemory = 50_000
    housekeeper.limit_memory(50_000)
    assert node.server.rates.memory() > 100_000
    assert node.server.rates.own_memory() < 50_000
    assert client.call("SET", "app:1", "v") == b"+OK\r\n"
    client.call("SET", "app:2", "v" * 60_000)
    assert client.call("SET", "app:1", "v").startswith(b"-OOM")


# -- FLUSHALL --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FLUSHALL", "FLUSHDB", "flushall", "FlushDB"])
def test_flushall_leaves_what_others_write(node: ServerHarness, client: Client, name: str) -> None:
    applied(node, "SET web:1 v", "SET web:2 v")
    for key in ("app:1", "own:1", "k"):
        client.call("SET", key, "v")
    used = node.store.foreign_used
    effects = recorded(node.store)
    assert client.call(name) == b"+OK\r\n"
    assert sorted(tuple(command) for command, _, _ in effects) == [
        (b"DEL", b"app:1"),
        (b"DEL", b"k"),
        (b"DEL", b"own:1"),
    ]
    assert (node.store.used, node.store.foreign_keys) == (used, 2)
    effects.clear()
    assert client.call(name) == b"+OK\r\n"
    assert effects == []


def test_flushall_where_everything_is_ours_is_one_change(node: ServerHarness, client: Client) -> None:
    for key in ("app:1", "own:1", "k"):
        client.call("SET", key, "v")
    effects = recorded(node.store)
    assert client.call("FLUSHALL", "ASYNC") == b"+OK\r\n"
    assert [command for command, _, _ in effects] == [(b"FLUSHALL",)]


def test_flushall_waits_for_every_scope_of_ours(node: ServerHarness, client: Client, ownership: Ownership) -> None:
    client.call("SET", "app:1", "v")
    ownership.quiesce(b"app:", "b")
    assert client.call("FLUSHALL") == b"-QUIESCED migrating to 10.0.0.2:6004\r\n"
    ownership.resume(b"app:")
    ownership.close(b"own:", "b")
    assert client.call("FLUSHDB") == b"-LOADING scope own: is waiting for b\r\n"
    ownership.open(b"own:")
    # A stage of a move to here is not ours yet.
    ownership.quiesce(b"web:", "a")
    assert client.call("FLUSHALL") == b"+OK\r\n"
    assert len(node.store.keyspace) == 0


@pytest.mark.parametrize("name", ["FLUSHALL", "flushdb"])
def test_flushall_of_a_stream_or_a_file_is_of_all_keys(node: ServerHarness, client: Client, name: str) -> None:
    applied(node, "SET web:1 v")
    client.call("SET", "k", "v")
    effects = recorded(node.store)
    applied(node, name)
    assert len(node.store.keyspace) == 0
    assert [command for command, _, _ in effects] == [(b"FLUSHALL",)]


def test_a_replica_leaves_it_to_its_primary(node: ServerHarness) -> None:
    applied(node, "SET web:1 v")
    node.server.become_replica(read_only=False)
    client = node.connect()
    client.call("FLUSHALL")
    assert client.call("DBSIZE") == b":0\r\n"
    node.server.become_primary()
    applied(node, "SET web:1 v")
    client.call("FLUSHALL")
    assert client.call("DBSIZE") == b":1\r\n"


def test_flushall_breaks_the_watch_of_what_it_removes(node: ServerHarness, client: Client) -> None:
    applied(node, "SET web:1 v")
    client.call("SET", "k", "v")
    mine, theirs = node.connect(), node.connect()
    mine.call("WATCH", "k")
    theirs.call("WATCH", "web:1")
    client.call("FLUSHALL")
    for session, answer in ((mine, b"*-1\r\n"), (theirs, b"*1\r\n+PONG\r\n")):
        session.call("MULTI")
        session.call("PING")
        assert session.call("EXEC") == answer


# -- counting --------------------------------------------------------------------------------------------------------


def test_copies_are_counted_after_a_change_of_owner(node: ServerHarness, client: Client, ownership: Ownership) -> None:
    housekeeper = Housekeeper(node.server)
    for number in range(3000):
        client.call("SET", f"app:{number}", "v" * (number % 50))
    client.call("RPUSH", "app:list", "a", "b")
    client.call("SET", "k", "v")
    ownership.set_owner(b"app:", "b", 1)
    while housekeeper.work() < 0.1:
        pass
    assert node.store.foreign_keys == 3001
    assert node.store.used - node.store.foreign_used == bytes_memory(b"k") + bytes_memory(b"v")
    ownership.set_owner(b"app:", "a", 2)
    while housekeeper.work() < 0.1:
        pass
    assert (node.store.foreign_keys, node.store.foreign_used) == (0, 0)


def test_copies_are_counted_anew_from_time_to_time(node: ServerHarness) -> None:
    housekeeper = Housekeeper(node.server)
    housekeeper.work()
    # By a way that counts nothing.
    node.store.put(b"web:1", b"v")
    node.store.commit()
    node.advance(61)
    housekeeper.work()
    assert (node.store.foreign_keys, node.store.foreign_used) == counted(node.store)


def test_what_is_applied_is_counted_at_once(node: ServerHarness) -> None:
    store = node.store
    for line in ("SET web:1 v", "RPUSH web:2 a b", "LPOP web:2 1", "APPEND web:1 more", "DEL web:1", "DEL web:2"):
        applied(node, line)
        assert (store.foreign_keys, store.foreign_used) == counted(store)


@pytest.mark.slow
@given(st.integers(0, 1 << 32), st.integers(1500, 6000), st.booleans())
def test_a_walk_among_changes_comes_near(seed: int, size: int, shrinks: bool) -> None:
    generator = random.Random(seed)
    store = Store(random.Random(seed))
    for number in range(size):
        store.put(b"web:%d" % number, b"v")
        store.put(b"own:%d" % number, b"v")
    walk = ForeignCount(store)
    walk.restart(is_web)
    steps = 0
    while walk.work(lambda: True):
        with foreign_changes(store):
            for _ in range(50):
                key = b"web:%d" % generator.randrange(2 * size)
                if shrinks:
                    store.delete(key)
                else:
                    store.put(key, b"v" * 20)
        store.put(b"own:%d" % (size + steps), b"v")
        steps += 1
    keys, used = counted(store)
    # A share of what was changed meanwhile, by the evenness of hashes.
    assert abs(store.foreign_keys - keys) <= 20 + 5 * steps
    assert abs(store.foreign_used - used) <= (20 + 5 * steps) * 100
    walk.again()
    while walk.work(never):
        pass
    assert (store.foreign_keys, store.foreign_used) == (keys, used)


def test_replaced_data_are_counted(node: ServerHarness) -> None:
    applied(node, "SET web:1 v")
    node.store.clear()
    assert (node.store.foreign_keys, node.store.foreign_used) == (0, 0)
    node.store.put(b"web:2", b"v")
    while node.server.foreign_count.work(never):
        pass
    assert (node.store.foreign_keys, node.store.foreign_used) == counted(node.store)


# -- INFO ------------------------------------------------------------------------------------------------------------


def test_info_tells_who_writes_what(node: ServerHarness, ownership: Ownership) -> None:
    ownership.set_owner(b"web:", "c", 3)
    ownership.quiesce(b"app:", "b")
    ownership.close(b"own:", "b,c")
    assert info_text(node.server, ["scopes"]).split("\r\n") == [
        "# Scopes",
        "scopes_declared:3",
        "scopes_owned:2",
        "scopes_open:0",
        "scope0:prefix=app:,owner=a,epoch=0,state=quiesced,writer=a,detail=b",
        "scope1:prefix=own:,owner=a,epoch=0,state=waiting,writer=a,fallback=b,detail=b;c",
        "scope2:prefix=web:,owner=c,epoch=3,state=elsewhere,writer=b",
        "moves_known:0",
        "peers_declared:0",
        "peers_linked:0",
        "",
    ]
    assert "# Scopes" in info_text(node.server, [])


def test_info_tells_how_much_is_others(node: ServerHarness, client: Client) -> None:
    applied(node, "SET web:1 v")
    client.call("SET", "k", "v")
    memory = dict(line.split(":", 1) for line in info_text(node.server, ["memory"]).split("\r\n")[1:] if line)
    assert int(memory["used_memory_foreign"]) >= bytes_memory(b"web:1") + bytes_memory(b"v")
    assert int(memory["mem_not_counted_for_evict"]) >= int(memory["used_memory_foreign"])
    assert "db0:keys=2,expires=0,avg_ttl=0,keys_with_volatile_items=0,foreign=1" in info_text(node.server, ["keyspace"])


def test_without_scopes_info_is_as_ever() -> None:
    node = ServerHarness()
    node.connect().call("SET", "k", "v")
    text = info_text(node.server, ["everything"]) + info_text(node.server, ["scopes"])
    assert "Scopes" not in text
    assert "foreign" not in text
