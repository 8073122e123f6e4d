"""What a scope-following client knows, and what it makes of each answer."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.client_errors import DeadlinePassed, RedirectLoop, Uncertain
from kevynode.client_routing import (
    AVOID_MOST_SECONDS,
    AVOID_SECONDS,
    KEYS_LIMIT,
    LAST_SECONDS,
    NODES_LIMIT,
    REFUSALS,
    Backoff,
    Call,
    Routes,
)
from kevynode.errors import Misdirected, Quiesced, ReplyError
from kevynode.reply_parser import error_reply
from kevynode.scope import Scope

A, B, C, X = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.9:1"


class Longest:
    """Chance that always takes the most."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


def call(
    routes: Routes | None = None,
    key: bytes | None = b"a:1",
    *,
    others: tuple[bytes, ...] = (),
    writes: bool = True,
    repeatable: bool = False,
    deadline: float = 5.0,
    hops: int = 8,
) -> Call:
    known = Routes([A, B, C]) if routes is None else routes
    keys = () if key is None else (key, *others)
    return Call(known, keys, writes, repeatable, writes, deadline, Backoff(Longest()), hops)


# -- routes -----------------------------------------------------------------------------------------------------------


def test_a_table_of_scopes_says_who_writes() -> None:
    routes = Routes([A], [Scope(b"a:", "a"), Scope(b"b:", "b")], {"a": X})
    assert routes.writer(b"a:1") == X
    assert routes.writer(b"b:1") is None
    assert routes.writer(b"free") is None


def test_a_redirect_is_remembered_for_the_whole_prefix_once_that_is_known() -> None:
    routes = Routes([A])
    routes.learn([b"a:1"], B)
    assert (routes.writer(b"a:1"), routes.writer(b"a:2")) == (B, None)
    routes.learn_info("# Scopes\r\nscopes_declared:1\r\nscope0:prefix=a:,owner=b,epoch=0,state=elsewhere,writer=b\r\n")
    routes.learn([b"a:1"], B)
    assert routes.writer(b"a:2") == B
    routes.forget([b"a:2"])
    assert routes.writer(b"a:1") is None


@pytest.mark.parametrize("prefix", ["", "a:", "a;b", "ä"])
def test_info_tells_prefixes(prefix: str) -> None:
    routes = Routes([A])
    routes.learn_info(f"scope0:prefix={prefix},owner=b,epoch=0\r\n")
    routes.learn([(prefix + "1").encode()], B)
    assert routes.writer((prefix + "2").encode()) == B


@pytest.mark.parametrize("info", ["", "scope0:prefix=a:", "xscope0:prefix=a:,owner=b,", "scope0:prefix=a:?,owner=b,"])
def test_info_that_says_nothing_teaches_nothing(info: str) -> None:
    routes = Routes([A])
    routes.learn_info(info)
    routes.learn([b"a:?1"], B)
    assert routes.writer(b"a:?2") is None


def test_who_failed_is_forgotten_and_asked_last_for_a_while() -> None:
    routes = Routes([A, B], [Scope(b"a:", "a"), Scope(b"b:", "b")], {"a": A, "b": B})
    routes.learn([b"free"], A)
    routes.avoid(A, 10.0)
    assert (routes.writer(b"a:1"), routes.writer(b"free"), routes.writer(b"b:1")) == (None, None, B)
    assert routes.order(10.0) == [B, A]
    assert routes.order(10.0 + AVOID_SECONDS) == [A, B]
    routes.reached(A)
    assert routes.order(10.0) == [A, B]


def test_what_is_remembered_is_bounded() -> None:
    routes = Routes([A])
    for number in range(KEYS_LIMIT + 10):
        routes.learn([b"%d" % number], B)
    assert routes.writer(b"0") is None
    assert routes.writer(b"%d" % (KEYS_LIMIT + 9)) == B
    assert sum(routes.writer(b"%d" % number) is not None for number in range(KEYS_LIMIT + 10)) == KEYS_LIMIT
    for number in range(2 * NODES_LIMIT):
        routes.avoid(f"10.1.0.1:{number + 1}", 0.0)
    routes.avoid(A, 0.0)
    assert routes.order(0.0) == [A]


