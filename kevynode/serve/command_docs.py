"""The arguments of a command as COMMAND DOCS shows them, read from the ``syntax`` notation of the command table.

The notation is that of the documentation: words in small letters are arguments, words in capitals are written as they
stand, ``[…]`` may be left out, ``<…>`` groups, ``|`` divides alternatives, and ``[name ...]`` behind an argument (or a
group of them) of the same words says that it may be repeated. ``LEFT|RIGHT`` among other words is one argument of its
own; at the start of brackets it divides what is in them.

>>> [argument[b"name"] for argument in parse_syntax("key [EX seconds | PX milliseconds] [member ...]")]
[b'key', b'expiration', b'member']
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from ..reply import SetReply, Status

__all__ = ["Argument", "argument_maps", "parse_arguments", "parse_syntax"]

_TOKEN: Final = re.compile(r"[A-Z][A-Z0-9-]*(?:\|[A-Z][A-Z0-9-]*)+(?=[\s\[\]<>]|$)|\[|\]|<|>|\||\.\.\.|[^\s\[\]<>|]+")
_INTEGERS: Final = frozenset(
    "count cursor decrement increment index start stop end offset bit milliseconds seconds timeout maxlen maxage idle "
    "freq rank num-matches len numkeys limit numfields numreplicas numlocal db index1 index2 client-id protover "
    "threshold port samples destination-db bits position slot".split()
)
_DOUBLES: Final = frozenset(("score", "weight", "fraction"))
_TIMES: Final = frozenset(("unix-time-seconds", "unix-time-milliseconds", "timestamp"))
_PATTERNS: Final = frozenset(("pattern",))
_KEYS: Final = frozenset(
    ("key", "key1", "key2", "source", "destination", "newkey", "destkey", "dest-key", "store-key", "shardchannel-key")
)


@attrs.define
class Argument:
    """One argument: a value, a word (``pure-token``), a ``block`` of several, or ``oneof`` several."""

    name: str
    type: str
    token: str = ""
    optional: bool = False
    multiple: bool = False
    multiple_token: bool = False
    arguments: list[Argument] = attrs.field(factory=list)

    def words(self) -> str:
        """The argument written out, to tell whether it is repeated."""
        inner = " ".join(argument.words() for argument in self.arguments) if self.arguments else self.name
        return f"{self.token} {inner}".strip()


def _value(name: str) -> Argument:
    if name in _KEYS:
        return Argument(name, "key")
    if name in _PATTERNS:
        return Argument(name, "pattern")
    if name in _TIMES:
        return Argument(name, "unix-time")
    if name in _DOUBLES:
        return Argument(name, "double")
    return Argument(name, "integer" if name in _INTEGERS else "string")


def _is_literal(word: str) -> bool:
    return word.upper() == word and any(char.isalpha() for char in word)


class _Parser:
    """Recursive descent over the tokens; the notation nests a few levels deep."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._place = 0

    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def alternatives(self, closing: str) -> list[list[Argument]]:
        """Sequences divided by ``|`` up to ``closing``, which is taken too."""
        found: list[list[Argument]] = [[]]
        outermost = self._place == 0
        while self._next() != closing:
            token = self._next()
            self._place += 1
            if not token:
                raise ValueError("the notation is not closed")
            if token == "|":
                found.append([])
            elif "|" in token and not found[-1] and not outermost:
                words = [Argument(word.lower(), "pure-token", word) for word in token.split("|")]
                found[-1:] = [[word] for word in words]
            else:
                self._element(token, found[-1])
        self._place += 1
        return found

    def _element(self, token: str, sequence: list[Argument]) -> None:
        if token == "...":
            sequence[-1].multiple = True
        elif token == "[":
            inner = self.alternatives("]")
            if len(inner) == 1 and _repeats(inner[0], sequence):
                return
            argument = _group(inner)
            argument.optional = True
            sequence.append(argument)
        elif token == "<":
            self._append(_group(self.alternatives(">")), sequence)
        elif "|" in token:
            self._append(_group([[Argument(word.lower(), "pure-token", word)] for word in token.split("|")]), sequence)
        elif _is_literal(token):
            sequence.append(Argument(token.lower(), "pure-token", token))
        else:
            self._append(_value(token), sequence)

    @staticmethod
    def _append(argument: Argument, sequence: list[Argument]) -> None:
        """Add an argument; the word in capitals before it becomes its token."""
        if sequence and sequence[-1].type == "pure-token" and not sequence[-1].optional:
            argument.token = sequence.pop().token
        sequence.append(argument)


