"""The differences from Valkey that are accepted, each with its reason.

This table is the only place that excuses a difference: a comparison that fails and matches no entry here is a bug.
``docs/differences.md`` shows the same table; a test keeps the two equal. To write the page anew:
``PYTHONPATH=tests python tests/compat/accepted.py > docs/differences.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from support.raw_client import Reply

#: (command, reply of valkey, reply of the subject) -> this entry excuses the difference.
Condition = Callable[[Sequence[bytes], Reply, Reply], bool]

#: Most arguments of one request; the multibulk header may say no more.
ARGUMENT_LIMIT: Final = 1_048_576


class Accepted(NamedTuple):
    """One accepted difference: what is asked, what each side answers, and why that is right."""

    what: str
    valkey: str
    kevynode: str
    reason: str
    condition: Condition


def _words(argv: Sequence[bytes]) -> list[bytes]:
    return [argument.lower() for argument in argv]


def _too_many_arguments(argv: Sequence[bytes], expected: Reply, actual: Reply) -> bool:
    return len(argv) > ARGUMENT_LIMIT and actual == Reply("error", b"ERR Protocol error: invalid multibulk length")


def _cluster_view(argv: Sequence[bytes], expected: Reply, actual: Reply) -> bool:
    asks_view = len(argv) > 1 and _words(argv)[0] == b"cluster"
    refused = expected == Reply("error", b"ERR This instance has cluster support disabled")
    return asks_view and refused and actual.kind != "error"


def _second_database(argv: Sequence[bytes], expected: Reply, actual: Reply) -> bool:
    return _words(argv)[:1] == [b"select"] and expected == Reply("simple", b"OK") and actual.kind == "error"


def _other_database(argv: Sequence[bytes], expected: Reply, actual: Reply) -> bool:
    words = _words(argv)
    concerned = words[:1] in ([b"move"], [b"swapdb"]) or (words[:1] == [b"copy"] and b"db" in words)
    return concerned and actual.kind == "error"


def _not_yet(argv: Sequence[bytes], expected: Reply, actual: Reply) -> bool:
    return (
        len(argv) > 0
        and _words(argv)[0].decode("latin-1") in COMMANDS_TO_COME
        and actual.kind == "error"
        and actual.value.startswith(b"ERR unknown command")
    )


def _other_history(argv: Sequence[bytes], expected: Reply, actual: Reply) -> bool:
    return _words(argv) == [b"debug", b"change-repl-id"] and actual.kind == "error"


def _wait_on_replica(argv: Sequence[bytes], expected: Reply, actual: Reply) -> bool:
    refused = b"ERR WAIT cannot be used with replica instances"
    return actual == Reply("error", refused) and expected.kind == "error" and expected.value.startswith(refused)


def _never(argv: Sequence[bytes], expected: Reply, actual: Reply) -> bool:
    return False


#: Streams, scripting, HyperLogLog, geo; serialized values; failover.
COMMANDS_TO_COME: Final = tuple(
    word
    for line in (
        "xack xadd xautoclaim xclaim xdel xgroup xinfo xlen xpending xrange xread xreadgroup xrevrange xsetid xtrim",
        "eval eval_ro evalsha evalsha_ro fcall fcall_ro function script pfadd pfcount pfdebug pfmerge pfselftest",
        "geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch",
        "geosearchstore dump restore migrate replconf failover",
    )
    for word in line.split()
)

ACCEPTED: Final[tuple[Accepted, ...]] = (
    Accepted(
        what=f"A request of more than {ARGUMENT_LIMIT:,} arguments",
        valkey="Accepts up to 2,147,483,647.",
        kevynode="`ERR Protocol error: invalid multibulk length`, and the connection closes.",
        reason="An argument costs memory before anything is known about the request; the limit bounds what a header "
        "of a few bytes can claim.",
        condition=_too_many_arguments,
    ),
    Accepted(
        what="`CLUSTER INFO`, `MYID`, `SLOTS`, `SHARDS`, `NODES` on a standalone node",
        valkey="`ERR This instance has cluster support disabled`",
        kevynode="Shows this node as the owner of all 16,384 slots.",
        reason="A client library in cluster mode can then use a node as it is.",
        condition=_cluster_view,
    ),
    Accepted(
        what="`SELECT` of a database other than 0",
        valkey="`OK` up to the number of configured databases.",
        kevynode="An error that says there is one database.",
        reason="Prefixes own keys here; a second numbered keyspace would have no owner.",
        condition=_second_database,
    ),
    Accepted(
        what="`MOVE`, `SWAPDB` and `COPY … DB n`",
        valkey="Act on other databases.",
        kevynode="An error.",
        reason="There is one database.",
        condition=_other_database,
    ),
    Accepted(
        what=(
            "Streams, scripting and functions, HyperLogLog and geo; `DUMP`, `RESTORE`, `MIGRATE`; `FAILOVER`; "
            "`COMMANDLOG`, `MODULE`, `CLUSTERSCAN`, `LOLWUT`"
        ),
        valkey="Supported.",
        kevynode="`ERR unknown command`",
        reason="Not written yet. `SLOWLOG` does what `COMMANDLOG` does for slow commands.",
        condition=_not_yet,
    ),
    Accepted(
        what="Users and their rights: `ACL SETUSER`, `DELUSER`, `LOAD`, `SAVE`, `LOG`, `GENPASS`, `DRYRUN`",
        valkey="Supported.",
        kevynode="`ERR unknown subcommand`",
        reason="There is one user, `default`, with or without a password.",
        condition=_never,
    ),
    Accepted(
        what="`CLIENT TRACKING ON`",
        valkey="Tells the client when keys that it has read change.",
        kevynode="`ERR client-side caching is not supported by this node`",
        reason="Not written yet.",
        condition=_never,
    ),
    Accepted(
        what="The subcommands of `CLUSTER` that change a cluster, and those about slots that migrate",
        valkey="Supported in a cluster.",
        kevynode="`ERR unknown subcommand`",
        reason="Which node writes what is declared, and moved by `MOVE-SCOPE`.",
        condition=_never,
    ),
    Accepted(
        what="`CONFIG` parameters",
        valkey="All of Valkey's.",
        kevynode=(
            "Those that `CONFIG GET *` shows. Some that only tune Valkey's insides (`activedefrag`, "
            "`lazyfree-…`, `active-expire-effort` …) may be set and change nothing; the log says "
            "`config_without_effect`, or `parameter_set … effect=false`."
        ),
        reason="Scripts written for Valkey should run, and nobody should rely on what is not there.",
        condition=_never,
    ),
    Accepted(
        what="`client-output-buffer-limit`",
        valkey="Hard limits, soft limits with a time, and limits for replicas.",
        kevynode="Those of `normal` and `pubsub`. Those of `replica` may be set and change nothing.",
        reason="A replica is bounded by the backlog, and by the time for which it may take nothing.",
        condition=_never,
    ),
    Accepted(
        what="`CONFIG REWRITE`",
        valkey="Writes the configuration file.",
        kevynode="An error.",
        reason="A node is configured by its TOML file, which it never writes.",
        condition=_never,
    ),
    Accepted(
        what="`LATENCY`, and the texts of `LATENCY DOCTOR` and `MEMORY DOCTOR`",
        valkey="Samples of slow events, if switched on.",
        kevynode="No samples; texts of our own.",
        reason="`SLOWLOG`, and the log, tell what was slow.",
        condition=_never,
    ),
    Accepted(
        what="Replication: `REPLICAOF host port`, `REPLCONF`, `PSYNC`, `SYNC`",
        valkey="Replicas connect to the client port; offsets count bytes.",
        kevynode="The port is the replication port, where another protocol is spoken; offsets in `ROLE` and `INFO` "
        "count changes. A valkey-server cannot be a replica of a node, nor its primary.",
        reason="Links carry changes that a copy can resume, filter and pass on.",
        condition=_never,  # no test connects one to the other
    ),
    Accepted(
        what="`WAIT` on a replica",
        valkey="An error with a note on writable replicas.",
        kevynode="`ERR WAIT cannot be used with replica instances`",
        reason="The text that replicas of this protocol give.",
        condition=_wait_on_replica,
    ),
    Accepted(
        what="`WAITAOF` with a number of replicas",
        valkey="Counts the replicas that have it on their disks.",
        kevynode="Counts none: the wait ends with its time.",
        reason="Replicas tell what they have applied, not what their disks have.",
        condition=_never,  # no test gives either server replicas
    ),
    Accepted(
        what="`SAVE`",
        valkey="Nobody else is served until the file is written.",
        kevynode="Everybody else is; a `SAVE` waits for a rewrite of the append-only file that is under way.",
        reason="A node answers in milliseconds, whatever it does beside.",
        condition=_never,  # the replies are the same
    ),
    Accepted(
        what="The file of `SAVE` and `BGSAVE`, and when it is written",
        valkey="`dump.rdb`; `dbfilename` and `save` may be set.",
        kevynode="`dump.kevysnap`, in a form of its own; `CONFIG SET` takes no other name, and no save points.",
        reason="The append-only file keeps data; a dump is written when somebody asks for one.",
        condition=_never,  # the values are not compared
    ),
    Accepted(
        what="`CONFIG SET aof-use-rdb-preamble`, `aof-load-truncated`, `no-appendfsync-on-rewrite`",
        valkey="May be set.",
        kevynode="Only to `no`, `yes` and `no`, which is what they are.",
        reason="Bases are commands; what a crash has torn off is cut off; a policy holds during a rewrite too.",
        condition=_never,  # no test sets them to something else
    ),
    Accepted(
        what="`BGREWRITEAOF` without an append-only file",
        valkey="Writes a file that nothing reads.",
        kevynode="An error.",
        reason="There is nothing to rewrite.",
        condition=_never,  # no test asks
    ),
    Accepted(
        what="`DEBUG CHANGE-REPL-ID`",
        valkey="Takes another replication id, and keeps its replicas.",
        kevynode="An error, unless the node is standalone.",
        reason="Whoever follows a history must be able to rely on it; it changes with the role.",
        condition=_other_history,
    ),
    Accepted(
        what="A replica whose data are too old, and a node that loads its data",
        valkey="`MASTERDOWN …`, if `replica-serve-stale-data` is off; `LOADING Valkey is loading …`, for `PING` and "
        "`REPLICAOF` too.",
        kevynode="`STALE …`, by `replica_max_staleness_ms`; `LOADING kevynode is loading …`. `PING` and `REPLICAOF` "
        "are served while a replica's first copy is on its way.",
        reason="Age is measured, not whether a link is up; a load from a primary that is gone must have an end.",
        condition=_never,  # no test brings a server into these states
    ),
    Accepted(
        what="`HELLO`: the values of `server`, `version` and `modules`",
        valkey="`valkey`, its version, its built-in modules.",
        kevynode="`kevynode`, its version, no modules.",
        reason="A client that looks should see what it talks to.",
        condition=_never,  # the fields are compared, their values are not
    ),
    Accepted(
        what="The texts of `HELP`, of `COMMAND DOCS`, and the notes in `COMMAND INFO`'s key specifications",
        valkey="Valkey's words.",
        kevynode="Our own words, or none.",
        reason="They are prose, and describe this server.",
        condition=_never,  # form and first line are compared, the prose is not
    ),
    Accepted(
        what="`OBJECT ENCODING` of a value that has shrunk or was changed in part",
        valkey="The encoding it once had to take: compact encodings do not come back.",
        kevynode="The encoding a fresh value of this content would have.",
        reason="Values are not kept in these encodings; the reply is worked out from content and thresholds.",
        condition=_never,  # the sequences compare only the kind of such replies
    ),
    Accepted(
        what="`OBJECT IDLETIME` and `MEMORY USAGE`: the numbers",
        valkey="Idle time since the last access; its own allocator's sizes.",
        kevynode="Without an LRU policy idle time counts from the first such question; sizes are this process's.",
        reason="Access clocks cost memory and time for every key, so they are kept once somebody wants them.",
        condition=_never,  # numbers are compared as numbers
    ),
    Accepted(
        what="`HRANDFIELD`, `SRANDMEMBER`, `ZRANDMEMBER` with a count below -1,048,576",
        valkey="Streams a reply of that many elements, for hours if need be.",
        kevynode="`ERR value is out of range`.",
        reason="A few bytes must not be able to ask for gigabytes.",
        condition=_never,  # no test asks Valkey
    ),
    Accepted(
        what="An inline command with the byte 0xFF",
        valkey="Takes the byte for a blank.",
        kevynode="Takes it for itself.",
        reason="A value must arrive as it was sent.",
        condition=_never,  # no test sends it
    ),
    Accepted(
        what="An inline command with a NUL byte",
        valkey="Never ends: what follows the NUL is not searched for the end of the line.",
        kevynode="The NUL is a byte like any other.",
        reason="Nobody can rely on a request that is never answered.",
        condition=_never,  # no test sends it to Valkey, which would stay silent
    ),
)


def find(argv: Sequence[bytes], expected: Reply, actual: Reply) -> Accepted | None:
    """The entry that excuses this difference, if any."""
    return next((entry for entry in ACCEPTED if entry.condition(argv, expected, actual)), None)


def page() -> str:
    """The text of docs/differences.md."""
    lines = [
        "# Differences from Valkey",
        "",
        "Replies, errors and edge cases are those of Valkey 9.1: the tests send the same commands to a valkey-server",
        "and to a node, in RESP2 and RESP3, and every reply must be the same, type included. What differs on purpose",
        "stands here, and nowhere else.",
        "",
        "| What | Valkey 9.1 | kevynode | Why |",
        "|---|---|---|---|",
        *(f"| {entry.what} | {entry.valkey} | {entry.kevynode} | {entry.reason} |" for entry in ACCEPTED),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
