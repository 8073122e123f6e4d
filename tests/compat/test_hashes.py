"""Hashes without field expiry: fields, counters, random fields."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== hset hget
HSET h f v
HSET h f w g x
HGET h f
HGET h g
HGET h missing
HGET missing f
HSET h f w
HSET h a 1 a 2
HGET h a
HSET h "" empty "\x00" bin "\xff\r\n" ""
HGET h ""
HGET h "\x00"
HGET h "\xff\r\n"
HLEN h
HSET
HSET h
HSET h f
HSET h f v g
HGET
HGET h
HGET h a b
HSET h n 12345
HGET h n
TYPE h

== hmset hmget
HMSET h f v g w
HMGET h f g missing f
HMGET missing f g
HMSET h f
HMSET h
HMSET h f v g
HMGET h
HMGET
HMSET h f x f y
HGET h f

== hsetnx
HSETNX h f v
HSETNX h f w
HGET h f
HSETNX h g w
HSETNX h
HSETNX h f
HSETNX h f v x

== hdel
HSET h a 1 b 2 c 3
HDEL h a
HDEL h a missing b b
HLEN h
HDEL h c
EXISTS h
HDEL missing f
HDEL h
HDEL
HSET h a 1
EXPIRE h 100
HSET h b 1
TTL h
HDEL h a b
HSET h a 1
TTL h

== hexists hstrlen hlen
HSET h f value n 100 e ""
HEXISTS h f
HEXISTS h missing
HEXISTS missing f
HSTRLEN h f
HSTRLEN h n
HSTRLEN h e
HSTRLEN h missing
HSTRLEN missing f
HLEN h
HLEN missing
HEXISTS h
HEXISTS h a b
HSTRLEN h
HSTRLEN h a b
HLEN
HLEN a b

== hgetall hkeys hvals
HSET h a 1 b 2 c 3
HGETALL h
HKEYS h
HVALS h
HGETALL missing
HKEYS missing
HVALS missing
HGETALL
HGETALL a b
HKEYS
HKEYS a b
HVALS
HVALS a b
HSET h "" ""
HGETALL h

== order of small hashes
HSET h c 1 a 2 b 3
HGETALL h #~ exact
HKEYS h #~ exact
HSET h a changed
HVALS h #~ exact
HDEL h c
HSET h c again
HKEYS h #~ exact

== hincrby
HINCRBY h f 1
HINCRBY h f 10
HINCRBY h f -20
HGET h f
HSET h f 9223372036854775807
HINCRBY h f 1
HINCRBY h f -1
HSET h f -9223372036854775808
HINCRBY h f -1
HSET h s abc
HINCRBY h s 1
HSET h s 1.5
HINCRBY h s 1
HSET h s " 1"
HINCRBY h s 1
HSET h s ""
HINCRBY h s 1
HSET h s 01
HINCRBY h s 1
HINCRBY h f abc
HINCRBY h f 1.5
HINCRBY h f ""
HINCRBY h f 9223372036854775808
HINCRBY missing f abc
EXISTS missing
HINCRBY h
HINCRBY h f
HINCRBY h f 1 2
HINCRBY h new 0
HGET h new

== hincrbyfloat
HINCRBYFLOAT h f 1.5
HINCRBYFLOAT h f 0.1
HINCRBYFLOAT h f -1.6
HINCRBYFLOAT h f 1e3
HINCRBYFLOAT h f 1e17
HGET h f
HSET h f 3.0e3
HINCRBYFLOAT h f 1.5
HSET h f 0.1
HINCRBYFLOAT h f 0.2
HSET h f 1
HINCRBYFLOAT h f 1e30
HSET h f abc
HINCRBYFLOAT h f 1
HSET h f " 1"
HINCRBYFLOAT h f 1
HSET h f "1 "
HINCRBYFLOAT h f 1
HSET h f ""
HINCRBYFLOAT h f 1
HSET h f 5
HINCRBYFLOAT h f abc
HINCRBYFLOAT h f ""
HINCRBYFLOAT h f inf
HINCRBYFLOAT h f -inf
HINCRBYFLOAT h f nan
HINCRBYFLOAT h f " 1"
HINCRBYFLOAT h f "1 "
HINCRBYFLOAT h f 0x1
HINCRBYFLOAT h f 1e5000
HINCRBYFLOAT missing f inf
EXISTS missing
HSET h i inf
HINCRBYFLOAT h i 1
HSET h x "5\x00"
HINCRBYFLOAT h x 1
HINCRBYFLOAT h f
HINCRBYFLOAT h f 1 2
HINCRBYFLOAT h new 0
HINCRBYFLOAT h neg -0
HGET h neg

== hrandfield
HRANDFIELD missing
HRANDFIELD missing 5
HRANDFIELD missing 5 WITHVALUES
HRANDFIELD missing -5 WITHVALUES
HSET h f v
HRANDFIELD h #~ exact
HRANDFIELD h 1 #~ exact
HRANDFIELD h 5 #~ exact
HRANDFIELD h -3 #~ exact
HRANDFIELD h 1 WITHVALUES #~ exact
HRANDFIELD h -2 WITHVALUES #~ exact
HRANDFIELD h 0
HRANDFIELD h 0 WITHVALUES
HSET h g w
HRANDFIELD h
HRANDFIELD h 1
HRANDFIELD h 2 #~ unordered
HRANDFIELD h 5 #~ unordered
HRANDFIELD h 5 WITHVALUES #~ pairs
HRANDFIELD h -5
HRANDFIELD h -5 WITHVALUES
HRANDFIELD h abc
HRANDFIELD h 1.5
HRANDFIELD h 1 foo
HRANDFIELD h 1 WITHVALUES foo
HRANDFIELD h WITHVALUES
HRANDFIELD
HRANDFIELD h 9223372036854775808
HRANDFIELD h -9223372036854775808
HRANDFIELD h -4611686018427387904 WITHVALUES
HRANDFIELD h -4611686018427387905 WITHVALUES
HRANDFIELD missing -9223372036854775808
HRANDFIELD missing abc
HRANDFIELD missing 1 foo
HRANDFIELD h 9223372036854775807 #~ unordered
HRANDFIELD h 1 withvalues

== wrong type
SET str v
HSET str f v
HSETNX str f v
HGET str f
HMGET str f
HMSET str f v
HDEL str f
HEXISTS str f
HLEN str
HSTRLEN str f
HGETALL str
HKEYS str
HVALS str
HINCRBY str f 1
HINCRBYFLOAT str f 1
HRANDFIELD str
HRANDFIELD str 1
HRANDFIELD str 1 WITHVALUES
HINCRBY str f abc
HINCRBYFLOAT str f abc
RPUSH l a
HGET l f
HSET l f v
TYPE l

== large
HSET h f {rep:x:1048576}
HSTRLEN h f
HGET h f
HSET h {rep:f:70000} v
HGET h {rep:f:70000}
HLEN h
HDEL h f {rep:f:70000}
EXISTS h
"""


@sequences.parametrize(SEQUENCES)
def test_hashes(pair: Pair, mode: tuple[int, bool], sequence: Sequence_) -> None:
    runner.run(pair, sequence, *mode)
