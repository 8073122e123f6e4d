"""The gate of scopes: every key of every write is asked for, and a refused write changes nothing."""

from __future__ import annotations

import pytest
from support.session_harness import Client, ServerHarness, request
from support.store_harness import recorded
from support.written_keys import LINES, VALUES, WHOLE, fill

from kevynode.config import NodeConfig
from kevynode.errors import Misdirected, Quiesced, ReplyError
from kevynode.scope import OwnershipTable, Scope
from kevynode.scope.ownership import Ownership
from kevynode.serve import dispatch
from kevynode.serve.local import LocalClient
from kevynode.serve.parameters import Parameters
from kevynode.serve.table import TABLE

MISDIRECTED = b"-MISDIRECTED writer is 10.0.0.2:6004\r\n"
QUIESCED = b"-QUIESCED migrating to 10.0.0.3:6004\r\n"
CROSS = b"-CROSSSCOPE keys of the scopes app: and own: in one command or transaction\r\n"
ABORT = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"


def scopes() -> Ownership:
    table = OwnershipTable([Scope(b"app:", "a"), Scope(b"own:", "a"), Scope(b"web:", "b"), Scope(b"zoo:", "c")])
    return Ownership("a", table, {"a": "10.0.0.1:6004", "b": "10.0.0.2:6004", "c": "10.0.0.3:6004"})


@pytest.fixture
def ownership() -> Ownership:
    return scopes()


@pytest.fixture
def node(ownership: Ownership) -> ServerHarness:
    node = ServerHarness()
    node.server.ownership = ownership
    return node


def put(node: ServerHarness, *words: str) -> None:
    """Change what clients may not: a copy of what another node writes."""
    kept, node.server.ownership = node.server.ownership, None
    assert not node.connect().call(*words).startswith(b"-")
    node.server.ownership = kept


def prepared(kind: str, keys: dict[str, str]) -> ServerHarness:
    """A node where all keys of a line hold something, and whose scopes are declared after that."""
    node = ServerHarness()
    if kind in VALUES:
        name, *rest = VALUES[kind]
        for key in keys.values():
            node.connect().call(name, key, *rest)
    node.server.ownership = scopes()
    return node


def written(line: str) -> list[str]:
    return [name for name in "wv" if f"{{{name}}}" in line]


# -- the table of commands -------------------------------------------------------------------------------------------


def test_no_command_that_writes_is_missing_here() -> None:
    every = {entry.full_name for top in TABLE for entry in (top, *top.subcommands.values()) if entry.writes}
    assert {line.split()[0].lower() for _, line in LINES} | WHOLE == every


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_what_a_command_changes_is_among_the_keys_it_says_it_writes(kind: str, line: str) -> None:
    keys = {name: f"own:{name}" for name in "wv"} | {name: f"web:{name}" for name in "rq"}
    node = prepared(kind, keys)
    effects = recorded(node.store)
    reply = node.connect().call(*fill(line, **keys))
    if kind != "other":
        assert not reply.startswith(b"-"), reply
        assert effects
    assert {key for _, key, _ in effects} <= {f"own:{name}".encode() for name in written(line)}
    assert {
        key.decode()
        for key in TABLE.by_name[line.split(maxsplit=1)[0].lower().encode()].written_keys(
            [word.encode() for word in fill(line, **keys)]
        )
    } == {keys[name] for name in written(line)}


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_no_write_to_another_nodes_key_comes_through(kind: str, line: str) -> None:
    for name in written(line):
        keys = dict.fromkeys("wvrq", "") | {each: f"k{each}" for each in "wvrq"} | {name: "web:key"}
        node = prepared(kind, keys)
        effects, before = recorded(node.store), node.store.used
        client, words = node.connect(), fill(line, **keys)
        assert client.call(*words) == MISDIRECTED
        assert client.call(words[0].lower(), *words[1:]) == MISDIRECTED
        assert client.call(words[0].capitalize(), *words[1:]) == MISDIRECTED
        # Among others, from the first to the last of a pipeline.
        assert (
            client.send(request(*words) + request("SET", "mine", "1") + request(*words))
            == MISDIRECTED + OK + MISDIRECTED
        )
        assert client.call("MULTI") == OK
        assert client.call(*words) == MISDIRECTED
        assert client.call("SET", "mine", "2") == QUEUED
        assert client.call("EXEC") == ABORT
        with pytest.raises(Misdirected) as caught:
            LocalClient(node.server).execute(*words)
        assert caught.value.writer == "10.0.0.2:6004"
        assert [key for _, key, _ in effects] == [b"mine"]
        assert client.call("DEL", "mine") == b":1\r\n"
        assert node.store.used == before


