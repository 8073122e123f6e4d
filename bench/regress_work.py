"""The workloads whose instructions are counted, as a process: ``python -m bench.regress_work NAME...``.

It runs under callgrind, which counts only while ``DOOR @ work`` runs: :data:`DOOR_SYMBOL` is the C function behind that
operator, and nothing else uses it. Each workload is run a few times beforehand, because the interpreter adapts its
code to what it sees; then it goes through the door :data:`PASSES` times. No clock moves, and nothing does I/O but what
is named *served*, where callgrind counts what the process does and not what the kernel does for it.
"""

import gc
import itertools
import json
import math
import random
import socket
import sys
from collections.abc import Callable, Iterator

import attrs
import trio

from bench.workloads import RANDOM, STRING_PREFIX, VALUE, WORKLOADS, Argv, build_batches, encode_request, number
from kevynode import NodeConfig, twins
from kevynode.log import open_log
from kevynode.node import Node
from kevynode.replicate import wire
from kevynode.replicate.follower import Follower
from kevynode.replicate.handshake import Form, Request, format_answer
from kevynode.replicate.lineage import Lineage
from kevynode.replicate.replica import ReplicaLink
from kevynode.replicate.replica_events import Resumed
from kevynode.replicate.snapshot import encode_snapshot
from kevynode.replicate.snapshot_decoder import SnapshotDecoder
from kevynode.replicate.upstream import Upstream
from kevynode.scope import OwnershipTable, Scope
from kevynode.serve.hub import READ_SIZE, Hub
from kevynode.serve.hub_connection import HubConnection
from kevynode.serve.session import Session
from kevynode.serve.table import TABLE
from kevynode.store.apply import Applier
from kevynode.store.staging import Staging
from kevynode.store.store import Store

DOOR_SYMBOL = "PyNumber_MatrixMultiply"

WARM_UPS = 3
PASSES = 3
DEPTH = 16
BATCHES = 32
CLIENTS = 16
"""Clients that a look at the sockets finds ready, about as many as under a full load at depth 1."""

KEYSPACE = 1000
"""Keys, fields and members that a workload draws from."""

CYCLE = 8
"""Batches of clients between two turns of a link to a replica."""

FRAMES = 2048
FRAMES_AT_ONCE = 512
"""About as many as a read from a socket holds."""

SNAPSHOT_KEYS = 2000
SCOPES = 50
ROUTED_KEYS = 500

COMMANDS = ("GET", "SET", "INCR", "HSET", "LPUSH", "SADD", "ZADD", "MGET", "LRANGE")

SERVED = ("GET", "SET", "INCR")

Work = Callable[[], object]


def _nothing() -> None:
    """What most work needs beforehand, and afterwards."""


@attrs.frozen
class Counted:
    """A piece of work that is done again and again, and how many operations (commands, frames, keys) it is.

    ``prepare`` comes before each time and ``finish`` in the end; neither counts.
    """

    work: Work
    operations: int
    prepare: Work = _nothing
    finish: Work = _nothing


class _Clock:
    """Time stands still."""

    def monotonic(self) -> float:
        """Seconds."""
        return 1000.0

    def wall(self) -> float:
        """Seconds since 1970."""
        return 1_700_000_000.0


class _Door:
    """What callgrind watches."""

    def __matmul__(self, work: Work) -> None:
        work()


def make_node() -> Node:
    """A node with all its parts, none of which runs: no files, no sockets, no tasks."""
    config = NodeConfig.from_dict({"server": {"port": 0}, "persistence": {"aof": False}, "log": {"level": "error"}})
    # A timer in C, like the real one, that costs next to nothing.
    timer = itertools.repeat(0.0).__next__
    return Node(config, open_log(config.log), clock=_Clock(), random=random.Random(1), timer=timer)


def make_session(node: Node) -> Session:
    """A client of the node."""
    return Session(node.server, "127.0.0.1:50000", "127.0.0.1:6004")


def drive(session: Session, data: bytes) -> bytes:
    """What a driver does with what it has received, until everything is answered."""
    session.server.tick()
    session.receive(data)
    session.run(1.0)
    return session.take_output()


def fill(session: Session, commands: Iterator[Argv]) -> None:
    """Run commands one by one; raises ValueError if one fails."""
    for argv in commands:
        reply = drive(session, encode_request(argv))
        if not reply or reply.startswith(b"-"):
            raise ValueError(f"{argv[:2]} was answered {reply[:100]!r}")


