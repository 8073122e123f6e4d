"""A client for Trio that finds the writer of every key by itself, and waits out moves and restarts.

>>> import trio
>>> async def main() -> None:
...     async with ScopedClient(["127.0.0.1:7001", "127.0.0.1:7002"]) as client:
...         await client.call("SET", "app:1", "x")
...         print(await client.call("GET", "app:1"))

It asks the nearest node, goes where a redirect points and remembers that for the whole prefix, and waits a little,
ever longer, while a node says "not now". A write whose answer is lost is never sent twice: see :class:`Uncertain`.
"""

from __future__ import annotations

import random as chances
import select
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import trio

from .client_errors import BrokenReply, ClientError, DeadlinePassed, RedirectLoop, Uncertain
from .client_routing import NODES_LIMIT, Backoff, Call, Routes, UniformSource, is_refusal, refuses_probe
from .client_words import Intent, Word, encode_request, encode_word, in_turn, intent_of, merge, probe_of, writer_probe
from .config_values import split_address
from .errors import ReplyError
from .reply_parser import REPLY_LIMIT, ReplyParser, ReplyProtocolError, error_reply
from .scope.scope import Scope
from .transport import SystemTransport, Transport

__all__ = ["BrokenReply", "ClientError", "DeadlinePassed", "RedirectLoop", "ScopedClient", "Uncertain"]

#: Seconds that a call may take, unless told otherwise.
TIMEOUT: Final = 5.0
#: Seconds that connecting may take, of those of the call.
CONNECT_SECONDS: Final = 1.0
#: Redirects in a row that a call follows.
HOPS: Final = 8
#: Connections to one node at a time.
CONNECTIONS: Final = 8

_READ_SIZE: Final = 65536
# Beyond this a request is sent while its replies are read: who does not read them may not be read either.
_SEND_AT_ONCE: Final = 16384


class _NotSentError(Exception):
    """There is no connection, or it failed before the command went out."""


class _BusyError(Exception):
    """All connections that there may be to a node were in use."""


class _LostError(Exception):
    """The command went out, at least in part, and not all replies came. ``replies`` did."""

    def __init__(self, reason: str, replies: list[Any]) -> None:
        super().__init__(reason)
        self.replies = replies


class _Connection:
    """One connection, which carries one exchange at a time."""

    def __init__(self, stream: trio.abc.Stream, reply_limit: int) -> None:
        self._stream = stream
        self._parser = ReplyParser(reply_limit)

    @property
    def usable(self) -> bool:
        """Whether nothing came while nobody asked: neither bytes nor, which is usual, the end of the stream."""
        sock = getattr(self._stream, "socket", None)
        if sock is None or not self._parser.idle:
            return self._parser.idle
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    async def close(self) -> None:
        """Close it at once, even when cancelled. A checkpoint."""
        await trio.aclose_forcefully(self._stream)

    async def exchange(self, request: bytes, count: int) -> list[Any]:
        """Send commands and read ``count`` replies.

        Raises _LostError and ReplyProtocolError; then the connection is of no more use.
        """
        replies: list[Any] = []
        try:
            if len(request) <= _SEND_AT_ONCE:
                await self._stream.send_all(request)
                await self._read(replies, count)
            else:
                await self._send_and_read(request, replies, count)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _LostError(_reason(error), replies) from None
        return replies

    async def _read(self, replies: list[Any], count: int) -> None:
        while len(replies) < count:
            data = await self._stream.receive_some(_READ_SIZE)
            if not data:
                raise trio.BrokenResourceError("the connection was closed")
            replies += self._parser.feed(data)
        if len(replies) > count:
            raise ReplyProtocolError("more replies than commands")

    async def _send_and_read(self, request: bytes, replies: list[Any], count: int) -> None:
        failures: list[Exception] = []

        async def send(done: trio.CancelScope) -> None:
            try:
                await self._stream.send_all(request)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                failures.append(error)
                done.cancel()

        # Errors are carried out by hand: a nursery would wrap them into a group.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, nursery.cancel_scope)
            try:
                await self._read(replies, count)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ReplyProtocolError) as error:
                failures.append(error)
            nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]


class _Pool:
    """The connections to one node. ``waiting`` bounds how many are in use; the others lie ready."""

    def __init__(self, most: int) -> None:
        self.idle: list[_Connection] = []
        self.waiting = trio.CapacityLimiter(most)


