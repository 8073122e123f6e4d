"""MULTI, EXEC, DISCARD, WATCH: queueing, errors in between, and every kind of change that aborts."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== multi exec
MULTI
SET a 1
INCR a
GET a
LPUSH l x y
LRANGE l 0 -1
HSET h f v
HGETALL h
SMEMBERS missing
ZADD z 1.5 m
ZSCORE z m
EXEC
GET a

== empty
MULTI
EXEC
EXEC
DISCARD
MULTI
DISCARD
EXEC

== discard
SET a 1
MULTI
SET a 2
DISCARD
GET a

== error while executing leaves the rest
MULTI
SET a v
INCR a
LPUSH a x
SET b w
EXEC
MGET a b

== error while queueing aborts
MULTI
SET a 1
FOO
SET b 2
EXEC
MGET a b
MULTI
SET a
EXEC
MULTI
GET
DISCARD
MULTI
SET a 1
EXEC

== unknown command texts while queueing
MULTI
foo a b c
GET a b
EXEC

== nested
MULTI
MULTI
SET a 1
EXEC
GET a
MULTI
WATCH a
EXEC
MULTI
UNWATCH
EXEC
EXEC
MULTI
EXEC x
DISCARD x
MULTI x
EXEC

== arity
MULTI x
EXEC x
DISCARD x
WATCH
UNWATCH x
WATCH a b a

== watch unchanged
SET k 1
WATCH k
MULTI
SET k 2
EXEC
GET k
WATCH k missing
GET k
MULTI
PING
EXEC

== watch changed
SET k 1
WATCH k
2: SET k 2
MULTI
SET k 3
EXEC
GET k
MULTI
PING
EXEC

== watch set to the same value
SET k 1
WATCH k
2: SET k 1
MULTI
PING
EXEC

== watch changed by itself
SET k 1
WATCH k
SET k 2
MULTI
PING
EXEC

== watch missing key
WATCH k
2: SET k v
MULTI
PING
EXEC
DEL k
WATCH k
2: DEL k
MULTI
PING
EXEC
WATCH k
2: SET k v
2: DEL k
MULTI
PING
EXEC

== watch and no change
SADD s a
SET k v
RPUSH l a
HSET h f v
ZADD z 1 a
WATCH s k l h z
2: SADD s a
2: SREM s b
2: SETNX k x
2: DEL missing
2: PERSIST k
2: LPUSHX missing a
2: HDEL h missing
2: HSETNX h f x
2: ZADD z 1 a
2: ZADD z NX 5 a
2: ZREM z missing
2: LREM l 0 missing
2: LTRIM l 0 -1
2: GETEX k
2: EXPIRE k 100 XX
2: SET k x NX
2: APPEND missing ""
2: SETRANGE k 0 ""
2: SINTERSTORE missing2 s missing
MULTI
PING
EXEC

== watch hset of an equal value
HSET h f v
WATCH h
2: HSET h f v
MULTI
PING
EXEC

== watch ltrim that trims nothing
RPUSH l a
WATCH l
2: LTRIM l 0 -1
MULTI
PING
EXEC

== watch append of nothing
SET k v
WATCH k
2: APPEND k ""
MULTI
PING
EXEC

== watch expire
SET k v
WATCH k
2: EXPIRE k 100
MULTI
PING
EXEC
WATCH k
2: PERSIST k
MULTI
PING
EXEC
WATCH k
2: PEXPIREAT k 1
MULTI
PING
EXEC

== watch equal deadline
SET k v PXAT 33177117420123
WATCH k
2: PEXPIREAT k 33177117420123
MULTI
PING
EXEC

== watch rename and copy
SET a 1
SET b 2
WATCH b
2: RENAME a b
MULTI
PING
EXEC
SET a 1
WATCH a
2: RENAME a c
MULTI
PING
EXEC
WATCH d
2: COPY c d
MULTI
PING
EXEC

== watch flush
SET k v
WATCH k
2: FLUSHALL
MULTI
PING
EXEC
WATCH missing
2: FLUSHALL
MULTI
PING
EXEC
SET k v
WATCH k
2: FLUSHDB
MULTI
PING
EXEC
WATCH missing
2: FLUSHDB
MULTI
PING
EXEC

== watch lmove rotate of one
RPUSH l a
WATCH l
2: LMOVE l l LEFT RIGHT
MULTI
PING
EXEC

== watch set operations that store the same
SADD s a
WATCH s
2: SUNIONSTORE s s
MULTI
PING
EXEC

== watch sort store
RPUSH l 1 2
WATCH d
2: SORT l STORE d
MULTI
PING
EXEC

== watch hash field expiry
HSET h f v g w
WATCH h
2: HEXPIREAT h 33177117420 FIELDS 1 f
MULTI
PING
EXEC
WATCH h
2: HPERSIST h FIELDS 1 g
MULTI
PING
EXEC
WATCH h
2: HPERSIST h FIELDS 1 f
MULTI
PING
EXEC
WATCH h
2: HGETEX h FIELDS 1 f
MULTI
PING
EXEC
WATCH h
2: HGETDEL h FIELDS 1 missing
MULTI
PING
EXEC
WATCH h
2: HGETDEL h FIELDS 1 f
MULTI
PING
EXEC

== unwatch
SET k 1
WATCH k
2: SET k 2
UNWATCH
MULTI
PING
EXEC
WATCH k
2: SET k 3
MULTI
DISCARD
MULTI
PING
EXEC

== watch survives a failed exec not
WATCH k
MULTI
FOO
EXEC
2: SET k v
MULTI
PING
EXEC

== watch and exec of another
WATCH k
2: MULTI
2: SET k v
2: DISCARD
MULTI
PING
EXEC
WATCH k
2: MULTI
2: SET k v
2: EXEC
MULTI
PING
EXEC

== watch two keys one changes
WATCH a b
2: SET b 1
MULTI
PING
EXEC

== watch with arguments twice
WATCH a
WATCH b
2: SET a 1
MULTI
PING
EXEC

== commands not allowed or special in multi
MULTI
SUBSCRIBE ch
PUBLISH ch m
PING
PING x
ECHO y
SELECT 0
CLIENT ID
CLIENT GETNAME
CONFIG GET maxmemory
DBSIZE
TYPE a
EXEC
1<
UNSUBSCRIBE

== reset inside multi
MULTI
SET a 1
RESET
EXEC
GET a

== quit inside multi
MULTI
SET a 1
QUIT
1<

== hello inside multi
MULTI
HELLO 3
PING
EXEC

== flush in multi
SET a 1
MULTI
FLUSHALL
SET b 1
DBSIZE
EXEC
DBSIZE

== exec order of many
MULTI
RPUSH l 1
RPUSH l 2
RPUSH l 3
LMOVE l m LEFT RIGHT
SORT l DESC
LPOS l 3
LMPOP 2 nothing l LEFT COUNT 5
EXISTS l
EXEC

== types in exec
MULTI
GET missing
LPOP missing
LPOP missing 2
BLPOP missing 0
ZSCORE missing a
ZRANK missing a WITHSCORE
HGETALL missing
SMEMBERS missing
SMISMEMBER missing a
CONFIG GET nothing-at-all
OBJECT ENCODING missing
ZADD z INCR 1 a
ZRANGE z 0 -1 WITHSCORES
HRANDFIELD missing 1 WITHVALUES
EXEC

== expired in multi
SET k v
MULTI
PEXPIREAT k 1
GET k
EXEC

== large
MULTI
SET k {rep:x:1048576}
STRLEN k
GET k
EXEC
"""


@sequences.parametrize(SEQUENCES)
def test_transactions(pair: Pair, mode: tuple[int, bool], sequence: Sequence_) -> None:
    runner.run(pair, sequence, *mode)