def _is_filled(argv: Argv) -> bool:
    """Whether a command that fills a workload's data is about what we draw from."""
    return len(argv) > 4 or max((int(word[-12:]) for word in argv if word[-12:].isdigit()), default=0) < KEYSPACE


def _answered(session: Session, batches: list[bytes], line_ends: int) -> Counted:
    """Feed batches to a session. Each is checked once beforehand: what fails is soon done."""
    for batch in batches:
        replies = drive(session, batch)
        if replies.count(b"\n") != line_ends * DEPTH or replies.startswith(b"-"):
            raise ValueError(f"a batch was answered {replies[:100]!r}")

    def work() -> None:
        for batch in batches:
            drive(session, batch)

    return Counted(work, len(batches) * DEPTH)


def command(name: str) -> Counted:
    """Requests of one command: parse, dispatch, reply."""
    workload = WORKLOADS[name]
    session = make_session(make_node())
    fill(session, (argv for argv in workload.fill() if _is_filled(argv)))
    batches = build_batches(workload.arguments, DEPTH, seed=1, keyspace=KEYSPACE)[:BATCHES]
    return _answered(session, batches, workload.line_ends)


def served(name: str) -> Counted:
    """A cycle of the hub for one request of each of several clients, from socket to socket."""
    workload = WORKLOADS[name]
    node = make_node()
    fill(make_session(node), (argv for argv in workload.fill() if _is_filled(argv)))
    hub = Hub(node.log, before_batch=node._before_batch, answers=node.persistence, timer=node._timer)
    clients = []
    for _ in range(CLIENTS):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        hub._register(HubConnection(hub, far, make_session(node)))
        clients.append(near)
    requests = itertools.cycle(build_batches(workload.arguments, 1, seed=1, keyspace=KEYSPACE)[: CLIENTS * BATCHES])

    def prepare() -> None:
        for client in clients:
            answer = client.recv(READ_SIZE)
            if not answer or answer.startswith(b"-"):
                raise ValueError(f"a request was answered {answer[:100]!r}")
            client.send(next(requests))

    async def close_hub() -> None:
        hub.close()

    def finish() -> None:
        # It wants to tell whoever waits for it, of whom there are none.
        trio.run(close_hub)
        for client in clients:
            client.close()

    for client in clients:
        client.send(next(requests))
    for _ in range(BATCHES):
        hub._cycle()
        prepare()
    hub._cycle()
    return Counted(hub._cycle, CLIENTS, prepare, finish)


def replicated_set() -> Counted:
    """SET on a primary with a replica that is current: what the backlog and the link add."""
    node = make_node()
    request = Request(Form.EXTENDED, 0, 0, "bench", frozenset({"txn", "ackreq", "lineage"}))
    replication = node.replication
    link = replication.open_link(replication.recognise(request, "127.0.0.1:1"), request)
    while link.take(0.0) or link.busy:
        pass
    session = make_session(node)
    batches = build_batches(WORKLOADS["SET"].arguments, DEPTH, seed=1, keyspace=KEYSPACE)[:BATCHES]
    sent = 0

    def work() -> None:
        nonlocal sent
        for start in range(0, BATCHES, CYCLE):
            for batch in batches[start : start + CYCLE]:
                drive(session, batch)
            sent += sum(map(len, link.take(0.0)))

    work()
    if sent < len(batches) * DEPTH * len(VALUE):
        raise ValueError(f"only {sent} bytes went to the replica")
    return Counted(work, len(batches) * DEPTH)


def _set_frames(first: int) -> list[bytes]:
    """A stream of SETs from an offset on, cut as a socket might deliver it."""
    draw = random.Random(1).randrange
    words = [(b"SET", (STRING_PREFIX + number(draw(KEYSPACE))).encode(), VALUE.encode()) for _ in range(FRAMES_AT_ONCE)]
    return [wire.encode_frames(first + start, words) for start in range(0, FRAMES, FRAMES_AT_ONCE)]


