"""A link that carries only some prefixes: what is left out, what is skipped, and the snapshots of single scopes."""

from __future__ import annotations

import pytest
from support.link_harness import ALL, SHIP, Source, named, payload, shown, take

from kevynode.replicate import snapshot_encoder, wire
from kevynode.replicate.handshake import format_scopes


@pytest.mark.parametrize(
    ("capabilities", "accepted"),
    [
        ("scopes", b"+CAPA 0"),
        ("scopes skip", b"+CAPA 1 skip"),
        ("scopes txn", b"+CAPA 1 txn"),
        (ALL, b"+CAPA 5 txn skip scopes ackreq lineage"),
    ],
)
def test_only_who_knows_skips_and_groups_gets_a_filtered_link(capabilities: str, accepted: bytes) -> None:
    source = Source()
    link = source.link("EXTENDED", 0, capabilities)
    assert b"".join(link.take(0.0)).split(b"\r\n")[1] == accepted
    assert (link.coverage.prefixes is None) is (b"scopes" not in accepted)


def test_a_filtered_link_begins_when_its_prefixes_are_named() -> None:
    source = Source()
    source.call("SET", "a:1", "v")
    link = source.link("EXTENDED", 0, ALL)
    # Until then it covers nothing, and counts for nothing that was written.
    assert not link.slot.counts_for([b"a:1"])
    assert not link.slot.counts_for(None)
    assert shown(take(link)) == ["Acknowledged", "Accepted", "Ancestors", "PING 1"]
    named(link, b"a:", b"c:")
    assert shown(take(link)) == ["0 SET a:1 v"]
    assert link.coverage.prefixes == link.slot.prefixes == (b"a:", b"c:")
    # Said once.
    link.receive(format_scopes((b"b:",)), 0.0)
    assert link.coverage.prefixes == (b"a:", b"c:")


def test_an_unfiltered_link_covers_everything_whatever_its_replica_followed_before() -> None:
    source = Source()
    named(source.link("EXTENDED", 0, ALL), b"a:")
    link = source.link("EXTENDED", 0)
    assert (link.slot.prefixes, link.slot.counts_for(None)) == (None, True)


def test_a_filtered_link_that_names_no_prefix_carries_all_that_the_node_owns() -> None:
    source = Source()
    source.owned = (b"b:",)
    link = named(source.link("EXTENDED", 0, ALL))
    assert link.coverage.prefixes == (b"b:",)
    silent = source.link("EXTENDED", 0, ALL)
    silent.receive(b"REPLCONF ACK 0\r\n", 0.0)
    assert silent.coverage.prefixes == (b"b:",)


def test_what_is_left_out_is_skipped_before_frames_when_drained_and_before_beats_and_requests() -> None:
    source = Source()
    link = named(source.link("EXTENDED", 0, ALL), b"a:")
    take(link)
    source.call("SET", "b:1", "v")
    source.call("SET", "a:1", "v")
    assert shown(take(link)) == ["SKIP 1", "1 SET a:1 v"]
    source.call("SET", "b:2", "v")
    assert shown(take(link)) == ["SKIP 3"]
    source.call("SET", "b:3", "v")
    link.heartbeat()
    assert shown(take(link)) == ["SKIP 4", "PING 4"]
    source.call("SET", "b:4", "v")
    link.ask()
    assert shown(take(link)) == ["SKIP 5", "AckRequested"]
    source.call("MSET", "a:2", "v", "b:5", "v", "a:3", "v")
    two = [wire.frame(offset, [b"SET", key, b"v"]) for offset, key in ((5, b"a:2"), (7, b"a:3"))]
    assert take(link) == b"+TXN 2\r\n" + two[0] + b"+SKIP 7\r\n" + two[1]


def test_a_filter_that_leaves_out_much_does_not_put_the_link_to_sleep() -> None:
    source = Source()
    source.fill(1000, key="b")
    source.call("SET", "a:1", "v")
    link = named(source.link("EXTENDED", 0, ALL), b"a:")
    for _ in range(1000):
        parts = link.take(0.0)
        if not parts and not link.busy:
            break
    assert link.caught_up
    assert link.slot.sent == 1001


