"""The node as a member of a cluster: whose keys it writes, what it copies of others, and the links to its peers.

Composition only. What is decided is decided in :mod:`kevynode.scope` and :mod:`kevynode.replicate.mesh`, which know
nothing of each other.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import TYPE_CHECKING

import trio

from .clock import Clock
from .config import NodeConfig
from .config_values import split_address
from .leftovers import LEDGER
from .log import Logger
from .member_copies import MemberCopies
from .other_nodes import OtherNodes
from .persist.placing import Placing
from .persist.service import PersistenceService
from .replicate.mesh import Mesh, MeshPeer
from .replicate.mesh_follower import MeshFollower
from .replicate.mesh_service import MeshService, ScopeRestorer
from .replicate.replication import Replication
from .replicate.request import RESTORING
from .scope.coordinator import Coordinator
from .scope.copies import HeldCopy
from .scope.keeper import LedgerUnusable, ScopeKeeper
from .scope.ledger_records import LedgerState
from .scope.ownership import Ownership
from .scope.peer_state import DeclaredPeer
from .scope.peers import PeerLinks, PeerVisitor
from .scope.scope import Scope
from .scope.settings import DeclaredNode, ScopeSettings
from .scope_requests import ScopeRequests
from .serve.server import Server
from .serve.table import TABLE
from .store.apply import Applier
from .store.marks import Mark, Release
from .store.store import Store
from .transport import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Member"]

#: Seconds that getting one scope back from a copy may take before it is begun anew.
RESTORE_SECONDS = 3600.0


class Member:
    """What a node with declared scopes does about them. Made with the node; everything else belongs to its Trio thread.

    :meth:`load` when the data are loaded and before anybody is served; then :meth:`run`.
    """

    def __init__(
        self,
        config: NodeConfig,
        server: Server,
        replication: Replication,
        files: PersistenceService,
        flush: Callable[[], Awaitable[None]],
        transport: Transport,
        clock: Clock,
        random: Random,
        log: Logger,
    ) -> None:
        self._config = config
        self._server = server
        self._store = server.store
        self._replication = replication
        self._files = files
        self._flush = flush
        self._transport = transport
        self._clock = clock
        self._random = random
        self._log = log
        cluster = config.cluster
        self._settings = ScopeSettings(
            cluster.node_id,
            tuple(DeclaredNode(peer.id, peer.address, peer.replication, peer.kind) for peer in cluster.peers),
            tuple(Scope(scope.prefix, scope.writer, scope.fallback) for scope in cluster.scopes),
            trust_config=config.trust_config,
            start_empty=config.start_empty,
        )
        self.keeper = ScopeKeeper(
            self._settings,
            files.disk,
            config.server.data_dir,
            self,
            clock,
            log,
            files.in_thread,
        )
        self.coordinator = Coordinator(
            self.keeper,
            self,
            files.disk,
            config.server.data_dir,
            transport,
            clock,
            random,
            log,
            files.in_thread,
        )
        self.coordinator.on_news = self._moved
        self._others = OtherNodes(self._settings, self.ownership, replication, clock.monotonic, self._wants)
        server.scopes = ScopeRequests(cluster.node_id, self.coordinator, self._others)
        self.links: PeerLinks | None = None
        self.mesh: Mesh | None = None
        # Prefixes that a move puts in place here: no copy of anybody's stream any more.
        self._taken: set[bytes] = set()
        self._copies = MemberCopies(self.keeper, replication, server.store, self._wants)
        self._replica_id: Callable[[], str] = lambda: cluster.node_id
        self._port: Callable[[], int] = lambda: 0
        replication.set_ownership(self.ownership)
        replication.is_withheld = self._is_withheld
        replication.is_elsewhere = lambda prefix: prefix in self.ownership.elsewhere()

    @property
    def ownership(self) -> Ownership:
        """Who may write what here, now."""
        return self.keeper.ownership

    def identify(self, replica_id: Callable[[], str], port: Callable[[], int]) -> None:
        """What this node calls itself as a replica, and its client port, once it listens."""
        self._replica_id, self._port = replica_id, port

    # -- the start -----------------------------------------------------------------------------------------------------

    async def load(self, instance: str) -> None:
        """Read the ledger, close what is not to be open yet, and make links and copies. Raises LedgerUnusable."""
        await self.keeper.load()
        self._check_whose_ledger()
        self.coordinator.load()
        self._server.ownership = self.ownership
        self.ownership.observers.append(self._replication.ownership_changed)
        self.links = PeerLinks(
            self._settings.node_id,
            instance,
            [DeclaredPeer(node.node_id, node.replication, node.kind) for node in self._settings.nodes],
            self.keeper,
            self._transport,
            self._clock,
            self._random,
            self._log,
        )
        self.keeper.links = self.links
        self.mesh = self._copies.mesh = self._make_mesh()
        self._replication.mesh = self.mesh
        self._others.know(self.links, self.mesh)
        # Who waits for a token may have waited for it to be clear who writes what.
        self.ownership.observers += (self.mesh.refresh, self._server.replication_advanced)
        self.mesh.refresh()
        try:
            await self.coordinator.remove_strays()
        except OSError as error:
            place = error.filename or self._config.server.data_dir
            raise LedgerUnusable(f"{place}: {error.strerror or error}") from error

    def _check_whose_ledger(self) -> None:
        """A ledger is good for the node that wrote it: every move away from that one is in it, and from no other."""
        node_id = self._settings.node_id
        # What it notes of ledgers that it was told of is never about its own.
        if self.keeper.state.announced.get(node_id):
            path = posixpath.join(self._config.server.data_dir, LEDGER)
            raise LedgerUnusable(
                f"{path} was written by another node, which knows {node_id} as a peer: give {node_id} its own data"
                " directory, or remove the file, and its scopes open once every other node has told what it knows"
            )

    def _make_mesh(self) -> Mesh:
        replication = self._replication
        return Mesh(
            self._settings.node_id,
            [MeshPeer(node.node_id, *split_address(node.replication), node.kind) for node in self._settings.nodes],
            self._owners_of_wanted,
            self._make_follower,
            self._log,
            monotonic=self._clock.monotonic,
            epoch=self.ownership.epoch,
            is_sure=lambda prefix: self.keeper.opening.knows_moves and not self.ownership.is_closed(prefix),
            is_active=lambda: replication.role == "master",
            found=replication.found_scopes,
            kept=self._copies.kept,
            note=replication.cursor_moved,
        )

    def _owners_of_wanted(self) -> Mapping[bytes, str]:
        return {
            row.prefix: row.owner
            for row in self.ownership.declared()
            if self._wants(row.prefix) and row.prefix not in self._taken
        }

    def _wants(self, prefix: bytes) -> bool:
        """Whether this node copies a scope that another one owns: "all", "none", or which, says the configuration."""
        wanted = self._config.cluster.replicate
        return wanted == "all" if isinstance(wanted, str) else prefix in wanted

    def _make_follower(
        self, peer: MeshPeer, prefixes: Sequence[bytes], found: Mapping[str, tuple[int, int]]
    ) -> MeshFollower:
        return self._following(MeshFollower, peer, prefixes, self._replica_id(), found)

    def _following(
        self,
        kind: type[MeshFollower],
        peer: MeshPeer,
        prefixes: Sequence[bytes],
        replica_id: str,
        found: Mapping[str, tuple[int, int]],
    ) -> MeshFollower:
        return kind(
            peer.node_id,
            peer.host,
            peer.port,
            prefixes,
            store=self._store,
            applier=Applier(self._store, TABLE),
            transport=self._transport,
            clock=self._clock,
            random=self._random,
            log=self._log,
            sink=self._replication,
            replica_id=replica_id,
            found=found,
            client_port=self._port(),
            kind=peer.kind,
        )

    # -- while the node runs -------------------------------------------------------------------------------------------

    def admit(self, visitor: PeerVisitor) -> bool:
        """Take a connection of a peer; False while there is nobody for it."""
        return self.links is not None and self.links.admit(visitor)

    @property
    def entrances(self) -> Mapping[bytes, Callable[[PeerVisitor], bool]]:
        """Who takes connections to the replication port that begin with these commands."""
        return {b"PEER": self.admit, b"INGEST": self.coordinator.admit}

    async def run(self) -> None:
        """Keep peers, ledger and copies up to date until cancelled."""
        assert self.mesh is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keeper.run)
            nursery.start_soon(self.coordinator.run)
            nursery.start_soon(MeshService(self.mesh).run)

    def _is_withheld(self, prefix: bytes) -> bool:
        """Whether what is here under a prefix must not be shipped: it would take the place of better data.

        It is this node's own and not open, whatever move of it is under way besides; or another node's, and no whole
        copy: who asks this one for it does not know yet whom to ask.
        """
        if self.ownership.table.declared(prefix) is not None:
            if self.ownership.is_closed(prefix):
                return True
            if self.ownership.owner(prefix) != self._settings.node_id:
                return self._copies.of(prefix) is None
        return self.mesh is not None and self.mesh.lacks(prefix)

    # -- what scopes need of the node ----------------------------------------------------------------------------------

    def lacking(self, state: LedgerState) -> Iterable[bytes]:
        """The declared prefixes whose data must be taken for lost."""
        return self._copies.lacking(state, has_loaded=self._files.has_loaded)

    def copies_before(self, state: LedgerState) -> Mapping[bytes, HeldCopy]:
        """Which copies of what other nodes wrote the files said are here, of prefixes that no move made this node's."""
        return self._copies.before(state)

    def copies(self, prefixes: tuple[bytes, ...]) -> Mapping[bytes, HeldCopy]:
        """What whole copies of these prefixes are held here."""
        copies = self._copies
        return copies.held({prefix: copy for prefix in prefixes if (copy := copies.of(prefix)) is not None})

    def number_above(self, offset: int) -> None:
        """Give entries that are made from now on numbers above ``offset``."""
        self._replication.number_above(offset)

    async def restore(self, prefix: bytes, peer: str) -> None:
        """Put a peer's copy of a prefix in place of what is here, durably."""
        node = next(node for node in self._settings.nodes if node.node_id == peer)
        mesh_peer = MeshPeer(node.node_id, *split_address(node.replication), node.kind)
        restorer = self._following(ScopeRestorer, mesh_peer, (prefix,), f"{self._replica_id()}{RESTORING}", {})
        assert isinstance(restorer, ScopeRestorer)
        # What comes back builds on nothing. Who has something is to have all of it anew, and not as entries.
        self._replication.number_above(self._replication.position)
        with trio.fail_after(RESTORE_SECONDS):
            await restorer.restore()
        if self._files.keeps_file:
            await self._flush()

    # -- what moves need of the node -----------------------------------------------------------------------------------

    def _moved(self) -> None:
        """Those who wait for the end of a move are to look again."""
        self._server.tick()
        self._server.waiters.signal("moved")

    @property
    def store(self) -> Store:
        """The data."""
        return self._store

    @property
    def is_persistent(self) -> bool:
        """Whether the data are kept in files."""
        return self._files.keeps_file

    @property
    def disk_trouble(self) -> str:
        """Why files cannot be written now, in the system's words; empty while they can, and where there are none."""
        return self._files.problem.rpartition(": ")[2]

    @property
    def is_loading(self) -> bool:
        """Whether the data are not all there yet."""
        return self._server.loading

    @property
    def is_replica(self) -> bool:
        """Whether this node copies all of another one, and takes no writes of its own."""
        return self._server.role != "master"

    def unanswered(self) -> Collection[str]:
        """The peers whose ledger is not known yet."""
        return () if self.links is None else self.links.unanswered

    def position(self) -> tuple[int, int]:
        """The running history, and the offset that the next entry gets."""
        return self._replication.history, self._replication.position

    def mark(self, mark: Mark) -> None:
        """Enter a mark into the journal."""
        self._server.tick()
        self._replication.mark(mark)

    def released(self, prefix: bytes, epoch: int, owner: str) -> None:
        """What is held under the prefix now is what its new owner begins with."""
        if self.mesh is not None:
            # A writer that has lost its data since the move was decided has nothing that the new owner begins with.
            whole = not self.keeper.opening.lacks(prefix)
            self.mesh.released_here(Release(prefix, epoch, owner), *self.position(), whole=whole)

    def take(self, prefix: bytes) -> None:
        """Let no other node's stream change what is held under the prefix, until :meth:`leave`."""
        self._taken.add(prefix)
        self._copies.replaced(prefix)
        if self.mesh is not None:
            self.mesh.refresh()

    async def keep(self, prefix: bytes, epoch: int) -> tuple[str, int]:
        """Write what is held under a prefix to a file, durably: its name, and how many keys."""
        return await self.coordinator.jobs.keep(prefix, epoch)

    async def give_back(self, prefix: bytes) -> None:
        """Hold under the prefix a copy again, or nothing, if it is declared and another node owns it."""
        if prefix not in self.ownership.elsewhere():
            self.leave(prefix)
            await trio.lowlevel.checkpoint()
        else:
            await self.coordinator.jobs.give_back(prefix)

    def leave(self, prefix: bytes) -> None:
        """Copy the prefix again if another node owns it: anew, for what is held is no place in its stream."""
        if prefix in self._taken:
            self._taken.discard(prefix)
            if self.mesh is not None:
                self.mesh.refresh()

    def keeps_copy(self, prefix: bytes) -> bool:
        """Whether this node wants a copy of the prefix where others write it."""
        return self._wants(prefix)

    def has_applied(self, prefix: bytes, writer: str, history: int, offset: int) -> bool:
        """Whether the copy of a prefix is whole, and has all before ``offset`` of the history of ``writer``."""
        follower = None if self.mesh is None else self.mesh.followers.get(writer)
        return follower is not None and self.follows(prefix, writer) and bool(follower.has_applied(history, offset))

    def was_released(self, prefix: bytes) -> bool:
        """Whether what is here of a prefix is all that its owner by the ledger wrote before it gave it away."""
        copy = None if self.mesh is None else self.mesh.copy_of(prefix)
        return copy is not None and not copy.offset and copy.epoch > self.ownership.epoch(prefix)

    def follows(self, prefix: bytes, writer: str) -> bool:
        """Whether there is a whole copy of the prefix here, taken from ``writer``."""
        follower = None if self.mesh is None else self.mesh.followers.get(writer)
        return follower is not None and prefix in follower.prefixes and prefix not in follower.missing

    def placing(self) -> AbstractAsyncContextManager[Placing]:
        """Have what is about to take the place of a slice written to the files beforehand, where files are kept."""
        return self._files.placing()

    async def make_durable(self) -> None:
        """Wait until everything that was done so far is durable, where files are kept. May raise ReplyError."""
        await trio.lowlevel.checkpoint()
        if self._files.keeps_file:
            await self._flush()
