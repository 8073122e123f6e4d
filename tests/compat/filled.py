"""A valkey-server that a test fills, and its data in a form that compares with values of a store."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeAlias

from support.raw_client import RawClient, Reply
from support.store_harness import describe
from support.valkey_server import ValkeyServer

from kevynode.store.stream_values import Stream
from kevynode.store.values import Value

__all__ = ["Content", "Filled", "shown"]

#: key -> (description of the value, deadline in unix ms)
Content: TypeAlias = dict[bytes, tuple[Any, int | None]]


class Filled:
    """A server whose data a test has put there."""

    def __init__(self, server: ValkeyServer) -> None:
        self.server = server
        self.client = RawClient(server.host, server.port)

    def __enter__(self) -> Filled:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.client.close()

    def call(self, *words: bytes | str | float) -> Any:
        """The plain value of a reply; AssertionError for an error."""
        reply = self.client.call(
            *(word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape") for word in words)
        )
        assert isinstance(reply, Reply)
        assert reply.kind != "error", (words, reply)
        return plain(reply)

    def configure(self, settings: dict[str, int]) -> None:
        for name, value in settings.items():
            self.call("CONFIG", "SET", name, value)

    def saved(self) -> bytes:
        self.call("SAVE")
        return (self.server.directory / "dump.rdb").read_bytes()

    def content(self) -> Content:
        """What the server holds, as commands tell it."""
        found = {}
        for key in self.call("KEYS", "*"):
            deadline = self.call("PEXPIRETIME", key)
            found[key] = self._told(key), None if deadline == -1 else deadline
        return found

    def _told(self, key: bytes) -> Any:
        kind = self.call("TYPE", key)
        if kind == b"string":
            return self.call("GET", key)
        if kind == b"list":
            return "list", self.call("LRANGE", key, 0, -1)
        if kind == b"set":
            return "set", set(self.call("SMEMBERS", key))
        if kind == b"zset":
            told = self.call("ZRANGE", key, 0, -1, "WITHSCORES")
            return "zset", dict(zip(told[::2], map(float, told[1::2]), strict=True))
        if kind == b"hash":
            told = self.call("HGETALL", key)
            fields = dict(zip(told[::2], told[1::2], strict=True))
            moments = self.call("HPEXPIRETIME", key, "FIELDS", len(fields), *fields)
            deadlines = {field: moment for field, moment in zip(fields, moments, strict=True) if moment >= 0}
            return "hash", fields, deadlines
        assert kind == b"stream"
        return "stream", self._stream(key)

    def _stream(self, key: bytes) -> Any:
        told = self.call("XINFO", "STREAM", key, "FULL", "COUNT", 0)
        facts = dict(zip(told[::2], told[1::2], strict=True))
        groups = {}
        for words in facts[b"groups"]:
            group = dict(zip(words[::2], words[1::2], strict=True))
            pending = {
                entry_id(raw): (consumer, delivered, count) for raw, consumer, delivered, count in group[b"pending"]
            }
            consumers = {consumer[1] for consumer in group[b"consumers"]}
            groups[group[b"name"]] = entry_id(group[b"last-delivered-id"]), consumers, pending
        entries = [(entry_id(raw), tuple(fields)) for raw, fields in facts[b"entries"]]
        return (
            entries,
            entry_id(facts[b"last-generated-id"]),
            entry_id(facts[b"max-deleted-entry-id"]),
            facts[b"entries-added"],
            groups,
        )


def plain(reply: Any) -> Any:
    if not isinstance(reply, Reply):
        return reply
    if isinstance(reply.value, tuple | list):
        return [plain(item) for item in reply.value]
    return reply.value


def entry_id(raw: bytes) -> tuple[int, int]:
    ms, _, sequence = raw.partition(b"-")
    return int(ms), int(sequence)


def shown(value: Value) -> Any:
    """A value in the form of ``Filled.content``; what it counts of its memory has been checked."""
    told = describe(value)
    if isinstance(value, bytes):
        return told
    if isinstance(value, Stream):
        return "stream", told[1:]
    return told[:-1]