def test_prefixes_are_asked_for_once_in_a_while() -> None:
    routes = Routes([A], [Scope(b"a:", "a")])
    assert not routes.wants_prefixes([b"a:1"], 0.0)
    assert routes.wants_prefixes([b"b:1"], 0.0)
    assert not routes.wants_prefixes([b"c:1"], 1.0)
    assert routes.wants_prefixes([b"c:1"], 100.0)


@pytest.mark.parametrize("nodes", [[], ["nowhere"], ["a:0"], ["a:b"]])
def test_addresses_that_are_none(nodes: list[str]) -> None:
    with pytest.raises(ValueError):
        Routes(nodes)


# -- back-off ---------------------------------------------------------------------------------------------------------


@given(st.integers())
def test_waits_grow_and_are_bounded(seed: int) -> None:
    backoff = Backoff(random.Random(seed), first=0.1, last=1.0)
    for longest in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0):
        assert longest / 2 <= backoff.next() <= longest


def test_waits_are_short_again_after_a_reset() -> None:
    backoff = Backoff(Longest(), first=0.1, last=1.0)
    assert [backoff.next() for _ in range(3)] == [0.1, 0.2, 0.4]
    backoff.reset()
    assert backoff.next() == 0.1


# -- a call -----------------------------------------------------------------------------------------------------------


def test_a_write_goes_to_the_known_writer_and_a_read_to_the_nearest_node() -> None:
    routes = Routes([A, B], [Scope(b"a:", "x")], {"x": X})
    assert call(routes).target(0.0) == X
    assert call(routes, writes=False).target(0.0) == A
    assert call(routes, key=None).target(0.0) == A
    assert call(routes, key=b"free").target(0.0) == A


def test_a_redirect_is_followed_at_once_and_remembered() -> None:
    routes = Routes([A, B])
    one = call(routes)
    assert one.refused(A, Misdirected(X), 0.0) == 0.0
    assert one.informant(0.0) == A
    assert one.target(0.0) == X
    assert call(routes).target(0.0) == X
    routes.declare([b"a:"])
    one.learned()
    assert call(routes, key=b"a:2").target(0.0) == X


@pytest.mark.parametrize("text", ["writer is", "", "writer is nowhere", "writer is a:99999"])
def test_a_redirect_to_nowhere_is_an_error(text: str) -> None:
    error = ReplyError("MISDIRECTED", text)
    with pytest.raises(ReplyError) as caught:
        call().refused(A, error, 0.0)
    assert caught.value is error


@pytest.mark.parametrize("hops", [0, 1, 5, 8])
def test_a_loop_of_redirects_ends(hops: int) -> None:
    one = call(hops=hops, deadline=1e9)
    now = 0.0
    for _ in range(hops):
        address = one.target(now)
        now += one.refused(address, Misdirected(B if address == A else A), now)
    last = one.target(now)
    with pytest.raises(RedirectLoop) as caught:
        one.refused(last, Misdirected(X), now)
    assert len(caught.value.visited) == hops + 1
    assert one.routes.writer(b"a:1") is None


def test_a_node_that_names_itself_is_given_a_moment() -> None:
    assert call().refused(A, Misdirected(A), 0.0) > 0


@pytest.mark.parametrize("prefix", ["QUIESCED", "NOREPLICAS", "LOADING"])
def test_the_writer_is_waited_for(prefix: str) -> None:
    one = call(deadline=100.0)
    pauses = []
    for _ in range(20):
        assert one.target(0.0) == A
        pauses.append(one.refused(A, ReplyError(prefix, ""), 0.0))
    assert pauses == sorted(pauses)
    assert pauses[0] > 0
    assert pauses[-1] == LAST_SECONDS


@pytest.mark.parametrize("prefix", ["LOADING", "STALE", "MASTERDOWN"])
def test_a_read_goes_to_another_node_and_waits_when_all_refuse(prefix: str) -> None:
    one = call(writes=False, repeatable=True)
    error = ReplyError(prefix, "")
    pauses = []
    asked = []
    for _ in range(6):
        asked.append(one.target(0.0))
        pauses.append(one.refused(asked[-1], error, 0.0))
    assert asked == [A, B, C, A, B, C]
    assert [pause > 0 for pause in pauses] == [False, False, True] * 2


def test_a_replica_is_no_writer() -> None:
    routes = Routes([A, B], [Scope(b"a:", "a")], {"a": A})
    one = call(routes)
    assert one.refused(A, ReplyError("READONLY", ""), 0.0) == 0.0
    assert one.target(0.0) == B
    assert routes.writer(b"a:1") is None