def replica_apply() -> Counted:
    """A stream of SETs: decode, apply, number, pass on. Each pass goes on where the one before it ended."""
    node = make_node()
    store, replication = node.store, node.replication
    replication.follow("bench", 1)
    follower = Follower(
        "bench",
        1,
        store=store,
        applier=Applier(store, TABLE),
        transport=node.transport,
        clock=node.clock,
        random=node.random,
        log=node.log,
        sink=replication,
        replica_id="bench",
    )
    capabilities = frozenset({"txn", "ackreq", "lineage"})
    request = Request(Form.EXTENDED, 7, 1, "bench", capabilities)
    upstream = Upstream(follower, 0, 1)
    link = upstream.link = ReplicaLink(request, "bench")
    link.start(0.0)
    link.feed(format_answer(request, Lineage(7), capabilities), 0.0)
    passes = (_set_frames(1 + FRAMES * index) for index in itertools.count())
    # Made beforehand: only the replica's side is counted.
    streams = iter([next(passes) for _ in range(1 + WARM_UPS + PASSES)])
    store.journal.offset = 1

    def work() -> None:
        for data in next(streams):
            for event in link.feed(data, 0.0):
                if isinstance(event, wire.Frames):
                    follower.apply(upstream, event, 0, math.inf)
                elif isinstance(event, Resumed):
                    follower.resumed(upstream, event, "")

    work()
    if link.position != 1 + FRAMES or not store.keyspace.count or replication.backlog.next != 1 + FRAMES:
        raise ValueError(f"the replica is at {link.position}, {link.state}: {link.reason}")
    return Counted(work, FRAMES)


def _filled_store() -> Store:
    store = Store(random.Random(1))
    for index in range(SNAPSHOT_KEYS):
        store.put((STRING_PREFIX + number(index)).encode(), VALUE.encode())
    return store


def snapshot_encode() -> Counted:
    """Keys of 64 bytes as a snapshot."""
    store = _filled_store()

    def work() -> None:
        for _ in encode_snapshot(store.freeze()):
            pass

    return Counted(work, SNAPSHOT_KEYS)


def snapshot_decode() -> Counted:
    """The same snapshot read into a store."""
    pieces = list(encode_snapshot(_filled_store().freeze()))

    def work() -> None:
        decoder = SnapshotDecoder(Staging())
        for piece in pieces:
            decoder.feed(piece)
        decoder.finish()
        if decoder.staging.count != SNAPSHOT_KEYS:
            raise ValueError(f"{decoder.staging.count} keys arrived")

    return Counted(work, SNAPSHOT_KEYS)


def routing() -> Counted:
    """Whose a key is, among fifty scopes."""
    table = OwnershipTable(Scope(b"app:%d:" % index, f"node-{index % 3}") for index in range(SCOPES))
    keys = [b"app:%d:%d" % (index % (SCOPES + 5), index) for index in range(ROUTED_KEYS)]
    route = table.route

    def work() -> None:
        for key in keys:
            route(key, "node-0")

    return Counted(work, ROUTED_KEYS)


def reference() -> Counted:
    """Nothing of ours: what counts of another build of the interpreter are compared by."""
    template = [RANDOM, "x" * 10, "y" * 20]

    def work() -> None:
        seen: dict[bytes, list[bytes]] = {}
        for index in range(500):
            line = b"$%d\r\n%b\r\n" % (index, template[index % 3].encode())
            head, _, rest = line.partition(b"\r\n")
            seen.setdefault(head, []).append(rest)
        b"".join(map(b"".join, seen.values()))

    return Counted(work, 500)


WORK: dict[str, Callable[[], Counted]] = {
    "reference": reference,
    **{name: (lambda name=name: command(name)) for name in COMMANDS},  # type: ignore[misc]
    **{f"{name} served": (lambda name=name: served(name)) for name in SERVED},  # type: ignore[misc]
    "SET replicated": replicated_set,
    "replica apply": replica_apply,
    "snapshot encode": snapshot_encode,
    "snapshot decode": snapshot_decode,
    "routing": routing,
}
"""What makes each piece of work. ``reference`` comes first."""


def main() -> int:
    """Do the work named on the command line; prints names, operations and passes as one line of JSON."""
    door = _Door()
    done = []
    # When the collector runs depends on what was allocated long before.
    gc.disable()
    for name in sys.argv[1:]:
        counted = WORK[name]()
        for _ in range(WARM_UPS):
            counted.prepare()
            counted.work()
        gc.collect()
        for _ in range(PASSES):
            counted.prepare()
            door @ counted.work
        counted.finish()
        done.append({"name": name, "operations": counted.operations, "passes": PASSES})
    print(json.dumps({"parts": twins.IMPLEMENTATION, "work": done}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
