"""The accept loop that all listeners share: it outlives everything but its own cancellation."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, Protocol

import trio

from .transport import Incoming, Listener

__all__ = ["CAPACITY_PAUSE", "AcceptLog", "accept_connections"]

#: Seconds until the next attempt when the system has no descriptors or buffers left.
CAPACITY_PAUSE: Final = 0.1

_CAPACITY_ERRORS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class AcceptLog(Protocol):
    """Where events go."""

    def info(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...


async def accept_connections(
    listener: Listener,
    admit: Callable[[Incoming], None],
    log: AcceptLog,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hand every new connection to ``admit`` until cancelled or until the listener is closed; closes it.

    ``admit`` must neither block nor raise; the connection is its own from then on. When the system is out of
    descriptors the loop waits and tries again. Raises ``OSError`` if the listener is broken.
    """
    refused = 0
    try:
        task_status.started()
        while True:
            try:
                connections = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as error:
                if error.errno not in _CAPACITY_ERRORS:
                    raise
                if not refused:
                    log.warning("accept_failed", address=listener.address, error=error.strerror or str(error))
                refused += 1
                await trio.sleep(CAPACITY_PAUSE)
                continue
            if refused:
                log.info("accept_recovered", address=listener.address, attempts=refused)
                refused = 0
            for incoming in connections:
                admit(incoming)
    finally:
        listener.close()
