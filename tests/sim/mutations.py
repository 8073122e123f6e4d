"""Mistakes that a simulation has to find: each is made in a copy of the package, and then it is searched for.

::

    python -m tests.sim.mutations [--only WORD]

runs for each mistake the plans that are kept for it in ``tests/sim/caught``, with a few seeds each for what a plan
leaves open, and searches among other seeds if none of them fails (``--seeds 150 --minutes 3``; ``--keep`` writes the
plan that was found there, shrunk). It says of each whether it was caught, by which plan and which check, and ends with
1 if any was missed, or cannot be made any more because the code is another one. What fails, or hangs, without the
mistake as well says nothing about it, and does not count.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

# The modules of the tests are found from their own folder, as pytest does it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.plan import plan_from_json
from sim.scheduling import HASH_SEED
from sim.trials import HANGS, read

__all__ = ["CAUGHT", "MUTATIONS", "ROOT", "SEEDS", "Mutation", "Trial", "main", "mutated", "try_plans"]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: Where plans are kept that catch a mistake.
CAUGHT: Final = Path(__file__).resolve().parent / "caught"
#: Seeds that a kept plan is run with, its own and those that follow it: a change may have one of them miss the moment.
SEEDS: Final = 8
#: Seconds of a processor that one simulation may take: many times what it does.
PATIENCE: Final = 60


@attrs.frozen
class Mutation:
    """A mistake: in ``file`` of the package ``new`` stands instead of ``old``, which is there once.

    ``also`` are further files, with their old and new texts: where one line of defence is enough, a mistake is one if
    none is left. ``profile`` is what it is searched with.
    """

    name: str
    file: str
    old: str
    new: str
    profile: str
    also: tuple[tuple[str, str, str], ...] = ()

    def changed(self, package: Path) -> dict[str, str]:
        """The texts of the files with the mistake. Raises ValueError if what is to be changed is not there once."""
        texts: dict[str, str] = {}
        for file, old, new in ((self.file, self.old, self.new), *self.also):
            text = texts.get(file) or (package / file).read_text(encoding="utf-8")
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {file} has it {text.count(old)} times: {old!r}")
            texts[file] = text.replace(old, new)
        return texts

    def make(self, package: Path) -> None:
        """Make the mistake. Raises ValueError as :meth:`changed` does."""
        for file, text in self.changed(package).items():
            (package / file).write_text(text, encoding="utf-8")

    def plans(self) -> list[Path]:
        """The plans that are kept for it."""
        return sorted(file for file in CAUGHT.glob("*.json") if re.fullmatch(rf"{self.stem}(-\d+)?", file.stem))

    @property
    def stem(self) -> str:
        """What the names of those begin with."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())


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
        "with always answer before the sync",
        "persist/gate.py",
        '        if writer.policy == "always" and writer.durable_mark < writer.mark:\n',
        "        if False:\n",
        "restarts",
        (
            (
                "persist/gate.py",
                "writer.reply_mark >= writer.mark\n\n    def _look",
                "writer.written_mark >= writer.mark\n\n    def _look",
            ),
        ),
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
        "take a larger history for the same",
        "replicate/lineage.py",
        "        if history == self.history:\n",
        "        if history >= self.history:\n",
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
        (
            (
                "replicate/replicas.py",
                "        if self.is_elsewhere is not None and not link.request.is_restoring and",
                "        if False and self.is_elsewhere is not None and",
            ),
        ),
    ),
)