@pytest.mark.parametrize(("kind", "line"), [(kind, line) for kind, line in LINES if len(written(line)) == 2])
def test_two_scopes_in_one_command_are_refused_even_if_both_are_ours(kind: str, line: str) -> None:
    keys = {"w": "app:w", "v": "own:v", "r": "r", "q": "q"}
    node = prepared(kind, keys)
    effects = recorded(node.store)
    assert node.connect().call(*fill(line, **keys)) == CROSS
    # Nor is it said where else to go: there is no one place.
    assert node.connect().call(*fill(line, **keys | {"v": "web:v"})).startswith(b"-CROSSSCOPE ")
    assert effects == []


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_a_scope_that_is_not_open_takes_no_writes(kind: str, line: str) -> None:
    keys = {name: f"app:{name}" for name in "wvrq"}
    node = prepared(kind, keys)
    effects = recorded(node.store)
    client, words = node.connect(), fill(line, **keys)
    ownership = node.server.ownership
    assert ownership is not None
    ownership.close(b"app:", "b")
    assert client.call(*words) == b"-LOADING scope app: is waiting for b\r\n"
    ownership.quiesce(b"app:", "c")
    assert client.call(*words) == QUIESCED
    with pytest.raises(Quiesced):
        LocalClient(node.server).execute(*words)
    assert effects == []
    ownership.open(b"app:")
    ownership.resume(b"app:")
    assert not client.call(*words).startswith((b"-QUIESCED", b"-LOADING", b"-MISDIRECTED"))


def test_reads_always_answer(node: ServerHarness, client: Client) -> None:
    put(node, "SET", "web:1", "v")
    put(node, "RPUSH", "web:list", "a")
    assert client.call("GET", "web:1") == b"$1\r\nv\r\n"
    assert client.call("MGET", "web:1", "app:1") == b"*2\r\n$1\r\nv\r\n$-1\r\n"
    assert client.call("SORT", "web:list", "ALPHA") == b"*1\r\n$1\r\na\r\n"
    assert client.call("EXISTS", "web:1", "zoo:1") == b":1\r\n"
    assert client.call("WATCH", "web:1", "zoo:1") == OK
    assert client.call("MULTI") == OK
    assert client.call("GET", "web:1") == QUEUED
    assert client.call("SET", "app:1", "v") == QUEUED
    assert client.call("EXEC") == b"*2\r\n$1\r\nv\r\n+OK\r\n"


@pytest.mark.parametrize("key", ["", "k", "we", "web", "wea:1", "webx", "x" * 100, "app:", "own:1"])
def test_what_is_ours_or_nobodys_is_written_here(client: Client, key: str) -> None:
    assert client.call("SET", key, "v") == OK
    assert client.call("MSET", key, "v", "other", "v") == OK


def test_most_writes_stay_on_the_fast_path(
    node: ServerHarness, client: Client, ownership: Ownership, monkeypatch: pytest.MonkeyPatch
) -> None:
    careful: list[list[bytes]] = []
    process = dispatch.process

    def note(session: object, argv: list[bytes]) -> None:
        careful.append(argv)
        process(session, argv)  # type: ignore[arg-type]

    monkeypatch.setattr(dispatch, "process", note)
    client.send(b"".join(request("SET", key, "v") for key in ("app:1", "own:1", "k", "")) + request("GET", "web:1"))
    assert careful == []
    client.call("SET", "web:1", "v")
    assert careful == [[b"SET", b"web:1", b"v"]]
    careful.clear()
    ownership.set_owner(b"web:", "a", 1)
    ownership.set_owner(b"zoo:", "a", 1)
    client.call("SET", "web:1", "v")
    assert careful == []
    node.server.ownership = None
    client.call("MSET", "web:1", "v", "app:1", "v")
    assert careful == []


def test_a_server_hears_only_of_the_ownership_it_has(node: ServerHarness, client: Client, ownership: Ownership) -> None:
    node.server.ownership = scopes()
    ownership.set_owner(b"app:", "b", 1)
    assert client.call("SET", "app:1", "v") == OK
    node.server.ownership = ownership
    assert client.call("SET", "app:1", "v") == MISDIRECTED
    assert len(ownership.observers) == 1


def test_a_node_without_a_key_of_its_own(client: Client, node: ServerHarness) -> None:
    node.server.ownership = Ownership("a", OwnershipTable([Scope(b"", "b")]), {"b": "10.0.0.2:6004"})
    for key in ("", "k", "web:1"):
        assert client.call("SET", key, "v") == MISDIRECTED
        assert client.call("GET", key) == b"$-1\r\n"
    assert client.call("MSET", "a", "1", "b", "2") == MISDIRECTED


# -- the order of errors ---------------------------------------------------------------------------------------------


