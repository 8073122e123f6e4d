"""What a scope-following client knows, and what it makes of every answer: no I/O, no clock, no Trio.

:class:`Routes` is what is known about who writes what, shared by all calls of a client. :class:`Call` is one command on
its way: it names the node to ask now, and is told what came of it; then it names the next pause, or raises what the
call ends with. A driver (``kevynode.client``, ``kevynode.redis_scoped``) does the rest:

1. ``address = call.target(now)``, and send the command there.
2. No connection: ``call.unreachable(address, reason, now)``. Sent, but no answer: ``call.lost(...)``. An error reply:
   ``call.refused(...)``. All three return the seconds to wait before step 1, or raise.
3. Anything else is the reply: ``call.answered(...)``.

Between 2 and 1 the driver may ask ``call.informant(now)`` for INFO scopes, if that names a node, and tell
:meth:`Routes.learn_info` and then ``call.learned()``.

Times are seconds of a clock that only goes forward, which the driver reads.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

import attrs

from .client_errors import DeadlinePassed, RedirectLoop, Uncertain
from .config_values import join_address, split_address
from .errors import ReplyError
from .scope.prefixes import PrefixMap
from .scope.scope import Scope

__all__ = ["REFUSALS", "Backoff", "Call", "Routes", "UniformSource", "canonical_address", "is_refusal", "refuses_probe"]

#: Seconds of the first wait, and of the longest. A move stops the writes of a scope for some tens of milliseconds.
FIRST_SECONDS: Final = 0.01
LAST_SECONDS: Final = 0.5
#: A node that failed is asked last for this many times the seconds that it has cost, and the least and most of it.
AVOID_TIMES: Final = 10.0
AVOID_SECONDS: Final = 1.0
AVOID_MOST_SECONDS: Final = 30.0
#: Seconds between two questions for the declared prefixes.
ASK_SECONDS: Final = 5.0
#: Keys under no known prefix whose writer is remembered.
KEYS_LIMIT: Final = 1024
#: Prefixes and nodes that are remembered.
PREFIXES_LIMIT: Final = 65536
NODES_LIMIT: Final = 64

_SCOPE_LINE: Final = re.compile(r"^scope[0-9]+:prefix=([^,\r\n]*),owner=", re.MULTILINE)

# What a LOADING says that is about one scope: the node is its writer, or one of those that think so.
_OF_A_SCOPE: Final = "scope "

#: The first words of errors that say "not now" or "not here", and that nothing was done. True: somebody else may do it.
REFUSALS: Final[Mapping[str, bool]] = {
    "QUIESCED": False,
    "NOREPLICAS": False,
    "LOADING": True,
    "READONLY": True,
    "STALE": True,
    "MASTERDOWN": True,
}


class UniformSource(Protocol):
    """Where chance comes from: ``random.Random``, say."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between ``a`` and ``b``."""
        ...


class Backoff:
    """Waits that double up to a longest one, each drawn between half of itself and all of it."""

    __slots__ = ("_first", "_last", "_longest", "_random")

    def __init__(self, random: UniformSource, *, first: float = FIRST_SECONDS, last: float = LAST_SECONDS) -> None:
        self._random = random
        self._first = self._longest = first
        self._last = last

    def next(self) -> float:
        """Seconds to wait now."""
        longest = self._longest
        self._longest = min(self._last, longest * 2)
        return self._random.uniform(longest / 2, longest)

    def reset(self) -> None:
        """Start with short waits again."""
        self._longest = self._first


