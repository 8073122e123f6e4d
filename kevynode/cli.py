"""The ``kevynode`` command.

Exit status: 0 done; 1 a start error, a mistake in the configuration, files that are not as they should be, or a node
that did not answer, each one line ``kevynode: …`` on standard error; 2 wrong use of the command line; 3 it is not known
yet how a move ends; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

#: As shells have it: ended by SIGINT.
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` if None) and return its exit status; blocks until it is done."""
    try:
        # Here, so that Ctrl-C is no traceback while it is loaded.
        from kevynode.cli_commands import run_command

        status = run_command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read what is printed has had enough; nothing is left to be written when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
