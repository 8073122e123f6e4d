# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The commands that are sent most, for the cases that come up most.

Each function is the twin of a handler in ``kevynode.store.commands`` for a key that is held, has no deadline, is not
shared with a snapshot, and whose accesses nobody tracks. Before it has changed anything it leaves every other case to
the handler itself.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_Append, PyList_GetSlice, PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from .effects cimport enter_change, note_change
from .objects cimport (
    PENDING,
    SHARD,
    SHARDED,
    STORE,
    PyDict_GetItemWithError,
    PyDict_Size,
    PyList_GET_ITEM,
    PyList_GET_SIZE,
    PyLong_AsLongLong,
    add_to_field,
    field,
    same_number,
    set_field,
    shard_of,
    slot_offset,
)
from .order cimport put_entry

from ..reply import OK
from ..store import notify
from ..store.blocks import ElementBlocks
from ..store.commands import hashes, lists, lists_reading, sets, sorted_sets, strings, strings_counters
from ..store.list_value import List
from ..store.sharded import ShardedDict
from ..store.sizes import PLACE_MEMORY
from ..store.sorted_set_value import SortedSet
from ..store.store import Store
from ..store.values import Hash, Set

cdef object _OK = OK
cdef object _STRING = notify.STRING
cdef object _HASH = notify.HASH
cdef object _LIST = notify.LIST
cdef object _SET = notify.SET
cdef object _ZSET = notify.ZSET

cdef object _get = strings.get
cdef object _set = strings.set_
cdef object _mget = strings.mget
cdef object _incr = strings_counters.incr
cdef object _hset = hashes.hset
cdef object _lpush = lists.lpush
cdef object _rpush = lists.rpush
cdef object _lrange = lists_reading.lrange
cdef object _sadd = sets.sadd
cdef object _zadd = sorted_sets.zadd

cdef object _Store = Store
cdef object _Hash = Hash
cdef object _List = List
cdef object _Set = Set
cdef object _SortedSet = SortedSet
cdef object _ShardedDict = ShardedDict
cdef object _ElementBlocks = ElementBlocks

cdef Py_ssize_t HASH_EPOCH = slot_offset(Hash, "epoch")
cdef Py_ssize_t HASH_FIELDS = slot_offset(Hash, "fields")
cdef Py_ssize_t HASH_DEADLINES = slot_offset(Hash, "deadlines")
cdef Py_ssize_t HASH_PAYLOAD = slot_offset(Hash, "payload")
cdef Py_ssize_t LIST_EPOCH = slot_offset(List, "epoch")
cdef Py_ssize_t LIST_ELEMENTS = slot_offset(List, "elements")
cdef Py_ssize_t SET_EPOCH = slot_offset(Set, "epoch")
cdef Py_ssize_t SET_MEMBERS = slot_offset(Set, "members")
cdef Py_ssize_t ZSET_EPOCH = slot_offset(SortedSet, "epoch")
cdef Py_ssize_t ZSET_SCORES = slot_offset(SortedSet, "scores")
cdef Py_ssize_t ZSET_ORDER = slot_offset(SortedSet, "order")


# -- what they share --------------------------------------------------------------------------------------------------


cdef inline Py_ssize_t memory_of(object value) noexcept:
    """As ``bytes_memory``."""
    return (PyBytes_GET_SIZE(value) + 48) & ~15


cdef inline PyObject* plain_value(object store, object keyspace, bytes key, PyObject** shard) except? NULL:
    """The value of a key without a deadline whose accesses nobody tracks; NULL if it is not that simple."""
    cdef PyObject* value
    cdef object deadlines
    shard[0] = shard_of(keyspace, key)
    value = PyDict_GetItemWithError(<object>shard[0], key)
    if value == NULL or field(store, STORE.tracker) != <PyObject*>None:
        return NULL
    deadlines = <object>field(<object>shard[0], SHARD.deadlines)
    if PyDict_Size(deadlines) and PyDict_GetItemWithError(deadlines, key) != NULL:
        return NULL
    return value