def _repeats(inner: list[Argument], sequence: list[Argument]) -> bool:
    """Whether ``inner`` only says that the last arguments may come again; marks them if so."""
    if not inner or not inner[-1].multiple:
        return False
    count = len(inner)
    inner[-1].multiple = False
    tail = sequence[-count:]
    # A token in front of the first value is said once: COUNT a [b ...].
    same = [argument.words() for argument in tail] == [argument.words() for argument in inner]
    untokened = count == 1 and len(tail) == 1 and tail[0].name == inner[0].name and not inner[0].token
    if not (same or untokened):
        inner[-1].multiple = True
        return False
    if count == 1:
        tail[0].multiple = True
        tail[0].multiple_token = bool(inner[0].token)
    else:
        block = Argument("-".join(argument.name for argument in tail), "block", multiple=True, arguments=list(tail))
        sequence[-count:] = [block]
    return True


def _group(alternatives: list[list[Argument]]) -> Argument:
    """One argument for what stands in brackets."""
    choices = [_sequence(sequence) for sequence in alternatives]
    if len(choices) == 1:
        return choices[0]
    return Argument(_group_name(choices), "oneof", arguments=choices)


def _group_name(choices: list[Argument]) -> str:
    tokens = {choice.token for choice in choices}
    for name, members in _GROUP_NAMES:
        if tokens & members:
            return name
    return "-or-".join(choice.name for choice in choices[:3])


_GROUP_NAMES: Final = (
    ("aggregate", frozenset(("SUM",))),
    ("expiration", frozenset(("EX", "PX", "EXAT", "PXAT"))),
    ("condition", frozenset(("NX", "XX"))),
    ("comparison", frozenset(("GT", "LT"))),
    ("where", frozenset(("LEFT", "BEFORE", "MIN"))),
    ("order", frozenset(("ASC", "DESC"))),
)


def _sequence(arguments: list[Argument]) -> Argument:
    if len(arguments) == 1:
        return arguments[0]
    if arguments and arguments[0].token:
        # LIMIT offset count: the word belongs to the whole.
        first = arguments[0]
        token, first.token = first.token, ""
        rest = arguments[1:] if first.type == "pure-token" else arguments
        return Argument(token.lower(), "block", token, arguments=rest)
    return Argument("-".join(argument.name for argument in arguments), "block", arguments=arguments)


def parse_arguments(syntax: str) -> list[Argument]:
    """The arguments that a line of the notation describes. Raises ValueError for brackets that do not match."""
    parser = _Parser(syntax + " ]")
    alternatives = parser.alternatives("]")
    return alternatives[0] if len(alternatives) == 1 else [_group(alternatives)]


def argument_maps(arguments: list[Argument], numbers: list[int]) -> list[dict[bytes, Any]]:
    """Arguments in the form of the reply. ``numbers`` are the key specifications not given to a key yet."""
    return [_map(argument, numbers) for argument in arguments]


def _map(argument: Argument, numbers: list[int]) -> dict[bytes, Any]:
    shown: dict[bytes, Any] = {b"name": argument.name.encode(), b"type": argument.type.encode()}
    if argument.type not in ("block", "oneof"):
        shown[b"display_text"] = argument.name.encode()
    if argument.type == "key" and numbers:
        shown[b"key_spec_index"] = numbers.pop(0)
    if argument.token:
        shown[b"token"] = argument.token.encode()
    flags = [
        Status(name)
        for name, holds in (
            (b"optional", argument.optional),
            (b"multiple", argument.multiple),
            (b"multiple_token", argument.multiple_token),
        )
        if holds
    ]
    if flags:
        shown[b"flags"] = SetReply(flags)
    if argument.arguments:
        shown[b"arguments"] = argument_maps(argument.arguments, numbers)
    return shown


def parse_syntax(syntax: str, key_specifications: int = 0) -> list[dict[bytes, Any]]:
    """The arguments of a syntax line as COMMAND DOCS replies them."""
    return argument_maps(parse_arguments(syntax), list(range(key_specifications)))
