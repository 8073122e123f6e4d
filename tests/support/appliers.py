"""Copies that effects are applied to, and what they hold."""

from __future__ import annotations

import random

from support.store_harness import Content, content

from kevynode.store.apply import Applier
from kevynode.store.command import TABLE
from kevynode.store.store import Store

HOUR = 3_600_000


def copy_at(now: int, lenient: bool = False) -> Applier:
    """An applier for an empty copy whose clock shows ``now``."""
    store = Store(random.Random(2))
    store.deletes_expired = False
    store.now = now
    return Applier(store, TABLE, lenient)


def apply_lines(applier: Applier, *lines: str) -> None:
    applier.apply_all([line.encode().split() for line in lines])
    applier.store.commit()


def held(applier: Applier) -> Content:
    return content(applier.store)
