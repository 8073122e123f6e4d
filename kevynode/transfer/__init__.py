"""Data that comes from other servers or goes to them, as files. Pure, but for the disk that ``sources`` is handed."""

from .data_file import AofError
from .exporting import ExportPiece, export_commands, export_pieces
from .importing import Import, ImportFailure, ImportReport
from .replay import ReplayError
from .sources import READ_ERRORS, Source, SourceError, find_source, read_source
from .staged import Swept, sweep

__all__ = [
    "READ_ERRORS",
    "AofError",
    "ExportPiece",
    "Import",
    "ImportFailure",
    "ImportReport",
    "ReplayError",
    "Source",
    "SourceError",
    "Swept",
    "export_commands",
    "export_pieces",
    "find_source",
    "read_source",
    "sweep",
]
