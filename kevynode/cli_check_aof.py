"""``kevynode check-aof``: what the append-only files of a node are like, and cutting off what is not well."""

from __future__ import annotations

import os
import sys
from typing import Final

from kevynode.cli_output import INTERRUPTED, Progress, counted, fail, reason_of, say
from kevynode.disk import Disk, SystemDisk
from kevynode.persist.folder import FOLDER, AppendOnlyFolder, FolderError, lock_data_dir
from kevynode.persist.loader import FileReport, LoadError, check, fix
from kevynode.transfer import SourceError, find_source

__all__ = ["check_aof"]

_YES: Final = ("y", "yes")


class _Problem(Exception):
    """Why nothing can be checked or repaired."""


def check_aof(path: str, *, fixes: bool, asks: bool) -> int:
    """Check the files of a data directory, or of the append-only folder in it, and return the exit status.

    ``fixes``: cut off what is not as it was written, after a question on the terminal if ``asks``. The directory is
    locked meanwhile, so that no node uses it. Takes long.
    """
    try:
        return _check(SystemDisk(), path, fixes=fixes, asks=asks)
    except (_Problem, SourceError, FolderError, LoadError) as error:
        return fail(error)
    except OSError as error:
        return fail(reason_of(error))
    except KeyboardInterrupt:
        fail("interrupted")
        return INTERRUPTED


def _check(disk: Disk, path: str, *, fixes: bool, asks: bool) -> int:
    data_dir = _data_dir(disk, path)
    lock = lock_data_dir(disk, data_dir)
    try:
        with Progress() as progress:
            progress.told(f"checking {data_dir}")
            reports = check(disk, data_dir)
        _show(reports)
        wrong = [report for report in reports if report.error is not None]
        if not wrong:
            return 0
        if len(wrong) > 1 or not wrong[0].can_be_fixed:
            return fail(f"{_short(wrong[0])}. Nothing can be cut off that would make it good")
        if not fixes:
            return fail(_advice(wrong[0], path))
        return _fix(disk, data_dir, wrong[0], asks=asks)
    finally:
        lock.release()


def _data_dir(disk: Disk, path: str) -> str:
    """The data directory that is meant. Raises _Problem where there are no files of a node."""
    data_dir = os.path.normpath(path)
    if not disk.exists(os.path.join(data_dir, FOLDER)) and os.path.basename(os.path.abspath(data_dir)) == FOLDER:
        data_dir = os.path.dirname(data_dir) or (os.path.abspath("..") if data_dir == os.curdir else os.curdir)
    folder = os.path.join(data_dir, FOLDER)
    if not disk.exists(folder):
        # What is not there at all is told by its own name.
        disk.list(data_dir)
        raise _Problem(f"{path} has no {FOLDER}")
    source = find_source(disk, folder)
    if not source.paths:
        raise _Problem(f"{folder} is empty: no node has written anything there")
    if source.data_dir is None:
        raise _Problem(
            f"{folder} was not written by kevynode. Files of Valkey and Redis are for valkey-check-aof, and "
            f"`kevynode import {path}` brings their data in"
        )
    return data_dir


def _show(reports: list[FileReport]) -> None:
    for report in reports:
        size = counted(report.size, "byte")
        if report.error is None:
            say(f"{report.path}: good, {size}, {counted(report.commands, 'command')}")
        else:
            say(f"{report.path}: {report.error}")
            say(f"    {report.good:,} of {size} are good, with {counted(report.commands, 'command')}")


def _short(report: FileReport) -> str:
    return f"{report.path} {report.error}"


def _advice(report: FileReport, path: str) -> str:
    behind = counted(report.size - report.good, "byte")
    if report.can_be_cut:
        return f"{_short(report)}: a node that starts cuts off the last {behind}, and so does `check-aof --fix {path}`"
    return (
        f"{_short(report)}: no node starts with it. `kevynode check-aof --fix {path}` cuts off the last {behind}, "
        "whatever is in them"
    )


def _fix(disk: Disk, data_dir: str, report: FileReport, *, asks: bool) -> int:
    say(
        f"{report.path} is to be cut from {counted(report.size, 'byte')} to {report.good:,}: "
        f"{counted(report.size - report.good, 'byte')} go, and whatever was written there with them"
    )
    if asks and not _agreed():
        return 1
    folder = AppendOnlyFolder.open(disk, data_dir, is_locked=True)
    try:
        cut = fix(folder)
    finally:
        folder.close()
    if cut is not None:
        say(f"{cut.path}: cut to {counted(cut.offset, 'byte')}")
    left = [found for found in check(disk, data_dir) if found.error is not None]
    return fail(_short(left[0])) if left else 0


def _agreed() -> bool:
    """Whether somebody at the terminal says yes. Prints why not."""
    if not sys.stdin.isatty():
        fail("nothing was cut: nobody is there to be asked (--yes cuts without a question)")
        return False
    sys.stdout.flush()
    sys.stderr.write("Continue? [y/N]: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in _YES:
        return True
    fail("nothing was cut")
    return False
