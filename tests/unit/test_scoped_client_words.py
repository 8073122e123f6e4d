"""What a scope-following client makes of the words of a command."""

from __future__ import annotations

from typing import Any

import pytest

from kevynode.client_words import Intent, encode_word, in_turn, intent_of, merge, probe_of, writer_probe


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET a", Intent((b"a",), False, True)),
        ("SET a 1", Intent((b"a",), True, False)),
        ("DEL a b a", Intent((b"a", b"b"), True, False)),
        ("MSET a 1 b 2", Intent((b"a", b"b"), True, False)),
        ("ZUNIONSTORE to 2 a b", Intent((b"to",), True, False)),
        ("COPY from to", Intent((b"to",), True, False)),
        ("SORT a STORE to", Intent((b"to",), True, False)),
        ("SORT a", Intent((b"a",), False, True)),
        ("SORT_RO a", Intent((b"a",), False, True)),
        ("BLPOP a b 0", Intent((b"a", b"b"), True, False, blocks=True)),
        ("WAIT 1 0", Intent((), False, False, blocks=True)),
        ("ZUNION 2 a b", Intent((b"a", b"b"), False, True)),
        ("ZUNION x a b", Intent((), False, True)),
        ("LMPOP x a b", Intent((), True, False)),
        ("OBJECT ENCODING a", Intent((b"a",), False, True)),
        ("PING", Intent((), False, True)),
        ("INFO server", Intent((), False, True)),
        ("PUBLISH channel message", Intent((), False, False)),
        ("FLUSHALL", Intent((), True, False)),
        ("JSON.SET a x", Intent((b"a",), True, False)),
        ("NOSUCH", Intent((), True, False)),
        ("SORT", Intent((), True, False)),
    ],
)
def test_a_command(line: str, expected: Intent) -> None:
    words = [word.encode() for word in line.split()]
    assert intent_of(words) == expected
    assert intent_of([words[0].lower(), *words[1:]]) == expected


@pytest.mark.parametrize(
    "name", ["MULTI", "WATCH", "SUBSCRIBE", "SELECT", "client", "AUTH", "HELLO", "MONITOR", "PSYNC"]
)
def test_what_needs_a_connection_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match="needs a connection"):
        intent_of([name.encode(), b"x"])


def test_a_command_has_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        intent_of([])


def test_several_commands_go_where_the_first_write_goes() -> None:
    read, write, none = Intent((b"r",), False, True), Intent((b"w",), True, False), Intent((), False, True)
    assert in_turn([none, read]) == read
    assert in_turn([read, write, Intent((b"v",), True, False)]) == write
    assert in_turn([none]) == none
    assert in_turn([none, probe_of([b"r"]), read]) == probe_of([b"r"])


def test_what_is_done_together_is_about_all_keys_that_are_written() -> None:
    read, write, none = Intent((b"r",), False, True), Intent((b"w",), True, False), Intent((), False, True)
    assert merge([none, read, read]) == read
    assert merge([read, write, Intent((b"v", b"w"), True, False)]) == Intent((b"w", b"v"), True, False)
    assert merge([none]) == none


@pytest.mark.parametrize(
    ("word", "encoded"), [("é", b"\xc3\xa9"), (b"\xff", b"\xff"), (-3, b"-3"), (1e300, b"1e+300"), ("\udcff", b"\xff")]
)
def test_a_word(word: Any, encoded: bytes) -> None:
    assert encode_word(word) == encoded


@pytest.mark.parametrize("word", [True, None, [b"x"], bytearray(b"x")])
def test_what_is_no_word(word: Any) -> None:
    with pytest.raises(TypeError):
        encode_word(word)


@pytest.mark.parametrize("keys", [[b"k"], [b"k", b"l"], [b"k", b"l", b"m"]])
def test_asking_for_the_writer_is_a_write(keys: list[bytes]) -> None:
    assert intent_of(writer_probe(keys)) == Intent(tuple(keys), True, False)
    assert probe_of(keys) == Intent(tuple(keys), False, True, at_writer=True)
