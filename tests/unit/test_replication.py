"""What a node decides about its replicas and its role, without I/O, on a clock that the test moves."""

from __future__ import annotations

from functools import partial

import pytest
from support.link_harness import shown
from support.replication_harness import ALL, Primary

from kevynode.errors import ReplyError
from kevynode.replicate.handshake import format_scopes
from kevynode.replicate.primary import PrimaryLink
from kevynode.replicate.primary_states import State
from kevynode.replicate.surroundings import Refused
from kevynode.replicate.view import NodeReplicationView

SYNCED = tuple[int, int, int]


def syncs(primary: Primary) -> SYNCED:
    replication = primary.replication
    return replication.full_syncs, replication.partial_syncs, replication.partial_refused


def joined(primary: Primary, name: str = "r") -> PrimaryLink:
    """A replica that has everything and has said so."""
    link = primary.connect(name=name)
    primary.take(link)
    primary.acknowledge(link, primary.replication.position)
    return link


def view(primary: Primary) -> NodeReplicationView:
    return NodeReplicationView(primary.replication, lambda host, port: f"{host}:{port - 10000}", lambda: "own:6004")


# -- slots and links --------------------------------------------------------------------------------------------------


def test_the_backlog_is_held_only_while_a_slot_lives() -> None:
    primary = Primary()
    replication = primary.replication
    primary.fill(10)
    assert (replication.active, replication.backlog.next) == (False, 0)
    link = joined(primary)
    primary.fill(10)
    assert (replication.active, replication.backlog.first, replication.backlog.next) == (True, 10, 20)
    primary.disconnect(link)
    primary.fill(10)
    assert (primary.slot.state, replication.backlog.next) == ("waiting", 30)
    replication.forget(primary.slot)
    primary.fill(10)
    assert (replication.active, replication.backlog.first, replication.backlog.next) == (False, 30, 30)
    assert len(primary.harness.store.journal.observers) == 1
    primary.assert_idle()


def test_what_the_last_replica_leaves_another_one_keeps() -> None:
    primary = Primary()
    first, second = joined(primary, name="1"), joined(primary, name="2")
    primary.disconnect(first)
    primary.replication.forget(first.slot)
    assert primary.replication.active
    primary.disconnect(second)
    primary.replication.forget(second.slot)
    assert not primary.replication.active


@pytest.mark.parametrize(
    ("asked", "counted"),
    [
        ({}, (1, 0, 0)),
        ({"offset": 3}, (0, 1, 0)),
        ({"offset": 2, "history": 12345}, (1, 0, 1)),
        ({"offset": 9}, (1, 0, 1)),
        ({"offset": 2}, (1, 0, 1)),
    ],
    ids=["new", "up to date", "of another history", "ahead", "not held any more"],
)
def test_syncs_are_counted_by_kind(asked: dict[str, int], counted: SYNCED) -> None:
    primary = Primary()
    primary.fill(3)
    primary.take(primary.connect(**asked))  # type: ignore[arg-type]
    assert syncs(primary) == counted
    record = primary.slot.last_sync
    assert record is not None
    assert record.kind == ("partial" if counted[1] else "full")
    if counted[2]:
        assert "next offset 3, holding 3 to 3" in record.reason


def test_a_replica_that_was_cut_off_goes_on_where_it_stopped() -> None:
    primary = Primary()
    link = joined(primary)
    primary.disconnect(link)
    primary.fill(2)
    back = primary.connect(0)
    assert [step.split(" ")[0] for step in shown(primary.take(back))[3:]] == ["0", "1", "PING"]
    assert syncs(primary) == (1, 1, 0)


def test_an_old_connection_that_ends_late_disturbs_nothing() -> None:
    primary = Primary()
    old = joined(primary)
    primary.replication.recognise(primary.request(0), "10.0.0.2:1")
    primary.disconnect(old)
    assert primary.slot.connected
    new = primary.replication.open_link(primary.slot, primary.request(0))
    primary.disconnect(old)
    assert primary.replication.links == {primary.slot: new}
    assert primary.slot.takeovers == 1


def test_a_link_that_ends_in_the_middle_of_its_ship_leaves_nothing() -> None:
    primary = Primary()
    primary.fill(500)
    link = primary.connect()
    primary.replication.take(link)
    assert link.state is State.SNAPSHOT
    primary.disconnect(link)
    primary.disconnect(link)
    primary.assert_idle()


