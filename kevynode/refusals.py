"""Says in the log who was turned away, without letting anybody fill it by coming again and again."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["REFUSALS", "RefusalLog", "Refusals"]

#: Refusals that are told apart, by host and reason; beyond that the one is forgotten that was longest ago.
REFUSALS: Final = 256


class RefusalLog(Protocol):
    """Where refusals are told."""

    def warning(self, event: str, /, **fields: object) -> None: ...


class Refusals:
    """Logs ``event`` for who was turned away and why: the first, second, fourth time and so on. Bounded in memory."""

    def __init__(self, log: RefusalLog, event: str) -> None:
        self._log = log
        self._event = event
        # How often somebody was refused, by host and reason; who was refused last is at the end.
        self._counts: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def log(self, peer: str, reason: str) -> None:
        """``peer``, ``host:port``, is refused; its port is another one each time, so its host counts. Never blocks."""
        key = peer.rpartition(":")[0], reason
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        if len(self._counts) > REFUSALS:
            del self._counts[next(iter(self._counts))]
        if count & (count - 1) == 0:
            self._log.warning(self._event, peer=peer, reason=reason, times=count)
