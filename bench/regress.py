"""Instructions of fixed workloads against a stored baseline: ``python -m bench regress``.

Counted by callgrind, which runs the interpreter on a machine of its own: neither other processes nor the clock of the
processor have a say, so a change of a few percent shows where a measurement of time would not. ``bench/README.md``
explains the method.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench.measuring import Failed
from bench.servers import PURE, child_environment
from bench.tables import Table, render_text

FORMAT = 1
"""Version of the baseline file; raised when a field changes its meaning."""

BASELINE = Path(__file__).with_name("regress.json")
REFERENCE = "reference"
WORKER = "bench.regress_work"

TOLERANCE = 2.0
"""Percent by which a count may grow on the build of Python that the baseline was taken with."""

OTHER_BUILD_TOLERANCE = 10.0
"""The same where it was another build, whose counts are compared after dividing by those of the reference."""

TIMEOUT = 1200.0
SKIPPED = "SKIPPED"

_UNWANTED = ("PYTHONMALLOC", "PYTHONDEVMODE", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
"""Variables that would have the interpreter do more than the work."""


class Skipped(Exception):
    """Nothing can be counted, or compared, here; the text says why."""


@attrs.frozen
class Counts:
    """Instructions per operation by piece of work, of one build of Python; ``parts`` is ``compiled`` or ``pure``."""

    build: str
    parts: str
    work: dict[str, float]

    @property
    def key(self) -> str:
        """Under which a baseline is kept: what else is not comparable at all."""
        version = ".".join(self.build.split()[0].split(".")[:2])
        return f"{version}-{platform.machine()}-{self.parts}"


@attrs.frozen
class Change:
    """One piece of work beside its baseline. ``change`` is the relative growth, None without a baseline."""

    name: str
    now: float
    before: float | None
    change: float | None
    tolerance: float

    @property
    def verdict(self) -> str:
        """What to make of it."""
        if self.change is None:
            return "new"
        if self.change > self.tolerance / 100:
            return "WORSE"
        return "better" if self.change < -self.tolerance / 100 else ""


def find_valgrind() -> str:
    """Its path; raises :class:`Skipped`."""
    found = shutil.which("valgrind")
    if found is None:
        raise Skipped("valgrind is not on PATH (Debian: apt-get install valgrind)")
    return found


def command_line(valgrind: str, symbol: str, folder: Path, names: Sequence[str]) -> list[str]:
    """What counts the work of these names, into files of ``folder``: one for each time that ``symbol`` was run."""
    return [
        valgrind,
        "--tool=callgrind",
        "--collect-atstart=no",
        f"--toggle-collect={symbol}",
        f"--dump-after={symbol}",
        f"--callgrind-out-file={folder / 'callgrind.out'}",
        sys.executable,
        "-m",
        WORKER,
        *names,
    ]


def read_summaries(folder: Path) -> list[int]:
    """The instructions of each dump, in the order in which they were made."""
    found = [
        (int(file.suffix[1:]), int(line.split()[1]))
        for file in folder.glob("callgrind.out.*")
        for line in file.read_text().splitlines()
        if line.startswith("summary:")
    ]
    return [count for _, count in sorted(found)]


def per_operation(work: Sequence[Mapping[str, Any]], summaries: Sequence[int]) -> dict[str, float]:
    """Instructions per operation by name: the fewest of its passes. Raises Failed if passes are missing."""
    wanted = sum(each["passes"] for each in work)
    if len(summaries) != wanted:
        raise Failed(f"callgrind saw {len(summaries)} passes, not {wanted}: does this Python hide its C functions?")
    counts = {}
    place = 0
    for each in work:
        passes = summaries[place : place + each["passes"]]
        place += each["passes"]
        counts[each["name"]] = round(min(passes) / each["operations"], 1)
    return counts


def count(names: Sequence[str], pure: bool, keep: Path | None = None) -> Counts:
    """Count the instructions of the work of these names.

    With ``keep`` callgrind's files stay there, for callgrind_annotate. Blocks for a minute or more. Raises Skipped and
    Failed.
    """
    from bench.regress_work import DOOR_SYMBOL

    valgrind = find_valgrind()
    environment = child_environment({PURE: "1" if pure else None, "PYTHONHASHSEED": "0", **dict.fromkeys(_UNWANTED)})
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("callgrind.out*"):
            old.unlink()
        try:
            done = subprocess.run(
                command_line(valgrind, DOOR_SYMBOL, folder, names),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"callgrind did not end within {TIMEOUT:.0f} s") from None
        if done.returncode:
            raise Failed("\n".join(done.stderr.splitlines()[-20:]) or f"{WORKER} ended with {done.returncode}")
        told = json.loads(done.stdout.splitlines()[-1])
        return Counts(sys.version, told["parts"], per_operation(told["work"], read_summaries(folder)))


def compare(now: Counts, before: Counts | None, tolerance: float, other_tolerance: float) -> list[Change]:
    """Each piece of work beside its baseline; where that is of another build, in units of the reference."""
    if before is None:
        return [Change(name, value, None, None, tolerance) for name, value in now.work.items()]
    same = now.build == before.build
    scale = 1.0
    if not same and REFERENCE in now.work and REFERENCE in before.work:
        scale = now.work[REFERENCE] / before.work[REFERENCE]
    changes = []
    for name, value in now.work.items():
        old = before.work.get(name)
        change = None if old is None else value / (old * scale) - 1
        changes.append(Change(name, value, old, change, tolerance if same else other_tolerance))
    return changes


def change_table(changes: Sequence[Change], now: Counts, before: Counts | None) -> Table:
    """The table."""
    rows = [
        [
            change.name,
            f"{change.now:,.0f}",
            "–" if change.before is None else f"{change.before:,.0f}",
            "–" if change.change is None else f"{change.change:+.1%}",
            change.verdict,
        ]
        for change in changes
    ]
    notes = []
    if before is None:
        notes.append(f"there is no baseline for {now.key}: --save makes this one")
    elif before.build != now.build:
        notes.append(f"the baseline is of another build ({before.build}): changes are relative to the reference")
    if any(change.verdict == "better" for change in changes):
        notes.append("what is better now may get worse unseen: --save makes this the baseline")
    title = f"Instructions per operation, {now.parts} parts, Python {now.build.split()[0]}"
    return Table(title, ("work", "now", "baseline", "change", ""), rows, notes)


def read_baselines(path: Path) -> dict[str, Counts]:
    """All baselines by key; none where there is no file. Raises Failed for a file that is none."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Failed(f"{path}: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise Failed(f"{path} holds no baselines of format {FORMAT}")
    return {key: Counts(**counts) for key, counts in document["baselines"].items()}


