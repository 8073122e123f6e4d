# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bytes that grow at their end."""

from libc.stdlib cimport free, realloc



cdef class Buffer:
    def __cinit__(self):
        self.data = NULL
        self.size = self.room = 0

    def __dealloc__(self):
        free(self.data)

    cdef int grow(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t room = max(self.room * 2, self.size + more, 4096)
        cdef char* data = <char*>realloc(self.data, room)
        if data == NULL:
            raise MemoryError()
        self.data = data
        self.room = room
        return 0
