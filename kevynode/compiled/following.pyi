from collections.abc import Callable

from ..store.journal import Effect, Journal
from ..store.store import Store

def put_entries(store: Store, commands: list[list[bytes]], place: int, stop: int) -> int: ...
def commit_each(journal: Journal, effects: list[Effect], first: int, failed: Callable[[Exception], None]) -> None: ...
