"""Everything that reads bytes from others or from files, as functions that take any bytes and must not fail.

A **target** feeds one reader the bytes as a whole and in pieces. The reader may refuse them with its own error, and
must find the same however they are cut; where it has a compiled twin that one must find the same as well. Two targets
are whole nodes, for which bytes decide what is said to them (``strangers``). ``tests/sim/test_fuzzing.py`` draws bytes
with Hypothesis; long runs are ``python -m tests.sim.fuzz TARGET``. Both begin with the files of ``tests/sim/corpus``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import tomli
from sim.strange_node import as_replica, with_scopes
from sim.strangers import Choices
from support.memory_disk import MemoryDisk
from support.session_harness import ServerHarness
from support.store_harness import check_memory, content

from kevynode.config import ConfigError, NodeConfig
from kevynode.errors import ReplyError
from kevynode.persist.annotations import AnnotationError, parse_annotation
from kevynode.persist.manifest import Manifest, ManifestError
from kevynode.persist.record_reader import RecordReader
from kevynode.rdb.reader import read_dump
from kevynode.rdb.texts import RdbError
from kevynode.replicate.ack_decoder import AckDecoder
from kevynode.replicate.handshake import CAPABILITIES, Form, HandshakeError, HandshakeParser, Request
from kevynode.replicate.replica import ReplicaLink
from kevynode.replicate.replica_events import State
from kevynode.replicate.snapshot_decoder import SnapshotDecoder, SnapshotError
from kevynode.replicate.stream_decoder import StreamDecoder
from kevynode.reply_parser import ReplyParser, ReplyProtocolError
from kevynode.resp import RequestParser
from kevynode.scope.ledger import LedgerEntry, parse_rows
from kevynode.scope.ledger_file import LEDGER, LedgerFile, LedgerFileError, load
from kevynode.scope.ledger_records import parse_record
from kevynode.scope.ledger_text import LedgerError
from kevynode.scope.move_command import parse_ingest
from kevynode.scope.move_wire import MessageDecoder, MoveWireError, parse_hello
from kevynode.scope.peer_wire import AnswerDecoder, PeerDecoder, PeerWireError
from kevynode.serve import loop
from kevynode.serve.session import Session
from kevynode.store.marks import MARK_COMMAND, MARK_KEY, parse_mark
from kevynode.store.staging import Staging
from kevynode.transfer.importing import Import, ImportFailure
from kevynode.twins import COMPILED

__all__ = ["CORPUS", "TARGETS", "WHOLE_NODES", "Target", "corpus_of"]

#: Takes any bytes; raises AssertionError, or whatever else, if the reader is not as it should be.
Target = Callable[[bytes], None]

#: Bytes that a reader may count for each byte that has come: an empty argument is an object, too.
_OVERHEAD: Final = 64

CORPUS: Final = Path(__file__).parent / "corpus"


def _pieces(data: bytes) -> list[bytes]:
    """The bytes cut at places that they decide themselves, so that the same ones are always cut alike."""
    random = Random(data)
    pieces = []
    place = 0
    while place < len(data):
        size = random.choice((1, 1, 2, 5, 40, 1000))
        pieces.append(data[place : place + size])
        place += size
    return pieces


def _decoder(*makes: Callable[[], Any], held: Callable[[Any], int] | None = None) -> Target:
    """A reader whose ``feed`` returns what is complete, and never raises: afterwards ``error`` says what was wrong.

    ``makes`` make it, and its twins.
    """

    def run(data: bytes) -> None:
        told = []
        for make in makes:
            for pieces in ([data], _pieces(data)):
                reader = make()
                events: list[Any] = []
                for piece in pieces:
                    events += reader.feed(piece)
                    if held is not None:
                        # What it holds goes by what has come, and not by what is announced.
                        assert held(reader) <= _OVERHEAD * (len(data) + 1), f"holds {held(reader)} of {len(data)} bytes"
                told.append((_flat(events), reader.error is None))
        assert all(one == told[0] for one in told), f"as a whole and in pieces, by each of the twins: {told!r}"

    return run


def _flat(events: Sequence[Any]) -> list[str]:
    """What was told, frame by frame: how many of them come in one event is the reader's own affair."""
    told: list[str] = []
    for event in events:
        commands = getattr(event, "commands", None)
        if commands is None:
            told.append(repr(event))
        elif not getattr(event, "grouped", False):
            told += [repr(command) for command in commands]
        else:
            # The compiled reader leaves the words in the bytes they came in until somebody wants them.
            told.append(repr(attrs.evolve(event, commands=list(commands))))
    return told


