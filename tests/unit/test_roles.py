"""What a server serves in its role: what is refused, in which order, and that reads stay on the fast path."""

from __future__ import annotations

from collections.abc import Set

import pytest
from support.fake_replication import FakeReplication
from support.session_harness import Client, ServerHarness, request

from kevynode.errors import ReplyError
from kevynode.serve import dispatch
from kevynode.serve.housekeeping import Housekeeper
from kevynode.serve.local import LocalClient

READONLY = b"-READONLY You can't write against a read only replica.\r\n"
NOREPLICAS = b"-NOREPLICAS Not enough good replicas to write.\r\n"
STALE = b"-STALE replica is stale; read the primary or raise replica_max_staleness_ms\r\n"
LOADING = b"-LOADING kevynode is loading the dataset in memory\r\n"
OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
UNBLOCKED = b"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n"


@pytest.mark.parametrize(
    "words",
    ["SET k v", "DEL nothing", "GETEX k", "SORT k", "FLUSHALL", "BLPOP k 0", "EXPIRE nothing 1", "GETDEL k", "SPOP k"],
)
def test_a_replica_refuses_what_writes(node: ServerHarness, client: Client, words: str) -> None:
    node.server.become_replica(read_only=True)
    assert client.call(*words.split()) == READONLY


def test_a_replica_serves_everything_else(node: ServerHarness, client: Client) -> None:
    client.call("SET", "k", "v")
    node.server.become_replica(read_only=True)
    assert client.call("GET", "k") == b"$1\r\nv\r\n"
    assert client.call("get", "k") == b"$1\r\nv\r\n"
    assert client.call("gEt", "k") == b"$1\r\nv\r\n"
    assert client.call("PUBLISH", "a", "b") == b":0\r\n"
    assert client.call("PING") == b"+PONG\r\n"
    assert client.call("GET").startswith(b"-ERR wrong number")
    assert client.call("INCR").startswith(b"-ERR wrong number")
    assert client.call("NEVER").startswith(b"-ERR unknown command")
    assert b"\r\nrole\r\n$7\r\nreplica\r\n" in client.call("HELLO")


