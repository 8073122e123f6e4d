"""Who is turned away is told in the log, and cannot fill it, nor the memory."""

from __future__ import annotations

from support.session_harness import MemoryLog

from kevynode.refusals import REFUSALS, Refusals


def test_who_comes_again_and_again_is_told_ever_less_often() -> None:
    log = MemoryLog()
    refusals = Refusals(log, "peer_refused")
    for port in range(100):
        refusals.log(f"10.0.0.1:{port}", "no")
    assert [fields["times"] for _, _, fields in log.records] == [1, 2, 4, 8, 16, 32, 64]
    assert log.records[0] == ("warning", "peer_refused", {"peer": "10.0.0.1:0", "reason": "no", "times": 1})
    refusals.log("[::1]:7", "no")
    refusals.log("10.0.0.1:7", "another reason")
    assert [fields["times"] for _, _, fields in log.records[-2:]] == [1, 1]


def test_only_so_many_are_told_apart_and_the_latest_are_kept() -> None:
    log = MemoryLog()
    refusals = Refusals(log, "peer_refused")
    refusals.log("first:1", "no")
    for number in range(REFUSALS - 1):
        refusals.log(f"host{number}:1", "no")
    refusals.log("first:1", "no")
    assert len(refusals) == REFUSALS
    refusals.log("one more:1", "no")
    assert len(refusals) == REFUSALS
    # host0 was longest ago, and is new again; who came later than that is known still.
    refusals.log("first:1", "no")
    refusals.log("first:1", "no")
    refusals.log("host0:1", "no")
    assert [fields["times"] for _, _, fields in log.records[-2:]] == [4, 1]
