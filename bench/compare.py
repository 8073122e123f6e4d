"""The comparison itself: start the servers, drive them in turns, collect a sample per server and round."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import attrs

from bench import machine, redis_benchmark
from bench.client import Connection, ServerError
from bench.figures import FOREIGN_LIMIT, Row, Sample, summarise
from bench.generator import Outcome, Task
from bench.servers import Running, Unavailable, child_environment, serving
from bench.workloads import WORKLOADS, Workload, clean_up, fill_in

BASELINE = "valkey"
OWN_GENERATOR = "own"

CALIBRATION_REQUESTS = 5_000
CALIBRATION_SHARE = 0.25
"""A calibration run of at least this share of a round's length is long enough to size the round by."""
CALIBRATION_GROWTH = 20

LOOK_SECONDS = 2.0
"""How long the machine is looked at before anything is started."""

GENERATOR_TIMEOUT = 120.0
"""Seconds after which a generator that does not end is killed and its round reported as failed."""


class Busy(Exception):
    """Others use too much of the machine; the text says how much."""


class RunFailed(Exception):
    """One run of the load generator failed; the text says how."""


@attrs.frozen
class Options:
    """What to compare. ``seconds`` is the length of one round; ``generator`` is ``own`` or redis-benchmark's path.

    With ``anyway`` nothing is refused, repeated or withheld because of others' load on the machine.
    """

    servers: tuple[str, ...]
    commands: tuple[str, ...]
    depths: tuple[int, ...]
    connections: int
    rounds: int
    seconds: float
    generator: str
    anyway: bool = False


@attrs.define
class Report:
    """What has been measured so far: complete rows, the samples behind each, and what went wrong.

    ``withheld`` are rows that others' load has spoilt, and ``load`` is what others used before the beginning.
    """

    options: Options
    cores: machine.Cores
    machine: dict[str, str | int]
    servers: list[Running] = attrs.field(factory=list)
    baseline: str | None = None
    rows: list[Row] = attrs.field(factory=list)
    samples: dict[tuple[str, int, str], list[Sample]] = attrs.field(factory=dict)
    withheld: list[Row] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    load: float = 0.0


def find_generator(wanted: str) -> str:
    """``own``, or the path of redis-benchmark: with ``auto`` where it is on PATH; :class:`Unavailable` if it is not."""
    if wanted == OWN_GENERATOR:
        return OWN_GENERATOR
    found = shutil.which(redis_benchmark.PROGRAM)
    if found is None and wanted != "auto":
        raise Unavailable(f"{redis_benchmark.PROGRAM} is not on PATH (Debian: apt-get install redis-tools)")
    return found or OWN_GENERATOR


def new_report(options: Options) -> Report:
    """An empty report; takes the cores this process may use."""
    report = Report(options, machine.choose_cores(os.sched_getaffinity(0)), machine.describe())
    if report.cores.shared:
        report.warnings.append(
            "only one core is allowed: servers and load generator share it, so compare CPU per command, not throughput"
        )
    return report


def compare(report: Report, required: Sequence[str], say: Callable[[str], None]) -> None:
    """Fill ``report``: every command at every depth on every server, round by round in turns.

    Blocks for the whole comparison and pins this process to the generator's core. A server named in ``required``
    that is unavailable raises :class:`Unavailable`; another one is left out with a warning. Where others use too much
    of our cores to begin with, :class:`Busy` is raised. When this is interrupted the report holds what was complete,
    and every server is stopped.
    """
    options = report.options
    os.sched_setaffinity(0, {report.cores.generator})
    report.load = machine.load_now(report.cores, LOOK_SECONDS)
    if report.load > FOREIGN_LIMIT and not options.anyway:
        raise Busy(f"other processes use {report.load:.0%} of one of the two cores, more than {FOREIGN_LIMIT:.0%}")
    with ExitStack() as stack:
        for name in options.servers:
            try:
                report.servers.append(stack.enter_context(serving(name, report.cores.server)))
            except Unavailable as error:
                if name in required:
                    raise
                report.warnings.append(f"{name} is left out: {error}")
        if not report.servers:
            raise Unavailable("none of the servers is available")
        report.warnings += missing_parts(report.servers)
        names = [server.name for server in report.servers]
        report.baseline = BASELINE if BASELINE in names else names[0]
        for command in options.commands:
            _compare_command(report, WORKLOADS[command], say)


