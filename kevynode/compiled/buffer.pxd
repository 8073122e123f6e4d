"""Bytes that grow at their end."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport realloc
from libc.string cimport memcpy


cdef class Buffer:
    cdef char* data
    cdef Py_ssize_t size
    cdef Py_ssize_t room

    cdef int grow(self, Py_ssize_t more) except -1

    # Have room for ``more`` bytes behind the end.
    cdef inline int reserve(self, Py_ssize_t more) except -1:
        if self.size + more > self.room:
            self.grow(more)
        return 0

    cdef inline int write(self, const char* source, Py_ssize_t size) except -1:
        self.reserve(size)
        memcpy(self.data + self.size, source, size)
        self.size += size
        return 0

    cdef inline int write_bytes(self, bytes source) except -1:
        return self.write(PyBytes_AS_STRING(source), PyBytes_GET_SIZE(source))

    # A line of the protocol that is one byte and a number: ``$5``, ``:-1``, ``*3``.
    cdef inline int write_number(self, char kind, long long number) except -1:
        cdef char[32] digits
        cdef int place = 32
        cdef unsigned long long rest
        cdef char* end
        self.reserve(32)
        end = self.data + self.size
        end[0] = kind
        end += 1
        if 0 <= number < 10:
            end[0] = <char>(48 + number)
            end += 1
        else:
            if number < 0:
                end[0] = 45
                end += 1
                rest = 0 - <unsigned long long>number
            else:
                rest = <unsigned long long>number
            while rest:
                place -= 1
                digits[place] = <char>(48 + rest % 10)
                rest //= 10
            memcpy(end, &digits[place], 32 - place)
            end += 32 - place
        end[0] = 13
        end[1] = 10
        self.size = end + 2 - self.data
        return 0

    cdef inline int write_bulk(self, bytes value) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
        self.write_number(36, size)
        self.reserve(size + 2)
        cdef char* end = self.data + self.size
        memcpy(end, PyBytes_AS_STRING(value), size)
        end[size] = 13
        end[size + 1] = 10
        self.size += size + 2
        return 0

    # What is in it; it is empty afterwards.
    cdef inline bytes take(self):
        cdef bytes taken = PyBytes_FromStringAndSize(self.data, self.size)
        self.size = 0
        return taken
