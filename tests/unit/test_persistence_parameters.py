"""What INFO tells of a node's files, and CONFIG changes of them."""

from __future__ import annotations

import pytest
from support.fake_files import FakeFiles, info
from support.session_harness import Client, ServerHarness

from kevynode.config import NodeConfig
from kevynode.errors import ReplyError
from kevynode.persistence_view import AppendOnlyFacts, DumpFacts, LoadFacts
from kevynode.serve.parameters import Parameters

#: As Valkey 9 shows them, the first without an append-only file.
FIELDS = (
    "loading async_loading current_cow_peak current_cow_size current_cow_size_age current_fork_perc "
    "current_save_keys_processed current_save_keys_total rdb_changes_since_last_save rdb_bgsave_in_progress "
    "rdb_last_save_time rdb_last_bgsave_status rdb_last_bgsave_time_sec rdb_current_bgsave_time_sec rdb_saves "
    "rdb_last_cow_size rdb_last_load_keys_expired rdb_last_load_keys_loaded aof_enabled aof_rewrite_in_progress "
    "aof_rewrite_scheduled aof_last_rewrite_time_sec aof_current_rewrite_time_sec aof_last_bgrewrite_status "
    "aof_rewrites aof_rewrites_consecutive_failures aof_last_write_status aof_last_cow_size module_fork_in_progress "
    "module_fork_last_cow_size slot_migration_fork_in_progress"
).split()
FIELDS_OF_THE_FILE = (
    "aof_current_size aof_base_size aof_pending_rewrite aof_buffer_length aof_waiting_groups aof_pending_bio_fsync "
    "aof_delayed_fsync"
).split()
FIELDS_OF_A_LOAD = (
    "loading_start_time loading_total_bytes loading_rdb_used_mem loading_loaded_bytes loading_loaded_perc "
    "loading_eta_seconds loading_loaded_keys"
).split()


def test_info_has_valkeys_fields(client: Client, node: ServerHarness) -> None:
    assert list(info(client)) == FIELDS
    files = FakeFiles(node)
    assert list(info(client)) == FIELDS + FIELDS_OF_THE_FILE
    files.loaded = LoadFacts(started=5, seconds=2.5, loaded_bytes=99, total_bytes=300, keys=7)
    node.server.set_loading(True, "files")
    found = info(client)
    assert list(found) == FIELDS + FIELDS_OF_THE_FILE + FIELDS_OF_A_LOAD
    assert found["loading"] == "1"
    assert [found[name] for name in FIELDS_OF_A_LOAD] == ["5", "300", "0", "99", "33.00", "5", "7"]
    files.loaded = LoadFacts(started=5, seconds=0.5, loaded_bytes=0, total_bytes=0, keys=0)
    found = info(client)
    assert (found["loading_loaded_perc"], found["loading_eta_seconds"]) == ("0.00", "1")


def test_info_before_anything_happened(client: Client, files: FakeFiles) -> None:
    found = info(client)
    assert {name: value for name, value in found.items() if value not in ("0", "0.00")} == {
        "rdb_last_save_time": "1234",
        "rdb_last_bgsave_status": "ok",
        "rdb_last_bgsave_time_sec": "-1",
        "rdb_current_bgsave_time_sec": "-1",
        "aof_enabled": "1",
        "aof_last_rewrite_time_sec": "-1",
        "aof_current_rewrite_time_sec": "-1",
        "aof_last_bgrewrite_status": "ok",
        "aof_last_write_status": "ok",
    }


def test_info_shows_the_facts(client: Client, files: FakeFiles) -> None:
    files.aof = AppendOnlyFacts(
        enabled=True,
        size=1000,
        base_size=600,
        rewrite_running=3.9,
        last_rewrite=2.0,
        last_rewrite_ok=False,
        rewrites=4,
        failed_rewrites=5,
        rewrite_scheduled=True,
        problem="No space left on device",
        sync_running=True,
        delayed_syncs=6,
        waiting=7,
    )
    files.dump = DumpFacts(
        last_save=99, changes=8, running=1.5, last_duration=0.4, last_ok=False, saves=9, scheduled=True
    )
    found = info(client)
    assert {name: value for name, value in found.items() if value not in ("0", "0.00")} == {
        "rdb_changes_since_last_save": "8",
        "rdb_bgsave_in_progress": "1",
        "rdb_last_save_time": "99",
        "rdb_last_bgsave_status": "err",
        "rdb_current_bgsave_time_sec": "1",
        "rdb_saves": "9",
        "aof_enabled": "1",
        "aof_rewrite_in_progress": "1",
        "aof_rewrite_scheduled": "1",
        "aof_last_rewrite_time_sec": "2",
        "aof_current_rewrite_time_sec": "3",
        "aof_last_bgrewrite_status": "err",
        "aof_rewrites": "4",
        "aof_rewrites_consecutive_failures": "5",
        "aof_last_write_status": "err",
        "aof_current_size": "1000",
        "aof_base_size": "600",
        "aof_pending_rewrite": "1",
        "aof_waiting_groups": "7",
        "aof_pending_bio_fsync": "1",
        "aof_delayed_fsync": "6",
    }


