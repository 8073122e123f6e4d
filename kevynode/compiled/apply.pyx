# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Commands of a primary's stream, for what nearly all of them are. Twin of ``Applier._apply_exactly``.

A SET is done here if the key is new, or holds a string without a deadline that no snapshot shares, and if nobody tracks
accesses. Every other command that is known goes to the twin of its handler, or to the handler itself.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_Append
from cpython.object cimport PyObject

from .commands cimport Handler, twin_of
from .effects cimport enter_change
from .objects cimport (
    PENDING,
    SHARD,
    SHARDED,
    STORE,
    PyDict_GetItemWithError,
    PyDict_Size,
    PyList_GET_ITEM,
    PyList_GET_SIZE,
    PyLong_AsLongLong,
    PyObject_Hash,
    add_to_field,
    field,
    memory_of,
    same_number,
    slot_offset,
)

from ..errors import ReplyError
from ..store import notify
from ..store.sharded import SHARD_LIMIT, ShardedDict
from ..store.store import Store

cdef object _ReplyError = ReplyError
cdef object _Store = Store
cdef object _STRING = notify.STRING
cdef Py_ssize_t ON_EVENT = slot_offset(Store, "on_event")
cdef Py_ssize_t COUNT = slot_offset(ShardedDict, "count")
cdef Py_ssize_t MOST_KEYS = SHARD_LIMIT


cdef bint begin_run(object store, Run* run) except -1:
    cdef object keyspace = <object>field(store, STORE.keyspace)
    run.keyspace = <PyObject*>keyspace
    run.directory = field(keyspace, SHARDED.directory)
    run.epoch = field(keyspace, SHARDED.epoch)
    run.shift = PyLong_AsLongLong(<object>field(keyspace, SHARDED.shift))
    # New keys are told of.
    run.announces = field(store, ON_EVENT) != <PyObject*>None
    run.used = run.count = 0
    return field(store, STORE.tracker) == <PyObject*>None


cdef bint put_string(Run* run, object key, object value) except -1:
    cdef Py_ssize_t place = PyObject_Hash(key)
    cdef PyObject* shard
    cdef PyObject* old
    cdef object deadlines
    # A shift by all the bits is none that C defines.
    place = (0 if place >= 0 else -1) if run.shift > 63 else place >> run.shift
    if place < 0:
        place += PyList_GET_SIZE(<object>run.directory)
    shard = PyList_GET_ITEM(<object>run.directory, place)
    if not same_number(field(<object>shard, SHARD.epoch), run.epoch):
        return False
    old = PyDict_GetItemWithError(<object>shard, key)
    if old == NULL:
        if run.announces or PyDict_Size(<object>shard) >= MOST_KEYS:
            return False
        PyDict_SetItem(<object>shard, key, value)
        run.used += memory_of(key) + memory_of(value)
        run.count += 1
        return True
    if type(<object>old) is not bytes:
        return False
    deadlines = <object>field(<object>shard, SHARD.deadlines)
    if PyDict_Size(deadlines) and PyDict_GetItemWithError(deadlines, key) != NULL:
        return False
    run.used += memory_of(value) - memory_of(<object>old)
    PyDict_SetItem(<object>shard, key, value)
    return True


cdef int end_run(object store, Run* run) except -1:
    if run.used:
        add_to_field(store, STORE.used, run.used)
    if run.count:
        add_to_field(<object>run.keyspace, COUNT, run.count)
    run.used = run.count = 0
    return 0


cdef Py_ssize_t put_strings(object store, list commands, Py_ssize_t place) except -1:
    """Apply the plain SETs from index ``place`` on; the index of the first command that was not applied."""
    cdef Py_ssize_t stop = PyList_GET_SIZE(commands)
    cdef Run run
    cdef object command, key, pending
    if not begin_run(store, &run):
        return place
    pending = <object>field(<object>field(store, STORE.journal), PENDING)
    try:
        while place < stop:
            command = <object>PyList_GET_ITEM(commands, place)
            if not is_plain_set(command):
                break
            key = <object>PyList_GET_ITEM(command, 1)
            if not put_string(&run, key, <object>PyList_GET_ITEM(command, 2)):
                break
            PyList_Append(pending, (command, key, ((_STRING, b"set", key),)))
            place += 1
    finally:
        end_run(store, &run)
    return place


def apply_known(store, list commands, Py_ssize_t place, dict entries):
    """Apply commands from index ``place`` on, each of which makes exactly one change.

    ``entries`` are those of the applier. Returns the index of the first command that was not applied, and what it
    failed with; None if it was not tried, because it is none of ``entries`` or has too few or too many words.
    """
    cdef Py_ssize_t stop = PyList_GET_SIZE(commands)
    cdef Py_ssize_t before, grown
    cdef PyObject* found
    cdef object command, entry, handler, pending
    cdef object known = None
    cdef Handler twin = NULL
    if type(store) is not _Store:
        raise TypeError("the compiled parts apply nothing but to a Store")
    pending = <object>field(<object>field(store, STORE.journal), PENDING)
    while True:
        place = put_strings(store, commands, place)
        if place == stop:
            return place, None
        command = <object>PyList_GET_ITEM(commands, place)
        if type(command) is not list or PyList_GET_SIZE(command) == 0:
            return place, None
        found = PyDict_GetItemWithError(entries, <object>PyList_GET_ITEM(command, 0))
        if found == NULL:
            return place, None
        entry = <object>found
        if not entry[1] <= PyList_GET_SIZE(command) <= entry[2]:
            return place, None
        handler = entry[0]
        if handler is not known:
            twin = twin_of(handler)
            known = handler
        before = PyList_GET_SIZE(pending)
        try:
            if twin != NULL:
                twin(store, command)
                enter_change(pending)
            else:
                handler(store, command)
        except Exception as error:
            return place, error
        grown = PyList_GET_SIZE(pending) - before
        if grown != 1:
            return place, _ReplyError("made", f"{grown} changes instead of one")
        place += 1
