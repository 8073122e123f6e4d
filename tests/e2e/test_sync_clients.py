"""redis-py and valkey-py as programs use them: every data type, names and lists of clients, large and binary values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from e2e.libraries import Library
from support.node_process import NodeProcess

EVERY_BYTE = bytes(range(256))


def normal(value: Any) -> Any:
    """A reply as both protocols mean it: pairs may be tuples or lists, and sets may be lists."""
    if isinstance(value, (list, tuple)):
        return [normal(element) for element in value]
    return value


def test_the_library_says_who_it_is(client: Any, library: Library) -> None:
    mine = client.client_info()
    assert mine["lib-name"] == f"{library.module.__name__}-py"
    assert mine["lib-ver"] == library.module.__version__
    if library.protocol is not None:
        assert int(mine["resp"]) == library.protocol


def test_the_node_says_who_it_is(client: Any) -> None:
    server = client.info("server")
    assert server["redis_version"] == "7.2.4"
    assert server["server_name"] == "kevynode"
    assert client.echo("hello") == b"hello"
    assert client.ping() is True


def test_clients_are_named_listed_and_killed(connect: Callable[..., Any], library: Library) -> None:
    watcher, worker = connect(), connect(client_name="worker", single_connection_client=True)
    assert worker.client_getname() in ("worker", b"worker")
    before = worker.client_id()
    listed = {entry["name"]: entry for entry in watcher.client_list()}
    assert int(listed["worker"]["id"]) == before
    assert watcher.client_setname("watcher") is True
    assert watcher.client_kill_filter(_id=str(before)) == 1
    assert str(before) not in [entry["id"] for entry in watcher.client_list()]
    # Some libraries connect again by themselves, some have to be asked once more: somebody new with the same name.
    try:
        worker.ping()
    except library.module.ConnectionError:
        pass
    assert worker.client_id() > before
    assert worker.client_getname() in ("worker", b"worker")


def test_strings(client: Any) -> None:
    assert client.set("k", "v") is True
    assert client.get("k") == b"v"
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", xx=True, get=True) == b"v"
    assert client.append("k", "xyz") == 4
    assert client.getrange("k", 1, 2) == b"xy"
    assert client.setrange("k", 1, "--") == 4
    assert client.getdel("k") == b"w--z"
    assert client.get("k") is None
    assert client.mset({"a": 1, "b": 2}) is True
    assert client.mget("a", "nothing", "b") == [b"1", None, b"2"]
    assert client.incrby("a", 41) == 42
    assert client.decr("a") == 41
    assert client.incrbyfloat("a", 0.5) == 41.5
    assert client.strlen("a") == 4


def test_hashes(client: Any) -> None:
    assert client.hset("h", mapping={"name": "Ada", "born": 1815}) == 2
    assert client.hgetall("h") == {b"name": b"Ada", b"born": b"1815"}
    assert client.hmget("h", "born", "nothing") == [b"1815", None]
    assert client.hincrby("h", "born", 5) == 1820
    assert client.hincrbyfloat("h", "born", 0.25) == 1820.25
    assert client.hdel("h", "born", "nothing") == 1
    assert client.hkeys("h") == [b"name"]
    assert client.hvals("h") == [b"Ada"]
    assert client.hexists("h", "name") is True
    assert client.hsetnx("h", "name", "Grace") == 0
    assert client.hrandfield("h") == b"name"


def test_lists(client: Any) -> None:
    assert client.rpush("l", "b", "c") == 2
    assert client.lpush("l", "a") == 3
    assert client.lrange("l", 0, -1) == [b"a", b"b", b"c"]
    assert client.linsert("l", "AFTER", "b", "x") == 4
    assert client.lpos("l", "x") == 2
    assert client.lset("l", 2, "y") is True
    assert client.lrem("l", 1, "y") == 1
    assert client.lmove("l", "other", "LEFT", "RIGHT") == b"a"
    assert normal(client.lmpop(2, "nothing", "l", direction="RIGHT", count=5)) == [b"l", [b"c", b"b"]]
    assert client.lpop("other", 3) == [b"a"]
    assert client.llen("other") == 0


def test_sets(client: Any) -> None:
    assert client.sadd("s", "a", "b", "c") == 3
    assert client.sadd("t", "b", "c", "d") == 3
    assert set(client.smembers("s")) == {b"a", b"b", b"c"}
    assert set(client.sinter("s", "t")) == {b"b", b"c"}
    assert set(client.sunion("s", "t")) == {b"a", b"b", b"c", b"d"}
    assert set(client.sdiff("s", "t")) == {b"a"}
    assert client.sintercard(2, ["s", "t"]) == 2
    assert client.smismember("s", ["a", "z"]) == [1, 0]
    assert client.smove("s", "t", "a") == 1
    assert client.srem("s", "b", "c") == 2
    assert client.scard("t") == 4


def test_sorted_sets(client: Any) -> None:
    assert client.zadd("z", {"ada": 10, "grace": 20, "edsger": 15.5}) == 3
    assert normal(client.zrange("z", 0, -1, withscores=True)) == [[b"ada", 10.0], [b"edsger", 15.5], [b"grace", 20.0]]
    assert client.zrevrange("z", 0, 0) == [b"grace"]
    assert client.zscore("z", "edsger") == 15.5
    assert client.zincrby("z", 1, "ada") == 11.0
    assert client.zrank("z", "grace") == 2
    assert client.zadd("z", {"ada": 5}, gt=True) == 0
    assert client.zmscore("z", ["ada", "nobody"]) == [11.0, None]
    assert client.zcount("z", "(11", "+inf") == 2
    assert client.zrangebyscore("z", 11, 16) == [b"ada", b"edsger"]
    assert client.zrangestore("top", "z", 1, 2) == 2
    assert normal(client.zpopmax("top", 1)) == [[b"grace", 20.0]]
    assert client.zunionstore("both", ["z", "top"]) == 3
    assert client.zscore("both", "edsger") == 31.0
    assert client.zadd("z", {"infinite": float("inf")}) == 1
    assert client.zscore("z", "infinite") == float("inf")


def test_bitmaps(client: Any) -> None:
    assert client.setbit("bits", 7, 1) == 0
    assert client.getbit("bits", 7) == 1
    assert client.bitcount("bits") == 1
    assert client.bitpos("bits", 1) == 7
    assert client.bitop("NOT", "inverse", "bits") == 1
    assert client.get("inverse") == b"\xfe"
    assert client.bitfield("field").set("u8", 0, 255).incrby("u8", 0, 10).execute() == [0, 9]


def test_keys_and_deadlines(client: Any, node: NodeProcess) -> None:
    client.mset({"a": 1, "b": 2})
    assert client.expire("a", 100) is True
    assert 0 < client.ttl("a") <= 100
    assert client.persist("a") is True
    assert client.ttl("a") == -1
    assert client.ttl("nothing") == -2
    assert client.type("a") == b"string"
    assert client.rename("a", "c") is True
    assert client.copy("c", "d") is True
    assert sorted(client.keys("[bcd]")) == [b"b", b"c", b"d"]
    assert client.dbsize() == 3
    assert client.unlink("b", "c") == 2
    assert client.pexpire("d", 20) is True
    node.wait_until(lambda: client.get("d") is None, "a key goes at its deadline")
    assert client.dbsize() == 0


def test_a_wrong_type_is_an_error_and_the_connection_goes_on(client: Any, library: Library) -> None:
    client.set("k", "v")
    with pytest.raises(library.module.ResponseError, match="WRONGTYPE"):
        client.lpush("k", "a")
    with pytest.raises(library.module.ResponseError, match="unknown command 'NONSENSE'"):
        client.execute_command("NONSENSE", "x")
    assert client.get("k") == b"v"


def test_values_may_hold_any_byte(client: Any) -> None:
    key, value = EVERY_BYTE + b"\r\n$-1\r\n", b"*1\r\n" + EVERY_BYTE[::-1]
    client.set(key, value)
    assert client.get(key) == value
    assert client.keys() == [key]
    client.hset("h", value, key)
    assert client.hgetall("h") == {value: key}
    client.sadd("s", key, value)
    assert set(client.smembers("s")) == {key, value}
    client.zadd("z", {key: 1})
    assert client.zrange("z", 0, -1) == [key]
    client.rpush("l", b"", b"\0")
    assert client.lrange("l", 0, -1) == [b"", b"\0"]


def test_eight_mebibytes_in_one_value(client: Any) -> None:
    large = EVERY_BYTE * (8 * 1024 * 4)
    assert len(large) == 8 << 20
    assert client.set("large", large) is True
    assert client.strlen("large") == 8 << 20
    assert client.get("large") == large
    assert client.append("large", large) == 16 << 20
    assert client.getrange("large", (8 << 20) - 2, (8 << 20) + 1) == b"\xfe\xff\x00\x01"
    with client.pipeline(transaction=False) as pipe:
        pipe.hset("h", "field", large).rpush("l", large, large).hget("h", "field").lrange("l", 0, -1)
        assert pipe.execute() == [1, 2, large, [large, large]]


def test_decoded_replies(connect: Callable[..., Any]) -> None:
    client = connect(decode_responses=True)
    client.hset("h", "größe", "naïve")
    assert client.hgetall("h") == {"größe": "naïve"}
    assert client.hget("h", "nothing") is None


def test_configuration_over_the_connection(client: Any) -> None:
    assert client.config_get("hash-max-listpack-*")["hash-max-listpack-entries"] == "512"
    assert client.config_set("hash-max-listpack-entries", 3) is True
    client.hset("h", mapping={str(number): number for number in range(4)})
    assert client.object("encoding", "h") in (b"hashtable", "hashtable")
    assert client.config_set("hash-max-listpack-entries", 512) is True


def test_the_command_table(client: Any) -> None:
    table = client.command()
    assert client.command_count() == len(table)
    assert table["get"]["arity"] == 2
    assert client.command_getkeys("MSET", "a", "1", "b", "2") in ([b"a", b"b"], ["a", "b"])
    assert table["set"]["first_key_pos"] == 1