@attrs.frozen
class Trial:
    """What came of plans that were tried: how one failed. False: none did."""

    #: The plan's name, or the profile, and the seed.
    of: str = ""
    seed: int = 0
    failure: str = ""

    def __bool__(self) -> bool:
        return bool(self.failure)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[Path]:
    """A folder with a copy of the package in which the mistake is made. Raises ValueError as the mutation does."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        # Without compiled parts: they are made from other files.
        shutil.copytree(ROOT / "kevynode", place / "kevynode", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        mutation.make(place / "kevynode")
        yield place


def try_plans(place: Path, *words: str | Path | float) -> Trial:
    """Simulate with the package in a folder what these arguments of :mod:`sim.trials` say, until one fails or hangs.

    Raises ChildProcessError if the simulation itself cannot go on.
    """
    command = [sys.executable, "-m", "sim.trials", "--patience", str(PATIENCE), *map(str, words)]
    paths = os.pathsep.join((str(place), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": HASH_SEED, "KEVYNODE_PURE": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    told = read(done.stdout)
    if done.returncode == 0:
        return Trial(told.of, told.seed)
    if -done.returncode in HANGS:
        return Trial(told.of, told.seed, f"hang: no end after {PATIENCE} s of a processor")
    if told.failures:
        return Trial(told.of, told.seed, told.failures[0])
    raise ChildProcessError(f"it ends with {done.returncode}: {done.stderr[-300:].strip()}")


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutations", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=150, help="searched for each that no kept plan catches (150)")
    parser.add_argument("--minutes", type=float, default=3.0, help="minutes of that for each of them at most (3)")
    parser.add_argument("--only", default="", metavar="WORD", help="those whose name has this word")
    parser.add_argument("--keep", action="store_true", help="keep the plans that were found by searching, shrunk")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mistakes that are tried at a time (1)")
    options = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    judge = partial(_judge, seeds=options.seeds, minutes=options.minutes, keep=options.keep)
    missed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutation, (verdict, seconds) in zip(chosen, pool.map(judge, chosen), strict=True):
            missed += not verdict.startswith("caught")
            sys.stdout.write(f"{mutation.name:<60} {seconds:5.0f} s  {verdict}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} caught\n")
    return 1 if missed else 0


def _judge(mutation: Mutation, *, seeds: int, minutes: float, keep: bool) -> tuple[str, float]:
    """The verdict, and how many seconds it took."""
    began = time.monotonic()
    return _verdict(mutation, seeds, minutes, keep=keep), time.monotonic() - began


def _verdict(mutation: Mutation, seeds: int, minutes: float, *, keep: bool) -> str:
    try:
        mutation.changed(ROOT / "kevynode")
    except ValueError as error:
        return f"cannot be made: {error}"
    with mutated(mutation) as place:
        try:
            return _run_kept(mutation, place) or _search(mutation, place, seeds, 60 * minutes, keep=keep)
        except ChildProcessError as error:
            return f"cannot be run: {error}"


def _run_kept(mutation: Mutation, place: Path) -> str:
    for plan in mutation.plans():
        first = 1
        while first <= SEEDS and (found := try_plans(place, plan, "--first", first, "--seeds", SEEDS + 1 - first)):
            own = plan_from_json(plan.read_text(encoding="utf-8")).seed
            this = found.seed - own + 1
            if not try_plans(ROOT, plan, "--first", this):
                return f"caught: by the plan {plan.stem} with seed {found.seed}: {found.failure[:150]}"
            first = this + 1
    return ""


def _search(mutation: Mutation, place: Path, seeds: int, seconds: float, *, keep: bool) -> str:
    end, first, kept = time.monotonic() + seconds, 1, place / "found.json"
    keeping = ("--keep", kept) if keep else ()
    while first <= seeds and (left := end - time.monotonic()) > 0:
        these = "--profile", mutation.profile, "--first"
        found = try_plans(place, *these, first, "--seeds", seeds + 1 - first, "--minutes", left / 60, *keeping)
        if not found:
            return f"missed by the seeds up to {found.seed} of {mutation.profile}"
        if not try_plans(ROOT, *these, found.seed):
            if kept.exists():
                shutil.copy(kept, CAUGHT / f"{mutation.stem}-{found.seed}.json")
            return f"caught: by seed {found.seed} of {found.of}: {found.failure[:150]}"
        first = found.seed + 1
    return "missed in time"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
