# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Who hears of every write, for what nearly every write is: one command of a few words that was made here.

Twins of ``Journal.commit``, ``JournalRecorder.observe``, ``Backlog.observe`` and ``kevynode.replicate.wire.frame``. What is not that simple
is left to them before anything has changed.
"""

from types import MethodType

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.list cimport PyList_Append, PyList_Check
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM

from .records cimport encode
from .objects cimport (
    PENDING,
    PyList_GET_ITEM,
    PyList_GET_SIZE,
    PyLong_AsLongLong,
    add_to_field,
    field,
    set_field,
    slot_offset,
)

from ..persist.recorder import MOST_PARTS, JournalRecorder
from ..replicate.backlog import PENDING_LIMIT, Backlog
from ..replicate.block import SMALL_BLOCK_SIZE
from ..replicate.wire import frame as _frame
from ..store.journal import Journal

cdef object _MethodType = MethodType
cdef object _recorder_observe = JournalRecorder.observe
cdef object _backlog_observe = Backlog.observe
cdef object _true = True
cdef object _false = False

cdef Py_ssize_t JOURNAL_OFFSET = slot_offset(Journal, "offset")
cdef Py_ssize_t JOURNAL_ORIGIN = slot_offset(Journal, "origin")
cdef Py_ssize_t JOURNAL_OBSERVERS = slot_offset(Journal, "observers")
cdef Py_ssize_t JOURNAL_FOLLOWS = slot_offset(Journal, "follows")

cdef Py_ssize_t RECORDER_JOURNAL = slot_offset(JournalRecorder, "_journal")
cdef Py_ssize_t RECORDER_OFFSET = slot_offset(JournalRecorder, "offset")
cdef Py_ssize_t RECORDER_MARK = slot_offset(JournalRecorder, "mark")
cdef Py_ssize_t RECORDER_RECORDS = slot_offset(JournalRecorder, "_records")
cdef Py_ssize_t RECORDER_NEXT_CURSOR = slot_offset(JournalRecorder, "next_cursor")
cdef Py_ssize_t RECORDER_PLAIN_ORIGIN = slot_offset(JournalRecorder, "_plain_origin")
cdef Py_ssize_t RECORDER_PARTS = slot_offset(JournalRecorder, "_parts")
# A record is one part here, and eight there.
cdef Py_ssize_t PARTS = MOST_PARTS // 8

cdef Py_ssize_t BACKLOG_PENDING = slot_offset(Backlog, "_pending")
cdef Py_ssize_t BACKLOG_PENDING_SIZE = slot_offset(Backlog, "_pending_size")
cdef Py_ssize_t BACKLOG_NEXT = slot_offset(Backlog, "_next")
cdef Py_ssize_t BACKLOG_OWN = slot_offset(Backlog, "_own")
cdef Py_ssize_t MOST_PENDING = PENDING_LIMIT
cdef Py_ssize_t MOST_SIZE = SMALL_BLOCK_SIZE

cdef extern from "Python.h":
    PyObject* PyMethod_GET_FUNCTION(object method) noexcept
    PyObject* PyMethod_GET_SELF(object method) noexcept


def frame(offset, command):
    """As ``kevynode.replicate.wire.frame``."""
    made = encode(command, offset)
    return _frame(offset, command) if made is None else made


cdef int observe_recorder(object recorder, object first, list group) except -1:
    cdef object journal = <object>field(recorder, RECORDER_JOURNAL)
    cdef object following = <object>field(journal, JOURNAL_OFFSET)
    cdef object parts, command
    cdef bytes record
    if (
        PyList_GET_SIZE(group) == 1
        and field(recorder, RECORDER_NEXT_CURSOR) == <PyObject*>None
        and PyLong_AsLongLong(following) - 1 == PyLong_AsLongLong(first)
        and PyLong_AsLongLong(first) == PyLong_AsLongLong(<object>field(recorder, RECORDER_OFFSET))
    ):
        if field(recorder, RECORDER_RECORDS) == <PyObject*>_true:
            if field(journal, JOURNAL_ORIGIN) == field(recorder, RECORDER_PLAIN_ORIGIN):
                command = <object>PyTuple_GET_ITEM(<tuple>PyList_GET_ITEM(group, 0), 0)
                record = encode(command, -1)
                if record is not None:
                    parts = <object>field(recorder, RECORDER_PARTS)
                    PyList_Append(parts, record)
                    set_field(recorder, RECORDER_OFFSET, following)
                    add_to_field(recorder, RECORDER_MARK, 1)
                    if PyList_GET_SIZE(parts) > PARTS:
                        recorder.end_piece()
                    return 0
        elif field(journal, JOURNAL_ORIGIN) == <PyObject*>None:
            # Nothing is kept, and no cursor moves.
            set_field(recorder, RECORDER_OFFSET, following)
            add_to_field(recorder, RECORDER_MARK, 1)
            return 0
    _recorder_observe(recorder, first, group)
    return 0


cdef int observe_backlog(object backlog, object first, list group) except -1:
    cdef object pending = <object>field(backlog, BACKLOG_PENDING)
    cdef Py_ssize_t waiting = PyList_GET_SIZE(pending)
    cdef Py_ssize_t size
    cdef object command
    cdef bytes data
    if (
        PyList_GET_SIZE(group) == 1
        and 0 < waiting < MOST_PENDING
        and field(backlog, BACKLOG_OWN) == <PyObject*>_true
    ):
        command = <object>PyTuple_GET_ITEM(<tuple>PyList_GET_ITEM(group, 0), 0)
        # Shorter commands may be flushes, which the backlog has to know.
        if PyList_Check(command) and PyList_GET_SIZE(command) >= 3:
            data = encode(command, PyLong_AsLongLong(<object>field(backlog, BACKLOG_NEXT)))
            if data is not None:
                size = PyLong_AsLongLong(<object>field(backlog, BACKLOG_PENDING_SIZE)) + PyBytes_GET_SIZE(data)
                if size <= MOST_SIZE:
                    PyList_Append(pending, data)
                    set_field(backlog, BACKLOG_PENDING_SIZE, size)
                    add_to_field(backlog, BACKLOG_NEXT, 1)
                    return 0
    _backlog_observe(backlog, first, group)
    return 0


cdef int tell(object observer, object first, list group) except -1:
    cdef PyObject* function
    if type(observer) is _MethodType:
        function = PyMethod_GET_FUNCTION(observer)
        if function == <PyObject*>_recorder_observe:
            return observe_recorder(<object>PyMethod_GET_SELF(observer), first, group)
        if function == <PyObject*>_backlog_observe:
            return observe_backlog(<object>PyMethod_GET_SELF(observer), first, group)
    observer(first, group)
    return 0


cdef int commit(object journal) except -1:
    """As ``Journal.commit`` without an offset."""
    cdef object observers = <object>field(journal, JOURNAL_OBSERVERS)
    cdef Py_ssize_t count = PyList_GET_SIZE(observers)
    cdef list group
    cdef object first
    if field(journal, JOURNAL_FOLLOWS) != <PyObject*>_false:
        journal.commit()
        return 0
    group = <list>field(journal, PENDING)
    first = <object>field(journal, JOURNAL_OFFSET)
    set_field(journal, JOURNAL_OFFSET, first + PyList_GET_SIZE(group))
    set_field(journal, PENDING, [])
    if count == 1:
        tell(<object>PyList_GET_ITEM(observers, 0), first, group)
    elif count:
        tell_all(tuple(observers), first, group)
    return 0


cdef int tell_all(tuple observers, object first, list group) except -1:
    """Each observer hears of the group, also if another one fails; the first failure is raised when all have heard."""
    cdef object failure = None
    for observer in observers:
        try:
            tell(observer, first, group)
        except Exception as error:
            if failure is None:
                failure = error
    if failure is not None:
        raise failure
    return 0


def tell_observer(observer, first, list group):
    """Tell one observer of a group, as the compiled loop does. For tests."""
    tell(observer, first, group)