def test_after_an_overrun_ships_wait_for_their_turn() -> None:
    primary = Primary(backlog_budget=100_000)
    primary.fill(500)
    link = primary.connect()
    primary.replication.take(link)
    primary.fill(1500, key="more")
    assert primary.take(link) == b""
    primary.disconnect(link)
    again, other = primary.connect(), primary.connect(name="other")
    assert "SnapshotBegin" not in shown(primary.take(again))
    primary.time += 1
    primary.replication.take(again)
    assert again.state is State.SNAPSHOT
    assert "SnapshotBegin" not in shown(primary.take(other))
    primary.take(again)
    assert "SnapshotBegin" in shown(primary.take(other))
    primary.disconnect(again)
    primary.disconnect(other)
    primary.assert_idle()


def test_a_standalone_node_knows_no_replicas() -> None:
    primary = Primary(standalone=True)
    with pytest.raises(Refused, match="standalone"):
        primary.connect()
    with pytest.raises(ReplyError, match="standalone"):
        primary.replication.follow("10.0.0.2", 16004)
    assert not len(primary.replication.slots)


# -- acknowledgements -------------------------------------------------------------------------------------------------


def test_acknowledgements_are_told_to_those_who_wait() -> None:
    primary = Primary()
    link = joined(primary)
    told = primary.node.acknowledgements
    primary.fill(2)
    primary.take(link)
    primary.acknowledge(link, 2)
    assert (primary.slot.acked, primary.node.acknowledgements) == (2, told + 1)


@pytest.mark.parametrize("claim", [6, 10**18, 2, 0])
def test_a_claim_that_cannot_be_is_not_believed(claim: int) -> None:
    primary = Primary()
    primary.fill(5)
    link = joined(primary)
    told = primary.node.acknowledgements
    primary.acknowledge(link, claim)
    assert (primary.slot.acked, primary.node.acknowledgements) == (5, told)


def test_a_claim_during_a_ship_is_not_believed() -> None:
    primary = Primary()
    primary.fill(500)
    link = primary.connect()
    primary.replication.take(link)
    primary.acknowledge(link, 500)
    assert primary.replication.slots.acked(0) == 0
    primary.take(link)
    primary.acknowledge(link, 499)
    assert primary.slot.acked == 0
    primary.acknowledge(link, 500)
    assert primary.slot.acked == 500


def test_a_filtered_replica_counts_for_what_it_covers() -> None:
    primary = Primary()
    whole = joined(primary, name="whole")
    part = primary.connect(name="part", capabilities=ALL)
    primary.replication.heard(part.slot, part, format_scopes([b"a:"]))
    assert primary.node.tracks_written_keys
    for link in (whole, part):
        primary.take(link)
    primary.call("SET", "a:1", "v")
    primary.call("SET", "b:1", "v")
    for link in (whole, part):
        primary.take(link)
        primary.acknowledge(link, 2)
    facts = view(primary)
    assert facts.acknowledged(2, frozenset([b"a:1"])) == 2
    assert facts.acknowledged(2, frozenset([b"a:1", b"b:1"])) == 1
    assert facts.acknowledged(2, None) == 1
    primary.disconnect(part)
    # It will be back.
    assert primary.node.tracks_written_keys
    primary.replication.forget(part.slot)
    assert not primary.node.tracks_written_keys


# -- gates ------------------------------------------------------------------------------------------------------------


def test_writes_need_so_many_replicas_that_have_spoken_lately() -> None:
    primary = Primary(min_replicas=1, min_replicas_max_lag_ms=3000)
    primary.replication.judge()
    assert primary.node.refusals == {"noreplicas"}
    link = joined(primary)
    assert primary.node.refusals == set()
    primary.time += 3.5
    primary.replication.tick()
    assert primary.node.refusals == {"noreplicas"}
    primary.acknowledge(link, 0)
    assert primary.node.refusals == set()
    primary.disconnect(link)
    assert primary.node.refusals == {"noreplicas"}


def test_a_replica_asks_for_no_replicas_of_its_own() -> None:
    primary = Primary(min_replicas=1)
    primary.replication.judge()
    primary.replication.follow("10.0.0.2", 16004)
    assert primary.node.refusals == set()
    primary.replication.promote()
    assert primary.node.refusals == {"noreplicas"}


def test_the_silent_and_the_stuck_are_hung_up_on() -> None:
    primary = Primary()
    silent, stuck, fine = (joined(primary, name=name) for name in ("silent", "stuck", "fine"))
    ended: list[str] = []
    for link in (silent, stuck, fine):
        link.hang_up = partial(ended.append, link.slot.replica_id)
    stuck.sending_since = primary.time
    for _ in range(11):
        primary.time += 1
        for link in (stuck, fine):
            primary.acknowledge(link, 0)
        primary.replication.tick()
    assert sorted(set(ended)) == ["silent", "stuck"]
    assert [silent.reason, stuck.reason] == ["silent for 10 s", "took no byte for 10 s"]


