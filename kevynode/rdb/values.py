"""The values of keys in dump files, of every type and form but streams."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from ..store.values import Hash, List, Set, SortedSet
from .encodings import EncodingError, IntSet, ListPack, Packed, ZipList, ZipMap
from .source import PAUSES, Steps
from .texts import RdbError, TextReader

__all__ = ["LAST_DEADLINE", "ContainerReader"]

#: The store counts in signed 64-bit milliseconds, as Valkey does.
LAST_DEADLINE: Final = 2**63 - 1

_F64: Final = Struct("<d")
_I64: Final = Struct("<q")

#: Elements that are handled together; even, since some come in pairs.
_SLICE: Final = 512
#: The work that several texts and numbers one by one are.
_SEVERAL: Final = 4

# The nodes of a list of the second kind: one element as it is, or a listpack.
_PLAIN_NODE: Final = 1
_PACKED_NODE: Final = 2

_NO_DEADLINE: Final = -1
#: The longest a 64-bit number gets.
_NUMBER_SIZE: Final = 20


class ContainerReader(TextReader):
    """Reads lists, sets, sorted sets and hashes into values of epoch ``epoch``.

    An element that comes twice where it must not is an error; containers may come out empty. Fields whose deadline is
    before ``now_ms`` (unix ms; 0: none is) are left out and counted in ``expired_fields``.
    """

    def __init__(self, epoch: int = 0, now_ms: int = 0) -> None:
        self.epoch = epoch
        self.now_ms = now_ms
        self.expired_fields = 0
        super().__init__()

    # -- blobs --------------------------------------------------------------------------------------------------------

    def _packed(self, form: Callable[[bytes], Packed]) -> Steps[tuple[Packed, int]]:
        """The next text as a blob of some form, and the input's offset of that text."""
        start = self.source.offset
        blob = yield from self._text()
        try:
            return form(blob), start
        except EncodingError as error:
            raise self._blob_error(error, start) from None

    def _blob_error(self, error: EncodingError, start: int) -> RdbError:
        """What is wrong with a blob that came at the input's offset ``start``."""
        return self._error(f"{error.reason}, at byte {error.place} of it", start)

    def _elements(self, packed: Packed, start: int) -> list[bytes]:
        """The next elements of a blob that came at the input's offset ``start``; none at the end."""
        try:
            return packed.take(_SLICE)
        except EncodingError as error:
            raise self._blob_error(error, start) from None

    def _pairs(self, packed: Packed, start: int, width: int = 2) -> list[bytes]:
        """As :meth:`_elements`, for elements that come in pairs, or ``width`` together."""
        elements = self._elements(packed, start)
        if len(elements) % width:
            # _SLICE is no multiple of three.
            missing = width - len(elements) % width
            try:
                more = packed.take(missing) if len(elements) == _SLICE else []
            except EncodingError as error:
                raise self._blob_error(error, start) from None
            if len(more) < missing:
                raise self._error("a field without a value, or a member without a score", start)
            elements += more
        return elements

    # -- lists --------------------------------------------------------------------------------------------------------

    def _list(self) -> Steps[List]:
        value = List(self.epoch)
        missing = yield from self._length()
        while missing:
            texts = yield from self._texts(min(missing, _SLICE))
            value.extend_right(texts)
            missing -= len(texts)
            if self._is_tired(len(texts)):
                yield PAUSES
        return value

    def _list_ziplist(self) -> Steps[List]:
        value = List(self.epoch)
        yield from self._add_elements(value, ZipList)
        return value

    def _quicklist(self) -> Steps[List]:
        value = List(self.epoch)
        for _ in range((yield from self._length())):
            yield from self._add_elements(value, ZipList)
            if self._is_tired(_SEVERAL):
                yield PAUSES
        return value

    def _quicklist_2(self) -> Steps[List]:
        value = List(self.epoch)
        for _ in range((yield from self._length())):
            start = self.source.offset
            kind = yield from self._length()
            if kind == _PACKED_NODE:
                yield from self._add_elements(value, ListPack)
            elif kind == _PLAIN_NODE:
                value.push_right((yield from self._text()))
            else:
                raise self._error(f"a list has a node of the unknown kind {kind}", start)
            if self._is_tired(_SEVERAL):
                yield PAUSES
        return value

    def _add_elements(self, value: List, form: Callable[[bytes], Packed]) -> Steps[None]:
        packed, start = yield from self._packed(form)
        while elements := self._elements(packed, start):
            value.extend_right(elements)
            if self._is_tired(len(elements)):
                yield PAUSES

    # -- sets ---------------------------------------------------------------------------------------------------------

    def _set(self) -> Steps[Set]:
        start = self.source.offset
        value = Set(self.epoch)
        missing = yield from self._length()
        while missing:
            texts = yield from self._texts(min(missing, _SLICE))
            value = self._with_members(value, texts, start)
            missing -= len(texts)
            if self._is_tired(len(texts)):
                yield PAUSES
        return value

    def _set_intset(self) -> Steps[Set]:
        return (yield from self._packed_set(IntSet))

    def _set_listpack(self) -> Steps[Set]:
        return (yield from self._packed_set(ListPack))

    def _packed_set(self, form: Callable[[bytes], Packed]) -> Steps[Set]:
        value = Set(self.epoch)
        packed, start = yield from self._packed(form)
        while elements := self._elements(packed, start):
            value = self._with_members(value, elements, start)
            if self._is_tired(len(elements)):
                yield PAUSES
        return value

    def _with_members(self, value: Set, members: list[bytes], start: int) -> Set:
        """A set of what ``value`` holds and ``members``; it may be ``value``."""
        expected = len(value) + len(members)
        if len(value):
            for member in members:
                value.add(member)
        else:
            value = Set.of(members, self.epoch)
        if len(value) != expected:
            raise self._error("a set holds a member twice", start)
        return value

    # -- sorted sets --------------------------------------------------------------------------------------------------

    def _sorted_set(self) -> Steps[SortedSet]:
        return (yield from self._plain_sorted_set(self._text_score))

    def _sorted_set_2(self) -> Steps[SortedSet]:
        return (yield from self._plain_sorted_set(self._double))

    def _plain_sorted_set(self, read_score: Callable[[], Steps[float]]) -> Steps[SortedSet]:
        start = self.source.offset
        value = SortedSet(self.epoch)
        scores: dict[bytes, float] = {}
        count = missing = yield from self._length()
        while missing:
            member = yield from self._text()
            scores[member] = yield from read_score()
            missing -= 1
            if not missing or not missing % _SLICE:
                value = self._with_scores(value, scores, start)
                scores = {}
            if self._is_tired(_SEVERAL):
                yield PAUSES
        if len(value) != count:
            raise self._error("a sorted set holds a member twice", start)
        return value

    def _text_score(self) -> Steps[float]:
        source = self.source
        start = source.offset
        size = (yield from source.take(1))[0]
        if size == 254:
            return float("inf")
        if size == 255:
            return float("-inf")
        if size == 253:
            raise self._error("a score is not a number", start)
        return self._score((yield from source.take(size)), start)

    def _double(self) -> Steps[float]:
        start = self.source.offset
        (score,) = _F64.unpack((yield from self.source.take(8)))
        if score != score:
            raise self._error("a score is not a number", start)
        return float(score)

    def _score(self, text: bytes, start: int) -> float:
        try:
            score = float(text)
        except ValueError:
            score = float("nan")
        # Python would take digits in groups.
        if score != score or b"_" in text:
            raise self._error("a score is not a number", start)
        return score

    def _sorted_set_ziplist(self) -> Steps[SortedSet]:
        return (yield from self._packed_sorted_set(ZipList))

    def _sorted_set_listpack(self) -> Steps[SortedSet]:
        return (yield from self._packed_sorted_set(ListPack))

    def _packed_sorted_set(self, form: Callable[[bytes], Packed]) -> Steps[SortedSet]:
        value = SortedSet(self.epoch)
        packed, start = yield from self._packed(form)
        count = 0
        while elements := self._pairs(packed, start):
            texts = iter(elements)
            scores = {member: self._score(text, start) for member, text in zip(texts, texts, strict=True)}
            count += len(elements) // 2
            value = self._with_scores(value, scores, start)
            if self._is_tired(len(elements)):
                yield PAUSES
        if len(value) != count:
            raise self._error("a sorted set holds a member twice", start)
        return value

    def _with_scores(self, value: SortedSet, scores: dict[bytes, float], start: int) -> SortedSet:
        """A sorted set of what ``value`` holds and ``scores``; it may be ``value``."""
        if not len(value):
            return SortedSet.of(scores, self.epoch)
        for member, score in scores.items():
            # Adding zero turns a negative zero into zero.
            value.put(member, score + 0.0)
        return value

    # -- hashes -------------------------------------------------------------------------------------------------------

    def _hash(self) -> Steps[Hash]:
        start = self.source.offset
        value = Hash(self.epoch)
        missing = 2 * (yield from self._length())
        while missing:
            texts = yield from self._texts(min(missing, _SLICE))
            if len(texts) & 1:
                texts.append((yield from self._text()))
            self._put_pairs(value, texts, start)
            missing -= len(texts)
            if self._is_tired(len(texts)):
                yield PAUSES
        return value

    def _hash_zipmap(self) -> Steps[Hash]:
        return (yield from self._packed_hash(ZipMap))

    def _hash_ziplist(self) -> Steps[Hash]:
        return (yield from self._packed_hash(ZipList))

    def _hash_listpack(self) -> Steps[Hash]:
        return (yield from self._packed_hash(ListPack))

    def _packed_hash(self, form: Callable[[bytes], Packed]) -> Steps[Hash]:
        value = Hash(self.epoch)
        packed, start = yield from self._packed(form)
        while elements := self._pairs(packed, start):
            self._put_pairs(value, elements, start)
            if self._is_tired(len(elements)):
                yield PAUSES
        return value

    def _put_pairs(self, value: Hash, texts: list[bytes], start: int) -> None:
        put = value.put_keeping_deadline
        pairs = iter(texts)
        for field, content in zip(pairs, pairs, strict=True):
            if not put(field, content):
                raise self._error("a hash holds a field twice", start)

    # -- hashes whose fields have deadlines ---------------------------------------------------------------------------

    def _hash_2(self) -> Steps[Hash]:
        """Valkey's from 9.0 on: behind each value its deadline, -1 for none."""
        start = self.source.offset
        value = Hash(self.epoch)
        for _ in range((yield from self._length())):
            field = yield from self._text()
            content = yield from self._text()
            (deadline,) = _I64.unpack((yield from self.source.take(8)))
            self._put_field(value, field, content, None if deadline == _NO_DEADLINE else deadline, start)
            if self._is_tired(_SEVERAL):
                yield PAUSES
        return value

    def _hash_metadata(self) -> Steps[Hash]:
        """Redis' from 7.4 on: the lowest deadline, then before each field its own above that, plus one; 0 for none."""
        start = self.source.offset
        value = Hash(self.epoch)
        (lowest,) = _I64.unpack((yield from self.source.take(8)))
        for _ in range((yield from self._length())):
            above = yield from self._length()
            field = yield from self._text()
            content = yield from self._text()
            self._put_field(value, field, content, lowest + above - 1 if above else None, start)
            if self._is_tired(_SEVERAL):
                yield PAUSES
        return value

    def _hash_listpack_deadlines(self) -> Steps[Hash]:
        """Redis' small ones from 7.4 on: the lowest deadline, then field, value and deadline in turn, 0 for none."""
        yield from self.source.take(8)
        value = Hash(self.epoch)
        packed, start = yield from self._packed(ListPack)
        while elements := self._pairs(packed, start, 3):
            for place in range(0, len(elements), 3):
                field, content, told = elements[place : place + 3]
                if not told.lstrip(b"-").isdigit() or len(told) > _NUMBER_SIZE:
                    raise self._error("the deadline of a field is not a number", start)
                self._put_field(value, field, content, int(told) or None, start)
            if self._is_tired(len(elements)):
                yield PAUSES
        return value

    def _put_field(self, value: Hash, field: bytes, content: bytes, deadline: int | None, start: int) -> None:
        if deadline is not None and deadline < self.now_ms:
            self.expired_fields += 1
            return
        if not value.put_keeping_deadline(field, content):
            raise self._error("a hash holds a field twice", start)
        if deadline is not None:
            value.set_deadline(field, min(max(deadline, 0), LAST_DEADLINE))
