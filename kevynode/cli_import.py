"""``kevynode import``: the data of a file, or of a folder of files, sent to a running node."""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import attrs

from kevynode.cli_output import INTERRUPTED, Progress, counted, fail, note, reason_of, say, shown
from kevynode.disk import SystemDisk
from kevynode.probe import ErrorReply, Probe, ProbeError, connect
from kevynode.store.staging import Staging
from kevynode.store.stream_values import Stream
from kevynode.transfer import READ_ERRORS, ExportPiece, ImportReport, Source, export_pieces, read_source

__all__ = ["Options", "run_import"]

#: Bytes of commands that are on their way while no reply to them has been read.
_WINDOW: Final = 256 * 1024
#: Seconds that a node may take for one reply.
_PATIENCE: Final = 60.0
#: Keys that a node looks at for one reply to SCAN.
_SCAN_COUNT: Final = b"1000"
#: What a stream is built with.
_STREAM_COMMANDS: Final = (b"XADD", b"XTRIM", b"XSETID", b"XGROUP", b"XCLAIM")
_GLOB: Final = b"\\*?[]"


@attrs.frozen
class Options:
    """What is wanted; see the arguments of the command."""

    path: str
    address: str
    scope: bytes = b""
    database: int | None = None
    replaces: bool = False
    without_streams: bool = False


class _Problem(Exception):
    """Why nothing, or not all, was imported."""


def run_import(options: Options) -> int:
    """Import, print how it went, and return the exit status. Takes long."""
    run = _Run(options)
    try:
        with run.progress:
            run.all()
    except (_Problem, ProbeError, *READ_ERRORS) as error:
        return fail(f"{error}{run.so_far()}")
    except OSError as error:
        return fail(f"{reason_of(error)}{run.so_far()}")
    except KeyboardInterrupt:
        fail(f"interrupted{run.so_far()}")
        return INTERRUPTED
    return 0


class _Run:
    """One import."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.progress = Progress()
        self._keys = 0
        self._arrived = 0
        # Whether something that was there may have been removed, and whether new keys may have arrived.
        self._began_to_remove = False
        self._began_to_send = False
        self._streams = 0

    def so_far(self) -> str:
        """What has to be said about an import that came to no good end."""
        if self._began_to_send:
            removed = ", what was there before is gone" if self._began_to_remove else ""
            return f" ({self._arrived:,} of {counted(self._keys, 'key')} had arrived, maybe a few more{removed})"
        if self._began_to_remove:
            return " (what was there before may be gone, or a part of it, and nothing has taken its place)"
        return ""

    def all(self) -> None:
        """All steps, in order. The node is looked at first: reading may take minutes."""
        began = time.monotonic()
        # A file that is not there is told first of all.
        os.stat(self.options.path)
        with self._connect() as probe:
            _call(probe, b"PING")
            if not self.options.replaces:
                self._refuse_to_mix(probe)
        staging, report, source = self._read()
        with self._connect() as probe:
            self._leave_streams(probe, staging)
            self._keys = staging.count
            if self.options.replaces:
                self._remove(probe)
            else:
                self._refuse_to_mix(probe)
            self._send(probe, staging)
        self.progress.clear()
        for path in source.beside:
            note(f"{path} lies beside the files that were read, and was not read")
        say(_summary(self.options, report, self._streams, self._keys, time.monotonic() - began))

    def _connect(self) -> Probe:
        return connect(self.options.address, timeout=_PATIENCE)

    def _read(self) -> tuple[Staging, ImportReport, Source]:
        options = self.options
        path = os.path.normpath(options.path)
        if path == os.curdir or path.startswith(os.pardir):
            path = os.path.abspath(path)
        name = os.path.basename(path)
        result = read_source(
            SystemDisk(),
            path,
            random.Random(),
            database=options.database,
            prefix=options.scope,
            now_ms=time.time_ns() // 1_000_000,
            on_progress=lambda done, whole: self.progress.bytes(f"reading {name}", done, whole),
        )
        self.progress.clear()
        return result

    # -- the node -----------------------------------------------------------------------------------------------------

    def _refuse_to_mix(self, probe: Probe) -> None:
        """Raise _Problem if the node has keys where the new ones are to go."""
        if not self.options.scope:
            count = _call(probe, b"DBSIZE")
            if count:
                raise _Problem(f"{probe.address} has {counted(count, 'key')} already: --replace removes them first")
            return
        for keys in self._scan(probe):
            if keys:
                raise _Problem(
                    f"{probe.address} has keys already that begin with {shown(self.options.scope)}, such as "
                    f"{shown(keys[0])}: --replace removes them first"
                )

    def _scan(self, probe: Probe) -> Iterator[list[bytes]]:
        """The node's keys under the scope, some at a time; a key may come twice."""
        pattern = b"".join(b"\\%c" % byte if byte in _GLOB else b"%c" % byte for byte in self.options.scope) + b"*"
        cursor = b"0"
        while True:
            cursor, keys = _call(probe, b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT)
            yield keys
            if cursor == b"0":
                return

    def _remove(self, probe: Probe) -> None:
        """Remove what is there. Raises _Problem if nothing would take its place."""
        if not self._keys:
            raise _Problem(f"{self.options.path} has nothing to import, so nothing was removed")
        if not self.options.scope:
            self._remove_by(probe, b"FLUSHALL")
            return
        removed = 0
        for keys in self._scan(probe):
            if keys:
                removed += self._remove_by(probe, b"UNLINK", *keys)
            self.progress.told(f"removing: {counted(removed, 'key')}")
        self.progress.clear()

    def _remove_by(self, probe: Probe, *words: bytes) -> Any:
        """Send a command that removes keys. One that is refused has removed none; without an answer nobody knows."""
        before, self._began_to_remove = self._began_to_remove, True
        try:
            return _call(probe, *words)
        except _Problem:
            self._began_to_remove = before
            raise

    def _leave_streams(self, probe: Probe, staging: Staging) -> None:
        """Take out streams if that is wanted. Raises _Problem if they are to go to a node that knows none."""
        streams = [key for key, value in staging.keyspace.items() if type(value) is Stream]
        if not streams:
            return
        if self.options.without_streams:
            for key in streams:
                staging.remove(key)
            self._streams = len(streams)
        elif None in _call(probe, b"COMMAND", b"INFO", *_STREAM_COMMANDS):
            raise _Problem(
                f"{self.options.path} has {counted(len(streams), 'stream')}, such as {shown(streams[0])}, and "
                f"{probe.address} does not know the commands for streams: --without-streams leaves them out"
            )

    def _send(self, probe: Probe, staging: Staging) -> None:
        on_their_way: deque[ExportPiece] = deque()
        size = 0
        self._began_to_send = bool(self._keys)
        for piece in export_pieces(staging.keyspace.shards()):
            if piece.commands:
                probe.send(piece.data)
                on_their_way.append(piece)
                size += len(piece.data)
            while size > _WINDOW:
                size -= len(on_their_way[0].data)
                self._collect(probe, on_their_way.popleft())
        for piece in on_their_way:
            self._collect(probe, piece)

    def _collect(self, probe: Probe, piece: ExportPiece) -> None:
        """Read the replies to a piece. Raises _Problem for the first that is an error."""
        for command in piece.commands:
            try:
                probe.reply()
            except ErrorReply as error:
                raise _Problem(f"{command[0].decode()} {shown(_key(command))}: {error}") from None
        self._arrived += piece.keys
        self.progress.keys("sending", self._arrived, self._keys)


