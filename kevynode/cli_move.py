"""``kevynode move-scope``: gives a prefix to another writer, shows how far that is, and what else there is to do of it.

Exit status: 0 it is done; 1 it is not, and nothing has changed; 3 nobody knows yet: the move is decided and not
confirmed, or the node went away in the midst of it; 130 it was interrupted, and the last line says what that came to.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final

import attrs

from kevynode.cli_nodes import MoveRow, NodeFacts, find_owner, look_around, moves_of
from kevynode.cli_output import INTERRUPTED, Progress, counted, fail, note, say
from kevynode.probe import ErrorReply, Probe, ProbeError, command_words, connect
from kevynode.serve.info import human_size
from kevynode.status import in_columns

__all__ = ["STEPS", "UNDECIDED", "MoveOptions", "abort_move", "resolve_move", "run_move", "show_moves"]

#: The exit status where it is not known yet how a move ends.
UNDECIDED: Final = 3

#: Seconds that a move may take if nothing is said, and that its answer may be late.
_MOVE_SECONDS: Final = 30.0
_MARGIN: Final = 10.0
#: Seconds between two looks at a move, on a terminal, and without one; and between two tries to call it off.
_LOOK: Final = 0.1
_LINE: Final = 1.0
_ABORT_AGAIN: Final = 0.1
#: Seconds that a node may take for a look.
_LOOK_SECONDS: Final = 2.0

# What a node says that knows of no move to call off.
_NO_MOVE: Final = "no move of this prefix"

#: What the states of a move at its source are called, in their order, and how much of it is behind it then, in percent:
#: to hand over takes longest where there is no copy, and to take over then, too.
STEPS: Final[Mapping[str, tuple[str, int]]] = {
    "asking": ("asking", 0),
    "requesting": ("agreed", 4),
    "capturing": ("writes wait", 6),
    "quiescing": ("writes wait", 8),
    "quiesced": ("handing over", 10),
    "confirming": ("handed over", 60),
    "flipping": ("deciding", 62),
    "restoring": ("decided", 64),
    "flipped": ("decided", 64),
    "releasing": ("confirmed", 96),
    "settling": ("moved", 100),
    "finishing": ("moved", 100),
    "done": ("moved", 100),
}
#: States of a target in which there is nothing left to be decided.
_SETTLED: Final = frozenset("placing opening open finishing active discarding clearing closing discarded".split())


@attrs.frozen
class MoveOptions:
    """What is wanted; see the arguments of the command. ``at`` is any node's address, ``timeout`` in seconds."""

    prefix: str
    target: str
    at: str
    timeout: float | None = None
    force: bool = False


def run_move(options: MoveOptions) -> int:
    """Move a prefix, show how it goes and how it ended, and return the exit status. Takes long."""
    try:
        source = find_owner(options.at, _bytes(options.prefix))
        if options.target == source.node_id == source.owner_of(_bytes(options.prefix)):
            say(f"{_named(options.prefix)} is written by {options.target} already")
            return 0
        if source.address != options.at:
            note(f"{_named(options.prefix)} is written by {source.node_id} at {source.address}")
        move = _Moving(options, source)
    except (ProbeError, ErrorReply) as error:
        return fail(error)
    return move.run()


