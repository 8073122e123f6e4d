"""Puts data that were built aside in place of the keys under some prefixes: worked out bit by bit, and done at once.

What is there under the prefixes must not change meanwhile, and as a rule does not: nobody writes there but who brings
the data. If it does all the same, what was worked out is thrown away, and the step takes as long as it takes. Other
keys may change as they like.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs

from . import notify
from .journal import Effect, Observer
from .keyspace import KeyShard, Keyspace
from .prefix_keys import all_keys_under, replace_keys
from .rebuild import rebuild_commands
from .sharded import SHARD_LIMIT
from .staging import PrefixStaging
from .store import Store
from .values import Hash, Value, bytes_memory, value_memory

__all__ = ["PrefixExchange"]

_HASH_BITS: Final = 64
#: Keys that are worked out between two places at which the work can be interrupted: less than half of a millisecond's
#: work.
_STEP: Final = 100


# A key with its value and deadline, the shard that it belongs to, and value and deadline that it has there.
_Change: TypeAlias = tuple[bytes, Value, int | None, KeyShard, Value | None, int | None]
# An effect that nobody looks at.
_PASSED: Final[Effect] = ((b"",), b"", ())


def _drop_effect(key: bytes) -> Effect:
    return (b"DEL", key), key, ((notify.GENERIC, b"del", key),)


def _build_commands(key: bytes, value: Value, deadline: int | None, *, is_held: bool) -> list[Sequence[bytes]]:
    """What makes a key hold a value, whatever it holds."""
    if type(value) is not bytes:
        # What builds these types adds to what there is.
        return [*([(b"DEL", key)] if is_held else ()), *rebuild_commands(key, value, deadline)]
    if deadline is None:
        return [(b"SET", key, value)]
    return [(b"SET", key, value), (b"PEXPIREAT", key, b"%d" % deadline)]


@attrs.define
class _Part:
    """What changes in one shard's share of hash space: of keys whose hashes share ``bits`` bits with the sample's."""

    bits: int
    sample: bytes
    #: What is put in place, in a shard that can take the place of the present one.
    values: KeyShard = attrs.field(init=False)
    # Keys that go, and keys that lose a deadline.
    gone: list[bytes] = attrs.field(factory=list)
    freed: list[bytes] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.values = KeyShard(0, self.bits)


class PrefixExchange:
    """An exchange of what ``store`` holds under the prefixes of ``staging``, which must not be used by anybody else.

    Made between two groups of the journal. Take :meth:`prepare` to its end, then call :meth:`finish` once, and take
    :meth:`tidy` to its end whenever there is time; or call :meth:`close`. Nothing here blocks.

    ``passing`` are observers of the journal to whom the effects will mean nothing. While there are no others effects
    are not kept until the end: a hundred thousand of them are much for the collector of garbage to look at.
    """

    def __init__(self, store: Store, staging: PrefixStaging, passing: Collection[Observer] = ()) -> None:
        #: What is put in place. Freeing its shards takes long, too.
        self.staging = staging
        self._store = store
        self._keyspace: Keyspace = store.keyspace
        self._parts: dict[tuple[int, int], _Part] = {}
        self._passing = passing
        # The effects, if they are kept; how many there are, and the commands of those that have not been asked for.
        self._effects: list[Effect] | None = []
        self._number = 0
        self._new_commands: list[Sequence[bytes]] = []
        # The keys that go, in the order of their effects, which come before all others.
        self._gone: list[bytes] = []
        # What is replaced, so that it need not be freed all at once.
        self._old: list[Value] = []
        self._field_keys: list[bytes] = []
        # What is put in place while access clocks are kept.
        self._tracked: list[bytes] = []
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

    @property
    def is_true(self) -> bool:
        """Whether :meth:`finish` will do what was worked out; otherwise all of it is worked out anew then."""
        return not self._is_void and self._store.keyspace is self._keyspace

    def next_commands(self) -> list[Sequence[bytes]]:
        """The commands of the effects that were worked out since the last call, in the order in which they will be."""
        new, self._new_commands = self._new_commands, []
        return new

    def _is_heard(self, passing: Collection[Observer]) -> bool:
        """Whether anybody hears of the effects but those for whom they mean nothing, and this exchange itself."""
        observers = self._store.journal.observers
        return any(observer not in passing and observer != self._observe for observer in observers)

    def close(self) -> None:
        """Look at changes no more; a second call does nothing."""
        if self._observes:
            self._observes = False
            self._store.journal.observers.remove(self._observe)

    # -- before -------------------------------------------------------------------------------------------------------

    def prepare(self) -> Iterator[None]:
        """Work out what changes. Yields about every half of a millisecond; other groups may be committed meanwhile."""
        if not self._is_heard(self._passing):
            self._effects = None
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
        self._gone.append(key)
        effect = _drop_effect(key)
        self._number += 1
        self._new_commands.append(effect[0])
        if self._effects is not None:
            self._effects.append(effect)

    def _changes(self, source: KeyShard, keys: Iterable[bytes]) -> Iterator[_Change]:
        """What is not as it is held already, of these keys."""
        keyspace = self._keyspace
        directory, shift = keyspace.directory, keyspace.shift
        deadlines = source.deadlines
        for key in keys:
            value, deadline = source[key], deadlines.get(key)
            shard = directory[hash(key) >> shift]
            held = shard.get(key)
            before = None if held is None else shard.deadlines.get(key)
            if type(value) is not bytes or value != held or deadline != before:
                yield key, value, deadline, shard, held, before

    def _work_out(self, source: KeyShard, keys: list[bytes]) -> None:
        effects = self._effects
        for key, value, deadline, shard, held, before in self._changes(source, keys):
            part = self._part_of(key, shard.bits)
            part.values[key] = value
            if deadline is not None:
                part.values.deadlines[key] = deadline
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
            if type(value) is Hash and value.deadlines:
                self._field_keys.append(key)
            commands = _build_commands(key, value, deadline, is_held=held is not None)
            self._number += len(commands)
            self._new_commands += commands
            if effects is not None:
                effects += self._build_effects(key, commands)

    def _build_effects(self, key: bytes, commands: list[Sequence[bytes]]) -> Iterator[Effect]:
        """The effects that replace a key. What is told is that, as RESTORE tells it, and not each step that says so."""
        is_told = bool(self._store.settings.notify_keyspace_events)
        for command in commands:
            if is_told and command[0] != b"DEL":
                is_told = False
                yield command, key, ((notify.GENERIC, b"restore", key),)
            else:
                yield command, key, ()

    def _all_effects(self) -> Iterator[Effect]:
        """All effects, worked out once more, while what is held is as it was."""
        yield from map(_drop_effect, self._gone)
        for source in self.staging.keyspace.shards():
            for key, value, deadline, _, held, _ in self._changes(source, source):
                yield from self._build_effects(key, _build_commands(key, value, deadline, is_held=held is not None))

    # -- at once ------------------------------------------------------------------------------------------------------

    def finish(self, passing: Collection[Observer] = ()) -> int:
        """Hold under the prefixes exactly what is staged; how many keys have changed. The effects are pending then.

        If only ``passing`` observers will hear of them, something else is in their place, as many times.
        """
        self.close()
        store = self._store
        store.settle()
        if not self.is_true:
            return replace_keys(store, all_keys_under(store, self.staging.prefixes), self.staging)
        effects = self._effects
        if not self._is_heard(passing):
            effects = [_PASSED] * self._number
        elif effects is None:
            # Somebody has begun to listen since.
            effects = list(self._all_effects())
        for part in self._parts.values():
            self._place(part)
        store.used += self._used
        store.keyspace.count += self._count
        for key in self._field_keys:
            store.field_deadline_keys[key] = None
        store.journal.pending += effects
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
        if self._store.tracker is not None:
            self._tracked += part.values
        if len(shard) < len(part.values) and shard.bits == part.bits:
            self._put_in_place_of(shard, part)
            return
        shard = keyspace.writable(part.sample)
        for key in part.gone:
            del shard[key]
        shard.update(part.values)
        if shard.deadlines:
            for key in (*part.gone, *part.freed):
                shard.deadlines.pop(key, None)
        shard.deadlines.update(part.values.deadlines)
        if shard.access:
            for key in part.gone:
                shard.access.pop(key, None)

    def _put_in_place_of(self, shard: KeyShard, part: _Part) -> None:
        """Have what is put in place take what the shard holds besides, which is less."""
        fresh = part.values
        fresh.epoch = self._keyspace.epoch
        fresh.access = shard.access
        if shard.deadlines:
            fresh.deadlines.update({key: at for key, at in shard.deadlines.items() if key not in fresh})
        # Without a loop in Python: it is done a hundred times in the one step that holds everybody up.
        deque(map(fresh.setdefault, shard, shard.values()), maxlen=0)
        for key in part.gone:
            del fresh[key]
            fresh.deadlines.pop(key, None)
            fresh.access.pop(key, None)
        self._keyspace._replace(part.sample, fresh)
        self._store.discarded.append(shard)

    @staticmethod
    def _halves(part: _Part) -> list[_Part]:
        halves: dict[int, _Part] = {}
        bits = part.bits + 1

        def half(key: bytes) -> _Part:
            return halves.setdefault(hash(key) >> (_HASH_BITS - bits), _Part(bits, key))

        for key, value in part.values.items():
            half(key).values[key] = value
        for key, deadline in part.values.deadlines.items():
            half(key).values.deadlines[key] = deadline
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
            for key in self._tracked:
                store.tracker(keyspace.directory[hash(key) >> keyspace.shift], key)

    # -- behind -------------------------------------------------------------------------------------------------------

    def tidy(self) -> Iterator[None]:
        """Free what was replaced, and split shards that have become too large. Yields as :meth:`prepare`."""
        for used in (self._old, self._effects or [], self._new_keys, self._gone):
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
