"""A Redis-compatible cluster node on Trio.

The public names are loaded on first use, so that ``import kevynode.scope`` (pure tables, no I/O) pulls in no Trio:

>>> import kevynode
>>> kevynode.NodeConfig.from_dict({"server": {"port": 0}}).server.port
0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kevynode.client import ScopedClient
    from kevynode.config import ConfigError, NodeConfig
    from kevynode.embed import open_node, open_replica
    from kevynode.errors import Misdirected, Quiesced, ReplyError
    from kevynode.node import Node

__version__ = "0.1.0"

# Public name -> the module that defines it.
_HOMES = {
    "ConfigError": "kevynode.config",
    "Misdirected": "kevynode.errors",
    "Node": "kevynode.node",
    "NodeConfig": "kevynode.config",
    "Quiesced": "kevynode.errors",
    "ReplyError": "kevynode.errors",
    "ScopedClient": "kevynode.client",
    "open_node": "kevynode.embed",
    "open_replica": "kevynode.embed",
}

__all__ = [
    "ConfigError",
    "Misdirected",
    "Node",
    "NodeConfig",
    "Quiesced",
    "ReplyError",
    "ScopedClient",
    "__version__",
    "open_node",
    "open_replica",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562), and keep it."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
