"""The node: builds the parts, runs their tasks, stops them in order.

The nurseries; the inner one is cancelled first::

    sessions                    closed second, after a drain with a deadline
    ├─ hub, stream driver, one task per client
    ├─ replica sender × slots   one task per known replica, also while it is away
    └─ work                     the node's own tasks, cancelled first
       ├─ one accept loop per listener, for clients and for replicas
       ├─ follower              while the node is a replica
       └─ timers, heartbeats, housekeeping (expiry, eviction, idle clients)
"""

from __future__ import annotations

import math
import secrets
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import Any, Final

import trio
from trio.lowlevel import enable_ki_protection

from . import __version__
from .accept import accept_connections
from .changes import Changes
from .clock import Clock, SystemClock
from .config import NodeConfig
from .config_values import join_address, split_address
from .log import Logger
from .process import Process
from .replicate.follower import Follower
from .replicate.replication import Replication
from .replicate.sender import ReplicaEntrance
from .replicate.service import ReplicationService
from .replicate.surroundings import ReplicationSettings
from .replicate.view import NodeReplicationView
from .serve.housekeeping import Housekeeper
from .serve.listener import Admission, ClientEntrance
from .serve.local import LocalClient, to_bytes
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

__all__ = ["Node", "StartError"]

#: Seconds that clients get to read their last replies when the node stops.
DRAIN_SECONDS: Final = 5.0


class StartError(Exception):
    """The node cannot start; the text says why, for the person who started it."""