def test_what_is_no_command_is_refused_as_such(client: Client) -> None:
    assert client.call("SET", "web:1").startswith(b"-ERR wrong number")
    assert client.call("NEVER", "web:1").startswith(b"-ERR unknown command")
    # Where keys cannot be told from the rest the handler refuses.
    assert client.call("LMPOP", "x", "web:1", "LEFT").startswith(b"-ERR numkeys")
    assert client.call("LMPOP", "9", "web:1", "LEFT").startswith(b"-ERR syntax")


def test_keys_are_asked_for_before_values_and_options(node: ServerHarness, client: Client) -> None:
    put(node, "SET", "web:1", "no number")
    assert client.call("INCR", "web:1") == MISDIRECTED
    assert client.call("SET", "web:1", "v", "NONSENSE") == MISDIRECTED


def test_keys_are_asked_for_before_memory_and_role(node: ServerHarness, client: Client) -> None:
    node.server.ask_for_room(lambda: False)
    assert client.call("SET", "web:1", "v") == MISDIRECTED
    assert client.call("SET", "app:1", "v") == OOM
    node.server.ask_for_room(None)
    node.server.become_replica(read_only=True)
    assert client.call("SET", "web:1", "v") == MISDIRECTED
    assert client.call("SET", "app:1", "v").startswith(b"-READONLY")


def test_who_has_not_given_the_password_is_not_told(node: ServerHarness) -> None:
    node.server.set_password(b"secret")
    assert node.connect().call("SET", "web:1", "v").startswith(b"-NOAUTH")


def test_refusals_are_counted(node: ServerHarness, client: Client) -> None:
    client.call("SET", "web:1", "v")
    assert node.server.statistics.errors == {"MISDIRECTED": 1}


# -- transactions ----------------------------------------------------------------------------------------------------


def test_a_transaction_of_one_scope_and_keys_of_none(client: Client) -> None:
    client.call("MULTI")
    assert client.call("SET", "app:1", "v") == QUEUED
    assert client.call("MSET", "app:2", "v", "k", "v") == QUEUED
    assert client.call("EXEC") == b"*2\r\n+OK\r\n+OK\r\n"


def test_a_transaction_of_two_scopes_is_refused_as_a_whole(node: ServerHarness, client: Client) -> None:
    effects = recorded(node.store)
    client.call("MULTI")
    assert client.call("SET", "app:1", "v") == QUEUED
    assert client.call("SET", "own:1", "v") == CROSS
    assert client.call("EXEC") == ABORT
    assert effects == []
    assert client.call("EXEC") == b"-ERR EXEC without MULTI\r\n"


@pytest.mark.parametrize(
    ("first", "answer", "second"),
    [
        ("SET app:1 v", QUEUED, "SET own:1 v"),
        ("SET app:1 v", QUEUED, "MSET k v web:1 v"),
        ("SET web:1 v", MISDIRECTED, "DEL app:1"),
        ("SET web:1 v", MISDIRECTED, "DEL zoo:1"),
        ("SET k v", QUEUED, "MSET app:1 v web:1 v"),
    ],
)
def test_a_second_scope_is_refused_before_anybody_is_sent_elsewhere(
    node: ServerHarness, client: Client, first: str, answer: bytes, second: str
) -> None:
    """Who is sent to the other writer with all of it is sent back from there."""
    effects = recorded(node.store)
    client.call("MULTI")
    assert client.call(*first.split()) == answer
    assert client.call(*second.split()).startswith(b"-CROSSSCOPE ")
    assert client.call("EXEC") == ABORT
    assert client.call("SET", "k", "v") == OK
    client.call("MULTI")
    assert client.call("SET", "own:1", "v") == QUEUED
    assert client.call("DISCARD") == OK
    assert [key for _, key, _ in effects] == [b"k"]


def test_what_has_moved_since_it_was_queued_is_refused_as_a_whole(
    node: ServerHarness, client: Client, ownership: Ownership
) -> None:
    effects = recorded(node.store)
    client.call("MULTI")
    assert client.call("SET", "k", "v") == QUEUED
    assert client.call("SET", "app:1", "v") == QUEUED
    ownership.quiesce(b"app:", "c")
    assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of: " + QUIESCED[1:]
    client.call("MULTI")
    assert client.call("SET", "app:1", "v") == QUIESCED
    ownership.set_owner(b"app:", "b", 1)
    assert client.call("EXEC") == ABORT
    ownership.set_owner(b"app:", "a", 2)
    client.call("MULTI")
    assert client.call("SET", "app:1", "v") == QUEUED
    ownership.set_owner(b"app:", "b", 3)
    assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of: " + MISDIRECTED[1:]
    assert effects == []
    assert not client.session.watched
    assert client.call("SET", "own:1", "v") == OK


