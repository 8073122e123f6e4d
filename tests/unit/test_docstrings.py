"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import kevynode

PACKAGE = Path(kevynode.__file__).parent


def module_name(file: Path) -> str:
    """The name under which a file of the package is imported."""
    parts = ("kevynode", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


WITH_EXAMPLES = sorted(module_name(file) for file in PACKAGE.rglob("*.py") if ">>> " in file.read_text("utf-8"))


def test_what_users_call_has_examples() -> None:
    assert {"kevynode", "kevynode.embed", "kevynode.config"} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