def _key(command: list[bytes]) -> bytes:
    return command[2] if command[0] == b"XGROUP" else command[1]


def _call(probe: Probe, *words: bytes) -> Any:
    try:
        return probe.call(*words)
    except ErrorReply as error:
        raise _Problem(f"{probe.address}: {words[0].decode()}: {error}") from None


def _summary(options: Options, report: ImportReport, streams: int, keys: int, seconds: float) -> str:
    """One line about an import that is done."""
    told = [report.writer] if report.writer else []
    if report.database:
        told.append(f"database {report.database}")
    if report.dumped and not report.verified:
        told.append("without a checksum")
    origin = f" ({', '.join(told)})" if told else ""
    line = f"imported {counted(keys, 'key')} from {counted(report.bytes, 'byte')}{origin} in {seconds:.1f} s"
    left_out = [text for number, text in _left_out(options, report, streams) if number]
    return f"{line}; left out: {', '.join(left_out)}" if left_out else line


def _left_out(options: Options, report: ImportReport, streams: int) -> Iterator[tuple[int, str]]:
    yield report.expired, counted(report.expired, "expired key")
    yield report.expired_fields, counted(report.expired_fields, "expired field")
    yield report.empty, counted(report.empty, "key without elements", "keys without elements")
    yield report.other_databases, f"{counted(report.other_databases, 'key')} of other databases"
    yield report.other_commands, f"{counted(report.other_commands, 'command')} for other databases"
    prefix = shown(options.scope)
    yield report.other_prefixes, f"{counted(report.other_prefixes, 'key')} without the prefix {prefix}"
    yield streams, counted(streams, "stream")
    yield report.functions, counted(report.functions, "library of functions", "libraries of functions")
    yield report.module_data, f"{counted(report.module_data, 'piece')} of module data"
    yield report.passed_over, f"{counted(report.passed_over, 'command')} about functions, scripts or messages"
    if report.torn is not None:
        offset, size = report.torn
        yield size, f"an unfinished end of {counted(size, 'byte')} from byte {offset} on"
