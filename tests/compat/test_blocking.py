"""Commands that wait: BLPOP, BRPOP, BLMOVE, BRPOPLPUSH, BLMPOP, BZPOPMIN, BZPOPMAX, BZMPOP, and who is served when."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== blpop with elements there
RPUSH l a b c
BLPOP l 0
BRPOP l 0
BLPOP missing l 1
EXISTS l
RPUSH x 1
RPUSH y 2
BLPOP y x 0
BRPOP missing x y 0

== timeouts that pass at once
BLPOP l 0.001
BRPOP l m 0.001
BLMOVE l m LEFT LEFT 0.001
BRPOPLPUSH l m 0.001
BLMPOP 0.001 2 l m LEFT
BZPOPMIN z 0.001
BZPOPMAX z y 0.001
BZMPOP 0.001 1 z MIN
EXISTS l m z

== bad timeouts
BLPOP l -1
BLPOP l abc
BLPOP l ""
BLPOP l nan
BLPOP l inf
BLPOP l -inf
BLPOP l 1e300
BLPOP l 9223372036854775807
BLPOP l 9223372036854775
BLPOP l 1e-5
BLPOP l " 1"
BRPOP l -1
BRPOP l abc
BLMOVE l m LEFT LEFT -1
BLMOVE l m LEFT LEFT abc
BLMOVE l m UP LEFT 0
BLMOVE l m UP LEFT abc
BRPOPLPUSH l m -1
BRPOPLPUSH l m abc
BLMPOP -1 1 l LEFT
BLMPOP abc 1 l LEFT
BLMPOP abc 0 l UP
BZPOPMIN z -1
BZPOPMIN z abc
BZPOPMAX z -1
BZPOPMAX z abc
BZMPOP -1 1 z MIN
BZMPOP abc 1 z MIN

== a negative timeout that rounds to none
2! BLPOP l -0.0001
RPUSH l a
2<

== arity and syntax
BLPOP
BLPOP l
BRPOP
BRPOP l
BLMOVE l m LEFT LEFT
BLMOVE l m LEFT LEFT 0 x
BRPOPLPUSH l m
BRPOPLPUSH l m 0 x
BLMPOP
BLMPOP 0 1 l
BLMPOP 0 0 l LEFT
BLMPOP 0 2 l LEFT
BLMPOP 0 1 l UP
BLMPOP 0 1 l LEFT COUNT
BLMPOP 0 1 l LEFT COUNT 0
BLMPOP 0 1 l LEFT COUNT 1 COUNT 1
BLMPOP 0 1 l LEFT foo 1
BLMPOP 0 abc l LEFT
BLMPOP 0 -1 l LEFT
BZPOPMIN
BZPOPMIN z
BZPOPMAX z
BZMPOP 0 1 z
BZMPOP 0 0 z MIN
BZMPOP 0 1 z MEAN
BZMPOP 0 1 z MIN COUNT 0
BZMPOP 0 1 z MIN COUNT
BZMPOP 0 2 z MIN

== wrong type
SET str v
BLPOP str 0
BRPOP missing str 0
BLPOP str missing 0
BLMOVE str l LEFT LEFT 0
BRPOPLPUSH str l 0
BLMPOP 0 2 missing str LEFT
BZPOPMIN str 0
BZPOPMAX missing str 0
BZMPOP 0 1 str MIN
RPUSH l a
BLMOVE l str LEFT LEFT 0
BRPOPLPUSH l str 0
BZPOPMIN l 0
BLPOP l str 0
ZADD z 1 a
BLPOP z 0

== blpop waits
2! BLPOP l 0
RPUSH l a
2<
EXISTS l
2! BRPOP l 0
RPUSH l a b c
2<
LRANGE l 0 -1

== blpop on several keys
2! BLPOP a b c 0
RPUSH c x
2<
2! BLPOP a b a 0
RPUSH a 1 2
2<
LRANGE a 0 -1

== first come first served
2! BLPOP l 0
3! BLPOP l 0
4! BRPOP l 0
RPUSH l a b
2<
3<
RPUSH l c
4<
EXISTS l

== several clients on one push
2! BLPOP l 0
3! BRPOP l 0
4! BLPOP l 0
RPUSH l a b c d
2<
3<
4<
LRANGE l 0 -1

== push of several by lpush
2! BLPOP l 0
LPUSH l a b c
2<
LRANGE l 0 -1

== client's argument order decides after exec
2! BLPOP a b 0
MULTI
RPUSH b 1
RPUSH a 2
EXEC
2<
LRANGE a 0 -1
LRANGE b 0 -1

== exec that pushes and deletes serves nobody
2! BLPOP l 0
MULTI
RPUSH l a
DEL l
EXEC
RPUSH l b
2<

== exec pushes and pops
2! BLPOP l 0
MULTI
RPUSH l a b
LPOP l
LRANGE l 0 -1
EXEC
2<
EXISTS l

== blocking inside multi does not block
MULTI
BLPOP l 0
BRPOP l 0
BLMOVE l m LEFT LEFT 0
BRPOPLPUSH l m 0
BLMPOP 0 1 l LEFT
BZPOPMIN z 0
BZMPOP 0 1 z MIN
EXEC
RPUSH l a
MULTI
BLPOP l 0
BLPOP l 0
EXEC

== blmove waits
2! BLMOVE src dst LEFT RIGHT 0
RPUSH src a b
2<
LRANGE src 0 -1
LRANGE dst 0 -1
2! BRPOPLPUSH empty dst 0
RPUSH empty x
2<
LRANGE dst 0 -1
EXISTS empty

== blmove onto itself
2! BLMOVE l l LEFT RIGHT 0
RPUSH l a b
2<
LRANGE l 0 -1

== blmove feeds another waiter
2! BLPOP dst 0
3! BLMOVE src dst LEFT LEFT 0
RPUSH src x
3<
2<
EXISTS src dst

== blmove chain of three
2! BLMOVE a b LEFT LEFT 0
3! BLMOVE b c LEFT LEFT 0
4! BLPOP c 0
RPUSH a x
2<
3<
4<
DBSIZE

== blmove circle
2! BLMOVE a b LEFT LEFT 0
3! BLMOVE b a LEFT LEFT 0
RPUSH a x
2<
3<
LRANGE a 0 -1
LRANGE b 0 -1

== blmove to the wrong type
SET dst v
2! BLMOVE src dst LEFT LEFT 0
3! BLPOP src 0
RPUSH src x
2<
3<
EXISTS src

== wrong type appears while waiting
2! BLPOP l 0
SET l v
GET l
DEL l
RPUSH l a
2<

== blmpop waits
2! BLMPOP 0 2 a b LEFT COUNT 2
RPUSH b 1 2 3
2<
LRANGE b 0 -1
3! BLMPOP 0 1 c RIGHT COUNT 10
RPUSH c 1 2 3
3<
EXISTS c
4! BLMPOP 0 1 d LEFT
LPUSH d 1 2 3
4<

== bzpop waits
2! BZPOPMIN z 0
ZADD z 2 b 1 a
2<
3! BZPOPMAX missing y 0
ZADD y 2 b 1 a
3<
ZRANGE z 0 -1 WITHSCORES
ZRANGE y 0 -1 WITHSCORES
4! BZPOPMIN w 0
ZINCRBY w 1.5 m
4<
EXISTS w

== bzpop with members there
ZADD z 1 a 2 b 3 c 4 d
BZPOPMIN z 0
BZPOPMAX z 0
BZMPOP 0 1 z MIN
BZMPOP 0 2 missing z MAX COUNT 5
EXISTS z

== bzmpop waits
2! BZMPOP 0 2 a b MIN COUNT 2
ZADD b 3 c 1 a 2 b
2<
ZRANGE b 0 -1
3! BZMPOP 0 1 c MAX
ZADD c 1 a 2 b
3<

== bzpop served by a store
ZADD src 1 a 2 b
2! BZPOPMIN dst 0
ZUNIONSTORE dst 1 src
2<
3! BZPOPMAX other 0
ZRANGESTORE other src 0 -1
3<
4! BZPOPMIN third 0
SADD set x
ZINTERSTORE third 1 set
4<
EXISTS third

== blpop served by lmove rpoplpush sort rename copy
RPUSH src 2 1 3
2! BLPOP dst 0
LMOVE src dst LEFT RIGHT
2<
3! BLPOP dst 0
RPOPLPUSH src dst
3<
4! BLPOP dst 0
RPUSH nums 3 1 2
SORT nums STORE dst
4<
5! BLPOP ren 0
RENAME nums ren
5<
LRANGE ren 0 -1
6! BLPOP cop 0
COPY ren cop
6<
LRANGE cop 0 -1
7! BLPOP rnx 0
RENAMENX cop rnx
7<

== blpop served by linsert is not possible
2! BLPOP l 0
LPUSHX l a
RPUSHX l a
LINSERT l BEFORE a b
RPUSH l z
2<

== mixed types wait on one key
2! BLPOP k 0
3! BZPOPMIN k 0
ZADD k 1 a
3<
RPUSH k x
2<
EXISTS k

== client that leaves steals nothing
2! BLPOP l 0
3! BLPOP l 0
2x
RPUSH l a
3<
EXISTS l

== client that leaves keeps its element
2! BLPOP l 0
2x
RPUSH l a
LRANGE l 0 -1

== unblock
2! BLPOP l 0
CLIENT UNBLOCK {id:2}
2<
2! BLPOP l 0
CLIENT UNBLOCK {id:2} ERROR
2<
2! BLMOVE l m LEFT LEFT 0
CLIENT UNBLOCK {id:2} TIMEOUT
2<
2! BZPOPMIN z 0
CLIENT UNBLOCK {id:2} timeout
2<
2! BLMPOP 0 1 l LEFT
CLIENT UNBLOCK {id:2} error
2<
2! BRPOPLPUSH l m 0
CLIENT UNBLOCK {id:2}
2<
CLIENT UNBLOCK {id:2}
CLIENT UNBLOCK 999999999
CLIENT UNBLOCK abc
CLIENT UNBLOCK
CLIENT UNBLOCK {id:2} foo
CLIENT UNBLOCK {id:2} ERROR x
RPUSH l a
LRANGE l 0 -1

== kill a waiting client
2! BLPOP l 0
CLIENT KILL ID {id:2}
2<
RPUSH l a
LRANGE l 0 -1

== commands queued behind a wait
2! BLPOP l 0
2_ CLIENT SETNAME after
2_ CLIENT GETNAME
RPUSH l a
2< 3

== waiting again after service
2! BLPOP l 0
RPUSH l a
2<
2! BLPOP l 0
RPUSH l b
2<

== expired key serves nobody
2! BLPOP l 0
MULTI
RPUSH l a
PEXPIREAT l 1
EXEC
RPUSH l b
2<

== flush while waiting
2! BLPOP l 0
FLUSHALL
RPUSH l a
2<

== wait answers at once
WAIT 0 10
2! BLPOP l 0
RPUSH l 1
2<

== order of two waiters on two keys after exec
2! BLPOP a 0
3! BLPOP b 0
MULTI
RPUSH b 1
RPUSH a 2
EXEC
2<
3<

== resp3 null and shapes
BLPOP nothing 0.001
BLMPOP 0.001 1 nothing LEFT
BZMPOP 0.001 1 nothing MIN
BLMOVE nothing other LEFT LEFT 0.001
"""


@sequences.parametrize(SEQUENCES)
def test_blocking(pair: Pair, mode: tuple[int, bool], sequence: Sequence_) -> None:
    runner.run(pair, sequence, *mode)
