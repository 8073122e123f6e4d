"""What a node is to reach beside the C servers, and whether a comparison shows it. No I/O here."""

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from bench.figures import Ratios, Sample, compare_rounds
from bench.tables import Table, verdict

Measure = Literal["throughput", "cpu", "p99"]
Samples = Mapping[tuple[str, int, str], Sequence[Sample]]
"""The rounds behind each row, by command, depth and server."""

NODE = "kevynode"
PURE_NODE = "kevynode-pure"

_MEASURES: dict[Measure, str] = {"throughput": "throughput ratio", "cpu": "CPU ratio", "p99": "p99 ÷ theirs"}
_PLAIN = ("GET", "SET")
_COUNTED = ("GET", "SET", "INCR")
_CONTAINERS = ("HSET", "LPUSH", "SADD", "ZADD", "MGET", "LRANGE")


@attrs.frozen
class Goal:
    """A ratio that ``server`` is to reach with every one of ``commands`` at ``depth``, compared with ``rival``.

    At least ``limit``, but p99 at most.
    """

    server: str
    commands: tuple[str, ...]
    depth: int
    rival: str
    measure: Measure
    limit: float

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.measure != "p99"

    def worst(self, found: Mapping[str, float]) -> float:
        """The ratio that decides, of the commands' ratios."""
        return min(found.values()) if self.at_least else max(found.values())


GOALS: tuple[Goal, ...] = (
    Goal(NODE, _COUNTED, 1, "valkey", "throughput", 1.0),
    Goal(NODE, _COUNTED, 1, "valkey", "cpu", 0.85),
    Goal(NODE, _COUNTED, 1, "valkey", "p99", 1.3),
    Goal(NODE, _PLAIN, 16, "valkey", "cpu", 0.9),
    Goal(NODE, _PLAIN, 16, "redis", "cpu", 1.0),
    Goal(NODE, _PLAIN, 100, "valkey", "cpu", 0.75),
    Goal(NODE, _PLAIN, 100, "redis", "cpu", 1.1),
    Goal(NODE, _CONTAINERS, 16, "valkey", "cpu", 0.7),
    Goal(PURE_NODE, _PLAIN, 16, "valkey", "cpu", 0.4),
    Goal(PURE_NODE, _PLAIN, 100, "valkey", "cpu", 0.3),
)


def ratios(goal: Goal, samples: Samples) -> dict[str, float]:
    """The ratio of each of the goal's commands that was measured on both servers."""
    found = {}
    for command in goal.commands:
        mine = samples.get((command, goal.depth, goal.server))
        theirs = samples.get((command, goal.depth, goal.rival))
        if mine and theirs:
            compared: Ratios = compare_rounds(mine, theirs)
            ratio = getattr(compared, goal.measure)
            if ratio is not None:
                found[command] = ratio
    return found


def goal_table(samples: Samples, goals: Sequence[Goal] = GOALS) -> Table | None:
    """The goals that the samples say something about, each with the ratios and a verdict on the worst; or None."""
    rows = []
    for goal in goals:
        found = ratios(goal, samples)
        if found:
            shown = ", ".join(f"{command} {ratio:.2f}" for command, ratio in found.items())
            missing = [command for command in goal.commands if command not in found]
            judged = verdict(goal.worst(found), goal.limit, goal.at_least)
            judged += f" (without {', '.join(missing)})" if missing else ""
            rows.append([goal.server, str(goal.depth), goal.rival, _MEASURES[goal.measure], shown, judged])
    if not rows:
        return None
    return Table("Goals", ("server", "depth", "beside", "figure", "ratios", "goal"), rows, left=6)
