"""The node's instance: a random number by which others know this data directory, whatever the node is called.

It is made when the data directory is first used and never changes: a node that comes back with it is the same one, and
one that comes with another is a newcomer under the same name.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Final

from ..disk import Disk, write_all

__all__ = ["INSTANCE", "InstanceError", "read_instance"]

#: The name of the file in the data directory.
INSTANCE: Final = "kevynode.instance"

_BITS: Final = 128
# Bytes of the file, with the end of its line.
_SIZE: Final = 33
_DIGITS: Final = re.compile(rb"[0-9a-f]{32}\n?")


class InstanceError(Exception):
    """The file holds no instance; the text names it, and says what to do."""


def read_instance(disk: Disk, data_dir: str, random_bits: Callable[[int], int]) -> str:
    """The instance of a data directory, which must exist and be locked: 32 hexadecimal digits.

    Where there is none one is made, from ``random_bits`` (which gives random numbers of so many bits), and is durable
    when this returns. Takes long. Raises InstanceError for a file that holds something else, and OSError.
    """
    path = posixpath.join(data_dir, INSTANCE)
    if disk.exists(path):
        held = disk.read(path, 0, _SIZE + 1)
        if _DIGITS.fullmatch(held) is None:
            raise InstanceError(
                f"{path} does not hold the 32 hexadecimal digits of this node's instance: put back what was in it, or "
                "remove the file, and the other nodes will take this one for a newcomer"
            )
        # Whoever made it may not have come to this.
        disk.sync_folder(data_dir)
        return held[:32].decode("ascii")
    instance = f"{random_bits(_BITS):032x}"
    temporary = posixpath.join(data_dir, "temp-" + INSTANCE)
    file = disk.create(temporary)
    try:
        write_all(file, instance.encode("ascii") + b"\n")
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.sync_folder(data_dir)
    return instance