class ScopedClient:
    """Calls to a cluster of nodes with scopes, by however many tasks. An asynchronous context manager.

    ``nodes`` are client addresses (``host:port``), the nearest first: it answers reads and takes keys under no scope;
    the others are asked when it does not answer. ``scopes`` and ``addresses`` (node id to client address) are the
    declared scopes, if they are known; else they are learned. ``timeout`` (seconds) is how long a call may take with
    everything it has to wait for, ``hops`` how many redirects in a row it follows, ``connections`` how many it has
    open to one node at most, and ``reply_limit`` how many bytes a reply may have. ``protocol`` is 2 or 3.

    A redirect is followed to whatever address it names, with the password: connect to nodes that you trust.
    Raises ValueError for addresses and numbers that are none.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        *,
        scopes: Iterable[Scope] = (),
        addresses: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        connect_seconds: float = CONNECT_SECONDS,
        hops: int = HOPS,
        connections: int = CONNECTIONS,
        reply_limit: int = REPLY_LIMIT,
        protocol: int = 2,
        username: str | None = None,
        password: str | None = None,
        transport: Transport | None = None,
        random: UniformSource | None = None,
    ) -> None:
        if protocol not in (2, 3):
            raise ValueError("the protocol is 2 or 3")
        if not (timeout > 0 and connect_seconds > 0 and hops >= 0 and connections > 0 and reply_limit > 0):
            raise ValueError("timeouts, connections and the limit of replies are more than 0, and hops not less")
        self.routes = Routes(nodes, scopes, addresses)
        self._timeout = timeout
        self._connect_seconds = connect_seconds
        self._hops = hops
        self._connections = connections
        self._reply_limit = reply_limit
        self._greeting = _greeting(protocol, username, password)
        self._transport = transport if transport is not None else SystemTransport()
        self._random = random if random is not None else chances.Random()
        self._pools: OrderedDict[str, _Pool] = OrderedDict()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Connects to nobody yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections that are not in use, and each other one once it is not. A checkpoint."""
        self._closed = True
        with trio.CancelScope(shield=True):
            for pool in self._pools.values():
                while pool.idle:
                    await pool.idle.pop().close()
        await trio.lowlevel.checkpoint()

    async def call(
        self, *words: Word, at_writer: bool = False, idempotent: bool | None = None, timeout: float | None = None
    ) -> Any:
        """Send a command where it belongs, and return its reply: see ``kevynode.reply_parser`` for the types.

        Words are bytes, ``str`` (as UTF-8) or numbers. A command that changes data goes to the writer, any other to the
        nearest node, or (``at_writer``) to the writer as well, who alone knows everything that was written: such a read
        waits while the writer takes no writes.
        ``idempotent`` says that doing it twice is as good as once, so that it may be sent again when an answer is
        lost; None: reads may, writes may not. ``timeout`` (seconds) stands in for the client's.

        Raises :class:`kevynode.ReplyError` for an error reply that no waiting and no redirect helps against,
        :class:`Uncertain` for a write whose answer is lost, :class:`DeadlinePassed`, :class:`RedirectLoop`,
        ValueError for a command that needs a connection of its own. Cancelled, it may have been done or not. A
        checkpoint.
        """
        encoded = [encode_word(word) for word in words]
        intent = intent_of(encoded)
        if at_writer and not intent.writes and intent.keys:
            reply = (await self.pipeline([encoded], at_writer=True, idempotent=idempotent, timeout=timeout))[0]
            if isinstance(reply, Exception):
                raise reply
            return reply
        replies = await self._run(intent, encode_request([encoded]), 1, _error, idempotent, timeout)
        return replies[0]

    async def pipeline(
        self,
        commands: Iterable[Sequence[Word]],
        *,
        transaction: bool = False,
        at_writer: bool = False,
        idempotent: bool | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """Send commands at once to one node, and return their replies in order; error replies are values here.

        They should concern one scope: where to is decided by the first key that is written, or else read. With
        ``transaction`` they run between MULTI and EXEC, all or none; EXECABORT is raised.

        When a node answers "not here" or "not now", what follows the last write that was done is sent again, so that
        the writes are done in order. A refusal before a write that was done stays in the list; where it is the time or
        the redirects that are used up for the rest, that error stands in the place of each of its replies. Everything
        else is as for :meth:`call`; of :class:`Uncertain`, ``replies`` holds the replies that came.
        """
        encoded = [[encode_word(word) for word in words] for words in commands]
        count = len(encoded)
        if not count:
            await trio.lowlevel.checkpoint()
            return []
        intents = [intent_of(words) for words in encoded]
        whole = merge(intents)
        if at_writer and not whole.writes and whole.keys:
            encoded.insert(0, writer_probe(whole.keys))
            intents.insert(0, probe_of(whole.keys))
        run = self._transaction if transaction else self._in_order
        replies = await run(encoded, intents, idempotent, self._timeout if timeout is None else timeout)
        return replies[len(encoded) - count :]

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _transaction(
        self, commands: list[list[bytes]], intents: list[Intent], idempotent: bool | None, timeout: float
    ) -> list[Any]:
        request = encode_request([[b"MULTI"], *commands, [b"EXEC"]])
        replies = await self._run(merge(intents), request, len(commands) + 2, _transaction_error, idempotent, timeout)
        results: list[Any] = replies[-1]
        return results

    async def _in_order(
        self, commands: list[list[bytes]], intents: list[Intent], idempotent: bool | None, timeout: float
    ) -> list[Any]:
        until = trio.current_time() + timeout
        done: list[Any] = []
        while True:
            rest = intents[len(done) :]

            def refusal(replies: list[Any], rest: list[Intent] = rest) -> ReplyError | None:
                if rest[0].at_writer:
                    # What was read behind a question for the writer counts as a whole.
                    return replies[0] if refuses_probe(replies[0]) else next(filter(is_refusal, replies), None)
                # If anything was done, that is taken, and what follows it is another call.
                return replies[0] if _first_to_repeat(replies, rest) == 0 else None

            request = encode_request(commands[len(done) :])
            left = until - trio.current_time()
            try:
                replies = await self._run(in_turn(rest), request, len(rest), refusal, idempotent, left, done)
            except (DeadlinePassed, RedirectLoop, ReplyError) as error:
                if not done:
                    raise
                return [*done, *([error] * len(rest))]
            cut = _first_to_repeat(replies, rest)
            done += replies if cut is None else replies[:cut]
            if cut is None:
                return done

    async def _run(
        self,
        intent: Intent,
        request: bytes,
        count: int,
        refusal: Callable[[list[Any]], ReplyError | None],
        idempotent: bool | None,
        timeout: float | None,
        before: Sequence[Any] = (),
    ) -> list[Any]:
        """Try until ``refusal`` finds none in the replies, or until the call ends another way."""
        if self._closed:
            raise trio.ClosedResourceError("the client is closed")
        deadline = trio.current_time() + (self._timeout if timeout is None else timeout)
        call = Call(
            self.routes,
            intent.keys,
            intent.writes or intent.at_writer,
            intent.repeatable if idempotent is None else idempotent,
            not intent.repeatable,
            deadline,
            Backoff(self._random),
            self._hops,
            intent.blocks,
        )
        while True:
            address = call.target(trio.current_time())
            try:
                replies = await self._exchange(address, request, count, call.patience(address))
            except _NotSentError as error:
                pause = call.unreachable(address, str(error), trio.current_time())
            except _BusyError as error:
                pause = call.unreachable(address, str(error), trio.current_time(), is_busy=True)
            except _LostError as error:
                pause = call.lost(address, str(error), trio.current_time(), [*before, *error.replies])
            else:
                error_reply = refusal(replies)
                if error_reply is None:
                    call.answered(address)
                    return replies
                pause = call.refused(address, error_reply, trio.current_time())
                await self._learn_prefixes(call)
            await trio.sleep(pause)

    async def _learn_prefixes(self, call: Call) -> None:
        """Ask which prefixes there are, where that helps: after a redirect, say, for a key under no known one."""
        address = call.informant(trio.current_time())
        if address is None:
            return
        try:
            replies = await self._exchange(address, encode_request([[b"INFO", b"scopes"]]), 1, call.deadline)
        except (_NotSentError, _BusyError, _LostError, ClientError, ReplyError):
            # The call itself goes on, and meets whatever this met.
            return
        if isinstance(replies[0], bytes | str):
            info = replies[0].decode("utf-8", "replace") if isinstance(replies[0], bytes) else replies[0]
            self.routes.learn_info(info)
            call.learned()

    async def _exchange(self, address: str, request: bytes, count: int, deadline: float) -> list[Any]:
        """Send over a connection of the node's pool, and read the replies, before ``deadline``."""
        await self._drop_pools()
        pool = self._pool(address)
        connection: _Connection | None = None
        whole = False
        with trio.CancelScope(deadline=deadline) as patience:
            async with pool.waiting:
                try:
                    connection = await self._connection(address, pool)
                    replies = await connection.exchange(request, count)
                    whole = True
                    return replies
                except ReplyProtocolError as error:
                    raise BrokenReply(address, str(error)) from error
                finally:
                    if connection is not None:
                        if whole and not self._closed:
                            pool.idle.append(connection)
                        else:
                            # Nobody knows what still comes over it.
                            await connection.close()
        assert patience.cancelled_caught
        if connection is None:
            raise _BusyError("no connection was free in time")
        raise _LostError("no answer in time", [])

    async def _connection(self, address: str, pool: _Pool) -> _Connection:
        while pool.idle:
            connection = pool.idle.pop()
            if connection.usable:
                return connection
            await connection.close()
        stream: trio.abc.Stream | None = None
        try:
            with trio.move_on_after(self._connect_seconds):
                stream = await self._transport.connect(*split_address(address))
        except OSError as error:
            raise _NotSentError(_reason(error)) from None
        if stream is None:
            raise _NotSentError(f"no connection within {self._connect_seconds:g} s")
        connection = _Connection(stream, self._reply_limit)
        if self._greeting:
            await self._greet(connection)
        return connection

    async def _greet(self, connection: _Connection) -> None:
        """Log in, or choose the protocol. Raises ReplyError when the node will not have it, and _NotSentError."""
        whole = False
        try:
            with trio.move_on_after(self._connect_seconds):
                reply = (await connection.exchange(self._greeting, 1))[0]
                if isinstance(reply, ReplyError):
                    raise reply
                whole = True
        except _LostError as error:
            raise _NotSentError(str(error)) from None
        finally:
            if not whole:
                await connection.close()
        if not whole:
            raise _NotSentError(f"no answer to the greeting within {self._connect_seconds:g} s")

    def _pool(self, address: str) -> _Pool:
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = _Pool(self._connections)
        self._pools.move_to_end(address)
        return pool

    async def _drop_pools(self) -> None:
        """Forget the nodes that were asked longest ago, where redirects have named too many. May be a checkpoint."""
        while len(self._pools) > NODES_LIMIT:
            unused = (address for address, pool in self._pools.items() if not pool.waiting.borrowed_tokens)
            address = next(unused, None)
            if address is None:
                return
            for connection in self._pools.pop(address).idle:
                await connection.close()


def _greeting(protocol: int, username: str | None, password: str | None) -> bytes:
    if password is None and username is not None:
        raise ValueError("a user name needs a password")
    login = [] if password is None else [word.encode() for word in (username, password) if word is not None]
    if protocol == 3:
        named = [b"AUTH", *([b"default"] if username is None else []), *login] if login else []
        return encode_request([[b"HELLO", b"3", *named]])
    return encode_request([[b"AUTH", *login]]) if login else b""


def _error(replies: list[Any]) -> ReplyError | None:
    """What keeps a single command from being done."""
    return replies[0] if isinstance(replies[0], ReplyError) else None


def _first_to_repeat(replies: Sequence[Any], intents: Sequence[Intent]) -> int | None:
    """Where to go on: at the first refusal behind the last write that was done; None where there is none."""
    start = 0
    for place, (reply, intent) in enumerate(zip(replies, intents, strict=True)):
        if not intent.repeatable and not is_refusal(reply):
            start = place + 1
    return next((place for place in range(start, len(replies)) if is_refusal(replies[place])), None)


def _transaction_error(replies: list[Any]) -> ReplyError | None:
    """The error of a transaction that was not done: the refusal that kept it from being done, if that was why."""
    if not isinstance(replies[-1], ReplyError):
        return None
    end: ReplyError = replies[-1]
    if end.prefix != "EXECABORT":
        return end
    because = end.text.partition(": ")[2]
    if because:
        # It was refused when it was to run, not when it was queued.
        cause = error_reply(because)
        return cause if refuses_probe(cause) else end
    refused = [reply for reply in replies[:-1] if isinstance(reply, ReplyError)]
    # Two scopes have no one writer: where one of them is to be found does not help.
    crossing = [reply for reply in refused if reply.prefix == "CROSSSCOPE"]
    return (crossing or refused)[0] if refused and all(map(refuses_probe, refused)) else end


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