class Node:
    """One node. Made by ``kevynode.open_node``, ``kevynode.open_replica`` and the process ``kevynode run``.

    Its methods belong to the Trio thread that runs it.

    Keys and values are ``bytes``, or ``str`` taken as UTF-8.
    """

    def __init__(
        self,
        config: NodeConfig,
        log: Logger,
        *,
        clock: Clock | None = None,
        transport: Transport | None = None,
        random: Random | None = None,
    ) -> None:
        self.config = config
        self.log = log
        self.clock = clock if clock is not None else SystemClock()
        self.transport = transport if transport is not None else SystemTransport()
        self.random = random if random is not None else Random(secrets.randbits(256))
        self.store = Store(self.random)
        self.server = Server(self.store, log, self._wall_ms, self.clock.monotonic, time.perf_counter, TABLE)
        # A node without an id of its own goes by that of this run.
        self.id = config.cluster.node_id or self.server.run_id
        # Tells two nodes with one id apart; the id of a run is as good as unique by itself.
        self._own_name = f"{self.id}.{self.random.getrandbits(32):08x}" if config.cluster.node_id else self.id
        self.admission = Admission()
        self.housekeeper = Housekeeper(self.server)
        self.replication = self._replicate()
        self._introduce()
        self.parameters = self._apply_parameters()
        self._local = LocalClient(self.server)
        self._listeners: list[Listener] = []
        self._replication_listeners: list[Listener] = []
        self._work = trio.CancelScope()
        self._drain_seconds = DRAIN_SECONDS
        self._timer_alarm = trio.Event()
        self._replication_news = trio.Event()

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
        replication.on_news = self._tell_replication_news
        self.server.replication = NodeReplicationView(replication, self._client_address)
        return replication

    def _client_address(self, host: str, port: int) -> str:
        """Where clients find the node with this replication address: as the peer list says, or where it usually is."""
        for peer in self.config.cluster.peers:
            if peer.replication and split_address(peer.replication) == (host, port):
                return peer.address
        return join_address(host, port - 10000 if port > 10000 else port)

    @property
    def _replica_id(self) -> str:
        """What this node calls itself as a replica; an upstream's ROLE and INFO show the client port in it."""
        return f"kevynode-replica-{self.port}#{self._own_name}"

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
            client_port=self.port,
            shards=self.replication.upstream_shards,
        )

    def _introduce(self) -> None:
        """Tell the server what it may not look up, and whom to call."""
        server, config = self.server, self.config
        server.node_id = config.cluster.node_id
        server.version = __version__
        server.process = Process()
        server.advertise = config.server.advertise or (config.own_peer.address if config.own_peer else "")
        server.timers.on_earlier = self._wake_timers
        server.on_shutdown = self._shut_down
        server.block_for = time.sleep

    def _apply_parameters(self) -> Parameters:
        """Give every parameter its start value, and let those who use it know of each change."""
        try:
            parameters = Parameters(self.server, self.config)
        except ValueError as error:
            raise StartError(f"config: {error}") from error
        self.server.parameters = parameters
        parameters.watch("maxclients", partial(setattr, self.admission, "maxclients"))
        parameters.watch("tcp-keepalive", partial(setattr, self.admission, "tcp_keepalive"))
        parameters.watch("timeout", partial(setattr, self.housekeeper, "client_timeout"))
        parameters.watch("hz", self.housekeeper.set_frequency)
        parameters.watch("maxmemory", self.housekeeper.limit_memory)
        parameters.watch("maxmemory-policy", self.housekeeper.follow_policy)
        parameters.watch("repl-backlog-size", self.replication.set_backlog_budget)
        parameters.watch("min-replicas-to-write", self._require_replicas)
        parameters.watch("min-replicas-max-lag", self._limit_lag)
        return parameters

    def _require_replicas(self, number: int) -> None:
        self.replication.require_replicas(number=number)

    def _limit_lag(self, milliseconds: int) -> None:
        self.replication.require_replicas(max_lag_ms=milliseconds)

    def _shut_down(self, request: Shutdown) -> None:
        self.log.info("shutdown_requested", now=request.now)
        self._drain_seconds = 0.0 if request.now else DRAIN_SECONDS
        self.stop()

    def _wall_ms(self) -> int:
        return int(self.clock.wall() * 1000)

    # -- in-process -------------------------------------------------------------------------------------------------

    @enable_ki_protection
    def get(self, key: bytes | str) -> bytes | None:
        """The string under ``key``, or None. Synchronous. Raises ReplyError (WRONGTYPE) for another type.

        Nothing else runs between this call and the program's next checkpoint, so the answer stays true until then.
        """
        server = self.server
        server.tick()
        value = server.store.read_string(to_bytes(key))
        if server.store.journal.pending:
            server.commit()
        return value

    def set(self, key: bytes | str, value: bytes | str) -> None:
        """Put a string under ``key``. Synchronous: every read after it sees it. It promises memory, not a disk.

        Raises ReplyError where a client would get an error (OOM and the like).
        """
        self.execute(b"SET", key, value)

    @enable_ki_protection
    def execute(self, name: bytes | str, *arguments: bytes | str | int | float) -> Any:
        """Run any command and return its reply as a plain Python value, as RESP3 types it. Synchronous.

        Statuses and verbatim texts are ``str``, bulk strings ``bytes``, maps ``dict``, sets ``set``, nulls None.
        Raises ReplyError. A blocking command does not wait: it answers as if its time had passed.
        """
        return self._local.execute(name, *arguments)

    def watch(self, prefix: bytes | str = b"") -> Changes:
        """The changes of keys under a prefix from now on, as an asynchronous iterator; see ``kevynode.changes``."""
        return Changes(self.store.journal, to_bytes(prefix))

    async def wait(self, replicas: int, timeout: float | None = None) -> int:
        """Wait until so many replicas have applied what this program wrote; how many have. As WAIT.

        Applied is in their memory, not on their disks. Gives up after ``timeout`` seconds (None: never). A checkpoint.
        Raises ReplyError on a replica.
        """
        await trio.lowlevel.checkpoint()
        # It asks the replicas how far they are.
        reached: int = self.execute(b"WAIT", replicas, 0)
        with trio.move_on_after(math.inf if timeout is None else timeout):
            while reached < replicas:
                await self._replication_news.wait()
                reached = self._local.count_acknowledged()
        return reached

    async def synced(self) -> None:
        """Wait until there are data to read: at once on a primary, on a replica when its first copy is complete."""
        await trio.lowlevel.checkpoint()
        while not self.replication.has_data:
            await self._replication_news.wait()

    def _tell_replication_news(self) -> None:
        news, self._replication_news = self._replication_news, trio.Event()
        news.set()

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

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` or cancellation; ``task_status`` starts when clients can connect.

        Raises StartError if it cannot listen; call :meth:`listen` before to get that without an exception group.
        """
        self.server.tick()
        if not self._listeners:
            await self.listen()
        if self.config.replication.role == "replica" and self.replication.role == "master":
            self.replication.follow(*split_address(self.config.replication.upstream))
        try:
            async with AsyncExitStack() as stack:
                streams = StreamDriver(self.log, before_batch=self._before_batch)
                hub = stack.enter_context(Hub(self.log, before_batch=self._before_batch)) if _hub_serves else None
                sessions = await stack.enter_async_context(trio.open_nursery())
                if hub is not None:
                    await sessions.start(hub.run)
                entrance = ClientEntrance(
                    self.admission, self._open_session, sessions, self.log, hub=hub, streams=streams
                )
                replicas = ReplicaEntrance(self.replication, sessions, self.log)
                service = ReplicationService(self.replication, self._make_follower)
                try:
                    with self._work:
                        async with trio.open_nursery() as work:
                            for listener in self._listeners:
                                await work.start(entrance.listen, listener)
                            for listener in self._replication_listeners:
                                accept = partial(accept_connections, listener, replicas.admit, self.log)
                                await work.start(accept)
                            work.start_soon(service.beat)
                            work.start_soon(service.follow)
                            work.start_soon(self._run_timers)
                            work.start_soon(self._keep_house)
                            self.log.info(
                                "started",
                                id=self.id,
                                addresses=" ".join(self.addresses),
                                replication=self.replication_address or "-",
                            )
                            task_status.started()
                finally:
                    self.close_listeners()
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
        finally:
            self._local.close()
            self.log.info("stopped", id=self.id)

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

    def _wake_timers(self) -> None:
        self._timer_alarm.set()

    async def _run_timers(self) -> None:
        """Sleep until the next timer falls due, then do what it says."""
        while True:
            self._timer_alarm = trio.Event()
            when = self.server.timers.next()
            with trio.move_on_after(math.inf if when is None else max(0.0, when - self.clock.monotonic())):
                await self._timer_alarm.wait()
            self._do_timers()

    @enable_ki_protection
    def _do_timers(self) -> None:
        self.server.tick()
        try:
            self.server.timers.run(self.clock.monotonic())
            self.server.commit()
        except Exception as error:
            # It costs the one who set the timer, not the node; the next ones are due at once.
            self.server.unexpected("timer", error)

    async def _keep_house(self) -> None:
        """A slice of background work ``hz`` times a second, oftener while there is more than a slice to do."""
        while True:  # noqa: ASYNC110  it does a slice of work each time, it does not wait for a condition
            await trio.sleep(self._clean())

    @enable_ki_protection
    def _clean(self) -> float:
        self.server.tick()
        return self.housekeeper.work()


_hub_serves: Final = sys.platform == "linux"
