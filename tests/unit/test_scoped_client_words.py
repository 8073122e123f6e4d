"""What a scope-following client makes of the words of a command."""

from __future__ import annotations

from typing import Any

import pytest

from kevynode.client_words import Intent, encode_word, intent_of, merge, writer_probe


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET a", Intent(b"a", False, True)),
        ("SET a 1", Intent(b"a", True, False)),
        ("DEL a b", Intent(b"a", True, False)),
        ("MSET a 1 b 2", Intent(b"a", True, False)),
        ("ZUNIONSTORE to 2 a b", Intent(b"to", True, False)),
        ("COPY from to", Intent(b"to", True, False)),
        ("SORT a STORE to", Intent(b"to", True, False)),
        ("SORT_RO a", Intent(b"a", False, True)),
        ("BLPOP a b 0", Intent(b"a", True, False)),
        ("ZUNION 2 a b", Intent(b"a", False, True)),
        ("ZUNION x a b", Intent(None, False, True)),
        ("OBJECT ENCODING a", Intent(b"a", False, True)),
        ("PING", Intent(None, False, True)),
        ("INFO server", Intent(None, False, True)),
        ("PUBLISH channel message", Intent(None, False, False)),
        ("FLUSHALL", Intent(None, True, False)),
        ("JSON.SET a x", Intent(b"a", True, False)),
        ("NOSUCH", Intent(None, True, False)),
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
    read, write, none = Intent(b"r", False, True), Intent(b"w", True, False), Intent(None, False, True)
    assert merge([none, read]) == read
    assert merge([read, write]) == Intent(b"w", True, False)
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


def test_asking_for_the_writer_is_a_write() -> None:
    assert intent_of(writer_probe(b"k")) == Intent(b"k", True, False)
