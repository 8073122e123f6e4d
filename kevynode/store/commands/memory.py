"""MEMORY USAGE. What looks at the process as a whole is for the server's own commands to add."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...reply import Reply
from ..arguments import parse_int
from ..command import Args, command, container, one_key
from ..memory import key_memory
from ..store import Store

__all__ = ["MEMORY"]

MEMORY: Final = container("memory", group="server", since="4.0.0", summary="Tells where the memory goes.")


@command(
    "usage",
    arity=-3,
    flags="readonly",
    keys=one_key("RO", 2),
    group="server",
    since="4.0.0",
    summary="Bytes of memory that a key and its value take.",
    complexity="O(1)",
    syntax="key [SAMPLES count]",
    parent=MEMORY,
)
def memory_usage(store: Store, argv: Args) -> Reply:
    for place in range(3, len(argv), 2):
        # Sizes are kept up to date, so there is nothing to sample: the number is only checked.
        if argv[place].upper() != b"SAMPLES" or place + 1 == len(argv) or parse_int(argv[place + 1]) < 0:
            raise errors.SYNTAX()
    value = store.peek(argv[2])
    return None if value is None else key_memory(store, argv[2], value)
