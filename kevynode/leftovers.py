"""What lies in a data directory and will not be used, though somebody may expect it to be."""

from __future__ import annotations

import posixpath
from typing import Final

from .disk import Disk
from .persist.dump import DUMP
from .persist.folder import FOLDER
from .persist.manifest import manifest_name

__all__ = ["LEDGER", "leftovers"]

#: The ledger's file, as :mod:`kevynode.scope.ledger_file` calls it, which is not loaded without scopes.
LEDGER: Final = "kevynode.ledger"
#: As Redis and Valkey call their dump, and Redis before version 7 its append-only file.
_FOREIGN: Final = ("dump.rdb", "appendonly.aof")


def leftovers(disk: Disk, data_dir: str, *, has_scopes: bool) -> list[tuple[str, str]]:
    """Events for the log, each with the path of a file, as warnings. May block. Raises OSError.

    ``ledger_without_scopes``: the node had scopes when it ran last. What is written under them now stays here, and no
    other node hears of it. ``foreign_data_not_read``: another server's data where there are none of this node's yet, so
    that it begins empty. (It refuses to start on another server's append-only folder.)
    """
    found: list[tuple[str, str]] = []
    ledger = posixpath.join(data_dir, LEDGER)
    if not has_scopes and disk.exists(ledger):
        found.append(("ledger_without_scopes", ledger))
    own = (posixpath.join(FOLDER, manifest_name()), DUMP)
    if not any(disk.exists(posixpath.join(data_dir, name)) for name in own):
        paths = (posixpath.join(data_dir, name) for name in _FOREIGN)
        found += [("foreign_data_not_read", path) for path in paths if disk.exists(path)]
    return found
