"""How two replies to the same command are compared, and which commands need anything but equality.

Everything is compared exactly, type included, unless the table below names the command. A step of a sequence can
choose another comparison for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from support.raw_client import AGGREGATES, Reply

#: A comparison: (reply of valkey, reply of the subject) -> equal enough.
Comparison = Callable[[Reply, Reply], bool]

#: Seconds by which remaining times may differ: the two servers are asked one after the other.
TIME_TOLERANCE: Final = 2


def exact(expected: Reply, actual: Reply) -> bool:
    """Same type, same value, same order."""
    return expected == actual


def sorted_elements(reply: Reply) -> Reply:
    """The reply with its own elements in a canonical order (maps: their pairs); elements stay as they are."""
    if reply.kind == "map":
        pairs = list(zip(reply.value[::2], reply.value[1::2], strict=True))
        return Reply("map", tuple(part for pair in sorted(pairs, key=repr) for part in pair))
    if reply.kind in AGGREGATES:
        return Reply(reply.kind, tuple(sorted(reply.value, key=repr)))
    return reply


def unordered(expected: Reply, actual: Reply) -> bool:
    """Same type, same elements, in any order."""
    return sorted_elements(expected) == sorted_elements(actual)


def deep_unordered(expected: Reply, actual: Reply) -> bool:
    """As ``unordered`` at every level."""

    def canonical(reply: Reply) -> Reply:
        if reply.kind in AGGREGATES:
            return sorted_elements(Reply(reply.kind, tuple(canonical(element) for element in reply.value)))
        return reply

    return canonical(expected) == canonical(actual)


def _paired(reply: Reply) -> Reply:
    """A flat array of pairs (RESP2's form of a map) as an array of two-element arrays; anything else unchanged."""
    flat = reply.kind == "array" and len(reply.value) % 2 == 0 and all(e.kind not in AGGREGATES for e in reply.value)
    if not flat:
        return reply
    return Reply("array", tuple(Reply("array", reply.value[i : i + 2]) for i in range(0, len(reply.value), 2)))


def unordered_pairs(expected: Reply, actual: Reply) -> bool:
    """Same type, same pairs in any order, whether flat (RESP2), nested or a map (RESP3)."""
    return unordered(_paired(expected), _paired(actual))


def shape(expected: Reply, actual: Reply) -> bool:
    """Same types all the way down and the same lengths; values are free. Errors and simple strings stay exact."""
    if expected.kind != actual.kind:
        return False
    if expected.kind in AGGREGATES:
        return len(expected.value) == len(actual.value) and all(map(shape, expected.value, actual.value))
    return expected == actual if expected.kind in ("error", "simple") else True


def kind(expected: Reply, actual: Reply) -> bool:
    """Same type of the reply itself; errors stay exact."""
    return expected == actual if expected.kind == "error" else expected.kind == actual.kind


def keys_only(expected: Reply, actual: Reply) -> bool:
    """Both are maps (RESP3) or flat arrays of pairs (RESP2) with the same keys in the same order."""
    if expected.kind != actual.kind or expected.kind not in AGGREGATES:
        return expected == actual
    return bool(expected.value[::2] == actual.value[::2])


def near(tolerance: int) -> Comparison:
    """A comparison of integers that may differ by ``tolerance``; negative ones (-1, -2) and the rest stay exact."""

    def compare(expected: Reply, actual: Reply) -> bool:
        if expected.kind == actual.kind == "integer" and expected.value >= 0 and actual.value >= 0:
            return bool(abs(expected.value - actual.value) <= tolerance)
        if expected.kind in AGGREGATES and expected.kind == actual.kind:
            return len(expected.value) == len(actual.value) and all(map(compare, expected.value, actual.value))
        return expected == actual

    return compare


def help_text(expected: Reply, actual: Reply) -> bool:
    """Both are lists of simple strings with the same first line; errors stay exact."""
    if expected.kind != "array" or actual.kind != "array":
        return expected == actual
    lines = {element.kind for element in (*expected.value, *actual.value)}
    return lines == {"simple"} and bool(expected.value[0] == actual.value[0])


def scan(elements: Comparison) -> Comparison:
    """[cursor, elements]: when both are complete (cursor 0) the elements must agree, else types only.

    How much a step of an unfinished scan returns depends on the layout of the table, so it is not compared;
    whole scans are compared by the tests that follow the cursor.
    """

    def compare(expected: Reply, actual: Reply) -> bool:
        if expected.kind != "array" or actual.kind != "array":
            return expected == actual
        if len(expected.value) != 2 or len(actual.value) != 2:
            return False
        done = Reply("bulk", b"0")
        if expected.value[0] == actual.value[0] == done:
            return elements(expected.value[1], actual.value[1])
        return all(e.kind == a.kind for e, a in zip(expected.value, actual.value, strict=True))

    return compare


#: Names that a step of a sequence can use after ``#~``.
NAMED: Final[dict[str, Comparison]] = {
    "exact": exact,
    "unordered": unordered,
    "deep-unordered": deep_unordered,
    "pairs": unordered_pairs,
    "shape": shape,
    "kind": kind,
    "keys": keys_only,
    "near-seconds": near(TIME_TOLERANCE),
    "near-milliseconds": near(TIME_TOLERANCE * 1000),
}

#: Command (or "command subcommand", lower case) -> its comparison. What is not here is compared exactly.
BY_COMMAND: Final[dict[str, Comparison]] = {
    # The order of a hash table's elements means nothing.
    **dict.fromkeys(("smembers", "sdiff", "sinter", "sunion", "keys", "hkeys", "hvals"), unordered),
    **dict.fromkeys(("pubsub channels", "pubsub shardchannels", "command list"), unordered),
    **dict.fromkeys(("hgetall", "config get"), unordered_pairs),
    "scan": scan(unordered),
    "sscan": scan(unordered),
    "hscan": scan(unordered_pairs),
    "zscan": scan(unordered_pairs),
    # Random choices.
    **dict.fromkeys(("randomkey", "srandmember", "hrandfield", "zrandmember", "spop"), shape),
    # Remaining times: the servers answer one after the other.
    **dict.fromkeys(("ttl", "httl"), near(TIME_TOLERANCE)),
    **dict.fromkeys(("pttl", "hpttl"), near(TIME_TOLERANCE * 1000)),
    "object idletime": near(TIME_TOLERANCE),
    # What belongs to one process.
    **dict.fromkeys(("time", "client id", "lastsave", "memory usage", "object freq", "slowlog len"), shape),
    **dict.fromkeys(("info", "client info", "client list", "slowlog get", "memory stats"), kind),
    "hello": keys_only,
}


#: What lists the whole command table; a node may lack commands.
_WHOLE_TABLE: Final = (["command"], ["command", "info"], ["command", "docs"], ["command", "list"], ["command", "count"])


def comparison_for(argv: Sequence[bytes]) -> Comparison:
    """The comparison that the table gives for this command."""
    if not argv:
        return exact
    words = [argument.decode("latin-1").lower() for argument in argv[:2]]
    if words[1:] == ["help"]:
        return help_text
    if words in _WHOLE_TABLE and len(argv) == len(words):
        return kind
    return BY_COMMAND.get(" ".join(words), BY_COMMAND.get(words[0], exact))
