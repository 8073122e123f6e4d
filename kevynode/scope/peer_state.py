"""What is known of each peer, and what follows from what it says. Pure: time comes in as ``now``, seconds, monotonic.

A **peer** is a node of the configuration that runs this program, whether it is there or not; a **link** is one
connection to it. Each node dials every other one, so there are two links between two nodes when all is well: the one
that we dialled (``"out"``) and the one that the peer did (``"in"``). Either is enough, and what is known is the peer's.

*Who is the peer?* All links of a peer lead to one instance. The node at the configured address is the peer for as long
as it is heard from there: somebody else who comes with its id is refused. Without that a newcomer takes over, because
a node that comes back dials at once; but three takeovers in ten seconds are two nodes with one id, and the newcomer is
refused for a while.

*When is a ledger sent?* With the first heartbeat of a link that shows another digest than ours, else when it has been
another one for :data:`SETTLE_SECONDS` (a change is announced to all at once, so heartbeats overtaken by that show a
difference that is none). After a whole ledger was sent, not again for a second, and twice as long each time if neither
digest has changed since: then one of the nodes cannot take what the other one has.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, TypeAlias

import attrs

from .peer_actions import (
    Action,
    ConfigurationKnown,
    LedgerKnown,
    Merge,
    NoteVersion,
    PeerWentBack,
    Remembered,
    SendConfiguration,
    SendLedger,
)
from .peer_messages import (
    CONFIGURATION_BYTES_LIMIT,
    Beat,
    Configuration,
    ConfigurationRows,
    CopiesAsked,
    CopiesHeld,
    Hello,
    LedgerPage,
    Message,
    Refused,
    Row,
    Welcome,
    row_size,
)
from .peer_wire import STATE, TEXT_LIMIT, VERSION, PeerWireError

__all__ = [
    "DeclaredPeer",
    "Direction",
    "LinkState",
    "OwnFacts",
    "PeerFacts",
    "PeerState",
    "PeerStates",
]

#: A peer that was heard from within so many seconds is there.
FRESH_SECONDS: Final = 3.0
#: This many takeovers of one peer's link within TAKEOVER_SPAN seconds are two nodes with one id.
TAKEOVER_LIMIT: Final = 3
TAKEOVER_SPAN: Final = 10.0
#: Seconds for which the newcomer is then refused.
REFUSAL_SPAN: Final = 10.0
#: Seconds that a difference of ledgers may take to vanish by itself.
SETTLE_SECONDS: Final = 0.5
#: Shortest and longest time between two whole ledgers to one peer, in seconds.
EXCHANGE_SECONDS: Final = 1.0
LONGEST_EXCHANGE_SECONDS: Final = 60.0

Direction: TypeAlias = Literal["in", "out"]


@attrs.frozen
class DeclaredPeer:
    """A node as the configuration declares it: its id, its replication address, and the program that it runs."""

    node_id: str
    replication: str
    kind: str = "kevynode"


@attrs.frozen
class OwnFacts:
    """What this node tells its peers about itself with each heartbeat.

    ``state`` is one word of lower-case letters, ``-`` and ``_``. Raises ValueError for what no peer would take.
    """

    ledger_digest: str
    ledger_version: int
    configuration_digest: str
    state: str = attrs.field(validator=attrs.validators.matches_re(STATE))
    client_address: str = attrs.field(validator=attrs.validators.max_len(TEXT_LIMIT))


@attrs.frozen
class PeerFacts:
    """What is known of a peer, for INFO, the status table, and those who wait for peers.

    ``up`` with ``since``: for how many seconds there has been a link, or none. ``silence``: seconds since it was last
    heard, None if never. ``problem``: why the last link or attempt ended. ``state``, ``client_address``,
    ``ledger_version`` and ``ledger_equal`` are what it last said; ``ledger_equal`` and ``same_configuration`` are None
    while nothing is known. ``ledger_known``: this node has, since it started, taken in all that the peer knew.
    ``remembers``: the highest version of our ledger that it ever heard of.
    """

    node_id: str
    address: str
    up: bool
    since: float
    silence: float | None
    problem: str
    instance: str
    state: str
    client_address: str
    ledger_version: int
    ledger_equal: bool | None
    ledger_known: bool
    same_configuration: bool | None
    remembers: int

    @property
    def answered(self) -> bool:
        """Whether everything is known that a node must know of a peer before it opens its scopes."""
        return self.ledger_known and self.same_configuration is not None


# -- one connection ---------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class LinkState:
    """One connection with a peer. Compared and hashed by identity."""

    direction: Direction
    instance: str
    heard_at: float
    # The highest ledger version that the peer was known to have had before it could say anything on this link.
    announced: int
    beat: Beat | None = None
    # Digests of the configurations, ours and the peer's, for which ours was sent on this link.
    configured: tuple[str, str] | None = None
    # Whether this node holds all that the peer knew on this link, though its configuration may not be known yet.
    ledger_known: bool = False
    # What has come of the peer's configuration.
    _rows: list[Row] = attrs.field(factory=list, repr=False)
    _size: int = 0

    def add_rows(self, piece: ConfigurationRows) -> Configuration | None:
        """Take a piece of the peer's configuration; all of it, once it is complete. Raises PeerWireError."""
        if self.beat is None:
            raise PeerWireError("a configuration before the first heartbeat")
        if piece.place == 0:
            self._rows, self._size = [], 0
        if piece.place != len(self._rows):
            raise PeerWireError(f"row {piece.place} of a configuration follows {len(self._rows)} rows")
        self._size += sum(map(row_size, piece.rows))
        if self._size > CONFIGURATION_BYTES_LIMIT:
            raise PeerWireError(f"a configuration of more than {CONFIGURATION_BYTES_LIMIT} bytes")
        self._rows += piece.rows
        if len(self._rows) < piece.total:
            return None
        rows, self._rows, self._size = self._rows, [], 0
        configuration = Configuration.of(rows)
        if configuration.digest != self.beat.configuration_digest:
            raise PeerWireError("a configuration with another digest than the heartbeat's")
        return configuration


