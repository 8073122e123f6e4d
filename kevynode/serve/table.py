"""The complete command table: importing this module has every family declare its commands."""

from __future__ import annotations

from ..store import commands as store_commands
from ..store.command import TABLE
from . import commands as session_commands

__all__ = ["FAMILIES", "TABLE"]

FAMILIES = (store_commands, session_commands)
