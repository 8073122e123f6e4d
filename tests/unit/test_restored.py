"""What a node makes of the data that it finds at its start: which history goes on, and who may go on with it."""

from __future__ import annotations

import pytest
from support.link_harness import shown
from support.replication_harness import ALL, Primary
from support.restoring import OLD, frames_sent, load, restart, words

from kevynode.errors import ReplyError
from kevynode.replicate import wire
from kevynode.replicate.handshake import format_scopes
from kevynode.replicate.primary_states import State
from kevynode.replicate.surroundings import Refused
from kevynode.replication_view import UpstreamFacts
from kevynode.store.apply import Applier

# -- a primary --------------------------------------------------------------------------------------------------------


def test_a_primary_begins_a_new_history_where_the_data_ends() -> None:
    primary = restart("SET a 1", "SET b 2")
    replication = primary.replication
    assert replication.history not in (77, 78)
    assert replication.lineage.ancestors == ((78, 2), (77, 4))
    assert (replication.position, replication.backlog.first, replication.backlog.next) == (2, 0, 2)
    primary.call("SET", "c", "3")
    assert replication.position == 3


def test_replicas_of_the_old_history_get_the_entries_of_before_and_those_of_after() -> None:
    primary = restart("SET a 1", "SET b 2;SET c 3")
    primary.call("SET", "d", "4")
    old = wire.frame(0, words("SET a 1")), wire.group(2) + wire.encode_frames(1, [words("SET b 2"), words("SET c 3")])
    new = wire.frame(3, words("SET d 4"))
    assert frames_sent(primary, 0, name="0") == old[0] + old[1] + new
    assert frames_sent(primary, 1, name="1") == old[1] + new
    assert frames_sent(primary, 3, name="3") == new
    assert primary.replication.partial_syncs == 3


@pytest.mark.parametrize(
    ("offset", "history", "form", "why"),
    [
        (4, 78, "EXTENDED", "1 entries beyond the branch at offset 3"),
        (2, 78, "EXTENDED", "inside a group"),
        (3, 78, "SIX", "cannot follow across the branch"),
        (3, 79, "EXTENDED", "unknown here"),
        (3, 0, "FIVE", "never served"),
        (0, 0, "FIVE", "needs what was there"),
    ],
)
def test_all_others_get_a_snapshot(offset: int, history: int, form: str, why: str) -> None:
    primary = restart("SET a 1", "SET b 2;SET c 3")
    link = primary.connect(offset, history=history, form=form)
    assert link.state is State.HANDSHAKE
    primary.take(link)
    record = primary.slot.last_sync
    assert record is not None
    assert why in record.reason
    assert primary.replication.beyond_branch == (offset == 4)
    assert ("replica_ahead_of_branch" in primary.log.events("warning")) is (offset == 4)


def test_what_is_not_in_the_tail_cannot_be_sent_again() -> None:
    primary = restart("SET a 1", first=10)
    assert primary.connect(9, history=78).state is State.HANDSHAKE
    assert primary.connect(10, history=78, name="exact").state is State.STREAMING


def test_a_tail_without_entries_covers_who_is_complete() -> None:
    primary = Primary()
    load(primary, 0, [])
    primary.replication.restored(OLD, 9, {}, False, True)
    primary.replication.loading = False
    primary.call("SET", "b", "2")
    assert frames_sent(primary, 9) == wire.frame(9, words("SET b 2"))
    assert shown(primary.take(primary.connect(8, history=78, name="behind")))[3:4] == ["SnapshotBegin"]


def test_writes_beside_the_stream_leave_no_ancestor() -> None:
    primary = restart("SET a 1", local=True)
    assert primary.replication.lineage.ancestors == ()
    assert primary.connect(1, history=78).state is State.HANDSHAKE
    # They are this history's data like all others.
    assert "SnapshotBegin" in shown(primary.take(primary.connect(name="new")))


def test_replicas_are_expected_for_one_window() -> None:
    primary = restart("SET a 1", reconnect_window_ms=5000)
    replication = primary.replication
    primary.call("SET", "b", "2")
    primary.time += 4.9
    replication.tick()
    assert (replication.active, replication.backlog.first, replication.backlog.next) == (True, 0, 2)
    primary.time += 0.2
    replication.tick()
    assert (replication.active, replication.backlog.first, replication.backlog.next) == (False, 2, 2)
    assert replication.backlog.observe not in primary.harness.store.journal.observers


