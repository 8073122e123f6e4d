# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Requests in the form that every client library sends: arrays of bulk strings. Twin of ``kevynode.resp.take_plain``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.string cimport memcmp

# Words at most of a command that is taken here.
cdef Py_ssize_t MOST_WORDS = 1023
# Words of a command whose places are noted when it is looked whether it is complete.
cdef enum:
    NOTED = 16
# The names of commands that came last, by length and first and last letter: most names come again and again.
cdef list _names = [None] * 256
cdef Py_ssize_t LONGEST_NAME = 16


cdef inline bytes _name(const char* word, Py_ssize_t size):
    """The first word of a command: the same object for the same bytes, as a rule."""
    if size == 0 or size > LONGEST_NAME:
        return PyBytes_FromStringAndSize(word, size)
    cdef Py_ssize_t slot = (size * 31 + word[0] * 7 + word[size - 1] + word[size >> 1] * 3) & 255
    held = _names[slot]
    cdef bytes name
    if held is not None:
        name = <bytes>held
        if PyBytes_GET_SIZE(name) == size and memcmp(PyBytes_AS_STRING(name), word, size) == 0:
            return name
    name = PyBytes_FromStringAndSize(word, size)
    _names[slot] = name
    return name


cdef list take_command(const char* data, Py_ssize_t* place, Py_ssize_t end, Py_ssize_t bulk_limit):
    cdef Py_ssize_t at = place[0]
    cdef Py_ssize_t count, size, index
    cdef Py_ssize_t[NOTED] starts
    cdef Py_ssize_t[NOTED] sizes
    cdef object word
    if at >= end or data[at] != 42:
        return None
    at += 1
    count = small_number(data, &at, end)
    if count < 1 or count > MOST_WORDS:
        return None
    # Whether it is complete is found out before anything is made.
    for index in range(count):
        if at >= end or data[at] != 36:
            return None
        at += 1
        size = small_number(data, &at, end)
        if size < 0 or size > bulk_limit or size > end - at - 2:
            return None
        if index < NOTED:
            starts[index] = at
            sizes[index] = size
        at += size
        if data[at] != 13 or data[at + 1] != 10:
            return None
        at += 2
    cdef list words = PyList_New(count)
    for index in range(count):
        if index < NOTED:
            at = starts[index]
            size = sizes[index]
        else:
            at += 1
            size = small_number(data, &at, end)
        if index:
            word = PyBytes_FromStringAndSize(data + at, size)
        else:
            word = _name(data + at, size)
        Py_INCREF(word)
        PyList_SET_ITEM(words, index, word)
        at += size + 2
    place[0] = at
    return words


def take_plain(bytes data, list commands, Py_ssize_t bulk_limit):
    """Append the plainly well-formed commands at the start of ``data`` to ``commands``; the bytes not taken."""
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t place = 0
    cdef list words
    while place < end:
        words = take_command(text, &place, end, bulk_limit)
        if words is None:
            break
        commands.append(words)
    if place == 0:
        return data
    return PyBytes_FromStringAndSize(text + place, end - place)
