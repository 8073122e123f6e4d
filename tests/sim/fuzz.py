"""Fuzz one reader for as long as one likes: ``python -m tests.sim.fuzz TARGET [atheris arguments]``.

Needs atheris. Finds are written where atheris is told to; keep what found something under ``tests/sim/corpus/TARGET``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    # The modules of the tests are found from their own folder, as pytest does it.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from sim.fuzzing import CORPUS, TARGETS

    if not arguments or arguments[0] not in TARGETS:
        sys.stdout.write(f"usage: python -m tests.sim.fuzz {'|'.join(TARGETS)} [atheris arguments]\n")
        return 2
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.stdout.write("this needs atheris: pip install atheris\n")
        return 2
    name, *others = arguments
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *others, str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
