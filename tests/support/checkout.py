"""What is in the checkout and not in the installed package: bench."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__all__ = ["BENCH", "load_bench"]

BENCH = Path(__file__).resolve().parents[2] / "bench"


def load_bench() -> None:
    """Make ``bench`` importable without putting the project's root, and so kevynode, on the import path."""
    if "bench" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "bench", BENCH / "__init__.py", submodule_search_locations=[str(BENCH)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = module
    spec.loader.exec_module(module)
