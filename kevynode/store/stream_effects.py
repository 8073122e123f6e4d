"""The commands that change streams, as a stream of changes brings them; clients have none of them.

A handler takes ``(store, argv, wall)``, where ``wall`` is the time in unix ms: ``store.now`` is no help here, because
it stands at 0 while changes from elsewhere are applied. Every handler understands the whole of Valkey's command, the
parts that depend on the time included, and emits what came of it in a form that does not: explicit ids and counts.
``~`` trims exactly and LIMIT bounds nothing, as in kevy. ENTRIESREAD is checked and not kept: a snapshot has no place
for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from .. import errors
from . import notify
from .arguments import INT64_MAX, parse_int
from .command import Args
from .journal import Event
from .store import Store
from .stream_values import ID_LIMIT, ZERO, EntryId, Group, Stream, format_id

__all__ = ["STREAM_HANDLERS", "StreamHandler"]

#: (store, argv, unix ms) -> None; raises ReplyError and has changed nothing then.
StreamHandler: TypeAlias = Callable[[Store, Args, int], None]

_BAD_ID = errors.ErrorKind("ERR", "Invalid stream ID specified as stream command argument", errors.FIX)
_ZERO_ID = errors.ErrorKind("ERR", "The ID specified in XADD must be greater than 0-0", errors.FIX)
_LOW_ID = errors.ErrorKind(
    "ERR", "The ID specified in XADD is equal or smaller than the target stream top item", errors.FIX
)
_EXHAUSTED = errors.ErrorKind(
    "ERR", "The stream has exhausted the last possible ID, unable to add more items", errors.FIX
)
_NEGATIVE_LENGTH = errors.ErrorKind("ERR", "The MAXLEN argument must be >= 0.", errors.FIX)
_TWO_TRIMS = errors.ErrorKind(
    "ERR", "syntax error, MAXLEN and MINID options at the same time are not compatible", errors.FIX
)
_BELOW_DELETED = errors.ErrorKind(
    "ERR", "The ID specified in XSETID is smaller than current max_deleted_entry_id", errors.FIX
)
_BELOW_GIVEN_DELETED = errors.ErrorKind(
    "ERR", "The ID specified in XSETID is smaller than the provided max_deleted_entry_id", errors.FIX
)
_BELOW_TOP = errors.ErrorKind(
    "ERR", "The ID specified in XSETID is smaller than the target stream top item", errors.FIX
)
_TOO_FEW_ADDED = errors.ErrorKind(
    "ERR", "The entries_added specified in XSETID is smaller than the target stream length", errors.FIX
)
_NEGATIVE_ADDED = errors.ErrorKind("ERR", "entries_added must be positive", errors.FIX)
_BAD_READ = errors.ErrorKind("ERR", "value for ENTRIESREAD must be positive or -1", errors.FIX)
_NO_STREAM = errors.ErrorKind(
    "ERR",
    "The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to "
    "create an empty stream automatically.",
    errors.FIX,
)
_GROUP_EXISTS = errors.ErrorKind("BUSYGROUP", "Consumer Group name already exists", errors.FIX)
_NO_GROUP = errors.ErrorKind("NOGROUP", "No such consumer group '{}' for key name '{}'", errors.FIX)
_NO_KEY_OR_GROUP = errors.ErrorKind("NOGROUP", "No such key '{}' or consumer group '{}'", errors.FIX)
_BAD_OPTION = errors.ErrorKind("ERR", "Unrecognized XCLAIM option '{}'", errors.FIX)


def _parse_id(data: bytes) -> EntryId:
    """``ms-seq`` or ``ms``, which stands for ``ms-0``."""
    milliseconds, dash, sequence = data.partition(b"-")
    return _part(milliseconds), _part(sequence) if dash else 0


def _part(digits: bytes) -> int:
    if digits.isdigit() and len(digits) <= 20:
        number = int(digits)
        if number < ID_LIMIT:
            return number
    raise _BAD_ID()


def _event(name: bytes, key: bytes) -> Event:
    return notify.STREAM, name, key


# -- entries ----------------------------------------------------------------------------------------------------------


def _add(store: Store, argv: Args, wall: int) -> None:
    """XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT count]] id field value [field value ...]"""
    key = argv[1]
    trim, make, place = _parse_add_options(argv)
    fields = tuple(argv[place + 1 :])
    if not fields or len(fields) % 2:
        raise errors.WRONG_ARITY("xadd")
    old = store.lookup_as(key, Stream)
    if old is None and not make:
        return
    entry_id = _new_id(argv[place], ZERO if old is None else old.last_id, wall)
    value = store.write_or_create(key, Stream)
    value.append(entry_id, fields)
    store.emit((b"XADD", key, format_id(entry_id), *fields), key, _event(b"xadd", key))
    if trim is not None:
        _trim_to(store, key, value, trim)


def _parse_add_options(argv: Args) -> tuple[int | EntryId | None, bool, int]:
    """What XADD trims to, whether it may make the stream, and the place of the id."""
    trim: int | EntryId | None = None
    make = True
    place = 2
    while place < len(argv):
        word = argv[place].upper()
        if word == b"NOMKSTREAM":
            make = False
            place += 1
        elif word in (b"MAXLEN", b"MINID"):
            if trim is not None:
                raise _TWO_TRIMS()
            trim, place = _parse_trim(argv, place)
        else:
            return trim, make, place
    raise errors.WRONG_ARITY("xadd")


def _parse_trim(argv: Args, place: int) -> tuple[int | EntryId, int]:
    """The length or the lowest id that is to stay, from ``MAXLEN|MINID`` at ``place``, and the place behind it."""
    by_length = argv[place].upper() == b"MAXLEN"
    place += 1
    if place < len(argv) and argv[place] in (b"=", b"~"):
        place += 1
    if place >= len(argv):
        raise errors.SYNTAX()
    threshold: int | EntryId
    if by_length:
        threshold = parse_int(argv[place])
        if threshold < 0:
            raise _NEGATIVE_LENGTH()
    else:
        threshold = _parse_id(argv[place])
    place += 1
    if place + 1 < len(argv) and argv[place].upper() == b"LIMIT":
        parse_int(argv[place + 1])
        place += 2
    return threshold, place


def _new_id(data: bytes, last: EntryId, wall: int) -> EntryId:
    """The id that ``data`` (``ms-seq``, ``ms-*`` or ``*``) means for a new entry behind ``last``."""
    if last == (ID_LIMIT - 1, ID_LIMIT - 1):
        raise _EXHAUSTED()
    following = (last[0], last[1] + 1) if last[1] + 1 < ID_LIMIT else (last[0] + 1, 0)
    if data == b"*":
        return max((wall, 0), following)
    if data.endswith(b"-*"):
        milliseconds = _part(data[:-2])
        entry_id = following if milliseconds == following[0] else (milliseconds, 0)
    else:
        entry_id = _parse_id(data)
        if entry_id == ZERO:
            raise _ZERO_ID()
    if entry_id <= last:
        raise _LOW_ID()
    return entry_id


def _trim(store: Store, argv: Args, wall: int) -> None:
    """XTRIM key MAXLEN|MINID [=|~] threshold [LIMIT count]"""
    key = argv[1]
    if argv[2].upper() not in (b"MAXLEN", b"MINID"):
        raise errors.SYNTAX()
    trim, place = _parse_trim(argv, 2)
    if place < len(argv):
        raise errors.SYNTAX()
    old = store.lookup_as(key, Stream)
    if old is not None and _excess(old, trim):
        value = store.write(key, Stream)
        assert value is not None
        _trim_to(store, key, value, trim)


def _excess(value: Stream, trim: int | EntryId) -> int:
    """How many entries are too many."""
    return max(len(value) - trim, 0) if isinstance(trim, int) else value.count_below(trim)


def _trim_to(store: Store, key: bytes, value: Stream, trim: int | EntryId) -> None:
    excess = _excess(value, trim)
    if excess:
        value.trim(excess)
        store.emit((b"XTRIM", key, b"MAXLEN", b"%d" % len(value)), key, _event(b"xtrim", key))


def _delete(store: Store, argv: Args, wall: int) -> None:
    """XDEL key id [id ...]"""
    key = argv[1]
    ids = dict.fromkeys(map(_parse_id, argv[2:]))
    old = store.lookup_as(key, Stream)
    if old is None:
        return
    found = [entry_id for entry_id in ids if old.get(entry_id) is not None]
    if found:
        value = store.write(key, Stream)
        assert value is not None
        for entry_id in found:
            value.remove(entry_id)
        store.emit((b"XDEL", key, *map(format_id, found)), key, _event(b"xdel", key))


def _set_id(store: Store, argv: Args, wall: int) -> None:
    """XSETID key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]"""
    key = argv[1]
    last = _parse_id(argv[2])
    added: int | None = None
    deleted = ZERO
    for place in range(3, len(argv), 2):
        word = argv[place].upper()
        if place + 1 == len(argv):
            raise errors.SYNTAX()
        if word == b"ENTRIESADDED":
            added = parse_int(argv[place + 1])
            if added < 0:
                raise _NEGATIVE_ADDED()
        elif word == b"MAXDELETEDID":
            deleted = _parse_id(argv[place + 1])
            if last < deleted:
                raise _BELOW_GIVEN_DELETED()
        else:
            raise errors.SYNTAX()
    old = store.lookup_as(key, Stream)
    if old is None:
        raise errors.NO_SUCH_KEY()
    if last < old.max_deleted_id:
        raise _BELOW_DELETED()
    if last < old.top_id:
        raise _BELOW_TOP()
    if added is not None and added < len(old):
        raise _TOO_FEW_ADDED()
    value = store.write(key, Stream)
    assert value is not None
    value.last_id = last
    if added is not None:
        value.entries_added = added
    if deleted != ZERO:
        value.max_deleted_id = deleted
    added_words = (b"ENTRIESADDED", b"%d" % value.entries_added)
    deleted_words = (b"MAXDELETEDID", format_id(value.max_deleted_id))
    store.emit((b"XSETID", key, format_id(last), *added_words, *deleted_words), key, _event(b"xsetid", key))


# -- groups -----------------------------------------------------------------------------------------------------------


def _group(store: Store, argv: Args, wall: int) -> None:
    """XGROUP CREATE|CREATECONSUMER|DELCONSUMER|DESTROY|SETID key group ..."""
    form = _GROUP_FORMS.get(argv[1].upper())
    if form is None or not form[1] <= len(argv) <= form[2]:
        raise errors.UNKNOWN_SUBCOMMAND(errors.text(argv[1]), "XGROUP")
    form[0](store, argv, wall)


def _existing_stream(store: Store, key: bytes) -> Stream:
    value = store.lookup_as(key, Stream)
    if value is None:
        raise _NO_STREAM()
    return value


def _require_group(store: Store, argv: Args) -> None:
    """Raise unless the key and the group of an XGROUP exist."""
    if argv[3] not in _existing_stream(store, argv[2]).groups:
        raise _NO_GROUP(errors.text(argv[3]), errors.text(argv[2]))


def _open_group(store: Store, key: bytes, name: bytes) -> Group:
    """A group that exists, ready to be changed."""
    value = store.write(key, Stream)
    assert value is not None
    return value.groups[name]


def _group_id(data: bytes, value: Stream | None) -> EntryId:
    """An id, or ``$`` for the stream's last."""
    if data == b"$":
        return ZERO if value is None else value.last_id
    return _parse_id(data)


