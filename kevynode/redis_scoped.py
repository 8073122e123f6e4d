"""redis-py clients that find the writer of every key by themselves; ``pip install kevynode[redis]``.

:class:`ScopedRedis` is ``redis.Redis`` and :class:`AsyncScopedRedis` is ``redis.asyncio.Redis``, with
:class:`ScopedMixin` or :class:`AsyncScopedMixin` in front of it; put these in front of subclasses of your own.

>>> client = ScopedRedis(host="127.0.0.1", port=7001, nodes=["127.0.0.1:7002"], decode_responses=True)
>>> client.routes.nodes
('127.0.0.1:7001', '127.0.0.1:7002')
>>> client.close()

What :class:`kevynode.client.ScopedClient` does for its calls these do for every method that is one command: writes go
to the writer and reads to the nearest node, redirects are followed and remembered, refusals waited out. redis-py's own
retries are not used, because they would send a write a second time.

Pipelines, transactions and pub/sub keep a connection of their own, and run on one node: take them from
``client.client_for(key)``, a plain client of the node that writes the key.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions
import redis.retry

from .client_errors import Uncertain
from .client_routing import Backoff, Call, Routes, canonical_address, refuses_probe
from .client_words import Intent, intent_of, writer_probe
from .config_values import join_address, split_address
from .errors import ReplyError
from .reply_parser import error_reply
from .scope.scope import Scope

__all__ = ["AsyncScopedMixin", "AsyncScopedRedis", "ScopedMixin", "ScopedRedis", "Uncertain"]

#: Seconds that a call may take unless told otherwise, and that connecting may.
TIMEOUT: Final = 5.0
CONNECT_SECONDS: Final = 1.0
#: Redirects in a row that a call follows.
HOPS: Final = 8

# redis-py takes the first word off these errors.
_PREFIXES: Final[dict[type[Exception], str]] = {
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ReadOnlyError: "READONLY",
}
_FAILURES: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)
_REFUSED_OPTIONS: Final = (
    "connection_pool",
    "unix_socket_path",
    "single_connection_client",
    "auto_close_connection_pool",
)
# Before version 5.3 a pool wants to be told what the connection is for; since then it warns when it is.
_POOL_ARGUMENTS: Final = (
    ("_",)
    if inspect.signature(redis.ConnectionPool.get_connection).parameters["command_name"].default
    is inspect.Parameter.empty
    else ()
)


class _Scoped:
    """What both clients share: options, routes, and the plain clients of the nodes by address."""

    #: The plain client of one node.
    node_class: Any
    _nodes: dict[str, Any]

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        *,
        nodes: Sequence[str] = (),
        scopes: Iterable[Scope] = (),
        addresses: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        hops: int = HOPS,
        **options: Any,
    ) -> None:
        """``host`` and ``port`` are the nearest node's, and ``nodes`` the addresses of others to ask without it.

        ``scopes`` and ``addresses`` (node id to client address) are the declared scopes, if known. ``timeout`` is how
        many seconds a call may take with everything it waits for, and ``hops`` how many redirects in a row it follows.
        All other options are redis-py's, for each node. ``socket_timeout`` is ``timeout`` unless given: without
        asyncio, it is what bounds the wait for a reply.

        Raises ValueError for options that would tie the client to one connection or pool, and for bad addresses.
        """
        self._nodes = {}
        for name in _REFUSED_OPTIONS:
            if options.get(name):
                raise ValueError(f"{name}: a client of several nodes has connections to each of them")
        if not (timeout > 0 and hops >= 0):
            raise ValueError("the timeout is more than 0, and hops not less")
        options.setdefault("socket_timeout", timeout)
        options.setdefault("socket_connect_timeout", min(timeout, CONNECT_SECONDS))
        self.routes = Routes([join_address(host, port), *nodes], scopes, addresses)
        self.timeout = timeout
        self.hops = hops
        self._random = random.Random()
        self._options = {**_quiet_options(self.node_class), **options}
        super().__init__(host=host, port=port, **self._options)  # type: ignore[call-arg]

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Any:
        """A client from ``redis://`` or ``rediss://``, with the options of the constructor."""
        found = dict(redis.connection.parse_url(url))  # type: ignore[no-untyped-call]
        if "path" in found:
            raise ValueError("a client of several nodes needs a host and a port")
        if found.pop("connection_class", None) is not None:
            found["ssl"] = True
        return cls(**{**found, **options})

    def node(self, address: str) -> Any:
        """The plain redis-py client of one node (``host:port``). It belongs to this client, and is closed with it."""
        address = canonical_address(address)
        found = self._nodes.get(address)
        if found is None:
            host, port = split_address(address)
            # Another thread may be doing the same.
            found = self._nodes.setdefault(address, self.node_class(host=host, port=port, **self._options))
        return found

    def client_for(self, key: bytes | str) -> Any:
        """The plain client of the node that writes ``key``, as far as is known: of the nearest node otherwise.

        It neither follows redirects nor waits; a write through this client makes the writer known.
        """
        encoded = self._encoded([key])[0]
        return self.node(self.routes.writer(encoded) or self.routes.order(time.monotonic())[0])

    def _encoded(self, words: Iterable[Any]) -> list[bytes]:
        encode = self.connection_pool.get_encoder().encode  # type: ignore[attr-defined]
        return [bytes(encode(word)) for word in words]

    def _call(
        self, words: Sequence[Any], at_writer: bool, idempotent: bool | None
    ) -> tuple[Call, Sequence[bytes] | None]:
        """The way of a command, and what to send before it. One about its connection goes to the nearest node."""
        first = words[0].split(" ") if isinstance(words[0], str) else [words[0]]
        encoded = self._encoded([*first, *words[1:]])
        try:
            intent = intent_of(encoded)
        except ValueError:
            intent = Intent((), True, False)
        asks_writer = at_writer and not intent.writes and bool(intent.keys)
        call = Call(
            self.routes,
            intent.keys,
            intent.writes or asks_writer,
            intent.repeatable if idempotent is None else idempotent,
            not intent.repeatable,
            time.monotonic() + self.timeout,
            Backoff(self._random),
            self.hops,
            intent.blocks,
        )
        return call, writer_probe(intent.keys) if asks_writer else None


