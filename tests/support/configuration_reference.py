"""The tables of ``docs/configuration.md``, made from the schema.

``PYTHONPATH=. python tests/support/configuration_reference.py`` writes them into the page; a test holds that they are
up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import attrs

from kevynode.config import (
    ClusterConfig,
    ExpiryConfig,
    LogConfig,
    MemoryConfig,
    PeerConfig,
    PersistenceConfig,
    ReplicationConfig,
    ServerConfig,
)
from kevynode.config_schema import options

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

SECTIONS: dict[str, type] = {
    "server": ServerConfig,
    "persistence": PersistenceConfig,
    "memory": MemoryConfig,
    "expiry": ExpiryConfig,
    "log": LogConfig,
    "replication": ReplicationConfig,
    "cluster": ClusterConfig,
    "cluster.peer": PeerConfig,
}


def shown(default: Any) -> str:
    """A default as it would stand in a file."""
    if default is attrs.NOTHING:
        return "required"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return "`" + " ".join(f'"{item}"' for item in default) + "`"
    if isinstance(default, int) and default >= 1 << 20 and default % (1 << 20) == 0:
        return f'`"{default >> 20}mb"`'
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


def table(section: str) -> str:
    """The keys of one section as a Markdown table."""
    rows = ["| key | default | accepted | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{name}` | {shown(default)} | {option.kind.accepted} | {option.meaning} |"
        for name, default, option in options(SECTIONS[section])
    ]
    return "\n".join(rows)


def with_tables(page: str) -> str:
    """``page`` with every ``<!-- keys of X -->`` block filled anew; ``KeyError`` for a section that does not exist."""
    return re.sub(
        r"(<!-- keys of ([a-z.]+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{table(match[2])}\n{match[3]}",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
