# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One round of the hub: look, read, run, answer. Twin of ``kevynode.serve.hub_rounds``. Linux only.

The system is called without a call into Python, and without letting go of the interpreter: nothing of it blocks.
"""

import os
from time import perf_counter

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append
from cpython.long cimport PyLong_AsLong
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

from .clocks cimport system_seconds
from .counts cimport count_output, count_sent, enter_counts
from .loop cimport run_turn
from .objects cimport (
    PyDict_GetItemWithError,
    PyList_GET_ITEM,
    PyList_GET_SIZE,
    PyObject_Size,
    field,
    set_field,
    slot_offset,
)

from ..serve.hub_connection import HubConnection
from ..serve.server import Server
from ..serve.session import Session

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object thing) noexcept
    void Py_SET_SIZE(object thing, Py_ssize_t size) noexcept

cdef extern from "sys/socket.h" nogil:
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int MSG_NOSIGNAL

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd

    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_wait(int epoll, epoll_event* events, int most, int timeout)
    int EPOLLIN

cdef object _true = True
cdef object _false = False
cdef object _perf_counter = perf_counter
cdef object _Session = Session
cdef object _Server = Server
cdef object _zero = 0
cdef Py_ssize_t FD = slot_offset(HubConnection, "fd")
cdef Py_ssize_t PLAIN = slot_offset(HubConnection, "plain")
cdef Py_ssize_t CLOSED = slot_offset(HubConnection, "closed")
cdef Py_ssize_t ENDED = slot_offset(HubConnection, "ended")
cdef Py_ssize_t SESSION = slot_offset(HubConnection, "session")
cdef Py_ssize_t OUTPUT = slot_offset(Session, "output")
cdef Py_ssize_t TRAFFIC = slot_offset(Session, "traffic")
cdef Py_ssize_t PRODUCED = slot_offset(Session, "produced")
cdef Py_ssize_t SERVER = slot_offset(Session, "server")
cdef Py_ssize_t STATISTICS = slot_offset(Server, "statistics")


cdef class Rounds:
    """Serves the ready sockets of one hub, as its twin does."""

    cdef object hub, connections, queue, timer, before_batch, answers
    cdef int epoll
    cdef bint is_system_clock
    cdef double turn
    cdef char* data
    cdef size_t size
    # What the last look has found, how many that is, and the first of them that had no turn yet.
    cdef epoll_event* events
    cdef int most, found, place
    cdef readonly Py_ssize_t looks

    def __cinit__(
        self, hub, connections, queue, epoll, timer, double turn, size_t size, int most, before_batch, answers
    ):
        self.hub = hub
        self.connections = connections
        self.queue = queue
        self.before_batch = before_batch
        self.answers = answers
        self.epoll = epoll.fileno()
        self.timer = timer
        self.is_system_clock = timer is _perf_counter
        self.turn = turn
        self.size = size
        self.most = most
        self.data = <char*>malloc(size)
        self.events = <epoll_event*>malloc(most * sizeof(epoll_event))
        if self.data == NULL or self.events == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.data)
        free(self.events)

    cdef inline double now(self) except? -1:
        return system_seconds() if self.is_system_clock else self.timer()

    @property
    def left(self):
        """How many sockets that the last look has found ready had no turn yet."""
        return self.found - self.place

    def look(self):
        """See which sockets are ready, and how many that are."""
        return self.find_ready()

    cdef int find_ready(self) except -1:
        cdef int found
        self.looks += 1
        found = epoll_wait(self.epoll, self.events, self.most, 0)
        while found < 0 and errno == EINTR:
            found = epoll_wait(self.epoll, self.events, self.most, 0)
        if found < 0:
            raise OSError(errno, os.strerror(errno))
        self.found = found
        self.place = 0
        return found

    def serve(self, double deadline):
        """Serve and answer what is left of the last look, then look again, and so on, until a look finds nobody, the
        deadline has passed, or somebody in the queue comes before the next look; whether the last look has found
        anybody."""
        cdef list answered, unsettled
        cdef double now = self.now()
        while self.place < self.found or self.find_ready():
            if self.before_batch is not None:
                self.before_batch(now)
            answered = []
            unsettled = []
            self.serve_into(answered, unsettled, deadline)
            self.answer_all(answered, unsettled)
            now = self.now()
            if self.place < self.found or PyObject_Size(self.queue) or now > deadline:
                return True
        return False

    def serve_sockets(self, double deadline):
        """Read and run for each socket that is left, until the deadline; two lists of connections: those that have
        nothing but answers, and those to settle."""
        cdef list answered = []
        cdef list unsettled = []
        self.serve_into(answered, unsettled, deadline)
        return answered, unsettled

    cdef int serve_into(self, list answered, list unsettled, double deadline) except -1:
        cdef object hub = self.hub
        cdef PyObject* found
        cdef object connection, session, descriptor
        cdef double now = self.now()
        cdef double ended
        cdef uint32_t mask
        cdef ssize_t size
        cdef int fd, failure
        cdef bint special
        while self.place < self.found:
            fd = self.events[self.place].data.fd
            mask = self.events[self.place].events
            self.place += 1
            descriptor = fd
            found = PyDict_GetItemWithError(self.connections, descriptor)
            if found == NULL or mask != <uint32_t>EPOLLIN or field(<object>found, PLAIN) != <PyObject*>_true:
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
            # When the turn ended, if the session has told by the clock that is ours.
            ended = -1.0
            try:
                if type(session) is _Session:
                    special = run_turn(session, self.data, size, now + self.turn, &ended)
                else:
                    session.receive(PyBytes_FromStringAndSize(self.data, size))
                    special = session.run(now + self.turn)
                if special:
                    unsettled.append(connection)
                else:
                    answered.append(connection)
            except Exception as error:
                hub.fail(connection, error)
            now = ended if ended >= 0.0 and self.is_system_clock else self.now()
            if now > deadline:
                break
        enter_counts()
        return 0

    def answer(self, list answered, list unsettled):
        """Once everybody had a turn: let leave what may, of those who have nothing but answers, and of the others."""
        self.answer_all(answered, unsettled)

    cdef int answer_all(self, list answered, list unsettled) except -1:
        cdef object hub = self.hub
        if self.answers is not None and not self.answers.before_answers():
            answered, unsettled = hub.sift(answered), hub.sift(unsettled)
        self.send_all(answered)
        for connection in unsettled:
            hub.settle(connection)
        return 0

    def send_answers(self, list answered):
        """Send what sessions have to say, one after the other."""
        self.send_all(answered)

    cdef int send_all(self, list answered) except -1:
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
                fd = PyLong_AsLong(<object>field(connection, FD))
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
        enter_counts()
        return 0


cdef bytes take_output(object session):
    """As ``Session.take_output``."""
    cdef object output, server
    cdef bytes data
    if type(session) is not _Session:
        return session.take_output()
    output = <object>field(session, OUTPUT)
    if PyList_GET_SIZE(output) == 1:
        data = <bytes>PyList_GET_ITEM(output, 0)
        if Py_REFCNT(output) == 2:
            # Nobody else has the list: it keeps its room for the next answer.
            Py_SET_SIZE(output, 0)
            Py_DECREF(data)
        else:
            set_field(session, OUTPUT, [])
    else:
        data = b"".join(output)
        set_field(session, OUTPUT, [])
    set_field(session, PRODUCED, _zero)
    count_output(<object>field(session, TRAFFIC), PyBytes_GET_SIZE(data))
    server = <object>field(session, SERVER)
    if type(server) is not _Server:
        raise TypeError("the compiled hub serves nothing but sessions of a Server")
    count_sent(<object>field(server, STATISTICS), PyBytes_GET_SIZE(data))
    return data
