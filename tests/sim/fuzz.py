"""Fuzz readers, and whole nodes, for as long as one likes::

    python -m tests.sim.fuzz TARGET|all [--minutes M] [--found FOLDER] [arguments of atheris]

With atheris installed (``pip install atheris``) inputs are bred by what they reach in the package; without it they are
those of the corpus, changed at random, which finds less. Begins with ``tests/sim/corpus/TARGET``, and writes nothing
there: what is worth keeping is found in FOLDER, a new one unless given, and so is an input that failed. Copy that to
the corpus. One target runs until it fails or somebody stops it, unless it is told how long; ``all`` take a minute each.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    # The modules of the tests are found from their own folder, as pytest does it.
    sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT)]
    atheris = _find_atheris()
    if atheris is None:
        fuzzing = importlib.import_module("sim.fuzzing")
    else:
        with atheris.instrument_imports(include=["kevynode"]):
            fuzzing = importlib.import_module("sim.fuzzing")
    parser = argparse.ArgumentParser(prog="python -m tests.sim.fuzz", allow_abbrev=False)
    parser.add_argument("target", choices=[*fuzzing.TARGETS, "all"])
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--found", type=Path)
    options, others = parser.parse_known_args(arguments)
    found = options.found or Path(tempfile.mkdtemp(prefix="fuzz-"))
    if options.target == "all":
        return _fuzz_all(fuzzing.TARGETS, options.minutes or 1.0, found, others)
    folder = found / options.target
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{options.target}: what is found goes to {folder}\n")
    sys.stdout.flush()
    if atheris is None:
        sys.stdout.write(
            "atheris is not installed: inputs are changed at random, and nobody looks at what they reach\n"
        )
        return _change_at_random(fuzzing, options.target, options.minutes, folder)
    limits = [f"-max_total_time={round(options.minutes * 60)}"] if options.minutes else []
    # What is new goes to the first folder.
    places = [f"-artifact_prefix={folder}/", str(folder), str(fuzzing.CORPUS / options.target)]
    atheris.Setup([sys.argv[0], *limits, *others, *places], fuzzing.TARGETS[options.target])
    atheris.Fuzz()
    return 0


def _find_atheris() -> Any:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        return None


def _fuzz_all(targets: Any, minutes: float, found: Path, others: list[str]) -> int:
    """One after the other, each in a process of its own: the exit code."""
    failed = []
    for name in targets:
        command = [sys.executable, "-m", "tests.sim.fuzz", name, "--minutes", str(minutes), "--found", str(found)]
        if subprocess.run([*command, *others], cwd=_ROOT, check=False).returncode:
            failed.append(name)
    sys.stdout.write(f"failed: {' '.join(failed) or 'none'}\n")
    return 1 if failed else 0


def _change_at_random(fuzzing: Any, name: str, minutes: float, folder: Path) -> int:
    """Feed what the corpus has, changed: until something fails, or the time is over."""
    seed = Random().getrandbits(32)
    random, began = Random(seed), time.monotonic()
    corpus = [*fuzzing.corpus_of(name), b""]
    count = 0
    while not minutes or time.monotonic() < began + minutes * 60:
        data = _changed(random, corpus)
        count += 1
        try:
            fuzzing.TARGETS[name](data)
        except BaseException:
            path = folder / f"failed-{seed}-{count}"
            path.write_bytes(data)
            sys.stdout.write(f"{path} fails, after {count} inputs from seed {seed}\n")
            raise
    sys.stdout.write(f"{count} inputs from seed {seed}, and none failed\n")
    return 0


def _changed(random: Random, corpus: list[bytes]) -> bytes:
    """A piece of one input, behind one of another, with some bytes exchanged."""
    one, other = random.choice(corpus), random.choice(corpus)
    data = bytearray(one[: random.randrange(len(one) + 1)] + other[random.randrange(len(other) + 1) :])
    for _ in range(random.choice((0, 1, 1, 2, 5, 20))):
        place = random.randrange(len(data) + 1)
        match random.randrange(3):
            case 0:
                data[place:place] = random.randbytes(random.choice((1, 1, 4, 30)))
            case 1:
                data[place : place + 1] = random.choice((b"\r\n", b"$", b"*1\r\n", b"-1", b"0", b"9", b"\0", b"\xff"))
            case _:
                del data[place : place + random.choice((1, 1, 3, 20))]
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
