"""Commands as arrays of bulk strings."""

# A command as a record, within a frame if ``offset`` is not negative; None if it is unusual.
cdef bytes encode(object command, long long offset)