def test_a_node_that_found_nothing_begins_as_ever() -> None:
    primary = Primary()
    replication = primary.replication
    replication.loading = True
    lineage = replication.restored(None, 0, {}, False, True)
    replication.loading = False
    assert (lineage, replication.active) == (replication.lineage, False)
    assert lineage.ancestors == ()
    # All that there is are its entries.
    assert primary.connect(0, form="FIVE").state is State.STREAMING


def test_data_without_a_history_are_nobodys_beginning() -> None:
    primary = Primary()
    Applier(primary.harness.store).apply(words("SET a 1"))
    primary.harness.store.journal.pending.clear()
    primary.replication.restored(None, 0, {}, False, True)
    assert primary.connect(0, form="FIVE").state is State.HANDSHAKE


def test_a_standalone_node_holds_nothing_for_replicas() -> None:
    primary = restart("SET a 1", standalone=True)
    replication = primary.replication
    assert (replication.active, replication.backlog.memory < 200, replication.position) == (False, True, 1)
    assert replication.lineage.ancestors[0] == (78, 1)


def test_the_tail_stays_within_the_budget() -> None:
    primary = restart(*(f"SET k{number} {'v' * 1000}" for number in range(500)), backlog_budget=200_000)
    backlog = primary.replication.backlog
    assert 0 < backlog.first < backlog.next == 500
    assert backlog.memory < 300_000


# -- while data are loaded ---------------------------------------------------------------------------------------------


def test_replicas_are_put_off_while_data_are_loaded() -> None:
    primary = Primary(reconnect_window_ms=0)
    load(primary, 0, [[words("SET a 1")]])
    with pytest.raises(Refused) as refused:
        primary.connect(0, history=78)
    assert refused.value.line.startswith(b"-LOADING")
    primary.replication.forget(primary.slot)
    primary.replication.tick()
    primary.replication.restored(OLD, 1, {}, False, True)
    primary.replication.loading = False
    assert primary.connect(0, history=78).state is State.STREAMING


def test_a_change_of_role_while_data_are_loaded_harms_nothing() -> None:
    primary = Primary()
    replication = primary.replication
    load(primary, 3, [[words("SET a 1")]])
    replication.promote()
    replication.follow("10.0.0.2", 16004)
    with pytest.raises(ReplyError, match="LOADING"):
        replication.promote()
    replication.restored(OLD, 4, {}, False, False)
    replication.loading = False
    assert (replication.lineage, replication.cursor(), replication.role) == (OLD, (78, 4), "slave")
    assert primary.connect(3, history=78).state is State.STREAMING
    replication.promote()
    assert replication.lineage.ancestors[0] == (78, 4)


# -- a replica --------------------------------------------------------------------------------------------------------


def test_a_replica_goes_on_in_its_upstreams_history() -> None:
    primary = restart("SET a 1", "SET b 2", own=False, opens=False)
    replication = primary.replication
    assert (replication.lineage, replication.position) == (OLD, 2)
    replication.follow("10.0.0.2", 16004)
    assert replication.has_data
    assert replication.cursor() == (78, 2)
    link = primary.connect(1, history=78)
    assert "1 SET b 2" in shown(primary.take(link))
    replication.adopt(78, 2, OLD.ancestors, "partial", "goes on")
    assert link.reason == ""
    raw = wire.frame(2, words("SET c 3"))
    primary.harness.store.journal.offset = 3
    replication.entries_applied(2, 3, raw, False, False)
    assert primary.take(link) == raw
    # The upstream was started anew, too.
    replication.adopt(99, 3, ((78, 3), *OLD.ancestors), "partial", "goes on")
    assert link.reason == "the upstream's history has changed"
    primary.disconnect(link)
    assert primary.connect(2, history=78).state is State.STREAMING


def test_a_replica_that_had_no_data_yet_asks_for_them() -> None:
    primary = restart(opens=False)
    primary.replication.follow("10.0.0.2", 16004)
    assert (primary.replication.has_data, primary.replication.cursor()) == (False, (0, 0))
    assert primary.node.loading