cdef inline PyObject* opened(object store, bytes key, object kind, Py_ssize_t epoch) except? NULL:
    """As ``Store.write`` for a container that is there and needs no copy; NULL if it is not that simple."""
    cdef PyObject* shard
    cdef PyObject* found = plain_value(store, <object>field(store, STORE.keyspace), key, &shard)
    cdef object value, touched, name
    if found == NULL or type(<object>found) is not kind:
        return NULL
    value = <object>found
    if not same_number(field(value, epoch), field(store, STORE.epoch)):
        return NULL
    touched = <object>field(store, STORE.touched)
    name = <size_t>found
    if PyDict_GetItemWithError(touched, name) == NULL:
        touched[name] = (value, value.memory())
    return found


cdef inline PyObject* in_table(object table, bytes key, PyObject** part) except? NULL:
    """What a table inside a container holds under a key, and the dict that holds it; NULL if it holds nothing."""
    if type(table) is _ShardedDict:
        part[0] = shard_of(table, key)
        if not same_number(field(<object>part[0], SHARD.epoch), field(table, SHARDED.epoch)):
            # A copy shares it: no place to write to.
            part[0] = NULL
            return NULL
    elif type(table) is dict:
        part[0] = <PyObject*>table
    else:
        part[0] = NULL
        return NULL
    return PyDict_GetItemWithError(<object>part[0], key)


# -- strings ----------------------------------------------------------------------------------------------------------


cdef object get(object store, list argv):
    cdef PyObject* shard
    cdef PyObject* value = plain_value(
        store, <object>field(store, STORE.keyspace), <bytes>PyList_GET_ITEM(argv, 1), &shard
    )
    if value != NULL and type(<object>value) is bytes:
        add_to_field(store, STORE.hits, 1)
        return <object>value
    return _get(store, argv)


cdef object set_(object store, list argv):
    cdef PyObject* shard
    cdef PyObject* old
    cdef bytes key
    cdef object value, keyspace
    if PyList_GET_SIZE(argv) == 3:
        key = <bytes>PyList_GET_ITEM(argv, 1)
        keyspace = <object>field(store, STORE.keyspace)
        old = plain_value(store, keyspace, key, &shard)
        if (
            old != NULL
            and type(<object>old) is bytes
            and same_number(field(<object>shard, SHARD.epoch), field(keyspace, SHARDED.epoch))
        ):
            value = <object>PyList_GET_ITEM(argv, 2)
            if PyBytes_GET_SIZE(<object>old) != PyBytes_GET_SIZE(value):
                add_to_field(store, STORE.used, memory_of(value) - memory_of(<object>old))
            PyDict_SetItem(<object>shard, key, value)
            note_change(argv, _STRING, b"set", key)
            return _OK
    return _set(store, argv)


cdef object mget(object store, list argv):
    cdef Py_ssize_t count = PyList_GET_SIZE(argv)
    cdef Py_ssize_t place
    cdef PyObject* shard
    cdef PyObject* value
    cdef object keyspace = <object>field(store, STORE.keyspace)
    cdef list found
    # In two goes: a key that is not plain leaves everything to the handler, which counts hits and misses.
    found = PyList_New(0)
    for place in range(1, count):
        value = plain_value(store, keyspace, <bytes>PyList_GET_ITEM(argv, place), &shard)
        if value == NULL or type(<object>value) is not bytes:
            return _mget(store, argv)
        PyList_Append(found, <object>value)
    add_to_field(store, STORE.hits, count - 1)
    return found


cdef object incr(object store, list argv):
    cdef PyObject* shard
    cdef bytes key = <bytes>PyList_GET_ITEM(argv, 1)
    cdef object keyspace = <object>field(store, STORE.keyspace)
    cdef PyObject* old = plain_value(store, keyspace, key, &shard)
    cdef const char* digits
    cdef Py_ssize_t size, place
    cdef long long total = 0
    cdef char[24] text
    cdef bytes fresh
    if (
        old == NULL
        or type(<object>old) is not bytes
        or not same_number(field(<object>shard, SHARD.epoch), field(keyspace, SHARDED.epoch))
    ):
        return _incr(store, argv)
    digits = PyBytes_AS_STRING(<object>old)
    size = PyBytes_GET_SIZE(<object>old)
    if size == 0 or size >= 18 or (digits[0] == 48 and size > 1):
        return _incr(store, argv)
    for place in range(size):
        if digits[place] < 48 or digits[place] > 57:
            return _incr(store, argv)
        total = total * 10 + (digits[place] - 48)
    total += 1
    reply = total
    place = 24
    while total:
        place -= 1
        text[place] = <char>(48 + total % 10)
        total //= 10
    fresh = PyBytes_FromStringAndSize(&text[place], 24 - place)
    if 24 - place != size:
        add_to_field(store, STORE.used, memory_of(fresh) - memory_of(<object>old))
    PyDict_SetItem(<object>shard, key, fresh)
    note_change(argv, _STRING, b"incrby", key)
    return reply


