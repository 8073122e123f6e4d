"""What a failed sync has left in the system's memory alone is on the disk before anything is built on it."""

from __future__ import annotations

import errno
from random import Random
from typing import Any

import pytest
from support.append_only import DATA, FOLDER, INCREMENT, Node, new_node, read_folder
from support.memory_disk import PAGE, MemoryDisk
from support.store_harness import content

from kevynode.persist.folder import AppendOnlyFolder
from kevynode.persist.unproven import STEP, Checksums, Unproven, write_again

SEEDS = range(60)
#: Longer than several pages.
LONG = "v" * (3 * PAGE)


def left_by_a_failed_sync(*, keys: int = 3) -> tuple[MemoryDisk, Any, Any]:
    """A disk, as the next process finds it, of one whose last sync has failed; what it held, durably and in memory."""
    disk, node = new_node()
    for number in range(keys):
        node.do("SET", f"stored{number}", LONG)
        node.writer.write()
        assert node.sync()
    stored = node.content()
    for number in range(keys):
        node.do("SET", f"lost{number}", LONG)
        node.writer.write()
    disk.fail_next("sync")
    assert not node.sync()
    assert node.writer.failed is not None
    return disk.kill(), stored, node.content()


def written(disk: MemoryDisk) -> int:
    """Bytes that were written to the first increment."""
    return sum(call.size for call in disk.calls if call.method == "write" and call.path == INCREMENT)


def test_a_start_makes_durable_what_a_failed_sync_had_not() -> None:
    disk, _, held = left_by_a_failed_sync()
    node = Node(disk, history=2)
    assert node.content() == held
    assert node.start()
    node.do("SET", "then", "more")
    node.writer.write()
    assert node.sync()
    for seed in SEEDS:
        assert content(read_folder(disk.crash(seed))[0]) == node.content()


def test_without_it_a_sync_of_the_next_process_stores_nothing() -> None:
    """What the double does, and the reason for all of this."""
    disk, stored, held = left_by_a_failed_sync()
    file = disk.open_append(INCREMENT, create=False)
    file.sync()
    file.close()
    found = [content(read_folder(disk.crash(seed))[0]) for seed in SEEDS]
    assert stored in found
    assert held not in found


def test_only_what_is_not_proven_is_written_again() -> None:
    disk, _, _ = left_by_a_failed_sync(keys=30)
    node = Node(disk, history=2)
    unproven = node.loaded.unproven
    assert unproven is not None
    assert node.start()
    size = disk.size(INCREMENT)
    assert written(disk) == size - unproven.offset
    # Half of it had been synced; the digest that says so of the last piece was never written.
    assert size / 2 - 2 * STEP < unproven.offset < size / 2
    assert unproven.offset % STEP == 0


@pytest.mark.parametrize("keys", [1, 20])
def test_what_the_system_has_forgotten_before_the_load_is_cut(keys: int) -> None:
    for seed in SEEDS:
        disk, stored, held = left_by_a_failed_sync(keys=keys)
        disk.forget(Random(seed))
        node = Node(disk, history=2)
        assert stored.items() <= node.content().items() <= held.items()
        assert node.start()
        assert content(read_folder(disk.crash(seed))[0]) == node.content()


def test_what_the_system_forgets_between_the_load_and_the_start_is_written_from_memory() -> None:
    forgotten = 0
    for seed in SEEDS:
        disk, _, held = left_by_a_failed_sync(keys=1)
        node = Node(disk, history=2)
        changed = bool(disk.forget(Random(seed)))
        forgotten += changed
        assert node.start() is not changed
        if changed:
            assert "cannot be changed" in (node.writer.failed or "")
            assert node.rewrite(fresh=True).done
        assert node.writer.failed is None
        assert content(read_folder(disk.crash(seed))[0]) == held
    assert 0 < forgotten < len(SEEDS)


def test_the_same_after_a_torn_end_was_cut() -> None:
    for torn in (b"*3\r\n$3\r\nSET\r\n$4\r\nha", b"*3\r\n$3\r\nSET\r\n$4\r\nha" + bytes(40_000)):
        disk, _, held = left_by_a_failed_sync(keys=5)
        file = disk.open_append(INCREMENT)
        file.write(torn)
        file.close()
        node = Node(disk, history=2)
        assert node.loaded.cut is not None
        assert node.content() == held
        assert node.start()
        for seed in SEEDS:
            assert content(read_folder(disk.crash(seed))[0]) == held


