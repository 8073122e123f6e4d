"""Nodes with scopes for the measurements: configured for one another, started, filled, and asked to move a prefix."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs

from bench.client import Connection, Reply, ServerError
from bench.measuring import Failed, free_port
from bench.servers import HOST, TARGETS, Running, started
from bench.workloads import STRING_PREFIX, Argv, number

OPEN_SECONDS = 30.0
"""How long nodes may take until they take writes under their scopes, and until a copy has the latest one."""

MOVE_SECONDS = 60.0
"""What a move may take, and then its end at both nodes."""

POLL_SECONDS = 0.005
KEYS_AT_ONCE = 200
DIGITS = 4
"""Digits of a key of the SET workload that differ from key to key."""


@attrs.frozen
class Place:
    """A node's id and its ports."""

    node_id: str
    port: int
    replication_port: int

    @classmethod
    def free(cls, node_id: str) -> "Place":
        """On ports that nobody listens on now."""
        return cls(node_id, free_port(), free_port())


@attrs.frozen
class Member:
    """A node that runs."""

    place: Place
    server: Running

    @property
    def node_id(self) -> str:
        """Its id among its peers."""
        return self.place.node_id

    def connect(self) -> Connection:
        """A client; raises OSError."""
        return Connection(self.server.host, self.server.port)


def configuration(
    place: Place, places: Sequence[Place], scopes: Mapping[str, str], *, replicate: str = "all", aof: bool = True
) -> str:
    """The text of a node's configuration file; ``scopes`` are prefixes and the ids of their writers."""
    lines = [
        "[persistence]",
        f"aof = {str(aof).lower()}",
        "[replication]",
        f"listen_port = {place.replication_port}",
        "[cluster]",
        f'node_id = "{place.node_id}"',
        f'replicate = "{replicate}"',
    ]
    for peer in places:
        lines += ["[[cluster.peer]]", f'id = "{peer.node_id}"', f'address = "{HOST}:{peer.port}"']
        lines.append(f'replication = "{HOST}:{peer.replication_port}"')
    for prefix, writer in scopes.items():
        lines += ["[[cluster.scope]]", f'prefix = "{prefix}"', f'writer = "{writer}"']
    return "\n".join(lines) + "\n"


def _command(
    place: Place, text: str, flags: Sequence[str], folders: list[Path], directory: Path, port: int
) -> list[str]:
    folders.append(directory.parent)
    words = [word for word in TARGETS["kevynode"].command(directory, port) if word != "--no-aof"]
    words[words.index("--port") + 1] = str(place.port)
    file = directory.parent / "node.toml"
    file.write_text(text, encoding="utf-8")
    return [*words, "--config", str(file), *flags]


@contextmanager
def node(place: Place, text: str, core: int, flags: Sequence[str] = ()) -> Iterator[Member]:
    """A node with this configuration and these flags on a core, for as long as the block lasts; raises Unavailable.

    What fails in the block because the node has ended fails with what the node said last, as Failed.
    """
    folders: list[Path] = []
    target = attrs.evolve(TARGETS["kevynode"], command=partial(_command, place, text, flags, folders))
    with started(target, core) as running:
        try:
            yield Member(place, running)
        except (OSError, ServerError, Failed) as error:
            if not has_ended(running.pid):
                raise
            said = (folders[-1] / "output").read_text(errors="replace").splitlines()[-1:]
            raise Failed(f"node {place.node_id} has ended ({error}): {' '.join(said)}") from error


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits only for us to take note of its end."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in ("Z", "X")


@contextmanager
def nodes(cores: Mapping[str, int], scopes: Mapping[str, str], replicate: str) -> Iterator[list[Member]]:
    """Nodes that are peers, by id with their cores, and that take writes; raises Unavailable and Failed.

    They keep append-only files, as nodes do unless told otherwise.
    """
    places = [Place.free(node_id) for node_id in cores]
    with ExitStack() as stack:
        members = [
            stack.enter_context(
                node(place, configuration(place, places, scopes, replicate=replicate), cores[place.node_id])
            )
            for place in places
        ]
        for member in members:
            await_open(member, [prefix for prefix, writer in scopes.items() if writer == member.node_id])
        yield members


def await_open(member: Member, prefixes: Sequence[str]) -> None:
    """Wait until a node takes writes under these prefixes; raises Failed with its reason if it does not."""
    deadline = time.monotonic() + OPEN_SECONDS
    with member.connect() as connection:
        for prefix in prefixes:
            while True:
                try:
                    connection.call("DEL", prefix + "nothing")
                    break
                except ServerError as error:
                    if time.monotonic() > deadline:
                        raise Failed(f"node {member.node_id} takes no writes under {prefix}: {error}") from None
                time.sleep(POLL_SECONDS)


