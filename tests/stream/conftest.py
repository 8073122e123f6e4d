"""Of a test that runs with seeds all but the first are slow: coverage learns nothing from them."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the later seeds of this folder's tests."""
    here = Path(__file__).parent
    for item in items:
        parameters = getattr(item, "callspec", None)
        if here in item.path.parents and parameters is not None and parameters.indices.get("seed", 0) > 0:
            item.add_marker(pytest.mark.slow)
