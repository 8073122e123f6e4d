"""Random commands of all types on both servers: every reply and the whole state must stay equal.

By default a short fixed set of examples. ``KEVYNODE_COMPAT_EXAMPLES=1000`` runs that many with a new seed;
a failure prints the commands and the blob that repeats it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
from compat import accepted, generate
from compat.compare import Comparison, comparison_for, deep_unordered, near
from compat.generate import Command
from compat.runner import Difference, Pair, Transactions
from compat.sequences import CALL, Step, show_command
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy
from support.raw_client import RawClient, Reply

_EXAMPLES = os.environ.get("KEVYNODE_COMPAT_EXAMPLES")

PROFILE = settings(
    max_examples=int(_EXAMPLES) if _EXAMPLES else 60,
    stateful_step_count=20,
    derandomize=_EXAMPLES is None,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

#: Type -> the command that shows everything under a key of that type.
_DUMP = {
    b"string": (b"GET",),
    b"list": (b"LRANGE", b"0", b"-1"),
    b"set": (b"SMEMBERS",),
    b"hash": (b"HGETALL",),
    b"zset": (b"ZRANGE", b"0", b"-1", b"WITHSCORES"),
}
#: Milliseconds by which deadlines set relative to now may differ.
_SLACK = 5000


def whole_state(client: RawClient) -> dict[bytes, tuple[Reply, ...]]:
    """Key -> type, value in a canonical order, deadline, deadlines of the fields (for a hash)."""
    state = {}
    for key in sorted(reply.value for reply in client.call(b"KEYS", b"*").value):
        kind = client.call(b"TYPE", key)
        verb, *rest = _DUMP[kind.value]
        value = client.call(verb, key, *rest)
        parts = [kind, value, client.call(b"PEXPIRETIME", key)]
        if kind.value == b"hash":
            fields = sorted(reply.value for reply in client.call(b"HKEYS", key).value)
            parts.append(client.call(b"HPEXPIRETIME", key, b"FIELDS", b"%d" % len(fields), *fields))
        state[key] = tuple(parts)
    return state


def same_state(expected: dict[bytes, tuple[Reply, ...]], actual: dict[bytes, tuple[Reply, ...]]) -> bool:
    """Whether two states are equal: values in any order where they have none, relative deadlines near each other."""
    if expected.keys() != actual.keys():
        return False
    compare_deadlines = near(_SLACK)
    for key, parts in expected.items():
        others = actual[key]
        ordered = parts[0].value in (b"list", b"zset", b"string")
        if len(parts) != len(others) or parts[0] != others[0]:
            return False
        if not (parts[1] == others[1] if ordered else _same_elements(parts[1], others[1])):
            return False
        if not all(compare_deadlines(mine, theirs) for mine, theirs in zip(parts[2:], others[2:], strict=True)):
            return False
    return True


def _same_elements(expected: Reply, actual: Reply) -> bool:
    """Sets and RESP3 maps in any order."""
    return deep_unordered(expected, actual)


def comparison(argv: Sequence[bytes]) -> Comparison:
    """The table's comparison, but for deadlines, which may have been set relative to now."""
    name = argv[0].lower()
    if name in (b"expiretime", b"hexpiretime"):
        return near(_SLACK // 1000)
    if name in (b"pexpiretime", b"hpexpiretime"):
        return near(_SLACK)
    return comparison_for(argv)


class Machine(RuleBasedStateMachine):
    """Both servers with one client each, fed the same commands."""

    #: The servers; set before the machine runs, because Hypothesis makes its instances without arguments.
    pair: ClassVar[Pair]

    def __init__(self) -> None:
        super().__init__()
        self.pair.clean(settle=False)
        # RESP3, so that maps and sets can be told from lists.
        self._clients = [side.connect(3) for side in self.pair.sides]
        self._transactions = Transactions(comparison)
        self._log: list[str] = []
        self._since_check = 0

    def teardown(self) -> None:
        for client in self._clients:
            client.close()
        self.pair.clean(settle=False)

    def send(self, argv: Command) -> None:
        """Send to both and compare."""
        self._log.append(show_command(argv))
        for client in self._clients:
            client.send(*argv)
        expected, actual = (client.read() for client in self._clients)
        compare = self._transactions.comparison(Step(1, CALL, argv), expected)
        if not compare(expected, actual) and accepted.find(argv, expected, actual) is None:
            self._fail(f"valkey:  {expected.render('  ')}\nsubject: {actual.render('  ')}")

    def _fail(self, what: str) -> None:
        if not self.pair.subject.server.running():
            what += f"\nthe subject has stopped:\n{self.pair.subject.server.diagnosis()}"
        raise Difference("\n".join(self._log) + f"\n{what}")

    @rule(
        commands=st.lists(generate.ANYTHING, min_size=3, max_size=10),
        watched=st.booleans(),
        executed=st.sampled_from([b"EXEC", b"EXEC", b"DISCARD"]),
    )
    def transaction(self, commands: list[Command], watched: bool, executed: bytes) -> None:
        """A whole transaction, with a watched key that its first command may have changed."""
        if watched:
            self.send((b"WATCH", b"s1", b"l1", b"h1", b"z1", b"e1"))
            self.send(commands.pop())
        self.send((b"MULTI",))
        for argv in commands:
            self.send(argv)
        self.send((executed,))

    @invariant()
    def states_agree(self) -> None:
        """Every fifth step everything is looked at."""
        self._since_check += 1
        if self._since_check < 5:
            return
        self._since_check = 0
        expected, actual = (whole_state(client) for client in self._clients)
        if not same_state(expected, actual):
            self._fail(f"state of valkey:  {_show(expected)}\nstate of subject: {_show(actual)}")


def _show(state: dict[bytes, tuple[Reply, ...]]) -> str:
    return "\n".join(f"{key!r}: " + " ".join(part.render("    ") for part in parts) for key, parts in state.items())


def _rule_for(family: SearchStrategy[Command]) -> Callable[[Machine, list[Command]], None]:
    def run(self: Machine, commands: list[Command]) -> None:
        for argv in commands:
            self.send(argv)

    return rule(commands=st.lists(family, min_size=6, max_size=16))(run)


for _name, _family in generate.FAMILIES.items():
    _rule = _rule_for(_family)
    _rule.__name__ = _name
    setattr(Machine, _name, _rule)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # only when it fails, and it would hide why
def test_machine(pair: Pair) -> None:
    """No sequence of commands makes a difference."""
    Machine.pair = pair
    run_state_machine_as_test(Machine, settings=PROFILE)
