"""The order inside a sorted set."""

# Move a member from its old score to another one; False if that is not simple, and then nothing has changed.
cdef bint put_entry(object order, object old, object score, bytes member) except -1
