"""BGREWRITEAOF, SAVE, BGSAVE, LASTSAVE, WAITAOF, INFO, MISCONF and loading, against files that the test plays."""

from __future__ import annotations

import attrs
import pytest
from support.fake_files import FakeFiles, info
from support.fake_replication import FakeReplication
from support.session_harness import Client, ServerHarness, request

from kevynode.errors import ReplyError
from kevynode.persistence_view import AppendOnlyFacts
from kevynode.serve.local import LocalClient
from kevynode.serve.server import Shutdown

MISCONF = b"-MISCONF Errors writing to the AOF file: No space left on device\r\n"
NOREPLICAS = b"-NOREPLICAS Not enough good replicas to write.\r\n"
OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
LOADING = b"-LOADING kevynode is loading the dataset in memory\r\n"
NO_FILES = b"-ERR this node keeps its data in memory only, and writes no files\r\n"
ABORTED = b"-EXECABORT Transaction discarded because of: "
NOT_SAVED = b"-ERR the data could not be saved; the node's log has the reason\r\n"


# -- BGREWRITEAOF ---------------------------------------------------------------------------------------------------


def test_a_rewrite_starts_once(client: Client, files: FakeFiles) -> None:
    assert client.call("BGREWRITEAOF") == b"+Background append only file rewriting started\r\n"
    assert client.call("BGREWRITEAOF") == b"-ERR Background append only file rewriting already in progress\r\n"
    assert files.asked == ["rewrite"]
    assert client.call("BGREWRITEAOF", "x") == b"-ERR wrong number of arguments for 'bgrewriteaof' command\r\n"


def test_a_rewrite_waits_for_a_dump(client: Client, files: FakeFiles) -> None:
    files.dump = attrs.evolve(files.dump, running=1.0)
    assert client.call("BGREWRITEAOF") == b"+Background append only file rewriting scheduled\r\n"


def test_inside_exec_both_begin_later(client: Client, node: ServerHarness, files: FakeFiles) -> None:
    client.call("MULTI")
    client.call("BGSAVE")
    client.call("LASTSAVE")
    client.call("EXEC")
    files.end_dump(True)
    for word in ("MULTI", "SET a 1", "BGREWRITEAOF", "BGSAVE"):
        client.call(*word.split())
    scheduled = b"+Background append only file rewriting scheduled\r\n+Background saving scheduled\r\n"
    assert client.call("EXEC") == b"*3\r\n+OK\r\n" + scheduled
    assert files.asked == ["save, or later", "rewrite", "save, or later"]
    assert not node.server.in_exec


# -- SAVE, BGSAVE, LASTSAVE -----------------------------------------------------------------------------------------


