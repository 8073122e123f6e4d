"""What a server counts while it runs; counters of commands are in the command table."""

from __future__ import annotations

import attrs

__all__ = ["Statistics"]


@attrs.define
class Statistics:
    """Counters that INFO shows and CONFIG RESETSTAT zeroes; per-command counters live in the command table."""

    connections: int = 0
    rejected_connections: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    unexpected_errors: int = 0
    output_limit_disconnections: int = 0
    query_limit_disconnections: int = 0
    error_replies: int = 0
    evicted_keys: int = 0
    denied_logins: int = 0
    # Error prefix -> how often it was answered.
    errors: dict[str, int] = attrs.field(factory=dict)
    # Statistics of the sweeper and the evictor live with them.
