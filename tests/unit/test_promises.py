"""The ledger of promises finds every way in which one can be broken: a crash test is worth no more than that."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support.promises import COMMON_LIST, PAIRED_LIST, BrokenPromise, Draw, Ledger, Step, check_pairs
from support.raw_client import Reply, encode

OK = Reply("simple", b"OK")
QUEUED = Reply("simple", b"QUEUED")
NOTHING: dict[bytes, list[bytes]] = {PAIRED_LIST: [], COMMON_LIST: []}

SET = Step(((b"SET", b"c:k", b"1"),))
AGAIN = Step(((b"SET", b"c:k", b"2"),))
PUSH = Step(((b"RPUSH", b"c:list", b"a", b"b"),))
COUNT = Step(((b"INCR", b"c:n"),))
GROUP = Step(((b"SET", b"c:x", b"t"), (b"SET", b"c:y", b"t")), grouped=True)
LOG = Step(((b"RPUSH", COMMON_LIST, b"c.1"),))


def one(value: int) -> list[Reply]:
    return [Reply("integer", value)]


def ledger_of(*steps: Step) -> Ledger:
    ledger = Ledger(b"c")
    ledger.sent(steps)
    return ledger


class TestSettle:
    def test_what_was_answered_must_be_there(self) -> None:
        ledger = ledger_of(SET, PUSH)
        assert ledger.answered([OK]) is None
        with pytest.raises(BrokenPromise, match=r"(?s)1 answered, 1 sent and not answered.*c:k.*nothing"):
            ledger.settle({}, NOTHING)

    @pytest.mark.parametrize(
        ("found", "done"),
        [
            ({b"c:k": (b"1", -1)}, 0),
            ({b"c:k": (b"1", -1), b"c:list": ([b"a", b"b"], -1)}, 1),
            ({b"c:k": (b"2", -1), b"c:list": ([b"a", b"b"], -1)}, 2),
        ],
    )
    def test_what_was_not_answered_may_be_there_from_the_front(self, found: Any, done: int) -> None:
        ledger = ledger_of(SET, PUSH, AGAIN)
        ledger.answered([OK])
        assert ledger.settle(copy.deepcopy(found), NOTHING) == done
        # And is taken for granted from then on.
        assert ledger.settle(found, NOTHING) == 0
        with pytest.raises(BrokenPromise):
            ledger.settle({**found, b"c:k": (b"0", -1)}, NOTHING)

    @pytest.mark.parametrize(
        "found",
        [
            {b"c:k": (b"2", -1)},  # the second SET without the RPUSH before it
            {b"c:k": (b"1", -1), b"c:list": ([b"a"], -1)},  # half a command
            {b"c:k": (b"1", -1), b"c:list": ([b"b", b"a"], -1)},
            {b"c:k": (b"1", -1), b"c:list": ([b"a", b"b", b"a", b"b"], -1)},  # twice
            {b"c:k": (b"1", 5)},  # a deadline that nobody set
            {b"c:k": (b"1", -1), b"c:other": (b"1", -1)},
        ],
    )
    def test_nothing_else_may_be_there(self, found: Any) -> None:
        ledger = ledger_of(SET, PUSH, AGAIN)
        ledger.answered([OK])
        with pytest.raises(BrokenPromise):
            ledger.settle(found, NOTHING)

    def test_a_count_is_not_run_twice(self) -> None:
        for value, fine in ((0, False), (1, True), (2, True), (3, False)):
            ledger = ledger_of(COUNT, COUNT)
            ledger.answered(one(1))
            found = {b"c:n": (b"%d" % value, -1)}
            if fine:
                assert ledger.settle(found, NOTHING) == value - 1
            else:
                with pytest.raises(BrokenPromise):
                    ledger.settle(found, NOTHING)

    def test_a_transaction_is_whole(self) -> None:
        assert ledger_of(GROUP).settle({}, NOTHING) == 0
        assert ledger_of(GROUP).settle({b"c:x": (b"t", -1), b"c:y": (b"t", -1)}, NOTHING) == 1
        with pytest.raises(BrokenPromise):
            ledger_of(GROUP).settle({b"c:x": (b"t", -1)}, NOTHING)

    def test_shared_lists_are_in_step_with_the_keys(self) -> None:
        logged = {**NOTHING, COMMON_LIST: [b"c.1"]}
        assert ledger_of(LOG, COUNT).settle({}, logged) == 1
        with pytest.raises(BrokenPromise):
            ledger_of(LOG, COUNT).settle({b"c:n": (b"1", -1)}, NOTHING)
        with pytest.raises(BrokenPromise):
            ledger_of(LOG, COUNT).settle({}, {**NOTHING, COMMON_LIST: [b"c.1", b"c.1"]})

    def test_what_was_refused_may_not_be_there(self) -> None:
        refusal = Reply("error", b"MISCONF no")
        ledger = ledger_of(SET, COUNT)
        assert ledger.answered([refusal]) == refusal
        assert ledger.answered(one(1)) is None
        assert ledger.acknowledged == 1
        with pytest.raises(BrokenPromise):
            ledger.settle({b"c:k": (b"1", -1), b"c:n": (b"1", -1)}, NOTHING)
        assert ledger.settle({b"c:n": (b"1", -1)}, NOTHING) == 0


class TestAnswers:
    def test_a_wrong_answer_is_noticed_at_once(self) -> None:
        with pytest.raises(BrokenPromise, match="INCR"):
            ledger_of(COUNT).answered(one(2))
        with pytest.raises(BrokenPromise, match="answered with"):
            ledger_of(GROUP).answered([OK, QUEUED, QUEUED, Reply("array", (OK,))])
        with pytest.raises(BrokenPromise):
            ledger_of(GROUP).answered([OK, QUEUED, QUEUED, Reply("array", (OK, Reply("error", b"ERR")))])

    def test_a_transaction_has_as_many_replies_as_requests(self) -> None:
        assert GROUP.encode().startswith(encode((b"MULTI",)))
        assert GROUP.encode().count(b"*") == GROUP.replies == 4
        assert SET.replies == 1
        ledger = ledger_of(GROUP)
        assert ledger.answered([OK, QUEUED, QUEUED, Reply("array", (OK, OK))]) is None
        assert ledger.model.contents() == {b"c:x": (b"t", -1), b"c:y": (b"t", -1)}


class TestDraw:
    def test_the_same_seed_gives_the_same_steps(self) -> None:
        one, same, other = (Draw(b"c", seed) for seed in (1, 1, 2))
        steps = [one.step() for _ in range(500)]
        assert steps == [same.step() for _ in range(500)]
        assert steps != [other.step() for _ in range(500)]

    def test_every_kind_of_change_occurs(self) -> None:
        draw = Draw(b"c", 3)
        steps = [draw.step() for _ in range(2000)]
        verbs = {words[0] for step in steps for words in step.commands}
        assert verbs == set(b"SET INCR APPEND DEL RPUSH LPOP HSET SADD SREM ZINCRBY PEXPIREAT PERSIST GET".split())
        ledger = Ledger(b"c")
        for step in steps:
            for words in step.commands:
                ledger.model.apply(words)
        kinds = {type(value) for value, _ in ledger.model.contents().values()}
        assert kinds == {bytes, list, dict, set}
        assert any(deadline > 0 for _, deadline in ledger.model.contents().values())


class TestPairs:
    def test_list_and_count_go_together(self) -> None:
        check_pairs([], None, 0)
        check_pairs([b"a", b"b"], b"2", 2)
        for pairs, count, highest in (
            ([b"a"], b"2", 0),
            ([b"a"], None, 0),
            ([b"a", b"a"], b"2", 0),
            ([b"a"], b"1", 2),
        ):
            with pytest.raises(BrokenPromise):
                check_pairs(pairs, count, highest)
