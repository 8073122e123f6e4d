"""The commands that are sent most, for the cases that come up most."""

# A handler: as in Python, (store, argv) -> reply; the store is of the class Store itself. If it makes a change here, and
# not in the pure handler, that is noted (effects.pxd) and not yet pending: whoever calls it has to see to that.
ctypedef object (*Handler)(object store, list argv)

# The compiled twin of a handler of the command table; NULL if it has none.
cdef Handler twin_of(object handler) except? NULL
