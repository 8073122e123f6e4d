"""The connection: PING, HELLO, AUTH, RESET, QUIT, SELECT, and the CLIENT commands."""

from compat import runner, sequences
from compat.runner import Pair
from compat.sequences import Sequence_

SEQUENCES = r"""
== ping echo
PING
PING hello
PING ""
PING "\x00\xff"
PING a b
ECHO hello
ECHO ""
ECHO
ECHO a b
pInG
PING {rep:x:1048576}

== unknown commands
FOO
foo bar
foo a b c
"" a
foo ""
foo "\r\n" x
foo "a'b" "c\"d"
foo {rep:x:300} y
{rep:f:200} a
foo a b c d e f g h i j k l m n o p q r s t u v w x y z {rep:x:50} {rep:y:100}
"foo\x00bar" a
"foo\r\nbar"
GET\x00

== error texts end at a nul
CLIENT "\xff\x00a"
EXPIRE k 1 "a\x00b"

== select
SELECT
SELECT 0
SELECT abc
SELECT -1
SELECT 0 0
SELECT 00
SELECT ""
SELECT 1.5
SELECT 16
SELECT 10000
SELECT 9223372036854775808

== auth
AUTH
AUTH pass
AUTH default pass
AUTH user pass
AUTH a b c
AUTH default ""
AUTH ""
GET k

== hello
HELLO
HELLO 2
GET missing
HELLO 3
GET missing
HELLO 2
GET missing
HELLO 4
HELLO 1
HELLO 0
HELLO -1
HELLO abc
HELLO 2.0
HELLO ""
HELLO 9223372036854775808
HELLO 3 SETNAME me
CLIENT GETNAME
HELLO 3 SETNAME "a b"
HELLO 3 SETNAME ""
CLIENT GETNAME
HELLO 3 AUTH default pass
HELLO 3 AUTH user pass
HELLO 3 AUTH default
HELLO 3 AUTH
HELLO 3 SETNAME
HELLO 3 foo
HELLO 3 SETNAME a SETNAME b
CLIENT GETNAME
HELLO 2 AUTH default x SETNAME nope
CLIENT GETNAME
HELLO SETNAME x
hello 3 setname lower
CLIENT GETNAME
HELLO 03
HELLO 2

== client getname setname
CLIENT GETNAME
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETNAME ""
CLIENT GETNAME
CLIENT SETNAME "a b"
CLIENT SETNAME "a\nb"
CLIENT SETNAME "a\x7f"
CLIENT SETNAME "\xc3\xa9"
CLIENT SETNAME "!~"
CLIENT GETNAME
CLIENT GETNAME x
CLIENT SETNAME
CLIENT SETNAME a b

== client setinfo
CLIENT SETINFO LIB-NAME mylib
CLIENT SETINFO LIB-VER 1.2.3
CLIENT SETINFO lib-name other
CLIENT SETINFO LIB-NAME ""
CLIENT SETINFO LIB-NAME "a b"
CLIENT SETINFO LIB-VER "a\nb"
CLIENT SETINFO FOO x
CLIENT SETINFO LIB-NAME
CLIENT SETINFO
CLIENT SETINFO LIB-NAME a b

== client id info list
CLIENT ID
CLIENT ID x
CLIENT INFO
CLIENT INFO x
CLIENT LIST
CLIENT LIST TYPE normal
CLIENT LIST TYPE pubsub
CLIENT LIST TYPE master
CLIENT LIST TYPE primary
CLIENT LIST TYPE replica
CLIENT LIST TYPE slave
CLIENT LIST TYPE foo
CLIENT LIST TYPE
CLIENT LIST ID {id:1}
CLIENT LIST ID {id:1} {id:2}
CLIENT LIST ID abc
CLIENT LIST ID 0
CLIENT LIST ID -1
CLIENT LIST ID
CLIENT LIST ID 999999999
CLIENT LIST foo
CLIENT LIST ID 1 TYPE normal
CLIENT LIST NAME nothing
CLIENT LIST USER default
CLIENT LIST USER nobody
CLIENT LIST DB 0
CLIENT LIST FLAGS N
CLIENT
CLIENT foo
CLIENT foo bar
CLIENT HELP
CLIENT HELP x

== client reply
CLIENT REPLY ON
1_ CLIENT REPLY OFF
1_ SET k v
1_ GET k
CLIENT REPLY ON
GET k
1_ CLIENT REPLY SKIP
1_ SET k w
GET k
CLIENT REPLY foo
CLIENT REPLY
CLIENT REPLY ON x
1_ client reply off
1_ FOO
client reply on

== client reply skip twice
1_ CLIENT REPLY SKIP
1_ CLIENT REPLY SKIP
1_ PING
PING x
PING y

== client no-evict and no-touch
CLIENT NO-EVICT ON
CLIENT NO-EVICT OFF
CLIENT NO-EVICT foo
CLIENT NO-EVICT
CLIENT NO-EVICT ON x
CLIENT NO-TOUCH ON
CLIENT NO-TOUCH OFF
CLIENT NO-TOUCH foo
CLIENT NO-TOUCH
client no-touch on

== client kill
CLIENT KILL 127.0.0.1:1
CLIENT KILL ID 999999999
CLIENT KILL ID abc
CLIENT KILL ID 0
CLIENT KILL ID -1
CLIENT KILL ADDR 127.0.0.1:1
CLIENT KILL LADDR 127.0.0.1:1
CLIENT KILL TYPE foo
CLIENT KILL USER nobody
CLIENT KILL SKIPME foo
CLIENT KILL SKIPME
CLIENT KILL foo bar
CLIENT KILL
CLIENT KILL ID
CLIENT KILL MAXAGE abc
CLIENT KILL MAXAGE 100000
CLIENT KILL MAXAGE -1
CLIENT KILL ID {id:2}
2<
CLIENT KILL ADDR {addr:3}
3<
CLIENT KILL {addr:4}
4<
CLIENT KILL {addr:4}
CLIENT KILL TYPE pubsub
5: SUBSCRIBE ch
CLIENT KILL TYPE pubsub
5<
CLIENT KILL ID {id:1}
PING
CLIENT KILL ID {id:1} SKIPME no
1<

== client kill oneself by address
CLIENT KILL {addr:1}
1<

== client kill with several filters
CLIENT KILL ID {id:2} ADDR {addr:3}
2: PING
CLIENT KILL ID {id:2} ADDR {addr:2} TYPE normal SKIPME yes
2<
3: CLIENT SETNAME victim
CLIENT KILL ID {id:3} USER default
3<
CLIENT KILL ID {id:4} {id:5}
4<
5<
CLIENT KILL ID {id:6} ID {id:7}

== client pause
CLIENT PAUSE 0
CLIENT PAUSE abc
CLIENT PAUSE -1
CLIENT PAUSE 10 foo
CLIENT PAUSE
CLIENT PAUSE 10 WRITE x
CLIENT PAUSE 9223372036854775807
CLIENT UNPAUSE
CLIENT UNPAUSE x

== client pause write holds writes
CLIENT PAUSE 100000 WRITE
GET k
2! SET k v
3! INCR n
GET k
CLIENT UNPAUSE
2<
3<
GET k

== client pause write holds publish and not multi
2: CLIENT PAUSE 100000 WRITE
3! PUBLISH ch x
4! MULTI
4<
2: CLIENT UNPAUSE
3<

== client pause all holds everything for its time
CLIENT PAUSE 30
2: PING
CLIENT PAUSE 30 ALL
3: SET k v
CLIENT PAUSE 30 write
3: GET k
3: SET k w

== client pause holds exec with writes
3: MULTI
3: SET k v
4: MULTI
4: GET k
CLIENT PAUSE 100000 WRITE
4: EXEC
3! EXEC
CLIENT UNPAUSE
3<

== client unblock
CLIENT UNBLOCK {id:1}
CLIENT UNBLOCK 0
CLIENT UNBLOCK abc
CLIENT UNBLOCK {id:1} foo

== client tracking
CLIENT TRACKINGINFO
CLIENT GETREDIR
CLIENT TRACKING
CLIENT TRACKING foo
CLIENT TRACKING OFF
CLIENT CACHING YES

== client capa and import-source
CLIENT CAPA redirect
CLIENT CAPA foo bar
CLIENT CAPA
CLIENT IMPORT-SOURCE ON
CLIENT IMPORT-SOURCE foo

== reset
CLIENT SETNAME me
MULTI
RESET
EXEC
CLIENT GETNAME
HELLO 3
RESET
GET missing
WATCH k
RESET
RESET x
CLIENT REPLY ON
RESET

== reset drops the watch
WATCH k
RESET
2: SET k v
MULTI
PING
EXEC

== quit
QUIT
1<

== quit with arguments
QUIT a b
1<

== commands after quit
2_ QUIT
2_ SET k v
2<
2<
GET k

== asking readonly readwrite
READONLY
READWRITE
ASKING
READONLY x

== arity of containers
CLIENT ID a b
CLIENT GETNAME a
CLIENT UNPAUSE a
client id x
CLIENT NO-EVICT on off
CLIENT KILL a b c d e
OBJECT FREQ
CONFIG GET
CONFIG SET
CONFIG SET a
COMMAND GETKEYS
"""


@sequences.parametrize(SEQUENCES)
def test_connection(pair: Pair, protocol: int, sequence: Sequence_) -> None:
    runner.run(pair, sequence, protocol)


def test_client_info_fields(pair: Pair, protocol: int) -> None:
    """A line of CLIENT INFO has the same fields in the same order, and the plain facts in it are the same."""
    facts = []
    for side in pair.sides:
        with side.connect(protocol) as client:
            client.call(b"CLIENT", b"SETNAME", b"me")
            client.call(b"CLIENT", b"SETINFO", b"LIB-NAME", b"lib")
            client.call(b"SUBSCRIBE", b"ch") if protocol == 3 else None
            reply = client.call(b"CLIENT", b"INFO")
            assert reply.kind == ("bulk" if protocol == 2 else "verbatim"), side.name
            fields = [part.partition("=")[::2] for part in str(reply.value, "latin-1").strip().split(" ")]
            known = dict(fields)
            names = ("name", "flags", "db", "sub", "psub", "ssub", "multi", "watch", "cmd", "user", "resp", "lib-name")
            facts.append(([name for name, _ in fields], {name: known.get(name) for name in names}))
    assert facts[0] == facts[1]
