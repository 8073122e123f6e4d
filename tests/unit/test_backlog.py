"""The backlog gives every reader exactly the entries behind its cursor, or says that it cannot."""

from __future__ import annotations

import pytest
from support.backlogs import ALL, effect, put, read, read_filtered, shown
from support.stream_text import parse

from kevynode.replicate import backlog as backlog_module
from kevynode.replicate.backlog import Backlog, Future, NotABoundary, TooOld
from kevynode.replicate.block import BLOCK_SIZE
from kevynode.replicate.wire import Frames, StreamDecoder, encode_frames
from kevynode.store.journal import Journal


def test_entries_come_out_as_frames_and_groups_with_a_line_before_them() -> None:
    backlog = Backlog(1 << 20, 7)
    put(backlog, "SET a 1")
    put(backlog, "DEL b", "RPUSH c x y")
    backlog.seal()
    cursor = backlog.cursor(7)
    assert b"".join(backlog.read(cursor, ALL, True)) == (
        b"*2\r\n:7\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"
        b"+TXN 2\r\n*2\r\n:8\r\n*2\r\n$3\r\nDEL\r\n$1\r\nb\r\n"
        b"*2\r\n:9\r\n*4\r\n$5\r\nRPUSH\r\n$1\r\nc\r\n$1\r\nx\r\n$1\r\ny\r\n"
    )
    assert cursor.offset == backlog.next == 10
    assert backlog.read(cursor, ALL, True) == []


def test_readers_who_know_no_groups_get_the_same_frames_without_the_lines() -> None:
    backlog = Backlog(1 << 20, 0)
    put(backlog, "SET a 1", "SET b 2")
    put(backlog, "SET c 3")
    put(backlog, "SET d 4", "SET e 5")
    backlog.seal()
    assert read(backlog, backlog.cursor(0), grouped=False) == "0:SET a 1 1:SET b 2 2:SET c 3 3:SET d 4 4:SET e 5"
    assert read(backlog, backlog.cursor(2), grouped=False) == "2:SET c 3 3:SET d 4 4:SET e 5"


def test_what_was_not_sealed_counts_but_is_not_read() -> None:
    backlog = Backlog(1 << 20, 3)
    put(backlog, "SET a 1")
    put(backlog, "SET b 2")
    cursor = backlog.cursor(3)
    assert backlog.next == 5
    assert backlog.first == 3
    assert read(backlog, cursor) == ""
    backlog.seal()
    assert read(backlog, cursor) == "3:SET a 1 4:SET b 2"


def test_a_journal_can_be_observed_into_it() -> None:
    journal = Journal(40)
    backlog = Backlog(1 << 20, journal.offset)
    journal.observers.append(lambda _first, group: backlog.add(group))
    for number in range(1200):
        journal.pending.append(effect("SET", "k", str(number)))
        journal.commit()
    assert backlog.next == journal.offset == 1240
    backlog.seal()
    frames = list(parse(b"".join(backlog.read(backlog.cursor(40), ALL, True))))
    assert [number for _, number, _ in frames] == list(range(40, 1240))


def test_all_links_share_one_object() -> None:
    backlog = Backlog(1 << 20, 0)
    one, other = backlog.cursor(0), backlog.cursor(0)
    put(backlog, "SET a 1")
    backlog.seal()
    assert backlog.read(one, ALL, True)[0] is backlog.read(other, ALL, False)[0]


def test_it_tells_once_that_there_is_something_to_send_until_that_is_sealed() -> None:
    calls: list[int] = []
    backlog = Backlog(1 << 20, 0)
    backlog.on_pending = lambda: calls.append(backlog.next)
    put(backlog, "SET a 1")
    put(backlog, "SET b 1", own=False)
    backlog.add_raw(2, 1, encode_frames(2, [[b"DEL", b"a"]]))
    assert calls == [1]
    backlog.seal()
    backlog.add_raw(3, 1, encode_frames(3, [[b"DEL", b"a"]]))
    put(backlog, "SET b 1")
    assert calls == [1, 4]
    backlog.seal()
    backlog.seal()
    assert calls == [1, 4]