class Routes:
    """Who writes what, as far as it is known, and which nodes are better not asked just now.

    ``nodes`` are client addresses (``host:port``), the nearest first; there must be one at least. ``scopes`` are the
    declared scopes, if the caller knows them, and ``addresses`` where the nodes that they name are: a scope whose
    writer has no address there is learned from redirects. Raises ValueError for an address that is none. Threads may
    share it.

    >>> routes = Routes(["127.0.0.1:7001", "127.0.0.1:7002"], [Scope(b"b:", "b")], {"b": "127.0.0.1:7002"})
    >>> routes.writer(b"b:1"), routes.writer(b"a:1")
    ('127.0.0.1:7002', None)
    >>> routes.learn([b"a:1"], "127.0.0.1:7003")
    >>> routes.writer(b"a:1"), routes.writer(b"a:2")
    ('127.0.0.1:7003', None)
    >>> routes.declare([b"a:"])
    >>> routes.learn([b"a:1"], "127.0.0.1:7003")
    >>> routes.writer(b"a:2")
    '127.0.0.1:7003'
    """

    def __init__(
        self, nodes: Sequence[str], scopes: Iterable[Scope] = (), addresses: Mapping[str, str] | None = None
    ) -> None:
        if not nodes:
            raise ValueError("a client needs the address of one node at least")
        self.nodes = tuple(dict.fromkeys(map(canonical_address, nodes)))
        # Prefix -> its writer; "" while that is not known.
        self._writers: dict[bytes, str] = {}
        self._prefixes: PrefixMap[bytes] = PrefixMap()
        self._keys: OrderedDict[bytes, str] = OrderedDict()
        self._avoided: OrderedDict[str, float] = OrderedDict()
        self._ask_at = float("-inf")
        places = {node: canonical_address(address) for node, address in (addresses or {}).items()}
        for scope in scopes:
            self.declare([scope.prefix])
            self._writers[scope.prefix] = places.get(scope.writer, "")

    def writer(self, *keys: bytes) -> str | None:
        """The address of the node that writes ``keys``, or None where that is not known.

        They are under one scope and none, or a node will refuse them: so one that is under a scope speaks for all.
        """
        for key in keys:
            prefix = self._prefixes.longest(key)
            if prefix is not None:
                return self._writers[prefix] or None
        return next((self._keys[key] for key in keys if key in self._keys), None)

    def is_scoped(self, keys: Iterable[bytes]) -> bool:
        """Whether one of ``keys`` is under a prefix that is known."""
        return any(self._prefixes.longest(key) is not None for key in keys)

    def declare(self, prefixes: Iterable[bytes]) -> None:
        """Learn which prefixes there are; what is known about keys and prefixes stays."""
        for prefix in prefixes:
            if prefix not in self._writers and len(self._writers) < PREFIXES_LIMIT:
                self._writers[prefix] = ""
                self._prefixes.add(prefix, prefix)

    def learn(self, keys: Sequence[bytes], address: str) -> None:
        """Remember who writes ``keys``, and everything else under the prefix of one of them, if such is known.

        Of several under no known prefix nothing is remembered: there is no telling which of them is not free.
        """
        if self.confirm(keys, address) or len(keys) != 1:
            return
        (key,) = keys
        self._keys.pop(key, None)
        self._keys[key] = address
        if len(self._keys) > KEYS_LIMIT:
            self._keys.popitem(last=False)

    def confirm(self, keys: Iterable[bytes], address: str) -> bool:
        """Remember who has taken a write, for the known prefix that one of ``keys`` is under; whether there is one.

        Keys under none stay where they are written.
        """
        for key in keys:
            prefix = self._prefixes.longest(key)
            if prefix is not None:
                self._writers[prefix] = address
                return True
        return False

    def forget(self, keys: Iterable[bytes]) -> None:
        """Forget who writes ``keys`` and what is under their prefixes."""
        for key in keys:
            prefix = self._prefixes.longest(key)
            if prefix is not None:
                self._writers[prefix] = ""
            self._keys.pop(key, None)

    def avoid(self, address: str, now: float, cost: float = 0.0) -> None:
        """A node failed: forget what it writes, and ask it last for a while.

        The longer the more seconds it took to find that out (``cost``): who asks the node again may lose them again.
        """
        for prefix, writer in list(self._writers.items()):
            if writer == address:
                self._writers[prefix] = ""
        for key, writer in list(self._keys.items()):
            if writer == address:
                self._keys.pop(key, None)
        self._avoided[address] = now + min(AVOID_MOST_SECONDS, max(AVOID_SECONDS, cost * AVOID_TIMES))
        if len(self._avoided) > NODES_LIMIT:
            self._avoided.popitem(last=False)

    def reached(self, address: str) -> None:
        """A node answered."""
        self._avoided.pop(address, None)

    def order(self, now: float) -> list[str]:
        """The given nodes, the nearest first, those that failed a moment ago last."""
        if not self._avoided:
            return list(self.nodes)
        return sorted(self.nodes, key=lambda address: self._avoided.get(address, now) > now)

    def wants_prefixes(self, keys: Iterable[bytes], now: float) -> bool:
        """Whether to ask a node for INFO scopes, since no known prefix covers one of ``keys``. True once in a while."""
        if now < self._ask_at or self.is_scoped(keys):
            return False
        self._ask_at = now + ASK_SECONDS
        return True

    def learn_info(self, info: str) -> None:
        """Learn the declared prefixes from what INFO scopes answered.

        Owners are named by id there, so who writes them is learned from redirects. Prefixes that are not plain text
        are shown altered, and keys under them go on being remembered one by one. Where that makes a prefix of what is
        none, the cost is a redirect now and then.
        """
        shown = _SCOPE_LINE.findall(info)
        self.declare(
            prefix.encode("utf-8", "surrogateescape") for prefix in shown[:PREFIXES_LIMIT] if "?" not in prefix
        )


