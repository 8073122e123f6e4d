"""Commands on one set, and SMOVE. What combines several sets stands in ``set_algebra``."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...reply import Reply, SetReply
from .. import notify
from ..arguments import INT64_MAX, as_int
from ..command import Args, command, one_key
from ..settings import StoreSettings
from ..store import Store
from ..tables import random_member, scan_table
from ..values import Set
from .random_members import parse_count, repeated, sample, walk
from .scan import parse_cursor, parse_options, scan_reply
from .set_results import emit_removal, remove_members

__all__ = ["arranged", "parse_pop_count"]

# Nothing longer is the canonical form of a 64-bit integer.
_INTEGER_SIZE: Final = 20
_INTEGER_STARTS: Final = frozenset(b"-0123456789")


def arranged(members: list[bytes], settings: StoreSettings) -> list[bytes]:
    """Members as a reply shows them: a small set of integers ascends, as Valkey keeps it; others stay as they are."""
    if (
        1 < len(members) <= settings.set_max_intset_entries
        and members[0][:1]
        and members[0][0] in _INTEGER_STARTS
        and len(max(members, key=len)) <= _INTEGER_SIZE
    ):
        try:
            members.sort(key=int)
        except ValueError:
            pass
    return members


def parse_pop_count(data: bytes) -> int:
    """How many members to take off; raises MUST_BE_POSITIVE for what is no such number."""
    count = as_int(data)
    if count is None or not 0 <= count <= INT64_MAX:
        raise errors.MUST_BE_POSITIVE()
    return count


# -- members ----------------------------------------------------------------------------------------------------------


@command(
    "sadd",
    arity=-3,
    flags="write denyoom fast",
    keys=one_key("RW INSERT"),
    group="set",
    since="1.0.0",
    summary="Puts members into a set, which is made if it is missing.",
    complexity="O(N) for N members given.",
    syntax="key member [member ...]",
)
def sadd(store: Store, argv: Args) -> Reply:
    """How many members are new."""
    key = argv[1]
    value = store.write_or_create(key, Set)
    if len(argv) == 3:
        if not value.add(argv[2]):
            return 0
        added = 1
    else:
        added = sum(map(value.add, argv[2:]))
        if not added:
            return 0
    store.emit(argv, key, (notify.SET, b"sadd", key))
    return added


@command(
    "srem",
    arity=-3,
    flags="write fast",
    keys=one_key("RW DELETE"),
    group="set",
    since="1.0.0",
    summary="Takes members out of a set; with the last one the key goes.",
    complexity="O(N) for N members given.",
    syntax="key member [member ...]",
)
def srem(store: Store, argv: Args) -> Reply:
    """How many members were there."""
    return remove_members(store, argv, Set, (notify.SET, b"srem", argv[1]))


@command(
    "scard",
    arity=2,
    flags="readonly fast",
    keys=one_key("RO"),
    group="set",
    since="1.0.0",
    summary="How many members a set has.",
    complexity="O(1).",
    syntax="key",
)
def scard(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Set)
    return 0 if value is None else len(value)


@command(
    "sismember",
    arity=3,
    flags="readonly fast",
    keys=one_key("RO"),
    group="set",
    since="1.0.0",
    summary="Whether a set has a member.",
    complexity="O(1).",
    syntax="key member",
)
def sismember(store: Store, argv: Args) -> Reply:
    """1 or 0."""
    value = store.read_as(argv[1], Set)
    return 1 if value is not None and argv[2] in value.members else 0


@command(
    "smismember",
    arity=-3,
    flags="readonly fast",
    keys=one_key("RO ACCESS"),
    group="set",
    since="6.2.0",
    summary="Which of several members a set has.",
    complexity="O(N) for N members asked about.",
    syntax="key member [member ...]",
)
def smismember(store: Store, argv: Args) -> Reply:
    """1 or 0 for each member."""
    value = store.read_as(argv[1], Set)
    if value is None:
        return [0] * (len(argv) - 2)
    members = value.members
    return [1 if member in members else 0 for member in argv[2:]]


@command(
    "smembers",
    arity=2,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="set",
    since="1.0.0",
    summary="Every member of a set.",
    complexity="O(N) for N members.",
    syntax="key",
    tips=("nondeterministic_output_order",),
)
def smembers(store: Store, argv: Args) -> Reply:
    value = store.read_as(argv[1], Set)
    return SetReply() if value is None else SetReply(arranged(list(walk(value.members)), store.settings))


@command(
    "smove",
    arity=4,
    flags="write fast",
    keys=one_key("RW ACCESS DELETE") + one_key("RW INSERT", at=2),
    group="set",
    since="1.0.0",
    summary="Moves a member from one set to another.",
    complexity="O(1).",
    syntax="source destination member",
)
def smove(store: Store, argv: Args) -> Reply:
    """1 if the source had the member, else 0."""
    source, destination, member = argv[1:]
    value = store.lookup(source)
    if value is None:
        return 0
    if type(value) is not Set:
        raise errors.WRONG_TYPE()
    store.lookup_as(destination, Set)
    if member not in value.members:
        return 0
    if source == destination:
        return 1
    opened = store.write(source, Set)
    assert opened is not None
    opened.remove(member)
    emit_removal(store, source, opened, (member,), (notify.SET, b"srem", source))
    if store.write_or_create(destination, Set).add(member):
        store.emit((b"SADD", destination, member), destination, (notify.SET, b"sadd", destination))
    return 1


# -- members at random ------------------------------------------------------------------------------------------------


@command(
    "spop",
    arity=-2,
    flags="write fast",
    keys=one_key("RW ACCESS DELETE"),
    group="set",
    since="1.0.0",
    summary="Takes random members out of a set; with the last one the key goes.",
    complexity="O(1) without a count, else O(N) for N members of the set.",
    syntax="key [count]",
    tips=("nondeterministic_output",),
)
def spop(store: Store, argv: Args) -> Reply:
    """One member or null; with a count a set of members."""
    key = argv[1]
    if len(argv) > 2:
        if len(argv) > 3:
            raise errors.SYNTAX()
        return _pop_many(store, key, parse_pop_count(argv[2]))
    value = store.write(key, Set)
    if value is None:
        return None
    member = random_member(value.members, store.random)
    value.remove(member)
    emit_removal(store, key, value, (member,), (notify.SET, b"spop", key))
    return member


def _pop_many(store: Store, key: bytes, count: int) -> SetReply:
    if store.lookup_as(key, Set) is None or not count:
        return SetReply()
    value = store.write(key, Set)
    assert value is not None
    members = sample(value.members, count, store.random)
    for member in members:
        value.remove(member)
    emit_removal(store, key, value, members, (notify.SET, b"spop", key))
    return SetReply(members)


@command(
    "srandmember",
    arity=-2,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="set",
    since="1.0.0",
    summary="Random members of a set, which stay in it.",
    complexity="O(1) without a count, else O(N+M) at most for N members asked for and M in the set.",
    syntax="key [count]",
    tips=("nondeterministic_output",),
)
def srandmember(store: Store, argv: Args) -> Reply:
    """One member or null; with a count different members, or as many as ``-count`` that may repeat."""
    if len(argv) == 2:
        value = store.read_as(argv[1], Set)
        return None if value is None else random_member(value.members, store.random)
    if len(argv) > 3:
        raise errors.SYNTAX()
    count = parse_count(argv[2])
    value = store.read_as(argv[1], Set)
    if value is None or not count:
        return []
    if count < 0:
        return repeated(value.members, -count, store.random)
    return sample(value.members, count, store.random)


@command(
    "sscan",
    arity=-3,
    flags="readonly",
    keys=one_key("RO ACCESS"),
    group="set",
    since="2.8.0",
    summary="Walks the members of a set in steps.",
    complexity="O(1) per step, O(N) for all N members.",
    syntax="key cursor [MATCH pattern] [COUNT count]",
    tips=("nondeterministic_output",),
)
def sscan(store: Store, argv: Args) -> Reply:
    """The next cursor, 0 at the end, and members."""
    cursor = parse_cursor(argv[2])
    value = store.read_as(argv[1], Set)
    if value is None:
        return scan_reply(0, [])
    options = parse_options(argv, 3, Set)
    cursor, members = scan_table(value.members, cursor, options.count)
    return scan_reply(cursor, options.filter(arranged(members, store.settings)))
