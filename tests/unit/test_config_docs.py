"""The configuration page: its tables are those of the schema, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli
from support.configuration_reference import PAGE, SECTIONS, with_tables

from kevynode.config import NodeConfig
from kevynode.config_schema import options

ROOT = PAGE.parents[1]


def test_the_tables_are_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: PYTHONPATH=. python tests/support/configuration_reference.py"
    for section, cls in SECTIONS.items():
        assert f"<!-- keys of {section} -->" in page
        for name, _, _ in options(cls):
            assert f"| `{name}` |" in page


def test_the_examples_of_the_page_load() -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        assert NodeConfig.from_dict(tomli.loads(example)).explicit


@pytest.mark.parametrize("file", sorted((ROOT / "deploy").rglob("*.toml")), ids=lambda file: file.name)
def test_the_example_files_load(file: Path) -> None:
    assert NodeConfig.load(file, environment={}).explicit
