"""The loop over the commands of one session."""

from .buffer cimport Buffer
from .commands cimport Handler


cdef class Facts:
    """What the loop asks of a command, as C numbers."""

    cdef object command
    cdef object handler
    cdef Handler twin
    cdef Py_ssize_t fewest
    cdef Py_ssize_t most
    cdef bint plain
    cdef bint writes_second_word


cdef class Turn:
    # None while the session does not run.
    cdef object session
    # What stays the same.
    cdef object server, traffic, queue, gates, server_gates, held_pushes, perf
    cdef bint is_system_clock
    # What the server says that every command needs, and its parts.
    cdef object needed, store, journal, ready, find, guard_cut, guard_heads, guard_is_kept
    cdef Py_ssize_t guard_place
    # For each byte whether a key that has it at the guard's place may be one that is not written here.
    cdef bytes marked
    cdef bint guarded
    # What holds for one run.
    cdef bint special, tracks_written_keys
    cdef double deadline, now, slow_after
    cdef int protocol
    cdef object parser
    cdef Buffer out
    # Bytes that were put into the session's output, beside those in ``out``.
    cdef Py_ssize_t flushed
    # The command that came last, and the one that ran last without being noted in the session.
    cdef object last_name, last_facts, counted
    # Commands that are not counted in the session yet.
    cdef Py_ssize_t calls
    # Where the journal stood when the session's last write was noted.
    cdef object noted

    cdef int look_up_anew(self) except -1
    cdef bint is_free(self) except -1
    cdef int note_written(self) except -1
    cdef int flush(self) except -1
    cdef int careful(self, list argv) except -1
    cdef bint is_kept(self, bytes key) except -1
    cdef object call(self, Facts facts, list argv)
    cdef bint run_commands(self, const char* data, Py_ssize_t* place, Py_ssize_t size) except -1
    cdef bint run(self, const char* data, Py_ssize_t* place, Py_ssize_t size) except -1
    cdef bint take(
        self, object session, const char* data, Py_ssize_t size, double deadline, double* ended
    ) except -1
    cdef bint take_turn(self, const char* data, Py_ssize_t size, double deadline) except -1


# Run what is queued, and then what ``data`` holds; true if the driver has to look at the session. Whoever calls it
# enters the counts in the end. ``ended`` gets the time of the last command's end, if the session's clock is the
# system's; it is left alone otherwise.
cdef bint run_turn(object session, const char* data, Py_ssize_t size, double deadline, double* ended) except -1