def test_save_answers_when_the_dump_is_complete(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    assert client.send(request("SAVE") + request("LASTSAVE")) == b""
    # Everybody else is served.
    other = node.connect()
    assert other.call("SET", "a", "1") == b"+OK\r\n"
    assert other.call("SAVE") == b"-ERR Background save already in progress\r\n"
    assert other.call("BGSAVE") == b"-ERR Background save already in progress\r\n"
    node.server.dump_ended()
    assert client.read() == b""
    files.end_dump(True)
    assert client.read() == b"+OK\r\n:1234\r\n"
    assert node.server.waiters.count == 0
    # It was one call.
    assert b"cmdstat_save:calls=2," in client.call("INFO", "commandstats")


def test_a_save_that_fails_is_an_error(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    client.call("SAVE")
    files.end_dump(False)
    assert client.read() == NOT_SAVED
    assert node.server.statistics.errors == {"ERR": 1}
    client.call("SAVE")
    files.end_dump(True)
    assert client.read() == b"+OK\r\n"


def test_a_save_waits_for_a_rewrite(client: Client, node: ServerHarness, files: FakeFiles) -> None:
    client.call("BGREWRITEAOF")
    assert client.call("SAVE") == b""
    node.server.dump_ended()
    assert client.read() == b""
    files.begin_scheduled()
    files.end_dump(True)
    assert client.read() == b"+OK\r\n"


def test_a_save_that_is_given_up_is_an_error(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    client.call("SAVE")
    assert node.connect().call("BGSAVE", "CANCEL") == b"+Background saving cancelled\r\n"
    assert client.read() == NOT_SAVED


def test_a_save_that_is_unblocked_says_that_it_goes_on(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    client.call("SAVE")
    other = node.connect()
    assert other.call("CLIENT", "UNBLOCK", str(client.session.id)) == b":1\r\n"
    assert client.read() == b"-ERR the data are still being saved\r\n"
    files.end_dump(True)
    assert client.read() == b""


def test_a_save_whose_client_leaves_is_written_all_the_same(client: Client, files: FakeFiles) -> None:
    client.call("SAVE")
    client.session.disconnected("closed")
    files.end_dump(True)
    assert files.asked == ["save, or later"]


def test_save_is_not_for_transactions_and_programs(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    client.call("MULTI")
    assert client.call("SAVE") == b"-ERR Command 'save' not allowed inside a transaction\r\n"
    with pytest.raises(ReplyError, match=r"await node\.save\(\)"):
        LocalClient(node.server).execute("SAVE")
    assert files.asked == []
    assert LocalClient(node.server).execute("BGSAVE") == "Background saving started"


def test_bgsave(client: Client, files: FakeFiles) -> None:
    assert client.call("BGSAVE", "CANCEL").startswith(b"-ERR Background saving is currently not in progress or sch")
    assert client.call("BGSAVE") == b"+Background saving started\r\n"
    assert client.call("BGSAVE", "schedule") == b"-ERR Background save already in progress\r\n"
    files.end_dump(True)
    assert client.call("BGSAVE", "SCHEDULE") == b"+Background saving started\r\n"
    assert client.call("BGSAVE", "Cancel") == b"+Background saving cancelled\r\n"
    for words in (("x",), ("SCHEDULE", "x"), ("CANCEL", "x"), ("",)):
        assert client.call("BGSAVE", *words) == b"-ERR syntax error\r\n"


def test_bgsave_beside_a_rewrite(client: Client, files: FakeFiles) -> None:
    client.call("BGREWRITEAOF")
    assert client.call("BGSAVE") == b"-ERR not now\r\n"
    assert client.call("BGSAVE", "SCHEDULE") == b"+Background saving scheduled\r\n"
    assert client.call("BGSAVE", "CANCEL") == b"+Scheduled background saving cancelled\r\n"


def test_a_node_in_memory_only_says_so(node: ServerHarness, client: Client) -> None:
    for words in ("BGREWRITEAOF", "SAVE", "BGSAVE", "BGSAVE SCHEDULE"):
        assert client.call(*words.split()) == NO_FILES
    assert client.call("BGSAVE", "CANCEL").startswith(b"-ERR Background saving is currently not")
    assert client.call("LASTSAVE") == b":%d\r\n" % node.server.started_at
    assert client.call("WAITAOF", "0", "0", "0") == b"*2\r\n:0\r\n:0\r\n"
    client.call("SET", "a", "1")
    found = info(client)
    assert (found["aof_enabled"], found["rdb_changes_since_last_save"]) == ("0", "1")


def test_shutdown_saves_nothing_that_is_half_loaded(node: ServerHarness, client: Client) -> None:
    wishes: list[Shutdown] = []
    node.server.on_shutdown = wishes.append
    node.server.set_loading(True, "files")
    client.call("SHUTDOWN", "SAVE")
    assert wishes == [Shutdown(save=False)]


# -- WAITAOF --------------------------------------------------------------------------------------------------------


def test_waitaof_waits_until_what_was_written_is_durable(node: ServerHarness, files: FakeFiles) -> None:
    first, second, idle = (node.connect() for _ in range(3))
    assert idle.call("WAITAOF", "1", "0", "0") == b"*2\r\n:1\r\n:0\r\n"
    first.call("SET", "a", "1")
    second.call("SET", "a", "2")
    assert first.call("WAITAOF", "1", "0", "0") == b""
    assert second.call("WAITAOF", "1", "0", "0") == b""
    files.advance(1)
    assert first.read() == b"*2\r\n:1\r\n:0\r\n"
    assert second.read() == b""
    files.advance(2)
    assert second.read() == b"*2\r\n:1\r\n:0\r\n"
    assert node.server.waiters.count == 0


def test_waitaof_gives_up(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    client.call("SET", "a", "1")
    assert client.call("WAITAOF", "0", "0", "0") == b"*2\r\n:0\r\n:0\r\n"
    assert client.call("WAITAOF", "1", "0", "100") == b""
    node.advance(0.1)
    assert client.read() == b"*2\r\n:0\r\n:0\r\n"
    # No replica ever counts: with one asked for, the time passes whatever is durable here.
    assert client.call("WAITAOF", "1", "1", "100") == b""
    files.advance(1)
    assert client.read() == b""
    node.advance(0.1)
    assert client.read() == b"*2\r\n:1\r\n:0\r\n"
    assert client.call("WAITAOF", "0", "0", "0") == b"*2\r\n:1\r\n:0\r\n"


def test_waitaof_where_nobody_waits(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    client.call("SET", "a", "1")
    client.call("MULTI")
    client.call("WAITAOF", "1", "0", "0")
    assert client.call("EXEC") == b"*1\r\n*2\r\n:0\r\n:0\r\n"
    program = LocalClient(node.server)
    program.execute("SET", "b", "1")
    assert program.execute("WAITAOF", 1, 0, 0) == [0, 0]
    files.advance(2)
    assert program.execute("WAITAOF", 1, 0, 0) == [1, 0]


def test_waitaof_ends_when_the_file_is_switched_off(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    refused = b"-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.\r\n"
    client.call("SET", "a", "1")
    client.call("WAITAOF", "1", "0", "0")
    files.aof = AppendOnlyFacts(enabled=False)
    node.server.durable_advanced()
    assert client.read() == refused
    assert client.call("WAITAOF", "1", "0", "0") == refused


# -- trouble with the disk ------------------------------------------------------------------------------------------


def test_writes_and_ping_say_what_is_wrong_with_the_disk(node: ServerHarness, client: Client) -> None:
    node.server.close_writes("misconf", "No space left on device")
    for words in ("SET a 1", "BLPOP a 1", "DEL nothing", "PING", "PING x", "ping"):
        assert client.call(*words.split()) == MISCONF
    for words in ("GET a", "PUBLISH a b", "CONFIG GET hz", "INFO", "MULTI", "DISCARD"):
        assert not client.call(*words.split()).startswith(b"-")
    node.server.close_writes("misconf", "Input/output error")
    assert client.call("SET", "a", "1") == b"-MISCONF Errors writing to the AOF file: Input/output error\r\n"
    node.server.open_writes("misconf")
    assert client.call("SET", "a", "1") == b"+OK\r\n"
    assert client.call("PING") == b"+PONG\r\n"


def test_the_program_is_told_too(node: ServerHarness) -> None:
    program = LocalClient(node.server)
    node.server.close_writes("misconf", "No space left on device")
    with pytest.raises(ReplyError, match=r"^MISCONF Errors writing to the AOF file: No space left on device$"):
        program.execute("SET", "a", 1)


def test_the_disk_is_asked_before_replicas_and_after_memory(node: ServerHarness, client: Client) -> None:
    server = node.server
    server.become_replica(read_only=True)
    server.close_writes("noreplicas")
    server.close_writes("misconf", "No space left on device")
    assert client.call("SET", "a", "1") == MISCONF
    server.open_writes("misconf")
    assert client.call("SET", "a", "1") == NOREPLICAS
    # PING concerns the disk alone.
    assert client.call("PING") == b"+PONG\r\n"
    server.become_primary()
    server.close_writes("misconf", "No space left on device")
    server.ask_for_room(lambda: False)
    assert client.call("SET", "a", "1") == OOM
    assert client.call("PING") == MISCONF


def test_transactions_and_trouble_with_the_disk(node: ServerHarness, client: Client) -> None:
    client.call("MULTI")
    client.call("SET", "a", "1")
    node.server.close_writes("misconf", "No space left on device")
    assert client.call("EXEC") == ABORTED + MISCONF[1:]
    client.call("MULTI")
    assert client.call("PING") == MISCONF
    assert client.call("EXEC").startswith(b"-EXECABORT")
    node.server.open_writes("misconf")
    client.call("MULTI")
    client.call("PING")
    client.call("GET", "a")
    node.server.close_writes("misconf", "No space left on device")
    # EXEC is asked for what it writes, and a queued PING writes nothing.
    assert client.call("EXEC") == b"*2\r\n+PONG\r\n$-1\r\n"


def test_who_waits_for_a_key_goes_on_waiting(node: ServerHarness, client: Client) -> None:
    client.call("BLPOP", "q", "0")
    node.server.close_writes("misconf", "No space left on device")
    assert client.session.blocked
    node.server.open_writes("misconf")
    node.connect().call("RPUSH", "q", "x")
    assert client.read() == b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"


def test_reads_stay_on_the_fast_path_and_writes_return_to_it(node: ServerHarness, client: Client) -> None:
    server = node.server
    every = server.fast_commands
    server.close_writes("misconf", "No space left on device")
    assert b"get" in server.fast_commands
    assert b"set" not in server.fast_commands
    assert server.gates == set()
    server.open_writes("misconf")
    assert server.fast_commands is every


# -- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["GET a", "SET a 1", "SAVE", "BGSAVE", "BGREWRITEAOF", "WAITAOF 0 0 0"])
def test_the_gate_is_shut_while_any_load_goes_on(node: ServerHarness, client: Client, words: str) -> None:
    server = node.server
    server.set_loading(True, "files")
    server.set_loading(True)
    assert client.call(*words.split()) == LOADING
    server.set_loading(False, "files")
    assert client.call(*words.split()) == LOADING
    server.set_loading(False, "copy")
    assert client.call(*words.split()) != LOADING


def test_files_are_loaded_before_the_role_changes(node: ServerHarness, client: Client) -> None:
    FakeReplication(node)
    server = node.server
    for reasons in (("files",), ("files", "copy")):
        for reason in reasons:
            server.set_loading(True, reason)
        for words in ("PING", "REPLICAOF NO ONE", "SLAVEOF NO ONE"):
            assert client.call(*words.split()) == LOADING
        for words in ("LASTSAVE", "ROLE", "PUBLISH a b", "CLIENT ID", "CONFIG GET hz", "INFO"):
            assert not client.call(*words.split()).startswith(b"-")
        server.set_loading(False, "files")
    assert client.call("PING") == b"+PONG\r\n"
    assert client.call("REPLICAOF", "NO", "ONE") == b"+OK\r\n"


def test_a_reason_to_load_that_is_not_known_is_a_mistake(node: ServerHarness) -> None:
    with pytest.raises(KeyError):
        node.server.set_loading(True, "mood")
    assert not node.server.loading


# -- what sessions wrote --------------------------------------------------------------------------------------------


def test_nobody_has_written_anything_of_another_history(node: ServerHarness, client: Client) -> None:
    program = LocalClient(node.server)
    node.server.tracks_written_keys = True
    client.call("SET", "a", "1")
    program.execute("SET", "b", 1)
    sessions = list(node.server.every_session())
    assert [session.wrote for session in sessions] == [1, 2]
    client.session.wait_fulfilled = True
    node.server.forget_writes()
    for session in sessions:
        assert (session.wrote, session.written, session.wait_fulfilled) == (0, set(), False)
    client.call("SET", "c", "1")
    assert client.session.written == {b"c"}
    program.close()
    assert list(node.server.every_session()) == [client.session]


def test_what_the_program_wrote_unnoted_may_have_been_any_key(node: ServerHarness) -> None:
    program = LocalClient(node.server)
    program.execute("SET", "early", 1)
    node.server.tracks_written_keys = True
    session = next(iter(node.server.local_sessions.values()))
    assert session.written is None
