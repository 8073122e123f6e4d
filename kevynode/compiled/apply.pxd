"""Commands of a primary's stream, for what nearly all of them are."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcmp

from .objects cimport PyList_GET_ITEM, PyList_GET_SIZE


# What a run of plain SETs needs at hand, and what it has changed so far.
cdef struct Run:
    PyObject* keyspace
    PyObject* directory
    PyObject* epoch
    long long shift
    bint announces
    Py_ssize_t used
    Py_ssize_t count


# Begin a run of SETs; whether there can be one. The store is of the class Store itself, and nothing but put_string
# changes it before end_run.
cdef bint begin_run(object store, Run* run) except -1

# SET a key that is plain, or new; whether it was done, without an effect.
cdef bint put_string(Run* run, object key, object value) except -1

# Let the store know what the run has changed.
cdef int end_run(object store, Run* run) except -1


# Whether a command is ``SET key value`` in these very letters.
cdef inline bint is_plain_set(object command) noexcept:
    cdef object name
    if type(command) is not list or PyList_GET_SIZE(command) != 3:
        return False
    name = <object>PyList_GET_ITEM(command, 0)
    return (
        type(name) is bytes
        and PyBytes_GET_SIZE(name) == 3
        and memcmp(PyBytes_AS_STRING(name), b"SET", 3) == 0
        and type(<object>PyList_GET_ITEM(command, 1)) is bytes
        and type(<object>PyList_GET_ITEM(command, 2)) is bytes
    )
