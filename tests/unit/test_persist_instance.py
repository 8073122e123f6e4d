"""The node's instance: made once, durable before it is told, and never replaced by itself."""

from __future__ import annotations

import errno
from random import Random

import pytest
from support.append_only import DATA
from support.memory_disk import Call, MemoryDisk

from kevynode.persist.instance import INSTANCE, InstanceError, read_instance

PATH = f"{DATA}/{INSTANCE}"


def put(disk: MemoryDisk, data: bytes) -> None:
    file = disk.create(PATH)
    file.write(data)
    file.sync()
    file.close()
    disk.sync_folder(DATA)


def test_it_is_made_once_and_kept() -> None:
    disk = MemoryDisk()
    instance = read_instance(disk, DATA, Random(1).getrandbits)
    assert len(instance) == 32
    assert int(instance, 16) == Random(1).getrandbits(128)
    assert disk.list(DATA) == [INSTANCE]
    for found in (disk.kill(), *map(disk.crash, range(20))):
        assert read_instance(found, DATA, Random(2).getrandbits) == instance


def test_a_small_number_has_all_its_digits() -> None:
    assert read_instance(MemoryDisk(), DATA, lambda bits: 10) == "0" * 31 + "a"


def test_it_may_have_been_written_by_hand() -> None:
    disk = MemoryDisk()
    put(disk, b"0123456789abcdef" * 2)
    assert read_instance(disk, DATA, Random(1).getrandbits) == "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"0" * 31, b"0" * 33, b"0" * 32 + b"\r\n", b"G" * 32, b"A" * 32, b"\0" * 33, b"0" * 32 + b"\n\n"],
)
def test_anything_else_is_left_as_it_is_and_told(data: bytes) -> None:
    disk = MemoryDisk()
    put(disk, data)
    with pytest.raises(InstanceError, match=rf"^{PATH} does not hold the 32 hexadecimal digits .* remove the file"):
        read_instance(disk, DATA, Random(1).getrandbits)
    assert disk.content(PATH) == data


@pytest.mark.parametrize("method", ["exists", "create", "write", "sync", "rename", "sync_folder"])
def test_a_failing_disk_is_told_and_the_next_try_succeeds(method: str) -> None:
    disk = MemoryDisk()
    disk.fail_next(method, errno.ENOSPC)
    with pytest.raises(OSError) as raised:
        read_instance(disk, DATA, Random(1).getrandbits)
    assert raised.value.errno == errno.ENOSPC
    instance = read_instance(disk, DATA, Random(2).getrandbits)
    for found in (disk.kill(), *map(disk.crash, range(20))):
        assert read_instance(found, DATA, Random(3).getrandbits) == instance


class PowerCut(BaseException):
    """The power is gone."""


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("seed", range(8))
def test_what_is_told_after_a_crash_stays(place: int, seed: int) -> None:
    disk = MemoryDisk()

    def before(call: Call) -> None:
        if len(disk.calls) > place:
            raise PowerCut

    disk.before = before
    told = None
    try:
        told = read_instance(disk, DATA, Random(1).getrandbits)
    except PowerCut:
        pass
    disk.before = None
    for found in (disk.kill(), disk.crash(seed)):
        again = read_instance(found, DATA, Random(2).getrandbits)
        assert told in (None, again)
        assert read_instance(found.crash(seed), DATA, Random(3).getrandbits) == again
