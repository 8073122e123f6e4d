"""What ``deploy/local-cluster.sh`` runs, with an interpreter that has kevynode installed.

Exit status: 0 stopped by a signal or at the end of the demonstration; 1 a node did not start, all have ended, or the
demonstration saw something else than it should; 2 wrong use of the command line; 130, or ended by SIGINT: interrupted
before there was anything to stop.
"""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line and return its exit status."""
    # Until everything is loaded Ctrl-C just ends it: an exception could come from the midst of anything.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from local_start import run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