def test_a_ship_whose_filter_leaves_out_much_does_not_put_the_link_to_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    # It lets time pass behind every shard.
    monkeypatch.setattr(snapshot_encoder, "_LOOKED_AT", 1)
    source = Source()
    for number in range(20_000):
        source.call("SET", f"b:{number}", "v")
    source.call("SET", "a:1", "v")
    link = named(source.link("EXTENDED", SHIP, ALL), b"a:")
    data = take(link)
    assert link.caught_up
    assert b"a:1" in payload(data)
    assert b"b:1" not in payload(data)


def test_a_scope_ship_stands_in_its_place_in_the_stream() -> None:
    source = Source()
    source.call("SET", "a:1", "v")
    source.call("SET", "b:1", "v")
    link = named(source.link("EXTENDED", 1, ALL), b"a:")
    take(link)
    source.call("SET", "b:2", "v")
    source.call("SET", "a:2", "v")
    source.call("SET", "b:3", "v")
    link.receive(wire.resync(b"a:"), 0.0)
    data = take(link)
    assert shown(data) == ["SKIP 3", "3 SET a:2 v", "SKIP 5", "SCOPE a:", "chunk", "END 5"]
    assert [key in payload(data) for key in (b"a:1", b"a:2", b"b:1")] == [True, True, False]
    # What it has acknowledged of the rest of the stream still counts.
    assert (link.slot.state, link.slot.acked) == ("streaming", 1)
    assert source.calls[0][:2] == ("started", "scope")


@pytest.mark.parametrize("prefix", [b"b:", b"", b"a"])
def test_a_scope_that_the_link_does_not_carry_ends_it(prefix: bytes) -> None:
    source = Source()
    link = named(source.link("EXTENDED", 0, ALL), b"a:")
    link.receive(wire.resync(prefix), 0.0)
    assert link.reason == f"the replica asked for {prefix!r}, which this link does not carry"


def test_a_replica_of_everything_may_not_ask_for_a_scope() -> None:
    link = Source().link("EXTENDED", 0)
    link.receive(wire.resync(b"a:"), 0.0)
    assert link.closed


def test_a_scope_too_long_for_its_line_ends_the_link_and_not_the_sender() -> None:
    source = Source()
    link = named(source.link("EXTENDED", 0, ALL), b"a")
    link.receive(wire.resync(b"a" * 3000), 0.0)
    assert "too long" in link.reason
    assert (link.take(0.0), source.calls) == ([], [])


def test_no_more_scopes_wait_than_a_link_may_carry() -> None:
    source = Source()
    source.gate_open = False
    link = named(source.link("EXTENDED", 0, ALL), b"a")
    link.receive(b"".join(wire.resync(b"a%d" % number) for number in range(1024)), 0.0)
    link.receive(wire.resync(b"a5"), 0.0)
    assert not link.closed
    link.receive(wire.resync(b"ab"), 0.0)
    assert link.reason == "the replica asked for more than 1024 scopes at once"


def test_a_link_carries_no_more_prefixes_than_it_may() -> None:
    source = Source()
    assert not named(source.link("EXTENDED", 0, ALL), *(b"a%d" % number for number in range(1024))).closed
    link = named(source.link("EXTENDED", 0, ALL), *(b"a%d" % number for number in range(1025)))
    assert link.reason == "the replica names 1025 prefixes; a link carries at most 1024"


def test_a_scope_ship_that_has_to_wait_holds_nothing_up() -> None:
    source = Source()
    link = named(source.link("EXTENDED", 0, ALL), b"a:")
    take(link)
    source.gate_open = False
    link.receive(wire.resync(b"a:"), 0.0)
    source.call("SET", "b:1", "v")
    link.ask()
    assert shown(take(link)) == ["SKIP 1", "AckRequested"]
