"""Reading the dump files of Redis and Valkey, as they arrive and without trusting them."""

from .reader import RdbError, RdbReader, read_dump
from .source import FormatError

__all__ = ["FormatError", "RdbError", "RdbReader", "read_dump"]
