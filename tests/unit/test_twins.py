"""The compiled parts answer as the pure ones do, whatever comes. Both are here, whichever the process runs with."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.session_harness import request
from support.twin_inputs import hot_commands, odd_requests, other_commands, plain_requests, state_of, words

from kevynode import reply as pure_reply
from kevynode import resp
from kevynode.errors import ReplyError
from kevynode.persist import records
from kevynode.persist.recorder import JournalRecorder
from kevynode.replicate import wire
from kevynode.replicate.backlog import Backlog
from kevynode.replicate.lineage import Lineage
from kevynode.reply import NULL_ARRAY, OK, Pairs, Push, SetReply, Verbatim
from kevynode.serve.table import TABLE
from kevynode.store.journal import Journal, Origin
from kevynode.store.store import Store

pytest.importorskip("kevynode.compiled.loop", reason="the compiled parts are not built")

from kevynode.compiled import commands as compiled_commands
from kevynode.compiled import observers as compiled_observers
from kevynode.compiled import records as compiled_records
from kevynode.compiled import replies as compiled_replies
from kevynode.compiled import requests as compiled_requests

HOT = ("get", "set", "incr", "mget", "hset", "lpush", "rpush", "lrange", "sadd", "zadd")

# -- requests ---------------------------------------------------------------------------------------------------------

streams = st.lists(st.one_of(plain_requests, plain_requests, odd_requests), max_size=8).map(b"".join)


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    stream = draw(streams)
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    return [stream[start:stop] for start, stop in zip([0, *places], [*places, len(stream)], strict=True)]


@given(cut_streams(), st.booleans(), st.sampled_from([4096, 512 * 1024 * 1024]))
@settings(max_examples=400)
def test_parsers_take_the_same_commands(chunks: list[bytes], authenticated: bool, limit: int) -> None:
    twins = [resp.RequestParser(limit), resp.RequestParser(limit, compiled_requests.take_plain)]
    for parser in twins:
        parser.authenticated = authenticated
    for chunk in chunks:
        pure, compiled = ([bytes(word) for words in parser.feed(chunk) for word in words] for parser in twins)
        assert compiled == pure
        assert twins[0].error == twins[1].error
        assert twins[0].held == twins[1].held
        assert twins[0].plain == twins[1].plain


@pytest.mark.parametrize("stream", [request(b"a" * length, b"b") for length in (0, 1, 15, 16, 17, 300)])
def test_a_command_that_is_cut_anywhere_comes_once(stream: bytes) -> None:
    for cut in range(len(stream) + 1):
        commands: list[list[bytes]] = []
        rest = compiled_requests.take_plain(stream[:cut], commands, 1000)
        assert (len(commands), rest) == ((1, b"") if cut == len(stream) else (0, stream[:cut]))


# -- replies ----------------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"x" * 4095, b"x" * 4096, b"x" * 70000]),
    st.integers(),
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.sampled_from([OK, NULL_ARRAY, Verbatim(b"text"), ReplyError("no", "ERR"), 2**63 - 1, -(2**63), 2**63, 0, 9, 10]),
)
replies = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(SetReply),
        st.lists(inner, max_size=3).map(Push),
        st.lists(st.tuples(st.binary(max_size=3), st.integers()), max_size=3).map(Pairs),
        st.dictionaries(st.binary(max_size=3), inner, max_size=3),
    ),
    max_leaves=20,
)


@given(replies, st.sampled_from([2, 3]))
@settings(max_examples=300)
def test_replies_look_the_same_on_the_wire(reply: Any, protocol: int) -> None:
    assert compiled_replies.encode(reply, protocol) == pure_reply.encode(reply, protocol)
    out: list[bytes] = []
    compiled_replies.encode_into(out, reply, protocol)
    assert b"".join(out) == pure_reply.encode(reply, protocol)


def test_deep_replies() -> None:
    reply: Any = b"x"
    for _ in range(50):
        reply = [reply, None]
    for protocol in (2, 3):
        assert compiled_replies.encode(reply, protocol) == pure_reply.encode(reply, protocol)


def test_what_is_no_reply_is_refused() -> None:
    with pytest.raises(TypeError):
        compiled_replies.encode([b"x", object()], 2)


# -- commands ---------------------------------------------------------------------------------------------------------

events = st.sampled_from(["freeze", "later", "track", "untrack"])


def store_of(seed: int) -> Store:
    store = Store(random.Random(seed))
    store.now = 1_000_000
    return store


def outcome(store: Store, argv: tuple[bytes, ...], compiled: bool) -> Any:
    """What a command answers, which may be an error, and the effects that it has."""
    command = TABLE.get(argv[0])
    assert command is not None
    words = list(argv)
    try:
        if not command.accepts(len(words)):
            return None
        if compiled and command.name in HOT:
            answer = compiled_commands.call_twin(command.handler, store, words)
        else:
            answer = command.handler(store, words)
    except ReplyError as error:
        answer = str(error)
    return type(answer), answer, [(list(effect), key, told) for effect, key, told in store.journal.pending]


@given(st.lists(st.one_of(hot_commands, hot_commands, other_commands, events), max_size=40))
@settings(max_examples=300)
def test_commands_do_the_same(steps: list[Any]) -> None:
    twins = [store_of(1), store_of(1)]
    accesses: list[list[bytes]] = [[], []]
    for step in steps:
        if isinstance(step, str):
            for store, seen in zip(twins, accesses, strict=True):
                match step:
                    case "freeze":
                        store.freeze()
                    case "later":
                        store.now += 60
                    case "track":
                        store.tracker = lambda _, key, seen=seen: seen.append(key)
                    case _:
                        store.tracker = None
            continue
        pure, compiled = (outcome(store, step, store is twins[1]) for store in twins)
        assert compiled == pure
        for store in twins:
            store.commit()
        assert state_of(twins[1]) == state_of(twins[0])
    assert accesses[0] == accesses[1]


@pytest.mark.parametrize("seed", range(4))
def test_large_containers_stay_the_same(seed: int) -> None:
    """Sharded tables, blocks of lists and of sorted sets, and copies of them that snapshots hold."""
    draw = random.Random(seed)
    twins = [store_of(seed), store_of(seed)]
    size = 5000
    for number in range(size):
        for store in twins:
            for argv in (
                (b"HSET", b"h", b"f%d" % number, b"v"),
                (b"SADD", b"s", b"m%d" % number),
                (b"ZADD", b"z", b"%d" % number, b"m%d" % number),
                (b"SET", b"k%d" % number, b"0"),
            ):
                outcome(store, argv, store is twins[1])
                store.commit()
    for step in range(4000):
        if step % 1500 == 700:
            for store in twins:
                store.freeze()
        member = b"m%d" % draw.randrange(size + 50)
        chosen: tuple[bytes, ...] = draw.choice(
            [
                (b"HSET", b"h", b"f%d" % draw.randrange(size + 50), b"%d" % draw.randrange(10**6)),
                (b"SADD", b"s", member),
                (b"ZADD", b"z", b"%d" % draw.randrange(size), member),
                (b"ZADD", b"z", b"%.2f" % draw.uniform(0, size), member),
                (b"INCR", b"k%d" % draw.randrange(size)),
                (b"LPUSH", b"l", member),
                (b"LRANGE", b"l", b"3", b"20"),
                (b"ZRANK", b"z", member),
                (b"ZREM", b"z", member),
            ]
        )
        pure, compiled = (outcome(store, chosen, store is twins[1]) for store in twins)
        assert compiled == pure, (seed, step)
        for store in twins:
            store.commit()
    assert state_of(twins[1]) == state_of(twins[0]), seed


# -- who hears of writes ----------------------------------------------------------------------------------------------

groups = st.lists(st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=3), min_size=1, max_size=12)


@given(st.integers(0, 2**63 - 1), st.lists(words, min_size=1, max_size=20))
def test_frames_are_the_same(offset: int, command: list[bytes]) -> None:
    assert compiled_observers.frame(offset, command) == wire.frame(offset, command)
    assert compiled_observers.frame(offset, tuple(command)) == wire.frame(offset, command)


@given(st.lists(st.lists(words, min_size=1, max_size=20), max_size=5))
def test_records_are_the_same(commands: list[list[bytes]]) -> None:
    assert compiled_records.encode_commands(commands) == records.encode_commands(commands)
    assert compiled_records.encode_commands(map(tuple, commands)) == records.encode_commands(commands)


@given(groups, st.booleans(), st.sampled_from([None, Origin("upstream", 7)]))
def test_recorders_write_down_the_same(groups: list[list[list[bytes]]], recording: bool, origin: Origin | None) -> None:
    twins: list[tuple[Journal, JournalRecorder]] = []
    for _ in range(2):
        journal = Journal(5)
        journal.origin = origin
        recorder = JournalRecorder(journal, Lineage(3), {})
        recorder._records = recording
        journal.observers.clear()
        twins.append((journal, recorder))
    for group in groups:
        effects: list[Any] = [(argv, argv[0], ()) for argv in group]
        for place, (journal, recorder) in enumerate(twins):
            first = journal.offset
            journal.offset += len(group)
            if place:
                compiled_observers.tell_observer(recorder.observe, first, effects)
            else:
                recorder.observe(first, effects)
    (_, pure), (_, compiled) = twins
    assert b"".join([*compiled._pieces, *compiled._parts]) == b"".join([*pure._pieces, *pure._parts])
    assert (compiled.offset, compiled.mark, compiled.failed) == (pure.offset, pure.mark, pure.failed)


@given(groups)
def test_backlogs_hold_the_same(groups: list[list[list[bytes]]]) -> None:
    twins = [Backlog(1 << 20, 9), Backlog(1 << 20, 9)]
    for group in groups:
        effects: list[Any] = [(argv, argv[0], ()) for argv in group]
        twins[0].observe(0, effects)
        compiled_observers.tell_observer(twins[1].observe, 0, effects)
        assert twins[0]._pending == twins[1]._pending
        assert (twins[0].next, twins[0].memory) == (twins[1].next, twins[1].memory)
