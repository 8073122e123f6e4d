"""What there is to send to a peer and when, and how much a peer may say."""

from __future__ import annotations

from support.peer_facts import ENTRY, THEIRS, beat

from kevynode.scope import peer_outbox
from kevynode.scope.ledger import Ledger, LedgerEntry
from kevynode.scope.peer_messages import CopiesAsked, LedgerPage
from kevynode.scope.peer_outbox import BEAT_SECONDS, Allowance, Outbox
from kevynode.scope.peer_wire import PeerDecoder, PeerWireError


class Post:
    """An outbox, and what comes out of it, by the first words."""

    def __init__(self) -> None:
        self.time = 100.0
        self.ledger = Ledger([ENTRY])
        self.box = Outbox(self.time)

    def take(self, after: float = 0.0) -> list[str]:
        self.time += after
        decoder = PeerDecoder()
        sent = list(self.box.take(self.time, lambda: beat(self.ledger.digest), self.ledger.rows, lambda: THEIRS))
        found = [message for data in sent for message in decoder.feed(data)]
        assert decoder.error is None
        return [f"{m.kind} {len(m.entries)}" if isinstance(m, LedgerPage) else type(m).__name__ for m in found]


def test_heartbeats_go_out_every_second_and_soon_after_a_change() -> None:
    post = Post()
    assert post.box.wait(post.time) <= 0
    assert post.take() == ["Beat"]
    assert post.box.wait(post.time) == BEAT_SECONDS
    assert post.take(0.9) == []
    assert post.take(0.1) == ["Beat"]
    post.box.push()
    assert 0 < post.box.wait(post.time) <= peer_outbox.PUSH_SECONDS
    assert post.take(peer_outbox.PUSH_SECONDS) == ["Beat"]
    post.time += 0.5
    post.box.push()
    assert post.box.wait(post.time) <= 0
    assert post.take() == ["Beat"]
    assert post.box.wait(post.time) == BEAT_SECONDS


def test_things_go_out_together_behind_a_first_heartbeat() -> None:
    post = Post()
    post.box.announce([ENTRY, ENTRY])
    post.box.send_configuration()
    post.box.ask(CopiesAsked(1, (b"p",)))
    assert post.take() == ["CopiesAsked", "Beat", "ConfigurationRows", "NEWS 1", "Beat"]
    post.box.send_ledger()
    post.box.announce([ENTRY])
    assert post.take(1) == ["LAST 1", "Beat"]
    post.box.ask(CopiesAsked(1, (b"p",)))
    assert post.box.wait(post.time) <= 0
    assert post.take() == ["CopiesAsked"]
    post.ledger = Ledger()
    post.box.send_ledger()
    assert post.take(1) == ["LAST 0", "Beat"]


def test_too_much_news_becomes_the_whole_ledger() -> None:
    post = Post()
    post.take()
    post.box.announce(LedgerEntry(b"%d" % number, "b", 1, "m") for number in range(peer_outbox.NEWS_LIMIT))
    assert post.take(1) == ["NEWS 1024", "Beat"]
    post.box.announce(LedgerEntry(b"%d" % number, "b", 1, "m") for number in range(peer_outbox.NEWS_LIMIT + 1))
    assert post.take(1) == ["LAST 1", "Beat"]


def test_a_peer_that_says_what_it_has_to_say_is_never_slowed_down() -> None:
    allowance = Allowance(0.0)
    # A full ledger at once, and heartbeats.
    assert allowance.spend(0.0, 5_000_000, 100, 0) == 0
    assert [allowance.spend(float(second), 1000, 20, 1) for second in range(100)] == [0.0] * 100


def test_a_peer_that_says_more_is_slowed_down_and_ended() -> None:
    allowance = Allowance(0.0)
    now, said = 0.0, 0
    reason = ""
    while not reason:
        try:
            now += allowance.spend(now, 16384, 60, 0)
            said += 60
        except PeerWireError as error:
            reason = str(error)
    assert reason == "it said more than a peer has to say for 30 s"
    assert 30 < now < 33
    assert said / now < 1100
    # A rest makes up for it.
    allowance = Allowance(0.0)
    now = 0.0
    for _ in range(10):
        for _ in range(1000):
            now += allowance.spend(now, 16384, 0, 0)
        now += 3


def test_questions_cost_most() -> None:
    allowance = Allowance(0.0)
    assert allowance.spend(0.0, 0, 0, 31) == 0
    assert allowance.spend(0.0, 0, 0, 16) > 0.9