# -- containers -------------------------------------------------------------------------------------------------------


cdef object hset(object store, list argv):
    """One field that is there already; a new one changes what the hash knows of itself."""
    cdef bytes key, name
    cdef object value, content
    cdef PyObject* found
    cdef PyObject* part
    cdef PyObject* old
    if PyList_GET_SIZE(argv) == 4:
        key = <bytes>PyList_GET_ITEM(argv, 1)
        found = opened(store, key, _Hash, HASH_EPOCH)
        if found != NULL:
            value = <object>found
            name = <bytes>PyList_GET_ITEM(argv, 2)
            content = <object>PyList_GET_ITEM(argv, 3)
            if field(value, HASH_DEADLINES) == <PyObject*>None:
                old = in_table(<object>field(value, HASH_FIELDS), name, &part)
                if old != NULL:
                    if PyBytes_GET_SIZE(<object>old) != PyBytes_GET_SIZE(content):
                        add_to_field(value, HASH_PAYLOAD, memory_of(content) - memory_of(<object>old))
                    PyDict_SetItem(<object>part, name, content)
                    note_change(argv, _HASH, b"hset", key)
                    return 0
    return _hset(store, argv)


cdef object lpush(object store, list argv):
    cdef bytes key
    cdef PyObject* found
    if PyList_GET_SIZE(argv) == 3:
        key = <bytes>PyList_GET_ITEM(argv, 1)
        found = opened(store, key, _List, LIST_EPOCH)
        if found != NULL:
            size = (<object>found).push_left(<object>PyList_GET_ITEM(argv, 2))
            note_change(argv, _LIST, b"lpush", key)
            return size
    return _lpush(store, argv)


cdef object rpush(object store, list argv):
    cdef bytes key
    cdef PyObject* found
    if PyList_GET_SIZE(argv) == 3:
        key = <bytes>PyList_GET_ITEM(argv, 1)
        found = opened(store, key, _List, LIST_EPOCH)
        if found != NULL:
            size = (<object>found).push_right(<object>PyList_GET_ITEM(argv, 2))
            note_change(argv, _LIST, b"rpush", key)
            return size
    return _rpush(store, argv)


cdef inline Py_ssize_t small_index(bytes word) noexcept:
    """The number that an argument is if it has a few digits and nothing else, or -1."""
    cdef const char* digits = PyBytes_AS_STRING(word)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(word)
    cdef Py_ssize_t place
    cdef Py_ssize_t number = 0
    if size == 0 or size > 9 or (digits[0] == 48 and size > 1):
        return -1
    for place in range(size):
        if digits[place] < 48 or digits[place] > 57:
            return -1
        number = number * 10 + (digits[place] - 48)
    return number


cdef object lrange(object store, list argv):
    """From the head of a small list, or a place in it, on."""
    cdef Py_ssize_t start = small_index(<bytes>PyList_GET_ITEM(argv, 2))
    cdef Py_ssize_t stop = small_index(<bytes>PyList_GET_ITEM(argv, 3))
    cdef PyObject* shard
    cdef PyObject* found
    cdef object elements
    if start >= 0 and stop >= 0:
        found = plain_value(store, <object>field(store, STORE.keyspace), <bytes>PyList_GET_ITEM(argv, 1), &shard)
        if found != NULL and type(<object>found) is _List:
            elements = <object>field(<object>found, LIST_ELEMENTS)
            if type(elements) is list:
                add_to_field(store, STORE.hits, 1)
                return PyList_GetSlice(elements, start, stop + 1)
    return _lrange(store, argv)


