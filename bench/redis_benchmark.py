"""redis-benchmark as load generator: its command line and its CSV. No I/O here."""

import csv
import io
from collections.abc import Iterable

from bench.generator import Outcome, Task
from bench.workloads import KEYSPACE

PROGRAM = "redis-benchmark"


class UnreadableOutput(ValueError):
    """The CSV lacks the row or a column we need; redis-benchmark prints latencies from version 6.2 on."""


def command_line(program: str, task: Task) -> list[str]:
    """The arguments that make ``program`` do ``task``. Its requests are the same as our own generator's."""
    options = {
        "-h": task.host,
        "-p": task.port,
        "-c": task.connections,
        "-n": task.requests,
        "-P": task.depth,
        "-r": KEYSPACE,
    }
    flags = [str(word) for option in options.items() for word in option]
    return [program, *flags, "--csv", *task.arguments]


def parse_csv(text: str, title: Iterable[str]) -> dict[str, float]:
    """The figures of the test called ``title`` (its arguments), by column name, from ``--csv`` output.

    Lines before the heading are passed over (older versions warn on standard output).
    """
    name = " ".join(title)
    lines = text.splitlines(keepends=True)
    heading = next((index for index, line in enumerate(lines) if line.startswith('"test"')), None)
    if heading is None:
        raise UnreadableOutput(f"no heading in the output of {PROGRAM}: {text[:200]!r}")
    for row in csv.DictReader(io.StringIO("".join(lines[heading:]))):
        if row["test"] == name:
            return {column: float(value) for column, value in row.items() if column != "test"}
    raise UnreadableOutput(f"no row for {name!r} in the output of {PROGRAM}: {text[:200]!r}")


def read_outcome(text: str, task: Task, cpu: float) -> Outcome:
    """The outcome of ``task`` from its CSV output and the generator's CPU seconds."""
    figures = parse_csv(text, task.arguments)
    try:
        throughput, p50, p99 = figures["rps"], figures["p50_latency_ms"], figures["p99_latency_ms"]
    except KeyError as error:
        raise UnreadableOutput(f"{PROGRAM} prints no column {error}") from None
    if throughput <= 0:
        raise UnreadableOutput(f"{PROGRAM} counted no requests: {text[:200]!r}")
    return Outcome(requests=task.requests, elapsed=task.requests / throughput, cpu=cpu, p50=p50 / 1e3, p99=p99 / 1e3)
