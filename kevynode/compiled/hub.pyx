# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One round of the hub: read, run, answer. Twin of the methods of the same names in ``kevynode.serve.hub``. Linux only.

Sockets are read and written without a call into Python, and without letting go of the interpreter: they do not block.
"""

import os
from time import perf_counter

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from .loop cimport run_turn
from .objects cimport PyDict_GetItemWithError, PyList_GET_ITEM, PyList_GET_SIZE, add_to_field, field, set_field, slot_offset

from ..serve.hub_connection import HubConnection
from ..serve.session import Session

cdef extern from "sys/socket.h" nogil:
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int MSG_NOSIGNAL

cdef object _true = True
cdef object _false = False
cdef object _perf_counter = perf_counter
cdef object _Session = Session
cdef object _zero = 0
cdef Py_ssize_t PLAIN = slot_offset(HubConnection, "plain")
cdef Py_ssize_t CLOSED = slot_offset(HubConnection, "closed")
cdef Py_ssize_t ENDED = slot_offset(HubConnection, "ended")
cdef Py_ssize_t SESSION = slot_offset(HubConnection, "session")
cdef Py_ssize_t OUTPUT = slot_offset(Session, "output")
cdef Py_ssize_t OUTPUT_BYTES = slot_offset(Session, "output_bytes")
cdef Py_ssize_t PRODUCED = slot_offset(Session, "produced")
cdef Py_ssize_t SERVER = slot_offset(Session, "server")

# EPOLLIN.
cdef int READABLE = 1


cdef class Rounds:
    """Serves the ready sockets of one hub. ``size`` bytes are read from one socket in one turn."""

    cdef object hub, connections, timer
    cdef bint is_system_clock
    cdef double turn
    cdef char* data
    cdef size_t size

    def __cinit__(self, hub, connections, timer, double turn, size_t size):
        self.hub = hub
        self.connections = connections
        self.timer = timer
        self.is_system_clock = timer is _perf_counter
        self.turn = turn
        self.size = size
        self.data = <char*>malloc(size)
        if self.data == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.data)

    cdef inline double now(self) except? -1:
        cdef timespec moment
        if self.is_system_clock:
            clock_gettime(CLOCK_MONOTONIC, &moment)
            return <double>moment.tv_sec + <double>moment.tv_nsec * 1e-9
        return self.timer()

    def serve_sockets(self, list events, double deadline):
        """Read and run for each of ``events`` until the deadline; how many had their turn, and two lists of
        connections: those that have nothing but answers, and those to settle."""
        cdef object hub = self.hub
        cdef list answered = []
        cdef list unsettled = []
        cdef Py_ssize_t served = 0
        cdef PyObject* found
        cdef object connection, session
        cdef double now = self.now()
        cdef ssize_t size
        cdef int failure
        cdef bint special
        for fd, mask in events:
            served += 1
            found = PyDict_GetItemWithError(self.connections, fd)
            if found == NULL or mask != READABLE or field(<object>found, PLAIN) != <PyObject*>_true:
                connection = None if found == NULL else <object>found
                if hub.serve_other(fd, connection, mask, now + self.turn):
                    unsettled.append(connection)
                now = self.now()
                if now > deadline:
                    break
                continue
            connection = <object>found
            size = recv(fd, self.data, self.size, 0)
            while size < 0 and errno == EINTR:
                size = recv(fd, self.data, self.size, 0)
            if size < 0:
                # What is called below may set it anew.
                failure = errno
                # Nothing to read: an event for a predecessor with this descriptor.
                if failure != EAGAIN:
                    hub.lost(connection, OSError(failure, os.strerror(failure)))
                continue
            if size == 0:
                connection.ended = True
                unsettled.append(connection)
                continue
            session = <object>field(connection, SESSION)
            try:
                if type(session) is _Session:
                    special = run_turn(session, self.data, size, now + self.turn)
                else:
                    session.receive(PyBytes_FromStringAndSize(self.data, size))
                    special = session.run(now + self.turn)
                if special:
                    unsettled.append(connection)
                else:
                    answered.append(connection)
            except Exception as error:
                hub.fail(connection, error)
            now = self.now()
            if now > deadline:
                break
        return served, answered, unsettled

    def send_answers(self, list answered):
        """Send what sessions have to say, one after the other."""
        cdef object connection, session, data
        cdef ssize_t sent
        cdef Py_ssize_t size
        cdef int fd, failure
        for connection in answered:
            if field(connection, CLOSED) == <PyObject*>_true:
                continue
            session = <object>field(connection, SESSION)
            try:
                data = take_output(session)
                size = PyBytes_GET_SIZE(data)
                if size == 0:
                    continue
                fd = connection.fd
                sent = send(fd, PyBytes_AS_STRING(data), size, MSG_NOSIGNAL)
                while sent < 0 and errno == EINTR:
                    sent = send(fd, PyBytes_AS_STRING(data), size, MSG_NOSIGNAL)
                if sent < 0:
                    failure = errno
                    if failure == EAGAIN:
                        sent = 0
                    else:
                        connection.lose(OSError(failure, os.strerror(failure)))
                        sent = size
                if sent != size or field(connection, ENDED) == <PyObject*>_true:
                    connection.keep(memoryview(data)[sent:])
                    self.hub.settle(connection)
            except Exception as error:
                self.hub.fail(connection, error)


cdef bytes take_output(object session):
    """As ``Session.take_output``."""
    cdef object output, server, statistics
    cdef bytes data
    if type(session) is not _Session:
        return session.take_output()
    output = <object>field(session, OUTPUT)
    if PyList_GET_SIZE(output) == 1:
        data = <bytes>PyList_GET_ITEM(output, 0)
    else:
        data = b"".join(output)
    set_field(session, OUTPUT, [])
    set_field(session, PRODUCED, _zero)
    add_to_field(session, OUTPUT_BYTES, PyBytes_GET_SIZE(data))
    statistics = (<object>field(session, SERVER)).statistics
    statistics.output_bytes += PyBytes_GET_SIZE(data)
    return data