def plain_text(place: Place) -> str:
    """The configuration of a node that declares no scopes and keeps no files."""
    return f"[persistence]\naof = false\n[replication]\nlisten_port = {place.replication_port}\n"


def spread_prefixes(count: int) -> list[str]:
    """``count`` (a power of ten) prefixes that share the keys of the SET workload evenly."""
    digits = len(str(count)) - 1
    if count != 10**digits or digits >= DIGITS:
        raise ValueError(f"{count} is none of 1, 10, 100, 1000")
    shared = STRING_PREFIX + number(0)[:-DIGITS]
    return [shared + (f"{index:0{digits}d}" if digits else "") for index in range(count)]


def fill(prefix: str, keys: int, size: int) -> Iterator[Argv]:
    """Commands that set so many keys under a prefix to values of ``size`` bytes."""
    value = "x" * size
    for start in range(0, keys, KEYS_AT_ONCE):
        words = ["MSET"]
        for index in range(start, min(start + KEYS_AT_ONCE, keys)):
            words += (prefix + number(index), value)
        yield words


def await_copy(writer: Member, copy: Member, prefix: str) -> None:
    """Wait until what is written now under a prefix is at another node; raises Failed and ServerError."""
    deadline = time.monotonic() + OPEN_SECONDS
    key, value = prefix + "marker", f"{time.monotonic():.6f}"
    with writer.connect() as writing, copy.connect() as reading:
        writing.call("SET", key, value)
        while reading.call("GET", key) != value.encode():
            if time.monotonic() > deadline:
                raise Failed(f"the copy of {prefix} at node {copy.node_id} was not current in {OPEN_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)


# -- moves ------------------------------------------------------------------------------------------------------------

Row = dict[str, str | int]


@attrs.frozen
class Moved:
    """A move as its source tells of it: ``window`` in seconds without writes, ``size`` of what was shipped in bytes.

    ``began``, ``answered`` and ``ended`` are moments (monotonic): the command, its reply, and when neither node had
    anything left to do for it. ``following`` says that the target's live copy was taken, and nothing shipped.
    """

    source: str
    target: str
    keys: int
    size: int
    window: float
    following: bool
    began: float
    answered: float
    ended: float


def move(source: Member, target: Member, prefix: str) -> Moved:
    """Move a prefix, and wait for the end of it at both nodes. Raises Failed if it is refused, fails or is in doubt."""
    with source.connect() as asking, target.connect() as asking_target:
        began = time.monotonic()
        try:
            asking.call("MOVE-SCOPE", prefix, "FROM", source.node_id, "TO", target.node_id)
        except ServerError as error:
            raise Failed(f"the move of {prefix} from {source.node_id} to {target.node_id}: {error}") from None
        answered = time.monotonic()
        row = _await_end(asking, prefix, "source", "done")
        _await_end(asking_target, prefix, "target", "active")
        ended = time.monotonic()
    return Moved(
        source=source.node_id,
        target=target.node_id,
        keys=int(row["keys"]),
        size=int(row["bytes"]),
        window=int(row["window-ms"]) / 1000,
        following=bool(row["following"]),
        began=began,
        answered=answered,
        ended=ended,
    )


def status_rows(reply: Reply) -> list[Row]:
    """The moves in a reply to MOVE-SCOPE STATUS, the oldest first; raises ServerError for another reply."""
    if not isinstance(reply, list):
        raise ServerError("MOVE-SCOPE STATUS has no list")
    return [_row(each) for each in reply]


def _row(reply: Reply) -> Row:
    if not isinstance(reply, list) or len(reply) % 2:
        raise ServerError("MOVE-SCOPE STATUS has no maps")
    row: Row = {}
    for name, value in zip(reply[::2], reply[1::2], strict=True):
        if not isinstance(name, bytes) or not isinstance(value, bytes | int):
            raise ServerError("MOVE-SCOPE STATUS has no fields")
        row[name.decode()] = value if isinstance(value, int) else value.decode(errors="replace")
    return row


def _await_end(asking: Connection, prefix: str, role: str, state: str) -> Row:
    """The last move of a prefix in that role, once it has come to ``state``."""
    deadline = time.monotonic() + MOVE_SECONDS
    while True:
        rows = [row for row in status_rows(asking.call("MOVE-SCOPE", "STATUS", prefix)) if row["role"] == role]
        if rows and rows[-1]["state"] == state:
            return rows[-1]
        if time.monotonic() > deadline:
            seen = rows[-1]["state"] if rows else "nothing"
            raise Failed(f"the move of {prefix} did not end within {MOVE_SECONDS:.0f} s: its {role} shows {seen}")
        time.sleep(POLL_SECONDS)
