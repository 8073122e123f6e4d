"""The one change that the twin of a handler has just made, until whoever called it has entered or committed it.

The journal's groups are lists of tuples, and the group of nearly every write is one change of which nobody wants more
than the command: neither the append-only file nor the backlog looks at keys and events. So a change is noted here, at no
cost, and becomes an effect only where somebody wants one.

What is noted is borrowed: the command and the key from whoever runs it, the flag and the name from the twin's module. No
Python runs between a note and the moment when it is taken, so it belongs to the store that it was made in, whichever
threads there are. A twin that raises has noted nothing.
"""

from cpython.object cimport PyObject
from cpython.list cimport PyList_Append


cdef struct Change:
    # NULL while nothing is noted.
    PyObject* command
    PyObject* flag
    PyObject* name
    PyObject* key


cdef Change CHANGE


cdef inline void note_change(list command, object flag, bytes name, bytes key) noexcept:
    CHANGE.command = <PyObject*>command
    CHANGE.flag = <PyObject*>flag
    CHANGE.name = <PyObject*>name
    CHANGE.key = <PyObject*>key


# A change as the effect that the pure handler would have emitted.
cdef inline tuple effect_of(Change* change):
    cdef object key = <object>change.key
    return (<object>change.command, key, ((<object>change.flag, <object>change.name, key),))


# Put what is noted, if anything is, into a group, as the pure handler would have done.
cdef inline int enter_change(object group) except -1:
    cdef Change change = CHANGE
    if change.command != NULL:
        CHANGE.command = NULL
        PyList_Append(group, effect_of(&change))
    return 0