@attrs.define
class Call:
    """One command, or several for one node, on the way to a reply under a deadline.

    ``keys`` are what it writes or reads (empty: nothing in particular), ``to_writer`` whether it has to be the writer
    who answers, ``repeatable`` whether it may be sent again when its answer is lost, and ``changes`` whether it has
    done something by then. ``hops`` bounds the redirects in a row. ``blocks``: that there is no answer may be in order.
    """

    routes: Routes
    keys: tuple[bytes, ...]
    to_writer: bool
    repeatable: bool
    changes: bool
    deadline: float
    backoff: Backoff
    hops: int
    blocks: bool = False
    # Where to go next, if somebody said so.
    _next: str | None = None
    # When the node that is asked now was named.
    _since: float = 0.0
    # The given nodes that were asked in vain since the last pause.
    _asked: set[str] = attrs.field(factory=set)
    # The redirects in a row, and who made the last one.
    _visited: list[str] = attrs.field(factory=list)
    _redirected_by: str = ""
    # A node that loads, and that nobody has named as the writer.
    _loading: str | None = None
    # What is to be raised instead of "nothing was done".
    _uncertain: Uncertain | None = None
    # What stood in the way last.
    last: str = "nothing was tried"

    def target(self, now: float) -> str:
        """The address of the node to ask now."""
        self._since = now
        if self._next is not None:
            return self._next
        if self.to_writer:
            writer = self.routes.writer(*self.keys)
            if writer is not None and writer not in self._asked:
                return writer
        order = self.routes.order(now)
        return next((address for address in order if address not in self._asked), order[0])

    def patience(self, address: str) -> float:
        """Until when the node that :meth:`target` named may keep silent: while others may answer, not to the end."""
        others = set(self.routes.nodes) - self._asked - {address}
        if self.changes or self.to_writer or self.blocks or not self.repeatable or not others:
            return self.deadline
        return self._since + (self.deadline - self._since) / 2

    def answered(self, address: str) -> None:
        """A node did what it was asked, or said why not: if that was a write, it is the writer of the scope."""
        self.routes.reached(address)
        if self.to_writer:
            self.routes.confirm(self.keys, address)

    def unreachable(self, address: str, reason: str, now: float, *, is_busy: bool = False) -> float:
        """There is no connection to a node, and nothing was sent. Seconds to wait; raises what the call ends with.

        ``is_busy``: all connections that there may be are in use, which says nothing about the node.
        """
        self.last = f"{address} cannot be reached: {reason}"
        self._visited.clear()
        if not is_busy:
            self.routes.avoid(address, now, now - self._since)
        return self._go_on(address, now)

    def lost(self, address: str, reason: str, now: float, replies: Sequence[Any] = ()) -> float:
        """The command was sent, and there will be no reply.

        Seconds to wait before it is sent again, if that may be; else raises :class:`Uncertain`.
        """
        self.last = f"{address} did not answer: {reason}"
        self._visited.clear()
        if now < self.deadline or not self.blocks:
            self.routes.avoid(address, now, 0.0 if self.changes else now - self._since)
        uncertain = Uncertain(address, reason, replies)
        if not self.repeatable:
            raise uncertain
        if self.changes:
            self._uncertain = uncertain
        return self._go_on(address, now)

    def refused(self, address: str, error: ReplyError, now: float) -> float:
        """A node answered with an error. Seconds to wait before asking again; raises what the call ends with.

        That is ``error`` itself, where it says something else than "not here" or "not now".
        """
        self.routes.reached(address)
        self._loading = None
        if error.prefix == "MISDIRECTED":
            return self._redirected(address, error, now)
        elsewhere = REFUSALS.get(error.prefix)
        if elsewhere is None:
            raise error
        self.last = f"{address} answered: {error}"
        is_named = address in self._visited or self.routes.writer(*self.keys) == address
        self._visited.clear()
        if error.prefix == "READONLY":
            self.routes.forget(self.keys)
        if self.to_writer and error.prefix == "LOADING":
            if not is_named and not error.text.startswith(_OF_A_SCOPE):
                # All of its data are on the way, and it says nothing about these keys.
                if self.routes.is_scoped(self.keys):
                    return self._go_on(address, now)
                self._loading = address
        elif elsewhere:
            return self._go_on(address, now)
        # It is this one's to answer: by and by it will, or say whose it is now.
        self._next = address
        return self._pause(now)

    def informant(self, now: float) -> str | None:
        """The node to ask for INFO scopes, if it would help to know who writes what. Once in a while."""
        if self._visited:
            found: str | None = self._redirected_by
        elif self._loading is not None:
            found = next((node for node in self.routes.order(now) if node != self._loading), None)
        else:
            return None
        return found if found is not None and self.keys and self.routes.wants_prefixes(self.keys, now) else None

    def learned(self) -> None:
        """More prefixes may be known by now: see the last answer in their light."""
        if self._visited:
            self.routes.learn(self.keys, self._visited[-1])
        elif self._loading is not None and self.routes.is_scoped(self.keys):
            # The others know whose they are.
            self._asked.add(self._loading)
            self._next = self._loading = None

    def _redirected(self, address: str, error: ReplyError, now: float) -> float:
        try:
            writer = canonical_address(error.text.rpartition(" ")[2])
        except ValueError:
            raise error from None
        self.last = f"{address} answered: {error}"
        self._redirected_by = address
        self._visited.append(writer)
        if len(self._visited) > self.hops:
            self.routes.forget(self.keys)
            self._end(RedirectLoop(self._visited))
        if self.keys:
            self.routes.learn(self.keys, writer)
        self._next = writer
        # Who names a node that is not there, or sends a call in circles, learns better by and by.
        if writer in self._asked or writer == address or self._visited.count(writer) > 1:
            self._asked.clear()
            return self._pause(now)
        # A new writer is news: what is waited for from here on is something else.
        self.backoff.reset()
        return 0.0

    def _go_on(self, address: str, now: float) -> float:
        """To the next of the given nodes at once, or after a pause to all of them again."""
        self._next = None
        self._asked.add(address)
        if self._asked.issuperset(self.routes.nodes):
            self._asked.clear()
            return self._pause(now)
        if now >= self.deadline:
            self._end(DeadlinePassed(self.last))
        return 0.0

    def _pause(self, now: float) -> float:
        pause = self.backoff.next()
        if now + pause >= self.deadline:
            self._end(DeadlinePassed(self.last))
        return pause

    def _end(self, error: DeadlinePassed | RedirectLoop) -> NoReturn:
        """Raise that nothing was done, unless an answer was lost on the way."""
        raise error if self._uncertain is None else self._uncertain


