# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What a follower does with the entries that it applies: each is a group of the journal, and observers hear of it.

Twins of what ``Follower._apply_run`` comes to. Where nobody listens but the recorder of the append-only file, and that
has nothing to say but the entries themselves, its records are made of the commands at once, without effects.
"""

from types import MethodType

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject

from .apply cimport Run, begin_run, end_run, is_plain_set, put_string
from .buffer cimport Buffer
from .frames cimport Place, PlainSets
from .objects cimport (
    PENDING,
    STORE,
    PyList_GET_ITEM,
    PyList_GET_SIZE,
    PyLong_AsLongLong,
    add_to_field,
    field,
    set_field,
    slot_offset,
)
from .observers cimport tell

from ..persist.recorder import JournalRecorder
from ..store.journal import Journal
from ..store.store import Store

cdef object _MethodType = MethodType
cdef object _JournalRecorder = JournalRecorder
cdef object _Journal = Journal
cdef object _Store = Store
cdef object _observe = JournalRecorder.observe
cdef object _true = True
cdef object _false = False

cdef Py_ssize_t JOURNAL_OFFSET = slot_offset(Journal, "offset")
cdef Py_ssize_t JOURNAL_ORIGIN = slot_offset(Journal, "origin")
cdef Py_ssize_t JOURNAL_OBSERVERS = slot_offset(Journal, "observers")
cdef Py_ssize_t RECORDER_JOURNAL = slot_offset(JournalRecorder, "_journal")
cdef Py_ssize_t RECORDER_OFFSET = slot_offset(JournalRecorder, "offset")
cdef Py_ssize_t RECORDER_MARK = slot_offset(JournalRecorder, "mark")
cdef Py_ssize_t RECORDER_RECORDS = slot_offset(JournalRecorder, "_records")
cdef Py_ssize_t RECORDER_CURSORS = slot_offset(JournalRecorder, "cursors")
cdef Py_ssize_t RECORDER_NEXT_CURSOR = slot_offset(JournalRecorder, "next_cursor")
cdef Py_ssize_t RECORDER_PLAIN_ORIGIN = slot_offset(JournalRecorder, "_plain_origin")
cdef Py_ssize_t RECORDER_PARTS = slot_offset(JournalRecorder, "_parts")

# Bytes of records that are handed over at once, and so many that they are a piece of the file by themselves.
cdef Py_ssize_t PIECE = 1 << 16
cdef Py_ssize_t SMALL_PIECE = 1 << 13

cdef Buffer _records = Buffer()

cdef extern from "Python.h":
    PyObject* PyMethod_GET_FUNCTION(object method) noexcept
    PyObject* PyMethod_GET_SELF(object method) noexcept


cdef enum Listening:
    # Somebody who has to be told of each effect; nobody; a recorder that keeps nothing, or every entry as it is.
    SOMEBODY, NOBODY, COUNTS, KEEPS


cdef Listening listening(object journal, PyObject** recorder) except *:
    """Who hears of the journal's next group, an entry of the origin that is set."""
    cdef object observers = <object>field(journal, JOURNAL_OBSERVERS)
    cdef object observer, listener, origin
    if PyList_GET_SIZE(observers) == 0:
        return NOBODY
    observer = <object>PyList_GET_ITEM(observers, 0)
    if (
        PyList_GET_SIZE(observers) > 1
        or type(observer) is not _MethodType
        or PyMethod_GET_FUNCTION(observer) != <PyObject*>_observe
    ):
        return SOMEBODY
    recorder[0] = PyMethod_GET_SELF(observer)
    listener = <object>recorder[0]
    origin = <object>field(journal, JOURNAL_ORIGIN)
    if (
        field(listener, RECORDER_JOURNAL) != <PyObject*>journal
        or field(listener, RECORDER_NEXT_CURSOR) != <PyObject*>None
        or <object>field(listener, RECORDER_OFFSET) != <object>field(journal, JOURNAL_OFFSET)
    ):
        return SOMEBODY
    if field(listener, RECORDER_RECORDS) == <PyObject*>_true:
        # Not before it has said who made the entries that follow.
        return KEEPS if field(listener, RECORDER_PLAIN_ORIGIN) == <PyObject*>origin else SOMEBODY
    if field(listener, RECORDER_RECORDS) != <PyObject*>_false:
        return SOMEBODY
    if origin is not None and origin.upstream in <object>field(listener, RECORDER_CURSORS):
        return SOMEBODY
    return COUNTS


