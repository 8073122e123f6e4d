"""Whatever a client does, a replica that follows live and one that joins afterwards hold what the primary holds."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.cluster import Cluster, ErrorReply, in_cluster, syncs
from support.store_harness import content
from support.verbs import CASES, DATA, TOGETHER

from kevynode import Node
from kevynode.serve.table import TABLE

LINES = {**CASES, "together": TOGETHER}


async def run_line(cluster: Cluster, primary: Node, line: str) -> None:
    """Run the commands of a case."""
    client = await cluster.connect(primary)
    waiting = []
    for command in map(str.strip, line.split(";")):
        words = command.split()
        if words[0] == "PASS":
            await trio.sleep(int(words[1]) / 1000)
        elif command.startswith("&"):
            other = await cluster.connect(primary)
            await other.send(*command[1:].split())
            waiting.append(other)
            await trio.testing.wait_all_tasks_blocked()
        else:
            await client.call(*words)
    await trio.sleep(0.05)
    for other in (client, *waiting):
        await other.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
@in_cluster
async def test_copies_hold_what_the_primary_holds(cluster: Cluster, name: str) -> None:
    primary = await cluster.start("primary", port=7000)
    live = await cluster.start("live", port=7001, upstream=primary)
    await cluster.settle(primary, live)
    client = await cluster.connect(primary)
    changed = 0
    for line in LINES[name]:
        await client.call("FLUSHALL")
        for reply in await client.pipeline(*DATA):
            assert not isinstance(reply, ErrorReply), reply
        before = content(primary.store)
        await run_line(cluster, primary, line)
        changed += content(primary.store) != before
        await cluster.settle(primary, live)
        copy = await cluster.start("copy", port=7002, upstream=primary)
        await cluster.settle(primary, copy)
        await cluster.kill(copy)
    # A node has one database, so there is nothing to move.
    assert changed or name in ("move", "swapdb")
    assert syncs(primary) == (1 + len(LINES[name]), 0, 0)


def test_every_command_that_writes_has_cases() -> None:
    writing = {
        entry.full_name for command in TABLE for entry in (command.subcommands.values() or (command,)) if entry.writes
    }
    assert writing == CASES.keys()
    for name, lines in CASES.items():
        for line in lines:
            assert f"{name.upper()} " in f"{line} ".replace(";", " "), f"{line} says nothing of {name}"
