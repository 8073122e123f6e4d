"""Mistakes that a simulation has to find: each is made in a copy of the package, and then it is searched for.

::

    python -m tests.sim.mutations [--seeds 150] [--minutes 3] [--only WORD]

says of each mistake whether it was caught, by which seed and by which check. Ends with 1 if any was missed, or cannot
be made any more because the code is another one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

__all__ = ["MUTATIONS", "Mutation", "main"]

ROOT = Path(__file__).resolve().parent.parent.parent


@attrs.frozen
class Mutation:
    """A mistake: in ``file`` of the package ``new`` stands instead of ``old``, which is there once."""

    name: str
    file: str
    old: str
    new: str
    profile: str

    def find(self, package: Path) -> str:
        """The text of the file. Raises ValueError if what is to be changed is not there, or is there twice."""
        text = (package / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} has it {text.count(self.old)} times: {self.old!r}")
        return text

    def make(self, package: Path) -> None:
        """Make the mistake."""
        text = self.find(package)
        (package / self.file).write_text(text.replace(self.old, self.new), encoding="utf-8")


MUTATIONS = (
    Mutation(
        "skip a fsync",
        "persist/folder.py",
        "        try:\n            self._file.sync()\n",
        "        try:\n            pass\n",
        "restarts",
    ),
    Mutation(
        "rely on bytes that a failed sync has left in memory alone",
        "persist/unproven.py",
        "        _copy(disk, unproven, file)\n        file.sync()\n",
        "        file.sync()\n",
        "restarts",
    ),
    Mutation(
        "answer for any time that a sync takes",
        "persist/gate.py",
        "            and self._now() - self._durable_as_of > MOST_EXPOSED\n",
        "            and self._now() - self._durable_as_of > 1000\n",
        "restarts",
    ),
    Mutation(
        "acknowledge a scope before it is in place",
        "replicate/coverage.py",
        "None if self.prefixes is None else self.resyncs.held(self.prefixes)",
        "self.prefixes",
        "all",
    ),
    Mutation(
        "acknowledge what has come before it is applied",
        "replicate/upstream.py",
        "                    events = link.feed(bytes(data), now)\n",
        "                    events = link.feed(bytes(data), now)\n"
        "                    if link.state is State.LIVE and link.expected != link.position:\n"
        "                        link.applied(link.expected, now)\n"
        "                        await self._send(link, stream, link.to_send(now))\n",
        "replication",
    ),
    Mutation(
        "forget the branch point",
        "replicate/lineage.py",
        "            bound = min(bound, offset)\n",
        "",
        "replication",
    ),
    Mutation(
        "flip before the seal",
        "scope/target_steps.py",
        "        output += [Quiesce(self.node_id), CheckCopy(self._ticket, event.history,"
        " event.offset, bool(event.digest))]\n",
        "        output += [Quiesce(self.node_id), Send(Sealed(self.move_id, *self._expected))]\n",
        "moves",
    ),
    Mutation(
        "drop the pin",
        "replicate/backlog.py",
        "            held_from = self.pins.lowest\n            while",
        "            held_from = None\n            while",
        "replication",
    ),
    Mutation(
        "take an older epoch for a newer one",
        "scope/ledger.py",
        "            if not held or entry.epoch > held[0].epoch:\n",
        "            if not held or entry.epoch != held[0].epoch:\n",
        "moves",
    ),
    Mutation(
        "resume writes before ABORTED is durable",
        "scope/source_steps.py",
        "        self.shipping = False\n        self._record(SourceState.ABORTING,",
        "        self.shipping = False\n        output.append(Resume())\n        self._record(SourceState.ABORTING,",
        "moves",
    ),
    Mutation(
        "resume writes when the link is lost, whatever was sealed",
        "scope/source_steps.py",
        "    def _unlinked(self, event: LinkLost, now: float, output: _Output) -> None:\n",
        "    def _unlinked(self, event: LinkLost, now: float, output: _Output) -> None:\n"
        "        output.append(Resume())\n",
        "moves",
    ),
    Mutation(
        "send the deletions of what was moved to those who follow it",
        "replicate/filtering.py",
        "        return self._accept(key) and not (self._released and key.startswith(tuple(self._released)))\n",
        "        return self._accept(key)\n",
        "moves",
    ),
    Mutation(
        "take UNKNOWN for ABORTED",
        "scope/target_move.py",
        "            Resolve: _M._resolve,\n            LedgerChanged: _M._ledger_changed,\n        },\n"
        "        (Request, Chunk, Unknown, LinkLost),",
        "            Resolve: _M._resolve,\n            LedgerChanged: _M._ledger_changed,\n"
        "            Unknown: _M._not_known,\n        },\n        (Request, Chunk, LinkLost),",
        "moves",
    ),
    Mutation(
        "keep the history after a restart",
        "replicate/replication.py",
        "            branches = opens or self._renumbers\n",
        "            branches = self._renumbers\n",
        "restarts",
    ),
    Mutation(
        "make a branch in a chain",
        "replicate/replication.py",
        "            branches = opens or self._renumbers\n",
        "            branches = True\n",
        "replication",
    ),
    Mutation(
        "let a cursor lag its entry",
        "replicate/mesh_follower.py",
        "        self.sink.note_cursor(upstream.address, journal.origin.history, next_offset)\n",
        "        self.sink.note_cursor(upstream.address, journal.origin.history, next_offset - 1)\n",
        "restarts",
    ),
    Mutation(
        "count a copy in WAIT for what it does not copy",
        "replicate/slots.py",
        "        return all(key.startswith(prefixes) for key in written)\n",
        "        return True\n",
        "all",
    ),
    Mutation(
        "let an empty writer ship",
        "scope/opening.py",
        "    return keys == 0 and not (was_opened and has_loaded)\n",
        "    return False\n",
        "restarts",
    ),
    Mutation(
        "answer REPL.WAIT before a scope is followed at its new writer",
        "replicate/mesh.py",
        "                return applied and not self._awaits(node_id, follower)\n",
        "                return applied\n",
        "moves",
    ),
    Mutation(
        "keep a copy from who was not the writer any more",
        "replicate/mesh_follower.py",
        "            if is_whole and mark.epoch > self._epochs.get(prefix, -1):\n",
        "            if False:\n",
        "moves",
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutations", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=150, help="simulations for each of them at most (150)")
    parser.add_argument("--minutes", type=float, default=3.0, help="minutes for each of them at most (3)")
    parser.add_argument("--only", default="", help="those whose name has this word")
    options = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    missed = 0
    for mutation in chosen:
        began = time.monotonic()
        verdict = _search(mutation, options.seeds, options.minutes)
        missed += not verdict.startswith("caught")
        sys.stdout.write(f"{mutation.name:<60} {time.monotonic() - began:5.0f} s  {verdict}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} caught\n")
    return 1 if missed else 0


def _search(mutation: Mutation, seeds: int, minutes: float) -> str:
    end = time.monotonic() + 60 * minutes
    first = 1
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copytree(ROOT / "kevynode", place / "kevynode", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        (place / "tests").symlink_to(ROOT / "tests")
        try:
            mutation.make(place / "kevynode")
        except ValueError as error:
            return f"cannot be made: {error}"
        while first <= seeds and (left := end - time.monotonic()) > 0:
            limits = ["--first", str(first), "--seeds", str(seeds - first + 1), "--minutes", str(left / 60)]
            told = _run(place, mutation.profile, *limits, "--failures", "1", "--no-shrink")
            found = next((line for line in told.splitlines() if line.startswith("seed ")), "")
            if not found:
                return (
                    f"missed by {seeds} seeds, or in time"
                    if "failed     0" in told
                    else f"cannot be run: {told[-200:]}"
                )
            seed = int(found.split()[1])
            # A seed that fails without the mistake as well says nothing about it.
            if "failed     0" in _run(ROOT, mutation.profile, "--first", str(seed), "--seeds", "1", "--no-shrink"):
                return f"caught: {found[:110]}"
            first = seed + 1
    return "missed in time"


def _run(place: Path, *words: str) -> str:
    """What the simulation says of the package in a folder."""
    command = [sys.executable, "-m", "tests.sim", "--profile", *words]
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
