"""The node: builds the parts, runs their tasks, stops them in order.

The nurseries; the innermost one is cancelled first::

    files                          ends last, after a final sync: syncs, rewrites and dumps
    └─ sessions                    closed second, after a drain with a deadline
       ├─ hub, stream driver, one task per client
       ├─ replica sender × slots   one task per known replica, also while it is away
       └─ work                     the node's own tasks, cancelled first
          ├─ one accept loop per listener, for clients and for replicas; then the load
          ├─ follower              while the node is a replica
          └─ timers, heartbeats, housekeeping (expiry, eviction, idle clients)
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from . import __version__
from .accept import accept_connections
from .clock import Clock, SystemClock
from .config import NodeConfig
from .config_values import join_address, split_address
from .disk import Disk, SystemDisk
from .errors import ReplyError, text
from .in_process import InProcess
from .leftovers import leftovers
from .log import Logger
from .no_scopes import NoScopes
from .node_parameters import watch_parameters
from .node_work import NodeWork
from .persist.persistence import Persistence, PersistenceSettings
from .persist.service import PersistenceService, StartFailure
from .persist.writer import Policy
from .process import Process
from .replicate.follower import Follower
from .replicate.replication import Replication
from .replicate.sender import ReplicaEntrance
from .replicate.service import ReplicationService
from .replicate.surroundings import ReplicationSettings
from .replicate.view import NodeReplicationView
from .serve.housekeeping import Housekeeper
from .serve.listener import Admission, ClientEntrance
from .serve.parameters import Parameters
from .serve.server import Server, Shutdown
from .serve.session import Session
from .serve.stream_driver import StreamDriver
from .serve.table import TABLE
from .store.apply import Applier
from .store.store import Store
from .transport import Listener, SystemTransport, Transport

if sys.platform == "linux":
    from .serve.hub import Hub

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Node", "StartError"]

#: Seconds that clients get to read their last replies when the node stops.
DRAIN_SECONDS: Final = 5.0


class StartError(Exception):
    """The node cannot start; the text says why, for the person who started it."""


class Node(InProcess):
    """One node. Made by ``kevynode.open_node``, ``kevynode.open_replica`` and the process ``kevynode run``.

    Its methods belong to the Trio thread that runs it.
    """

    def __init__(
        self,
        config: NodeConfig,
        log: Logger,
        *,
        clock: Clock | None = None,
        transport: Transport | None = None,
        random: Random | None = None,
        disk: Disk | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config = config
        self.log = log
        self.clock = clock if clock is not None else SystemClock()
        self.transport = transport if transport is not None else SystemTransport()
        self.random = random if random is not None else Random(secrets.randbits(256))
        self.store = Store(self.random)
        # What measures work: the turns of sessions, slow commands. In seconds, since whenever.
        self._timer = timer
        self.server = Server(self.store, log, self._wall_ms, self.clock.monotonic, timer, TABLE)
        # A node without an id of its own goes by that of this run.
        self.id = config.cluster.node_id or self.server.run_id
        # Tells two nodes with one id apart; the id of a run is as good as unique by itself.
        self._own_name = f"{self.id}.{self.random.getrandbits(32):08x}" if config.cluster.node_id else self.id
        self.admission = Admission()
        self.housekeeper = Housekeeper(self.server, config.expiry.sample)
        self.replication = self._replicate()
        self.persistence = self._persist(disk if disk is not None else SystemDisk())
        super().__init__(self.server, self.replication, self.persistence)
        self.files = PersistenceService(self.persistence, Applier(self.store, TABLE), log)
        # Scopes and peers, where any are declared.
        self.member = self._join() if config.cluster.scopes else None
        self._instance = ""
        #: Whether the data of the last run are here, so that this run has begun.
        self.loaded = False
        self._opened = False
        if self.member is None:
            self.server.scopes = NoScopes(config.cluster.node_id)
        self._introduce()
        self.parameters = self._apply_parameters()
        self._listeners: list[Listener] = []
        self._replication_listeners: list[Listener] = []
        self._work = trio.CancelScope()
        self._drain_seconds = DRAIN_SECONDS
        self._by_time = NodeWork(self.server, self.housekeeper, self.persistence, self.clock)
        # What else has to be told that answers may leave now.
        self._held_answers: list[Callable[[], None]] = []

    def _replicate(self) -> Replication:
        config = self.config.replication
        settings = ReplicationSettings(
            backlog_budget=config.replication_buffer_size,
            reconnect_window_ms=config.reconnect_window_ms,
            max_staleness_ms=config.replica_max_staleness_ms,
            min_replicas=config.min_replicas_to_write,
            min_replicas_max_lag_ms=config.min_replicas_max_lag_ms,
            standalone=config.role == "standalone",
        )
        replication = Replication(
            self.store, self.server, self.log, self.clock.monotonic, self.random.getrandbits, settings
        )
        replication.upstream_shards = config.upstream_shards
        self.server.replication = NodeReplicationView(
            replication, self._client_address, self.server.lone_primary.writer
        )
        return replication

    def _persist(self, disk: Disk) -> Persistence:
        config = self.config.persistence
        policy: Policy = config.appendfsync  # type: ignore[assignment]  # the configuration lets nothing else through
        settings = PersistenceSettings(policy, config.auto_aof_rewrite_percentage, config.auto_aof_rewrite_min_size)
        persistence = Persistence(
            disk,
            self.config.server.data_dir,
            self.store,
            self.server,
            self.log,
            self.clock.monotonic,
            self.clock.wall,
            settings,
        )
        persistence.on_open = self._release_answers
        self.server.persistence = persistence
        self.replication.files = persistence
        return persistence

    def _join(self) -> Member:
        # A quarter of the modules, which a node without scopes can do without: it is up sooner.
        from .member import Member

        member = Member(
            self.config,
            self.server,
            self.replication,
            self.files,
            self.flush,
            self.transport,
            self.clock,
            self.random,
            self.log,
        )
        member.identify(lambda: self._replica_id, lambda: self._announced_port)
        return member

    def _client_address(self, host: str, port: int) -> str:
        """Where clients find the node with this replication address: as the peer list says, or where it usually is."""
        for peer in self.config.cluster.peers:
            if peer.replication and split_address(peer.replication) == (host, port):
                return peer.address
        return join_address(host, port - 10000 if port > 10000 else port)

    @property
    def _replica_id(self) -> str:
        """What this node calls itself as a replica; an upstream's ROLE and INFO show the client port in it."""
        return f"kevynode-replica-{self._announced_port}#{self._own_name}"

    @property
    def _announced_port(self) -> int:
        """The client port as others reach it: that of the advertised address, else the real one."""
        return split_address(self.server.advertise)[1] if self.server.advertise else self.port

    def _make_follower(self, host: str, port: int) -> Follower:
        return Follower(
            host,
            port,
            store=self.store,
            applier=Applier(self.store, TABLE),
            transport=self.transport,
            clock=self.clock,
            random=self.random,
            log=self.log,
            sink=self.replication,
            replica_id=self._replica_id,
            client_port=self._announced_port,
            shards=self.replication.upstream_shards,
        )

    def _introduce(self) -> None:
        """Tell the server what it may not look up, and whom to call."""
        server, config = self.server, self.config
        server.node_id = config.cluster.node_id
        server.version = __version__
        server.process = Process()
        declared = config.own_peer.address if config.own_peer else ""
        server.advertise = config.server.advertise or declared
        if declared and declared != server.advertise:
            self.log.warning(
                "advertise_differs",
                advertise=server.advertise,
                peer=declared,
                reason="other nodes redirect to the latter",
            )
        server.on_shutdown = self._shut_down
        server.block_for = time.sleep

    def _apply_parameters(self) -> Parameters:
        """Give every parameter its start value, and let those who use it know of each change."""
        try:
            parameters = Parameters(self.server, self.config)
        except ValueError as error:
            raise StartError(f"config: {error}") from error
        self.server.parameters = parameters
        watch_parameters(
            parameters,
            self.admission,
            self.housekeeper,
            self.replication,
            self.persistence,
            self.config.persistence.aof,
            lambda: self.loaded,
        )
        parameters.put("dir", os.path.abspath(self.config.server.data_dir))
        return parameters

    def _shut_down(self, request: Shutdown) -> None:
        """Stop soon, after a dump where one is asked for. Raises ReplyError if that fails, unless it is forced."""
        self.log.info("shutdown_requested", now=request.now, save=bool(request.save))
        if request.save and self.loaded and self.persistence.save_now() and not request.force:
            raise ReplyError("ERR", "Errors trying to SHUTDOWN. Check logs.")
        self._drain_seconds = 0.0 if request.now else DRAIN_SECONDS
        self.stop()

    def _wall_ms(self) -> int:
        return int(self.clock.wall() * 1000)

    def _release_answers(self) -> None:
        """What had to wait for the files may ask again."""
        for release in self._held_answers:
            release()
        self.replication.may_ship_again()

    @property
    def addresses(self) -> list[str]:
        """Where clients connect: ``host:port`` with the real port, and paths of unix sockets."""
        return [listener.address for listener in self._listeners]

    @property
    def port(self) -> int:
        """The real client port; 0 before the node listens."""
        return self._listeners[0].port if self._listeners else 0

    @property
    def replication_address(self) -> str:
        """Where replicas connect, ``host:port`` with the real port; empty where they cannot."""
        return self._replication_listeners[0].address if self._replication_listeners else ""

    # -- running ----------------------------------------------------------------------------------------------------

    async def open_files(self) -> None:
        """Take the data directory for this node, if it keeps an append-only file. A second call does nothing.

        Raises StartError: another process has it, or what is in it is not as it should be.
        """
        await trio.lowlevel.checkpoint()
        keeps_file = self.config.persistence.aof
        if self._opened or not (keeps_file or self.config.cluster.scopes):
            return
        self._opened = True
        look = partial(leftovers, self.files.disk, self.config.server.data_dir, has_scopes=self.member is not None)
        try:
            left = await self.files.in_thread(look)
            instance = await self.files.open(self.random.getrandbits, keeps_file=keeps_file)
        except StartFailure as failure:
            raise StartError(str(failure)) from failure
        except OSError as error:
            raise StartError(f"{error.filename or self.config.server.data_dir}: {error.strerror or error}") from error
        self._instance = instance
        for event, path in left:
            self.log.warning(event, file=path)
        # It is the same node after a restart, and replicas and upstreams are to know that.
        node_id = self.config.cluster.node_id
        self._own_name = f"{node_id}.{instance[:8]}" if node_id else instance
        self.replication.own_replica_id = self._replica_id

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` or cancellation; ``task_status`` starts when the data are loaded.

        Clients can connect before, and are told that the node is loading. Raises StartError if the node cannot listen
        or load; call :meth:`open_files` and :meth:`listen` before to get what they raise without an exception group.
        """
        self.server.tick()
        # Before the first client can come.
        self.server.set_loading(True, "files")
        self.replication.loading = True
        failure: StartFailure | None = None
        try:
            await self.open_files()
            if not self._listeners:
                await self.listen()
            async with trio.open_nursery() as files:
                try:
                    await self._serve(files, task_status)
                except* StartFailure as group:
                    failure = _first(group)
                files.cancel_scope.cancel()
        finally:
            self.close_listeners()
            if self.member is not None:
                self.member.keeper.close()
            await self.files.finish()
            self._local.close()
            self.log.info("stopped", id=self.id)
        if failure is not None:
            raise StartError(str(failure)) from failure

    async def _serve(self, files: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        """Load and serve until the node's work is cancelled, then let clients and replicas have what is theirs."""
        answers = self.persistence
        async with AsyncExitStack() as stack:
            streams = StreamDriver(self.log, before_batch=self._before_batch, answers=answers, timer=self._timer)
            self._held_answers.append(streams.release_answers)
            hub = None
            if _hub_serves:
                hub = stack.enter_context(
                    Hub(self.log, before_batch=self._before_batch, answers=answers, timer=self._timer)
                )
                self._held_answers.append(hub.release_answers)
            sessions = await stack.enter_async_context(trio.open_nursery())
            if hub is not None:
                await sessions.start(hub.run)
            entrance = ClientEntrance(self.admission, self._open_session, sessions, self.log, hub=hub, streams=streams)
            others = {} if self.member is None else self.member.entrances
            replicas = ReplicaEntrance(self.replication, sessions, self.log, others=others)
            try:
                with self._work:
                    async with trio.open_nursery() as work:
                        for listener in self._listeners:
                            await work.start(entrance.listen, listener)
                        for listener in self._replication_listeners:
                            await work.start(partial(accept_connections, listener, replicas.admit, self.log))
                        work.start_soon(self._by_time.run_timers)
                        await self._load()
                        self._start_work(work, files)
                        task_status.started()
            finally:
                self.close_listeners()
            if not self.loaded:
                # Stopped before there was anything to serve.
                task_status.started()
            with trio.move_on_after(self._drain_seconds) as deadline:
                async with trio.open_nursery() as drains:
                    drains.start_soon(streams.drain)
                    if hub is not None:
                        drains.start_soon(hub.drain)
            with trio.move_on_after(self._drain_seconds) as deadline:
                # What clients were still answered is among what replicas lack.
                await replicas.drain()
            if deadline.cancelled_caught and self._drain_seconds:
                self.log.warning(
                    "drain_timeout", clients=self.admission.connected, replicas=len(self.replication.links)
                )
            sessions.cancel_scope.cancel()

    async def _load(self) -> None:
        """Have the data that the last run left, and stand where it stood."""
        server, replication = self.server, self.replication
        await self.files.load(replication, opens=self.config.replication.role != "replica")
        replication.forget_void_cursors()
        if self.member is not None:
            from .scope.keeper import LedgerUnusable

            try:
                await self.member.load(self._instance)
            except LedgerUnusable as error:
                raise StartFailure(str(error)) from error
        follows = self.config.replication.role == "replica" and replication.role == "master"
        owned = self.member.ownership.owned() if follows and self.member is not None else ()
        if owned:
            names = ", ".join(text(prefix) for prefix in owned)
            raise StartFailure(f"replication.role: a replica owns no scopes, and this node owns {names}")
        replication.loading = False
        server.set_loading(False, "files")
        self.loaded = True
        if follows:
            replication.follow(*split_address(self.config.replication.upstream))

    def _start_work(self, work: trio.Nursery, files: trio.Nursery) -> None:
        """Start what goes on beside the clients from now on."""
        service = ReplicationService(self.replication, self._make_follower)
        files.start_soon(self.files.run)
        work.start_soon(service.beat)
        work.start_soon(service.follow)
        work.start_soon(self._by_time.keep_house)
        if self.member is not None:
            work.start_soon(self.member.run)
        self.log.info(
            "started",
            id=self.id,
            addresses=" ".join(self.addresses),
            replication=self.replication_address or "-",
            keys=len(self.store.keyspace),
        )

    def stop(self) -> None:
        """Begin to stop: no new connections, clients get their last replies, then :meth:`run` returns."""
        self._work.cancel()

    async def listen(self) -> None:
        """Take the addresses for clients and replicas; both are served once :meth:`run` runs.

        Raises StartError if one is taken.
        """
        server, replication = self.config.server, self.config.replication
        listeners: list[Listener] = []
        key = "server.bind"
        try:
            listeners += await self.transport.listen(server.bind, server.port)
            if server.unixsocket:
                key = "server.unixsocket"
                listeners.append(await self.transport.listen_unix(server.unixsocket))
            self._listeners = list(listeners)
            if replication.role != "standalone":
                key = "replication.listen_port"
                self._replication_listeners = list(
                    await self.transport.listen(server.bind, self.config.replication_port)
                )
        except BaseException as error:
            for listener in (*listeners, *self._replication_listeners):
                listener.close()
            if isinstance(error, OSError):
                raise StartError(f"{key}: {error.strerror or error}") from error
            raise
        self.server.listeners = [
            ("tcp", *split_address(listener.address)) if listener.port else ("unix", listener.address, 0)
            for listener in self._listeners
        ]
        self.parameters.put("port", self.port)
        self.replication.own_replica_id = self._replica_id

    def close_listeners(self) -> None:
        """Listen no more, also if the node never ran; a second call does nothing."""
        for listener in (*self._listeners, *self._replication_listeners):
            listener.close()

    def _open_session(self, peer: str, local: str, kind: str) -> Session:
        return Session(self.server, peer, local, kind)

    def _before_batch(self, _: float) -> None:
        self.store.now = int(self.clock.wall() * 1000)


def _first(group: BaseExceptionGroup[StartFailure]) -> StartFailure:
    """The failure, whatever nurseries it has come through."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, StartFailure)
    return error


_hub_serves: Final = sys.platform == "linux"
