"""The client libraries of the tests, each as a user gets it, and in the other protocol."""

from __future__ import annotations

from typing import Any

import attrs
import redis
import redis.asyncio
import valkey
import valkey.asyncio


@attrs.frozen
class Library:
    """A synchronous client library and the protocol to speak; None leaves that to the library."""

    module: Any
    protocol: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments that make the library's clients speak that protocol."""
        return {} if self.protocol is None else {"protocol": self.protocol}

    @property
    def asynchronous(self) -> Any:
        """The library's module for asyncio."""
        return self.module.asyncio

    @property
    def client_class(self) -> Any:
        """The library's ordinary client."""
        return self.module.Redis if self.module is redis else self.module.Valkey

    @property
    def asynchronous_class(self) -> Any:
        """The library's ordinary client for asyncio."""
        return self.module.asyncio.Redis if self.module is redis else self.module.asyncio.Valkey


#: Every library with its defaults, and with the protocol that is not its default.
LIBRARIES = {
    "redis": Library(redis),
    "redis-resp2": Library(redis, 2),
    "redis-resp3": Library(redis, 3),
    "valkey": Library(valkey),
    "valkey-resp3": Library(valkey, 3),
}
