"""Everything that changes data is told: random work of several clients, replayed from the journal into a second store.

Clients with transactions and blocking pops, deadlines of keys and fields, the sweeper, eviction, and snapshots that are
taken in between all work on one small key space. A copy that hears nothing but the groups must hold the same in the
end, the bytes counted must be the bytes held, and a snapshot must hold on to what it was taken of.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.session_harness import Client, ServerHarness, request
from support.store_harness import CANONICAL, content, find_command

from kevynode.errors import ReplyError
from kevynode.serve.housekeeping import Housekeeper
from kevynode.store.command import TABLE
from kevynode.store.journal import Effect
from kevynode.store.store import Store
from kevynode.store.values import bytes_memory, value_memory

# k: a key, w: a word (member, field, element), n: a small number, f: a float, t: milliseconds, s: seconds, @: unix ms.
COMMANDS = """
SET k w|SET k n|SET k w PX t|SET k w KEEPTTL|SET k w NX GET|SET k w XX EX s|SETEX k s w|PSETEX k t w|SETNX k w
GETSET k w|DECR k|INCRBY k n|EXPIREAT k 99|HMSET k w w|HEXPIREAT k 99 FIELDS 1 w|DELIFEQ k w|FLUSHDB
GETDEL k|GETEX k PX t|GETEX k PERSIST|APPEND k w|SETRANGE k n w|INCR k|DECRBY k n|INCRBYFLOAT k f|MSET k w k w
MSETNX k w k w|MSETEX 2 k w k w PX t|SETBIT k n 1|BITOP OR k k k|BITOP NOT k k|BITFIELD k SET u8 n n INCRBY i5 n n
DEL k k|UNLINK k|RENAME k k|RENAMENX k k|COPY k k|COPY k k REPLACE|EXPIRE k s|PEXPIRE k t NX|PEXPIREAT k @ GT|PERSIST k
EXPIRE k -1|SORT k ALPHA STORE k|SORT k BY nosort STORE k
HSET k w w w w|HSETNX k w w|HDEL k w w|HINCRBY k w n|HINCRBYFLOAT k w f|HPEXPIRE k t FIELDS 2 w w|HPERSIST k FIELDS 1 w
HEXPIRE k s FIELDS 1 w|HPEXPIREAT k @ NX FIELDS 1 w|HGETEX k PX t FIELDS 2 w w|HGETDEL k FIELDS 2 w w
HSETEX k PX t FIELDS 1 w w|HSETEX k KEEPTTL FIELDS 2 w w w w|HSETEX k FXX FIELDS 1 w w|HGETALL k|HLEN k|HRANDFIELD k 3
LPUSH k w w|RPUSH k w w w|LPUSHX k w|RPUSHX k w|LPOP k|RPOP k 2|LSET k n w|LINSERT k BEFORE w w|LINSERT k AFTER w w
LREM k n w|LREM k -1 w|LTRIM k n 5|LTRIM k 1 -2|LMOVE k k LEFT RIGHT|RPOPLPUSH k k|LMPOP 2 k k RIGHT COUNT 2
SADD k w w w|SREM k w w|SPOP k|SPOP k 2|SMOVE k k w|SINTERSTORE k k k|SUNIONSTORE k k k|SDIFFSTORE k k k
ZADD k n w f w|ZADD k NX n w|ZADD k GT CH n w|ZADD k INCR f w|ZINCRBY k f w|ZREM k w w|ZPOPMIN k|ZPOPMAX k 2
ZMPOP 2 k k MAX COUNT 2|ZREMRANGEBYRANK k 0 n|ZREMRANGEBYSCORE k -inf n|ZREMRANGEBYLEX k - [w|ZRANGESTORE k k 0 n
ZUNIONSTORE k 2 k k WEIGHTS n f|ZINTERSTORE k 2 k k AGGREGATE MAX|ZDIFFSTORE k 2 k k
BLPOP k k 0.05|BRPOP k k 0.05|BLMOVE k k RIGHT LEFT 0.05|BLMPOP 0.05 2 k k LEFT COUNT 2|BZPOPMIN k k 0.05
BZPOPMAX k 0.05|BZMPOP 0.05 2 k k MIN|BRPOPLPUSH k k 0.05
GET k|TYPE k|EXISTS k k|TTL k|SCAN 0|RANDOMKEY|OBJECT ENCODING k|STRLEN k|WATCH k|UNWATCH|PING|FLUSHALL
""".replace("\n", "|").strip("|")
TEMPLATES = [line.split() for line in COMMANDS.split("|")]
#: One in so many of the templates that would be drawn as often as the others but empty everything.
RARE = 40


def kind_of_key(group: str) -> str:
    """The first letter of keys that mostly hold values for commands of ``group``."""
    return {"hash": "h", "list": "l", "set": "s", "sorted-set": "z"}.get(group, "b")


class Workload:
    """Several clients on one node, and all that its journal tells."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.node = ServerHarness(seed)
        self.keeper = Housekeeper(self.node.server)
        self.clients = [self.node.connect() for _ in range(4)]
        self.groups: list[tuple[int, int, list[Effect]]] = []
        self.snapshots: list[tuple[Any, Any]] = []
        self.node.store.journal.observers.append(
            lambda first, group: self.groups.append((first, self.node.store.now, list(group)))
        )

    def words(self, template: list[str]) -> list[str]:
        draw = self.random
        now = self.node.wall
        kind = kind_of_key(TABLE.by_name[template[0].lower().encode()].group)
        words = []
        for word in template:
            match word:
                case "k":
                    # Mostly a key of a type that fits.
                    word = f"{kind if draw.randrange(8) else draw.choice('bhlsz')}{draw.randrange(3)}"
                case "w":
                    word = draw.choice(("a", "b", "c", "17", "d" * 70, "e" * draw.randrange(1, 9)))
                case "[w":
                    word = "[c"
                case "n":
                    word = str(draw.randrange(9))
                case "f":
                    word = repr(draw.choice((0.5, -1.25, 3.0, 1e10)))
                case "t":
                    word = str(draw.randrange(1, 300))
                case "s":
                    word = str(draw.randrange(1, 3))
                case "@":
                    word = str(now + draw.randrange(-50, 300))
            words.append(word)
        return words

    def command(self) -> bytes:
        template = self.random.choice(TEMPLATES)
        if template[0] in ("FLUSHALL", "FLUSHDB") and self.random.randrange(RARE):
            template = ["PING"]
        return request(*self.words(template))

    def transaction(self) -> bytes:
        commands = b"".join(self.command() for _ in range(self.random.randrange(1, 6)))
        return request("MULTI") + commands + request("EXEC")

    def step(self) -> None:
        draw, node = self.random, self.node
        client: Client = draw.choice(self.clients)
        match draw.randrange(20):
            case 0:
                node.advance(draw.choice((0.001, 0.02, 0.1, 0.4)))
            case 1:
                node.server.tick()
                self.keeper.work()
            case 2:
                client.session.disconnected("gone")
                self.clients[self.clients.index(client)] = node.connect()
            case 3:
                self.take_snapshot()
            case 4 | 5 | 6:
                client.send(self.transaction())
            case 7:
                client.send(self.command() + self.transaction() + self.command())
            case _:
                client.send(self.command())
        for other in self.clients:
            other.read()
        assert not node.store.journal.pending
        assert not node.store.touched
        assert not node.server.waiters.ready

    def take_snapshot(self) -> None:
        store = self.node.store
        self.check_snapshot()
        shards = store.freeze()
        self.snapshots = [(shards, content(store))]

    def check_snapshot(self) -> None:
        for shards, before in self.snapshots:
            assert _held(shards) == before

    def replay(self) -> Store:
        copy = Store(random.Random(2))
        copy.deletes_expired = False
        following = 0
        for first, now, group in self.groups:
            assert first == following
            following += len(group)
            copy.now = now
            for command, _, events in group:
                assert command[0].upper() in CANONICAL
                assert all(event != b"evicted" for _, event, _ in events) or len(group) == 1
                reply = find_command(list(command)).handler(copy, command)
                assert not isinstance(reply, ReplyError), (command, reply)
                copy.commit()
        return copy


def _held(shards: list[Any]) -> Any:
    view = Store(random.Random(0))

    class Frozen:
        @staticmethod
        def shards() -> list[Any]:
            return shards

    view.keyspace = Frozen()  # type: ignore[assignment]  # content() asks for nothing else
    return content(view)


def check_counts(store: Store) -> None:
    held = list(store.keyspace.items())
    assert store.keyspace.count == len(held)
    assert store.used == sum(bytes_memory(key) + value_memory(value) for key, value in held)
    assert all(type(value) is bytes or len(value) for _, value in held)
    for shard in store.keyspace.shards():
        assert shard.deadlines.keys() <= shard.keys()
        assert shard.access.keys() <= shard.keys()


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-ttl", "allkeys-lfu"])
@pytest.mark.parametrize("seed", range(6))
def test_a_copy_that_hears_the_journal_holds_the_same(seed: int, policy: str) -> None:
    work = Workload(seed)
    if policy != "noeviction":
        settings = work.node.store.settings
        settings.maxmemory_policy = policy
        work.keeper.follow_policy(policy)
        settings.maxmemory = work.node.server.rates.memory() + 2500
        work.keeper.limit_memory(settings.maxmemory)
    for number in range(500):
        work.step()
        if number % 50 == 0:
            check_counts(work.node.store)
    work.check_snapshot()
    check_counts(work.node.store)
    copy = work.replay()
    check_counts(copy)
    assert content(copy) == content(work.node.store)
    assert work.node.log.events("error") == []
    assert work.node.server.statistics.unexpected_errors == 0
    if policy.startswith("allkeys"):
        assert work.node.server.statistics.evicted_keys


def test_every_command_that_writes_is_part_of_the_work() -> None:
    drawn = {template[0].lower() for template in TEMPLATES}
    writing = {command.name for command in TABLE if command.writes and command.on_store}
    # A node has one database.
    assert writing - drawn - {"move", "swapdb"} == set()
