"""Which of two implementations of the hot parts this process runs: the compiled one, or the one in pure Python.

The parts that a node spends its time in exist twice. The pure code is the reference; :mod:`kevynode.compiled` has a
twin of each part, which is built at installation where there is a C compiler and gives the same answers. With
``KEVYNODE_PURE`` set to anything but nothing or ``0`` the pure code runs although the other one is there.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

__all__ = ["COMPILED", "IMPLEMENTATION"]


def _is_built() -> bool:
    try:
        # The one that needs none of the others: whether extension modules for this interpreter are there at all.
        import_module(".compiled.buffer", __package__)
    except ImportError:
        return False
    return True


#: Whether the compiled parts run.
COMPILED: Final = os.environ.get("KEVYNODE_PURE", "") in ("", "0") and _is_built()

#: What runs, as ``kevynode --version`` and INFO say it.
IMPLEMENTATION: Final = "compiled" if COMPILED else "pure"
