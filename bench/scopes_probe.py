"""A client that writes under a prefix while it moves, as a process: ``python -m bench.scopes_probe``.

It writes one key at a beat, waits where a node says "not now", goes where a redirect points, and tells for how long
no write was taken. The task is one line of JSON on standard input, the outcome one line on standard output. It ends at
the end of its input, or after the task's seconds. It runs with real-time priority where that is allowed.
"""

import gc
import json
import sys
import time

import attrs

from bench.replication_load import read_line
from bench.replication_probe import ProbeError, Wire, ended, take_priority
from bench.workloads import encode_request

PATIENCE = 60.0
"""Seconds without a write that is taken, after which something is wrong."""

NOT_NOW = (b"-QUIESCED ", b"-LOADING ")
ELSEWHERE = b"-MISDIRECTED writer is "


@attrs.frozen
class Visit:
    """Where to write first, which key, and how many seconds to pause between two writes."""

    host: str
    port: int
    key: str
    interval: float
    seconds: float


Gap = tuple[float, float, int]
"""The moment (monotonic) of the last write that was taken, seconds until the next one was, refusals in between."""


@attrs.define
class Met:
    """Writes that were taken, and the times in which none was because the scope was moving."""

    writes: int = 0
    gaps: list[Gap] = attrs.field(factory=list)
    realtime: bool = False


def redirect(reply: bytes) -> tuple[str, int] | None:
    """Where a reply sends the client, or None."""
    if not reply.startswith(ELSEWHERE):
        return None
    host, _, port = reply.removeprefix(ELSEWHERE).decode().strip().rpartition(":")
    return host, int(port)


class Visitor:
    """What a client knows while it follows a scope: where it is written, and when a write was last taken."""

    def __init__(self, host: str, port: int, now: float) -> None:
        self.address = (host, port)
        self.met = Met()
        self._taken_at = now
        self._refused = 0
        # Whether the last reply was a redirect.
        self._redirected = False

    def heard(self, reply: bytes, now: float) -> bool:
        """Take in the reply to a write; whether to write again at once, elsewhere. Raises ProbeError.

        Of several redirects in a row only the first is followed at once: two nodes that name each other get no more
        requests than one that refuses.
        """
        if reply == b"+OK\r\n":
            if self._refused:
                self.met.gaps.append((self._taken_at, now - self._taken_at, self._refused))
            self.met.writes += 1
            self._taken_at, self._refused, self._redirected = now, 0, False
            return False
        if now - self._taken_at > PATIENCE:
            raise ProbeError(f"no write was taken for {PATIENCE:.0f} s; the last reply: {reply[:100]!r}")
        at_once = False
        address = redirect(reply)
        if address is not None:
            at_once = self.address != address and not self._redirected
            self.address = address
            self._redirected = True
        elif reply.startswith(NOT_NOW):
            self._redirected = False
        else:
            raise ProbeError(f"the server answered {reply[:100]!r}")
        self._refused += 1
        return at_once


def watch(visit: Visit, control: int) -> Met:
    """Write until ``control`` (a descriptor) is at its end or the time is over; raises ProbeError and OSError."""
    clock = time.monotonic
    wires: dict[tuple[str, int], Wire] = {}
    began = clock()
    visitor = Visitor(visit.host, visit.port, began)
    request = encode_request(["SET", visit.key, "x"])
    try:
        while clock() - began < visit.seconds and not ended(control):
            if visitor.address not in wires:
                wires[visitor.address] = Wire(*visitor.address)
            if not visitor.heard(wires[visitor.address].exchange(request), clock()):
                time.sleep(visit.interval)
    finally:
        for wire in wires.values():
            wire.close()
    return visitor.met


def main() -> int:
    """Carry out the task on standard input; exit code 1 and a line on standard error when it fails."""
    control = sys.stdin.fileno()
    visit = Visit(**json.loads(read_line(control)))
    gc.disable()
    realtime = take_priority()
    try:
        met = watch(visit, control)
    except (ProbeError, OSError) as error:
        print(f"bench.scopes_probe: {error}", file=sys.stderr)
        return 1
    met.realtime = realtime
    print(json.dumps(attrs.asdict(met)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
