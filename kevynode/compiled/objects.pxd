"""The objects of the store, read without asking Python: fields of classes with slots, and shards of dictionaries.

Offsets of slots are taken from the classes when the module is imported, so they are right for whatever layout a class
has. Who reads a field must know that the object is of that very class.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.limits cimport LLONG_MAX, LLONG_MIN


cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object table, object key) except? NULL
    Py_ssize_t PyDict_Size(object table) noexcept
    Py_ssize_t PyObject_Size(object container) except -1
    Py_hash_t PyObject_Hash(object key) except? -1
    Py_ssize_t PyList_GET_SIZE(object things) noexcept
    PyObject* PyList_GET_ITEM(object things, Py_ssize_t place) noexcept
    long long PyLong_AsLongLong(object number) except? -1
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1


cdef Py_ssize_t slot_offset(object owner, str name) except -1


cdef struct StoreSlots:
    Py_ssize_t keyspace, journal, tracker, hits, used, epoch, touched


cdef struct ShardedSlots:
    Py_ssize_t directory, shift, epoch


cdef struct ShardSlots:
    Py_ssize_t epoch, deadlines


cdef StoreSlots STORE
cdef ShardedSlots SHARDED
cdef ShardSlots SHARD
cdef Py_ssize_t PENDING


cdef inline PyObject* field(object owner, Py_ssize_t offset) noexcept:
    return (<PyObject**>(<char*><PyObject*>owner + offset))[0]


cdef inline void set_field(object owner, Py_ssize_t offset, object value) noexcept:
    cdef PyObject** place = <PyObject**>(<char*><PyObject*>owner + offset)
    cdef PyObject* old = place[0]
    Py_INCREF(value)
    place[0] = <PyObject*>value
    Py_XDECREF(old)


# Add to a field that holds an int.
cdef inline int add_to_field(object owner, Py_ssize_t offset, Py_ssize_t amount) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(<object>field(owner, offset), &overflow)
    if overflow or number > LLONG_MAX >> 1 or number < LLONG_MIN >> 1:
        # The sum may be more than C can hold.
        set_field(owner, offset, <object>field(owner, offset) + amount)
    else:
        set_field(owner, offset, number + amount)
    return 0


# The shard of a sharded dictionary that holds, or would hold, a key.
cdef inline PyObject* shard_of(object sharded, bytes key) except NULL:
    cdef object directory = <object>field(sharded, SHARDED.directory)
    cdef long long shift = PyLong_AsLongLong(<object>field(sharded, SHARDED.shift))
    cdef Py_ssize_t place = PyObject_Hash(key)
    # A shift by all the bits is none that C defines.
    place = (0 if place >= 0 else -1) if shift > 63 else place >> shift
    if place < 0:
        place += PyList_GET_SIZE(directory)
    return PyList_GET_ITEM(directory, place)


# Whether two fields hold the same small number.
cdef inline bint same_number(PyObject* one, PyObject* other) except -1:
    return one == other or <object>one == <object>other


# As ``bytes_memory``.
cdef inline Py_ssize_t memory_of(object value) noexcept:
    return (PyBytes_GET_SIZE(value) + 48) & ~15
