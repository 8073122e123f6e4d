# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The objects of the store, read without asking Python."""

from types import MemberDescriptorType

from ..store.journal import Journal
from ..store.keyspace import KeyShard, Keyspace
from ..store.sharded import Shard, ShardedDict
from ..store.store import Store


cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        Py_ssize_t offset


cdef extern from "Python.h":
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member


cdef Py_ssize_t slot_offset(object owner, str name) except -1:
    """Where the slot ``name`` of a class lies within its objects. Raises TypeError if it is not a slot."""
    descriptor = owner.__dict__[name]
    if type(descriptor) is not MemberDescriptorType:
        raise TypeError(f"{owner.__name__}.{name} is not a slot")
    return (<PyMemberDescrObject*>descriptor).d_member.offset


STORE.keyspace = slot_offset(Store, "keyspace")
STORE.journal = slot_offset(Store, "journal")
STORE.tracker = slot_offset(Store, "tracker")
STORE.hits = slot_offset(Store, "hits")
STORE.used = slot_offset(Store, "used")
STORE.epoch = slot_offset(Store, "epoch")
STORE.touched = slot_offset(Store, "touched")
SHARDED.directory = slot_offset(ShardedDict, "directory")
SHARDED.shift = slot_offset(ShardedDict, "shift")
SHARDED.epoch = slot_offset(ShardedDict, "epoch")
SHARD.epoch = slot_offset(Shard, "epoch")
SHARD.deadlines = slot_offset(KeyShard, "deadlines")
PENDING = slot_offset(Journal, "pending")
