"""The rest of a node, as far as its moves need it. The node brings it; nothing here does anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..store.journal import Observer
from ..store.marks import Mark
from ..store.store import Store

__all__ = ["MoveWorld", "Placing"]


class MoveWorld(Protocol):
    """The rest of the node, as far as moves need it."""

    @property
    def store(self) -> Store:
        """The data."""
        ...

    @property
    def is_persistent(self) -> bool:
        """Whether the data are kept in files."""
        ...

    @property
    def disk_trouble(self) -> str:
        """Why files cannot be written now, in the system's words; empty while they can, and where there are none."""
        ...

    @property
    def is_loading(self) -> bool:
        """Whether the data are not all there yet."""
        ...

    @property
    def is_replica(self) -> bool:
        """Whether this node copies all of another one, and takes no writes of its own."""
        ...

    def unanswered(self) -> Collection[str]:
        """The peers whose ledger is not known yet."""
        ...

    def position(self) -> tuple[int, int]:
        """The running history, and the offset that the next entry gets."""
        ...

    def mark(self, mark: Mark) -> None:
        """Enter a mark into the journal."""
        ...

    def released(self, prefix: bytes, epoch: int, owner: str) -> None:
        """What is held under the prefix now is what its new owner begins with."""
        ...

    def take(self, prefix: bytes) -> None:
        """Let no other node's stream change what is held under the prefix, until :meth:`leave`."""
        ...

    def leave(self, prefix: bytes) -> None:
        """Copy the prefix again if another node owns it: anew, for what is held is no place in its stream."""
        ...

    def keeps_copy(self, prefix: bytes) -> bool:
        """Whether this node wants a copy of the prefix where others write it."""
        ...

    def has_applied(self, prefix: bytes, writer: str, history: int, offset: int) -> bool:
        """Whether the copy of a prefix is whole, and has all before ``offset`` of the history of ``writer``."""
        ...

    def was_released(self, prefix: bytes) -> bool:
        """Whether what is here of a prefix is all that its owner by the ledger wrote before it gave it away."""
        ...

    def follows(self, prefix: bytes, writer: str) -> bool:
        """Whether there is a whole copy of the prefix here, taken from ``writer``."""
        ...

    async def make_durable(self) -> None:
        """Wait until everything that was done so far is durable, where files are kept. May raise ReplyError."""
        ...

    def placing(self) -> AbstractAsyncContextManager[Placing]:
        """Have what is about to take the place of a slice written to the files beforehand, where files are kept."""
        ...


class Placing(Protocol):
    """A slice on its way into the files: its entries are added in order, and then made."""

    async def add(self, commands: Sequence[Sequence[bytes]], /) -> None:
        """The next entries. Raises OSError."""
        ...

    @property
    def passing(self) -> tuple[Observer, ...]:
        """The observers of the journal that have no need of the entries by then."""
        ...

    async def use(self, commit: Callable[[tuple[Observer, ...]], None], is_true: Callable[[], bool], /) -> None:
        """Call ``commit``, which makes them in one group, or others if ``is_true`` says no. Raises OSError before.

        It gets the observers of the journal that do not look at them.
        """
        ...