def test_reads_of_a_replica_take_the_fast_path(
    node: ServerHarness, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.call("SET", "k", "v")
    node.server.become_replica(read_only=True)
    careful: list[list[bytes]] = []
    process = dispatch.process

    def watched(session: object, argv: list[bytes]) -> None:
        careful.append(argv)
        process(session, argv)  # type: ignore[arg-type]

    monkeypatch.setattr(dispatch, "process", watched)
    client.call("GET", "k")
    assert careful == []
    client.call("SET", "k", "w")
    assert careful == [[b"SET", b"k", b"w"]]
    node.server.become_primary()
    careful.clear()
    assert client.call("SET", "k", "w") == b"+OK\r\n"
    assert careful == []


def test_a_reason_that_is_not_known_is_a_mistake(node: ServerHarness) -> None:
    with pytest.raises(KeyError):
        node.server.close_writes("mood")
    assert node.server.write_refusals == {}


def test_writes_open_when_the_last_reason_is_gone(node: ServerHarness, client: Client) -> None:
    server = node.server
    server.close_writes("readonly")
    server.close_writes("noreplicas")
    server.close_writes("noreplicas")
    # As Valkey asks: replicas first.
    assert client.call("SET", "k", "v") == NOREPLICAS
    server.open_writes("noreplicas")
    assert client.call("SET", "k", "v") == READONLY
    server.open_writes("readonly")
    server.open_writes("readonly")
    assert client.call("SET", "k", "v") == b"+OK\r\n"


def test_a_pipeline_sees_the_new_role_from_the_next_command_on(node: ServerHarness, client: Client) -> None:
    FakeReplication(node)
    batch = request("SET", "k", "1") + request("REPLICAOF", "10.0.0.1", "16004") + request("SET", "k", "2")
    batch += request("GET", "k") + request("REPLICAOF", "NO", "ONE") + request("SET", "k", "3")
    assert client.send(batch) == b"+OK\r\n+OK\r\n" + READONLY + b"$1\r\n1\r\n+OK\r\n+OK\r\n"


def test_queued_writes_are_refused_by_exec(node: ServerHarness, client: Client) -> None:
    client.call("WATCH", "k")
    client.call("MULTI")
    client.call("SET", "k", "v")
    client.call("GET", "k")
    node.server.become_replica(read_only=True)
    assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of: " + READONLY[1:]
    assert client.session.transaction is None
    assert node.store.lookup(b"k") is None


def test_a_write_refused_while_queuing_spoils_the_transaction(node: ServerHarness, client: Client) -> None:
    node.server.become_replica(read_only=True)
    client.call("MULTI")
    assert client.call("SET", "k", "v") == READONLY
    assert client.call("GET", "k") == b"+QUEUED\r\n"
    assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    client.call("MULTI")
    client.call("GET", "k")
    assert client.call("EXEC") == b"*1\r\n$-1\r\n"


def test_a_program_is_refused_too(node: ServerHarness) -> None:
    local = LocalClient(node.server)
    node.server.become_replica(read_only=True)
    with pytest.raises(ReplyError, match="READONLY"):
        local.execute("SET", "k", "v")
    assert local.execute("GET", "k") is None


def test_precedence(node: ServerHarness, client: Client) -> None:
    """Memory, replicas, read-only, subscriptions, staleness, loading, as the real server asks; no memory then."""
    server = node.server
    listener = node.connect()
    listener.call("SUBSCRIBE", "c")
    server.ask_for_room(lambda: False)
    server.close_writes("noreplicas")
    server.close_writes("readonly")
    server.set_stale(True)
    assert client.call("SET", "k", "v") == OOM
    server.set_loading(True)
    assert client.call("SET", "k", "v") == NOREPLICAS
    assert client.call("DEL", "k") == NOREPLICAS
    assert client.call("NEVER").startswith(b"-ERR unknown command")
    assert client.call("GET").startswith(b"-ERR wrong number")
    server.open_writes("noreplicas")
    assert listener.call("DEL", "k") == READONLY
    assert listener.call("GET", "k").startswith(b"-ERR Can't execute 'get'")
    assert client.call("GET", "k") == STALE
    server.set_stale(False)
    assert client.call("GET", "k") == LOADING


@pytest.mark.parametrize("words", ["GET k", "PING", "KEYS *", "DBSIZE", "WAIT 0 0", "SCAN 0"])
def test_what_a_stale_node_refuses(node: ServerHarness, client: Client, words: str) -> None:
    node.server.set_stale(True)
    assert client.call(*words.split()) == STALE
    node.server.set_stale(False)
    assert not client.call(*words.split()).startswith(b"-STALE")


@pytest.mark.parametrize(
    "words",
    ["INFO", "HELLO", "CONFIG GET port", "CLIENT ID", "ROLE", "PUBLISH a b", "REPL.TOKEN", "MULTI", "REPLICAOF NO ONE"],
)
def test_what_a_stale_node_serves(node: ServerHarness, client: Client, words: str) -> None:
    node.server.set_stale(True)
    assert not client.call(*words.split()).startswith(b"-")


@pytest.mark.parametrize("words", ["GET k", "SET k v", "KEYS *", "DBSIZE", "WAIT 0 0"])
def test_what_a_loading_node_refuses(node: ServerHarness, client: Client, words: str) -> None:
    node.server.set_loading(True)
    assert client.call(*words.split()) == LOADING
    assert b"\r\nloading:1\r\n" in client.call("INFO", "persistence")
    node.server.set_loading(False)
    assert not client.call(*words.split()).startswith(b"-")


@pytest.mark.parametrize(
    "words",
    ["PING", "INFO", "HELLO", "CONFIG GET port", "CLIENT ID", "ROLE", "AUTH x", "REPL.TOKEN", "REPLICAOF NO ONE"],
)
def test_what_a_loading_node_serves(node: ServerHarness, client: Client, words: str) -> None:
    node.server.set_loading(True)
    assert not client.call(*words.split()).startswith(b"-LOADING")


def test_exec_of_a_stale_node_runs_only_what_all_may(node: ServerHarness, client: Client) -> None:
    client.call("MULTI")
    client.call("ROLE")
    client.call("GET", "k")
    node.server.set_stale(True)
    assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of: " + STALE[1:]
    client.call("MULTI")
    client.call("PUBLISH", "a", "b")
    assert client.call("EXEC") == b"*1\r\n:0\r\n"


def test_who_waits_for_a_key_is_told_and_closed(node: ServerHarness) -> None:
    """As Valkey: an error, and then the end of the connection."""
    popper, waiter, token, other = (node.connect() for _ in range(4))
    popper.call("BLPOP", "a", "b", "0")
    waiter.call("WAIT", "1", "0")
    fake = FakeReplication(node)
    fake.applied[0xABC] = 5
    token.call("REPL.WAIT", str(0xABC), "9")
    node.server.become_replica(read_only=True)
    for client in (popper, waiter):
        assert client.read() == UNBLOCKED
        assert client.session.closing
        assert client.woken
    # Whoever waits for what is applied here waits on.
    assert token.session.blocked
    assert not other.session.closing
    fake.advance(0xABC, 9)
    assert token.read() == b"+OK\r\n"
    assert node.server.waiters.count == 0
    assert node.store.journal.observers == []


def test_a_paused_write_is_asked_again_in_the_new_role(node: ServerHarness, client: Client) -> None:
    node.connect().call("CLIENT", "PAUSE", "10000", "WRITE")
    assert client.call("SET", "k", "v") == b""
    node.server.become_replica(read_only=True)
    assert node.server.pause == "write"
    assert client.read() == b""
    node.connect().call("CLIENT", "UNPAUSE")
    assert client.read() == READONLY


def test_a_replica_may_be_writable(node: ServerHarness, client: Client) -> None:
    node.server.become_replica(read_only=False)
    assert client.call("SET", "k", "v") == b"+OK\r\n"
    assert client.call("CONFIG", "SET", "replica-read-only", "yes") == b"+OK\r\n"
    assert client.call("SET", "k", "v") == READONLY
    assert client.call("CONFIG", "SET", "replica-read-only", "no") == b"+OK\r\n"
    assert client.call("SET", "k", "w") == b"+OK\r\n"


def test_a_primary_does_not_care_for_replica_read_only(client: Client) -> None:
    assert client.call("CONFIG", "SET", "replica-read-only", "no", "slave-read-only", "yes").startswith(b"+OK")
    assert client.call("SET", "k", "v") == b"+OK\r\n"


def test_a_replica_hides_what_has_expired_and_deletes_nothing(node: ServerHarness, client: Client) -> None:
    client.call("SET", "k", "v", "PX", "10")
    node.server.become_replica(read_only=True)
    house = Housekeeper(node.server)
    node.advance(1)
    assert client.call("GET", "k") == b"$-1\r\n"
    house.work()
    assert len(node.store.keyspace) == 1
    offset = node.store.journal.offset
    node.server.become_primary()
    house.work()
    assert len(node.store.keyspace) == 0
    assert node.store.journal.offset == offset + 1


@pytest.mark.parametrize("reason", ["files", "copy"])
def test_nothing_is_evicted_while_data_are_loaded(node: ServerHarness, client: Client, reason: str) -> None:
    """Half of the data may be there, and all of it may be a copy: what it lacks then its history would not tell."""
    server, settings = node.server, node.store.settings
    house = Housekeeper(server)
    for number in range(50):
        client.call("SET", f"k{number}", "v")
    offset = node.store.journal.offset
    settings.maxmemory, settings.maxmemory_policy = 1, "allkeys-random"
    house.follow_policy("")
    for limits_before in (False, True):
        if limits_before:
            house.limit_memory(1)
        server.set_loading(True, reason)
        house.limit_memory(1)
        assert client.call("CLIENT", "GETNAME") == b"$-1\r\n"
        assert client.call("INFO", "server").startswith(b"$")
        assert (len(node.store.keyspace), node.store.journal.offset) == (50, offset)
        house.limit_memory(0)
        server.set_loading(False, reason)
    house.limit_memory(1)
    assert client.call("CLIENT", "GETNAME") == b"$-1\r\n"
    assert len(node.store.keyspace) < 50


def test_a_replica_does_not_ask_for_room(node: ServerHarness, client: Client) -> None:
    house = Housekeeper(node.server)
    client.call("SET", "k", "v" * 1000)
    client.call("CONFIG", "SET", "maxmemory", "1")
    house.limit_memory(1)
    assert client.call("SET", "k", "w") == OOM
    node.server.become_replica(read_only=False)
    assert "memory" not in node.server.gates
    assert client.call("SET", "k", "w") == b"+OK\r\n"
    house.work()
    node.server.become_primary()
    assert client.call("SET", "k", "x") == OOM
    house.limit_memory(0)
    assert client.call("SET", "k", "x") == b"+OK\r\n"


# -- where sessions wrote -------------------------------------------------------------------------------------------


def test_a_session_notes_where_it_wrote(node: ServerHarness) -> None:
    first, second = node.connect(), node.connect()
    first.call("SET", "a", "1")
    second.call("SET", "a", "1")
    second.call("GET", "a")
    assert (first.session.wrote, second.session.wrote) == (1, 2)
    first.call("MULTI")
    first.call("SET", "a", "2")
    first.call("LPUSH", "l", "x", "y")
    first.call("EXEC")
    assert first.session.wrote == 4
    popper = node.connect()
    popper.call("BLPOP", "q", "0")
    second.call("RPUSH", "q", "1")
    assert (second.session.wrote, popper.session.wrote) == (5, 6)


def test_written_keys_are_kept_while_they_are_asked_for(node: ServerHarness, client: Client) -> None:
    session = client.session
    client.call("SET", "early", "1")
    node.server.tracks_written_keys = True
    assert session.written is None
    fresh = node.connect()
    fresh.call("SET", "a", "1")
    fresh.call("MULTI")
    fresh.call("SET", "b", "1")
    fresh.call("EXEC")
    fresh.call("GET", "c")
    assert fresh.session.written == {b"a", b"b"}
    fresh.call("FLUSHALL")
    assert fresh.session.written is None


def written_by(client: Client) -> Set[bytes] | None:
    return client.session.written


def test_written_keys_are_bounded(node: ServerHarness, client: Client) -> None:
    node.server.tracks_written_keys = True
    client.send(b"".join(request("SET", f"k{number}", "v") for number in range(1000)))
    assert len(written_by(client) or ()) == 1000
    client.call("SET", "one more", "v")
    assert written_by(client) is None
    client.call("SET", "and another", "v")
    assert written_by(client) is None


def test_a_fulfilled_wait_begins_a_new_set_with_the_next_write(node: ServerHarness, client: Client) -> None:
    fake = FakeReplication(node)
    node.server.tracks_written_keys = True
    client.call("SET", "a", "1")
    fake.acks = [(0, None)]
    client.call("WAIT", "1", "1")
    node.advance(1)
    assert client.read() == b":0\r\n"
    client.call("SET", "b", "1")
    assert client.session.written == {b"a", b"b"}
    fake.acks = [(2, None)]
    assert client.call("WAIT", "1", "0") == b":1\r\n"
    # Asked again, it is still about the same keys.
    assert client.call("WAIT", "1", "0") == b":1\r\n"
    assert fake.asked_keys[-1] == frozenset((b"a", b"b"))
    client.call("SET", "c", "1")
    assert client.session.written == {b"c"}


def test_a_filtered_replica_counts_for_what_it_follows(node: ServerHarness, client: Client) -> None:
    fake = FakeReplication(node)
    fake.acks = [(9, (b"app:",)), (9, None)]
    client.call("SET", "app:1", "v")
    # Nobody has watched: it may have been any key.
    assert client.call("WAIT", "0", "0") == b":1\r\n"
    node.server.tracks_written_keys = True
    other = node.connect()
    other.call("SET", "app:2", "v")
    assert other.call("WAIT", "0", "0") == b":2\r\n"
    other.call("SET", "unscoped", "v")
    assert other.call("WAIT", "0", "0") == b":1\r\n"
