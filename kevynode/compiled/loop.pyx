# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loop over the commands of one session. Twin of ``kevynode.serve.loop``, which says why it is as it is.

What it does beside its twin: it can take commands straight from the bytes that were read, and it looks a command up
only if another one came before.
"""

from time import get_clock_info, perf_counter

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append
from cpython.object cimport PyObject
from cpython.set cimport PySet_Add
from cpython.tuple cimport PyTuple_GET_ITEM

from .buffer cimport Buffer
from .clocks cimport system_seconds
from .commands cimport Handler, twin_of
from .counts cimport count_call, count_commands, count_input, count_received, enter_counts
from .effects cimport CHANGE, enter_change
from .objects cimport (
    PENDING,
    STORE,
    PyDict_Size,
    PyList_GET_ITEM,
    PyList_GET_SIZE,
    PyLong_AsLongLong,
    PyObject_Size,
    field,
    set_field,
    slot_offset,
)
from .observers cimport commit, commit_change
from .replies cimport write_reply
from .requests cimport take_command

from .. import errors as _errors
from ..resp import RequestParser
from ..serve import dispatch as _dispatch
from ..serve.loop import PENDING_OUTPUT, TURN_OUTPUT
from ..serve.roles import Roles
from ..serve.session import MOST_WRITTEN_KEYS, Session
from ..store.command import Command
from ..store.journal import Journal
from ..store.store import Store

cdef object _false = False
cdef object _true = True
cdef object _zero = 0
# The timer that may be read without asking Python; on some systems it is another clock than C's.
cdef object _perf_counter = (
    perf_counter if get_clock_info("perf_counter").implementation == "clock_gettime(CLOCK_MONOTONIC)" else None
)
cdef object _Session = Session
# Known when the first session comes: their module needs this one.
cdef object _Server = None
cdef object _Store = Store
cdef object _Journal = Journal
cdef object _Command = Command
cdef object _ReplyError = _errors.ReplyError
cdef Py_ssize_t MOST_OUTPUT = TURN_OUTPUT
cdef Py_ssize_t MOST_PENDING = PENDING_OUTPUT
cdef Py_ssize_t JOURNAL_OFFSET = slot_offset(Journal, "offset")
cdef Py_ssize_t WAITING = slot_offset(Session, "waiting")
cdef Py_ssize_t PAUSED = slot_offset(Session, "paused")
cdef Py_ssize_t CLOSING = slot_offset(Session, "closing")
cdef Py_ssize_t PRODUCED = slot_offset(Session, "produced")
cdef Py_ssize_t OUTPUT = slot_offset(Session, "output")
cdef Py_ssize_t OUTPUT_PENDING = slot_offset(Session, "output_pending")
cdef Py_ssize_t PROTOCOL = slot_offset(Session, "protocol")
cdef Py_ssize_t PARSER = slot_offset(Session, "parser")
cdef Py_ssize_t LAST_ACTIVE = slot_offset(Session, "last_active")
cdef Py_ssize_t LAST_COMMAND = slot_offset(Session, "last_command")
cdef Py_ssize_t WROTE = slot_offset(Session, "wrote")
cdef Py_ssize_t WRITTEN = slot_offset(Session, "written")
cdef Py_ssize_t WAIT_FULFILLED = slot_offset(Session, "wait_fulfilled")
cdef Py_ssize_t MOST_KEYS = MOST_WRITTEN_KEYS
cdef Py_ssize_t TURN = slot_offset(Session, "turn")
cdef Py_ssize_t NEEDED = slot_offset(Roles, "needed_by_every_command")
cdef Py_ssize_t TRACKS_WRITTEN_KEYS = slot_offset(Roles, "_tracks_written_keys")
cdef Py_ssize_t CURRENT, SLOW_AFTER, STATISTICS
cdef Py_ssize_t FACTS = slot_offset(Command, "facts")
cdef Py_ssize_t HANDLER = slot_offset(Command, "handler")
cdef Py_ssize_t IS_PLAIN = slot_offset(RequestParser, "plain")
cdef Py_ssize_t BULK_LIMIT = slot_offset(RequestParser, "bulk_limit")

cdef extern from "Python.h":
    Py_ssize_t PySet_GET_SIZE(object members) noexcept

# A buffer for the output of a turn that nobody uses now: turns do not nest, save through what a command calls.
cdef Buffer _spare = None
# What a buffer may keep for the next turn.
cdef Py_ssize_t KEPT_ROOM = 1 << 20


cdef class Facts:
    pass


cdef Facts facts_of(object command):
    if type(command) is not _Command:
        raise TypeError("the compiled loop runs nothing but a Command")
    cdef object noted = <object>field(command, FACTS)
    cdef Facts facts
    if type(noted) is Facts:
        facts = <Facts>noted
        if <PyObject*>facts.handler == field(command, HANDLER):
            return facts
    facts = Facts()
    facts.command = command
    facts.handler = command.handler
    facts.twin = twin_of(command.handler)
    facts.fewest = command.fewest
    facts.most = command.most
    facts.plain = command.plain
    facts.writes_second_word = command.writes_second_word
    command.facts = facts
    return facts


cdef inline double seconds(object perf, bint is_system) except? -1:
    """What ``perf`` says; where that is the system's clock, without asking Python."""
    return system_seconds() if is_system else perf()


