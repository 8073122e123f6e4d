"""The process ``kevynode run``: a node, the signals that end it, and the line that says where it is."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

import trio

from .config import NodeConfig
from .log import Logger
from .node import Node, StartError
from .persistence_view import LoadFacts
from .progress import ProgressBar
from .serve.limits import fit_descriptor_limit
from .twins import OUTDATED

__all__ = ["StartError", "run"]

#: When cyclic garbage is looked for. There is little of it, and each look at the youngest or the middle generation is
#: short with these numbers; a look at everything takes a tenth of a second for a million small containers.
COLLECT_AFTER: Final = (10_000, 5, 1_000)
#: Bytes from which on memory is taken from the system directly, and so given back at once: blocks of the backlog.
MAPPED_FROM: Final = 128 * 1024
#: Seconds between two turns of the interpreter's threads. A hub under load lets go of the interpreter's lock only for
#: moments, so a thread must ask for it soon after the last time; this is below the time of one turn of a session.
SWITCH_INTERVAL: Final = 0.0002


async def run(config: NodeConfig, log: Logger, *, ready: Callable[[str], None] | None = None) -> None:
    """Be the process ``kevynode run``: serve until SIGTERM, SIGINT or SHUTDOWN; SIGHUP reopens the log.

    ``ready`` is called with the one line that tells the world where the node is. Raises StartError.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    if OUTDATED:
        log.warning("compiled_parts_outdated", running="pure", advice="build them again: python hatch_build.py")
    # Nothing that is made while data are loaded is garbage, and nobody needs to look at it again afterwards.
    gc.disable()
    gc.set_threshold(*COLLECT_AFTER)
    _keep_allocator_steady()
    # The receiver opens before anything else, so that no signal can interrupt a command half done.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        node = Node(config, log)
        folder = config.server.data_dir
        if not os.path.isdir(folder):  # noqa: ASYNC240  nothing else runs yet
            exists = os.path.lexists(folder)  # noqa: ASYNC240
            reason = f"{folder} is no folder" if exists else f"there is no folder {folder}: make it first"
            raise StartError(f"server.data_dir: {reason}")
        try:
            node.parameters.put("maxclients", fit_descriptor_limit(config.server.maxclients, log))
        except OSError as error:
            raise StartError(str(error)) from error
        bar = ProgressBar(sys.stderr)
        if bar.is_wanted and config.log.output == "stderr":
            # People look at it as it happens, and want no line for each second.
            node.files.on_progress = partial(_show_load, bar)
            node.files.on_loaded = bar.clear
        failure: StartError | None = None
        try:
            await node.open_files()
            await node.listen()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_obey, signals, node, log, nursery.cancel_scope)
                try:
                    await nursery.start(_run_to_the_end, node, nursery.cancel_scope)
                except StartError as error:
                    failure = error
                    nursery.cancel_scope.cancel()
                else:
                    bar.clear()
                    gc.freeze()
                    gc.enable()
                    if node.loaded:
                        (ready or print_line)(_ready_line(node))
        finally:
            bar.clear()
            await node.files.finish()
        if failure is not None:
            raise failure


async def _obey(signals: AsyncIterator[int], node: Node, log: Logger, scope: trio.CancelScope) -> None:
    """Do what signals ask for: stop, stop at once when asked twice, reopen the log."""
    stopping = False
    async for number in signals:
        if number == signal.SIGHUP:
            log.reopen()
        elif stopping:
            # Do not wait for clients.
            scope.cancel()
        else:
            stopping = True
            log.info("stopping", signal=signal.Signals(number).name)
            node.stop()


def _show_load(bar: ProgressBar, facts: LoadFacts) -> None:
    bar.show("loading", facts.loaded_bytes, facts.total_bytes, f"{facts.keys} keys, {facts.seconds:.0f} s")


def _ready_line(node: Node) -> str:
    return f"kevynode ready id={node.id} client={node.addresses[0]} replication={node.replication_address or '-'}"


def _keep_allocator_steady() -> None:
    """Have the C library give large blocks back when they are freed; left alone it soon keeps them for later use."""
    try:
        # The number of M_MMAP_THRESHOLD in glibc, which adapts the value by itself unless it is set.
        ctypes.CDLL(None).mallopt(-3, MAPPED_FROM)
    except (OSError, AttributeError):
        # Another C library has other habits.
        pass


async def _run_to_the_end(
    node: Node, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the node; when it has stopped, for whatever reason, nobody needs to wait for signals any more."""
    await node.run(task_status=task_status)
    scope.cancel()


def print_line(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