def test_a_watched_key_that_moves_aborts(client: Client, ownership: Ownership) -> None:
    client.call("WATCH", "app:1", "k")
    client.call("MULTI")
    client.call("SET", "k", "v")
    ownership.quiesce(b"app:", "b")
    ownership.set_owner(b"app:", "b", 1)
    assert client.call("EXEC") == b"*-1\r\n"


def test_a_watched_key_that_stays_does_not_abort(client: Client, ownership: Ownership) -> None:
    client.call("WATCH", "app:1", "k")
    client.call("MULTI")
    client.call("SET", "app:1", "v")
    ownership.quiesce(b"app:", "b")
    ownership.resume(b"app:")
    ownership.set_owner(b"app:", "a", 1)
    ownership.set_owner(b"own:", "b", 1)
    assert client.call("EXEC") == b"*1\r\n+OK\r\n"


def test_flushall_and_one_scope_may_stand_together(client: Client, ownership: Ownership) -> None:
    client.call("MULTI")
    assert client.call("FLUSHALL") == QUEUED
    assert client.call("SET", "app:1", "v") == QUEUED
    assert client.call("EXEC") == b"*2\r\n+OK\r\n+OK\r\n"
    client.call("MULTI")
    assert client.call("FLUSHALL") == QUEUED
    ownership.quiesce(b"own:", "c")
    assert client.call("EXEC") == b"-EXECABORT Transaction discarded because of: " + QUIESCED[1:]


# -- those who wait --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "BLPOP app:1 k 0",
        "BLPOP k app:1 0",
        "BLMOVE app:1 k LEFT LEFT 0",
        "BLMOVE k app:1 LEFT LEFT 0",
        "BZPOPMIN app:1 0",
        "BLMPOP 0 2 k app:1 LEFT",
    ],
)
def test_who_waits_for_a_key_that_moves_is_sent_after_it(node: ServerHarness, ownership: Ownership, line: str) -> None:
    first, second, other = node.connect(), node.connect(), node.connect()
    assert first.call(*line.split()) == b""
    assert other.call("BLPOP", "own:1", "k", "0") == b""
    ownership.quiesce(b"app:", "c")
    assert first.read() == QUIESCED
    assert first.woken
    assert first.call("PING") == b"+PONG\r\n"
    ownership.resume(b"app:")
    assert second.call(*line.split()) == b""
    ownership.set_owner(b"app:", "b", 1)
    assert second.read() == MISDIRECTED
    assert other.read() == b""
    assert node.server.waiters.count == 1
    assert node.server.statistics.errors == {"QUIESCED": 1, "MISDIRECTED": 1}


def test_who_waits_for_something_else_waits_on(node: ServerHarness, ownership: Ownership) -> None:
    waiting = node.connect()
    node.connect().call("SET", "app:1", "v")
    assert waiting.call("BLPOP", "own:1", "0") == b""
    ownership.set_owner(b"app:", "b", 1)
    ownership.close(b"web:", "c")
    assert waiting.session.blocked
    assert node.connect().call("RPUSH", "own:1", "x") == b":1\r\n"
    assert waiting.read() == b"*2\r\n$5\r\nown:1\r\n$1\r\nx\r\n"


# -- in-process ------------------------------------------------------------------------------------------------------


def test_programs_are_told_by_type(node: ServerHarness, ownership: Ownership) -> None:
    local = LocalClient(node.server)
    with pytest.raises(Misdirected) as misdirected:
        local.execute("SET", "web:1", "v")
    assert misdirected.value.writer == "10.0.0.2:6004"
    ownership.quiesce(b"app:", "c")
    with pytest.raises(Quiesced) as quiesced:
        local.execute("MSET", "app:1", "v", "k", "v")
    assert quiesced.value.target == "10.0.0.3:6004"
    with pytest.raises(ReplyError, match="CROSSSCOPE"):
        local.execute("MSET", "own:1", "v", "app:1", "v")
    assert local.execute("GET", "web:1") is None
    assert local.execute("BLPOP", "own:1", 0) is None


def test_a_command_that_is_put_off_is_asked_again(node: ServerHarness, client: Client, ownership: Ownership) -> None:
    node.server.start_pause("write", node.monotonic + 10)
    assert client.call("SET", "app:1", "v") == b""
    ownership.set_owner(b"app:", "b", 1)
    node.server.end_pause()
    assert client.read() == MISDIRECTED


def test_debug_populate_asks_too(node: ServerHarness, client: Client) -> None:
    node.server.parameters = Parameters(node.server, NodeConfig.from_dict({"config": {"enable-debug-command": "yes"}}))
    assert client.call("DEBUG", "POPULATE", "3", "web") == MISDIRECTED
    assert client.call("DEBUG", "POPULATE", "3", "app") == OK