cdef object sadd(object store, list argv):
    """One member that is there already."""
    cdef bytes key
    cdef PyObject* found
    cdef PyObject* part
    if PyList_GET_SIZE(argv) == 3:
        key = <bytes>PyList_GET_ITEM(argv, 1)
        found = opened(store, key, _Set, SET_EPOCH)
        if found != NULL:
            if in_table(<object>field(<object>found, SET_MEMBERS), <bytes>PyList_GET_ITEM(argv, 2), &part) != NULL:
                return 0
            if (<object>found).add(<object>PyList_GET_ITEM(argv, 2)):
                note_change(argv, _SET, b"sadd", key)
                return 1
            return 0
    return _sadd(store, argv)


cdef inline bint plain_score(bytes word, double* score) noexcept:
    """Whether an argument is a number in decimal digits that a double holds exactly, or nearly: 15 digits at most."""
    cdef const char* digits = PyBytes_AS_STRING(word)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(word)
    cdef Py_ssize_t place = 0
    cdef Py_ssize_t point = -1
    cdef double number = 0.0
    cdef double divisor = 1.0
    cdef bint negative = False
    if size and digits[0] == 45:
        negative = True
        place = 1
    if size - place > 16 or size == place or digits[size - 1] == 46 or digits[place] == 46:
        return False
    while place < size:
        if digits[place] == 46 and point < 0:
            point = place
        elif 48 <= digits[place] <= 57:
            number = number * 10.0 + (digits[place] - 48)
            if point >= 0:
                divisor *= 10.0
        else:
            return False
        place += 1
    if point < 0 and size - negative > 15:
        return False
    # Both are whole numbers that a double holds exactly, so the quotient is the nearest double there is.
    number /= divisor
    # Adding zero turns a negative zero into zero.
    score[0] = (-number if negative else number) + 0.0
    return True


cdef object zadd(object store, list argv):
    """One member, with a score in plain digits."""
    cdef bytes key, member
    cdef PyObject* found
    cdef PyObject* part
    cdef PyObject* old
    cdef double number
    cdef object value, score, outcome
    if PyList_GET_SIZE(argv) == 4:
        if plain_score(<bytes>PyList_GET_ITEM(argv, 2), &number):
            key = <bytes>PyList_GET_ITEM(argv, 1)
            found = opened(store, key, _SortedSet, ZSET_EPOCH)
            if found != NULL:
                value = <object>found
                member = <bytes>PyList_GET_ITEM(argv, 3)
                score = number
                old = in_table(<object>field(value, ZSET_SCORES), member, &part)
                if old != NULL:
                    if (<object>old) == score:
                        return 0
                    if put_entry(<object>field(value, ZSET_ORDER), <object>old, score, member):
                        PyDict_SetItem(<object>part, member, score)
                        note_change(argv, _ZSET, b"zadd", key)
                        return 0
                outcome = value.put(member, score)
                if outcome is None:
                    return 0
                note_change(argv, _ZSET, b"zadd", key)
                return 1 if outcome else 0
    return _zadd(store, argv)


# -- the table --------------------------------------------------------------------------------------------------------


cdef Handler twin_of(object handler) except? NULL:
    if handler is _get:
        return get
    if handler is _set:
        return set_
    if handler is _incr:
        return incr
    if handler is _mget:
        return mget
    if handler is _hset:
        return hset
    if handler is _lpush:
        return lpush
    if handler is _rpush:
        return rpush
    if handler is _lrange:
        return lrange
    if handler is _sadd:
        return sadd
    if handler is _zadd:
        return zadd
    return NULL


def call_twin(handler, store, list argv):
    """What the compiled twin of a handler answers; raises LookupError if it has none. For tests."""
    cdef Handler twin = twin_of(handler)
    if twin == NULL:
        raise LookupError(handler)
    if type(store) is not _Store:
        raise TypeError("the compiled commands serve nothing but a Store")
    answer = twin(store, argv)
    enter_change(<object>field(<object>field(store, STORE.journal), PENDING))
    return answer
