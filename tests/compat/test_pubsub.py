"""Publish and subscribe: channels, patterns, shard channels, what a subscriber may do, push messages in RESP3."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== subscribe and publish
2: SUBSCRIBE ch
PUBLISH ch hello
2<
PUBLISH other hello
PUBLISH ch ""
2<
PUBLISH ch "\x00\xff\r\n"
2<
2: UNSUBSCRIBE ch
PUBLISH ch gone

== subscribe to several
2: SUBSCRIBE a b c
2< 2
2: SUBSCRIBE a
2: SUBSCRIBE d d
2<
PUBLISH a 1
2<
2: UNSUBSCRIBE a nothing
2<
2: UNSUBSCRIBE b c d
2< 2

== unsubscribe without subscriptions
UNSUBSCRIBE
UNSUBSCRIBE a
UNSUBSCRIBE a b
1<
PUNSUBSCRIBE
PUNSUBSCRIBE a*
SUNSUBSCRIBE
SUNSUBSCRIBE a
GET k

== unsubscribe from all
2: SUBSCRIBE a
2: PSUBSCRIBE p*
2: UNSUBSCRIBE
2: PUNSUBSCRIBE
2: UNSUBSCRIBE
2: PUNSUBSCRIBE

== unsubscribe from all of several
2: SUBSCRIBE a b
2<
2_ UNSUBSCRIBE
2< 2 #~ kind
2: PSUBSCRIBE a* b*
2<
2_ PUNSUBSCRIBE
2< 2 #~ kind

== patterns
2: PSUBSCRIBE news.*
PUBLISH news.art x
2<
PUBLISH news x
2: PSUBSCRIBE h?llo h[ae]llo
2<
PUBLISH hello x
2< 2 #~ unordered
PUBLISH hxllo x
2<
2: PUNSUBSCRIBE news.* nothing*
2<
PUBLISH news.art x
2: PUNSUBSCRIBE

== channel and pattern both match
2: SUBSCRIBE ch
2: PSUBSCRIBE c*
PUBLISH ch x
2< 2
3: PSUBSCRIBE ch
PUBLISH ch y
2< 2
3<

== several subscribers
2: SUBSCRIBE ch
3: SUBSCRIBE ch
4: PSUBSCRIBE *
PUBLISH ch x
2<
3<
4<
2x
PUBLISH ch y
3<
4<

== what a subscriber may do
2: SUBSCRIBE ch
2: PING
2: PING hello
2: PING a b
2: GET k
2: SET k v
2: PUBLISH ch x
2: MULTI
2: FOO
2: GET
2: ECHO x
2: CLIENT ID
2: HELLO
2: SELECT 0
2: PUBSUB CHANNELS
2: SSUBSCRIBE x
2: UNSUBSCRIBE ch
2: SUNSUBSCRIBE x
2: PING
2: PING hello
2: SET k v

== reset leaves subscriber mode
2: SUBSCRIBE a
2: PSUBSCRIBE b*
2: RESET
2: GET k
PUBLISH a x

== quit as subscriber
2: SUBSCRIBE a
2: QUIT
2<

== publish to oneself
SUBSCRIBE ch
PUBLISH ch x

== arity
SUBSCRIBE
PSUBSCRIBE
SSUBSCRIBE
PUBLISH
PUBLISH ch
PUBLISH ch a b
SPUBLISH ch
SPUBLISH
SPUBLISH ch a b
PUBSUB
PUBSUB foo
PUBSUB CHANNELS a b
PUBSUB NUMPAT a
PUBSUB SHARDCHANNELS a b

== pubsub
PUBSUB CHANNELS
PUBSUB NUMSUB
PUBSUB NUMSUB a b
PUBSUB NUMPAT
2: SUBSCRIBE a ab b
2< 2
3: SUBSCRIBE a
3: PSUBSCRIBE x* y*
3<
2: PSUBSCRIBE x*
PUBSUB CHANNELS
PUBSUB CHANNELS a*
PUBSUB CHANNELS nothing
PUBSUB NUMSUB a b c a
PUBSUB NUMPAT
PUBSUB HELP
pubsub numsub a
2: SSUBSCRIBE s1
PUBSUB SHARDCHANNELS
PUBSUB SHARDCHANNELS s*
PUBSUB SHARDNUMSUB s1 s2
PUBSUB SHARDNUMSUB
PUBSUB CHANNELS

== shard channels
2: SSUBSCRIBE a b
2<
SPUBLISH a x
2<
PUBLISH a x
SPUBLISH nothing x
3: SUBSCRIBE a
SPUBLISH a y
2<
PUBLISH a z
3<
2: SUNSUBSCRIBE a nothing
2<
SPUBLISH a x
2: SUNSUBSCRIBE
2: SUNSUBSCRIBE
2: GET k

== publish in a transaction
2: SUBSCRIBE ch
MULTI
PUBLISH ch one
SET k v
PUBLISH ch two
EXEC
2< 2

== subscribe in a transaction
MULTI
SUBSCRIBE a
PSUBSCRIBE b*
UNSUBSCRIBE a
EXEC

== count over channels and patterns
2: SUBSCRIBE a
2: PSUBSCRIBE b*
2: SUBSCRIBE c
2: SSUBSCRIBE s
2: UNSUBSCRIBE a
2: PUNSUBSCRIBE b*
2: UNSUBSCRIBE c
2: SUNSUBSCRIBE s

== large message
2: SUBSCRIBE ch
PUBLISH ch {rep:x:1048576}
2<
2: SUBSCRIBE {rep:c:70000}
PUBLISH {rep:c:70000} x
2<

== odd names
2: SUBSCRIBE "" "\x00" "a b"
2< 2
PUBLISH "" x
2<
PUBLISH "\x00" y
2<
2: PSUBSCRIBE "" "["
2<
PUBLISH "" x
2< 2 #~ unordered
PUBLISH "[" x
"""


@sequences.parametrize(SEQUENCES)
def test_pubsub(pair: Pair, protocol: int, sequence: Sequence_) -> None:
    runner.run(pair, sequence, protocol)