# -- one peer ---------------------------------------------------------------------------------------------------------


class PeerState:
    """One peer, through all its links. ``announced`` is the highest ledger version that it ever said it has."""

    def __init__(self, declared: DeclaredPeer, announced: int, now: float) -> None:
        self.node_id = declared.node_id
        self.address = declared.replication
        self.announced = announced
        self.links: dict[Direction, LinkState] = {}
        self.problem = ""
        self.ledger_known = False
        # None: unknown; else whether the peer's configuration is ours.
        self.same_configuration: bool | None = None
        # The digest of the configuration that it is known to have.
        self._configuration = ""
        self._instance = ""
        self._since = now
        self._heard_at: float | None = None
        self._beat: Beat | None = None
        self._ledger_equal: bool | None = None
        # The peer's version when it was last found to have gone back.
        self._back_at: int | None = None
        self._differs_since: float | None = None
        # The last whole ledger: digests, theirs and ours, the link it went out on, and how long to wait with the next.
        self._exchanged: tuple[str, str] | None = None
        self._exchange_link: LinkState | None = None
        self._exchange_wait = EXCHANGE_SECONDS
        self._exchange_after = -math.inf
        self._takeovers: deque[float] = deque(maxlen=TAKEOVER_LIMIT - 1)
        self._refused_until = -math.inf

    @property
    def up(self) -> bool:
        """Whether there is a link."""
        return bool(self.links)

    # -- links --------------------------------------------------------------------------------------------------------

    def refusal(self, instance: str, now: float) -> str:
        """Why a connection from an instance of this peer is not taken; empty if it is. Counts takeovers."""
        ours = self.links.get("out")
        if ours is not None and ours.instance != instance and now - ours.heard_at <= FRESH_SECONDS:
            return f"another node answers to {self.node_id} at {self.address}: two nodes have one id"
        if now < self._refused_until:
            return f"two nodes have the id {self.node_id}, or one data directory: this one came last"
        if "in" in self.links:
            if len(self._takeovers) == TAKEOVER_LIMIT - 1 and now - self._takeovers[0] <= TAKEOVER_SPAN:
                self._takeovers.clear()
                self._refused_until = now + REFUSAL_SPAN
                return f"{TAKEOVER_LIMIT} takeovers within {TAKEOVER_SPAN:.0f} s: two nodes have the id {self.node_id}"
            self._takeovers.append(now)
        return ""

    def attach(
        self, direction: Direction, instance: str, now: float, announced: int | None = None
    ) -> tuple[LinkState, tuple[LinkState, ...]]:
        """A new link of this peer, and those that it takes the place of, which are no links of it any more.

        ``announced``: what :attr:`announced` was when the peer was dialled; for a link of the peer's own it is as now.
        """
        replaced = tuple(
            link for link in self.links.values() if link.direction == direction or link.instance != instance
        )
        if not self.links:
            self._since = now
        for link in replaced:
            self._drop(link)
        link = self.links[direction] = LinkState(
            direction, instance, now, self.announced if announced is None else announced
        )
        self._instance = instance
        self._heard_at = now
        return link, replaced

    def detach(self, link: LinkState, reason: str, now: float) -> None:
        """A link has ended; nothing happens if another one has taken its place."""
        if self.links.get(link.direction) is not link:
            return
        self._drop(link)
        self.problem = reason
        if not self.links:
            self._since = now
            self._beat = None
            self._ledger_equal = self._differs_since = None

    def _drop(self, link: LinkState) -> None:
        del self.links[link.direction]
        if self._exchange_link is link:
            # Nobody knows how much of it arrived.
            self._exchange_link = self._exchanged = None
            self._exchange_after = -math.inf

    # -- messages -----------------------------------------------------------------------------------------------------

    def beat(self, own: OwnFacts) -> Beat:
        """Our heartbeat to this peer."""
        return Beat(
            own.ledger_digest,
            own.ledger_version,
            self.announced,
            own.configuration_digest,
            own.state,
            own.client_address,
        )

    def heard(self, link: LinkState, now: float) -> None:
        """Bytes have come on a link."""
        link.heard_at = self._heard_at = now

    def take(self, link: LinkState, message: Message, own: OwnFacts, now: float) -> list[Action]:
        """What is to be done about a message, to be done in this order. Raises PeerWireError."""
        return list(self._take(link, message, own, now))

    def _take(self, link: LinkState, message: Message, own: OwnFacts, now: float) -> Iterator[Action]:
        match message:
            case Beat():
                yield from self._take_beat(link, message, own, now)
            case LedgerPage():
                if message.entries:
                    yield Merge(message.entries)
                if message.kind == "LAST":
                    yield from self._all_known(link)
            case ConfigurationRows():
                configuration = link.add_rows(message)
                if configuration is not None:
                    yield from self._configuration_known(link, configuration, own)
            case CopiesAsked() | CopiesHeld():
                yield message

    def answered(self) -> None:
        """All that the peer knew has been taken in."""
        self.ledger_known = True

    def noted(self, version: int) -> None:
        """It is remembered durably that the peer's ledger had this version."""
        self.announced = max(self.announced, version)

    def _take_beat(self, link: LinkState, beat: Beat, own: OwnFacts, now: float) -> Iterator[Action]:
        before, link.beat = link.beat, beat
        first = before is None
        self._beat = beat
        yield from self._compare_versions(link, beat)
        if before is None or before.remembered != beat.remembered:
            # What the peer knows counts anew for a node that has gone back.
            link.ledger_known = False
            yield Remembered(beat.remembered)
        yield from self._compare_configurations(link, beat, own)
        self._ledger_equal = beat.ledger_digest == own.ledger_digest
        if self._ledger_equal:
            self._differs_since = self._exchanged = None
            if not link.ledger_known:
                yield from self._all_known(link)
        elif self._exchange_due(link, beat, own, now, first):
            yield SendLedger()

    def _all_known(self, link: LinkState) -> Iterator[Action]:
        link.ledger_known = True
        if link.beat is not None and link.beat.configuration_digest == self._configuration:
            yield LedgerKnown()

    def _compare_versions(self, link: LinkState, beat: Beat) -> Iterator[Action]:
        if beat.ledger_version > self.announced:
            self._back_at = None
            yield NoteVersion(beat.ledger_version)
        elif beat.ledger_version >= link.announced:
            # Where it is below what has been announced since the link began, a later heartbeat has come on another one.
            self._back_at = None
        elif self._back_at is None or beat.ledger_version < self._back_at:
            self._back_at = beat.ledger_version
            yield PeerWentBack(beat.ledger_version, self.announced)

    def _compare_configurations(self, link: LinkState, beat: Beat, own: OwnFacts) -> Iterator[Action]:
        if beat.configuration_digest == own.configuration_digest:
            if self._configuration != beat.configuration_digest:
                yield from self._configuration_known(link, None, own)
            return
        digests = own.configuration_digest, beat.configuration_digest
        if link.configured != digests:
            link.configured = digests
            yield SendConfiguration()

    def _configuration_known(
        self, link: LinkState, configuration: Configuration | None, own: OwnFacts
    ) -> Iterator[Action]:
        """The peer's configuration has come, or is ours (None); it comes on each link."""
        digest = own.configuration_digest if configuration is None else configuration.digest
        if digest != self._configuration:
            self._configuration = digest
            self.same_configuration = digest == own.configuration_digest
            yield ConfigurationKnown(None if self.same_configuration else configuration)
        if link.ledger_known:
            yield LedgerKnown()

    def _exchange_due(self, link: LinkState, beat: Beat, own: OwnFacts, now: float, first: bool) -> bool:
        """Whether to send the whole ledger on this link now; notes that it is."""
        if self._differs_since is None:
            self._differs_since = now
        if now < self._exchange_after or not (first or now - self._differs_since >= SETTLE_SECONDS):
            return False
        digests = beat.ledger_digest, own.ledger_digest
        wait = self._exchange_wait * 2 if digests == self._exchanged else EXCHANGE_SECONDS
        self._exchange_wait = min(wait, LONGEST_EXCHANGE_SECONDS)
        self._exchange_after = now + self._exchange_wait
        self._exchanged = digests
        self._exchange_link = link
        return True

    # -- facts --------------------------------------------------------------------------------------------------------

    def facts(self, now: float) -> PeerFacts:
        """What is known of it."""
        beat = self._beat
        return PeerFacts(
            node_id=self.node_id,
            address=self.address,
            up=self.up,
            since=max(0.0, now - self._since),
            silence=None if self._heard_at is None else max(0.0, now - self._heard_at),
            problem=self.problem,
            instance=self._instance,
            state="" if beat is None else beat.state,
            client_address="" if beat is None else beat.client_address,
            ledger_version=0 if beat is None else beat.ledger_version,
            ledger_equal=self._ledger_equal,
            ledger_known=self.ledger_known,
            same_configuration=self.same_configuration,
            remembers=0 if beat is None else beat.remembered,
        )