def test_a_replica_with_writes_of_its_own_still_gives_nobody_a_snapshot() -> None:
    primary = restart("SET a 1", opens=False, local=True)
    primary.replication.follow("10.0.0.2", 16004)
    with pytest.raises(Refused, match="writes of its own"):
        primary.connect()
    primary.replication.promote()
    assert primary.replication.lineage.ancestors == ()
    primary.call("SET", "b", "2")
    assert not primary.harness.store.journal.outside


def test_a_copy_of_several_streams_numbers_anew() -> None:
    # What it told before its end, and lost, must not be told again under the same numbers.
    primary = restart("SET a 1", "SET b 2", own=False, opens=False, shards=2)
    replication = primary.replication
    assert replication.lineage.ancestors[0] == (78, 2)
    replication.follow("10.0.0.2", 16004)
    assert (replication.cursor(), replication.has_data) == ((0, 0), True)
    primary.call("SET", "c", "3")
    link = primary.connect(1, history=78)
    assert [step.split(" ")[0] for step in shown(primary.take(link))[3:]] == ["1", "2", "PING"]


@pytest.mark.parametrize(("shards", "steps"), [(1, ["0 SET a:1 1", "SKIP 2"]), (2, ["SKIP 2"])])
def test_entries_of_an_upstream_are_foreign_only_where_they_are_renumbered(shards: int, steps: list[str]) -> None:
    primary = restart("SET a:1 1", "SET b:1 2", own=False, opens=False, shards=shards)
    primary.replication.follow("10.0.0.2", 16004)
    link = primary.connect(0, history=78, capabilities=ALL)
    primary.take(link)
    primary.replication.heard(link.slot, link, format_scopes([b"a:"]))
    assert shown(primary.take(link)) == steps


class Upstream:
    """The follower of a kevy server, of which that is known only when it has answered."""

    received_bytes = 0
    diverged = ""
    lenient = False

    def facts(self, now: float) -> list[UpstreamFacts]:
        return []

    def position_in(self, history: int) -> int | None:
        return None


def test_who_was_promised_what_a_kevy_servers_stream_does_not_keep_is_asked_to_come_again() -> None:
    primary = restart("SET a 1", own=False, opens=False)
    replication = primary.replication
    replication.follow("10.0.0.2", 16004)
    upstream = Upstream()
    replication.set_upstream(upstream)
    link = primary.connect(1, history=78)
    primary.take(link)
    replication.adopt(78, 1, OLD.ancestors, "partial", "goes on")
    assert link.reason == ""
    upstream.lenient = True
    replication.adopt(78, 1, OLD.ancestors, "partial", "goes on")
    assert link.closed
    primary.disconnect(link)
    again = primary.connect(1, history=78)
    assert b"lineage" not in primary.take(again)
    replication.adopt(78, 1, OLD.ancestors, "partial", "goes on")
    assert again.reason == ""


# -- entries that are no entries of the stream -------------------------------------------------------------------------


def test_where_the_numbers_jump_nothing_before_is_held() -> None:
    primary = Primary()
    replication = primary.replication
    replication.loading = True
    replication.restore_entries(0, [words("SET a 1")], 1, False, True)
    replication.restore_entries(7, [words("SET b 2")], 8, False, True)
    assert (replication.backlog.first, replication.backlog.next) == (7, 8)
    # One entry of a kevy server that stands for two commands here.
    replication.restore_entries(8, [words("SET c 3"), words("SET d 4")], 9, True, False)
    assert (replication.backlog.first, replication.backlog.next) == (9, 9)
    replication.restore_entries(9, [words("SET e 5")], 10, False, True)
    # What has no number of its own was never sent to anybody.
    replication.restore_entries(10, [words("DEL e")], 10, False, True)
    assert (replication.backlog.first, replication.backlog.next) == (9, 10)
    replication.restored(OLD, 12, {}, False, True)
    assert (replication.backlog.first, replication.backlog.next) == (12, 12)


def test_a_group_too_large_for_the_wire_is_cut_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kevynode.replicate.backlog.GROUP_LIMIT", 3)
    text = ";".join(f"SET k{number} v" for number in range(7))
    groups = [step.split(" ")[0] for step in shown(frames_sent(restart(text), 0))]
    assert groups == ["TXN", "TXN", "TXN", "TXN", "TXN", "TXN", "6"]
