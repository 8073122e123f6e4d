"""What is found at a path, and read from it: a node's own files, snapshots, and the files of other servers."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.append_only import DATA, FOLDER, Node, new_node
from support.memory_disk import MemoryDisk
from support.store_harness import Content, check_memory, content

from kevynode.disk import Disk, SystemDisk
from kevynode.persist.dump import Dump
from kevynode.persist.folder import lock_data_dir
from kevynode.persist.loader import LoadError
from kevynode.replicate.lineage import Lineage
from kevynode.store.store import Store
from kevynode.transfer import (
    Import,
    ImportFailure,
    ImportReport,
    Source,
    SourceError,
    Swept,
    export_pieces,
    find_source,
    read_source,
    sweep,
)

VECTORS = Path(__file__).parents[1] / "vectors"
#: The time that nodes stand at here, and one when a key of theirs has expired.
NOW = 1_700_000_000_000
LATER = NOW + 501


def read(disk: Disk, path: str, **options: Any) -> tuple[Content, ImportReport, Source]:
    staging, report, source = read_source(disk, path, random.Random(1), **options)
    store = Store(random.Random(1))
    store.replace_all(staging)
    check_memory(store)
    assert report.keys == len(store.keyspace)
    return content(store), report, source


def take_in(data: bytes, piece: int = 65536, **options: Any) -> tuple[Content, ImportReport]:
    """One file, given in pieces of this size."""
    importing = Import(random.Random(1), **options)
    for _ in importing.read("file", [data[at : at + piece] for at in range(0, len(data), piece)]):
        pass
    for _ in importing.finish():
        pass
    store = Store(random.Random(1))
    store.replace_all(importing.staging)
    return content(store), importing.report


def filled() -> tuple[MemoryDisk, Node]:
    """A data directory with a base and an increment, closed, and the node that wrote it."""
    disk, node = new_node()
    node.do_together(("SET", "a", "1"), ("RPUSH", "l", "x", "y"), ("HSET", "h", "f", "v"))
    assert node.rewrite().done
    node.do("SET", "timed", "x", "PXAT", str(NOW + 500))
    node.do("ZADD", "z", "1.5", "m")
    node.do_together(("INCR", "a"), ("SADD", "s", "m"))
    node.writer.write()
    node.sync()
    return disk, node


def close(node: Node) -> None:
    node.writer.close()
    node.folder.close()


def write(disk: Disk, path: str, data: bytes) -> None:
    file = disk.create(path)
    file.write(data)
    file.close()


@pytest.mark.parametrize("path", [DATA, FOLDER])
def test_the_set_of_a_node(path: str) -> None:
    disk, node = filled()
    close(node)
    progress: list[tuple[int, int]] = []
    found, report, source = read(
        disk, path, now_ms=LATER, on_progress=lambda done, whole: progress.append((done, whole))
    )
    expected = node.content()
    del expected[b"timed"]
    assert found == expected
    size = sum(disk.size(name) for name in source.paths)
    assert (report.expired, report.bytes, report.torn, source.data_dir) == (1, size, None, DATA)
    assert progress[-1] == (size, size)
    found, report, _ = read(disk, path, prefix=b"l")
    assert (found, report.other_prefixes) == ({b"l": expected[b"l"]}, 5)


def test_a_set_that_a_node_uses_is_refused() -> None:
    disk, node = filled()
    with pytest.raises(SourceError, match=r"data_dir /data is in use by process \d+"):
        read(disk, DATA)
    node.folder.close()
    read(disk, DATA)
    lock_data_dir(disk, DATA).release()


def test_a_copy_of_a_set_gets_no_lock_file(tmp_path: Path) -> None:
    disk = SystemDisk()
    original = tmp_path / "original"
    original.mkdir()
    node = Node(disk, data_dir=str(original))
    assert node.start()
    node.do("SET", "a", "1")
    node.writer.write()
    close(node)
    copy = tmp_path / "copy"
    copy.mkdir()
    os.rename(original / "appendonlydir", copy / "appendonlydir")
    assert read(disk, str(copy))[0] == {b"a": (b"1", None)}
    assert os.listdir(copy) == ["appendonlydir"]


def test_a_torn_end_is_left_out_and_left_there() -> None:
    disk, node = filled()
    close(node)
    path = disk.list(FOLDER)[-2]
    name = f"{FOLDER}/{path}"
    data = disk.read(name)
    write(disk, name, data[:-5])
    found, report, _ = read(disk, DATA)
    assert report.torn is not None
    offset, size = report.torn
    assert offset + size == len(data) - 5
    assert {b"a", b"l", b"h"} <= found.keys()
    assert b"s" not in found
    assert disk.size(name) == len(data) - 5


def test_damage_is_refused() -> None:
    disk, node = filled()
    close(node)
    name = f"{FOLDER}/{next(name for name in disk.list(FOLDER) if 'base' in name)}"
    data = disk.read(name)
    place = data.index(b"RPUSH")
    write(disk, name, data[:place] + b"X" + data[place + 1 :])
    with pytest.raises(LoadError, match="base"):
        read(disk, DATA)
    for piece in (65536, 1, 50):
        with pytest.raises(ImportFailure, match="does not match its digest"):
            take_in(disk.read(name), piece)


@pytest.mark.parametrize("piece", [65536, 1, 100])
def test_a_file_of_a_set_alone(piece: int) -> None:
    disk, node = filled()
    close(node)
    base, increment = (f"{FOLDER}/{name}" for name in disk.list(FOLDER)[:2])
    found, report = take_in(disk.read(base), piece)
    assert found == {key: node.content()[key] for key in (b"l", b"h")} | {b"a": (b"1", None)}
    assert (report.database, report.torn, report.commands) == (0, None, 3)
    data = disk.read(increment)
    found, report = take_in(data[:-1], piece)
    assert found.keys() <= {b"timed", b"z"}
    assert report.torn is not None
    assert sum(report.torn) == len(data) - 1
    with pytest.raises(ImportFailure, match="no database but 0"):
        take_in(data, piece, database=1)
    with pytest.raises(ImportFailure, match="unfinished"):
        take_in(data[:20], piece)


@pytest.mark.parametrize("piece", [65536, 1, 100])
def test_a_base_alone_that_is_not_complete_is_refused(piece: int) -> None:
    """Also where what there is of it ends with a digest, so that nothing is torn."""
    disk, node = filled()
    close(node)
    data = disk.read(f"{FOLDER}/{disk.list(FOLDER)[0]}")
    end = data.rindex(b"#kevynode:end ")
    for size in (end, end + 5, end - 5):
        with pytest.raises(ImportFailure, match="a base, and not complete"):
            take_in(data[:size], piece)


def saved(disk: Disk, node: Node) -> bytes:
    dump = Dump(disk, DATA, node.store, Lineage(7))
    assert dump.run_all()
    return disk.read(DATA + "/dump.kevysnap")


def test_a_snapshot() -> None:
    disk, node = filled()
    data = saved(disk, node)
    for piece in (65536, 1, 100):
        found, report = take_in(data, piece, now_ms=LATER)
        assert (report.dumped, report.expired, report.verified, report.database) == (6, 1, True, 0)
        assert found == {key: value for key, value in node.content().items() if key != b"timed"}
    for bare in (data[: data.index(b"#kevynode")], (VECTORS / "v5-saved-dump.bin").read_bytes()):
        _, report = take_in(bare)
        assert report.keys > 0
        assert not report.verified


@given(st.data())
def test_a_snapshot_that_is_not_as_it_was_written_is_refused(choice: st.DataObject) -> None:
    disk, node = filled()
    data = bytearray(saved(disk, node))
    snapshot = data.index(b"#kevynode")
    size = data.index(b"snapshot=") + len("snapshot=")
    if choice.draw(st.booleans()):
        # The size is for those who know where the snapshot ends before they have read it.
        place = choice.draw(st.integers(8, len(data) - 1).filter(lambda place: not size <= place < size + 3))
        data[place] ^= 1 << choice.draw(st.integers(0, 7))
    else:
        # One that ends where the snapshot does is as a kevy server writes it.
        del data[choice.draw(st.integers(8, len(data) - 1).filter(lambda place: place != snapshot)) :]
    with pytest.raises(ImportFailure, match="file: "):
        take_in(bytes(data))


def test_a_dump_beside_a_set_is_named_and_not_read() -> None:
    disk, node = filled()
    close(node)
    write(disk, DATA + "/dump.kevysnap", b"nonsense")
    source = find_source(disk, DATA)
    assert source.beside == (DATA + "/dump.kevysnap",)
    assert source.paths == tuple(f"{FOLDER}/{name}" for name in disk.list(FOLDER) if "manifest" not in name)


def test_a_dump_where_there_is_no_set(tmp_path: Path) -> None:
    disk = SystemDisk()
    (tmp_path / "dump.rdb").touch()
    assert find_source(disk, str(tmp_path)) == Source((str(tmp_path / "dump.rdb"),))
    (tmp_path / "appendonlydir").mkdir()
    assert find_source(disk, str(tmp_path)) == Source((str(tmp_path / "dump.rdb"),))
    (tmp_path / "dump.kevysnap").touch()
    with pytest.raises(SourceError, match=r"has dump\.kevysnap and dump\.rdb: name one of them"):
        find_source(disk, str(tmp_path))


def test_nothing_to_be_found(tmp_path: Path) -> None:
    disk = SystemDisk()
    with pytest.raises(FileNotFoundError):
        find_source(disk, str(tmp_path / "none"))
    with pytest.raises(SourceError, match=r"has no appendonlydir, dump\.kevysnap or dump\.rdb"):
        find_source(disk, str(tmp_path))
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    for path in (tmp_path, folder):
        with pytest.raises(SourceError, match="is empty: no server has written anything there"):
            read_source(disk, str(path), random.Random(1))
    (folder / "appendonly.aof.1.incr.aof").touch()
    with pytest.raises(SourceError, match=r"has no appendonly\.aof\.manifest, but"):
        find_source(disk, str(tmp_path))
    (folder / "appendonly.aof.manifest").write_text("file a.aof seq 1 type i\n")
    with pytest.raises(SourceError, match=r"a\.aof is missing, though the manifest names it"):
        find_source(disk, str(tmp_path))
    (folder / "appendonly.aof.manifest").write_text("file a.aof seq x type i\n")
    with pytest.raises(SourceError, match="line 1"):
        find_source(disk, str(tmp_path))
    (folder / "other.manifest").touch()
    with pytest.raises(SourceError, match="several manifests"):
        find_source(disk, str(tmp_path))


def test_the_set_of_another_server_under_names_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.aof.manifest").write_text(
        "file mine.aof.1.base.aof seq 1 type b\nfile mine.aof.1.incr.aof seq 1 type i\n"
    )
    (tmp_path / "mine.aof.1.base.aof").write_bytes(b"")
    (tmp_path / "mine.aof.1.incr.aof").write_bytes(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*1\r\n")
    progress: list[tuple[int, int]] = []
    found, report, source = read(
        SystemDisk(), str(tmp_path), on_progress=lambda done, whole: progress.append((done, whole))
    )
    assert (found, report.torn, source.data_dir) == ({b"a": (b"1", None)}, (27, 4), None)
    assert progress[-1] == (31, 31)


def test_pieces_name_their_commands_and_count_keys() -> None:
    _, node = new_node()
    for number in range(3000):
        node.do("SET", f"k{number}", "x" * 20)
    node.do("RPUSH", "long", *map(str, range(2500)))
    pieces = list(export_pieces(node.store.freeze()))
    assert sum(piece.keys for piece in pieces) == 3001
    assert [sum(piece.data.count(b"\r\n$3\r\nSET\r\n") for piece in pieces)] == [3000]
    assert sum(len(piece.commands) for piece in pieces) == 3003
    for piece in pieces:
        assert piece.data.count(b"\r\n*") + 1 == len(piece.commands)
        assert len(piece.data) < 70_000


def test_a_sweep_counts_what_it_removes() -> None:
    _, node = new_node()
    node.do("SET", "p:a", "1")
    node.do("SET", "p:old", "1", "PXAT", str(NOW + 500))
    node.do("SET", "other", "1", "PXAT", str(NOW + 500))
    node.do("HSET", "p:h", "f", "1", "g", "2")
    node.do("HPEXPIREAT", "p:h", str(NOW + 500), "FIELDS", "1", "f")
    node.do("HSET", "p:gone", "f", "1")
    node.do("HPEXPIREAT", "p:gone", str(NOW + 500), "FIELDS", "1", "f")
    disk = MemoryDisk()
    disk.make_folder("/d")
    dump = Dump(disk, "/d", node.store, Lineage(1))
    assert dump.run_all()
    importing = Import(random.Random(1))
    for _ in importing.read("dump", [disk.read("/d/dump.kevysnap")]):
        pass
    for _ in importing.finish():
        pass
    swept = Swept()
    for _ in sweep(importing.staging, swept, prefix=b"p:", now_ms=LATER):
        pass
    assert (swept.expired, swept.expired_fields, swept.other_prefixes) == (2, 2, 1)
    assert importing.staging.count == 2