def test_a_dump_is_in_progress_from_its_acceptance_on(client: Client, files: FakeFiles) -> None:
    files.dump = DumpFacts(last_save=1, scheduled=True)
    found = info(client)
    assert (found["rdb_bgsave_in_progress"], found["rdb_current_bgsave_time_sec"]) == ("1", "-1")
    files.aof = AppendOnlyFacts(enabled=True, rewrite_running=1.0)
    assert info(client)["rdb_bgsave_in_progress"] == "0"


# -- CONFIG ---------------------------------------------------------------------------------------------------------


def parameters_of(node: ServerHarness) -> Parameters:
    node.server.parameters = Parameters(node.server)
    return node.server.parameters


def refused(name: str, why: str) -> bytes:
    return f"-ERR CONFIG SET failed (possibly related to argument '{name}') - {why}\r\n".encode()


def test_files_are_configured_while_the_node_runs(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    parameters = parameters_of(node)
    heard: list[tuple[str, object]] = []
    names = ("appendonly", "appendfsync", "auto-aof-rewrite-percentage", "auto-aof-rewrite-min-size")
    for name in names:
        parameters.watch(name, lambda value, name=name: heard.append((name, value)))  # type: ignore[misc]
    assert heard == list(zip(names, (False, "everysec", 100, 64 << 20), strict=True))
    heard.clear()
    values = ("yes", "ALWAYS", "50", "1mb")
    words = [word for pair in zip(names, values, strict=True) for word in pair]
    assert client.call("CONFIG", "SET", *words) == b"+OK\r\n"
    assert heard == list(zip(names, (True, "always", 50, 1 << 20), strict=True))
    # What it is already is no change.
    heard.clear()
    assert client.call("CONFIG", "SET", *words) == b"+OK\r\n"
    assert heard == []


@pytest.mark.parametrize("error", [ReplyError("ERR", "no room"), ValueError("no room")])
def test_whoever_watches_may_refuse(node: ServerHarness, client: Client, files: FakeFiles, error: Exception) -> None:
    parameters = parameters_of(node)
    heard: list[object] = []

    def refuse(value: bool) -> None:
        if value:
            raise error

    parameters.watch("hz", heard.append)
    parameters.watch("appendonly", heard.append)
    parameters.watch("appendonly", refuse)
    heard.clear()
    before = parameters.shown()
    answer = client.call("CONFIG", "SET", "hz", "50", "AppendOnly", "yes", "maxmemory", "1gb")
    assert answer == refused("AppendOnly", "no room")
    assert parameters.shown() == before
    assert node.store.settings.maxmemory == 0
    # Who has heard of the change hears that it is none.
    assert heard == [50, True, False, 10]
    assert not any(event == "parameter_set" for _, event, _ in node.log.records)


def test_a_failure_of_our_own_changes_nothing_either(node: ServerHarness, client: Client, files: FakeFiles) -> None:
    parameters = parameters_of(node)

    def fail(value: bool) -> None:
        if value:
            raise RuntimeError("a bug")

    parameters.watch("appendonly", fail)
    assert client.call("CONFIG", "SET", "hz", "50", "appendonly", "yes") == b"-ERR internal error\r\n"
    assert (parameters.value("hz"), parameters.value("appendonly")) == (10, False)


def test_a_file_that_begins_inside_exec_finds_everything_committed(
    node: ServerHarness, client: Client, files: FakeFiles
) -> None:
    pending: list[int] = []
    parameters_of(node).watch("appendonly", lambda value: pending.append(len(node.store.journal.pending)))
    for words in ("MULTI", "SET a 1", "CONFIG SET appendonly yes", "SET b 1"):
        client.call(*words.split())
    assert client.call("EXEC") == b"*3\r\n+OK\r\n+OK\r\n+OK\r\n"
    assert pending == [0, 0]
    assert client.session.wrote == 2


def test_what_is_fixed_about_files_is_shown(node: ServerHarness, client: Client) -> None:
    shown = parameters_of(node).shown()
    fixed = {
        "aof-load-truncated": "yes",
        "aof-use-rdb-preamble": "no",
        "appenddirname": "appendonlydir",
        "appendfilename": "appendonly.aof",
        "dbfilename": "dump.kevysnap",
        "no-appendfsync-on-rewrite": "no",
        "save": "",
    }
    assert {name: shown[name] for name in fixed} == fixed
    for name in ("appenddirname", "appendfilename", "dir"):
        assert client.call("CONFIG", "SET", name, "x") == refused(name, "can't set immutable config")
    for name in ("dbfilename", "aof-load-truncated", "aof-use-rdb-preamble", "no-appendfsync-on-rewrite"):
        assert client.call("CONFIG", "SET", name, fixed[name]) == b"+OK\r\n"
    assert client.call("CONFIG", "SET", "aof-load-truncated", "no") == refused(
        "aof-load-truncated", 'kevynode accepts nothing but "yes"'
    )


def test_parameters_of_files_start_with_the_configuration(node: ServerHarness) -> None:
    tables = {
        "server": {"data_dir": "/data"},
        "persistence": {"aof": False, "appendfsync": "no", "auto_aof_rewrite_percentage": 7},
        "config": {"auto-aof-rewrite-min-size": "1kb"},
    }
    parameters = Parameters(node.server, NodeConfig.from_dict(tables))
    assert parameters.value("appendonly") is False
    assert parameters.value("appendfsync") == "no"
    assert parameters.value("auto-aof-rewrite-percentage") == 7
    assert parameters.value("auto-aof-rewrite-min-size") == 1024
    assert parameters.shown()["dir"] == "/data"
