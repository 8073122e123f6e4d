"""Builds the compiled parts into the wheel, where there is a C compiler; without them kevynode is pure Python.

``KEVYNODE_PURE=1`` leaves them out, ``KEVYNODE_PURE=0`` makes it an error if they cannot be built.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCES = "kevynode/compiled"
_LINUX_ONLY = {"hub"}


def build(root: Path, target: Path) -> list[Path]:
    """Build every extension module under ``target``, which gets the folders of the package; the files made.

    Raises whatever the compiler, or its absence, raises.
    """
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    sources = sorted((root / _SOURCES).glob("*.pyx"))
    if sys.platform != "linux":
        sources = [source for source in sources if source.stem not in _LINUX_ONLY]
    flags = [] if sys.platform == "win32" else ["-O2", "-fno-strict-aliasing"]
    extensions = [
        Extension(
            f"{_SOURCES.replace('/', '.')}.{source.stem}",
            [str(source.relative_to(root))],
            extra_compile_args=flags,
        )
        for source in sources
    ]
    with tempfile.TemporaryDirectory() as scratch:
        before = Path.cwd()
        os.chdir(root)
        try:
            made = cythonize(
                extensions, build_dir=scratch, language_level=3, quiet=True, show_all_warnings=False, nthreads=0
            )
            distribution = Distribution({"name": "kevynode", "ext_modules": made})
            command = distribution.get_command_obj("build_ext")
            command.build_lib = str(target)
            command.build_temp = scratch
            command.parallel = os.cpu_count()
            command.ensure_finalized()
            command.run()
        finally:
            os.chdir(before)
    return sorted((target / _SOURCES).glob("*.so")) + sorted((target / _SOURCES).glob("*.pyd"))


class CompiledParts(BuildHookInterface[Any]):
    """Puts the extension modules into wheels; into the source tree for an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is put together."""
        wanted = os.environ.get("KEVYNODE_PURE", "")
        if self.target_name != "wheel" or wanted not in ("", "0"):
            return
        root = Path(self.root)
        self._folder = tempfile.TemporaryDirectory()
        target = root if version == "editable" else Path(self._folder.name)
        try:
            made = build(root, target)
        except BaseException as error:
            # A compiler that fails ends with SystemExit.
            if wanted == "0" or isinstance(error, KeyboardInterrupt):
                raise
            self.app.display_warning(f"the compiled parts were not built, kevynode will be pure Python: {error}")
            return
        if version == "editable":
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for path in made:
            build_data["force_include"][str(path)] = f"{_SOURCES}/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel is there."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


if __name__ == "__main__":
    # In place, for those who work on it: python hatch_build.py
    here = Path(__file__).resolve().parent
    build(here, here)
