from collections.abc import Callable
from typing import Any

from ..store.store import Store

def call_twin(handler: Callable[..., Any], store: Store, argv: list[bytes]) -> Any: ...
