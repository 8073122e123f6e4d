# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Frames of a replication stream in the form that every primary sends. Twin of the fast way of ``StreamDecoder``.

It looks at the bytes once, so arguments may hold line ends; whatever is not plainly well-formed and complete is left to
the exact way. Of SETs that follow each other only the places are noted: who applies them needs no lists of words.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append, PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport UINT32_MAX
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from .requests cimport small_number

from ..replicate.lineage import MAX_OFFSET

cdef unsigned long long LARGEST = MAX_OFFSET
# Words at most of a command that is taken here.
cdef Py_ssize_t MOST_WORDS = 1023


cdef class PlainSets:
    def __cinit__(self):
        self.places = NULL
        self.count = self.room = 0

    def __dealloc__(self):
        free(self.places)

    def __reduce__(self):
        raise TypeError("commands that stand in the bytes they came in cannot be pickled")

    def __len__(self):
        return self.count

    def __getitem__(self, which):
        cdef Py_ssize_t index
        if isinstance(which, slice):
            return [self.words(index) for index in range(*which.indices(self.count))]
        index = which
        if index < 0:
            index += self.count
        if not 0 <= index < self.count:
            raise IndexError("no such command")
        return self.words(index)

    def __iter__(self):
        cdef Py_ssize_t index
        for index in range(self.count):
            yield self.words(index)

    def __eq__(self, other):
        if not isinstance(other, (PlainSets, list)):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None

    cdef int append(self, Place* place) except -1:
        cdef Py_ssize_t room
        cdef Place* places
        if self.count == self.room:
            room = max(256, self.room * 2)
            places = <Place*>realloc(self.places, room * sizeof(Place))
            if places == NULL:
                raise MemoryError()
            self.places = places
            self.room = room
        self.places[self.count] = place[0]
        self.count += 1
        return 0

    cdef list words(self, Py_ssize_t index):
        cdef const char* text = PyBytes_AS_STRING(self.data)
        cdef Place* place = &self.places[index]
        return [
            b"SET",
            PyBytes_FromStringAndSize(text + place.key, place.key_size),
            PyBytes_FromStringAndSize(text + place.value, place.value_size),
        ]


cdef inline bint take_offset(const char* data, Py_ssize_t* place, Py_ssize_t end, unsigned long long* offset) noexcept:
    """Take the two lines that a frame begins with; whether they are there, in canonical form."""
    cdef Py_ssize_t at = place[0]
    cdef Py_ssize_t start
    cdef unsigned long long number = 0
    cdef int digit
    if end - at < 8 or memcmp(data + at, b"*2\r\n:", 5) != 0:
        return False
    at += 5
    start = at
    while at < end:
        digit = data[at] - 48
        if digit < 0 or digit > 9:
            break
        number = number * 10 + digit
        at += 1
        # Nineteen digits fit, whatever they are.
        if at - start > 19:
            return False
    if at == start or at + 1 >= end or data[at] != 13 or data[at + 1] != 10:
        return False
    if (data[start] == 48 and at - start > 1) or number > LARGEST:
        return False
    place[0] = at + 2
    offset[0] = number
    return True


cdef list take_words(const char* data, Py_ssize_t* place, Py_ssize_t end, Py_ssize_t bulk_limit, bytes name):
    """Take the command that starts at ``place``; None if it is unusual or incomplete. ``name`` is that of another one.

    Nothing larger than what has arrived is made.
    """
    cdef Py_ssize_t at = place[0]
    cdef Py_ssize_t count, size, index
    cdef object word
    cdef list words
    if at >= end or data[at] != 42:
        return None
    at += 1
    count = small_number(data, &at, end)
    # An argument takes five bytes at least.
    if count < 1 or count > MOST_WORDS or count * 5 > end - at:
        return None
    words = PyList_New(count)
    for index in range(count):
        if at >= end or data[at] != 36:
            return None
        at += 1
        size = small_number(data, &at, end)
        if size < 0 or size > bulk_limit or size > end - at - 2:
            return None
        if data[at + size] != 13 or data[at + size + 1] != 10:
            return None
        # Most commands have the name of the one before: the same object then.
        if index == 0 and PyBytes_GET_SIZE(name) == size and memcmp(PyBytes_AS_STRING(name), data + at, size) == 0:
            word = name
        else:
            word = PyBytes_FromStringAndSize(data + at, size)
        Py_INCREF(word)
        PyList_SET_ITEM(words, index, word)
        at += size + 2
    place[0] = at
    return words


