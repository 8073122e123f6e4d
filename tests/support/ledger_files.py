"""Ledgers on a disk in memory: appends of every kind of record, and the file that they make."""

from __future__ import annotations

import attrs
from support.memory_disk import MemoryDisk

from kevynode.scope.ledger import LedgerEntry
from kevynode.scope.ledger_file import LEDGER, LedgerFile, load
from kevynode.scope.ledger_records import (
    AgreedEpoch,
    Announced,
    LedgerState,
    MoveRecord,
    MoveRole,
    MoveState,
    Opened,
    Record,
    Settled,
)

DATA = "/data"
PATH = f"{DATA}/{LEDGER}"
TEMPORARY = f"{DATA}/temp-{LEDGER}"

ENTRY = LedgerEntry(b"app:", "b", 4, "m1")
MOVE = MoveRecord("m1", b"app:", MoveRole.TARGET, MoveState.AGREED, "a", 4)
ACTIVATED = attrs.evolve(MOVE, state=MoveState.ACTIVATED, decision=MoveState.FLIPPED, keys=7, detail="as told, späť")

APPENDS: list[list[Record]] = [
    [Settled()],
    [Announced("a", 12)],
    [AgreedEpoch(b"app:", 4, "m1"), MOVE],
    [ENTRY, ACTIVATED, Opened(b"app:")],
]


def opened(disk: MemoryDisk) -> LedgerFile:
    return LedgerFile(disk, DATA, load(disk, DATA))


def written(disk: MemoryDisk) -> list[int]:
    """Append all of APPENDS; where each of them ends."""
    file = opened(disk)
    ends = []
    for records in APPENDS:
        file.append(records)
        ends.append(len(disk.content(PATH)))
    file.close()
    return ends


def state_of(appends: list[list[Record]]) -> LedgerState:
    state = LedgerState()
    for records in appends:
        state.add(records)
    return state


def with_content(data: bytes) -> MemoryDisk:
    disk = MemoryDisk()
    file = disk.create(PATH)
    file.write(data)
    file.sync()
    file.close()
    disk.sync_folder(DATA)
    return disk


def whole() -> tuple[bytes, list[int]]:
    disk = MemoryDisk()
    ends = written(disk)
    return disk.content(PATH), ends