@pytest.mark.parametrize("line", ["MISCONF disk", "OOM", "WRONGTYPE x", "ERR x", "CROSSSCOPE x", "NOAUTH x"])
def test_any_other_error_is_the_answer(line: str) -> None:
    error = error_reply(line)
    with pytest.raises(ReplyError) as caught:
        call().refused(A, error, 0.0)
    assert caught.value is error


def test_after_the_deadline_nothing_is_tried() -> None:
    one = call(deadline=1.0)
    with pytest.raises(DeadlinePassed, match="QUIESCED"):
        one.refused(A, Quiesced(B), 1.0)
    with pytest.raises(DeadlinePassed, match="refused"):
        call(deadline=1.0).unreachable(A, "refused", 1.0)


def test_a_write_whose_answer_is_lost_is_not_sent_again() -> None:
    with pytest.raises(Uncertain) as caught:
        call().lost(A, "closed", 0.0, ["OK"])
    assert (caught.value.address, caught.value.reason, caught.value.replies) == (A, "closed", ["OK"])
    assert A in str(caught.value)


def test_what_may_be_repeated_is() -> None:
    one = call(repeatable=True)
    assert one.lost(A, "closed", 0.0) == 0.0
    assert one.target(0.0) == B


def test_a_writer_that_is_down_is_asked_for_elsewhere_and_waited_for() -> None:
    """Nobody else takes over here: the others go on naming it, and it must not be tried without pause."""
    routes = Routes([A, B], [Scope(b"a:", "x")], {"x": X})
    one = call(routes, deadline=3.0)
    now, tried, pauses = 0.0, 0, 0

    def attempt() -> float:
        nonlocal tried
        address = one.target(now)
        if address != X:
            return one.refused(address, Misdirected(X), now)
        tried += 1
        return one.unreachable(X, "refused", now)

    last = ""
    while not last:
        try:
            pause = attempt()
        except DeadlinePassed as error:
            last = error.last
        else:
            pauses += pause > 0
            now += pause
    assert X in last
    assert pauses > 3
    assert tried <= pauses + 2
    assert now <= 3.0


def test_a_fallback_that_took_over_is_found() -> None:
    routes = Routes([A, B], [Scope(b"a:", "x")], {"x": X})
    one = call(routes)
    assert one.unreachable(X, "refused", 0.0) == 0.0
    assert one.target(0.0) == A
    assert one.refused(A, Misdirected(B), 0.0) == 0.0
    assert one.target(0.0) == B
    one.answered(B)
    assert call(routes, key=b"a:9").target(0.0) == B


def test_the_end_of_a_write_that_was_lost_is_uncertain_however_often_it_is_sent() -> None:
    one = call(repeatable=True, deadline=1.0)
    one.lost(A, "closed", 0.0, ["OK"])
    one.unreachable(B, "refused", 0.0)
    with pytest.raises(Uncertain) as caught:
        one.unreachable(C, "refused", 1.0)
    assert (caught.value.address, caught.value.reason, caught.value.replies) == (A, "closed", ["OK"])
    one = call(repeatable=True, hops=0)
    one.lost(A, "closed", 0.0)
    with pytest.raises(Uncertain):
        one.refused(B, Misdirected(X), 0.0)
    one = call(writes=False, repeatable=True, deadline=1.0)
    one.lost(A, "closed", 0.0)
    one.lost(B, "closed", 0.0)
    with pytest.raises(DeadlinePassed):
        one.lost(C, "closed", 1.0)


def test_of_several_keys_the_one_under_a_scope_says_where_to_go() -> None:
    routes = Routes([A, B])
    one = call(routes, b"free", others=(b"a:1",))
    one.refused(A, Misdirected(X), 0.0)
    assert one.target(0.0) == X
    # There is no telling yet whose that redirect was.
    assert (routes.writer(b"free"), routes.writer(b"a:1")) == (None, None)
    assert one.informant(0.0) == A
    routes.declare([b"a:"])
    one.learned()
    one.answered(X)
    assert (routes.writer(b"free"), routes.writer(b"a:1")) == (None, X)
    assert call(routes, b"free", others=(b"a:2",)).target(0.0) == X
    assert call(routes, b"free").target(0.0) == A


