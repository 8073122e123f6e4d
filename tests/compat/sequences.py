r"""Sequences of commands as text, one command a line, quoted as in redis-cli.

    == name of the sequence
    SET k v                     client 1 sends it; its reply is compared
    2: GET k                    client 2 sends it; its reply is compared
    2! BLPOP l 0                client 2 sends it; compared is only whether it now blocks
    2_ CLIENT REPLY OFF         client 2 sends it; nothing is read
    2< 3                        three replies (default 1) are read from client 2 and compared
    2x                          client 2 closes its connection; the next step waits until the server has noticed
    TTL k              #~ near  another comparison for this step, by its name in ``compare.NAMED``
    # …                         a comment

Words in double quotes take the escapes \n \r \t \b \a \\ \" \xHH; words in single quotes are literal. In a word,
``{rep:text:count}`` repeats a text, ``{now+60}`` and ``{nowms-5}`` are wall-clock times (the same on both servers),
``{id:2}``, ``{addr:2}`` and ``{laddr:2}`` are a client's id, address and the address it connected to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import pytest

#: What a step does with its client.
CALL: Final = "call"
BLOCK: Final = "block"
SEND: Final = "send"
READ: Final = "read"
LEAVE: Final = "leave"

_ACTIONS: Final = {":": CALL, "!": BLOCK, "_": SEND, "<": READ, "x": LEAVE}
_STEP: Final = re.compile(r"(?:(?P<client>\d+)(?P<action>[:!_<x])(?:\s+|$))?(?P<rest>.*)", re.DOTALL)
_COMPARISON: Final = re.compile(r"\s+#~\s*(?P<name>[a-z-]+)\s*$")
_ESCAPES: Final = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a", "\\": b"\\", '"': b'"'}
_VARIABLE: Final = re.compile(
    rb"\{(?:(?P<what>id|addr|laddr):(?P<client>\d+)|(?P<clock>now|nowms)(?P<offset>[+-]\d+)|rep:(?P<text>[^:{}]*):(?P<count>\d+))\}"
)


class Step(NamedTuple):
    """One line of a sequence. ``replies`` is how many replies a READ step reads; ``how`` names its comparison."""

    client: int
    action: str
    argv: tuple[bytes, ...] = ()
    replies: int = 1
    how: str = ""

    def shown(self) -> str:
        """The step as redis-cli takes it, with the client in front where it is not the first."""
        front = "" if self.client == 1 and self.action == CALL else f"{self.client}{_MARKS[self.action]} "
        rest = (str(self.replies) if self.replies > 1 else "") if self.action == READ else show_command(self.argv)
        return (front + rest).rstrip()


_MARKS: Final = {action: mark for mark, action in _ACTIONS.items()}


class Sequence_(NamedTuple):  # noqa: N801 - the underscore keeps it apart from collections.abc.Sequence
    """A named list of steps, run on fresh clients against an empty server."""

    name: str
    steps: tuple[Step, ...]


def split_words(line: str) -> tuple[bytes, ...]:
    """A command line as its words, by the quoting rules of redis-cli. Raises ValueError on unbalanced quotes."""
    words: list[bytes] = []
    position, end = 0, len(line)
    while True:
        while position < end and line[position].isspace():
            position += 1
        if position == end:
            return tuple(words)
        word = bytearray()
        while position < end and not line[position].isspace():
            quote = line[position]
            if quote not in "\"'":
                word += quote.encode()
                position += 1
                continue
            position += 1
            while position < end and line[position] != quote:
                if quote == '"' and line[position] == "\\" and position + 1 < end:
                    escape = line[position + 1]
                    if escape == "x":
                        word.append(int(line[position + 2 : position + 4], 16))
                        position += 4
                        continue
                    word += _ESCAPES.get(escape, escape.encode())
                    position += 2
                    continue
                word += line[position].encode()
                position += 1
            if position == end:
                raise ValueError(f"unbalanced quotes in {line!r}")
            position += 1
        words.append(bytes(word))


def show_word(word: bytes, limit: int = 120) -> str:
    """A word as redis-cli takes it; long ones are cut with a note of their length."""
    if len(word) > limit:
        if len(set(word)) == 1:
            return f"{{rep:{show_word(word[:1])}:{len(word)}}}"
        return show_word(word[:limit]) + f"…[{len(word)} bytes]"
    if word and re.fullmatch(rb"[\x21-\x7e]+", word) and not re.search(rb"[\"'\\]", word):
        return word.decode()
    inner = "".join(
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in word
    )
    return f'"{inner}"'


def show_command(argv: Sequence[bytes]) -> str:
    """A command as a line that redis-cli takes."""
    return " ".join(show_word(word) for word in argv)


def parse_step(line: str) -> Step:
    """One line of a sequence."""
    comparison = _COMPARISON.search(line)
    how = ""
    if comparison is not None:
        how, line = comparison["name"], line[: comparison.start()]
    match = _STEP.fullmatch(line.strip())
    assert match is not None
    client = int(match["client"] or 1)
    action = _ACTIONS[match["action"] or ":"]
    if action == READ:
        return Step(client, action, replies=int(match["rest"].strip() or 1), how=how)
    if action == LEAVE:
        return Step(client, action)
    return Step(client, action, split_words(match["rest"]), how=how)


def parse(text: str) -> list[Sequence_]:
    """All sequences of a text. Raises ValueError for a step before the first name and for a name used twice."""
    found: list[Sequence_] = []
    names: set[str] = set()
    steps: list[Step] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("# "):
            continue
        if line.startswith("== "):
            name = "-".join(line[3:].split())
            if name in names:
                raise ValueError(f"two sequences are named {name!r}")
            names.add(name)
            steps = []
            found.append(Sequence_(name, ()))
        elif not found:
            raise ValueError(f"a step before the first name: {line!r}")
        else:
            steps.append(parse_step(line))
            found[-1] = Sequence_(found[-1].name, tuple(steps))
    return found


def parametrize(text: str) -> pytest.MarkDecorator:
    """A decorator that runs a test once for each sequence of the text, as its argument ``sequence``."""
    return pytest.mark.parametrize("sequence", [pytest.param(found, id=found.name) for found in parse(text)])


def clients_of(steps: Sequence[Step]) -> list[int]:
    """The numbers of the clients that take part, ascending."""
    mentioned = {
        int(m["client"]) for step in steps for word in step.argv for m in _VARIABLE.finditer(word) if m["what"]
    }
    return sorted({step.client for step in steps} | mentioned)


def needs_id(steps: Sequence[Step], client: int) -> bool:
    """Whether some step names this client's id."""
    return any(b"{id:%d}" % client in word for step in steps for word in step.argv)


def substitute(word: bytes, variables: Mapping[str, Any]) -> bytes:
    """The word with its variables replaced. ``variables`` has now, nowms (ints) and id:N, addr:N, laddr:N (bytes)."""

    def value(match: re.Match[bytes]) -> bytes:
        if match["what"]:
            return bytes(variables[f"{match['what'].decode()}:{match['client'].decode()}"])
        if match["clock"]:
            return b"%d" % (int(variables[match["clock"].decode()]) + int(match["offset"]))
        return bytes(match["text"]) * int(match["count"])

    return _VARIABLE.sub(value, word) if b"{" in word else word
