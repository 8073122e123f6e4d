"""The command line: ``python -m bench [WHAT]``, ``compare`` unless something else is named."""

import importlib
import sys
from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str]] = {
    "compare": ("bench.comparing", "a node beside other servers: throughput, CPU per command, p99"),
    "regress": ("bench.regress", "instructions of fixed workloads, against a stored baseline"),
    "idle": ("bench.idle", "what connections that do nothing cost"),
    "memory": ("bench.memory", "resident memory of a million keys, and what a snapshot of them costs"),
    "local": ("bench.local", "reading a key inside the program, against a round trip"),
    "start": ("bench.start", "import time, and the time until a node is ready"),
    "apply": ("bench.apply", "how fast a replica applies a stream, and a primary makes one"),
    "replication": ("bench.replication", "what replicas cost, and how far behind they are"),
    "scopes": ("bench.scopes", "what scopes cost, and their moves"),
    "durability": ("bench.durability", "what the append-only file costs"),
}
"""What can be measured: the module, each with a ``main``, and what it is about."""


def usage() -> str:
    """What can be asked for."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        ["usage: python -m bench [WHAT] [options]    (WHAT --help: its options; without WHAT: compare)", "", *lines]
    )


def choose(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """The module that the words ask for, and the words for it; None where usage is to be shown."""
    if words and words[0] in ("-h", "--help", "help"):
        return None
    if not words or words[0].startswith("-"):
        return COMMANDS["compare"][0], list(words)
    if words[0] not in COMMANDS:
        return None
    return COMMANDS[words[0]][0], list(words[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; its exit code, or 2 where there is no such thing."""
    words = sys.argv[1:] if argv is None else list(argv)
    chosen = choose(words)
    if chosen is None:
        asked = not words[0].startswith("-") and words[0] != "help"
        print(usage(), file=sys.stderr if asked else sys.stdout)
        return 2 if asked else 0
    module, rest = chosen
    code: int = importlib.import_module(module).main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