def missing_parts(servers: Sequence[Running]) -> list[str]:
    """A warning where the node that is to have compiled parts says that it has none."""
    return [
        f"{server.name} runs without its compiled parts, which are not built here"
        for server in servers
        if server.name == "kevynode" and server.version.endswith(" pure")
    ]


def _compare_command(report: Report, workload: Workload, say: Callable[[str], None]) -> None:
    able = [server for server in report.servers if _prepare(report, server, workload)]
    try:
        for depth in report.options.depths:
            _compare_depth(report, workload, depth, able, say)
    finally:
        for server in able:
            _forgive(report, server, lambda connection: connection.run(clean_up()))


def _prepare(report: Report, server: Running, workload: Workload) -> bool:
    """Fill the server and try the command once; False, with a warning in the report, if it cannot do it."""

    def fill(connection: Connection) -> None:
        connection.run(workload.fill())
        connection.run(workload.before(1))
        connection.call(*fill_in(workload.arguments, _FirstKey()))

    return _forgive(report, server, fill, f"{workload.name} is not measured on")


class _FirstKey:
    """A source of numbers that always picks the first key: what the trial of a command uses."""

    def randrange(self, start: int, /) -> int:
        return 0


def _forgive(
    report: Report, server: Running, work: Callable[[Connection], object], heading: str = "cannot clean up on"
) -> bool:
    """Do ``work`` on a connection to the server; a failure becomes a warning and False."""
    try:
        with Connection(server.host, server.port) as connection:
            work(connection)
    except (OSError, ServerError) as error:
        report.warnings.append(f"{heading} {server.name}: {error}")
        return False
    return True


def _compare_depth(
    report: Report, workload: Workload, depth: int, able: Sequence[Running], say: Callable[[str], None]
) -> None:
    """One command at one depth. A server that fails in any round has no row; the others go on."""
    options = report.options
    sizes: dict[str, int] = {}
    samples: dict[str, list[Sample]] = {server.name: [] for server in able}
    repeats = 0 if options.anyway else options.rounds
    complete = 0
    while complete < options.rounds:
        taken = _round(report, workload, depth, rotated(able, complete), sizes)
        for name in [name for name in samples if name not in taken]:
            del samples[name]
        able = [server for server in able if server.name in taken]
        if repeats and any(sample.foreign > FOREIGN_LIMIT for sample in taken.values()):
            repeats -= 1
            say(f"{workload.name} depth {depth}: others were at work, so this round is repeated")
            continue
        for name, sample in taken.items():
            samples[name].append(sample)
        complete += 1
    baseline = samples.get(report.baseline or "")
    rows = [summarise(workload.name, depth, name, taken, baseline) for name, taken in samples.items()]
    _enter(report, rows, samples)
    parts = [f"{row.server} {row.throughput:,.0f}/s" for row in rows]
    say(f"{workload.name} depth {depth}: {', '.join(parts) or 'nothing measured'}")


def _round(
    report: Report, workload: Workload, depth: int, servers: Sequence[Running], sizes: dict[str, int]
) -> dict[str, Sample]:
    """One sample of each server, in this order; a server that fails has none. ``sizes`` are found out once."""
    taken = {}
    for server in servers:
        try:
            if server.name not in sizes:
                sizes[server.name] = _calibrate(report, server, workload, depth)
            taken[server.name] = _measure(report, server, workload, depth, sizes[server.name])
        except (RunFailed, OSError, ServerError) as error:
            report.warnings.append(f"{workload.name} at depth {depth} failed on {server.name}: {error}")
    return taken


def _enter(report: Report, rows: Sequence[Row], samples: dict[str, list[Sample]]) -> None:
    """Put rows into the report, or to those that are withheld: a ratio is no better than the baseline's rounds."""
    spoilt = {row.server for row in rows if row.disturbed and not report.options.anyway}
    for row in rows:
        if row.server in spoilt or report.baseline in spoilt:
            report.withheld.append(row)
        else:
            report.rows.append(row)
            report.samples[row.command, row.depth, row.server] = samples[row.server]


