# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A key that the program reads which the node lives in, for what most keys are."""

from cpython.object cimport PyObject

from .objects cimport SHARD, STORE, PyDict_GetItemWithError, PyDict_Size, add_to_field, field, shard_of

from ..store.store import Store

cdef object _Store = Store


def plain_string(store, key):
    """The string under a key without a deadline whose accesses nobody tracks, counted as a hit.

    None where it is not that simple, or not there; then nothing has been counted, and the store must be asked.
    """
    cdef PyObject* shard
    cdef PyObject* value
    cdef object deadlines
    if type(store) is not _Store or type(key) is not bytes or field(store, STORE.tracker) != <PyObject*>None:
        return None
    shard = shard_of(<object>field(store, STORE.keyspace), key)
    value = PyDict_GetItemWithError(<object>shard, key)
    if value == NULL or type(<object>value) is not bytes:
        return None
    deadlines = <object>field(<object>shard, SHARD.deadlines)
    if PyDict_Size(deadlines) and PyDict_GetItemWithError(deadlines, key) != NULL:
        return None
    add_to_field(store, STORE.hits, 1)
    return <object>value
