"""What is counted for each command and each read, and entered into the statistics once for many of them.

It has to be entered before anybody can ask: ahead of commands that take the careful way, and by whoever ran turns.
"""

cdef class Traffic:
    cdef public long long commands_run, input_bytes, output_bytes


# Count for a connection; its traffic may also be the pure twin.
cdef inline int count_commands(object traffic, Py_ssize_t count) except -1:
    if type(traffic) is Traffic:
        (<Traffic>traffic).commands_run += count
    else:
        traffic.commands_run += count
    return 0


cdef inline int count_input(object traffic, Py_ssize_t size) except -1:
    if type(traffic) is Traffic:
        (<Traffic>traffic).input_bytes += size
    else:
        traffic.input_bytes += size
    return 0


cdef inline int count_output(object traffic, Py_ssize_t size) except -1:
    if type(traffic) is Traffic:
        (<Traffic>traffic).output_bytes += size
    else:
        traffic.output_bytes += size
    return 0


# A command has run, and took so many seconds.
cdef int count_call(object command, double seconds) except -1

# So many bytes came from, or went to, a client of the server whose statistics these are.
cdef int count_received(object statistics, Py_ssize_t size) except -1
cdef int count_sent(object statistics, Py_ssize_t size) except -1

# Enter all of it.
cdef int enter_counts() except -1
