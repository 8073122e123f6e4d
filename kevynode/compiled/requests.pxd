"""Requests in the form that every client library sends."""

# Take the command that starts at ``place``; None if it is not plainly well-formed or not complete.
cdef list take_command(const char* data, Py_ssize_t* place, Py_ssize_t end, Py_ssize_t bulk_limit)


# The number of at most ten digits that ends a line, in canonical form; -1 for anything else.
cdef inline Py_ssize_t small_number(const char* data, Py_ssize_t* place, Py_ssize_t end) noexcept:
    cdef Py_ssize_t at = place[0]
    cdef Py_ssize_t start = at
    cdef Py_ssize_t number = 0
    cdef int digit
    while at < end:
        digit = data[at] - 48
        if digit < 0 or digit > 9:
            break
        number = number * 10 + digit
        at += 1
        if at - start > 10:
            return -1
    if at == start or at + 1 >= end or data[at] != 13 or data[at + 1] != 10:
        return -1
    if data[start] == 48 and at - start > 1:
        return -1
    place[0] = at + 2
    return number