@pytest.mark.parametrize("method", ["open_over", "open_read", "read", "write", "sync"])
def test_what_cannot_be_made_durable_is_not_gone_on_with(method: str) -> None:
    disk, _, held = left_by_a_failed_sync()
    node = Node(disk, history=2)
    disk.fail_next(method)
    assert not node.start()
    assert node.folder.manifest.increments[-1].sequence == 1
    assert node.rewrite(fresh=True).done
    for seed in SEEDS:
        assert content(read_folder(disk.crash(seed))[0]) == held
    # Or the process ends, and the next one tries again.
    again, _, _ = left_by_a_failed_sync()
    second = Node(again, history=2)
    again.fail_next(method)
    assert not second.start()
    third = Node(again.kill(), history=3)
    assert third.start()
    assert isinstance(third.disk, MemoryDisk)
    for seed in SEEDS:
        assert content(read_folder(third.disk.crash(seed))[0]) == held


@pytest.mark.slow
def test_a_loss_of_power_in_the_midst_of_it_takes_nothing_that_was_durable() -> None:
    """Bytes are written over with themselves, so it does not matter which of them came through."""
    for seed in range(300):
        disk, stored, _ = left_by_a_failed_sync(keys=10)
        node = Node(disk, history=2)
        unproven = node.loaded.unproven
        assert unproven is not None
        disk.fail_next("sync")
        with pytest.raises(OSError):
            write_again(disk, unproven)
        found = content(read_folder(disk.crash(seed))[0])
        assert stored.items() <= found.items()


# -- what is written again ---------------------------------------------------------------------------------------------


def summed(data: bytes, proven: int, size: int | None = None) -> tuple[MemoryDisk, Unproven]:
    disk = MemoryDisk()
    file = disk.create("/data/a")
    file.write(data)
    file.close()
    sums = Checksums()
    for start in range(0, len(data), STEP):
        sums.add(data[start : start + STEP])
    sums.prove(proven)
    return disk, sums.unproven(disk, "/data/a", len(data) if size is None else size)


@pytest.mark.parametrize("size", [0, 1, STEP - 1, STEP, STEP + 1, 3 * STEP, 3 * STEP + 7])
def test_any_size_from_any_place(size: int) -> None:
    data = Random(1).randbytes(size)
    for proven in (0, 1, STEP - 1, STEP, 2 * STEP + 1, size):
        if proven > size:
            continue
        for counts in (size, max(size - size % 1000, proven), proven):
            disk, unproven = summed(data, proven, counts)
            disk.truncate("/data/a", counts)
            write_again(disk, unproven)
            assert disk.content("/data/a") == disk.durable("/data/a") == data[:counts]
            assert unproven.offset == proven // STEP * STEP


def test_another_byte_or_another_size_is_noticed_and_not_made_durable() -> None:
    data = Random(2).randbytes(2 * STEP + 100)
    for place in (0, STEP, 2 * STEP + 99):
        disk, unproven = summed(data, 0)
        disk._files["/data/a"].data[place] ^= 1
        with pytest.raises(OSError, match="does not give back"):
            write_again(disk, unproven)
        assert disk.durable("/data/a") == b""
        assert disk.open_files() == []
    disk, unproven = summed(data, 0, STEP + 5)
    with pytest.raises(OSError, match="does not give back"):
        write_again(disk, unproven)
    disk = MemoryDisk()
    disk.create("/data/a").write(bytes(STEP))
    sums = Checksums()
    sums.add(data[:STEP])
    with pytest.raises(OSError) as raised:
        sums.unproven(disk, "/data/a", 5)
    assert raised.value.errno == errno.EIO


def test_a_set_without_an_increment_has_nothing_to_prove() -> None:
    """A base had to be durable before a manifest could name it."""
    disk = MemoryDisk()
    folder = AppendOnlyFolder.open(disk, DATA)
    _, node = new_node()
    base = folder.create_base(node.writer.lineage, 0, {})
    folder.use_base(base, 0, keep_from=1)
    folder.close()
    again = Node(disk.kill(), history=2)
    assert again.loaded.unproven is None
    assert again.start()
    assert [name for name in again.disk.list(FOLDER) if "incr" in name] != []
