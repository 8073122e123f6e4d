"""Scopes and routings as values; the package as a whole."""

from __future__ import annotations

import doctest
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kevynode.scope
from kevynode.scope import Migration, Routing, Scope

GUIDE = Path(__file__).parents[2] / "docs" / "scopes.md"


@pytest.mark.parametrize(
    ("prefix", "key", "matches"),
    [
        (b"app:", b"app:1", True),
        (b"app:", b"app:", True),
        (b"app:", b"app", False),
        (b"app:", b"xapp:", False),
        (b"", b"", True),
        (b"\xff\x00", b"\xff\x00\xff", True),
        ("é", "è", False),
        ("é", "été", True),
    ],
)
def test_matches(prefix: bytes | str, key: bytes | str, matches: bool) -> None:
    assert Scope(prefix, "a").matches(key) is matches


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((b"p", ""), ValueError, "the writer of a scope is a node id, and not empty"),
        ((b"p", "a", ""), ValueError, "the fallback of a scope is a node id, and not empty"),
        ((b"p", "a", "a"), ValueError, "fallback and writer are the same node: 'a'"),
        (("\ud800", "a"), ValueError, "surrogates not allowed"),
        ((b"p", b"a"), TypeError, "the writer of a scope is a node id, str, not bytes"),
        ((b"p", "a", 7), TypeError, "the fallback of a scope is a node id, str, not int"),
        ((bytearray(b"p"), "a"), TypeError, "a prefix is bytes or str, not bytearray"),
        ((None, "a"), TypeError, "a prefix is bytes or str, not NoneType"),
    ],
)
def test_what_is_no_scope(arguments: tuple[object, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Scope(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "same", "others"),
    [
        (Scope(b"p", "a", "b"), Scope("p", "a", fallback="b"), [Scope(b"p", "a"), Scope(b"q", "a", "b")]),
        (Routing.Owned(), Routing.Owned(), [Routing.Unscoped(), Routing.Misdirected("a"), True]),
        (Routing.Unscoped(), Routing.Unscoped(), [Routing.Owned(), None]),
        (Routing.Misdirected("a"), Routing.Misdirected("a"), [Routing.Misdirected("b"), Routing.Owned(), "a"]),
        (Migration(b"p", "a", "b"), Migration("p", "a", "b"), [Migration(b"p", "b", "a"), (b"p", "a", "b")]),
    ],
)
def test_values_are_what_they_hold(one: object, same: object, others: list[object]) -> None:
    names = {"Scope": Scope, "Routing": Routing, "Migration": Migration}
    for equal in (same, pickle.loads(pickle.dumps(one)), eval(repr(one), names)):
        assert equal == one
        assert hash(equal) == hash(one)
    for other in others:
        assert other != one


@pytest.mark.parametrize(
    ("value", "name"),
    [(Scope(b"p", "a"), "writer"), (Routing.Misdirected("a"), "target"), (Migration(b"p", "a", "b"), "source")],
)
def test_values_cannot_be_changed(value: object, name: str) -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(value, name, "b")
    with pytest.raises(AttributeError, match="cannot be changed"):
        delattr(value, name)
    assert getattr(value, name) == "a"


@pytest.mark.parametrize(
    ("routing", "owned", "misdirected", "target"),
    [
        (Routing.Owned(), True, False, None),
        (Routing.Misdirected("a"), False, True, "a"),
        (Routing.Unscoped(), False, False, None),
    ],
)
def test_a_routing_tells_what_it_is(routing: Routing, owned: bool, misdirected: bool, target: str | None) -> None:
    assert isinstance(routing, Routing)
    assert (routing.is_owned, routing.is_misdirected, routing.target) == (owned, misdirected, target)


def test_everything_public_is_there() -> None:
    for name in kevynode.scope.__all__:
        assert getattr(kevynode.scope, name).__doc__
    assert {"Scope", "OwnershipTable", "Routing", "MigrationTable"} <= set(kevynode.scope.__all__)


def test_the_library_needs_nothing_but_python() -> None:
    program = "import sys, kevynode.scope; print(*{n.partition('.')[0] for n in sys.modules} - sys.stdlib_module_names)"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    plain = subprocess.run(
        [sys.executable, "-c", program.replace(", kevynode.scope", "")], check=True, capture_output=True, text=True
    ).stdout
    assert set(shown.split()) - set(plain.split()) == {"kevynode"}


def test_the_examples_of_the_guide_run() -> None:
    blocks = re.findall(r"```pycon\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, GUIDE.name, str(GUIDE), 0)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted > 10
    assert result.failed == 0