def _raising(make: Callable[[], Any], *errors: type[Exception]) -> Target:
    """A reader whose ``feed`` returns what is complete, once or always, or raises one of its errors."""

    def run(data: bytes) -> None:
        told = []
        for pieces in ([data], _pieces(data)):
            reader = make()
            found: list[str] = []
            try:
                for piece in pieces:
                    events = reader.feed(piece)
                    found += map(repr, events if isinstance(events, list) else [events] if events else [])
                    if events and not isinstance(events, list):
                        break
            except errors as error:
                found = [type(error).__name__]
            told.append(found)
        assert told[0] == told[1], f"as a whole {told[0]}, in pieces {told[1]}"

    return run


def _whole(read: Callable[[bytes], object], *errors: type[Exception]) -> Target:
    """What reads all of it at once, or raises one of its errors."""

    def run(data: bytes) -> None:
        try:
            read(data)
        except errors:
            pass

    return run


def _snapshot(data: bytes) -> None:
    told = []
    for pieces in ([data], _pieces(data)):
        staging = Staging(0)
        reader = SnapshotDecoder(staging, now_ms=1_700_000_000_000)
        try:
            for piece in pieces:
                reader.feed(piece)
            reader.finish()
            told.append(f"{staging.count} keys at {reader.cursor}")
        except SnapshotError as error:
            told.append(error.reason)
    assert told[0] == told[1], f"as a whole {told[0]}, in pieces {told[1]}"


def _import(data: bytes) -> None:
    """What is wrong with a damaged file may be noticed sooner in one way than in the other; that it is, may not."""
    told = []
    for pieces in ([data], _pieces(data)):
        reading = Import(Random(0))
        try:
            for _ in (*reading.read("file", pieces), *reading.finish()):
                pass
            told.append(f"{reading.staging.count} keys")
        except ImportFailure:
            told.append("refused")
    assert told[0] == told[1], f"as a whole {told[0]}, in pieces {told[1]}"


def _ledger_file(data: bytes) -> None:
    """A file of a ledger is refused, or is what it says, and can be appended to."""
    disk = MemoryDisk()
    file = disk.create(f"/data/{LEDGER}")
    file.write(data)
    file.close()
    try:
        loaded = load(disk, "/data")
    except LedgerFileError:
        return
    expected = loaded.state.copy()
    written = LedgerFile(disk, "/data", loaded)
    try:
        written.append([LedgerEntry(b"fuzzed:", "a", 1, "m")])
        expected.add([LedgerEntry(b"fuzzed:", "a", 1, "m")])
    except LedgerError:
        # It is full.
        pass
    finally:
        written.close()
    again = load(disk, "/data").state
    assert list(again.records()) == list(expected.records())


def _link(data: bytes) -> None:
    """A replica's link, whatever it asked for: what it makes of a stream, as a whole and in pieces."""
    choices = Choices(data[:4])
    form = choices.pick((Form.EXTENDED, Form.SIX, Form.FIVE))
    names = frozenset(CAPABILITIES) if form is Form.EXTENDED else frozenset()
    history, offset = (0, choices.pick((0, 3))) if form is Form.FIVE else choices.pick(((0, 0), (7, 3), (9, 5)))
    prefixes = choices.pick(((), (b"b:",), (b"a:", b"b:")))
    told = []
    for pieces in ([data[4:]], _pieces(data[4:])):
        link = ReplicaLink(Request(form, history, offset, "id", names), "peer", prefixes=prefixes, missing=prefixes[:1])
        link.start(0.0)
        events: list[Any] = []
        said = b""
        for piece in pieces:
            events += link.feed(piece, 1.0)
            said += link.to_send(1.0)
        if link.state is State.LOST:
            # What it would have said on the way depends on when it has the chance.
            said = b""
        told.append((_flat(events), said, link.state, link.fault, link.expected, link.history))
    assert told[0] == told[1], f"as a whole {told[0]}, in pieces {told[1]}"


