"""The wall clock is set forward and back: deadlines follow it, waits and idle times do not."""

from __future__ import annotations

from support.session_harness import ServerHarness

from kevynode.serve.housekeeping import Housekeeper

DAY = 86_400_000


def test_a_jump_forward_expires_keys_and_a_jump_back_lets_them_live_longer() -> None:
    node = ServerHarness()
    client = node.connect()
    client.call("SET", "short", "v", "PX", "1000")
    client.call("SET", "long", "v", "EX", "100000")
    client.call("HSET", "hash", "f", "v", "g", "v")
    client.call("HPEXPIRE", "hash", "1000", "FIELDS", "1", "f")
    node.wall -= DAY
    assert client.call("PTTL", "short") == b":%d\r\n" % (DAY + 1000)
    assert client.call("HGET", "hash", "f") == b"$1\r\nv\r\n"
    node.wall += DAY + 1001
    assert client.call("GET", "short") == b"$-1\r\n"
    assert client.call("HGETALL", "hash") == b"*2\r\n$1\r\ng\r\n$1\r\nv\r\n"
    assert client.call("GET", "long") == b"$1\r\nv\r\n"
    node.wall += 10 * DAY
    node.server.tick()
    Housekeeper(node.server).sweeper.sweep(lambda: False)
    assert client.call("DBSIZE") == b":1\r\n"


def test_waits_follow_the_clock_that_never_jumps() -> None:
    node = ServerHarness()
    client, pausing, paused = node.connect(), node.connect(), node.connect()
    client.call("BLPOP", "list", "5")
    pausing.call("CLIENT", "PAUSE", "5000", "WRITE")
    assert paused.call("SET", "k", "v") == b""
    for jump in (-DAY, 2 * DAY):
        node.wall += jump
        node.advance(2)
        assert client.read() == paused.read() == b""
    node.advance(1)
    assert client.read() == b"*-1\r\n"
    assert paused.read() == b"+OK\r\n"


def test_a_key_that_expires_while_the_clock_is_ahead_aborts_exec_only_then() -> None:
    node = ServerHarness()
    client = node.connect()
    client.call("SET", "k", "v", "PX", "5000")
    client.call("WATCH", "k")
    client.call("MULTI")
    client.call("PING")
    node.wall += DAY
    assert client.call("EXEC") == b"*-1\r\n"
    node.wall -= DAY
    client.call("WATCH", "k")
    client.call("MULTI")
    client.call("PING")
    assert client.call("EXEC") == b"*1\r\n+PONG\r\n"


def test_access_clocks_survive_a_jump_back() -> None:
    for policy, subcommand, most in (("allkeys-lfu", "FREQ", 10), ("allkeys-lru", "IDLETIME", 0)):
        node = ServerHarness()
        node.store.settings.maxmemory_policy = policy
        Housekeeper(node.server).evictor.follow_policy()
        client = node.connect()
        client.call("SET", "k", "v")
        for _ in range(3):
            node.wall -= 400 * DAY
            client.call("GET", "k")
            answer = client.call("OBJECT", subcommand, "k")
            assert 0 <= int(answer[1:]) <= most, answer


def test_idle_time_is_measured_on_the_clock_that_notes_activity() -> None:
    node = ServerHarness()
    # The two clocks of a node need not begin at the same moment.
    node.server.perf = lambda: node.monotonic - 900.0
    client = node.connect()
    client.call("PING")
    node.advance(7)
    other = node.connect()
    assert b" age=7 idle=7 " in other.call("CLIENT", "LIST", "ID", str(client.session.id))
    assert other.call("CLIENT", "LIST", "IDLE", "8") == b"$0\r\n\r\n"
    assert b"idle=7 " in other.call("CLIENT", "LIST", "IDLE", "7")
