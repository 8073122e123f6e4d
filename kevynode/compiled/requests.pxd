"""Requests in the form that every client library sends."""

# Take the command that starts at ``place``; None if it is not plainly well-formed or not complete.
cdef list take_command(const char* data, Py_ssize_t* place, Py_ssize_t end, Py_ssize_t bulk_limit)
