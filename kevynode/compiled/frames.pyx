# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Frames of a replication stream in the form that every primary sends. Twin of the fast way of ``StreamDecoder``.

It looks at the bytes once, so arguments may hold line ends; whatever is not plainly well-formed and complete is left to
the exact way.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append, PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.string cimport memcmp

from .requests cimport small_number

from ..replicate.lineage import MAX_OFFSET

cdef unsigned long long LARGEST = MAX_OFFSET
# Words at most of a command that is taken here.
cdef Py_ssize_t MOST_WORDS = 1023


cdef inline bint take_offset(const char* data, Py_ssize_t* place, Py_ssize_t end, unsigned long long* offset) noexcept:
    """Take the two lines that a frame begins with; whether they are there, in canonical form."""
    cdef Py_ssize_t at = place[0]
    cdef Py_ssize_t start
    cdef unsigned long long number = 0
    cdef int digit
    if end - at < 8 or memcmp(data + at, b"*2\r\n:", 5) != 0:
        return False
    at += 5
    start = at
    while at < end:
        digit = data[at] - 48
        if digit < 0 or digit > 9:
            break
        number = number * 10 + digit
        at += 1
        # Nineteen digits fit, whatever they are.
        if at - start > 19:
            return False
    if at == start or at + 1 >= end or data[at] != 13 or data[at + 1] != 10:
        return False
    if (data[start] == 48 and at - start > 1) or number > LARGEST:
        return False
    place[0] = at + 2
    offset[0] = number
    return True


cdef list take_words(const char* data, Py_ssize_t* place, Py_ssize_t end, Py_ssize_t bulk_limit, bytes name):
    """Take the command that starts at ``place``; None if it is unusual or incomplete. ``name`` is that of another one.

    Nothing larger than what has arrived is made.
    """
    cdef Py_ssize_t at = place[0]
    cdef Py_ssize_t count, size, index
    cdef object word
    cdef list words
    if at >= end or data[at] != 42:
        return None
    at += 1
    count = small_number(data, &at, end)
    # An argument takes five bytes at least.
    if count < 1 or count > MOST_WORDS or count * 5 > end - at:
        return None
    words = PyList_New(count)
    for index in range(count):
        if at >= end or data[at] != 36:
            return None
        at += 1
        size = small_number(data, &at, end)
        if size < 0 or size > bulk_limit or size > end - at - 2:
            return None
        if data[at + size] != 13 or data[at + size + 1] != 10:
            return None
        # Most commands have the name of the one before: the same object then.
        if index == 0 and PyBytes_GET_SIZE(name) == size and memcmp(PyBytes_AS_STRING(name), data + at, size) == 0:
            word = name
        else:
            word = PyBytes_FromStringAndSize(data + at, size)
        Py_INCREF(word)
        PyList_SET_ITEM(words, index, word)
        at += size + 2
    place[0] = at
    return words


def take_frames(bytes data, Py_ssize_t place, Py_ssize_t limit, list commands, Py_ssize_t bulk_limit):
    """Append the commands of the plainly well-formed frames from ``data[place]`` on, at most ``limit`` of them.

    Their offsets are consecutive. Returns the first one, and the place behind what was taken.
    """
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t at
    cdef unsigned long long offset = 0
    cdef unsigned long long first = 0
    cdef Py_ssize_t taken = 0
    cdef bytes name = b"SET"
    cdef list words
    while taken < limit:
        at = place
        if not take_offset(text, &at, end, &offset):
            break
        if taken == 0:
            first = offset
        elif offset != first + <unsigned long long>taken:
            break
        words = take_words(text, &at, end, bulk_limit, name)
        if words is None:
            break
        name = <bytes>words[0]
        PyList_Append(commands, words)
        taken += 1
        place = at
    return first, place
