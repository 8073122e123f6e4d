"""Keys: existence, deletion, types, renaming, copying, patterns, OBJECT."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== del unlink exists touch
MSET a 1 b 2 c 3
EXISTS a
EXISTS a b missing
EXISTS a a a
TOUCH a
TOUCH a a missing b
DEL missing
DEL a
DEL a a b
DEL c missing c
MSET a 1 b 2
UNLINK a missing
UNLINK b b
DBSIZE
DEL
UNLINK
EXISTS
TOUCH
RPUSH l a
HSET h f v
SADD s a
ZADD z 1 a
DEL l h s z nothing

== type
SET str v
RPUSH list a
HSET hash f v
SADD set a
ZADD zset 1 a
TYPE str
TYPE list
TYPE hash
TYPE set
TYPE zset
TYPE missing
TYPE
TYPE a b

== rename
RENAME missing other
RENAME missing missing
SET a 1
RENAME a b
GET b
EXISTS a
RENAME b b
GET b
SET c 3
RENAME b c
GET c
DBSIZE
SET d v EX 100
RENAME d e
TTL e
SET f v
RENAME e f
TTL f
SET g v
RENAME g f
TTL f
RPUSH l x
RENAME l f
TYPE f
LRANGE f 0 -1
RENAME a
RENAME
RENAME a b c

== renamenx
RENAMENX missing other
SET a 1
SET b 2
RENAMENX a b
GET b
RENAMENX a c
GET c
RENAMENX c c
GET c
RENAMENX missing missing
EXPIRE c 100
RENAMENX c d
TTL d
RENAMENX a
RENAMENX a b c

== copy
COPY missing a
SET a 1
COPY a b
GET b
COPY a b
SET a 2
COPY a b REPLACE
GET b
COPY a a
COPY a a REPLACE
COPY missing missing
EXPIREAT a 33177117420
COPY a c
EXPIRETIME c
COPY a b REPLACE
EXPIRETIME b
PERSIST a
COPY a b replace
TTL b
RPUSH l x y
COPY l m
LRANGE m 0 -1
RPUSH m z
LRANGE l 0 -1
HSET h f v g w
COPY h i
HSET i f changed
HGET h f
HGETALL i
SADD s a b c
COPY s t
SREM t a
SMEMBERS s
SMEMBERS t
ZADD z 1 a 2 b
COPY z y
ZINCRBY y 5 a
ZRANGE z 0 -1 WITHSCORES
ZRANGE y 0 -1 WITHSCORES
COPY l b REPLACE
TYPE b
COPY a d REPLACE REPLACE
COPY a e foo
COPY a e DB 0
GET e
COPY a a DB 0
COPY a e DB 0 REPLACE
COPY a
COPY
COPY a f DB
COPY a f DB abc
COPY a f DB -1
COPY a f DB 10000000

== keys
MSET one 1 two 2 three 3 four 4 [x] 5 "a*b" 6 "a\\b" 7 "" 8 hello 9 hallo 10 hllo 11 heeello 12
KEYS *
KEYS t*
KEYS *o*
KEYS ????
KEYS h?llo
KEYS h*llo
KEYS h[ae]llo
KEYS h[^e]llo
KEYS h[a-b]llo
KEYS h[b-a]llo
KEYS h[z-a]llo
KEYS "\\[x\\]"
KEYS "[[]x]"
KEYS "a\\*b"
KEYS "a\\\\b"
KEYS "[a"
KEYS "h[ae"
KEYS "h[a-"
KEYS "h[^"
KEYS "h\\"
KEYS ""
KEYS **
KEYS *?*
KEYS ONE
KEYS one
KEYS [^o]*
KEYS "[]]x"
KEYS "[\\o-t]*"
KEYS *ll*o
KEYS nothing
KEYS
KEYS a b
KEYS "\x00*"

== keys binary
MSET "\x00\x01" a "\xff\xfe" b "a\nb" c
KEYS *
KEYS "\xff*"
KEYS "a?b"
KEYS "[\xf0-\xff]*"
KEYS "\x00*"

== randomkey dbsize
RANDOMKEY
DBSIZE
SET k v
RANDOMKEY #~ exact
DBSIZE
RANDOMKEY a
DBSIZE a
FLUSHDB
DBSIZE
RANDOMKEY

== flush
SET a 1
FLUSHALL
DBSIZE
SET a 1
FLUSHDB
DBSIZE
SET a 1
FLUSHALL SYNC
FLUSHALL ASYNC
FLUSHDB async
FLUSHDB sync
FLUSHALL foo
FLUSHALL SYNC ASYNC
FLUSHDB ""
DBSIZE
SET a 1
FLUSHDB bad
DBSIZE

== object
SET s v
SET n 1
RPUSH l a
HSET h f v
SADD ints 1 2 3
SADD words a b
ZADD z 1 a
OBJECT ENCODING s
OBJECT ENCODING n
OBJECT ENCODING l
OBJECT ENCODING h
OBJECT ENCODING ints
OBJECT ENCODING words
OBJECT ENCODING z
OBJECT ENCODING missing
OBJECT REFCOUNT s
OBJECT REFCOUNT l
OBJECT REFCOUNT missing
OBJECT IDLETIME s
OBJECT IDLETIME missing
OBJECT FREQ s
OBJECT FREQ missing
OBJECT HELP
OBJECT
OBJECT foo
OBJECT foo bar
OBJECT ENCODING
OBJECT ENCODING a b
OBJECT REFCOUNT
OBJECT FREQ
OBJECT IDLETIME a b
OBJECT HELP a
object encoding s

== encodings that grow
SADD s 1 2 3
OBJECT ENCODING s
SADD s a
OBJECT ENCODING s
SREM s a
OBJECT ENCODING s #~ kind
SADD i 9223372036854775807 -9223372036854775808
OBJECT ENCODING i
SADD i 9223372036854775808
OBJECT ENCODING i
SADD i 01
HSET h f {rep:x:64}
OBJECT ENCODING h
HSET h f {rep:x:65}
OBJECT ENCODING h
HSET h f v
OBJECT ENCODING h #~ kind
ZADD z 1 {rep:x:64}
OBJECT ENCODING z
ZADD z 1 {rep:x:65}
OBJECT ENCODING z
SADD t {rep:x:64}
OBJECT ENCODING t
SADD t {rep:x:65}
OBJECT ENCODING t
RPUSH l {rep:x:8000}
OBJECT ENCODING l
RPUSH l {rep:x:8000}
OBJECT ENCODING l
LPOP l
OBJECT ENCODING l #~ kind

== memory usage
MEMORY USAGE missing
SET k v
MEMORY USAGE k
MEMORY USAGE k SAMPLES 0
MEMORY USAGE k SAMPLES 5
MEMORY USAGE k SAMPLES -1
MEMORY USAGE k SAMPLES abc
MEMORY USAGE k SAMPLES
MEMORY USAGE k foo
MEMORY USAGE
MEMORY USAGE k foo 1
MEMORY USAGE k samples 1
MEMORY
MEMORY foo
MEMORY USAGE missing SAMPLES abc
HSET h f v
MEMORY USAGE h

== move and swapdb
SET k v
MOVE k
MOVE k abc
MOVE k -1
MOVE k 10000
MOVE k 0
MOVE missing 0
SWAPDB 0
SWAPDB a b
SWAPDB 0 a
SWAPDB 0 -1
SWAPDB 0 10000

== wait
WAIT
WAIT 0
WAIT 0 0
WAIT 0 100
WAIT abc 0
WAIT 0 abc
WAIT 1 -1
WAIT 0 0 0
WAITAOF 0 0 0
WAITAOF 1 0 0
WAITAOF 2 0 0
WAITAOF -1 0 0
WAITAOF a 0 0
WAITAOF 0 -1 0
WAITAOF 0 0

== dump and restore
SET k v
RESTORE
RESTORE a
RESTORE a 0
RESTORE a 0 junk
RESTORE k 0 junk
RESTORE a -1 junk
RESTORE a abc junk
RESTORE a 0 junk foo
RESTORE a 0 junk REPLACE IDLETIME
RESTORE a 0 junk IDLETIME -1
RESTORE a 0 junk FREQ 256
RESTORE a 0 ""
DUMP missing
DUMP
DUMP a b
EXISTS a

== big keyspace
DEBUG POPULATE 1000
DBSIZE
GET key:0
GET key:999
DEBUG POPULATE 10 pre 20
STRLEN pre:0
GET pre:3
DEBUG POPULATE 5 pre 3
GET pre:3
KEYS key:99*
UNLINK key:1 key:2
DBSIZE
"""


@sequences.parametrize(SEQUENCES)
def test_keys(pair: Pair, mode: tuple[int, bool], sequence: Sequence_) -> None:
    runner.run(pair, sequence, *mode)
