"""docs/differences.md shows exactly the table of accepted differences."""

from pathlib import Path

from compat import accepted


def test_page_matches_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "differences.md"
    assert page.read_text(encoding="utf-8") == accepted.page(), "write it anew: see tests/compat/accepted.py"