class ScopedMixin(_Scoped):
    """In front of ``redis.Redis`` or a subclass of it: every command goes where it belongs."""

    node_class = redis.Redis

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command where it belongs, and return its reply as redis-py reads it.

        Options beside redis-py's: ``at_writer`` has the writer answer a read, ``idempotent`` says whether the command
        may be sent again when its answer is lost (None: reads may, writes may not).

        Raises redis-py's errors for error replies, and ``kevynode.client_errors``: Uncertain, DeadlinePassed,
        RedirectLoop. Blocks.
        """
        call, probe = self._call(args, options.pop("at_writer", False), options.pop("idempotent", None))
        while True:
            address = call.target(time.monotonic())
            try:
                pool = self.node(address).connection_pool
                connection = pool.get_connection(*_POOL_ARGUMENTS)
            except _FAILURES as error:
                pause = call.unreachable(address, str(error), time.monotonic())
            else:
                try:
                    reply = self._exchange(connection, args, options, probe)
                except redis.exceptions.RedisError as error:
                    pause = _pause_after(call, address, error)
                    self._learn_prefixes(call)
                except OSError as error:
                    pause = call.lost(address, str(error), time.monotonic())
                else:
                    call.answered(address)
                    return reply
                finally:
                    pool.release(connection)
            time.sleep(pause)

    def _exchange(
        self, connection: Any, args: Sequence[Any], options: Mapping[str, Any], probe: Sequence[bytes] | None
    ) -> Any:
        reply: Any = None
        refusal: redis.exceptions.ResponseError | None = None
        try:
            if probe is not None:
                connection.send_command(*probe)
                connection.send_command(*args)
                try:
                    connection.read_response()
                except redis.exceptions.ResponseError as error:
                    refusal = error if refuses_probe(_reply_error(error)) else None
            else:
                connection.send_command(*args)
            reply = self.parse_response(connection, args[0], **options)  # type: ignore[attr-defined]
        except redis.exceptions.ResponseError:
            if refusal is None:
                raise
        except BaseException:
            # Nobody knows what still comes over it.
            connection.disconnect()
            raise
        if refusal is not None:
            raise refusal
        return reply

    def _learn_prefixes(self, call: Call) -> None:
        address = call.informant(time.monotonic())
        if address is None:
            return
        try:
            # Under this name redis-py does not take the reply apart.
            info = self.node(address).execute_command("INFO scopes", NEVER_DECODE=True)
        except redis.exceptions.RedisError:
            # The call itself goes on, and meets whatever this met.
            return
        self.routes.learn_info(_info_text(info))
        call.learned()

    def close(self) -> None:
        """Close all connections."""
        for client in list(self._nodes.values()):
            client.close()
        super().close()  # type: ignore[misc]


class AsyncScopedMixin(_Scoped):
    """In front of ``redis.asyncio.Redis`` or a subclass of it: every command goes where it belongs."""

    node_class = redis.asyncio.Redis

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As :meth:`ScopedMixin.execute_command`. Cancelled, the command may have been done or not."""
        await self.initialize()  # type: ignore[attr-defined]
        call, probe = self._call(args, options.pop("at_writer", False), options.pop("idempotent", None))
        while True:
            address = call.target(time.monotonic())
            pool = self.node(address).connection_pool
            try:
                connection = await pool.get_connection(*_POOL_ARGUMENTS)
            except _FAILURES as error:
                pause = call.unreachable(address, str(error), time.monotonic())
            else:
                try:
                    async with asyncio.timeout(max(0.0, call.patience(address) - time.monotonic())):
                        reply = await self._exchange(connection, args, options, probe)
                except redis.exceptions.RedisError as error:
                    pause = _pause_after(call, address, error)
                    await self._learn_prefixes(call)
                except OSError as error:
                    # TimeoutError among them.
                    pause = call.lost(address, str(error) or "no answer in time", time.monotonic())
                else:
                    call.answered(address)
                    return reply
                finally:
                    await pool.release(connection)
            await asyncio.sleep(pause)

    async def _exchange(
        self, connection: Any, args: Sequence[Any], options: Mapping[str, Any], probe: Sequence[bytes] | None
    ) -> Any:
        reply: Any = None
        refusal: redis.exceptions.ResponseError | None = None
        try:
            if probe is not None:
                await connection.send_command(*probe)
                await connection.send_command(*args)
                try:
                    await connection.read_response()
                except redis.exceptions.ResponseError as error:
                    refusal = error if refuses_probe(_reply_error(error)) else None
            else:
                await connection.send_command(*args)
            reply = await self.parse_response(connection, args[0], **options)  # type: ignore[attr-defined]
        except redis.exceptions.ResponseError:
            if refusal is None:
                raise
        except BaseException:
            # Nobody knows what still comes over it.
            await connection.disconnect(nowait=True)
            raise
        if refusal is not None:
            raise refusal
        return reply

    async def _learn_prefixes(self, call: Call) -> None:
        address = call.informant(time.monotonic())
        if address is None:
            return
        try:
            # Under this name redis-py does not take the reply apart.
            info = await self.node(address).execute_command("INFO scopes", NEVER_DECODE=True)
        except redis.exceptions.RedisError:
            # The call itself goes on, and meets whatever this met.
            return
        self.routes.learn_info(_info_text(info))
        call.learned()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        for client in list(self._nodes.values()):
            await client.aclose()
        await super().aclose(close_connection_pool)  # type: ignore[misc]