def test_it_seals_by_itself_when_much_is_pending() -> None:
    calls: list[int] = []
    backlog = Backlog(1 << 20, 0)
    backlog.on_pending = lambda: calls.append(backlog.next)
    cursor = backlog.cursor(0)
    for _ in range(backlog_module.PENDING_LIMIT + 1):
        put(backlog, "SET a 1")
    assert read(backlog, cursor).startswith("0:SET a 1 1:SET a 1")
    assert cursor.offset == backlog_module.PENDING_LIMIT
    # Who was told has not looked yet, and need not be told again.
    assert calls == [1]


def test_a_group_that_is_too_large_for_the_wire_goes_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "GROUP_LIMIT", 2)
    backlog = Backlog(1 << 20, 0)
    put(backlog, "SET a 1", "SET b 2", "SET c 3", "SET d 4")
    backlog.seal()
    assert read(backlog, backlog.cursor(0)) == "(2 0:SET a 1 1:SET b 2 (2 2:SET c 3 3:SET d 4"
    assert backlog.on_boundary(2)


# Frames from upstream.


def test_frames_from_upstream_are_passed_on_byte_for_byte() -> None:
    backlog = Backlog(1 << 20, 10)
    odd = b"*2\r\n:0010\r\n*3\r\n$03\r\nset\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n:11\r\nDEL a\r\n"
    group = encode_frames(12, [[b"SET", b"b", b"1"], [b"SET", b"c", b"2"]])
    backlog.add_raw(10, 2, odd)
    backlog.add_raw(12, 2, group, True)
    backlog.add_raw(14, 1, encode_frames(14, [[b"DEL", b"b"]]), True)
    backlog.seal()
    data = b"".join(backlog.read(backlog.cursor(10), ALL, True))
    assert data == odd + b"+TXN 2\r\n" + group + b"*2\r\n:14\r\n*2\r\n$3\r\nDEL\r\n$1\r\nb\r\n"
    assert read(backlog, backlog.cursor(11)).startswith("11:DEL a (2 12:")
    assert read_filtered(backlog, backlog.cursor(10), "c") == (">13 13:SET c 2", 14)
    assert read_filtered(backlog, backlog.cursor(10), "a") == ("10:set a 1 11:DEL a", 12)
    with pytest.raises(NotABoundary):
        backlog.cursor(13)


def test_frames_from_upstream_must_be_the_next_ones() -> None:
    backlog = Backlog(1 << 20, 10)
    put(backlog, "SET a 1")
    for first in (10, 12):
        with pytest.raises(ValueError, match=f"expected the entry at offset 11, not {first}"):
            backlog.add_raw(first, 1, encode_frames(first, [[b"DEL", b"a"]]))
    assert backlog.next == 11


# Cursors.


def test_cursors_stand_on_group_boundaries_of_what_is_held() -> None:
    backlog = Backlog(1 << 20, 5)
    put(backlog, "SET a 1")
    put(backlog, "SET b 2", "SET c 3", "SET d 4")
    put(backlog, "SET e 5")
    for sealed in (False, True):
        if sealed:
            backlog.seal()
        with pytest.raises(TooOld) as too_old:
            backlog.cursor(4)
        assert str(too_old.value) == "offset 4 is older than what is held: 5 to 10"
        with pytest.raises(Future) as future:
            backlog.cursor(11)
        assert (future.value.offset, future.value.first, future.value.next) == (11, 5, 10)
        for offset in (7, 8):
            with pytest.raises(NotABoundary) as inside:
                backlog.cursor(offset)
            assert str(inside.value) == f"offset {offset} is inside the group 6 to 9"
        boundaries = [offset for offset in range(3, 13) if backlog.on_boundary(offset)]
        assert boundaries == [5, 6, 9, 10]
        assert [backlog.cursor(offset).offset for offset in boundaries] == boundaries


def test_a_limit_ends_a_read_at_a_part_and_the_next_one_goes_on() -> None:
    backlog = Backlog(1 << 20, 0)
    for number in range(5):
        put(backlog, f"SET k {number}")
        backlog.seal()
    cursor = backlog.cursor(0)
    assert read(backlog, cursor, 1) == "0:SET k 0"
    assert read(backlog, cursor, 40) == "1:SET k 1 2:SET k 2"
    assert cursor.offset == 3
    assert read(backlog, cursor, 0) == ""
    assert read(backlog, cursor) == "3:SET k 3 4:SET k 4"


