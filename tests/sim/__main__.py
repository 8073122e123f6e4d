"""``python -m tests.sim``: see :mod:`sim.command`."""

from __future__ import annotations

import sys
from pathlib import Path

# The modules of the tests are found from their own folder, as pytest does it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