def test_who_takes_a_long_snapshot_need_not_speak_until_it_has_it() -> None:
    primary = Primary()
    primary.fill(5000)
    link = primary.connect(form="SIX")
    for _ in range(15):
        primary.time += 1
        primary.replication.take(link)
        primary.replication.tick()
    assert link.state is State.SNAPSHOT
    primary.take(link)
    primary.time += 9
    primary.replication.tick()
    assert not link.closed
    primary.time += 2
    primary.replication.tick()
    assert link.reason == "silent for 10 s"


# -- roles ------------------------------------------------------------------------------------------------------------


def test_a_promotion_begins_a_history_that_replicas_at_the_branch_go_on_with() -> None:
    primary = Primary()
    replication = primary.replication
    primary.fill(3)
    link = joined(primary)
    old = replication.history
    replication.follow("10.0.0.2", 16004)
    assert (replication.role, replication.target, primary.node.role) == ("slave", ("10.0.0.2", 16004), "slave")
    replication.promote()
    assert (replication.role, replication.target, primary.node.role) == ("master", None, "master")
    assert replication.history != old
    assert replication.lineage.ancestors == ((old, 3),)
    assert link.reason == "the node has become a primary"
    primary.disconnect(link)
    counted = syncs(primary)
    primary.fill(1, key="new")
    # At the branch: it goes on, if it knows what a branch is. Beyond it: never.
    knows = primary.connect(3, history=old)
    assert knows.state is State.STREAMING
    knows_not = primary.connect(3, history=old, form="SIX", name="kevy")
    beyond = primary.connect(4, history=old, name="beyond")
    assert (knows_not.state, beyond.state) == (State.HANDSHAKE, State.HANDSHAKE)
    assert syncs(primary)[1:] == (counted[1] + 1, counted[2] + 2)
    assert replication.beyond_branch == 1
    replication.promote()
    assert replication.lineage.ancestors == ((old, 3),)


def test_nobody_goes_on_across_a_promotion_with_writes_beside_the_stream() -> None:
    primary = Primary()
    replication = primary.replication
    primary.fill(3)
    old = replication.history
    replication.follow("10.0.0.2", 16004)
    # replica_read_only = false: the write stays outside the history, and the numbers do not show it.
    primary.fill(1, key="local")
    assert replication.position == 3
    replication.promote()
    assert replication.lineage.ancestors == ()
    assert primary.connect(3, history=old).state is State.HANDSHAKE


def test_following_again_changes_nothing_and_somebody_else_does() -> None:
    primary = Primary()
    changes: list[object] = []
    primary.replication.on_target = lambda: changes.append(primary.replication.target)
    assert primary.replication.follow("10.0.0.2", 16004)
    assert not primary.replication.follow("10.0.0.2", 16004)
    assert primary.replication.follow("10.0.0.3", 16004)
    primary.replication.promote()
    assert changes == [("10.0.0.2", 16004), ("10.0.0.3", 16004), None]


def test_a_lone_node_without_data_that_follows_has_nothing_to_show() -> None:
    primary = Primary()
    primary.replication.follow("10.0.0.2", 16004)
    assert primary.node.loading
    assert primary.replication.cursor() == (0, 0)
    with pytest.raises(Refused) as refused:
        primary.connect()
    assert refused.value.line.startswith(b"-LOADING")
    assert not primary.slot.connected
    primary.replication.promote()
    assert not primary.node.loading


def test_hanging_up_ends_every_link() -> None:
    primary = Primary()
    links = [joined(primary, name=name) for name in "abc"]
    ended: list[PrimaryLink] = []
    for link in links:
        link.hang_up = partial(ended.append, link)
    primary.replication.hang_up("all changed")
    assert ended == links
    assert {link.reason for link in links} == {"all changed"}


def test_what_a_token_may_name() -> None:
    primary = Primary()
    replication = primary.replication
    primary.fill(3)
    old = replication.history
    replication.follow("10.0.0.2", 16004)
    replication.promote()
    primary.fill(2, key="new")
    facts = view(primary)
    new = replication.history
    assert [facts.has_applied(new, offset) for offset in (0, 5, 6)] == [True, True, False]
    assert [facts.has_applied(old, offset) for offset in (0, 3, 4)] == [True, True, None]
    assert facts.has_applied(12345, 0) is None
