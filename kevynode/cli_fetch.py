"""A copy of a running node's data as of one moment, over its replication port. For Trio programs."""

from __future__ import annotations

import os
from collections.abc import Callable

from .clock import SystemClock
from .config_values import join_address
from .replicate.client import ConnectFailed, ReplicaClient, ReplicaError, SnapshotBegin, SnapshotData, SnapshotEnd
from .replicate.snapshot import SnapshotDecoder, SnapshotError
from .store.staging import Staging

__all__ = ["FetchError", "fetch"]


class FetchError(Exception):
    """There is no copy to be had; the text says why."""


async def fetch(host: str, port: int, prefix: bytes = b"", on_progress: Callable[[int], None] | None = None) -> Staging:
    """The keys that begin with ``prefix`` of the node whose replication port this is, with what has expired.

    ``on_progress`` is called with bytes that have been received. A checkpoint. Raises FetchError.
    """
    decoder: SnapshotDecoder | None = None
    received = 0
    try:
        async with ReplicaClient(host, port, prefixes=[prefix] if prefix else None) as client:
            async for event in client:
                if isinstance(event, SnapshotBegin):
                    decoder = SnapshotDecoder(Staging(), now_ms=int(SystemClock().wall() * 1000))
                elif isinstance(event, SnapshotData) and decoder is not None:
                    decoder.feed(event.data)
                    received += len(event.data)
                    if on_progress is not None:
                        on_progress(received)
                elif isinstance(event, SnapshotEnd) and decoder is not None:
                    decoder.finish()
                    return decoder.staging
    except ConnectFailed as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno:
            # What the system says, without what is said on the way from there.
            raise FetchError(f"cannot connect to {join_address(host, port)}: {os.strerror(cause.errno)}") from None
        raise FetchError(error.reason) from None
    except ReplicaError as error:
        raise FetchError(error.reason) from None
    except SnapshotError as error:
        raise FetchError(f"the copy is damaged: {error.reason}") from None
    raise FetchError("the connection ended before the copy was complete")
