# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Commands as arrays of bulk strings. Twin of ``kevynode.persist.records.encode_commands``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcpy

from .buffer cimport Buffer
from .objects cimport PyList_GET_SIZE

from ..persist.records import encode_commands as _encode_commands

cdef extern from "Python.h":
    ctypedef struct PyListObject:
        PyObject** ob_item
    ctypedef struct PyTupleObject:
        PyObject** ob_item
    Py_ssize_t PyTuple_GET_SIZE(object words) noexcept

# Words at most of a command that is encoded here, and bytes that the line of a number takes.
cdef Py_ssize_t MOST_WORDS = 16
cdef Py_ssize_t LINE = 24


cdef inline char* put_line(char* end, char kind, unsigned long long number) noexcept:
    """Write ``$5`` and the like with its line end; where it ends."""
    cdef char[24] digits
    cdef int place = 24
    end[0] = kind
    if number < 10:
        # What nearly all lengths and counts are, and the next.
        end[1] = <char>(48 + number)
        end += 2
    elif number < 100:
        end[1] = <char>(48 + number // 10)
        end[2] = <char>(48 + number % 10)
        end += 3
    else:
        end += 1
        while number:
            place -= 1
            digits[place] = <char>(48 + number % 10)
            number //= 10
        memcpy(end, &digits[place], 24 - place)
        end += 24 - place
    end[0] = 13
    end[1] = 10
    return end + 2


cdef bytes encode(object command, long long offset):
    """A command as an array of bulk strings, within a frame if ``offset`` is not negative; None if it is unusual."""
    cdef Py_ssize_t count, place
    cdef Py_ssize_t size = 0
    cdef PyObject* word
    cdef bytes made
    cdef char* start
    cdef char* end
    cdef PyObject** words
    if type(command) is list:
        count = PyList_GET_SIZE(command)
        words = &(<PyListObject*>command).ob_item[0]
    elif type(command) is tuple:
        count = PyTuple_GET_SIZE(command)
        words = &(<PyTupleObject*>command).ob_item[0]
    else:
        return None
    if count == 0 or count > MOST_WORDS:
        return None
    for place in range(count):
        word = words[place]
        if type(<object>word) is not bytes:
            return None
        size += PyBytes_GET_SIZE(<object>word)
    cdef Py_ssize_t room = size + (count + 3) * LINE + 2 * count
    cdef char[1024] small
    cdef bytes large = None
    if room <= 1024:
        start = small
    else:
        large = PyBytes_FromStringAndSize(NULL, room)
        start = PyBytes_AS_STRING(large)
    end = start
    if offset >= 0:
        memcpy(end, b"*2\r\n", 4)
        end = put_line(end + 4, 58, offset)
    end = put_line(end, 42, count)
    for place in range(count):
        word = words[place]
        size = PyBytes_GET_SIZE(<object>word)
        end = put_line(end, 36, size)
        memcpy(end, PyBytes_AS_STRING(<object>word), size)
        end += size
        end[0] = 13
        end[1] = 10
        end += 2
    made = PyBytes_FromStringAndSize(start, end - start)
    return made


def encode_commands(commands):
    """The records of ``commands``, each with at least one word, each by itself."""
    cdef Buffer out = Buffer()
    cdef bytes record
    for command in commands:
        record = encode(command, -1)
        out.write_bytes(_encode_commands((command,)) if record is None else record)
    return out.take()
