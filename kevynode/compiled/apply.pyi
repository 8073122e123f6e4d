from typing import Any

from ..store.store import Store

def apply_known(
    store: Store, commands: list[list[bytes]], place: int, entries: dict[bytes, Any]
) -> tuple[int, Exception | None]: ...
