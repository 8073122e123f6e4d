"""What a node finds in its data directory when it starts: another node, a torn end, damage, strangers, very much."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.commands import start_error
from e2e.crashing import Clients
from e2e.replicating import free_ports
from support.durable_server import DurableServer, start_node, start_valkey
from support.raw_client import Reply, encode

OK = Reply("simple", b"OK")


@contextmanager
def running(directory: Path, *options: str) -> Iterator[DurableServer]:
    """A node on a data directory, serving."""
    with start_node(directory, free_ports()[0], *options) as server:
        server.wait_until_serving()
        yield server


def run_error(directory: Path) -> str:
    """What a node says that cannot start there; the one line it prints."""
    return start_error("--port", "0", "--dir", str(directory))


def last_increment(directory: Path) -> Path:
    """The file that is written to."""
    files = (directory / "appendonlydir").glob("appendonly.aof.*.incr.aof")
    return max(files, key=lambda path: int(path.name.split(".")[2]))


def leave_writes(directory: Path, number: int) -> Path:
    """Have a node write so many keys, one by one, and end by SIGKILL; its last file."""
    with running(directory) as server:
        with server.connect() as client:
            for each in range(number):
                assert client.call(b"SET", b"key:%d" % each, b"value %d" % each) == OK
        server.kill()
    return last_increment(directory)


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_a_second_node_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.call(b"SET", b"k", b"v") == OK
        said = run_error(tmp_path)
        assert said.endswith(f"data_dir {tmp_path} is in use by process {server.pid}")
        # It has done the first no harm.
        assert server.call(b"SET", b"k", b"w") == OK
        server.kill()
    # What is left of a lock is none.
    with running(tmp_path) as server:
        assert server.call(b"GET", b"k") == Reply("bulk", b"w")


def test_a_folder_of_valkey_is_refused_and_not_touched(tmp_path: Path) -> None:
    with start_valkey(tmp_path, free_ports()[0]) as server:
        server.wait_until_serving()
        assert server.call(b"SET", b"k", b"v") == OK
        assert server.stop() == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir()}
    said = run_error(tmp_path)
    assert "was not written by kevynode" in said
    assert "`kevynode import`" in said
    assert str(tmp_path / "appendonlydir") in said
    after = {path.name: path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir()}
    assert after == before


# -- torn and damaged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", ["short", "transaction"])
def test_a_torn_end_is_cut_with_a_warning(torn: str, tmp_path: Path) -> None:
    file = leave_writes(tmp_path, 10)
    whole = file.stat().st_size
    rest = encode((b"SET", b"key:3", b"wrong"))
    rest = rest[:-4] if torn == "short" else encode((b"MULTI",)) + rest
    with file.open("ab") as append:
        append.write(rest)
    with running(tmp_path) as server:
        warnings = [line for line in server.log().splitlines() if " warning " in line and file.name in line]
        assert len(warnings) == 1, server.log()
        assert f"={whole}" in warnings[0]
        assert f"={len(rest)}" in warnings[0]
        assert server.call(b"GET", b"key:3") == Reply("bulk", b"value 3")
        assert server.call(b"DBSIZE") == Reply("integer", 10)
        assert server.call(b"SET", b"later", b"1") == OK
        server.kill()
    # The next finds nothing torn, and what came after.
    with running(tmp_path) as server:
        assert " warning " not in server.log()
        assert server.call(b"DBSIZE") == Reply("integer", 11)


def test_an_acknowledged_write_that_is_torn_costs_no_more_than_itself(tmp_path: Path) -> None:
    file = leave_writes(tmp_path, 10)
    size = file.stat().st_size
    os.truncate(file, size - 1)
    with running(tmp_path) as server:
        found = server.call(b"DBSIZE")
        assert found == Reply("integer", 9)
        [warning] = [line for line in server.log().splitlines() if " warning " in line]
        offset = file.stat().st_size if file.exists() else 0
        assert offset
        assert str(size - 1 - offset) in warning or file != last_increment(tmp_path)


def test_damage_in_the_middle_refuses_to_start(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        with server.connect() as client:
            for each in range(100):
                assert client.call(b"SET", b"key:%d" % each, b"value %d" % each) == OK
        assert server.stop() == 0
    file = last_increment(tmp_path)
    content = bytearray(file.read_bytes())
    place = content.index(b"value 50")
    content[place] ^= 1
    file.write_bytes(content)
    said = run_error(tmp_path)
    assert str(file) in said
    named = [int(number) for number in re.findall(r"byte (\d+)", said)]
    assert named, said
    assert place - 200 < named[0] <= place + 200
    # It was left as it is, for who knows how to repair it.
    assert file.read_bytes() == content
    assert run_error(tmp_path) == said


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    file = leave_writes(tmp_path, 3)
    file.unlink()
    said = run_error(tmp_path)
    assert str(file) in said
    assert "is missing" in said


# -- much -------------------------------------------------------------------------------------------------------------


def test_a_long_load_tells_how_far_it_is(tmp_path: Path) -> None:
    clients = Clients(1)
    with running(tmp_path) as server:
        clients.fill(server, 150_000)
        server.kill()
    with start_node(tmp_path, free_ports()[0]) as server:
        server.wait_until_listening()
        # It listens before it has found out how much there is to be loaded.
        server.wait_until(lambda: server.info(b"persistence").get("loading_total_bytes") != "0", "the size of the load")
        facts = server.info(b"persistence")
        assert facts["loading"] == "1", facts
        total, loaded = int(facts["loading_total_bytes"]), int(facts["loading_loaded_bytes"])
        assert 0 <= loaded < total
        assert total == last_increment(tmp_path).stat().st_size
        with server.connect() as client:
            for words in ((b"GET", b"k"), (b"SET", b"k", b"v"), (b"DBSIZE",), (b"KEYS", b"*")):
                answer = client.call(*words)
                assert answer.kind == "error", words
                assert answer.value.startswith(b"LOADING "), answer
        assert "kevynode ready" not in server.log()
        server.wait_until_serving()
        facts = server.info(b"persistence")
        assert facts["loading"] == "0"
        assert not any(name.startswith("loading_") for name in facts)
        server.wait_until(lambda: "kevynode ready" in server.log(), "it says that it is ready")
        assert clients.check(server) == 0


# -- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.differential
@pytest.mark.parametrize("end", ["stopped", "killed", "killed in a rewrite"])
def test_valkey_loads_what_a_node_left(end: str, tmp_path: Path) -> None:
    seed = random.Random(end).randrange(1000)
    clients = Clients(seed)
    node_dir, valkey_dir = tmp_path / "node", tmp_path / "valkey"
    node_dir.mkdir()
    with running(node_dir) as server:
        clients.fill(server, 20_000)
        if end == "stopped":
            with clients.writing(server) as writing:
                writing.wait_for_answers(1500)
            assert server.stop() == 0
        elif end == "killed":
            with clients.writing(server, kill_after=1500):
                server.wait()
        else:
            with clients.writing(server, kill_after=1500) as writing:
                writing.wait_for_answers(300)
                server.call(b"BGREWRITEAOF")
                server.wait()
    shutil.copytree(node_dir / "appendonlydir", valkey_dir / "appendonlydir")
    with start_valkey(valkey_dir, free_ports()[0]) as valkey:
        valkey.wait_until_serving()
        clients.check(valkey)
        with running(node_dir) as server:
            assert clients.check(server) == 0
            assert server.call(b"DEBUG", b"DIGEST") == valkey.call(b"DEBUG", b"DIGEST")


# -- dumps ------------------------------------------------------------------------------------------------------------


def test_without_a_file_the_last_dump_is_loaded(tmp_path: Path) -> None:
    clients = Clients(7)
    with running(tmp_path, "--no-aof") as server:
        clients.fill(server, 20_000)
        with clients.writing(server) as writing:
            writing.wait_for_answers(500)
        assert server.call(b"SAVE") == OK
        saved = server.call(b"DEBUG", b"DIGEST")
        # Nothing that came later is promised; a dump that is not complete changes nothing.
        assert server.call(b"SET", b"lost", b"1") == OK
        assert server.call(b"BGSAVE").kind == "simple"
        server.kill()
    with running(tmp_path, "--no-aof") as server:
        if server.call(b"EXISTS", b"lost") == Reply("integer", 1):
            assert server.call(b"DEL", b"lost") == Reply("integer", 1)
        assert server.call(b"DEBUG", b"DIGEST") == saved
        assert clients.check(server) == 0


def test_nothing_is_answered_that_the_files_do_not_say(tmp_path: Path) -> None:
    """Whoever comes as early as can be is told to wait, and then the truth."""
    with running(tmp_path) as server:
        assert server.call(b"SET", b"k", b"v") == OK
        server.kill()
    loading = b"LOADING kevynode is loading the dataset in memory"
    for number in range(4):
        with start_node(tmp_path, free_ports()[0]) as server:
            answers: list[Reply] = []
            while not answers or answers[-1].value == loading:
                try:
                    with server.connect() as client:
                        answers += client.pipeline([(b"GET", b"k"), (b"INCR", b"n")])
                except ConnectionRefusedError:
                    assert server.look_away(0), server.log()
            expected = Reply("bulk", b"v"), Reply("integer", number + 1)
            told = [answer for answer in answers if answer.value != loading]
            # The second command may be the first that is done.
            assert told in ([*expected], [expected[1]]), answers[-10:]
            server.kill()


def test_a_file_that_is_switched_on_is_told_to_be_on_its_way(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.connect() as client:
        words = [(b"CONFIG", b"SET", b"appendonly", word) for word in (b"no", b"yes")]
        *done, info = client.pipeline([*words, (b"INFO", b"persistence")])
        assert done == [OK, OK]
        text = info.value.decode()
        assert "aof_rewrite_in_progress:1" in text or "aof_rewrite_scheduled:1" in text, text
