"""How many descriptors the process may have open, and so how many clients it can serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["RESERVED_DESCRIPTORS", "LimitsLog", "fit_descriptor_limit"]

#: Descriptors for everything that is no client: files, listeners, links to other nodes, the event loop's own.
RESERVED_DESCRIPTORS: Final = 128


class LimitsLog(Protocol):
    """Where warnings go."""

    def info(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...


def fit_descriptor_limit(
    maxclients: int,
    log: LimitsLog,
    *,
    get_limit: Callable[[], tuple[int, int]] | None = None,
    set_limit: Callable[[tuple[int, int]], None] | None = None,
) -> int:
    """Raise RLIMIT_NOFILE so that ``maxclients`` connections fit; the number of clients that do fit.

    The soft limit is raised, and the hard one where the process may do that. If that is not enough the result is lower
    than ``maxclients`` and a warning names the numbers. Raises ``OSError`` if not a single client would fit.
    ``get_limit`` and ``set_limit`` replace the system's (soft, hard) pair, -1 meaning no limit.
    """
    if get_limit is None or set_limit is None:
        import resource

        get_limit = get_limit or (lambda: resource.getrlimit(resource.RLIMIT_NOFILE))
        set_limit = set_limit or (lambda limits: resource.setrlimit(resource.RLIMIT_NOFILE, limits))
    wanted = maxclients + RESERVED_DESCRIPTORS
    soft, hard = get_limit()
    if _covers(soft, wanted):
        return maxclients
    allowed = soft
    for candidate in _candidates(wanted, hard):
        try:
            set_limit(candidate)
        except (OSError, ValueError):
            continue
        allowed = candidate[0]
        break
    if allowed >= wanted:
        log.info("descriptor_limit_raised", before=soft, now=allowed)
        return maxclients
    fitting = allowed - RESERVED_DESCRIPTORS
    if fitting < 1:
        raise OSError(f"the limit of {allowed} open files is too low to serve clients; raise it (ulimit -n {wanted})")
    log.warning("maxclients_lowered", wanted=maxclients, now=fitting, open_files=allowed, needed=wanted)
    return fitting


def _covers(limit: int, wanted: int) -> bool:
    return limit < 0 or limit >= wanted


def _candidates(wanted: int, hard: int) -> list[tuple[int, int]]:
    """Pairs to try, the best first."""
    if _covers(hard, wanted):
        return [(wanted, hard)]
    # Only a privileged process may raise the hard limit.
    return [(wanted, wanted), (hard, hard)]
