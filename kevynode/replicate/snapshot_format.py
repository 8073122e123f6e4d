"""The form of a snapshot (KEVYSNAP): a whole data set as bytes. What encoder and decoder share.

Numbers are little-endian; a *text* is its length as u32 and its bytes, an *id* two u64 (milliseconds, sequence number).
There is no checksum and no total length::

    "KEVYSNAP" version:u8  [version >= 5: history:u64 offset:u64]  records  0:u8
    record     op:u8 has_deadline:u8 [if that is 1: unix ms:u64] key:text payload
      1 string      value:text
      2 hash        n:u32, n x (field:text value:text)
      3 list        n:u32, n x element:text, from head to tail
      4 set         n:u32, n x member:text
      5 sorted set  n:u32, n x (member:text score:f64), ascending
      6 stream      last_id:id max_deleted_id:id entries_added:u64, n:u32, n x (id, fields:u32 x (text text)),
                    [version >= 4] groups:u32 x (name:text last_delivered:id, consumers:u32 x (name:text seen_ms:u64),
                                                 pending:u32 x (id consumer:text delivered_ms:u64 deliveries:u32))
    7:u8 key:text field:text deadline:u64    a hash field's deadline; version >= 6, behind all keys
    8:u8 ...                                 version 7: the place of a value that lies elsewhere

In version 2 a key's deadline is the number of milliseconds left. Every peer reads version 4, which has no place for the
deadlines of fields.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

__all__ = [
    "CURSOR",
    "DEADLINE_HEAD",
    "DEADLINE_STRING_HEAD",
    "END",
    "ENTRY",
    "F64",
    "FIELD_DEADLINE",
    "FIELD_HEAD",
    "HASH",
    "LIST",
    "MAGIC",
    "PENDING",
    "PLAIN_HEAD",
    "READABLE",
    "SET",
    "SORTED_SET",
    "STREAM",
    "STREAM_HEAD",
    "STRING",
    "TIERED",
    "U32",
    "U64",
    "WRITABLE",
]

MAGIC: Final = b"KEVYSNAP"
END, STRING, HASH, LIST, SET, SORTED_SET, STREAM, FIELD_DEADLINE, TIERED = range(9)
#: The versions that can be read, and those that can be written.
READABLE: Final = range(2, 8)
WRITABLE: Final = range(4, 7)

U32: Final = Struct("<I")
U64: Final = Struct("<Q")
F64: Final = Struct("<d")
#: History and offset; also an id.
CURSOR: Final = Struct("<QQ")
#: op, 0, length of the key
PLAIN_HEAD: Final = Struct("<BBI")
#: op, 1, deadline
DEADLINE_HEAD: Final = Struct("<BBQ")
#: op, 1, deadline, length of the key
DEADLINE_STRING_HEAD: Final = Struct("<BBQI")
#: FIELD_DEADLINE, length of the key
FIELD_HEAD: Final = Struct("<BI")
#: last id, max deleted id, entries added, number of entries
STREAM_HEAD: Final = Struct("<QQQQQI")
#: id, number of fields
ENTRY: Final = Struct("<QQI")
#: delivered at, deliveries
PENDING: Final = Struct("<QI")