def write_baselines(path: Path, baselines: Mapping[str, Counts]) -> None:
    """Write them all, in an order that makes differences readable."""
    ordered = {key: attrs.asdict(baselines[key]) for key in sorted(baselines)}
    path.write_text(json.dumps({"format": FORMAT, "baselines": ordered}, indent=1) + "\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="python -m bench regress",
        description="Count the instructions of fixed workloads and compare them with a baseline; see bench/README.md.",
    )
    add = parser.add_argument
    add("--work", help="comma-separated names of work (default: all; the reference is always counted)")
    add("--pure", action="store_true", help="without the compiled parts")
    add("--save", action="store_true", help="make the counts the baseline of this version of Python")
    add("--tolerance", type=float, default=TOLERANCE, help=f"percent that a count may grow ({TOLERANCE:g})")
    add(
        "--other-build-tolerance",
        type=float,
        default=OTHER_BUILD_TOLERANCE,
        help=f"the same where the baseline is of another build of Python ({OTHER_BUILD_TOLERANCE:g})",
    )
    add("--required", action="store_true", help="fail where nothing can be counted or compared")
    add("--baseline", type=Path, default=BASELINE, metavar="FILE", help="where baselines are kept")
    add("--keep", type=Path, metavar="FOLDER", help="leave callgrind's files there, for callgrind_annotate")
    return parser


def chosen(text: str | None, known: Sequence[str]) -> list[str]:
    """The names on the command line, the reference among them. Raises ValueError for one that is not known."""
    if text is None:
        return list(known)
    lookup = {name.lower(): name for name in known}
    words = [word.strip().lower() for word in text.split(",")]
    wrong = [word for word in words if word not in lookup]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is none of {', '.join(known)}")
    return list(dict.fromkeys([REFERENCE, *(lookup[word] for word in words)]))


def main(argv: Sequence[str] | None = None) -> int:
    """Count and compare.

    Returns 0 if nothing is worse, also where nothing could be counted or compared unless that is required; 1 if
    something is worse or failed; 2 for a wrong argument.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    # Importing the workloads is importing the node, which this process need not do for --help.
    from bench.regress_work import WORK

    try:
        names = chosen(arguments.work, list(WORK))
    except ValueError as error:
        parser.error(str(error))
    try:
        baselines = read_baselines(arguments.baseline)
        now = count(names, arguments.pure, arguments.keep)
        before = baselines.get(now.key)
        changes = compare(now, before, arguments.tolerance, arguments.other_build_tolerance)
        print(render_text(change_table(changes, now, before)), end="")
        if arguments.save:
            kept = {} if before is None or before.build != now.build else before.work
            write_baselines(arguments.baseline, {**baselines, now.key: attrs.evolve(now, work={**kept, **now.work})})
        elif before is None:
            raise Skipped(f"no baseline for {now.key} in {arguments.baseline}")
    except Skipped as reason:
        print(f"bench regress: {SKIPPED}: {reason}", file=sys.stderr)
        return 1 if arguments.required else 0
    except Failed as error:
        print(f"bench regress: {error}", file=sys.stderr)
        return 1
    return 1 if any(change.verdict == "WORSE" for change in changes) and not arguments.save else 0


if __name__ == "__main__":
    sys.exit(main())
