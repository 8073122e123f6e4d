"""The commands that the comparison covers, by Valkey's own grouping."""

from __future__ import annotations

from typing import Final

_LINES: Final = """
append decr decrby delifeq get getdel getex getrange getset incr incrby incrbyfloat lcs mget mset msetex msetnx psetex
set setex setnx setrange strlen substr
copy del exists expire expireat expiretime keys move object persist pexpire pexpireat pexpiretime pttl randomkey rename
renamenx scan sort sort_ro touch ttl type unlink wait waitaof
hdel hexists hexpire hexpireat hexpiretime hget hgetall hgetdel hgetex hincrby hincrbyfloat hkeys hlen hmget hmset
hpersist hpexpire hpexpireat hpexpiretime hpttl hrandfield hscan hset hsetex hsetnx hstrlen httl hvals
blmove blmpop blpop brpop brpoplpush lindex linsert llen lmove lmpop lpop lpos lpush lpushx lrange lrem lset ltrim rpop
rpoplpush rpush rpushx
sadd scard sdiff sdiffstore sinter sintercard sinterstore sismember smembers smismember smove spop srandmember srem
sscan sunion sunionstore
bzmpop bzpopmax bzpopmin zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop
zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex
zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion zunionstore
bitcount bitfield bitfield_ro bitop bitpos getbit setbit
discard exec multi unwatch watch
psubscribe publish pubsub punsubscribe spublish ssubscribe subscribe sunsubscribe unsubscribe
auth client echo hello ping quit reset select
bgrewriteaof bgsave command config dbsize debug flushall flushdb info lastsave memory save shutdown slowlog swapdb time
latency role replicaof slaveof
cluster
"""

#: Every command under comparison.
COMMANDS: Final = tuple(_LINES.split())

#: The subcommands a node has to offer.
SUBCOMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "client": (
        *("getname", "help", "id", "info", "kill", "list", "no-evict", "no-touch", "pause", "reply", "setinfo"),
        *("setname", "unblock", "unpause"),
    ),
    "command": ("count", "docs", "getkeys", "getkeysandflags", "help", "info", "list"),
    "config": ("get", "help", "resetstat", "set"),
    "cluster": ("info", "keyslot", "myid", "slots", "shards"),
    "memory": ("help", "usage"),
    "object": ("encoding", "freq", "help", "idletime", "refcount"),
    "pubsub": ("channels", "help", "numpat", "numsub", "shardchannels", "shardnumsub"),
    "slowlog": ("get", "help", "len", "reset"),
}
