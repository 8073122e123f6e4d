"""Everything that reads bytes from others or from files, as functions that take any bytes and must not fail.

A **target** feeds one reader the bytes as a whole and in pieces. The reader may refuse them with its own error, and
must find the same however they are cut. ``tests/sim/test_fuzzing.py`` draws bytes with Hypothesis; long runs are
``python -m tests.sim.fuzz TARGET``, where atheris is installed. Both begin with the files of ``tests/sim/corpus``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import tomli

from kevynode.config import ConfigError, NodeConfig
from kevynode.persist.annotations import AnnotationError, parse_annotation
from kevynode.persist.manifest import Manifest, ManifestError
from kevynode.persist.record_reader import RecordReader
from kevynode.rdb.reader import read_dump
from kevynode.rdb.texts import RdbError
from kevynode.replicate.ack_decoder import AckDecoder
from kevynode.replicate.handshake import HandshakeError, HandshakeParser
from kevynode.replicate.snapshot_decoder import SnapshotDecoder, SnapshotError
from kevynode.replicate.stream_decoder import StreamDecoder
from kevynode.reply_parser import ReplyParser, ReplyProtocolError
from kevynode.resp import RequestParser
from kevynode.scope.ledger import parse_rows
from kevynode.scope.ledger_records import parse_record
from kevynode.scope.ledger_text import LedgerError
from kevynode.scope.move_wire import MessageDecoder
from kevynode.scope.peer_wire import AnswerDecoder, PeerDecoder, PeerWireError
from kevynode.store.staging import Staging

__all__ = ["CORPUS", "TARGETS", "Target", "corpus_of"]

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


def _decoder(make: Callable[[], Any], held: Callable[[Any], int] | None = None) -> Target:
    """A reader whose ``feed`` returns what is complete, and never raises: afterwards ``error`` says what was wrong."""

    def run(data: bytes) -> None:
        told = []
        for pieces in ([data], _pieces(data)):
            reader = make()
            events: list[Any] = []
            for piece in pieces:
                events += reader.feed(piece)
                if held is not None:
                    # What it holds goes by what has come, and not by what is announced.
                    assert held(reader) <= _OVERHEAD * (len(data) + 1), f"holds {held(reader)} bytes of {len(data)}"
            told.append((_flat(events), reader.error is None))
        assert told[0] == told[1], f"as a whole {told[0]!r}, in pieces {told[1]!r}"

    return run


def _flat(events: Sequence[Any]) -> list[str]:
    """What was told, frame by frame: how many of them come in one event is the reader's own affair."""
    told: list[str] = []
    for event in events:
        commands = getattr(event, "commands", None)
        if isinstance(commands, list) and not getattr(event, "grouped", False):
            told += [repr(command) for command in commands]
        else:
            told.append(repr(event))
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


def _config(data: bytes) -> None:
    try:
        tables = tomli.loads(data.decode())
    except (UnicodeDecodeError, tomli.TOMLDecodeError):
        return
    try:
        NodeConfig.from_dict(tables)
    except ConfigError:
        pass


TARGETS: Final[dict[str, Target]] = {
    "requests": _decoder(RequestParser, lambda reader: reader.held),
    "replies": _raising(ReplyParser, ReplyProtocolError),
    "handshake": _raising(HandshakeParser, HandshakeError),
    "stream": _decoder(StreamDecoder, lambda reader: reader.held),
    "acknowledgements": _decoder(AckDecoder),
    "snapshot": _snapshot,
    "peer-answer": _raising(AnswerDecoder, PeerWireError),
    "peer-messages": _decoder(PeerDecoder, lambda reader: reader.held),
    "move-messages": _decoder(MessageDecoder, lambda reader: reader.held),
    "ledger-rows": _whole(parse_rows, LedgerError),
    "ledger-record": _whole(lambda data: parse_record(data.decode("ascii")), LedgerError, UnicodeDecodeError),
    "append-only-file": _decoder(RecordReader),
    "annotation": _whole(parse_annotation, AnnotationError),
    "manifest": _whole(Manifest.parse, ManifestError),
    "dump": _whole(read_dump, RdbError),
    "configuration": _config,
}


def corpus_of(name: str) -> list[bytes]:
    """What is kept to begin with for one target: all files of its folder."""
    folder = CORPUS / name
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []
