"""What COMMAND INFO and COMMAND DOCS say of each command is what Valkey says of it."""

from __future__ import annotations

from typing import Any

import pytest
from compat import scope
from compat.runner import Pair, Side
from support.raw_client import Reply

#: The parts of a COMMAND INFO entry, in order.
_PARTS = ("name", "arity", "flags", "first key", "last key", "step", "categories", "tips", "key specifications")


def plain(reply: Reply) -> Any:
    """A reply as plain values, sets and maps in a canonical order; simple strings and bulks become the same."""
    if reply.kind == "map":
        pairs = [(plain(key), plain(value)) for key, value in zip(reply.value[::2], reply.value[1::2], strict=True)]
        return dict(sorted(pairs, key=repr))
    if reply.kind == "set":
        return sorted((plain(element) for element in reply.value), key=repr)
    if reply.kind in ("array", "several"):
        return [plain(element) for element in reply.value]
    return reply.value.decode("latin-1") if isinstance(reply.value, bytes) else reply.value


def described(side: Side, name: str) -> dict[str, Any]:
    """The COMMAND INFO entry of a command, its subcommands by name."""
    with side.connect(3) as client:
        entries = plain(client.call(b"COMMAND", b"INFO", name.encode()))
    assert entries[0] is not None, f"{side.name} does not know {name}"
    return by_part(entries[0])


def by_part(entry: list[Any]) -> dict[str, Any]:
    """An entry with its parts by name."""
    parts = dict(zip(_PARTS, entry, strict=False))
    parts["tips"] = sorted(parts["tips"])
    for specification in parts["key specifications"]:
        specification.pop("notes", None)  # a remark in Valkey's words
    parts["subcommands"] = {sub[0]: by_part(sub) for sub in entry[9]}
    return parts


@pytest.mark.parametrize("name", scope.COMMANDS)
def test_command_info(pair: Pair, name: str) -> None:
    """Every part of the entry is the same; of a container the subcommands that both have."""
    expected, actual = (described(side, name) for side in pair.sides)
    subcommands = expected.pop("subcommands"), actual.pop("subcommands")
    assert actual == expected
    wanted = scope.SUBCOMMANDS.get(name, ())
    missing = [f"{name}|{sub}" for sub in wanted if f"{name}|{sub}" not in subcommands[1]]
    assert not missing
    for sub in subcommands[0].keys() & subcommands[1].keys():
        assert subcommands[1][sub] == subcommands[0][sub]


@pytest.mark.parametrize("name", scope.COMMANDS)
def test_command_docs(pair: Pair, name: str) -> None:
    """There is a summary, the group is Valkey's."""
    groups = []
    for side in pair.sides:
        with side.connect(3) as client:
            docs = plain(client.call(b"COMMAND", b"DOCS", name.encode()))
        assert list(docs) == [name], side.name
        assert docs[name].get("summary"), side.name
        groups.append(docs[name]["group"])
    assert groups[0] == groups[1]