def test_a_cursor_that_falls_off_says_so_and_one_that_has_read_all_does_not() -> None:
    backlog = Backlog(0, 0)
    behind, ahead = backlog.cursor(0), backlog.cursor(0)
    for number in range(3):
        backlog.add([effect("SET", "k", b"x" * BLOCK_SIZE)])
        backlog.seal()
        if number < 2:
            assert backlog.read(ahead, ALL, True)
    assert backlog.first == 2
    with pytest.raises(TooOld) as error:
        backlog.read(behind, ALL, True)
    assert (error.value.offset, error.value.first, error.value.next) == (0, 2, 3)
    with pytest.raises(TooOld):
        backlog.read_filtered(behind, lambda key: True, ALL)
    with pytest.raises(TooOld):
        backlog.skip_flush(behind)
    assert [number for _, number, _ in parse(b"".join(backlog.read(ahead, ALL, True)))] == [2]


def test_reset_forgets_everything_and_ends_what_points_into_it() -> None:
    backlog = Backlog(1 << 20, 0)
    put(backlog, "SET a 1")
    backlog.seal()
    cursor, pin = backlog.cursor(1), backlog.pin(0)
    put(backlog, "SET b 1")
    backlog.reset(1)
    assert (backlog.first, backlog.next, pin.lost) == (1, 1, True)
    put(backlog, "SET c 1")
    backlog.seal()
    # The same number is another entry now.
    with pytest.raises(TooOld):
        backlog.read(cursor, ALL, True)
    assert read(backlog, backlog.cursor(1)) == "1:SET c 1"
    pin.move(1)
    pin.release()
    assert pin.lost


# Flushes.


def test_readers_who_know_no_flush_stop_before_it() -> None:
    backlog = Backlog(1 << 20, 0)
    put(backlog, "SET a 1")
    put(backlog, "FLUSHALL")
    put(backlog, "SET b FLUSHALL")
    put(backlog, "SET c 1", "FLUSH FLUSHALL", "SET d 1")
    put(backlog, "FLUSHALL", "SET e 1")
    raw = encode_frames(8, [[b"SET", b"f", b"1"], [b"fLushAll"], [b"SET", b"g", b"1"]])
    backlog.add_raw(8, 3, raw)
    backlog.seal()
    assert read(backlog, backlog.cursor(1)).startswith("1:FLUSHALL 2:SET b FLUSHALL (3 3:SET c 1 4:FLUSH FLUSHALL")
    cursor = backlog.cursor(0)
    reads = []
    while cursor.offset < backlog.next:
        reads.append(read(backlog, cursor, grouped=False))
        if cursor.at_flush:
            reads.append(f"-- {cursor.offset}")
            # It stands there until it is told to go on, and then only once.
            assert backlog.read(cursor, ALL, False) == []
            backlog.skip_flush(cursor)
            backlog.skip_flush(cursor)
    assert reads == [
        "0:SET a 1",
        "-- 1",
        "2:SET b FLUSHALL 3:SET c 1 4:FLUSH FLUSHALL 5:SET d 1",
        "-- 6",
        "7:SET e 1 8:SET f 1",
        "-- 9",
        "10:SET g 1",
    ]


# Filtered reading.


def test_a_filtered_reader_gets_its_keys_and_is_told_of_what_it_skips() -> None:
    backlog = Backlog(1 << 20, 0)
    put(backlog, "SET a 1")
    put(backlog, "SET x 1")
    put(backlog, "DEL a")
    put(backlog, "XGROUP CREATE a g 0")
    put(backlog, "XGROUP CREATE x a 0")
    put(backlog, "FLUSHALL")
    put(backlog, "SET x 2")
    backlog.seal()
    cursor = backlog.cursor(0)
    expected = "0:SET a 1 >2 2:DEL a 3:XGROUP CREATE a g 0 >5 5:FLUSHALL"
    assert read_filtered(backlog, cursor, "a") == (expected, 6)
    assert cursor.offset == 7
    put(backlog, "SET a 3")
    backlog.seal()
    # What was skipped at the end is told before the next frame, unless it was told already.
    assert read_filtered(backlog, cursor, "a", 6) == (">7 7:SET a 3", 8)
    assert read_filtered(backlog, backlog.cursor(7), "a") == ("7:SET a 3", 8)