def _parse_group_options(words: Args, allow_make: bool) -> bool:
    """Whether MKSTREAM is among the words; ENTRIESREAD and its number may be."""
    make = False
    rest = iter(words)
    for word in rest:
        option = word.upper()
        if option == b"MKSTREAM" and allow_make:
            make = True
        elif option == b"ENTRIESREAD":
            number = next(rest, None)
            if number is None:
                raise errors.SYNTAX()
            if parse_int(number) < -1:
                raise _BAD_READ()
        else:
            raise errors.SYNTAX()
    return make


def _create_group(store: Store, argv: Args, wall: int) -> None:
    key, name = argv[2], argv[3]
    make = _parse_group_options(argv[5:], True)
    old = store.lookup_as(key, Stream)
    if old is None and not make:
        raise _NO_STREAM()
    last = _group_id(argv[4], old)
    if old is not None and name in old.groups:
        raise _GROUP_EXISTS()
    value = store.write_or_create(key, Stream)
    value.create_group(name, last)
    store.emit((b"XGROUP", b"CREATE", key, name, format_id(last), b"MKSTREAM"), key, _event(b"xgroup-create", key))


def _set_group_id(store: Store, argv: Args, wall: int) -> None:
    key, name = argv[2], argv[3]
    _parse_group_options(argv[5:], False)
    _require_group(store, argv)
    last = _group_id(argv[4], _existing_stream(store, key))
    _open_group(store, key, name).last_delivered = last
    store.emit((b"XGROUP", b"SETID", key, name, format_id(last)), key, _event(b"xgroup-setid", key))


