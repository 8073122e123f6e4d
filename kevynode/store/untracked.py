"""Objects that the collector of cyclic garbage need not look at.

A look at young objects is short because there are few of them. A shard is one object, and holds a thousand keys and
values that are looked at one by one: after a hundred shards were copied, or built, the next look takes ten
milliseconds, in which nobody is served. Nothing under a key ever refers to its shard, so there is no cycle that it
could be a part of, and counting references frees it in time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

__all__ = ["untrack"]


def _nothing(_: object) -> None:
    """Leave it to the collector: another interpreter has a collector of its own kind."""


def _find() -> Callable[[object], None]:
    try:
        function = ctypes.pythonapi.PyObject_GC_UnTrack
    except AttributeError:
        return _nothing
    function.argtypes = [ctypes.py_object]
    function.restype = None
    return function


#: Have the collector pass over an object that is part of no cycle. What refers to it, and what it refers to, is looked
#: at as before.
untrack: Callable[[object], None] = _find()
