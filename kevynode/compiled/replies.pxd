"""Replies on the wire."""

from .buffer cimport Buffer

# Append the wire form of a reply; ``protocol`` is 2 or 3.
cdef int write_reply(Buffer out, object reply, int protocol) except -1
