"""Who hears of every write, for what nearly every write is."""

# Tell one observer of the journal of a group; as calling it.
cdef int tell(object observer, object first, list group) except -1

# Close the open group of a journal; as ``Journal.commit`` without an offset.
cdef int commit(object journal) except -1

# Close the group of the change that is noted (effects.pxd), where nothing else is pending.
cdef int commit_change(object journal) except -1
