"""What commands about scopes ask nodes: who they are, who writes a prefix, and which moves of it they know of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import attrs

from kevynode.errors import text
from kevynode.probe import ErrorReply, Probe, ProbeError, connect, parse_info
from kevynode.serve.info_replication import line
from kevynode.status import Facts, peers, scopes

__all__ = ["MoveRow", "NodeFacts", "find_owner", "look", "look_around", "moves_of"]

#: A row of MOVE-SCOPE STATUS: its fields by name, texts as text.
MoveRow: TypeAlias = dict[str, "str | int"]

#: How many nodes are asked one after the other who writes a prefix.
_HOPS: Final = 5


@attrs.frozen
class NodeFacts:
    """A node as it describes itself: its id, and where clients find the others that it knows, by their ids."""

    address: str
    node_id: str
    scopes: list[Facts]
    others: dict[str, str]

    def owner_of(self, prefix: bytes) -> str | None:
        """The id of the node that writes a prefix, by what this one knows; None: it is not declared there."""
        # As INFO spells it.
        spelt = line(iter([("", text(prefix))]))[1:]
        return next((str(row["owner"]) for row in self.scopes if row.get("prefix") == spelt and "owner" in row), None)


def look(address: str) -> NodeFacts:
    """Ask a node what it knows. Raises ProbeError, ErrorReply."""
    with connect(address) as probe:
        return _facts(probe)


def _facts(probe: Probe) -> NodeFacts:
    reply = probe.call(b"INFO", b"server", b"scopes")
    sections = parse_info(reply.decode("utf-8", "replace")) if isinstance(reply, bytes) else {}
    node_id = next((fields["node_id"] for fields in sections.values() if fields.get("node_id")), "")
    if not node_id:
        raise ProbeError(f"{probe.address} has no cluster.node_id, so it writes no scope")
    others = {str(row["id"]): str(row["client"]) for row in peers(sections) if "id" in row and "client" in row}
    return NodeFacts(probe.address, node_id, scopes(sections), others)


def find_owner(address: str, prefix: bytes) -> NodeFacts:
    """The node that writes a prefix, asked for at any node; that one itself where it does not declare the prefix.

    Raises ProbeError, ErrorReply.
    """
    found = look(address)
    asked = [found.node_id]
    while (owner := found.owner_of(prefix)) not in (None, found.node_id):
        assert owner is not None
        if owner not in found.others:
            raise ProbeError(f"{found.address} says that {owner} writes it, and knows no address of {owner}")
        if owner in asked or len(asked) > _HOPS:
            raise ProbeError(f"the nodes do not agree yet who writes it: {', '.join(asked)} name others")
        there = found.others[owner]
        found = look(there)
        if found.node_id != owner:
            raise ProbeError(f"{there} should be {owner}, and is {found.node_id}")
        asked.append(owner)
    return found


def look_around(address: str) -> Iterator[NodeFacts | str]:
    """A node, and then the others that it knows; for one that does not answer, why. Raises ProbeError, ErrorReply.

    It raises for the first one only.
    """
    first = look(address)
    yield first
    for there in first.others.values():
        try:
            yield look(there)
        except (ProbeError, ErrorReply) as error:
            yield str(error)


def moves_of(probe: Probe, prefix: bytes) -> list[MoveRow]:
    """The moves of a prefix that a node knows of, the oldest first. Raises ProbeError, ErrorReply."""
    reply = probe.call(b"MOVE-SCOPE", b"STATUS", prefix)
    return [_row(row) for row in reply if isinstance(row, list)] if isinstance(reply, list) else []


def _row(row: list[Any]) -> MoveRow:
    pairs = zip(row[::2], row[1::2], strict=False)
    return {_plain(name): value if isinstance(value, int) else _plain(value) for name, value in pairs}


def _plain(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
