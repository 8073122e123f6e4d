"""What the files are told by copies and promotions, and who resumes from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.replication_harness import FilesProbe, Primary
from support.restoring import OLD, Group, load, restart, words, write

from kevynode.replicate import wire
from kevynode.replicate.lineage import Lineage
from kevynode.replicate.primary_states import State


def with_files(primary: Primary) -> FilesProbe:
    primary.replication.files = files = FilesProbe()
    return files


def test_a_promotion_tells_the_files_its_lineage() -> None:
    primary = Primary()
    files = with_files(primary)
    primary.replication.follow("10.0.0.2", 16004)
    primary.replication.promote()
    assert files.told == [("lineage", primary.replication.lineage)]


def test_a_full_copy_is_told_once_and_a_resumption_only_if_it_changes_the_lineage() -> None:
    primary = Primary()
    replication, files = primary.replication, with_files(primary)
    replication.follow("10.0.0.2", 16004)
    primary.harness.store.journal.offset = 40
    replication.adopt(5, 40, ((4, 9),), "full", "nothing held")
    replication.swapped({})
    assert files.told == [("replaced", Lineage(5, ((4, 9),)), {})]
    assert primary.node.forgotten == 1
    replication.adopt(5, 40, ((4, 9),), "partial", "goes on")
    assert len(files.told) == 1
    replication.adopt(6, 40, ((5, 40), (4, 9)), "partial", "goes on")
    replication.adopt(0, 40, (), "partial", "goes on, and says no history")
    assert files.told[1:] == [("lineage", Lineage(6, ((5, 40), (4, 9))))]
    assert primary.node.forgotten == 1
    # A kevy server that tells no history: the copy gets one of its own.
    replication.adopt(0, 40, (), "full", "flushed")
    assert files.told[2:] == [("replaced", replication.lineage, {})]


def test_a_copy_of_several_streams_tells_where_they_stand() -> None:
    primary = Primary()
    replication, files = primary.replication, with_files(primary)
    replication.upstream_shards = 2
    replication.follow("10.0.0.2", 16004)
    cursors = {"10.0.0.2:16004": (5, 3), "10.0.0.2:16005": (6, 0)}
    replication.swapped(cursors)
    assert files.told == [("replaced", replication.lineage, cursors)]
    replication.note_cursor("10.0.0.2:16004", 5, 4)
    replication.promote()
    assert files.told[1:] == [
        ("cursor", "10.0.0.2:16004", 5, 4),
        ("lineage", replication.lineage),
        ("forget",),
    ]


def test_data_that_have_diverged_are_in_the_files_under_no_known_history() -> None:
    primary = restart("SET a 1", opens=False)
    files = with_files(primary)
    primary.replication.follow("10.0.0.2", 16004)
    primary.replication.diverged()
    ((word, lineage),) = files.told
    assert (word, lineage.ancestors) == ("lineage", ())
    assert lineage.history != primary.replication.history


FOUND = {"up:1": (5, 3), "up:2": (6, 9)}


@pytest.mark.parametrize(
    ("found", "asked", "told"),
    [
        (FOUND, ["up:1", "up:2"], FOUND),
        (FOUND, ["up:1"], {}),
        (FOUND, ["up:1", "up:3"], {}),
        (FOUND, ["up:1", "up:2", "up:3"], {}),
        ({"up:1": (5, 3), "up:2": (0, 9)}, ["up:1", "up:2"], {}),
        ({}, ["up:1"], {}),
    ],
)
def test_streams_go_on_only_where_all_data_come_from_exactly_them(
    found: dict[str, tuple[int, int]], asked: list[str], told: dict[str, tuple[int, int]]
) -> None:
    primary = Primary()
    replication = primary.replication
    replication.upstream_shards = len(asked)
    replication.restored(OLD, 12, found, False, False)
    replication.follow("up", 1)
    assert replication.cursors_of(asked) == told
    assert replication.cursors_of(asked) == {}


@pytest.mark.parametrize("event", ["promoted", "swapped", "opened"])
def test_cursors_that_mean_nothing_more_are_not_told(event: str) -> None:
    primary = Primary()
    replication = primary.replication
    replication.upstream_shards = 2
    replication.restored(OLD, 12, FOUND, False, event == "opened")
    replication.follow("up", 1)
    if event == "promoted":
        replication.promote()
        replication.follow("up", 1)
    elif event == "swapped":
        replication.swapped({})
    assert replication.cursors_of(list(FOUND)) == {}


# -- who resumes from the files sees what those saw who stayed ---------------------------------------------------------

VALUES = st.sampled_from(["1", "x" * 50, "+TXN", "y" * 3000])
COMMANDS = st.one_of(
    st.builds("SET {} {}".format, st.sampled_from("abc"), VALUES),
    st.builds("RPUSH list {}".format, VALUES),
    st.just("FLUSHALL"),
)
GROUPS = st.lists(st.lists(COMMANDS, min_size=1, max_size=4), max_size=12)


@given(before=GROUPS, after=GROUPS, beyond=GROUPS, own=st.booleans(), budget=st.sampled_from([0, 9000, 1 << 20]))
def test_a_replica_that_comes_back_sees_what_one_that_stayed_saw(
    before: list[list[str]], after: list[list[str]], beyond: list[list[str]], own: bool, budget: int
) -> None:
    first = Primary()
    stayed = first.connect()
    first.take(stayed)
    groups = record(first, before)
    seen = first.take(stayed)
    assert seen == b"".join(encoded(0, groups))
    offset = first.replication.position
    # What was streamed, and lost when the node ended.
    record(first, beyond)
    lost = first.replication.position - offset

    second = Primary(backlog_budget=budget)
    assert load(second, 0, groups, own) == offset
    second.replication.restored(first.replication.lineage, offset, {}, False, True)
    second.replication.loading = False
    pieces = encoded(0, groups + record(second, after))
    old = first.replication.history
    place = 0
    for number, group in enumerate([*groups, []]):
        link = second.connect(place, history=old, name=f"r{number}")
        assert (link.state is State.STREAMING) is (place >= second.replication.backlog.first)
        if link.state is State.STREAMING:
            answer, _, rest = second.take(link).partition(b"+LINEAGE")
            assert rest.partition(b"\r\n")[2].rpartition(b"+PING")[0] == b"".join(pieces[number:])
            assert answer.startswith(b"+ACK %d %d\r\n" % (second.replication.history, place))
        place += len(group)
    if lost:
        assert second.connect(offset + lost, history=old, name="ahead").state is State.HANDSHAKE
        assert second.replication.beyond_branch == lost


def record(primary: Primary, groups: list[list[str]]) -> list[Group]:
    """Write these groups; the entries that they came to."""
    recorded: list[Group] = []
    observers = primary.harness.store.journal.observers
    observers.append(lambda _, group: recorded.append([list(effect[0]) for effect in group]))
    for group in groups:
        write(primary, *map(words, group))
    observers.pop()
    return recorded


def encoded(first: int, groups: list[Group]) -> list[bytes]:
    """What goes over the wire for each group."""
    pieces = []
    for group in groups:
        line = wire.group(len(group)) if len(group) > 1 else b""
        pieces.append(line + wire.encode_frames(first, group))
        first += len(group)
    return pieces
