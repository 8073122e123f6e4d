"""How a handshake is answered: every rule, and the numbers in its reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevynode.replicate.handshake import (
    Form,
    Held,
    Refuse,
    Request,
    Resume,
    Snapshot,
    decide,
)
from kevynode.replicate.lineage import Lineage

# History 9 is ours; it left 8 at 250 and 8 had left 7 at 100. Next offset 400, entries from 60 on are held.
LINEAGE = Lineage(7).branch(8, 100).branch(9, 250)
HELD = Held(60, 400)
FROM_THE_START = Held(0, 400, began_empty=True)


def five(offset: int) -> Request:
    return Request(Form.FIVE, 0, offset, "a")


def six(history: int, offset: int) -> Request:
    return Request(Form.SIX, history, offset, "a")


def extended(history: int, offset: int, *capabilities: str) -> Request:
    return Request(Form.EXTENDED, history, offset, "a", frozenset(capabilities or ("txn", "lineage")))


@pytest.mark.parametrize(
    ("request_", "held", "served", "why"),
    [
        # Five arguments: no history is named.
        pytest.param(five(0), FROM_THE_START, None, None, id="five, from the start of what began empty"),
        pytest.param(five(0), Held(0, 400), None, "before the first entry held", id="five, began with data"),
        pytest.param(five(0), Held(1, 400, True), None, "before the first entry held", id="five, the start is gone"),
        pytest.param(five(0), HELD, 400, "before the first entry held", id="five, served before but begins anew"),
        pytest.param(five(0), None, None, "before the first entry held", id="five, from the start, nothing held"),
        pytest.param(five(300), HELD, 400, None, id="five, served further"),
        pytest.param(five(300), HELD, 300, None, id="five, served up to there"),
        pytest.param(five(300), HELD, 299, "up to offset 299 only", id="five, served less"),
        pytest.param(five(300), HELD, None, "never served", id="five, never served"),
        pytest.param(five(400), HELD, 400, None, id="five, up to date"),
        pytest.param(five(401), HELD, 500, "1 entries ahead", id="five, ahead"),
        pytest.param(five(59), HELD, 400, "no longer held", id="five, too old"),
        # Six arguments: the history has to be ours.
        pytest.param(six(9, 300), HELD, None, None, id="six, held"),
        pytest.param(six(9, 60), HELD, None, None, id="six, the oldest held"),
        pytest.param(six(9, 59), HELD, None, "no longer held", id="six, too old"),
        pytest.param(six(9, 400), HELD, None, None, id="six, up to date"),
        pytest.param(six(9, 401), HELD, None, "1 entries ahead", id="six, ahead"),
        pytest.param(six(9, 2**64 - 1), HELD, None, "entries beyond", id="six, beyond all offsets"),
        pytest.param(six(9, 0), FROM_THE_START, None, None, id="six, from the start"),
        pytest.param(six(0, 0), FROM_THE_START, None, "claims no data", id="six, no claim"),
        pytest.param(six(0, 300), HELD, 400, "claims no data", id="six, an offset of no history"),
        pytest.param(six(6, 300), HELD, None, "unknown here", id="six, unknown history"),
        pytest.param(six(8, 240), HELD, None, "across the branch at offset 250", id="six, an ancestor"),
        pytest.param(six(9, 400), None, None, None, id="six, up to date, nothing held"),
        pytest.param(six(9, 399), None, None, "no longer held", id="six, behind, nothing held"),
        # Extended: ancestors count up to where they branched off.
        pytest.param(extended(9, 300), HELD, None, None, id="extended, held"),
        pytest.param(extended(8, 250), HELD, None, None, id="extended, an ancestor at its branch"),
        pytest.param(extended(7, 100), HELD, None, None, id="extended, an older ancestor at its branch"),
        pytest.param(extended(7, 59), HELD, None, "no longer held", id="extended, an ancestor, too old"),
        pytest.param(extended(6, 100), HELD, None, "unknown here", id="extended, unknown history"),
        pytest.param(extended(0, 0), FROM_THE_START, None, "claims no data", id="extended, no claim"),
        pytest.param(extended(8, 240, "txn"), HELD, None, "across the branch", id="extended, without lineage"),
        pytest.param(extended(9, 401), HELD, None, "1 entries ahead", id="extended, ahead"),
    ],
)
def test_resume_or_snapshot(request_: Request, held: Held | None, served: int | None, why: str | None) -> None:
    decision = decide(request_, LINEAGE, held, served, next_offset=400)
    if why is None:
        assert isinstance(decision, Resume)
        assert decision.offset == request_.offset
    else:
        assert isinstance(decision, Snapshot)
        assert why in decision.reason
    # Every reason names all the numbers.
    history = str(request_.history) if request_.history else "none"
    holding = f"{held.first} to {held.next}" if held else "nothing"
    assert f"asked history {history} offset {request_.offset}" in decision.reason
    assert f"ours is history 9, next offset 400, holding {holding}" in decision.reason


@pytest.mark.parametrize(
    ("request_", "lost"),
    [
        (extended(8, 251), 1),
        (extended(7, 180), 80),
        (six(8, 260), 10),
        (extended(8, 250, "txn"), 0),
        (extended(6, 300), 0),
        (extended(9, 500), 0),
    ],
)
def test_what_a_replica_holds_beyond_a_branch_is_counted(request_: Request, lost: int) -> None:
    decision = decide(request_, LINEAGE, HELD)
    assert isinstance(decision, Snapshot)
    assert decision.beyond_branch == lost
    assert (f"{lost} entries beyond the branch" in decision.reason) == (lost > 0)


@pytest.mark.parametrize("request_", [five(300), six(9, 300), extended(9, 300), extended(7, 100)])
def test_a_cursor_inside_a_group_starts_over(request_: Request) -> None:
    decision = decide(request_, LINEAGE, HELD, 400, lambda offset: offset != request_.offset)
    assert isinstance(decision, Snapshot)
    assert "inside a group" in decision.reason


def test_who_is_up_to_date_stands_inside_no_group() -> None:
    assert isinstance(decide(six(9, 400), LINEAGE, HELD, None, lambda offset: False), Resume)


@pytest.mark.parametrize("request_", [five(0), six(9, 400), extended(9, 300)])
def test_a_node_that_is_not_ready_refuses_everybody(request_: Request) -> None:
    decision = decide(request_, LINEAGE, FROM_THE_START, unready="no data yet")
    assert isinstance(decision, Refuse)
    assert decision.reason.startswith("no data yet: asked history")


def test_the_next_offset_has_to_be_known() -> None:
    with pytest.raises(TypeError):
        decide(six(9, 1), LINEAGE, None)


@settings(deadline=None)
@given(
    st.sampled_from([Form.FIVE, Form.SIX, Form.EXTENDED]),
    st.integers(0, 10),
    st.integers(0, 500),
    st.integers(0, 400),
    st.none() | st.integers(0, 500),
)
def test_nobody_resumes_on_what_is_not_ours_or_not_held(
    form: Form, history: int, offset: int, first: int, served: int | None
) -> None:
    capabilities = frozenset({"lineage"} if form is Form.EXTENDED else ())
    request_ = Request(form, 0 if form is Form.FIVE else history, offset, "a", capabilities)
    decision = decide(request_, LINEAGE, Held(first, 400), served)
    if isinstance(decision, Resume):
        assert first <= offset <= 400
        if form is Form.FIVE:
            assert served is not None
            assert 0 < offset <= served
        else:
            assert LINEAGE.covers(history, offset)
            assert form is Form.EXTENDED or history == LINEAGE.history
