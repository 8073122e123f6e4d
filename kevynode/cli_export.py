"""``kevynode export``: the data of a node as commands that another server loads."""

from __future__ import annotations

import os
import random
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final

import attrs

from kevynode.cli_output import INTERRUPTED, Progress, counted, fail, note, reason_of, say
from kevynode.disk import SystemDisk
from kevynode.probe import ProbeError, parse_address
from kevynode.serve.info import human_size
from kevynode.store.staging import Staging
from kevynode.transfer import READ_ERRORS, Swept, export_pieces, read_source, sweep

__all__ = ["Options", "run_export"]

#: How far the replication port lies above the client port, unless somebody has set it elsewhere.
_REPLICATION_OFFSET: Final = 10000
_LAST_PORT: Final = 65535


@attrs.frozen
class Options:
    """What is wanted; see the arguments of the command. ``replication`` and ``directory`` go before ``address``."""

    address: str
    replication: str | None = None
    directory: str | None = None
    scope: bytes = b""
    output: str | None = None


class _Problem(Exception):
    """Why nothing was exported."""


def run_export(options: Options) -> int:
    """Export, print how it went, and return the exit status. Takes long."""
    try:
        _export(options)
    except BrokenPipeError:
        # Whoever reads has had enough. Nothing must be written at the end of the process, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (_Problem, ProbeError, *READ_ERRORS) as error:
        return fail(error)
    except OSError as error:
        return fail(reason_of(error))
    except KeyboardInterrupt:
        fail("interrupted")
        return INTERRUPTED
    return 0


def _export(options: Options) -> None:
    began = time.monotonic()
    with Progress() as progress:
        staging = _from_files(options, progress) if options.directory is not None else _from_node(options, progress)
        for _ in sweep(staging, Swept(), prefix=options.scope, now_ms=time.time_ns() // 1_000_000):
            pass
        progress.clear()
        keys = size = 0
        with _opened(options.output) as file:
            for piece in export_pieces(staging.keyspace.shards()):
                file.write(piece.data)
                keys += piece.keys
                size += len(piece.data)
                if options.output is not None:
                    progress.keys("writing", keys, staging.count)
    line = f"exported {counted(keys, 'key')}, {counted(size, 'byte')}, in {time.monotonic() - began:.1f} s"
    if options.output is not None:
        say(line)
    elif sys.stderr.isatty():
        note(line)


# -- where the data come from -----------------------------------------------------------------------------------------


def _from_files(options: Options, progress: Progress) -> Staging:
    assert options.directory is not None
    path = os.path.normpath(options.directory)
    if path == os.curdir or path.startswith(os.pardir):
        path = os.path.abspath(path)
    staging, report, source = read_source(
        SystemDisk(),
        path,
        random.Random(),
        prefix=options.scope,
        on_progress=lambda done, whole: progress.bytes("reading", done, whole),
    )
    progress.clear()
    for beside in source.beside:
        note(f"{beside} lies beside the files that were read, and was not read")
    if report.torn is not None:
        offset, size = report.torn
        note(f"{source.paths[-1]} has an unfinished end, left out: {counted(size, 'byte')} from byte {offset} on")
    return staging


def _from_node(options: Options, progress: Progress) -> Staging:
    import trio

    from kevynode.cli_fetch import FetchError, fetch

    host, port = _replication_address(options)
    try:
        return trio.run(fetch, host, port, options.scope, lambda done: progress.told(f"receiving: {human_size(done)}"))
    except FetchError as error:
        hint = "" if options.replication is not None else " (--replication names another replication address)"
        raise _Problem(f"{error}{hint}") from None
    except BaseExceptionGroup as group:
        # Ctrl-C while several addresses were tried at once.
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None


def _replication_address(options: Options) -> tuple[str, int]:
    if options.replication is not None:
        return parse_address(options.replication)
    host, port = parse_address(options.address)
    if port + _REPLICATION_OFFSET > _LAST_PORT:
        raise _Problem(f"{options.address}: there is no port {port} + {_REPLICATION_OFFSET}: name it (--replication)")
    return host, port + _REPLICATION_OFFSET


# -- where they go ----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(output: str | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that has its name only when everything is in it."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = os.path.realpath(output)
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        # A device or a pipe.
        with open(path, "wb") as file:
            yield file
        return
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"temp-{os.getpid()}-{name}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    SystemDisk().sync_folder(folder)