class ScopedRedis(ScopedMixin, redis.Redis):
    """``redis.Redis`` for a cluster with scopes; see :class:`ScopedMixin`."""


class AsyncScopedRedis(AsyncScopedMixin, redis.asyncio.Redis):  # type: ignore[misc]
    """``redis.asyncio.Redis`` for a cluster with scopes; see :class:`AsyncScopedMixin`."""


def _pause_after(call: Call, address: str, error: redis.exceptions.RedisError) -> float:
    """Seconds to wait after an error of redis-py's; raises what the call ends with."""
    now = time.monotonic()
    # A node that loads counts as a broken connection in redis-py.
    if isinstance(error, _FAILURES) and not isinstance(error, redis.exceptions.BusyLoadingError):
        return call.lost(address, str(error), now)
    try:
        return call.refused(address, _reply_error(error), now)
    except ReplyError:
        # The caller knows redis-py's errors.
        raise error from None


def _reply_error(error: Exception) -> ReplyError:
    """What the node answered, of which redis-py may have taken the first word."""
    prefix = _PREFIXES.get(type(error))
    return ReplyError(prefix, str(error)) if prefix is not None else error_reply(str(error))


def _info_text(info: Any) -> str:
    return info.decode("utf-8", "replace") if isinstance(info, bytes) else str(info)


def _quiet_options(node_class: Any) -> dict[str, Any]:
    """Options that keep redis-py from connecting again by itself, and from leaving out its look at idle connections.

    With notifications about maintenance on, which no kevynode sends, a connection that was closed while it lay idle
    would be found out only by a command that is lost on it.
    """
    module = redis.asyncio.retry if node_class is redis.asyncio.Redis else redis.retry
    options: dict[str, Any] = {"retry": module.Retry(redis.backoff.NoBackoff(), 0)}
    if "maint_notifications_config" in inspect.signature(node_class.__init__).parameters:
        options["maint_notifications_config"] = importlib.import_module(
            "redis.maint_notifications"
        ).MaintNotificationsConfig(enabled=False)
    return options