def _destroy_group(store: Store, argv: Args, wall: int) -> None:
    key, name = argv[2], argv[3]
    if name not in _existing_stream(store, key).groups:
        return
    value = store.write(key, Stream)
    assert value is not None
    value.remove_group(name)
    store.emit((b"XGROUP", b"DESTROY", key, name), key, _event(b"xgroup-destroy", key))


def _create_consumer(store: Store, argv: Args, wall: int) -> None:
    key, name, consumer = argv[2:5]
    _require_group(store, argv)
    if consumer not in _existing_stream(store, key).groups[name].consumers:
        _open_group(store, key, name).see(consumer, wall)
        _emit_consumer(store, key, name, consumer)


def _emit_consumer(store: Store, key: bytes, name: bytes, consumer: bytes) -> None:
    store.emit((b"XGROUP", b"CREATECONSUMER", key, name, consumer), key, _event(b"xgroup-createconsumer", key))


def _delete_consumer(store: Store, argv: Args, wall: int) -> None:
    key, name, consumer = argv[2:5]
    _require_group(store, argv)
    if consumer in _existing_stream(store, key).groups[name].consumers:
        _open_group(store, key, name).remove_consumer(consumer)
        store.emit((b"XGROUP", b"DELCONSUMER", key, name, consumer), key, _event(b"xgroup-delconsumer", key))