def rotated(servers: Sequence[Running], round_number: int) -> list[Running]:
    """The order of a round: each server goes first in its turn, so that none always follows the same other."""
    start = round_number % len(servers) if servers else 0
    return [*servers[start:], *servers[:start]]


def next_size(requests: int, elapsed: float, seconds: float, batch: int) -> tuple[int, bool]:
    """The size of the next run after one of ``requests`` in ``elapsed`` seconds, and whether it is the final size.

    The final size makes a round last about ``seconds``. It is whole batches, and at least ``batch`` requests: one
    batch for every connection.
    """
    wanted = requests * seconds / elapsed
    final = elapsed >= seconds * CALIBRATION_SHARE
    size = wanted if final else min(requests * CALIBRATION_GROWTH, wanted)
    return max(1, round(size / batch)) * batch, final


def calibrate(elapsed: Callable[[int], float], batch: int, seconds: float) -> int:
    """How many requests, in whole batches, last about so long; ``elapsed`` tries a number. Warms the server up."""
    requests, final = -(-CALIBRATION_REQUESTS // batch) * batch, False
    while not final:
        requests, final = next_size(requests, elapsed(requests), seconds, batch)
    return requests


def _calibrate(report: Report, server: Running, workload: Workload, depth: int) -> int:
    """How many requests make a round of the wanted length; finding out warms the server up."""

    def elapsed(requests: int) -> float:
        return _measure(report, server, workload, depth, requests).elapsed

    return calibrate(elapsed, report.options.connections * depth, report.options.seconds)


def _measure(report: Report, server: Running, workload: Workload, depth: int, requests: int) -> Sample:
    """One run of the load generator, with the clocks read around it."""
    options, cores = report.options, report.cores
    with Connection(server.host, server.port) as connection:
        connection.run(workload.before(requests + options.connections * depth))
    task = Task(
        host=server.host,
        port=server.port,
        connections=options.connections,
        depth=depth,
        requests=requests,
        arguments=list(workload.arguments),
        line_ends=workload.line_ends,
    )
    cores_before, wall_before = machine.read_core_times(), time.perf_counter()
    server_before, children_before, own_before = machine.process_cpu(server.pid), _children_cpu(), time.process_time()
    outcome = _generate(options.generator, task)
    server_cpu = machine.process_cpu(server.pid) - server_before
    generator_cpu = _children_cpu() - children_before
    ours = {cores.server: server_cpu}
    ours[cores.generator] = ours.get(cores.generator, 0.0) + generator_cpu + time.process_time() - own_before
    wall = time.perf_counter() - wall_before
    return Sample(
        requests=outcome.requests,
        elapsed=outcome.elapsed,
        server_cpu=server_cpu,
        generator_cpu=outcome.cpu,
        p50=outcome.p50,
        p99=outcome.p99,
        foreign=machine.foreign_share(cores_before, machine.read_core_times(), wall, ours),
    )


def _children_cpu() -> float:
    """CPU seconds of our ended children; during a measurement the load generator is the only one to end."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _generate(generator: str, task: Task) -> Outcome:
    own = generator == OWN_GENERATOR
    argv = [sys.executable, "-m", "bench.generator"] if own else redis_benchmark.command_line(generator, task)
    cpu_before = _children_cpu()
    try:
        done = subprocess.run(
            argv,
            input=json.dumps(attrs.asdict(task)),
            capture_output=True,
            text=True,
            timeout=GENERATOR_TIMEOUT,
            env=child_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"the load generator did not end within {GENERATOR_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise RunFailed((done.stderr or done.stdout).strip() or f"the load generator ended with {done.returncode}")
    try:
        if own:
            return Outcome(**json.loads(done.stdout))
        return redis_benchmark.read_outcome(done.stdout, task, _children_cpu() - cpu_before)
    except ValueError as error:
        raise RunFailed(str(error)) from error