# -- all peers --------------------------------------------------------------------------------------------------------


class PeerStates:
    """All peers of a node, and who may be one. ``declared`` is every node of the configuration.

    ``announced`` gives the highest ledger version that a node was ever heard to have (0: never).
    """

    def __init__(
        self, node_id: str, instance: str, declared: Iterable[DeclaredPeer], announced: Callable[[str], int], now: float
    ) -> None:
        self.node_id = node_id
        self.instance = instance
        self._peers: dict[str, PeerState] = {}
        self._others: dict[str, str] = {}
        for peer in declared:
            if peer.kind != "kevynode":
                self._others[peer.node_id] = peer.kind
            elif peer.node_id != node_id:
                self._peers[peer.node_id] = PeerState(peer, announced(peer.node_id), now)

    def __iter__(self) -> Iterator[PeerState]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, node_id: str) -> PeerState | None:
        """The peer with this id."""
        return self._peers.get(node_id)

    def hello(self, peer: PeerState) -> Hello:
        """What we say to a peer that we dial."""
        return Hello(VERSION, self.node_id, self.instance, peer.node_id)

    def welcome(self) -> Welcome:
        """What we say to a peer that we take."""
        return Welcome(VERSION, self.node_id, self.instance)

    def recognise(self, hello: Hello, now: float) -> PeerState | Refused:
        """Whose connection this is, or why it is nobody's. It is the peer's newest from then on: attach it."""
        name = hello.node_id
        if hello.version > VERSION:
            return Refused(VERSION, "version", f"{self.node_id} speaks version {VERSION} of the peer protocol")
        if name == self.node_id:
            return Refused(VERSION, "same-node", f"this is {name} itself, or another node has its id")
        if hello.instance == self.instance:
            return Refused(
                VERSION, "same-instance", f"{self.node_id} and {name} have one instance: a data directory was copied"
            )
        peer = self._peers.get(name)
        if peer is None:
            kind = self._others.get(name)
            text = "is no declared peer" if kind is None else f"is declared with kind {kind}"
            return Refused(VERSION, "unknown", f"{name} {text} at {self.node_id}")
        if hello.expected != self.node_id:
            return Refused(VERSION, "misplaced", f"this is {self.node_id}, not {hello.expected}")
        reason = peer.refusal(hello.instance, now)
        return Refused(VERSION, "twin", reason) if reason else peer

    def objection(self, peer: PeerState, answer: Welcome | Refused) -> str:
        """Why a dialled node with this answer is not the peer; empty if it is."""
        at = peer.address
        if isinstance(answer, Refused):
            return f"{at} refuses this node ({answer.code}): {answer.text}"
        if answer.version > VERSION:
            return f"{at} answers with version {answer.version} of the peer protocol, and was asked for {VERSION}"
        if answer.node_id != peer.node_id:
            return f"{at} is {answer.node_id}, and declared as {peer.node_id}"
        if answer.instance == self.instance:
            return f"{at} has the instance of this node: a data directory was copied"
        return ""
