"""SORT and SORT_RO with every option and on every type."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== numbers
RPUSH l 3 1 2 10 -5 1.5
SORT l
SORT l DESC
SORT l ASC
SORT l asc desc
SORT l ALPHA
SORT l ALPHA DESC
SORT l LIMIT 0 2
SORT l LIMIT 2 2
SORT l LIMIT 0 -1
SORT l LIMIT 0 0
SORT l LIMIT -1 2
SORT l LIMIT -5 -5
SORT l LIMIT 100 2
SORT l LIMIT 2 100
SORT l LIMIT 4 -1
SORT l DESC LIMIT 0 3
SORT_RO l
SORT_RO l DESC LIMIT 1 2
SORT missing
SORT_RO missing
SORT l LIMIT 0 9223372036854775807
SORT l LIMIT 9223372036854775807 9223372036854775807

== not numbers
RPUSH l b a c
SORT l
SORT l ALPHA
SORT l ALPHA DESC
SORT l alpha limit 1 1
RPUSH m 1 2 x
SORT m
SORT m LIMIT 0 0
SORT m DESC
RPUSH n 1 "" 2
SORT n
RPUSH o " 1" 2
SORT o
RPUSH p 1 nan
SORT p
RPUSH q 1 inf -inf 5e3 0x10
SORT q
RPUSH r "1 " 2
SORT r
DEL r
RPUSH r 1 "2\x00"
SORT r

== alpha with binary
RPUSH l "\xff" "\x00" a A B b aa "" "a\x00b" "a\x00a"
SORT l ALPHA
SORT l ALPHA DESC

== ties
RPUSH l 2 1 2 1 3 01 1.0
SORT l
SORT l DESC
SORT l ALPHA

== by
RPUSH l 1 2 3
MSET w_1 30 w_2 10 w_3 20
SORT l BY w_*
SORT l BY w_* DESC
SORT l BY w_* LIMIT 1 1
SORT l BY nosort
SORT l BY nosort DESC
SORT l BY nosort LIMIT 1 2
SORT l BY nosort DESC LIMIT 0 2
SORT l BY constant ALPHA
SORT l BY missing_*
SORT l BY missing_* DESC
DEL w_2
SORT l BY w_*
SORT l BY w_* ALPHA
SET w_2 abc
SORT l BY w_*
SORT l BY w_* ALPHA
SORT l BY w_* BY nosort
SORT l BY nosort BY w_*
SORT l BY
RPUSH w_1x a
SORT l BY w_*x
SORT l BY *
SORT l BY #
SORT l BY ""

== by with ties
RPUSH l c a b
MSET w_a 1 w_b 1 w_c 1
SORT l BY w_*
SORT l BY w_* DESC
SORT l BY w_* ALPHA
SORT l BY w_* ALPHA DESC

== by hash
RPUSH l 1 2 3
HSET h_1 f 30
HSET h_2 f 10
HSET h_3 f 20
SORT l BY h_*->f
SORT l BY h_*->missing
SORT l BY h_*->
SORT l BY h_*->f DESC GET h_*->f
SORT l BY *->f
SORT l BY h->f_*
SORT l BY h_*->f GET # GET h_*->f GET h_*->nope

== get
RPUSH l 1 2 3
MSET d_1 one d_2 two
SORT l GET d_*
SORT l GET #
SORT l GET # GET d_*
SORT l GET d_* GET # GET d_*
SORT l GET d_* LIMIT 0 2
SORT l GET constant
SORT l GET ""
SET constant v
SORT l GET constant
SORT l GET *
HSET h_1 f one
SORT l GET h_*->f
SORT l GET h_*
SORT l GET
SORT_RO l GET d_* GET #
SORT missing GET d_*
SORT l BY nosort GET d_*
SORT l GET d_*->x
SORT l GET #->x

== sets
SADD s 5 3 1 4 2
SORT s
SORT s DESC
SORT s LIMIT 1 2
SORT s BY nosort #~ unordered
SORT s ALPHA
SORT s BY nosort STORE d
LRANGE d 0 -1
SADD words b a c
SORT words
SORT words ALPHA

== sorted sets
ZADD z 3 1 2 2 1 3
SORT z
SORT z DESC
SORT z BY nosort
SORT z BY nosort DESC
SORT z BY nosort ASC
SORT z BY nosort LIMIT 0 2
SORT z BY nosort LIMIT 1 1
SORT z BY nosort DESC LIMIT 0 2
SORT z BY nosort DESC LIMIT 1 1
SORT z BY nosort LIMIT 5 2
SORT z BY nosort LIMIT -1 2
SORT z BY nosort GET #
SORT z ALPHA

== store
RPUSH l 3 1 2
SORT l STORE d
LRANGE d 0 -1
TYPE d
SORT l DESC STORE d
LRANGE d 0 -1
SORT l STORE l
LRANGE l 0 -1
SORT missing STORE d
EXISTS d
SORT missing STORE d
SET str v
SORT l STORE str
TYPE str
SORT l LIMIT 0 0 STORE str
EXISTS str
SORT l GET missing_* STORE d
LRANGE d 0 -1
SORT l GET # GET # STORE d
LRANGE d 0 -1
SORT l STORE
SORT l STORE a STORE b
EXISTS a
EXISTS b
SORT_RO l STORE d
SORT l store d
RPUSH e 1
EXPIRE e 100
SORT l STORE e
TTL e
RPUSH bad a b
SORT bad STORE d
LRANGE d 0 -1

== errors
SET str v
SORT str
SORT_RO str
HSET h f v
SORT h
SORT
SORT_RO
RPUSH l 1
SORT l foo
SORT l LIMIT
SORT l LIMIT 0
SORT l LIMIT a 1
SORT l LIMIT 0 a
SORT l LIMIT 1.5 1
SORT l LIMIT 0 9223372036854775808
SORT l ASC foo
SORT l ""
SORT missing foo
SORT str foo
SORT str LIMIT a b
SORT l GET # foo
SORT l LIMIT 0 1 LIMIT 0 5

== encodings
RPUSH l 1 2 3
SORT l STORE d
OBJECT ENCODING d
"""


@sequences.parametrize(SEQUENCES)
def test_sort(pair: Pair, mode: tuple[int, bool], sequence: Sequence_) -> None:
    runner.run(pair, sequence, *mode)
