# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The order inside a sorted set: see ``kevynode.store.ordered``, whose entries and blocks these are."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AsDouble
from cpython.list cimport PyList_Insert, PyList_SetSlice
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.string cimport memcmp

from .objects cimport PyList_GET_ITEM, PyList_GET_SIZE, field, slot_offset

from ..store.ordered import BLOCK_LIMIT, OrderedBlocks, SMALL_BLOCK

cdef Py_ssize_t MOST = BLOCK_LIMIT
cdef Py_ssize_t LEAST = SMALL_BLOCK
cdef object _OrderedBlocks = OrderedBlocks
cdef Py_ssize_t BLOCKS = slot_offset(OrderedBlocks, "blocks")
cdef Py_ssize_t MAXIMA = slot_offset(OrderedBlocks, "maxima")
cdef Py_ssize_t OWNED = slot_offset(OrderedBlocks, "owned")
cdef Py_ssize_t LEVELS = slot_offset(OrderedBlocks, "levels")


cdef inline bint is_below(PyObject* entry, double score, bytes member) noexcept:
    """Whether an entry comes before (score, member)."""
    cdef double other = PyFloat_AsDouble(<object>PyTuple_GET_ITEM(<tuple>entry, 0))
    cdef Py_ssize_t mine, theirs
    cdef int order
    cdef object name
    if other != score:
        return other < score
    name = <object>PyTuple_GET_ITEM(<tuple>entry, 1)
    mine = PyBytes_GET_SIZE(member)
    theirs = PyBytes_GET_SIZE(name)
    order = memcmp(PyBytes_AS_STRING(name), PyBytes_AS_STRING(member), mine if mine < theirs else theirs)
    return order < 0 if order else theirs < mine


cdef inline Py_ssize_t place_of(list entries, double score, bytes member) noexcept:
    """How many of ascending entries come before (score, member)."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = PyList_GET_SIZE(entries)
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) >> 1
        if is_below(PyList_GET_ITEM(entries, middle), score, member):
            low = middle + 1
        else:
            high = middle
    return low


cdef bint put_entry(object order, object old, object score, bytes member) except -1:
    cdef list blocks, maxima, source, target
    cdef bytearray owned
    cdef Py_ssize_t leaves, arrives, place
    cdef double before = PyFloat_AsDouble(old)
    cdef double after = PyFloat_AsDouble(score)
    if type(order) is list:
        source = <list>order
        place = place_of(source, before, member)
        PyList_SetSlice(source, place, place + 1, [])
        PyList_Insert(source, place_of(source, after, member), (score, member))
        return True
    if type(order) is not _OrderedBlocks or field(order, LEVELS) != <PyObject*>None:
        return False
    blocks = <list>field(order, BLOCKS)
    maxima = <list>field(order, MAXIMA)
    owned = <bytearray>field(order, OWNED)
    leaves = place_of(maxima, before, member)
    arrives = place_of(maxima, after, member)
    if arrives >= PyList_GET_SIZE(maxima) or not owned[leaves] or not owned[arrives]:
        return False
    source = <list>PyList_GET_ITEM(blocks, leaves)
    target = <list>PyList_GET_ITEM(blocks, arrives)
    place = place_of(source, before, member)
    # No block becomes too small, too large, or has another highest entry.
    if place == PyList_GET_SIZE(source) - 1:
        return False
    if leaves != arrives and (PyList_GET_SIZE(source) <= LEAST or PyList_GET_SIZE(target) >= MOST):
        return False
    PyList_SetSlice(source, place, place + 1, [])
    PyList_Insert(target, place_of(target, after, member), (score, member))
    return True