def test_entries_of_other_nodes_do_not_go_on_filtered_links() -> None:
    backlog = Backlog(1 << 20, 0)
    put(backlog, "SET a 0", own=False)
    put(backlog, "SET a 1")
    put(backlog, "SET a 2", "SET a 3", own=False)
    put(backlog, "SET a 4")
    backlog.add_raw(5, 1, encode_frames(5, [[b"SET", b"a", b"5"]]), False, False)
    for sealed in (False, True):
        if sealed:
            backlog.seal()
            backlog.add([effect("SET", "b", b"x" * BLOCK_SIZE)], False)
            backlog.seal()
        cursor = backlog.cursor(0)
        assert read_filtered(backlog, cursor, "a") == (">1 1:SET a 1 >4 4:SET a 4", 5)
        assert cursor.offset == backlog.next
    assert read_filtered(backlog, backlog.cursor(2), "a") == (">4 4:SET a 4", 5)


def test_of_a_group_what_is_left_stays_a_group_and_ends_behind_all_of_it() -> None:
    backlog = Backlog(1 << 20, 0)
    put(backlog, "SET a 0", "SET x 1", "SET a 2", "SET x 3")
    put(backlog, "SET x 4", "SET a 5")
    put(backlog, "SET x 6", "SET x 7")
    put(backlog, "SET a 8", "SET a 9")
    backlog.seal()
    cursor = backlog.cursor(0)
    parts, reached = backlog.read_filtered(cursor, lambda key: key == b"a", ALL)
    text = "(2 0:SET a 0 >2 2:SET a 2 >4 >5 5:SET a 5 >8 (2 8:SET a 8 9:SET a 9"
    assert (shown(b"".join(parts)), reached) == (text, 10)
    # And it is what the other end understands.
    decoder = StreamDecoder()
    frames = [event for event in decoder.feed(b"".join(parts)) if isinstance(event, Frames)]
    assert decoder.error is None
    assert [(event.first, len(event.commands), event.grouped) for event in frames] == [
        (0, 2, True),
        (5, 1, False),
        (8, 2, True),
    ]


def test_a_filtered_read_looks_at_no_more_than_its_limit_at_once() -> None:
    backlog = Backlog(1 << 30, 0)
    for _ in range(3):
        for _ in range(400):
            backlog.add([effect("SET", "x", b"v" * 200)])
        backlog.seal()
    cursor = backlog.cursor(0)
    seen: list[bytes] = []

    def refuse(key: bytes) -> bool:
        seen.append(key)
        return False

    steps = 0
    while cursor.offset < backlog.next:
        before = cursor.offset
        assert backlog.read_filtered(cursor, refuse, 1, 0) == ([], 0)
        assert 0 < cursor.offset - before <= BLOCK_SIZE // 200
        steps += 1
    assert len(seen) == 1200
    assert steps >= 4


# The budget.


def test_it_tells_about_how_many_bytes_follow_an_offset() -> None:
    backlog = Backlog(1 << 20, 0)
    value = "x" * 1000
    for number in range(300):
        put(backlog, f"SET key{number:03} {value}")
    backlog.seal()
    total = sum(map(len, backlog.read(backlog.cursor(0), ALL, True)))
    assert backlog.bytes_from(0) == total
    assert backlog.bytes_from(300) == 0
    for offset in (1, 60, 150, 299):
        expected = sum(map(len, backlog.read(backlog.cursor(offset), ALL, True)))
        assert abs(backlog.bytes_from(offset) - expected) < 100


def test_a_group_of_too_many_bytes_goes_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "_GROUP_SIZE", 20)
    backlog = Backlog(1 << 20, 0)
    cursor = backlog.cursor(0)
    put(backlog, "SET a 1", "SET b 2", "SET c 12345678901234567890", "SET d 4", "SET e 5")
    assert read(backlog, cursor) == "(2 0:SET a 1 1:SET b 2 2:SET c 12345678901234567890 (2 3:SET d 4 4:SET e 5"
