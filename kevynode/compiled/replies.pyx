# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Replies on the wire. Twin of ``kevynode.reply``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcpy

from .buffer cimport Buffer
from .objects cimport PyList_GET_ITEM, PyList_GET_SIZE, PyLong_AsLongLongAndOverflow, field, slot_offset

from .. import reply as _pure

cdef object _encode = _pure.encode
cdef object _Status = _pure.Status
cdef Py_ssize_t STATUS_WIRE = slot_offset(_pure.Status, "wire")
# Nested arrays that are followed here; what goes deeper is left to the twin.
cdef int DEEPEST = 8


cdef int write_reply(Buffer out, object reply, int protocol) except -1:
    cdef Py_ssize_t start = out.size
    if type(reply) is not list:
        return write_nested(out, reply, protocol, 0)
    try:
        return write_nested(out, reply, protocol, 0)
    except BaseException:
        # Something in it is no reply: nothing of it may be sent.
        out.size = start
        raise


cdef int write_nested(Buffer out, object reply, int protocol, int depth) except -1:
    cdef int overflow = 0
    cdef long long number
    cdef Py_ssize_t place
    cdef object kind = type(reply)
    if kind is bytes:
        out.write_bulk(<bytes>reply)
        return 0
    if kind is int:
        number = PyLong_AsLongLongAndOverflow(reply, &overflow)
        if not overflow:
            out.write_number(58, number)
            return 0
    elif kind is _Status:
        out.write_bytes(<bytes>field(reply, STATUS_WIRE))
        return 0
    elif reply is None:
        if protocol == 3:
            out.write(b"_\r\n", 3)
        else:
            out.write(b"$-1\r\n", 5)
        return 0
    elif kind is list and depth < DEEPEST:
        out.write_number(42, PyList_GET_SIZE(reply))
        place = 0
        while place < PyList_GET_SIZE(reply):
            write_nested(out, <object>PyList_GET_ITEM(reply, place), protocol, depth + 1)
            place += 1
        return 0
    out.write_bytes(_encode(reply, protocol))
    return 0


def encode(reply, int protocol):
    """The wire form of one reply; ``protocol`` is 2 or 3. Raises TypeError for what is no reply."""
    cdef Buffer out = Buffer()
    write_reply(out, reply, protocol)
    return out.take()


def encode_into(list out, reply, int protocol):
    """Append the wire form of a reply to ``out``. Raises TypeError for what is no reply; then nothing is appended."""
    out.append(encode(reply, protocol))
