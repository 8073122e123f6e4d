"""The table of scopes: what it refuses, and whose a key is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevynode.scope import DuplicatePrefix, NestedPrefix, OwnershipError, OwnershipTable, Routing, Scope
from kevynode.scope.prefixes import PrefixMap

BILLING = Scope(b"app:billing:", "billing-1", "server-1")
AUTH = Scope(b"app:auth:", "auth-1")
TABLE = OwnershipTable([BILLING, AUTH])

# Few letters, so that prefixes nest and keys hit; some that are no UTF-8, and the largest and smallest byte.
LETTERS = st.sampled_from([b"a", b"b", b":", b"\x00", b"\xff", b"\xc3\xa9"])
WORDS = st.lists(LETTERS, max_size=5).map(b"".join)


def apart(prefixes: list[bytes]) -> list[bytes]:
    """Those of the prefixes that begin with no other one, as a table accepts them."""
    return [one for one in prefixes if not any(one != other and one.startswith(other) for other in prefixes)]


TABLES = st.lists(WORDS, unique=True, max_size=12).map(
    lambda prefixes: OwnershipTable(Scope(prefix, f"n{number % 3}") for number, prefix in enumerate(apart(prefixes)))
)


def naive(table: OwnershipTable, key: bytes) -> Scope | None:
    """The search that the table is compared with: every scope, the longest first."""
    by_length = sorted(table, key=lambda scope: len(scope.prefix), reverse=True)
    return next((scope for scope in by_length if key.startswith(scope.prefix)), None)


@given(TABLES, WORDS)
def test_a_lookup_is_the_longest_prefix(table: OwnershipTable, key: bytes) -> None:
    assert table.lookup(key) == naive(table, key)


@given(TABLES, st.data())
def test_a_lookup_finds_what_is_under_a_prefix(table: OwnershipTable, data: st.DataObject) -> None:
    for scope in table:
        assert table.lookup(scope.prefix + data.draw(WORDS)) == scope


@given(TABLES, WORDS, st.sampled_from(["n0", "n1", "n2", "elsewhere"]), st.sets(st.sampled_from(["n0", "n1", "n2"])))
def test_a_route_follows_from_the_lookup(table: OwnershipTable, key: bytes, self_id: str, down: set[str]) -> None:
    def expected(owner: Callable[[Scope], str]) -> Routing:
        scope = naive(table, key)
        if scope is None:
            return Routing.Unscoped()
        return Routing.Owned() if owner(scope) == self_id else Routing.Misdirected(owner(scope))

    assert table.route(key, self_id) == expected(lambda scope: scope.writer)
    # Nobody has a fallback here.
    assert table.route_with_fallback_state(key, self_id, down.__contains__) == expected(lambda scope: scope.writer)
    twins = OwnershipTable(Scope(scope.prefix, scope.writer, "n3") for scope in table)
    assert twins.route_with_fallback_state(key, self_id, down.__contains__) == expected(
        lambda scope: "n3" if scope.writer in down else scope.writer
    )


@given(st.lists(WORDS, max_size=6))
def test_prefixes_are_refused_exactly_if_two_cover_one_key(prefixes: list[bytes]) -> None:
    clashes = {
        (one, other)
        for number, one in enumerate(prefixes)
        for position, other in enumerate(prefixes)
        if number != position and other.startswith(one)
    }
    scopes = [Scope(prefix, "a") for prefix in prefixes]
    if not clashes:
        assert list(OwnershipTable(scopes)) == sorted(scopes, key=lambda scope: scope.prefix)
        return
    with pytest.raises(OwnershipError) as caught:
        OwnershipTable(scopes)
    first, second = caught.value.scopes
    assert (first.prefix, second.prefix) in clashes
    assert isinstance(caught.value, DuplicatePrefix) == (first.prefix == second.prefix)
    assert isinstance(caught.value, NestedPrefix) == (first.prefix != second.prefix)


def test_a_duplicate_names_the_prefix_and_both_writers() -> None:
    first, second = Scope(b"\xff:", "a"), Scope(b"\xff:", "b")
    with pytest.raises(DuplicatePrefix) as caught:
        OwnershipTable([Scope(b"b", "a"), first, second])
    assert isinstance(caught.value, ValueError)
    assert caught.value.prefix == b"\xff:"
    assert caught.value.scopes == (first, second)
    assert str(caught.value) == "prefix b'\\xff:' is declared twice, for writers 'a' and 'b'"


@pytest.mark.parametrize("turned", [False, True])
def test_a_nested_prefix_is_named_with_the_outer_one(turned: bool) -> None:
    outer, inner = Scope(b"app:", "a"), Scope(b"app:billing:", "b")
    with pytest.raises(NestedPrefix) as caught:
        OwnershipTable([inner, outer] if turned else [outer, inner])
    assert isinstance(caught.value, ValueError)
    assert (caught.value.outer, caught.value.inner) == (b"app:", b"app:billing:")
    assert caught.value.scopes == (outer, inner)
    assert str(caught.value) == "prefix b'app:billing:' is nested in b'app:'"


def test_the_empty_prefix_owns_everything_alone() -> None:
    everything = Scope(b"", "a")
    table = OwnershipTable([everything])
    assert table.lookup(b"") == table.lookup(b"any\x00key") == everything
    with pytest.raises(NestedPrefix, match="stands alone: b'app:' cannot") as caught:
        OwnershipTable([Scope(b"app:", "b"), everything])
    assert (caught.value.outer, caught.value.inner) == (b"", b"app:")


def test_errors_survive_a_pickle() -> None:
    error = NestedPrefix(Scope(b"a", "x"), Scope(b"ab", "y"))
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, NestedPrefix)
    assert (again.scopes, str(again)) == (error.scopes, str(error))


def test_only_scopes_make_a_table() -> None:
    with pytest.raises(TypeError, match="made of scopes, not of tuple"):
        OwnershipTable([(b"app:", "a")])  # type: ignore[list-item]


class CountedKey(bytes):
    """A key that counts how often it, or a part of it, is hashed: that is what a probe of a dictionary does."""

    probes: list[int]

    def __getitem__(self, index: object) -> CountedKey:  # type: ignore[override]
        part = CountedKey(super().__getitem__(index))  # type: ignore[call-overload]
        part.probes = self.probes
        return part

    def __hash__(self) -> int:
        self.probes.append(len(self))
        return super().__hash__()


def probes(table: OwnershipTable, key: bytes, route: bool) -> list[int]:
    """The lengths that are probed for a key."""
    counted = CountedKey(key)
    counted.probes = []
    if route:
        table.route(counted, "a")
    else:
        table.lookup(counted)
    return counted.probes


@pytest.mark.parametrize("route", [False, True])
@pytest.mark.parametrize("count", [1, 10, 1000])
def test_a_thousand_scopes_cost_no_more_than_ten(count: int, route: bool) -> None:
    table = OwnershipTable(Scope(f"app:{number:04}:", "a") for number in range(count))
    assert probes(table, b"app:0000:invoice:42", route) == [9]
    assert probes(table, b"no such key", route) == [9]


@pytest.mark.parametrize("route", [False, True])
def test_a_lookup_probes_once_for_each_length_the_longest_first(route: bool) -> None:
    table = OwnershipTable([Scope(b"aa", "a"), Scope(b"bb", "a"), Scope(b"cccc", "a"), Scope(b"dddddd", "a")])
    assert probes(table, b"no such key", route) == [6, 4, 2]
    assert probes(table, b"cccc:1", route) == [6, 4]
    assert probes(OwnershipTable(), b"key", route) == []


def test_a_prefix_that_is_gone_is_not_probed_for() -> None:
    prefixes: PrefixMap[str] = PrefixMap()
    for prefix in (b"aa", b"bb", b"cccc"):
        prefixes.add(prefix, "here")

    def probed() -> list[int]:
        key = CountedKey(b"no such key")
        key.probes = []
        assert prefixes.longest(key) is None
        return key.probes

    assert probed() == [4, 2]
    for gone, left in ((b"aa", [4, 2]), (b"cccc", [2]), (b"bb", [])):
        assert prefixes.remove(gone) == "here"
        assert probed() == left


@pytest.mark.parametrize(
    ("key", "self_id", "routing"),
    [
        (b"app:billing:42", "billing-1", Routing.Owned()),
        (b"app:billing:42", "auth-1", Routing.Misdirected("billing-1")),
        (b"app:billing:", "server-1", Routing.Misdirected("billing-1")),
        (b"app:billing", "billing-1", Routing.Unscoped()),
        (b"", "billing-1", Routing.Unscoped()),
        ("app:auth:7", "auth-1", Routing.Owned()),
        (b"app:auth:7", "", Routing.Misdirected("auth-1")),
    ],
)
def test_route(key: bytes | str, self_id: str, routing: Routing) -> None:
    assert TABLE.route(key, self_id) == routing


@pytest.mark.parametrize(
    ("key", "self_id", "down", "routing"),
    [
        (b"app:billing:42", "billing-1", [], Routing.Owned()),
        (b"app:billing:42", "server-1", [], Routing.Misdirected("billing-1")),
        (b"app:billing:42", "billing-1", ["billing-1"], Routing.Misdirected("server-1")),
        (b"app:billing:42", "server-1", ["billing-1"], Routing.Owned()),
        (b"app:billing:42", "auth-1", ["billing-1", "server-1"], Routing.Misdirected("server-1")),
        # Without a fallback the writer stays the writer.
        (b"app:auth:7", "auth-1", ["auth-1"], Routing.Owned()),
        (b"app:auth:7", "billing-1", ["auth-1"], Routing.Misdirected("auth-1")),
        (b"other", "billing-1", ["billing-1"], Routing.Unscoped()),
    ],
)
def test_route_with_fallback_state(key: bytes, self_id: str, down: list[str], routing: Routing) -> None:
    assert TABLE.route_with_fallback_state(key, self_id, down.__contains__) == routing


def test_only_writers_with_a_fallback_are_asked_about() -> None:
    asked: list[str] = []

    def is_writer_down(node_id: str) -> bool:
        asked.append(node_id)
        return False

    for key in (b"app:billing:42", b"app:auth:7", b"other"):
        TABLE.route_with_fallback_state(key, "a", is_writer_down)
    assert asked == ["billing-1"]


def test_text_is_taken_as_utf_8() -> None:
    table = OwnershipTable([Scope("é:", "a"), Scope(b"\xff:", "b")])
    assert table.lookup("é:1") == table.lookup(b"\xc3\xa9:1") == Scope(b"\xc3\xa9:", "a")
    assert table.lookup("\udcff:1") == Scope(b"\xff:", "b")
    with pytest.raises(ValueError):
        table.lookup("\ud800")


@pytest.mark.parametrize("key", [bytearray(b"app:auth:7"), 7, None])
def test_what_is_no_key_is_no_miss(key: object) -> None:
    with pytest.raises(TypeError):
        TABLE.lookup(key)  # type: ignore[arg-type]


def test_a_table_is_a_collection_of_its_scopes() -> None:
    assert list(TABLE) == [AUTH, BILLING]
    assert len(TABLE) == 2
    assert BILLING in TABLE
    assert Scope(b"app:billing:", "auth-1") not in TABLE
    assert Scope(b"app:other:", "billing-1") not in TABLE
    assert b"app:auth:" in TABLE
    assert "app:auth:" in TABLE
    assert b"app:auth:7" not in TABLE
    assert 7 not in TABLE
    assert TABLE.declared("app:auth:") == AUTH
    assert TABLE.declared(b"app:auth:7") is None
    assert TABLE.scopes_without_fallback == (AUTH,)
    assert TABLE
    assert not OwnershipTable()


def test_tables_with_the_same_scopes_are_equal() -> None:
    same = OwnershipTable(iter((AUTH, BILLING)))
    assert same == TABLE
    assert hash(same) == hash(TABLE)
    assert repr(same) == repr(TABLE)
    assert eval(repr(TABLE), {"OwnershipTable": OwnershipTable, "Scope": Scope}) == TABLE
    assert OwnershipTable([AUTH]) != TABLE
    assert TABLE != [AUTH, BILLING]
    assert OwnershipTable([AUTH, Scope(b"app:billing:", "billing-1")]) != TABLE


def test_a_copy_routes_as_the_table_does() -> None:
    for again in (pickle.loads(pickle.dumps(TABLE)), copy.deepcopy(TABLE)):
        assert again == TABLE
        assert again.route(b"app:auth:7", "a") == Routing.Misdirected("auth-1")


def test_a_table_cannot_be_changed() -> None:
    changes: list[Callable[[], None]] = [
        lambda: setattr(TABLE, "_scopes", ()),
        lambda: setattr(TABLE, "other", 1),
        lambda: delattr(TABLE, "_scopes"),
    ]
    for change in changes:
        with pytest.raises(AttributeError, match="OwnershipTable cannot be changed"):
            change()
    assert len(TABLE) == 2