class _Moving:
    """One move, from its command to the answer."""

    def __init__(self, options: MoveOptions, source: NodeFacts) -> None:
        """Connect to the node that writes the prefix. Raises ProbeError, ErrorReply."""
        self._options = options
        self._source = source
        self._prefix = _bytes(options.prefix)
        with ExitStack() as ends:
            # None: it is not being looked at, and only the answer is waited for.
            self._watching: Probe | None = ends.enter_context(connect(source.address, timeout=_LOOK_SECONDS))
            self._known = {row.get("move-id") for row in moves_of(self._watching, self._prefix)}
            seconds = _MOVE_SECONDS if options.timeout is None else options.timeout
            self._asking = connect(source.address, timeout=seconds + _MARGIN)
            ends.pop_all()
        self._answered = threading.Event()
        self._answer: str | ErrorReply | ProbeError = ""
        self._bar = Progress()
        self._next_line = 0.0
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def run(self) -> int:
        """Send the command, and wait for the answer; Ctrl-C calls the move off, and once more leaves it alone."""
        self._next_line = time.monotonic() + _LINE
        interrupted = False
        try:
            with self._bar:
                try:
                    self._thread.start()
                    self._watch()
                except KeyboardInterrupt:
                    if self._thread.ident is None:
                        # Nothing has been asked for yet.
                        return INTERRUPTED
                    interrupted = True
                    self._call_off()
                    self._watch()
                row = self._row()
        except KeyboardInterrupt:
            note(f"The move goes on at {self._source.node_id}; how it ends is told by\n    {self._hint()}")
            return INTERRUPTED
        finally:
            self._look_away()
        return self._tell(row, interrupted)

    def _ask(self) -> None:
        with self._asking:
            try:
                self._answer = str(self._asking.call(*self._command()))
            except (ErrorReply, ProbeError) as error:
                self._answer = error
            self._answered.set()

    def _command(self) -> list[bytes]:
        options = self._options
        words = ["FROM", self._source.node_id, "TO", options.target]
        if options.timeout is not None:
            words += ["TIMEOUT", str(max(1, round(options.timeout * 1000)))]
        if options.force:
            words.append("FORCE")
        return [b"MOVE-SCOPE", self._prefix, *command_words(words)]

    # -- meanwhile ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Show how far the move is until it is answered."""
        while not self._answered.wait(_LOOK):
            is_due = time.monotonic() >= self._next_line
            if not (self._bar.is_wanted or is_due):
                continue
            row = self._row()
            if row is None:
                continue
            title = f"{_named(self._options.prefix)} to {self._options.target}"
            if self._bar.is_wanted:
                self._bar.show(title, _percent(row), 100, _standing(row))
            else:
                note(f"{title}: {_standing(row)}")
                self._next_line = time.monotonic() + _LINE

    def _row(self) -> MoveRow | None:
        """The move as the source tells it; None: it does not, or not any more."""
        if self._watching is None:
            return None
        try:
            rows = moves_of(self._watching, self._prefix)
        except ErrorReply:
            return None
        except ProbeError:
            self._look_away()
            return None
        ours = (row for row in rows if row.get("role") == "source" and row.get("move-id") not in self._known)
        return next(ours, None)

    def _look_again(self) -> None:
        with suppress(ProbeError):
            self._watching = connect(self._source.address, timeout=_LOOK_SECONDS)

    def _look_away(self) -> None:
        if self._watching is not None:
            self._watching.close()
            self._watching = None

    def _call_off(self) -> None:
        """Have the source call the move off; if that is too late, say so."""
        # What was being read when the interrupt came is of no more use.
        self._look_away()
        self._bar.clear()
        note("Calling the move off; Ctrl-C once more leaves it to itself.")
        try:
            with connect(self._source.address, timeout=_MOVE_SECONDS) as probe:
                self._abort(probe)
        except (ProbeError, ErrorReply) as error:
            note(f"It cannot be called off: {error}")
        self._look_again()

    def _abort(self, probe: Probe) -> None:
        while not self._answered.is_set():
            try:
                probe.call(b"MOVE-SCOPE", b"ABORT", self._prefix)
            except ErrorReply as error:
                if _NO_MOVE not in str(error):
                    raise
            else:
                return
            # The command may be on its way still.
            self._answered.wait(_ABORT_AGAIN)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _tell(self, row: MoveRow | None, interrupted: bool) -> int:
        answer, options, source = self._answer, self._options, self._source
        prefix = _named(options.prefix)
        if isinstance(answer, str):
            say(f"{prefix} moved from {source.node_id} to {options.target}{_figures(row)}")
            return 0
        if isinstance(answer, ProbeError):
            fail(f"{answer}; it is not known what became of the move")
            note(f"    {self._hint()}")
            return UNDECIDED
        if "MOVE-SCOPE in doubt" in str(answer):
            fail(answer)
            note(f"    {self._hint()}")
            return UNDECIDED
        if interrupted:
            say(f"{prefix} stays with {source.node_id}: the move was called off")
            return INTERRUPTED
        return fail(answer)

    def _hint(self) -> str:
        """What to ask for how it ended: the target's is the word that counts, and it need not be the source's end."""
        address = self._source.others.get(self._options.target, self._source.address)
        return shlex.join(["kevynode", "move-scope", self._options.prefix, "--status", "--at", address])


def _percent(row: MoveRow) -> int:
    state = str(row.get("state"))
    _, percent = STEPS.get(state, ("", 0))
    if state == "quiesced" and row.get("keys"):
        # Up to the next step, by what has gone out.
        percent += (STEPS["confirming"][1] - percent) * _number(row, "sent-keys") // _number(row, "keys")
    return percent


