from collections.abc import Callable, Sequence

from ..store.journal import Effect, Journal
from ..store.store import Store

def put_entries(store: Store, commands: Sequence[list[bytes]], place: int, stop: int) -> int: ...
def commit_each(journal: Journal, effects: list[Effect], first: int, failed: Callable[[Exception], None]) -> None: ...