cdef int know_server(object server) except -1:
    """Find the places of a server's fields. Raises TypeError for what is no server."""
    global _Server, CURRENT, SLOW_AFTER, STATISTICS
    if _Server is None:
        from ..serve.server import Server

        CURRENT = slot_offset(Server, "current")
        SLOW_AFTER = slot_offset(Server, "slow_after")
        STATISTICS = slot_offset(Server, "statistics")
        _Server = Server
    if type(server) is not _Server:
        raise TypeError("the compiled loop serves nothing but a session of a Server")
    return 0


# The last table that was made: all sessions ask for the same one.
cdef bytes _last_marks = b""
cdef bytes _last_table = bytes(256)


cdef bytes table_of(bytes marks):
    """256 bytes, of which those are 1 that stand at the places of ``marks``."""
    global _last_marks, _last_table
    if marks != _last_marks:
        _last_table = bytes([mark in marks for mark in range(256)])
        _last_marks = marks
    return _last_table


cdef class Turn:
    """The loop of one session, with what every command needs at hand.

    It lives as long as the session, which holds it. It holds the session only while that runs: both, with all that was
    read from a client, would otherwise stay in memory until somebody looks for cyclic garbage.
    """

    def __cinit__(self, session):
        server = session.server
        know_server(server)
        self.session = None
        self.server = server
        self.queue = session.queue
        self.gates = session.gates
        self.server_gates = server.gates
        self.held_pushes = session.held_pushes
        self.perf = server.perf
        self.traffic = session.traffic
        self.is_system_clock = self.perf is _perf_counter
        self.out = None

    cdef int look_up_anew(self) except -1:
        """Take what the server says that every command needs; a command that takes the careful way may change it."""
        cdef object needed = <object>field(self.server, NEEDED)
        if needed is self.needed:
            return 0
        store, journal, self.ready, self.find, guard = needed
        if type(store) is not _Store or type(journal) is not _Journal:
            raise TypeError("the compiled loop serves nothing but a Store with its Journal")
        self.store, self.journal = store, journal
        place, marks, self.guard_cut, self.guard_heads, self.guard_is_kept = guard
        self.guard_place = place
        self.guarded = bool(marks)
        self.marked = table_of(marks)
        self.needed = needed
        # The last command may be another one now, or none.
        self.last_name = None
        return 0

    cdef bint is_free(self) except -1:
        """As ``Session.is_free``."""
        cdef object session = self.session
        cdef Py_ssize_t behind
        cdef PyObject* produced = field(session, PRODUCED)
        cdef PyObject* pending = field(session, OUTPUT_PENDING)
        if (
            field(session, WAITING) != <PyObject*>None
            or field(session, PAUSED) != <PyObject*>_false
            or field(session, CLOSING) != <PyObject*>_false
        ):
            return False
        if produced == <PyObject*>_zero and pending == <PyObject*>_zero:
            return True
        behind = PyLong_AsLongLong(<object>produced)
        behind += PyLong_AsLongLong(<object>pending)
        return behind <= MOST_PENDING

    cdef int flush(self) except -1:
        """Hand over what has been collected: replies, statistics, sizes of containers, the session's last write."""
        cdef object session = self.session
        cdef Py_ssize_t size = self.out.size
        cdef PyObject* offset
        if size:
            PyList_Append(<object>field(session, OUTPUT), self.out.take())
            self.flushed += size
        if self.calls:
            count_commands(self.traffic, self.calls)
            self.calls = 0
        if PyDict_Size(<object>field(self.store, STORE.touched)):
            self.store.settle()
        offset = field(self.journal, JOURNAL_OFFSET)
        if offset != <PyObject*>self.noted:
            self.noted = <object>offset
            set_field(session, WROTE, self.noted)
        return 0

    cdef int note_written(self) except -1:
        """Have the session note which keys the group that is pending has written."""
        cdef object session = self.session
        cdef list group = <list>field(self.journal, PENDING)
        cdef object written = <object>field(session, WRITTEN)
        cdef object key
        if written is None and field(session, WAIT_FULFILLED) == <PyObject*>_false:
            # Too many to be known.
            return 0
        if (
            PyList_GET_SIZE(group) == 1
            and field(session, WAIT_FULFILLED) == <PyObject*>_false
            and type(written) is set
            and PySet_GET_SIZE(written) < MOST_KEYS
        ):
            key = <object>PyTuple_GET_ITEM(<tuple>PyList_GET_ITEM(group, 0), 1)
            if key is not None:
                PySet_Add(written, key)
                return 0
        session.note_written(group)
        return 0

    cdef int careful(self, list argv) except -1:
        """Take a command the careful way."""
        cdef object session = self.session
        cdef object output
        cdef Py_ssize_t start, place
        self.flush()
        output = <object>field(session, OUTPUT)
        start = PyList_GET_SIZE(output)
        self.special = True
        # It notes itself as the last command, or the subcommand that it stands for.
        if self.counted is not None:
            set_field(session, LAST_COMMAND, (<Facts>self.counted).command)
            self.counted = None
        enter_counts()
        _dispatch.process(session, argv)
        self.noted = <object>field(self.journal, JOURNAL_OFFSET)
        output = <object>field(session, OUTPUT)
        for place in range(start, PyList_GET_SIZE(output)):
            self.flushed += PyBytes_GET_SIZE(<object>PyList_GET_ITEM(output, place))
        # It may have closed or opened the node, or a scope, for writes, or changed the protocol.
        self.look_up_anew()
        self.protocol = PyLong_AsLongLong(<object>field(session, PROTOCOL))
        self.now = seconds(self.perf, self.is_system_clock)
        return 0

    cdef inline bint is_kept(self, bytes key) except -1:
        """Whether the guard says that a key may not be written here."""
        return (
            self.guard_place < PyBytes_GET_SIZE(key)
            and PyBytes_AS_STRING(self.marked)[<unsigned char>PyBytes_AS_STRING(key)[self.guard_place]]
            and key[self.guard_cut] in self.guard_heads
            and self.guard_is_kept(key)
        )

    cdef object call(self, Facts facts, list argv):
        """What the handler answers; what it raises becomes an error reply."""
        try:
            if facts.twin != NULL:
                return facts.twin(self.store, argv)
            return facts.handler(self.store, argv)
        except _ReplyError as error:
            facts.command.failed += 1
            self.server.count_error(error)
            return error
        except Exception as error:
            return self.server.unexpected(facts.command.name, error)

    cdef bint run_commands(self, const char* data, Py_ssize_t* place, Py_ssize_t size) except -1:
        """Whether it broke off before everything had run."""
        cdef Facts facts = None
        cdef list argv
        cdef Py_ssize_t count
        cdef PyObject* name
        cdef double before, elapsed
        cdef object reply, command
        cdef object queue = self.queue
        cdef Py_ssize_t limit = PyLong_AsLongLong(<object>field(self.parser, BULK_LIMIT)) if size else 0
        while True:
            if PyObject_Size(queue):
                argv = queue.popleft()
            elif place[0] < size:
                argv = take_command(data, place, size, limit)
                if argv is None:
                    return False
            else:
                return False
            count = PyList_GET_SIZE(argv)
            if count:
                name = PyList_GET_ITEM(argv, 0)
                if name != <PyObject*>self.last_name:
                    command = self.find(<object>name)
                    facts = None if command is None else facts_of(command)
                    self.last_name = <object>name
                    self.last_facts = facts
                else:
                    facts = <Facts>self.last_facts
            else:
                facts = None
            if (
                facts is None
                or not facts.plain
                or PySet_GET_SIZE(self.gates)
                or PySet_GET_SIZE(self.server_gates)
                or count < facts.fewest
                or count > facts.most
                or (self.guarded and facts.writes_second_word and self.is_kept(<bytes>PyList_GET_ITEM(argv, 1)))
            ):
                self.careful(argv)
                if (
                    self.now > self.deadline
                    or self.flushed > MOST_OUTPUT
                    or not self.is_free()
                    or field(self.parser, IS_PLAIN) != <PyObject*>_true
                ):
                    return True
                continue
            if facts is not self.counted:
                self.counted = facts
            reply = self.call(facts, argv)
            if CHANGE.command != NULL:
                if self.tracks_written_keys or PyList_GET_SIZE(<object>field(self.journal, PENDING)):
                    enter_change(<object>field(self.journal, PENDING))
                else:
                    commit_change(self.journal)
            if PyList_GET_SIZE(<object>field(self.journal, PENDING)):
                if self.tracks_written_keys:
                    self.note_written()
                commit(self.journal)
            write_reply(self.out, reply, self.protocol)
            before = self.now
            self.now = seconds(self.perf, self.is_system_clock)
            elapsed = self.now - before
            self.calls += 1
            count_call(facts.command, elapsed)
            if elapsed > self.slow_after and self.server.on_slow is not None:
                self.server.on_slow(self.session, argv, elapsed)
            if PyDict_Size(self.ready):
                self.flush()
                self.server.waiters.serve()
                self.noted = <object>field(self.journal, JOURNAL_OFFSET)
            if PyList_GET_SIZE(self.held_pushes):
                self.flush()
                self.session.release_pushes()
            if self.now > self.deadline or self.flushed + self.out.size > MOST_OUTPUT:
                return True

    cdef bint run(self, const char* data, Py_ssize_t* place, Py_ssize_t size) except -1:
        """Whether it broke off before everything had run."""
        global _spare
        cdef object session = self.session
        cdef object server = self.server
        cdef object now
        cdef bint stopped
        self.look_up_anew()
        self.slow_after = <object>field(server, SLOW_AFTER)
        self.tracks_written_keys = <object>field(server, TRACKS_WRITTEN_KEYS)
        self.protocol = PyLong_AsLongLong(<object>field(session, PROTOCOL))
        self.parser = <object>field(session, PARSER)
        self.noted = <object>field(self.journal, JOURNAL_OFFSET)
        self.counted = None
        self.calls = 0
        self.flushed = 0
        self.now = seconds(self.perf, self.is_system_clock)
        now = self.now
        set_field(session, LAST_ACTIVE, now)
        set_field(server, CURRENT, session)
        self.out = _spare if _spare is not None else Buffer()
        _spare = None
        try:
            stopped = self.run_commands(data, place, size)
        finally:
            set_field(server, CURRENT, None)
            if self.counted is not None:
                set_field(session, LAST_COMMAND, (<Facts>self.counted).command)
            self.flush()
            if self.out.room <= KEPT_ROOM:
                _spare = self.out
            self.out = None
        return stopped

    cdef bint take(
        self, object session, const char* data, Py_ssize_t size, double deadline, double* ended
    ) except -1:
        """Run what is queued, and then what ``data`` holds; whether the driver has to look at the session."""
        if self.session is not None:
            raise RuntimeError("a session cannot run within its own turn")
        cdef bint special
        self.session = session
        # As long as nothing has run.
        self.now = -1.0
        try:
            special = self.take_turn(data, size, deadline)
            if self.is_system_clock:
                ended[0] = self.now
            return special
        finally:
            self.session = None

    cdef bint take_turn(self, const char* data, Py_ssize_t size, double deadline) except -1:
        """As ``take``, of the session that is there."""
        cdef object session = self.session
        cdef object queue = self.queue
        cdef Py_ssize_t place = 0
        cdef Py_ssize_t total
        cdef bint stopped
        self.special = False
        self.deadline = deadline
        cdef bint is_free = self.is_free()
        if size and (
            not is_free
            or PyObject_Size(queue)
            or PySet_GET_SIZE(self.gates)
            or field(<object>field(session, PARSER), IS_PLAIN) != <PyObject*>_true
        ):
            session.receive(PyBytes_FromStringAndSize(data, size))
            size = 0
            is_free = self.is_free()
        if not is_free:
            return True
        if size == 0 and not PyObject_Size(queue):
            return False
        stopped = self.run(data, &place, size)
        total = self.flushed
        if field(session, CLOSING) != <PyObject*>_false:
            # What follows was read, and is not looked at any more.
            place = size
        if place:
            count_input(self.traffic, place)
            count_received(<object>field(self.server, STATISTICS), place)
        if place < size:
            # Incomplete, unusual or wrong; or there was no time left for it.
            session.receive(PyBytes_FromStringAndSize(data + place, size - place))
            if not stopped and PyObject_Size(queue) and self.is_free():
                place = 0
                self.run(NULL, &place, 0)
                total += self.flushed
        if self.special or total > MOST_OUTPUT:
            session.measure_output()
            return PyObject_Size(queue) > 0 or not self.is_free()
        return PyObject_Size(queue) > 0


cdef bint run_turn(object session, const char* data, Py_ssize_t size, double deadline, double* ended) except -1:
    if type(session) is not _Session:
        raise TypeError("the compiled loop serves nothing but a Session")
    cdef object turn = <object>field(session, TURN)
    if turn is None:
        turn = Turn(session)
        set_field(session, TURN, turn)
    return (<Turn>turn).take(session, data, size, deadline, ended)


def run_commands(session, double deadline):
    """As ``kevynode.serve.loop.run_commands``."""
    cdef double ended
    try:
        return run_turn(session, NULL, 0, deadline, &ended)
    finally:
        enter_counts()


def receive_and_run(session, bytes data, double deadline):
    """What ``receive`` and ``run_commands`` come to together: what the hub does with the bytes it has read."""
    cdef double ended
    try:
        return run_turn(session, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), deadline, &ended)
    finally:
        enter_counts()
