"""Every command with junk: arity, syntax and type errors, their texts and the order in which they are found.

The words are chosen with a seed that is the command's own name, so a run repeats exactly.
"""

from __future__ import annotations

from random import Random
from typing import Final

import pytest
from compat import accepted, scope
from compat.compare import comparison_for
from compat.runner import Difference, Pair
from compat.sequences import show_command

#: How many calls of each command are made.
CALLS: Final = 120

#: The keys that are there before the first call, and one that is not. The scores are equal, so that lex ranges mean
#: something.
_FILL: Final = (
    (b"SET", b"kstr", b"text"),
    (b"SET", b"kint", b"10"),
    (b"RPUSH", b"klist", b"3", b"1", b"2", b"1"),
    (b"SADD", b"kset", b"a", b"b", b"c"),
    (b"SADD", b"kints", b"1", b"2", b"3"),
    (b"ZADD", b"kzset", b"1", b"a", b"1", b"b", b"1", b"c"),
    (b"HSET", b"khash", b"a", b"1", b"b", b"x"),
)
_KEYS: Final = (b"kstr", b"kint", b"klist", b"kset", b"kints", b"kzset", b"khash", b"knone")
_WORDS: Final = (b"a", b"b", b"junk", b"", b"(1", b"[a", b"+", b"-", b"*", b"#", b"u8", b"\xff\xfe")
_NUMBERS: Final = (b"-1", b"0", b"1", b"2", b"3", b"100000", b"1.5", b"abc", b"nan", b"inf", b"9223372036854775808")
_OPTIONS: Final = (
    *(b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR", b"EX", b"EXAT", b"KEEPTTL", b"PERSIST", b"GET", b"IFEQ", b"FNX"),
    *(b"COUNT", b"MATCH", b"TYPE", b"LIMIT", b"BY", b"STORE", b"ASC", b"DESC", b"ALPHA", b"WITHSCORES", b"WITHSCORE"),
    *(b"WITHVALUES", b"LEFT", b"RIGHT", b"BEFORE", b"AFTER", b"FIELDS", b"BYSCORE", b"BYLEX", b"REV", b"WEIGHTS"),
    *(b"AGGREGATE", b"SUM", b"MIN", b"MAX", b"RANK", b"MAXLEN", b"LEN", b"IDX", b"REPLACE", b"BIT", b"BYTE", b"AND"),
    *(b"NOT", b"SET", b"INCRBY", b"OVERFLOW", b"SAT", b"FAIL", b"SYNC", b"ASYNC", b"NOVALUES", b"NOSCORES"),
)

#: Commands that end or change the connection, answer more than once, or belong to the process.
_LEFT_OUT: Final = frozenset(
    {
        *("quit", "reset", "hello", "shutdown", "debug", "select", "swapdb", "move", "latency", "role"),
        *("bgrewriteaof", "bgsave", "save"),
        *("subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe"),
        *("client|pause", "client|reply", "client|kill", "client|list"),
    }
)
#: Commands that get no numbers: they would wait, pick by chance, or name a real client.
_NO_NUMBERS: Final = frozenset(
    {
        *("blpop", "brpop", "blmove", "brpoplpush", "blmpop", "bzpopmin", "bzpopmax", "bzmpop", "wait", "waitaof"),
        *("client|unblock", "client|no-evict", "client|no-touch", "spop", "hrandfield", "srandmember", "zrandmember"),
    }
)
#: Commands whose small numbers are milliseconds from now.
_MILLISECONDS: Final = frozenset({"pexpire", "psetex", "hpexpire"})


def names() -> list[str]:
    """Every command under comparison; of containers every subcommand as ``container|subcommand`` too."""
    found = [name for name in scope.COMMANDS if name not in _LEFT_OUT]
    for container, subcommands in scope.SUBCOMMANDS.items():
        found += [f"{container}|{sub}" for sub in subcommands if f"{container}|{sub}" not in _LEFT_OUT]
    return found


def vocabulary(name: str) -> tuple[tuple[bytes, ...], ...]:
    """The groups of words for this command; each group is chosen as often as the others."""
    if name.startswith(("command", "config")):
        return (_KEYS, tuple(word for word in _WORDS if word != b"*"))
    keys = tuple(key for key in _KEYS if not (name.startswith("sort") and key == b"kset"))
    numbers = tuple(n for n in _NUMBERS if not (name in _MILLISECONDS and n in (b"1", b"2", b"3", b"100000")))
    if name in _NO_NUMBERS:
        return (keys, _WORDS, _OPTIONS)
    return (keys, numbers, numbers, _WORDS, _OPTIONS, _OPTIONS)


def calls(name: str) -> list[list[bytes]]:
    """The calls of one command: no argument to eight equal ones, then arguments by chance."""
    front = [word.encode() for word in name.split("|")]
    found = [[*front, *[b"a"] * count] for count in range(9)]
    random = Random(name)
    groups = vocabulary(name)
    for _ in range(CALLS):
        words = [random.choice(_KEYS)] if random.random() < 0.8 else []
        words += [random.choice(random.choice(groups)) for _ in range(random.randrange(7))]
        if name == "spop" and len(words) < 2:
            continue
        if name in ("sort", "sort_ro") and words[:1] == [b"kset"]:
            continue
        found.append(front + words)
    return found


@pytest.mark.parametrize("name", names())
def test_junk(pair: Pair, protocol: int, name: str) -> None:
    """All replies are the same."""
    __tracebackhide__ = True
    pair.subject.ensure_running()
    commands = calls(name)
    try:
        found = []
        for side in pair.sides:
            with side.connect(protocol) as client:
                client.pipeline(_FILL)
                found.append(client.pipeline(commands))
    finally:
        pair.clean(settle=False)
    differences = []
    for argv, expected, actual in zip(commands, *found, strict=True):
        if not comparison_for(argv)(expected, actual) and accepted.find(argv, expected, actual) is None:
            shown = f"{show_command(argv)}\n  valkey:   {expected.render('    ')}\n  subject:  {actual.render('    ')}"
            differences.append(shown)
    if differences:
        raise Difference(f"{len(differences)} of {len(commands)} replies differ\n" + "\n".join(differences[:8]))