cdef bint take_set(const char* data, Py_ssize_t* place, Py_ssize_t end, Py_ssize_t bulk_limit, Place* found) noexcept:
    """Note where the plain SET that starts at ``place`` has its words; whether there is one, complete.

    ``end`` is below the largest number that a place can be.
    """
    cdef Py_ssize_t at = place[0]
    cdef Py_ssize_t size
    if end - at < 14 or memcmp(data + at, b"*3\r\n$3\r\nSET\r\n$", 14) != 0:
        return False
    at += 14
    size = small_number(data, &at, end)
    if size < 0 or size > bulk_limit or size > end - at - 3:
        return False
    found.start = place[0]
    found.key = at
    found.key_size = size
    at += size
    if data[at] != 13 or data[at + 1] != 10 or data[at + 2] != 36:
        return False
    at += 3
    size = small_number(data, &at, end)
    if size < 0 or size > bulk_limit or size > end - at - 2:
        return False
    found.value = at
    found.value_size = size
    at += size
    if data[at] != 13 or data[at + 1] != 10:
        return False
    found.end = place[0] = at + 2
    return True


cdef PlainSets take_sets(
    bytes data, Py_ssize_t* place, Py_ssize_t limit, Py_ssize_t bulk_limit, unsigned long long* first
):
    """The plain SETs in frames at consecutive offsets from ``place`` on, at most ``limit`` of them."""
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t at = place[0]
    cdef unsigned long long offset = 0
    cdef PlainSets taken = PlainSets()
    cdef Place found
    taken.data = data
    if end > <Py_ssize_t>UINT32_MAX:
        return taken
    while taken.count < limit:
        at = place[0]
        if not take_offset(text, &at, end, &offset):
            break
        if taken.count == 0:
            first[0] = offset
        elif offset != first[0] + <unsigned long long>taken.count:
            break
        if not take_set(text, &at, end, bulk_limit, &found):
            break
        taken.append(&found)
        place[0] = at
    return taken


def take_frames(bytes data, Py_ssize_t place, Py_ssize_t limit, Py_ssize_t bulk_limit, bint grouped):
    """Take the commands of the plainly well-formed frames from ``data[place]`` on, at most ``limit`` of them.

    Their offsets are consecutive. Returns the first one, the place behind what was taken, and the commands: a list, or
    if all are SETs, and not ``grouped``, what stands for one as long as nobody changes it.
    """
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t at
    cdef unsigned long long offset = 0
    cdef unsigned long long first = 0
    cdef Py_ssize_t taken = 0
    cdef Py_ssize_t index
    cdef bytes name = b"SET"
    cdef list words
    cdef list commands = None
    cdef PlainSets sets = None
    if not grouped:
        sets = take_sets(data, &place, limit, bulk_limit, &first)
        taken = sets.count
    while taken < limit:
        at = place
        if not take_offset(text, &at, end, &offset):
            break
        if taken == 0:
            first = offset
        elif offset != first + <unsigned long long>taken:
            break
        words = take_words(text, &at, end, bulk_limit, name)
        if words is None:
            break
        if commands is None:
            commands = [] if sets is None else [sets.words(index) for index in range(sets.count)]
        name = <bytes>words[0]
        PyList_Append(commands, words)
        taken += 1
        place = at
    if commands is not None:
        return first, place, commands
    return first, place, [] if sets is None or sets.count == 0 else sets