def _session(data: bytes) -> None:
    """A client's connection: whatever is asked, it is answered, by twins alike, and memory is counted right."""
    told = []
    for run_commands in _LOOPS:
        node = ServerHarness()
        node.server.run_commands = run_commands
        # The table of commands, which counts their calls, is the whole process's.
        node.server.reset_statistics()
        session = Session(node.server, "127.0.0.1:50000", "127.0.0.1:6004")
        session.peer_gone = lambda: False
        answered = b""
        for piece in _pieces(data):
            if session.closing or not session.wants_read:
                break
            session.receive(piece)
            while session.runnable:
                session.run(float("inf"))
            answered += session.take_output()
        check_memory(node.store)
        assert not node.log.events("error"), node.log.records
        told.append((answered, content(node.store)))
    assert all(one == told[0] for one in told), f"twins answer {[answered for answered, _ in told]!r}"


def _config(data: bytes) -> None:
    try:
        tables = tomli.loads(data.decode())
    except (UnicodeDecodeError, tomli.TOMLDecodeError):
        return
    try:
        NodeConfig.from_dict(tables)
    except ConfigError:
        pass


def _pure_stream() -> StreamDecoder:
    decoder = StreamDecoder()
    decoder._take_frames = None
    return decoder


# The twins of what is pure, where they are built.
_REQUESTS: Final[list[Callable[[], Any]]] = [RequestParser]
_LOOPS: Final[list[Any]] = [loop.run_commands]
if COMPILED:
    _REQUESTS.append(partial(RequestParser, take_plain=import_module("kevynode.compiled.requests").take_plain))
    _LOOPS.append(import_module("kevynode.compiled.loop").run_commands)

TARGETS: Final[dict[str, Target]] = {
    "requests": _decoder(*_REQUESTS, held=lambda reader: reader.held),
    "session": _session,
    "replies": _raising(ReplyParser, ReplyProtocolError),
    "handshake": _raising(HandshakeParser, HandshakeError),
    "stream": _decoder(StreamDecoder, _pure_stream, held=lambda reader: reader.held),
    "replica-link": _link,
    "acknowledgements": _decoder(AckDecoder),
    "snapshot": _snapshot,
    "peer-answer": _raising(AnswerDecoder, PeerWireError),
    "peer-messages": _decoder(PeerDecoder, held=lambda reader: reader.held),
    "move-messages": _decoder(MessageDecoder, held=lambda reader: reader.held),
    "move-hello": _whole(lambda data: parse_hello(data.split(b" ")), MoveWireError),
    "ingest": _whole(lambda data: parse_ingest([b"MOVE-SCOPE-INGEST", b"b:", data]), ReplyError),
    "mark": _whole(lambda data: parse_mark([MARK_COMMAND, MARK_KEY + data])),
    "ledger-rows": _whole(parse_rows, LedgerError),
    "ledger-record": _whole(lambda data: parse_record(data.decode("ascii")), LedgerError, UnicodeDecodeError),
    "ledger-file": _ledger_file,
    "append-only-file": _decoder(RecordReader),
    "annotation": _whole(parse_annotation, AnnotationError),
    "manifest": _whole(Manifest.parse, ManifestError),
    "dump": _whole(read_dump, RdbError),
    "import": _import,
    "configuration": _config,
    "node-with-scopes": with_scopes,
    "node-as-replica": as_replica,
}

#: Targets that take a thousand times longer than the others.
WHOLE_NODES: Final = frozenset({"node-with-scopes", "node-as-replica"})


def corpus_of(name: str) -> list[bytes]:
    """What is kept to begin with for one target: all files of its folder."""
    folder = CORPUS / name
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []
