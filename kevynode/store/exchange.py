"""Puts data that were built aside in place of the keys under some prefixes: worked out bit by bit, and done at once.

What is there under the prefixes must not change meanwhile, and as a rule does not: nobody writes there but who brings
the data. If it does all the same, what was worked out is thrown away, and the step takes as long as it takes. Other
keys may change as they like.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from . import notify
from .journal import Effect, Event
from .keyspace import KeyShard, Keyspace
from .prefix_keys import all_keys_under, replace_keys
from .rebuild import rebuild_commands
from .sharded import SHARD_LIMIT
from .staging import PrefixStaging
from .store import Store
from .values import Hash, Value, bytes_memory, value_memory

__all__ = ["PrefixExchange"]

_HASH_BITS: Final = 64
#: Keys that are worked out between two places at which the work can be interrupted: less than a millisecond's work.
_STEP: Final = 200


@attrs.define
class _Part:
    """What changes in one shard's share of hash space: of keys whose hashes share ``bits`` bits with the sample's."""

    bits: int
    sample: bytes
    values: dict[bytes, Value] = attrs.field(factory=dict)
    deadlines: dict[bytes, int] = attrs.field(factory=dict)
    # Keys that go, and keys that lose a deadline.
    gone: list[bytes] = attrs.field(factory=list)
    freed: list[bytes] = attrs.field(factory=list)


class PrefixExchange:
    """An exchange of what ``store`` holds under the prefixes of ``staging``, which must not be used by anybody else.

    Made between two groups of the journal. Take :meth:`prepare` to its end, then call :meth:`finish` once, and take
    :meth:`tidy` to its end whenever there is time; or call :meth:`close`. Nothing here blocks.
    """

    def __init__(self, store: Store, staging: PrefixStaging) -> None:
        #: What is put in place. Freeing its shards takes long, too.
        self.staging = staging
        self._store = store
        self._keyspace: Keyspace = store.keyspace
        self._parts: dict[tuple[int, int], _Part] = {}
        # The effects, those of keys that go before all others.
        self._drops: list[Effect] = []
        self._builds: list[Effect] = []
        # What is replaced, so that it need not be freed all at once.
        self._old: list[Value] = []
        self._field_keys: list[bytes] = []
        self._new_keys: list[bytes] = []
        self._used = self._count = self._changed = 0
        # Whether something under the prefixes has changed, so that nothing of this is true any more.
        self._is_void = False
        self._observes = True
        store.journal.observers.append(self._observe)

    def _observe(self, _offset: int, group: list[Effect]) -> None:
        prefixes = self.staging.prefixes
        for _, key, _ in group:
            if key is None or key.startswith(prefixes):
                self._is_void = True
                return

    def close(self) -> None:
        """Look at changes no more; a second call does nothing."""
        if self._observes:
            self._observes = False
            self._store.journal.observers.remove(self._observe)

    # -- before -------------------------------------------------------------------------------------------------------

    def prepare(self) -> Iterator[None]:
        """Work out what changes. Yields about every half of a millisecond; other groups may be committed meanwhile."""
        yield from self._look_for_what_goes()
        arrived = self.staging.keyspace
        for shard in arrived.shards():
            keys = list(shard)
            for place in range(0, len(keys), _STEP):
                if self._is_void:
                    return
                self._work_out(shard, keys[place : place + _STEP])
                yield

    def _look_for_what_goes(self) -> Iterator[None]:
        """Find the keys that are held and have not arrived, and make room for those that have."""
        prefixes, arrived, keyspace = self.staging.prefixes, self.staging.keyspace, self._keyspace
        position = 0
        while not self._is_void:
            self._make_room(position)
            shard, position = keyspace.shard_at(position)
            for key in shard:
                if key.startswith(prefixes) and key not in arrived:
                    self._drop(key, shard)
            if not position:
                return
            yield

    def _make_room(self, position: int) -> None:
        """Split the shard at a place in hash order until it has room for its share of what has arrived."""
        arrived = self.staging.keyspace
        while True:
            shard, _ = self._keyspace.shard_at(position)
            if len(shard) + (arrived.count >> shard.bits) <= SHARD_LIMIT:
                return
            source, _ = arrived.shard_at(position)
            if source.bits < shard.bits or not source:
                # There is little to come.
                return
            self._keyspace.split(next(iter(source)))

    def _part_of(self, key: bytes, bits: int) -> _Part:
        place = (bits, hash(key) >> (_HASH_BITS - bits) if bits else 0)
        part = self._parts.get(place)
        if part is None:
            part = self._parts[place] = _Part(bits, key)
        return part

    def _drop(self, key: bytes, shard: KeyShard) -> None:
        value = shard[key]
        self._part_of(key, shard.bits).gone.append(key)
        self._old.append(value)
        self._used -= bytes_memory(key) + value_memory(value)
        self._count -= 1
        self._changed += 1
        self._drops.append(((b"DEL", key), key, ((notify.GENERIC, b"del", key),)))

    def _work_out(self, source: KeyShard, keys: list[bytes]) -> None:
        keyspace, is_told = self._keyspace, self._store.settings.notify_keyspace_events
        directory, shift = keyspace.directory, keyspace.shift
        deadlines = source.deadlines
        for key in keys:
            value, deadline = source[key], deadlines.get(key)
            shard = directory[hash(key) >> shift]
            held = shard.get(key)
            before = None if held is None else shard.deadlines.get(key)
            if type(value) is bytes and value == held and deadline == before:
                continue
            part = self._part_of(key, shard.bits)
            part.values[key] = value
            if deadline is not None:
                part.deadlines[key] = deadline
            elif before is not None:
                part.freed.append(key)
            self._changed += 1
            self._used += value_memory(value)
            if held is None:
                self._used += bytes_memory(key)
                self._count += 1
                self._new_keys.append(key)
            else:
                self._used -= value_memory(held)
                self._old.append(held)
            self._tell(key, value, deadline, held, ((notify.GENERIC, b"restore", key),) if is_told else ())

    def _tell(
        self, key: bytes, value: Value, deadline: int | None, held: Value | None, told: tuple[Event, ...]
    ) -> None:
        """Note the effects that replace a key."""
        builds = self._builds
        if type(value) is bytes:
            # SET takes the place of anything; what builds other types adds to what there is.
            builds.append(((b"SET", key, value), key, told))
            if deadline is not None:
                builds.append(((b"PEXPIREAT", key, b"%d" % deadline), key, ()))
            return
        if held is not None:
            builds.append(((b"DEL", key), key, ()))
        if type(value) is Hash and value.deadlines:
            self._field_keys.append(key)
        for command in rebuild_commands(key, value, deadline):
            builds.append((command, key, told))
            told = ()

    # -- at once ------------------------------------------------------------------------------------------------------

    def finish(self) -> int:
        """Hold under the prefixes exactly what is staged; how many keys have changed. The effects are pending then."""
        self.close()
        store = self._store
        store.settle()
        if self._is_void or store.keyspace is not self._keyspace:
            return replace_keys(store, all_keys_under(store, self.staging.prefixes), self.staging)
        for part in self._parts.values():
            self._place(part)
        store.used += self._used
        store.keyspace.count += self._count
        for key in self._field_keys:
            store.field_deadline_keys[key] = None
        store.journal.pending += self._drops
        store.journal.pending += self._builds
        self._say_new()
        return self._changed

    def _place(self, part: _Part) -> None:
        keyspace = self._keyspace
        shard = keyspace.directory[hash(part.sample) >> keyspace.shift]
        if shard.bits > part.bits:
            # It has been split since.
            for half in self._halves(part):
                self._place(half)
            return
        shard = keyspace.writable(part.sample)
        for key in part.gone:
            del shard[key]
        shard.update(part.values)
        if shard.deadlines:
            for key in (*part.gone, *part.freed):
                shard.deadlines.pop(key, None)
        shard.deadlines.update(part.deadlines)
        if shard.access:
            for key in part.gone:
                shard.access.pop(key, None)

    @staticmethod
    def _halves(part: _Part) -> list[_Part]:
        halves: dict[int, _Part] = {}
        bits = part.bits + 1

        def half(key: bytes) -> _Part:
            return halves.setdefault(hash(key) >> (_HASH_BITS - bits), _Part(bits, key))

        for key, value in part.values.items():
            half(key).values[key] = value
        for key, deadline in part.deadlines.items():
            half(key).deadlines[key] = deadline
        for key in part.gone:
            half(key).gone.append(key)
        for key in part.freed:
            half(key).freed.append(key)
        return list(halves.values())

    def _say_new(self) -> None:
        """What :meth:`Store.put` says of each key, where anybody listens."""
        store, keyspace = self._store, self._keyspace
        if store.settings.notify_keyspace_events & notify.NEW:
            for key in self._new_keys:
                store.announce(notify.NEW, b"new", key)
        if store.tracker is not None:
            for part in self._parts.values():
                for key in part.values:
                    store.tracker(keyspace.directory[hash(key) >> keyspace.shift], key)

    # -- behind -------------------------------------------------------------------------------------------------------

    def tidy(self) -> Iterator[None]:
        """Free what was replaced, and split shards that have become too large. Yields as :meth:`prepare`."""
        for used in (self._old, self._drops, self._builds, self._new_keys):
            while used:
                del used[-_STEP:]
                yield
        keyspace = self._keyspace
        while self._parts:
            _, part = self._parts.popitem()
            while True:
                shard = keyspace.directory[hash(part.sample) >> keyspace.shift]
                if len(shard) <= SHARD_LIMIT or shard.bits == _HASH_BITS:
                    break
                keyspace.split(part.sample)
            yield