def is_refusal(reply: object) -> bool:
    """Whether a reply is an error that says "not here" or "not now".

    >>> is_refusal(ReplyError("STALE", "...")), is_refusal(ReplyError("ERR", "...")), is_refusal(b"STALE")
    (True, False, False)
    """
    return isinstance(reply, ReplyError) and (reply.prefix == "MISDIRECTED" or reply.prefix in REFUSALS)


def refuses_probe(reply: object) -> bool:
    """Whether a reply to ``client_words.writer_probe`` says that this is not the writer of the keys, or that none is.

    >>> refuses_probe(ReplyError("CROSSSCOPE", "...")), refuses_probe(ReplyError("WRONGTYPE", "...")), refuses_probe(0)
    (True, False, False)
    """
    return is_refusal(reply) or (isinstance(reply, ReplyError) and reply.prefix == "CROSSSCOPE")


def canonical_address(text: str) -> str:
    """An address in the one form that addresses are compared in. Raises ValueError.

    >>> canonical_address("127.0.0.1:7001"), canonical_address(" [::1]:7001")
    ('127.0.0.1:7001', '[::1]:7001')
    """
    try:
        return join_address(*split_address(text))
    except ValueError:
        raise ValueError(f'{text!r}: no address (accepted: "host:port", "[ipv6]:port")') from None
