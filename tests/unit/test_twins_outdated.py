"""Compiled parts that are older than their sources do not run in their place."""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import kevynode
from kevynode.twins import PURE_SOURCES, is_outdated

MODULE = f"compiled/loop{EXTENSION_SUFFIXES[0]}"
FOLDERS = [name for name in PURE_SOURCES if not name.endswith(".py")]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout, whose compiled part is newer than everything."""
    (tmp_path / "hatch_build.py").touch()
    package = tmp_path / "kevynode"
    files = ["compiled/loop.pyx", "compiled/loop.pxd", MODULE, *(f"{name}/strings.py" for name in FOLDERS)]
    for name in [*files, *(name for name in PURE_SOURCES if name not in FOLDERS)]:
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1000, 1000))
    os.utime(package / MODULE, (2000, 2000))
    return package


def change(path: Path) -> None:
    os.utime(path, (3000, 3000))


def test_what_was_built_last_is_up_to_date(package: Path) -> None:
    assert not is_outdated(package)


@pytest.mark.parametrize(
    "name", ["compiled/loop.pyx", "compiled/loop.pxd", "serve/loop.py", "store/commands/strings.py"]
)
def test_whoever_changes_a_source_has_to_build_again(package: Path, name: str) -> None:
    change(package / name)
    assert is_outdated(package)
    os.utime(package / MODULE, (4000, 4000))
    assert not is_outdated(package)


def test_one_part_that_was_left_behind_is_enough(package: Path) -> None:
    other = package / f"compiled/hub{EXTENSION_SUFFIXES[0]}"
    other.touch()
    os.utime(other, (500, 500))
    assert is_outdated(package)


def test_an_installed_package_is_what_was_built_for_it(package: Path) -> None:
    change(package / "serve/loop.py")
    (package.parent / "hatch_build.py").unlink()
    assert not is_outdated(package)


def test_nothing_is_outdated_where_nothing_was_built(package: Path) -> None:
    (package / MODULE).unlink()
    assert not is_outdated(package)


def test_all_that_has_a_twin_is_there() -> None:
    root = Path(kevynode.__file__).parent
    assert [name for name in PURE_SOURCES if not (root / name).exists()] == []
