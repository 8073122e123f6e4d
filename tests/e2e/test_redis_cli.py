"""redis-cli against a node: the README's tour, mass insertion, scanning, the interactive kind of output."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.node_process import NodeProcess
from support.raw_client import RawClient, Reply, encode

REDIS_CLI = shutil.which("redis-cli")
README = Path(__file__).parents[2] / "README.md"
# Seconds that one run of redis-cli may take.
PATIENCE = 30

pytestmark = pytest.mark.skipif(REDIS_CLI is None, reason="redis-cli is not installed")

Cli = Callable[..., str]


@pytest.fixture
def cli(node: NodeProcess) -> Cli:
    """Runs redis-cli with arguments and standard input, and returns its output."""

    def run(*arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            [REDIS_CLI or "", "-p", str(node.port), *arguments],
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.decode()

    return run


def test_the_tour_of_the_readme(cli: Cli) -> None:
    block = README.read_text().partition("ten lines in another terminal")[2].split("```")[1]
    tour = re.findall(r"^redis-cli -p 6004 (.+)$", block, re.MULTILINE)
    assert len(tour) == 10
    # Written to a pipe, redis-cli prints bare values, one a line.
    said = {line: cli(*line.split()).splitlines() for line in tour}
    information = said.pop("INFO server")
    assert "server_name:kevynode" in information
    assert said == {
        "SET greeting hello EX 60": ["OK"],
        "GET greeting": ["hello"],
        "INCRBY visits 3": ["3"],
        "HSET user:1 name Ada born 1815": ["2"],
        "-3 HGETALL user:1": ["name Ada", "born 1815"],
        "RPUSH queue a b c": ["3"],
        "BLPOP queue 5": ["queue", "a"],
        "ZADD board 10 ada 20 grace": ["2"],
        "ZRANGE board 0 -1 REV WITHSCORES": ["grace", "20", "ada", "10"],
    }


def test_replies_as_a_terminal_shows_them(cli: Cli) -> None:
    cli("HSET", "h", "name", "Ada", "born", "1815")
    cli("ZADD", "z", "1.5", "a")
    cli("SADD", "s", "a")
    assert cli("--no-raw", "GET", "nothing") == "(nil)\n"
    assert cli("--no-raw", "STRLEN", "nothing") == "(integer) 0\n"
    assert cli("--no-raw", "-3", "HGETALL", "h") == '1# "name" => "Ada"\n2# "born" => "1815"\n'
    assert cli("--no-raw", "-3", "ZSCORE", "z", "a") == "(double) 1.5\n"
    assert cli("--no-raw", "-3", "SMEMBERS", "s") == '1~ "a"\n'
    assert cli("--no-raw", "INCR", "h") == (
        "(error) WRONGTYPE Operation against a key holding the wrong kind of value\n"
    )
    assert cli("--csv", "HGETALL", "h") == '"name","Ada","born","1815"\n'
    assert cli("--json", "-3", "HGETALL", "h") == '{"name":"Ada","born":"1815"}\n'


def test_commands_from_standard_input(cli: Cli) -> None:
    lines = b'SET "with blanks" "two\\r\\nlines"\nMULTI\nINCR n\nINCR n\nEXEC\nGET "with blanks"\n'
    assert cli(stdin=lines).replace("\r", "").splitlines() == [
        "OK", "OK", "QUEUED", "QUEUED", "1", "2", "two", "lines",
    ]  # fmt: skip
    assert cli("-x", "SET", "k", stdin=b"a\0b") == "OK\n"
    assert cli("STRLEN", "k") == "3\n"
    assert cli("-r", "3", "INCR", "repeated").splitlines() == ["1", "2", "3"]


@pytest.mark.parametrize("style", ["commands", "inline"])
def test_mass_insertion(cli: Cli, node: NodeProcess, style: str) -> None:
    if style == "commands":
        data = b"".join(encode((b"SET", b"key:%d" % number, b"value\r\n%d" % number)) for number in range(5000))
    else:
        data = b"".join(b"SET key:%d v\r\n" % number for number in range(5000))
    # One of the replies is an error, and redis-cli counts it.
    said = subprocess.run(
        [REDIS_CLI or "", "-p", str(node.port), "--pipe"],
        input=data + b"NONSENSE\r\n",
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    output = (said.stdout + said.stderr).decode()
    assert "ERR unknown command 'NONSENSE'" in output
    assert "errors: 1, replies: 5001" in output
    with RawClient(node.host, node.port) as client:
        assert client.call(b"DBSIZE") == Reply("integer", 5000)
        expected = b"value\r\n4999" if style == "commands" else b"v"
        assert client.call(b"GET", b"key:4999") == Reply("bulk", expected)


def biggest(report: str, kind: str) -> tuple[str, str]:
    """The name and the size that ``--bigkeys`` and ``--memkeys`` sum up for a type."""
    found = re.search(rf"""Biggest +{kind} found ['"]+(.+?)['"]+ has (.+)""", report)
    assert found, report
    return found[1], found[2]


def test_scan_and_big_keys(cli: Cli) -> None:
    cli("--pipe", stdin=b"".join(b"SET name:%d %d\r\n" % (number, number) for number in range(2000)))
    cli("RPUSH", "the:list", *map(str, range(300)))
    cli("HSET", "the:hash", "field", "value")
    cli("SETRANGE", "the:string", "99999", "x")
    names = {f"name:{number}" for number in range(2000)}
    assert set(cli("--scan").split()) == names | {"the:list", "the:hash", "the:string"}
    assert sorted(cli("--scan", "--pattern", "name:19?9").split()) == [f"name:19{number}9" for number in range(10)]
    report = cli("--bigkeys")
    assert "Sampled 2003 keys in the keyspace!" in report
    assert biggest(report, "list") == ("the:list", "300 items")
    assert biggest(report, "string") == ("the:string", "100000 bytes")
    assert biggest(report, "hash") == ("the:hash", "1 fields")
    assert "2003" in cli("DBSIZE")
    name, size = biggest(cli("--memkeys"), "string")
    assert name == "the:string"
    assert re.fullmatch(r"1\d{5} bytes", size)


def test_subscribing_from_the_command_line(node: NodeProcess) -> None:
    with subprocess.Popen(
        [REDIS_CLI or "", "-p", str(node.port), "SUBSCRIBE", "news"], stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout is not None
        try:
            assert [listener.stdout.readline() for _ in range(3)] == ["subscribe\n", "news\n", "1\n"]
            with RawClient(node.host, node.port) as client:
                assert client.call(b"PUBLISH", b"news", b"hello") == Reply("integer", 1)
            assert [listener.stdout.readline() for _ in range(3)] == ["message\n", "news\n", "hello\n"]
        finally:
            listener.terminate()


def test_unix_socket_and_name(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    with NodeProcess(environment={"KEVYNODE_SERVER_UNIXSOCKET": str(path)}) as process:
        done = subprocess.run(
            [REDIS_CLI or "", "-s", str(path), "CLIENT", "LIST"], capture_output=True, text=True, check=True
        )
        process.check_health()
    assert f"addr={path}:0 laddr={path}:0" in done.stdout