_ANY: Final = 1 << 31
_GROUP_FORMS: Final[dict[bytes, tuple[StreamHandler, int, int]]] = {
    b"CREATE": (_create_group, 5, _ANY),
    b"SETID": (_set_group_id, 5, _ANY),
    b"DESTROY": (_destroy_group, 4, 4),
    b"CREATECONSUMER": (_create_consumer, 5, 5),
    b"DELCONSUMER": (_delete_consumer, 5, 5),
}


# -- what is pending ---------------------------------------------------------------------------------------------------


def _acknowledge(store: Store, argv: Args, wall: int) -> None:
    """XACK key group id [id ...]"""
    key, name = argv[1], argv[2]
    ids = dict.fromkeys(map(_parse_id, argv[3:]))
    old = store.lookup_as(key, Stream)
    pending = old.groups[name].pending if old is not None and name in old.groups else {}
    found = [entry_id for entry_id in ids if entry_id in pending]
    if found:
        _acknowledge_found(store, key, name, found)


def _acknowledge_found(store: Store, key: bytes, name: bytes, found: list[EntryId]) -> None:
    group = _open_group(store, key, name)
    for entry_id in found:
        group.acknowledge(entry_id)
    store.emit((b"XACK", key, name, *map(format_id, found)), key)


class _Claim:
    """One XCLAIM: key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-ms] [RETRYCOUNT n] [FORCE] [JUSTID]
    [LASTID id]"""

    def __init__(self, argv: Args, wall: int) -> None:
        self.wall = wall
        self.key, self.group, self.consumer = argv[1:4]
        self.idle = max(parse_int(argv[4]), 0)
        self.ids = [_parse_id(argv[5])]
        self.delivered = wall
        self.told = 0
        self.count: int | None = None
        self.force = self.just_id = False
        self.last = ZERO
        place = 6
        while place < len(argv) and argv[place][:1].isdigit():
            self.ids.append(_parse_id(argv[place]))
            place += 1
        rest = iter(argv[place:])
        for word in rest:
            self._take_option(word, word.upper(), rest)
        #: A claim that says all there is to say, as our own effects do, may be of an entry that has been deleted.
        self.complete = self.force and self.told == 2

    def _take_option(self, word: bytes, option: bytes, rest: Iterator[bytes]) -> None:
        if option == b"FORCE":
            self.force = True
            return
        if option == b"JUSTID":
            self.just_id = True
            return
        argument = next(rest, None)
        if argument is None or option not in (b"IDLE", b"TIME", b"RETRYCOUNT", b"LASTID"):
            raise _BAD_OPTION(errors.text(word))
        if option == b"LASTID":
            self.last = _parse_id(argument)
            return
        number = min(parse_int(argument), INT64_MAX)
        if option == b"RETRYCOUNT":
            self.count = max(number, 0)
            self.told += 1
        elif option == b"TIME":
            self.delivered = number if number >= 0 else self.wall
            self.told += 1
        else:
            self.delivered = max(self.wall - number, 0)

    def claim(self, store: Store, value: Stream, group: Group, entry_id: EntryId) -> bool:
        """Claim one entry, if it can be; True if it has been."""
        held = group.pending.get(entry_id)
        if held is None and not self.force:
            return False
        if not self.complete and value.get(entry_id) is None:
            if held is not None:
                _acknowledge_found(store, self.key, self.group, [entry_id])
            return False
        if held is not None and self.wall - held[1] < self.idle:
            return False
        count = self.count
        if count is None:
            count = (1 if held is None else held[2]) + (not self.just_id)
        group.deliver(entry_id, self.consumer, self.delivered, count)
        self._emit(store, entry_id, count)
        return True

    def _emit(self, store: Store, entry_id: EntryId, count: int) -> None:
        told = (b"TIME", b"%d" % self.delivered, b"RETRYCOUNT", b"%d" % count, b"FORCE", b"JUSTID")
        last = (b"LASTID", format_id(self.last)) if self.last != ZERO else ()
        words = (b"XCLAIM", self.key, self.group, self.consumer, b"0", format_id(entry_id), *told, *last)
        store.emit(words, self.key)


