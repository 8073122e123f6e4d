"""The arithmetic of the report: percentiles, medians over rounds, ratios to the baseline. No I/O here."""

import statistics
from collections.abc import Iterable, Sequence

import attrs

SATURATED = 0.95
"""A core that is busy for this share of a run has nothing left to give."""

FOREIGN_LIMIT = 0.10
"""Foreign load on the busier of the two cores above which a row is marked."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest element that at least ``share`` (0–1) of ``ordered`` does not exceed (nearest rank).

    ``ordered`` must be sorted and not empty.
    """
    if not ordered:
        raise ValueError("no values")
    rank = -(-len(ordered) * share // 1)
    return ordered[min(len(ordered), max(1, int(rank))) - 1]


@attrs.frozen
class Sample:
    """One run of the load generator against one server.

    ``elapsed`` is the time from the first request to the last reply in seconds; ``server_cpu`` and
    ``generator_cpu`` are CPU seconds of all threads in that time; ``p50`` and ``p99`` are seconds; ``foreign`` is
    the share of the busier core that neither server nor generator used.
    """

    requests: int
    elapsed: float
    server_cpu: float
    generator_cpu: float
    p50: float
    p99: float
    foreign: float

    @property
    def throughput(self) -> float:
        """Commands per second."""
        return self.requests / self.elapsed

    @property
    def cpu_per_command(self) -> float:
        """Seconds of the server's CPU time that one command costs."""
        return self.server_cpu / self.requests


@attrs.frozen
class Turn:
    """One run of the load generator: commands, seconds, CPU seconds of the server, and load of others on its core."""

    requests: int
    elapsed: float
    cpu: float
    foreign: float

    @property
    def throughput(self) -> float:
        """Commands a second."""
        return self.requests / self.elapsed

    @property
    def cost(self) -> float:
        """CPU seconds of a command."""
        return self.cpu / self.requests


@attrs.frozen
class Row:
    """The medians over all rounds of one server with one command at one depth.

    ``throughput_ratio`` is this server's throughput ÷ the baseline's, ``cpu_ratio`` the baseline's CPU per command
    ÷ this server's: above 1.0 is better than the baseline in both. ``p99_ratio`` is this server's p99 ÷ the
    baseline's: below 1.0 is better. Each is the median of the ratios round by round; they are None where there is no
    baseline. ``spread`` is (highest − lowest) ÷ median throughput.
    """

    command: str
    depth: int
    server: str
    throughput: float
    throughput_ratio: float | None
    cpu_per_command: float
    cpu_ratio: float | None
    p50: float
    p99: float
    p99_ratio: float | None
    spread: float
    server_busy: float
    generator_busy: float
    foreign: float

    @property
    def generator_limited(self) -> bool:
        """Whether the generator's core was full while the server's was not: the throughput is a lower bound."""
        return self.generator_busy >= SATURATED > self.server_busy

    @property
    def disturbed(self) -> bool:
        """Whether something else used more than :data:`FOREIGN_LIMIT` of one of the two cores."""
        return self.foreign > FOREIGN_LIMIT


def _median_ratio(pairs: Iterable[tuple[float, float]]) -> float | None:
    ratios = [numerator / denominator for numerator, denominator in pairs if denominator > 0]
    return statistics.median(ratios) if ratios else None


@attrs.frozen
class Ratios:
    """One server against another, medians round by round: throughput ÷ theirs, their CPU ÷ ours, p99 ÷ theirs."""

    throughput: float | None = None
    cpu: float | None = None
    p99: float | None = None


def compare_rounds(mine: Sequence[Sample], theirs: Sequence[Sample]) -> Ratios:
    """The ratios of two servers' samples (same rounds, same order)."""
    paired = list(zip(mine, theirs, strict=True))
    return Ratios(
        throughput=_median_ratio((one.throughput, other.throughput) for one, other in paired),
        cpu=_median_ratio((other.cpu_per_command, one.cpu_per_command) for one, other in paired),
        p99=_median_ratio((one.p99, other.p99) for one, other in paired),
    )


def summarise(
    command: str, depth: int, server: str, samples: Sequence[Sample], baseline: Sequence[Sample] | None
) -> Row:
    """The row for ``samples``, compared round by round with ``baseline`` (same rounds, same order)."""
    median = statistics.median
    throughputs = [sample.throughput for sample in samples]
    ratios = Ratios() if baseline is None else compare_rounds(samples, baseline)
    return Row(
        command=command,
        depth=depth,
        server=server,
        throughput=median(throughputs),
        throughput_ratio=ratios.throughput,
        cpu_per_command=median(sample.cpu_per_command for sample in samples),
        cpu_ratio=ratios.cpu,
        p50=median(sample.p50 for sample in samples),
        p99=median(sample.p99 for sample in samples),
        p99_ratio=ratios.p99,
        spread=(max(throughputs) - min(throughputs)) / median(throughputs),
        server_busy=median(sample.server_cpu / sample.elapsed for sample in samples),
        generator_busy=median(sample.generator_cpu / sample.elapsed for sample in samples),
        foreign=median(sample.foreign for sample in samples),
    )
