"""Frames of a replication stream in the form that every primary sends."""

from libc.stdint cimport uint32_t


# Where a SET stands in the bytes that it came in: the array of its words, key, value, and the end.
cdef struct Place:
    uint32_t start, key, key_size, value, value_size, end


# SETs as they came: words are made of them where somebody wants some.
cdef class PlainSets:
    cdef bytes data
    cdef Place* places
    cdef Py_ssize_t count
    cdef Py_ssize_t room

    cdef int append(self, Place* place) except -1
    cdef list words(self, Py_ssize_t index)
