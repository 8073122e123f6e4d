"""Which of two implementations of the hot parts this process runs: the compiled one, or the one in pure Python.

The parts that a node spends its time in exist twice. The pure code is the reference; :mod:`kevynode.compiled` has a
twin of each part, which is built at installation where there is a C compiler and gives the same answers. With
``KEVYNODE_PURE`` set to anything but nothing or ``0`` the pure code runs although the other one is there. In a checkout
it also runs where what was built is older than its sources, or than the code that it is the twin of.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

__all__ = ["COMPILED", "IMPLEMENTATION", "OUTDATED", "is_outdated"]

#: What the compiled parts are twins of, in the folder of the package: whole modules, and folders of them.
PURE_SOURCES: Final = (
    "persist/recorder.py",
    "persist/records.py",
    "replicate/backlog.py",
    "replicate/follower.py",
    "replicate/snapshot_encoder.py",
    "replicate/stream_decoder.py",
    "replicate/wire.py",
    "reply.py",
    "resp.py",
    "serve/hub_connection.py",
    "serve/hub_rounds.py",
    "serve/loop.py",
    "serve/server.py",
    "serve/session.py",
    "serve/traffic.py",
    "store/apply.py",
    "store/commands",
    "store/journal.py",
    "store/store.py",
)


def _is_built() -> bool:
    try:
        # The one that needs none of the others: whether extension modules for this interpreter are there at all.
        import_module(".compiled.buffer", __package__)
    except ImportError:
        return False
    return True


def is_outdated(package: Path) -> bool:
    """Whether the compiled parts in a checkout's package are older than what they are made of, or are twins of.

    An installed package holds what was built for it, and its files' times say nothing: there it is never so.
    """
    if not (package.parent / "hatch_build.py").is_file():
        return False
    compiled = package / "compiled"
    built = [path for path in compiled.iterdir() if path.name.endswith(tuple(EXTENSION_SUFFIXES))]
    sources = [path for path in compiled.iterdir() if path.suffix in (".pyx", ".pxd")]
    for name in PURE_SOURCES:
        source = package / name
        sources.extend(source.glob("*.py") if source.is_dir() else [source])
    return bool(built) and _newest(sources) > min(path.stat().st_mtime_ns for path in built)


def _newest(paths: list[Path]) -> int:
    return max(path.stat().st_mtime_ns for path in paths)


_wanted = os.environ.get("KEVYNODE_PURE", "") in ("", "0") and _is_built()

#: Whether compiled parts are there and are not used because their sources have changed since.
OUTDATED: Final = _wanted and is_outdated(Path(__file__).parent)

#: Whether the compiled parts run.
COMPILED: Final = _wanted and not OUTDATED

#: What runs, as ``kevynode --version`` and INFO say it.
IMPLEMENTATION: Final = "compiled" if COMPILED else "pure"
