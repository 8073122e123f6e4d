# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is counted for each command and each read, and entered into the statistics once for many of them.

Clients send the same command again and again, and to one server. Nothing here calls into Python, so what is counted
belongs to what it is counted for, whichever threads there are.
"""

from .objects cimport add_to_field, field, set_field, slot_offset

from ..serve.statistics import Statistics
from ..store.command import Command

cdef object _Command = Command
cdef object _Statistics = Statistics
cdef Py_ssize_t CALLS = slot_offset(Command, "calls")
cdef Py_ssize_t SECONDS = slot_offset(Command, "seconds")
cdef Py_ssize_t INPUT_BYTES = slot_offset(Statistics, "input_bytes")
cdef Py_ssize_t OUTPUT_BYTES = slot_offset(Statistics, "output_bytes")

# What has not been entered: calls of one command, and bytes of one server.
cdef object _command = None
cdef Py_ssize_t _calls = 0
cdef double _spent = 0.0
cdef object _statistics = None
cdef Py_ssize_t _received = 0
cdef Py_ssize_t _sent = 0


cdef class Traffic:
    """What is counted for one connection. Twin of ``kevynode.serve.traffic.Traffic``."""


cdef int count_call(object command, double seconds) except -1:
    global _command, _calls, _spent
    if command is not _command:
        if type(command) is not _Command:
            raise TypeError("only calls of a Command are counted")
        enter_counts()
        _command = command
    _calls += 1
    _spent += seconds
    return 0


cdef int count_for(object statistics) except -1:
    """Bytes that are counted from now on are of this server."""
    global _statistics
    if type(statistics) is not _Statistics:
        raise TypeError("bytes are counted only for Statistics")
    enter_counts()
    _statistics = statistics
    return 0


cdef int count_received(object statistics, Py_ssize_t size) except -1:
    global _received
    if statistics is not _statistics:
        count_for(statistics)
    _received += size
    return 0


cdef int count_sent(object statistics, Py_ssize_t size) except -1:
    global _sent
    if statistics is not _statistics:
        count_for(statistics)
    _sent += size
    return 0


cdef int enter_counts() except -1:
    global _calls, _spent, _received, _sent
    if _calls:
        add_to_field(_command, CALLS, _calls)
        set_field(_command, SECONDS, <object>field(_command, SECONDS) + _spent)
        _calls = 0
        _spent = 0.0
    if _received:
        add_to_field(_statistics, INPUT_BYTES, _received)
        _received = 0
    if _sent:
        add_to_field(_statistics, OUTPUT_BYTES, _sent)
        _sent = 0
    return 0
