"""Sets: members, moves, random members, algebra."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== sadd srem
SADD s a
SADD s a b c
SADD s b
SCARD s
SADD s "" "\x00" "\xff\r\n"
SCARD s
SREM s a missing
SREM s a
SREM missing a
SREM s b b c
SMEMBERS s
SREM s "" "\x00" "\xff\r\n"
EXISTS s
SADD
SADD s
SREM
SREM s
SCARD
SCARD a b
SCARD missing
SADD n 1 2 3 01
SREM n 1 1.0
SMEMBERS n
SADD n a
SMEMBERS n
SADD k v
EXPIRE k 100
SREM k v
SADD k v
TTL k

== smembers sismember smismember
SADD s a b 1 2
SMEMBERS s
SMEMBERS missing
SISMEMBER s a
SISMEMBER s 1
SISMEMBER s missing
SISMEMBER missing a
SMISMEMBER s a missing 2 a
SMISMEMBER missing a b
SISMEMBER s
SISMEMBER s a b
SMISMEMBER s
SMISMEMBER
SMEMBERS
SMEMBERS a b

== order of integers
SADD s 3 1 2 -5 100
SMEMBERS s #~ exact

== smove
SADD a 1 2 3
SADD b 3 4
SMOVE a b 1
SMEMBERS a
SMEMBERS b
SMOVE a b 3
SMEMBERS a
SMOVE a b missing
SMOVE missing b x
SMOVE a new 2
EXISTS a
SMEMBERS new
SMOVE new new 2
SMOVE new new missing
SMOVE missing missing x
SET str v
SMOVE new str 2
SMOVE new str missing
SMOVE str new 2
SMOVE missing str 2
SMOVE str missing x
SMEMBERS new
SMOVE a b
SMOVE a b c d

== spop
SPOP missing
SPOP missing 5
SPOP missing 0
SADD s a
SPOP s #~ exact
EXISTS s
SADD s a b c
SPOP s 0
SPOP s 3 #~ unordered
EXISTS s
SADD s a b c
SPOP s 100 #~ unordered
EXISTS s
SADD s 1
SPOP s 1 #~ exact
SADD s a
SPOP s -1
SPOP s abc
SPOP s 1.5
SPOP s 1 2
SPOP s 9223372036854775808
SPOP
SPOP missing -1
SPOP missing abc
SPOP s 9223372036854775807 #~ exact

== srandmember
SRANDMEMBER missing
SRANDMEMBER missing 5
SRANDMEMBER missing -5
SADD s a
SRANDMEMBER s #~ exact
SRANDMEMBER s 1 #~ exact
SRANDMEMBER s 5 #~ exact
SRANDMEMBER s -3 #~ exact
SRANDMEMBER s 0
SADD s b c
SRANDMEMBER s
SRANDMEMBER s 2
SRANDMEMBER s -10
SRANDMEMBER s 3 #~ unordered
SRANDMEMBER s 10 #~ unordered
SRANDMEMBER s abc
SRANDMEMBER s 1.5
SRANDMEMBER s 1 2
SRANDMEMBER
SRANDMEMBER s 9223372036854775808
SRANDMEMBER s -9223372036854775808
SRANDMEMBER s 9223372036854775807 #~ unordered
SRANDMEMBER missing abc
SRANDMEMBER missing -9223372036854775808

== algebra
SADD a 1 2 3 4 5
SADD b 3 4 5 6
SADD c 5 6 7 x
SINTER a
SINTER a b
SINTER a b c
SINTER a missing
SINTER missing a
SINTER a a
SUNION a
SUNION a b c
SUNION a missing
SUNION missing other
SDIFF a
SDIFF a b
SDIFF a b c
SDIFF a missing
SDIFF missing a
SDIFF a a
SDIFF a b a
SINTER
SUNION
SDIFF

== algebra of words
SADD a foo bar baz "" "\x00"
SADD b bar baz qux ""
SINTER a b
SUNION a b
SDIFF a b
SDIFF b a

== sintercard
SADD a 1 2 3 4 5
SADD b 3 4 5 6
SINTERCARD 1 a
SINTERCARD 2 a b
SINTERCARD 2 a b LIMIT 2
SINTERCARD 2 a b LIMIT 0
SINTERCARD 2 a b LIMIT 100
SINTERCARD 2 a missing
SINTERCARD 2 a a
SINTERCARD 1 missing
SINTERCARD
SINTERCARD 1
SINTERCARD 0
SINTERCARD 0 a
SINTERCARD -1 a
SINTERCARD abc a
SINTERCARD 1.5 a
SINTERCARD 2 a
SINTERCARD 3 a b
SINTERCARD 1 a b
SINTERCARD 2 a b LIMIT
SINTERCARD 2 a b LIMIT -1
SINTERCARD 2 a b LIMIT abc
SINTERCARD 2 a b foo 1
SINTERCARD 2 a b limit 1
SINTERCARD 2 a b LIMIT 1 LIMIT 2
SINTERCARD 9223372036854775807 a
SINTERCARD 9223372036854775808 a
SET str v
SINTERCARD 2 a str
SINTERCARD 2 missing str
SINTERCARD 2 str LIMIT

== store
SADD a 1 2 3
SADD b 2 3 4
SINTERSTORE d a b
SMEMBERS d
SUNIONSTORE d a b
SMEMBERS d
SDIFFSTORE d a b
SMEMBERS d
TYPE d
SINTERSTORE d a missing
EXISTS d
SINTERSTORE d a missing
SDIFFSTORE d a a
SUNIONSTORE d missing other
EXISTS d
SUNIONSTORE a a b
SMEMBERS a
SINTERSTORE a a b
SMEMBERS a
SDIFFSTORE b b a
EXISTS b
SET str v
SUNIONSTORE str a
TYPE str
SET str v
SINTERSTORE str missing
EXISTS str
SET str v
SDIFFSTORE str missing
EXISTS str
SADD t x
EXPIRE t 100
SUNIONSTORE t a
TTL t
SINTERSTORE d
SUNIONSTORE d
SDIFFSTORE d
SINTERSTORE
SINTERSTORE d d
OBJECT ENCODING a

== wrong type
SET str v
SADD a 1
SADD str a
SREM str a
SCARD str
SMEMBERS str
SISMEMBER str a
SMISMEMBER str a b
SPOP str
SPOP str 1
SPOP str 0
SPOP str -1
SRANDMEMBER str
SRANDMEMBER str 1
SRANDMEMBER str abc
SINTER str
SINTER a str
SINTER missing str
SINTER str missing
SUNION a str
SUNION missing str
SDIFF a str
SDIFF missing str
SDIFF str a
SINTERSTORE d a str
SINTERSTORE d missing str
SUNIONSTORE d a str
SDIFFSTORE d missing str
EXISTS d
ZADD z 1 a
SINTER a z
SUNION z

== large
SADD s {rep:x:1048576} {rep:y:70000}
SMEMBERS s
SISMEMBER s {rep:x:1048576}
SREM s {rep:x:1048576}
SCARD s
"""


@sequences.parametrize(SEQUENCES)
def test_sets(pair: Pair, mode: tuple[int, bool], sequence: Sequence_) -> None:
    runner.run(pair, sequence, *mode)