cdef int keep_records(object recorder) except -1:
    """Hand what has been written to the recorder, as a piece of the file if it is large."""
    cdef Py_ssize_t size = _records.size
    if size:
        (<object>field(recorder, RECORDER_PARTS)).append(_records.take())
        if size >= SMALL_PIECE:
            recorder.end_piece()
    return 0


def put_entries(store, commands, Py_ssize_t place, Py_ssize_t stop):
    """Apply the plain SETs among ``commands`` from index ``place`` up to ``stop``, each as a group of its own.

    The journal counts them, one offset for each, and its observers know of them. Returns the index of the first command
    that was not applied; that is ``place`` where somebody listens who has to be told of effects.
    """
    cdef object journal, recorder
    cdef PyObject* listener = NULL
    cdef Py_ssize_t first = place
    cdef Listening who
    cdef Run run
    if type(store) is not _Store:
        raise TypeError("the compiled parts apply nothing but to a Store")
    if type(commands) is not PlainSets and type(commands) is not list:
        return place
    stop = min(stop, len(commands))
    journal = <object>field(store, STORE.journal)
    if type(journal) is not _Journal or PyList_GET_SIZE(<object>field(journal, PENDING)):
        return place
    who = listening(journal, &listener)
    recorder = None if listener == NULL else <object>listener
    if who == SOMEBODY or not begin_run(store, &run):
        return place
    try:
        if type(commands) is list:
            put_listed(&run, <list>commands, &place, stop, who == KEEPS, recorder)
        else:
            put_placed(&run, <PlainSets>commands, &place, stop, who == KEEPS, recorder)
    finally:
        end_run(store, &run)
        if place > first:
            add_to_field(journal, JOURNAL_OFFSET, place - first)
            if who != NOBODY:
                set_field(recorder, RECORDER_OFFSET, <object>field(journal, JOURNAL_OFFSET))
                add_to_field(recorder, RECORDER_MARK, place - first)
            if who == KEEPS:
                keep_records(recorder)
    return place


cdef int put_listed(Run* run, list commands, Py_ssize_t* place, Py_ssize_t stop, bint keeps, recorder) except -1:
    """Apply SETs that are lists of words; ``place`` is then behind them."""
    cdef object command, key, value
    while place[0] < stop:
        command = <object>PyList_GET_ITEM(commands, place[0])
        if not is_plain_set(command):
            break
        key = <object>PyList_GET_ITEM(command, 1)
        value = <object>PyList_GET_ITEM(command, 2)
        if keeps:
            # Room first: what has been applied is written down.
            _records.reserve(PyBytes_GET_SIZE(key) + PyBytes_GET_SIZE(value) + 96)
        if not put_string(run, key, value):
            break
        place[0] += 1
        if keeps:
            _records.write(b"*3\r\n$3\r\nSET\r\n", 13)
            _records.write_bulk(<bytes>key)
            _records.write_bulk(<bytes>value)
            if _records.size >= PIECE:
                keep_records(recorder)
    return 0


cdef int put_placed(Run* run, PlainSets sets, Py_ssize_t* place, Py_ssize_t stop, bint keeps, recorder) except -1:
    """As :func:`put_listed`, of SETs that stand in the bytes they came in, which are their records, too."""
    cdef const char* text = PyBytes_AS_STRING(sets.data)
    cdef Place* found
    cdef bytes key, value
    while place[0] < stop:
        found = &sets.places[place[0]]
        key = PyBytes_FromStringAndSize(text + found.key, found.key_size)
        value = PyBytes_FromStringAndSize(text + found.value, found.value_size)
        if keeps:
            _records.reserve(found.end - found.start)
        if not put_string(run, key, value):
            break
        place[0] += 1
        if keeps:
            _records.write(text + found.start, found.end - found.start)
            if _records.size >= PIECE:
                keep_records(recorder)
    return 0


def commit_each(journal, list effects, first, failed):
    """Commit effects, each as a group of its own, as ``Journal.commit`` with an offset; ``first`` is the first one's.

    ``failed`` is called for each group that not all observers could be told of, with what the first of them raised.
    """
    cdef Py_ssize_t place
    cdef object told, failure
    cdef list group
    for place in range(PyList_GET_SIZE(effects)):
        group = [<object>PyList_GET_ITEM(effects, place)]
        told = journal.offset
        journal.offset = first + place + 1
        journal.pending = []
        failure = None
        for observer in tuple(journal.observers):
            try:
                tell(observer, told, group)
            except Exception as error:
                if failure is None:
                    failure = error
        if failure is not None:
            failed(failure)