def _claim(store: Store, argv: Args, wall: int) -> None:
    request = _Claim(argv, wall)
    key, name, consumer = request.key, request.group, request.consumer
    old = store.lookup_as(key, Stream)
    if old is None or name not in old.groups:
        raise _NO_KEY_OR_GROUP(errors.text(key), errors.text(name))
    value = store.write(key, Stream)
    assert value is not None
    group = value.groups[name]
    advanced = request.last > group.last_delivered
    if advanced:
        group.last_delivered = request.last
    is_new = group.see(consumer, wall)
    claimed = [entry_id for entry_id in request.ids if request.claim(store, value, group, entry_id)]
    if not claimed and is_new:
        _emit_consumer(store, key, name, consumer)
    if not claimed and advanced:
        store.emit((b"XGROUP", b"SETID", key, name, format_id(group.last_delivered)), key)


#: Handlers by name, with the fewest words of a command line.
STREAM_HANDLERS: Final[dict[bytes, tuple[StreamHandler, int]]] = {
    b"XADD": (_add, 5),
    b"XTRIM": (_trim, 4),
    b"XDEL": (_delete, 3),
    b"XSETID": (_set_id, 3),
    b"XGROUP": (_group, 4),
    b"XACK": (_acknowledge, 4),
    b"XCLAIM": (_claim, 6),
}