def _standing(row: MoveRow) -> str:
    """How far a move is, in words."""
    state = str(row.get("state", "?"))
    found = [STEPS.get(state, (state, 0))[0]]
    keys, sent = _number(row, "keys"), _number(row, "sent-keys")
    if keys:
        found.append(f"{sent:,} of {counted(keys, 'key')}" if 0 < sent < keys else counted(keys, "key"))
    if row.get("bytes"):
        found.append(human_size(_number(row, "bytes")))
    if row.get("window-ms"):
        found.append(f"writes wait for {_number(row, 'window-ms') / 1000:.1f} s")
    if row.get("in-doubt"):
        found.append("in doubt")
    return ", ".join(found)


def _figures(row: MoveRow | None) -> str:
    """What a move came to, as the end of a line."""
    if row is None:
        return ""
    size, commands = _number(row, "bytes"), _number(row, "commands")
    shipped = f"{counted(commands, 'command')} of {human_size(size)} shipped" if commands else "nothing to ship"
    return f": {counted(_number(row, 'keys'), 'key')}, {shipped}, writes waited for {_number(row, 'window-ms')} ms"


def _number(row: MoveRow, name: str) -> int:
    value = row.get(name, 0)
    return value if isinstance(value, int) else 0


# -- what else there is to do of a move -------------------------------------------------------------------------------


def show_moves(prefix: str, at: str) -> int:
    """Print who writes a prefix and the moves of it that the nodes know of; the exit status. Takes long."""
    rows = [["NODE", "ID", "WRITER", "ROLE", "WITH", "STATE", "EPOCH", "KEYS", "SHIPPED", "WINDOW", "!", "DETAIL"]]
    silent = 0
    try:
        for node in look_around(at):
            if isinstance(node, str):
                fail(node)
                silent = 1
            else:
                rows += _rows_of(node, _bytes(prefix))
    except (ProbeError, ErrorReply) as error:
        return fail(error)
    say("\n".join(in_columns(rows)))
    return silent


def _rows_of(node: NodeFacts, prefix: bytes) -> list[list[str]]:
    with connect(node.address) as probe:
        moves = moves_of(probe, prefix)
    about = [node.address, node.node_id, node.owner_of(prefix) or "-"]
    return [[*about, *_cells(row)] for row in moves] or [[*about, *["-"] * 9]]


def _cells(row: MoveRow) -> list[str]:
    shipped = human_size(_number(row, "bytes"))
    window = f"{_number(row, 'window-ms')} ms" if row.get("role") == "source" else "-"
    words = (row.get(name, "-") for name in ("role", "peer", "state", "epoch", "keys"))
    doubt = "! in doubt" if row.get("in-doubt") else "-"
    cells = (*words, shipped, window, doubt, row.get("detail") or "-")
    return ["".join(char if char.isprintable() else "?" for char in str(cell)) for cell in cells]


def abort_move(prefix: str, at: str) -> int:
    """Call a move of a prefix off at the node that writes it; the exit status."""
    try:
        source = find_owner(at, _bytes(prefix))
        with connect(source.address, timeout=_MOVE_SECONDS) as probe:
            probe.call(b"MOVE-SCOPE", b"ABORT", _bytes(prefix))
    except (ProbeError, ErrorReply) as error:
        return fail(error)
    say(f"{_named(prefix)} stays with {source.node_id}: the move was called off")
    return 0


def resolve_move(prefix: str, at: str, decision: str) -> int:
    """Decide a move of a prefix, ``commit`` or ``abort``, at its target; the exit status."""
    words: tuple[Any, ...] = (b"MOVE-SCOPE", b"RESOLVE", _bytes(prefix), decision.upper().encode())
    try:
        target = _find_target(at, _bytes(prefix))
        with connect(target.address, timeout=_MOVE_SECONDS) as probe:
            probe.call(*words)
    except (ProbeError, ErrorReply) as error:
        return fail(error)
    ended = f"is written by {target.node_id}" if decision == "commit" else f"was dropped by {target.node_id}"
    say(f"{_named(prefix)} {ended}: the move was decided by hand")
    return 0


def _find_target(at: str, prefix: bytes) -> NodeFacts:
    """The node that a prefix is moving to, asked for at any node; that one itself if none is. As :func:`find_owner`."""
    nodes = [node for node in look_around(at) if isinstance(node, NodeFacts)]
    for node in nodes:
        with connect(node.address) as probe:
            rows = moves_of(probe, prefix)
        if any(row.get("role") == "target" and row.get("state") not in _SETTLED for row in rows):
            return node
    return nodes[0]


def _bytes(word: str) -> bytes:
    return command_words([word])[0]


def _named(prefix: str) -> str:
    """A scope as the beginning of a line."""
    return "scope " + ("".join(char if char.isprintable() else "?" for char in prefix) or '""')
