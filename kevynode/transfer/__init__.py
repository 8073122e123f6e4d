"""Data that comes from other servers or goes to them, as files. Everything here is pure: bytes in, bytes out."""

from .data_file import AofError
from .exporting import export_commands
from .importing import Import, ImportFailure, ImportReport
from .replay import ReplayError

__all__ = ["AofError", "Import", "ImportFailure", "ImportReport", "ReplayError", "export_commands"]
