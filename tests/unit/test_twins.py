"""The compiled parts answer as the pure ones do, whatever comes. Both are here, whichever the process runs with."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.session_harness import ServerHarness, request
from support.store_harness import content

from kevynode import reply as pure_reply
from kevynode import resp
from kevynode.errors import ReplyError
from kevynode.persist import records
from kevynode.persist.recorder import JournalRecorder
from kevynode.replicate import wire
from kevynode.replicate.backlog import Backlog
from kevynode.replicate.lineage import Lineage
from kevynode.reply import NULL_ARRAY, OK, Pairs, Push, SetReply, Verbatim
from kevynode.scope.ownership import Ownership
from kevynode.scope.scope import Scope
from kevynode.scope.table import OwnershipTable
from kevynode.serve import loop as pure_loop
from kevynode.serve.session import Session
from kevynode.serve.table import TABLE
from kevynode.store.journal import Journal, Origin
from kevynode.store.store import Store

pytest.importorskip("kevynode.compiled.loop", reason="the compiled parts are not built")

from kevynode.compiled import commands as compiled_commands
from kevynode.compiled import loop as compiled_loop
from kevynode.compiled import observers as compiled_observers
from kevynode.compiled import records as compiled_records
from kevynode.compiled import replies as compiled_replies
from kevynode.compiled import requests as compiled_requests

HOT = ("get", "set", "incr", "mget", "hset", "lpush", "rpush", "lrange", "sadd", "zadd")

# -- requests ---------------------------------------------------------------------------------------------------------

words = st.one_of(
    st.sampled_from([b"", b"GET", b"set", b"k", b"\r\n", b"$1\r\nx", b"a" * 17, b"v" * 5000, b"\x00\xff"]),
    st.binary(max_size=20),
)
plain_requests = st.lists(words, min_size=1, max_size=5).map(lambda argv: request(*argv))
odd_requests = st.one_of(
    st.sampled_from(
        [
            b"PING\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"*01\r\n$1\r\nx\r\n",
            b"*1\r\n$01\r\nx\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$1\r\nxy\r\n",
            b"*1\r\n$5\r\nhello\n\n",
            b"*1\n$1\r\nx\r\n",
            b"*1\r\n+x\r\n",
            b"*1\r\n$99999999999999999999\r\n",
            b"*99999999999\r\n",
            b"*1025\r\n",
            b'SET k "a b"\r\n',
            b'"open\r\n',
            b"\r\n",
        ]
    ),
    st.binary(max_size=12),
)
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

keys = st.sampled_from([b"a", b"b", b"c", b"", b"\x00\r\n"])
values = st.one_of(
    st.sampled_from([b"", b"0", b"9", b"10", b"-1", b"007", b"99999999999999999", b"9223372036854775807", b"x" * 70]),
    st.binary(max_size=6),
)
scores = st.one_of(
    st.sampled_from([b"0", b"-0", b"1", b"1.5", b"-2.25", b"000012", b"1e3", b"inf", b"nan", b".5", b"5.", b"-", b"."]),
    st.integers(-(10**17), 10**17).map(lambda number: b"%d" % number),
    st.decimals(-1000, 1000, places=3, allow_nan=False).map(lambda number: str(number).encode()),
)
indexes = st.sampled_from([b"0", b"1", b"2", b"-1", b"00", b"99", b"x", b"1000000000000"])
hot_commands = st.one_of(
    st.tuples(st.just(b"GET"), keys),
    st.tuples(st.just(b"SET"), keys, values),
    st.tuples(st.just(b"SET"), keys, values, st.sampled_from([b"NX", b"XX", b"GET", b"KEEPTTL", b"nonsense"])),
    st.tuples(st.just(b"INCR"), keys),
    st.tuples(st.just(b"MGET"), keys, keys, keys),
    st.tuples(st.just(b"HSET"), keys, values, values),
    st.tuples(st.just(b"HSET"), keys, values, values, values, values),
    st.tuples(st.just(b"HSET"), keys, values, values, values),
    st.tuples(st.sampled_from([b"LPUSH", b"RPUSH", b"SADD"]), keys, values),
    st.tuples(st.sampled_from([b"LPUSH", b"RPUSH", b"SADD"]), keys, values, values),
    st.tuples(st.just(b"LRANGE"), keys, indexes, indexes),
    st.tuples(st.just(b"ZADD"), keys, scores, values),
    st.tuples(st.just(b"ZADD"), keys, st.sampled_from([b"NX", b"GT", b"CH"]), scores, values),
)
other_commands = st.one_of(
    st.tuples(st.just(b"DEL"), keys),
    st.tuples(st.just(b"PEXPIRE"), keys, st.sampled_from([b"1", b"50", b"100000"])),
    st.tuples(st.just(b"PERSIST"), keys),
    st.tuples(
        st.just(b"HPEXPIRE"),
        keys,
        st.sampled_from([b"1", b"100"]),
        st.just(b"FIELDS"),
        st.just(b"1"),
        values,
    ),
    st.tuples(st.just(b"RENAME"), keys, keys),
)
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


def state_of(store: Store) -> Any:
    return content(store), store.used, store.hits, store.misses, store.expired_keys, store.journal.offset


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


# -- sessions ---------------------------------------------------------------------------------------------------------

session_commands = st.one_of(
    hot_commands,
    hot_commands,
    other_commands,
    st.sampled_from(
        [
            (b"PING",),
            (b"MULTI",),
            (b"EXEC",),
            (b"DISCARD",),
            (b"HELLO", b"3"),
            (b"HELLO", b"2"),
            (b"CLIENT", b"REPLY", b"SKIP"),
            (b"CLIENT", b"REPLY", b"OFF"),
            (b"CLIENT", b"REPLY", b"ON"),
            (b"SUBSCRIBE", b"c"),
            (b"UNSUBSCRIBE",),
            (b"PUBLISH", b"c", b"m"),
            (b"WATCH", b"a"),
            (b"BLPOP", b"b", b"0"),
            (b"RESET",),
            (b"QUIT",),
            (b"NOSUCH", b"x"),
            (b"GET",),
            (b"INFO", b"nothing"),
            (b"CONFIG", b"SET", b"slowlog-log-slower-than", b"0"),
            (b"SLOWLOG", b"LEN"),
        ]
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """What several clients send: their number, and bytes that may begin and end anywhere in a command."""
    sent: dict[int, bytes] = {0: b"", 1: b""}
    conversation: list[tuple[int, bytes]] = []
    for _ in range(draw(st.integers(1, 6))):
        client = draw(st.integers(0, 1))
        pipeline = b"".join(request(*argv) for argv in draw(st.lists(session_commands, min_size=1, max_size=6)))
        if draw(st.integers(0, 9)) == 0:
            pipeline += draw(odd_requests)
        pipeline = sent[client] + pipeline
        cut = draw(st.integers(0, len(pipeline))) if draw(st.booleans()) else len(pipeline)
        sent[client] = pipeline[cut:]
        conversation.append((client, pipeline[:cut]))
    return conversation


class Way:
    """A server with two clients, driven one way or the other."""

    def __init__(self, compiled: bool, scopes: bool = False) -> None:
        self.node = ServerHarness()
        if scopes:
            table = OwnershipTable([Scope(b"a", "other"), Scope(b"b", "self")])
            self.node.server.ownership = Ownership("self", table, {"other": "there:1", "self": "here:1"})
        self.node.server.tracks_written_keys = scopes
        self.compiled = compiled
        self.node.server.run_commands = compiled_loop.run_commands if compiled else pure_loop.run_commands
        self.sessions = [Session(self.node.server, "peer", "local") for _ in range(2)]
        for session in self.sessions:
            session.peer_gone = lambda: False

    def send(self, client: int, data: bytes) -> list[bytes]:
        """Feed a client's bytes and run everything; what has come for each client."""
        session = self.sessions[client]
        if not session.closing and session.wants_read:
            if self.compiled:
                compiled_loop.receive_and_run(session, data, float("inf"))
            else:
                session.receive(data)
                session.run(float("inf"))
        for each in self.sessions:
            while each.runnable:
                each.run(float("inf"))
        return [each.take_output() for each in self.sessions]

    def state(self) -> Any:
        server = self.node.server
        statistics = server.statistics
        commands = {entry.full_name: (entry.calls, entry.rejected, entry.failed) for entry in server.all_commands()}
        return (
            state_of(server.store),
            (statistics.input_bytes, statistics.output_bytes, statistics.error_replies, statistics.errors),
            {name: counts for name, counts in commands.items() if any(counts)},
            [
                (
                    session.commands_run,
                    session.input_bytes,
                    session.output_bytes,
                    session.closing,
                    session.discard,
                    session.blocked,
                    session.wrote,
                    session.queued,
                    session.written,
                    # The one holds what follows the command that closes a session, the other drops it.
                    0 if session.closing else session.held_input,
                    None if session.last_command is None else session.last_command.full_name,
                )
                for session in self.sessions
            ],
        )


@given(conversations(), st.booleans())
@settings(max_examples=300)
def test_sessions_are_answered_the_same(conversation: list[tuple[int, bytes]], scopes: bool) -> None:
    ways = []
    for compiled in (False, True):
        # The table's statistics are the process's.
        for entry in TABLE:
            for command in (entry, *entry.subcommands.values()):
                command.calls = command.rejected = command.failed = 0
        way = Way(compiled, scopes)
        ways.append(([way.send(client, data) for client, data in conversation], way.state()))
    assert ways[1] == ways[0]


def test_a_turn_ends_when_its_time_is_over() -> None:
    """The rest of what was read waits, and is run in the next turn."""
    way = Way(compiled=True)
    session = way.sessions[0]
    assert compiled_loop.receive_and_run(session, request("SET", "a", "1") * 3 + request("GET", "a"), -1.0)
    assert session.take_output() == b"+OK\r\n"
    assert session.queued == 3
    while session.runnable:
        session.run(float("inf"))
    assert session.take_output() == b"+OK\r\n+OK\r\n$1\r\n1\r\n"


def test_nothing_but_a_session_is_run() -> None:
    with pytest.raises((TypeError, AttributeError)):
        compiled_loop.run_commands(object(), 0.0)  # type: ignore[arg-type]
