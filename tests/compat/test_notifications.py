"""Keyspace notifications: the flags, and the classes that the event mode of the other tests leaves out."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== flags as set and shown
CONFIG SET notify-keyspace-events KEA
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events ""
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events Kg
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events KEg$lshzxetd
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events AKE
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events KEmn
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events KEAm
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events KEAn
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events xg$
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events KEQ
CONFIG SET notify-keyspace-events " "
CONFIG GET notify-keyspace-events
CONFIG SET notify-keyspace-events KKEEgg
CONFIG GET notify-keyspace-events

== keyspace only
CONFIG SET notify-keyspace-events KA
2: PSUBSCRIBE *
SET k v
2<
DEL k
2<

== keyevent only
CONFIG SET notify-keyspace-events EA
2: PSUBSCRIBE *
SET k v
2<
DEL k
2<

== no direction means nothing
CONFIG SET notify-keyspace-events A
2: PSUBSCRIBE *
SET k v
DEL k

== one class only
CONFIG SET notify-keyspace-events KE$
2: PSUBSCRIBE *
SET k v
2< 2
RPUSH l a
DEL k l
CONFIG SET notify-keyspace-events KEl
SET k v
RPUSH l a
2< 2
CONFIG SET notify-keyspace-events KEs
SADD s a
2< 2
CONFIG SET notify-keyspace-events KEh
HSET h f v
2< 2
CONFIG SET notify-keyspace-events KEz
ZADD z 1 a
2< 2
CONFIG SET notify-keyspace-events KEg
DEL z
2< 2
EXPIRE k 100
2< 2
SET k v EX 100
2< 2
ZADD z 1 a
ZREM z a
2< 2

== key misses
CONFIG SET notify-keyspace-events KEm
2: PSUBSCRIBE *
GET missing
2< 2
MGET a b
2< 4
EXISTS missing
TYPE missing
TTL missing
STRLEN missing
HGET missing f
LRANGE missing 0 -1
SMEMBERS missing
ZSCORE missing a
SISMEMBER missing a
OBJECT ENCODING missing
TOUCH missing
GETEX missing
GETDEL missing
BITCOUNT missing
SINTER missing other
SORT missing
LPOP missing
SCARD missing
GETRANGE missing 0 1
SETRANGE missing 0 ""
INCR missing
EXPIRE nope 100
PERSIST nope
RENAME nope a
COPY nope a
MEMORY USAGE nope
LPOS nope a
ZRANGE nope 0 -1
SETNX new v
SET new2 v GET
HRANDFIELD nope
SRANDMEMBER nope
ZRANDMEMBER nope
SPOP nope
ZPOPMIN nope
LMPOP 1 nope LEFT
BITPOS nope 1
GETBIT nope 1
LCS nope nope2
EXPIRETIME nope
HTTL nope FIELDS 1 a
HEXPIRE nope 10 FIELDS 1 a
HGETDEL nope FIELDS 1 a
HGETEX nope FIELDS 1 a

== new keys
CONFIG SET notify-keyspace-events KEn
2: PSUBSCRIBE *
SET k v
2< 2
SET k w
RPUSH l a
2< 2
RPUSH l b
HSET h f v
2< 2
SADD s a
2< 2
ZADD z 1 a
2< 2
RENAME k k2
COPY k2 k3
INCR n
MSET a 1 b 2
SETRANGE r 0 x
SETBIT b2 0 1
APPEND ap x
LMOVE l l2 LEFT LEFT
SUNIONSTORE s2 s
ZUNIONSTORE z2 1 z
SORT l STORE so
BITOP NOT bo ap
GETSET gs v
SETEX se 100 v
MSETNX mn 1 mo 2
BITFIELD bf SET u8 0 1
ZRANGESTORE zr z 0 -1
HSETEX hx FIELDS 1 a 1
SMOVE s s3 a
INCRBYFLOAT fl 1

== both with all
CONFIG SET notify-keyspace-events KEAmn
2: PSUBSCRIBE *
SET k v
2< 4
GET k
DEL k
2< 2
GET k
2< 2

== expired
CONFIG SET notify-keyspace-events KEx
2: PSUBSCRIBE *
SET k v
EXPIRE k -1
MSETEX 1 k v PXAT 1
GET k
2< 2

== expired in the background
CONFIG SET notify-keyspace-events KEx
2: PSUBSCRIBE *
DEBUG SET-ACTIVE-EXPIRE 1
SET k v PX 1
2< 2
DEBUG SET-ACTIVE-EXPIRE 0

== order of the two channels and the reply to oneself
CONFIG SET notify-keyspace-events KEA
2: SUBSCRIBE __keyevent@0__:set __keyspace@0__:k
2<
SET k v
2< 2
"""


@sequences.parametrize(SEQUENCES)
def test_notifications(pair: Pair, protocol: int, sequence: Sequence_) -> None:
    runner.run(pair, sequence, protocol)