def test_who_keeps_calls_waiting_is_left_alone_the_longer() -> None:
    routes = Routes([A, B])
    read = call(routes, writes=False, repeatable=True, deadline=6.0)
    assert read.target(1.0) == A
    # The other one is to have time, too.
    assert read.patience(A) == 3.5
    assert read.lost(A, "silence", 3.5) == 0.0
    assert read.target(3.5) == B
    assert read.patience(B) == 6.0
    assert [routes.order(now)[0] for now in (3.5, 28.4, 28.5)] == [B, B, A]
    routes.avoid(A, 0.0, 1000.0)
    assert routes.order(AVOID_MOST_SECONDS)[0] == A
    routes.avoid(A, 0.0, 0.001)
    assert routes.order(AVOID_SECONDS)[0] == A


@pytest.mark.parametrize(("writes", "repeatable"), [(True, False), (True, True), (False, False)])
def test_what_others_must_not_answer_is_waited_for_to_the_end(writes: bool, repeatable: bool) -> None:
    one = call(writes=writes, repeatable=repeatable)
    assert one.patience(one.target(0.0)) == 5.0


def test_a_node_whose_connections_are_all_in_use_has_not_failed() -> None:
    routes = Routes([A, B], [Scope(b"a:", "a")], {"a": A})
    one = call(routes)
    one.unreachable(A, "busy", 0.0, is_busy=True)
    assert routes.order(0.0) == [A, B]
    assert routes.writer(b"a:1") == A


def test_while_a_node_loads_others_say_who_writes() -> None:
    """It may load for long; but what is under no scope is not to be scattered over those that are there."""
    routes = Routes([A, B])
    one, loading = call(routes), ReplyError("LOADING", "kevynode is loading the dataset in memory")
    assert one.refused(A, loading, 0.0) > 0
    assert one.informant(0.0) == B
    one.learned()
    assert one.target(0.0) == A
    assert one.refused(A, loading, 0.0) > 0
    routes.declare([b"a:"])
    one.learned()
    assert one.target(0.0) == B
    assert one.refused(B, Misdirected(A), 0.0) > 0
    # Now it is known whom to wait for.
    for _ in range(3):
        assert one.target(0.0) == A
        assert one.refused(A, loading, 0.0) > 0
        assert one.informant(10.0) is None
    assert call(routes, b"a:2").target(0.0) == A
    other = call(Routes([A, B], [Scope(b"a:", "b")], {}))
    assert other.refused(A, loading, 0.0) == 0.0
    assert other.target(0.0) == B


def test_a_scope_that_is_not_open_is_waited_for_where_it_is() -> None:
    one = call(Routes([A, B], [Scope(b"a:", "b")], {}))
    assert one.refused(A, ReplyError("LOADING", "scope a: is waiting for b"), 0.0) > 0
    assert one.target(0.0) == A


def test_keys_under_no_prefix_are_not_remembered_where_they_were_taken() -> None:
    routes = Routes([A, B])
    one = call(routes, key=b"free")
    one.answered(B)
    assert call(routes, key=b"free").target(0.0) == A


errors = st.sampled_from(
    [Misdirected(A), Misdirected(B), Misdirected(X), Quiesced(B), *(ReplyError(prefix, "x") for prefix in REFUSALS)]
)


@given(st.lists(errors | st.sampled_from(["down", "lost"]), min_size=1, max_size=6), st.booleans())
def test_whatever_nodes_keep_answering_a_call_ends_and_does_not_spin(answers: list[object], writes: bool) -> None:
    """The answers come round and round; each costs no time, so only pauses bring the deadline nearer."""
    one = call(writes=writes, repeatable=True, deadline=5.0, hops=4)
    now = 0.0
    for attempt in range(5000):
        address = one.target(now)
        answer = answers[attempt % len(answers)]
        try:
            if answer == "down":
                now += one.unreachable(address, "down", now)
            elif answer == "lost":
                now += one.lost(address, "lost", now)
            else:
                assert isinstance(answer, ReplyError)
                now += one.refused(address, answer, now)
        except (DeadlinePassed, RedirectLoop):
            assert now < 5.0
            # It says that nothing was done.
            assert not writes or "lost" not in answers[: attempt + 1]
            return
        except Uncertain:
            assert writes
            assert "lost" in answers
            return
    raise AssertionError(f"still trying after 5000 attempts, at {now}")
