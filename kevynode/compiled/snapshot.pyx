# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The records of a snapshot, for what most shards hold: strings of moderate length and small containers.

The twin of what ``kevynode.replicate.snapshot_encoder`` writes for one key. A record that is not that simple is left to
it whole: nothing of it has been written then.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_SetItem
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.string cimport memcpy

from .buffer cimport Buffer
from .objects cimport (
    SHARD,
    PyDict_GetItemWithError,
    PyDict_Size,
    PyList_GET_ITEM,
    PyList_GET_SIZE,
    add_to_field,
    field,
    memory_of,
    shard_of,
    slot_offset,
)

from ..store.keyspace import KeyShard
from ..store.list_value import List
from ..store.sharded import SHARD_LIMIT, ShardedDict
from ..store.sorted_set_value import SortedSet
from ..store.staging import Staging
from ..store.values import Hash, Set


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define KEVYNODE_FETCH(address) __builtin_prefetch(address)
    #else
    #define KEVYNODE_FETCH(address) ((void)(address))
    #endif
    """
    void KEVYNODE_FETCH(const void* address) noexcept


cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    double PyFloat_AS_DOUBLE(object number) noexcept


cdef object _KeyShard = KeyShard
cdef object _Hash = Hash
cdef object _List = List
cdef object _Set = Set
cdef object _SortedSet = SortedSet
cdef object _Staging = Staging

cdef Py_ssize_t HASH_FIELDS = slot_offset(Hash, "fields")
cdef Py_ssize_t HASH_DEADLINES = slot_offset(Hash, "deadlines")
cdef Py_ssize_t LIST_ELEMENTS = slot_offset(List, "elements")
cdef Py_ssize_t SET_MEMBERS = slot_offset(Set, "members")
cdef Py_ssize_t ZSET_ORDER = slot_offset(SortedSet, "order")
cdef Py_ssize_t STAGING_KEYSPACE = slot_offset(Staging, "keyspace")
cdef Py_ssize_t STAGING_USED = slot_offset(Staging, "used")
cdef Py_ssize_t COUNT = slot_offset(ShardedDict, "count")
cdef Py_ssize_t MOST_KEYS = SHARD_LIMIT

# As in ``kevynode.replicate.snapshot_format``, which cannot be imported here: its package needs this module.
cdef enum:
    OP_STRING = 1
    OP_HASH = 2
    OP_LIST = 3
    OP_SET = 4
    OP_SORTED_SET = 5

# A record of more bytes is left to the pure code, which cuts it into pieces.
cdef Py_ssize_t MOST_SIZE = 16 * 1024
# How many keys ahead of the one that is written its successors are fetched into the processor's caches: they lie
# anywhere in memory, and waiting for each in turn would take longer than all the rest.
cdef Py_ssize_t AHEAD = 8
# Containers that are written at a time at most: they may be very small, and reading one takes longer than writing it.
cdef int MOST_CONTAINERS = 128


cdef inline void put_number(char* place, unsigned long long number, int size) noexcept:
    """A number of ``size`` bytes, the least significant first, on any machine."""
    cdef int index
    for index in range(size):
        place[index] = <char>(number & 255)
        number >>= 8


cdef inline int write_text(Buffer out, object text) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef char* place
    out.reserve(size + 4)
    place = out.data + out.size
    put_number(place, size, 4)
    memcpy(place + 4, PyBytes_AS_STRING(text), size)
    out.size += size + 4
    return 0


cdef inline int write_count(Buffer out, Py_ssize_t count) except -1:
    out.reserve(4)
    put_number(out.data + out.size, count, 4)
    out.size += 4
    return 0


cdef inline bint is_text(PyObject* thing) noexcept:
    return type(<object>thing) is bytes and PyBytes_GET_SIZE(<object>thing) <= MOST_SIZE


cdef bint write_table(Buffer out, object table, bint with_values, Py_ssize_t limit) except -1:
    """The count and the keys of a plain dictionary, with what is under each; False: it is left to the pure code."""
    cdef Py_ssize_t place = 0
    cdef PyObject* key
    cdef PyObject* value
    if type(table) is not dict:
        return False
    write_count(out, PyDict_Size(table))
    while PyDict_Next(table, &place, &key, &value):
        if out.size > limit or not is_text(key) or (with_values and not is_text(value)):
            return False
        write_text(out, <object>key)
        if with_values:
            write_text(out, <object>value)
    return True


cdef bint write_elements(Buffer out, object elements, Py_ssize_t limit) except -1:
    cdef Py_ssize_t place
    if type(elements) is not list:
        return False
    write_count(out, PyList_GET_SIZE(elements))
    for place in range(PyList_GET_SIZE(elements)):
        if out.size > limit or not is_text(PyList_GET_ITEM(elements, place)):
            return False
        write_text(out, <object>PyList_GET_ITEM(elements, place))
    return True


cdef bint write_scored(Buffer out, object order, Py_ssize_t limit) except -1:
    cdef Py_ssize_t place
    cdef object entry
    cdef double score
    cdef unsigned long long bits
    if type(order) is not list:
        return False
    write_count(out, PyList_GET_SIZE(order))
    for place in range(PyList_GET_SIZE(order)):
        entry = <object>PyList_GET_ITEM(order, place)
        if (
            out.size > limit
            or type(entry) is not tuple
            or PyTuple_GET_SIZE(entry) != 2
            or type(<object>PyTuple_GET_ITEM(entry, 0)) is not float
            or not is_text(<PyObject*>PyTuple_GET_ITEM(entry, 1))
        ):
            return False
        write_text(out, <object>PyTuple_GET_ITEM(entry, 1))
        score = PyFloat_AS_DOUBLE(<object>PyTuple_GET_ITEM(entry, 0))
        memcpy(&bits, &score, 8)
        out.reserve(8)
        put_number(out.data + out.size, bits, 8)
        out.size += 8
    return True


cdef bint write_value(Buffer out, object value, Py_ssize_t limit) except -1:
    """What stands behind the key of a record; False: it is left to the pure code."""
    kind = type(value)
    if kind is bytes:
        write_text(out, value)
        return True
    if kind is _Hash:
        return field(value, HASH_DEADLINES) == <PyObject*>None and write_table(
            out, <object>field(value, HASH_FIELDS), True, limit
        )
    if kind is _List:
        return write_elements(out, <object>field(value, LIST_ELEMENTS), limit)
    if kind is _Set:
        return write_table(out, <object>field(value, SET_MEMBERS), False, limit)
    return write_scored(out, <object>field(value, ZSET_ORDER), limit)


cdef inline int op_of(PyObject* value) noexcept:
    """The number that says what a record holds; 0 for what is left to the pure code."""
    kind = type(<object>value)
    if kind is bytes:
        return OP_STRING if PyBytes_GET_SIZE(<object>value) <= MOST_SIZE else 0
    if kind is _Hash:
        return OP_HASH
    if kind is _List:
        return OP_LIST
    if kind is _Set:
        return OP_SET
    if kind is _SortedSet:
        return OP_SORTED_SET
    return 0


cdef class ShardWriter:
    """The keys of one shard in their order: plain ones as records, others as they are.

    The shard must be of the class KeyShard itself, and nothing may be put into it or taken out of it meanwhile.
    """

    cdef object shard, deadlines
    cdef Py_ssize_t place, ahead
    cdef Buffer out
    # Whether a value has been seen that is no string.
    cdef readonly bint has_containers
    # Whether what came last ended because there were many containers in it.
    cdef readonly bint is_crowded

    def __init__(self, shard):
        cdef PyObject* key
        cdef PyObject* value
        cdef Py_ssize_t count
        if type(shard) is not _KeyShard:
            raise TypeError("not a shard of a keyspace")
        self.shard = shard
        self.deadlines = <object>field(shard, SHARD.deadlines)
        self.place = self.ahead = 0
        self.out = Buffer()
        self.has_containers = self.is_crowded = False
        for count in range(AHEAD):
            if not PyDict_Next(self.shard, &self.ahead, &key, &value):
                break
            KEVYNODE_FETCH(key)
            KEVYNODE_FETCH(value)

    def records(self, Py_ssize_t size):
        """The next records as bytes, until there are ``size`` of them, or many containers, or one is not plain."""
        cdef Buffer out = self.out
        cdef int containers = 0
        cdef Py_ssize_t place = self.place
        cdef PyObject* key
        cdef PyObject* value
        while out.size < size and PyDict_Next(self.shard, &place, &key, &value):
            if containers == MOST_CONTAINERS:
                self.is_crowded = True
                return out.take()
            if not self.write(key, value):
                break
            if type(<object>value) is not bytes:
                containers += 1
            self.advance(place)
        self.is_crowded = False
        return out.take()

    def step(self):
        """Pass over the next key: (key, value), or None behind the last one."""
        cdef Py_ssize_t place = self.place
        cdef PyObject* key
        cdef PyObject* value
        if not PyDict_Next(self.shard, &place, &key, &value):
            return None
        if type(<object>value) is not bytes:
            self.has_containers = True
        self.advance(place)
        return (<object>key, <object>value)

    cdef inline void advance(self, Py_ssize_t place) noexcept:
        cdef PyObject* key
        cdef PyObject* value
        self.place = place
        if PyDict_Next(self.shard, &self.ahead, &key, &value):
            KEVYNODE_FETCH(key)
            KEVYNODE_FETCH(<char*>key + 48)
            KEVYNODE_FETCH(value)
            KEVYNODE_FETCH(<char*>value + 64)

    cdef bint write(self, PyObject* key, PyObject* value) except -1:
        """One record; False: it is not plain, and nothing of it is there."""
        cdef Buffer out = self.out
        cdef Py_ssize_t start = out.size
        cdef PyObject* found = NULL
        cdef int op = op_of(value)
        cdef long long deadline
        cdef int overflow = 0
        cdef char* head
        if not op or not is_text(key):
            return False
        if PyDict_Size(self.deadlines):
            found = PyDict_GetItemWithError(self.deadlines, <object>key)
        out.reserve(10)
        head = out.data + out.size
        head[0] = <char>op
        if found == NULL:
            head[1] = 0
            out.size += 2
        else:
            deadline = PyLong_AsLongLongAndOverflow(<object>found, &overflow)
            if overflow:
                return False
            head[1] = 1
            put_number(head + 2, deadline if deadline > 0 else 0, 8)
            out.size += 10
        write_text(out, <object>key)
        if op != OP_STRING:
            self.has_containers = True
        if not write_value(out, <object>value, start + MOST_SIZE):
            out.size = start
            return False
        return True


cdef inline Py_ssize_t number_at(const char* place) noexcept:
    """A number of four bytes, the least significant first."""
    cdef const unsigned char* digits = <const unsigned char*>place
    return (
        <Py_ssize_t>digits[0]
        | <Py_ssize_t>digits[1] << 8
        | <Py_ssize_t>digits[2] << 16
        | <Py_ssize_t>digits[3] << 24
    )


def put_strings(staging, bytes data, Py_ssize_t position):
    """Put strings without a deadline under new keys, while whole records of them stand in ``data`` from ``position`` on.

    Returns the place behind them. Twin of what ``SnapshotDecoder`` does with such a record.
    """
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t used = 0
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t middle, size
    cdef PyObject* shard
    cdef object keyspace
    cdef bytes key, value
    if type(staging) is not _Staging:
        return position
    keyspace = <object>field(staging, STAGING_KEYSPACE)
    try:
        # The least that a record takes. Nothing larger than what has arrived is made.
        while end - position >= 10 and text[position] == OP_STRING and text[position + 1] == 0:
            size = number_at(text + position + 2)
            middle = position + 6 + size
            if middle + 4 > end or number_at(text + middle) > end - middle - 4:
                break
            key = PyBytes_FromStringAndSize(text + position + 6, size)
            shard = shard_of(keyspace, key)
            if PyDict_GetItemWithError(<object>shard, key) != NULL:
                break
            size = number_at(text + middle)
            value = PyBytes_FromStringAndSize(text + middle + 4, size)
            PyDict_SetItem(<object>shard, key, value)
            used += memory_of(key) + memory_of(value)
            count += 1
            position = middle + 4 + size
            if PyDict_Size(<object>shard) > MOST_KEYS:
                keyspace.split(key)
    finally:
        if count:
            add_to_field(staging, STAGING_USED, used)
            add_to_field(keyspace, COUNT, count)
    return position
