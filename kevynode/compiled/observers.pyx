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

from .effects cimport CHANGE, Change, effect_of, enter_change
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


cdef bint record(object recorder, object first, object command) except -1:
    """As ``JournalRecorder.observe`` of a group of one command; false, and nothing has changed, if it is unusual."""
    cdef object journal = <object>field(recorder, RECORDER_JOURNAL)
    cdef object following = <object>field(journal, JOURNAL_OFFSET)
    cdef object parts
    cdef bytes made
    if (
        field(recorder, RECORDER_NEXT_CURSOR) != <PyObject*>None
        or PyLong_AsLongLong(following) - 1 != PyLong_AsLongLong(first)
        or PyLong_AsLongLong(first) != PyLong_AsLongLong(<object>field(recorder, RECORDER_OFFSET))
    ):
        return False
    if field(recorder, RECORDER_RECORDS) == <PyObject*>_true:
        if field(journal, JOURNAL_ORIGIN) != field(recorder, RECORDER_PLAIN_ORIGIN):
            return False
        made = encode(command, -1)
        if made is None:
            return False
        parts = <object>field(recorder, RECORDER_PARTS)
        PyList_Append(parts, made)
        set_field(recorder, RECORDER_OFFSET, following)
        add_to_field(recorder, RECORDER_MARK, 1)
        if PyList_GET_SIZE(parts) > PARTS:
            recorder.end_piece()
        return True
    if field(journal, JOURNAL_ORIGIN) == <PyObject*>None:
        # Nothing is kept, and no cursor moves.
        set_field(recorder, RECORDER_OFFSET, following)
        add_to_field(recorder, RECORDER_MARK, 1)
        return True
    return False


cdef bint keep(object backlog, object command) except -1:
    """As ``Backlog.observe`` of a group of one command; false, and nothing has changed, if it is unusual."""
    cdef object pending = <object>field(backlog, BACKLOG_PENDING)
    cdef Py_ssize_t waiting = PyList_GET_SIZE(pending)
    cdef Py_ssize_t size
    cdef bytes data
    # Shorter commands may be flushes, which the backlog has to know.
    if (
        waiting == 0
        or waiting >= MOST_PENDING
        or field(backlog, BACKLOG_OWN) != <PyObject*>_true
        or not PyList_Check(command)
        or PyList_GET_SIZE(command) < 3
    ):
        return False
    data = encode(command, PyLong_AsLongLong(<object>field(backlog, BACKLOG_NEXT)))
    if data is None:
        return False
    size = PyLong_AsLongLong(<object>field(backlog, BACKLOG_PENDING_SIZE)) + PyBytes_GET_SIZE(data)
    if size > MOST_SIZE:
        return False
    PyList_Append(pending, data)
    set_field(backlog, BACKLOG_PENDING_SIZE, size)
    add_to_field(backlog, BACKLOG_NEXT, 1)
    return True


cdef bint tell_command(object observer, object first, object command) except -1:
    """Tell one observer of a group of which it wants the one command and nothing else; false if it wants more."""
    cdef PyObject* function
    if type(observer) is _MethodType:
        function = PyMethod_GET_FUNCTION(observer)
        if function == <PyObject*>_recorder_observe:
            return record(<object>PyMethod_GET_SELF(observer), first, command)
        if function == <PyObject*>_backlog_observe:
            return keep(<object>PyMethod_GET_SELF(observer), command)
    return False


cdef int tell(object observer, object first, list group) except -1:
    if PyList_GET_SIZE(group) != 1 or not tell_command(
        observer, first, <object>PyTuple_GET_ITEM(<tuple>PyList_GET_ITEM(group, 0), 0)
    ):
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
        tell_all(tuple(observers), first, group, NULL)
    return 0


cdef int commit_change(object journal) except -1:
    """As ``commit`` of a group that is the change that is noted; nothing else is pending."""
    cdef Change change
    cdef object observers, first
    cdef Py_ssize_t count
    if field(journal, JOURNAL_FOLLOWS) != <PyObject*>_false:
        enter_change(<object>field(journal, PENDING))
        journal.commit()
        return 0
    change = CHANGE
    CHANGE.command = NULL
    observers = <object>field(journal, JOURNAL_OBSERVERS)
    count = PyList_GET_SIZE(observers)
    if count == 0:
        add_to_field(journal, JOURNAL_OFFSET, 1)
        return 0
    first = <object>field(journal, JOURNAL_OFFSET)
    add_to_field(journal, JOURNAL_OFFSET, 1)
    if count == 1:
        tell_of(<object>PyList_GET_ITEM(observers, 0), first, &change, None)
    else:
        tell_all(tuple(observers), first, None, &change)
    return 0


cdef list tell_of(object observer, object first, Change* change, list group):
    """Tell one observer of a change; the group that it is, if somebody wanted to see it by now."""
    if not tell_command(observer, first, <object>change.command):
        if group is None:
            group = [effect_of(change)]
        observer(first, group)
    return group


cdef int tell_all(tuple observers, object first, list group, Change* change) except -1:
    """Each observer hears of the group, or of the change, also if another one fails; the first failure is raised when
    all have heard."""
    cdef object failure = None
    for observer in observers:
        try:
            if change == NULL:
                tell(observer, first, group)
            else:
                group = tell_of(observer, first, change, group)
        except Exception as error:
            if failure is None:
                failure = error
    if failure is not None:
        raise failure
    return 0


def tell_observer(observer, first, list group):
    """Tell one observer of a group, as the compiled loop does. For tests."""
    tell(observer, first, group)
