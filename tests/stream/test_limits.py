"""Fitting the descriptor limit to the number of clients."""

from __future__ import annotations

import errno

import pytest
from stream.line_session import Log

from kevynode.serve.limits import RESERVED_DESCRIPTORS, fit_descriptor_limit

NEEDED = 1000 + RESERVED_DESCRIPTORS


class Limits:
    """RLIMIT_NOFILE of a process that may or may not raise its hard limit."""

    def __init__(self, soft: int, hard: int, privileged: bool = False, stubborn: bool = False) -> None:
        self.now = (soft, hard)
        self.privileged = privileged
        self.stubborn = stubborn

    def get(self) -> tuple[int, int]:
        return self.now

    def set(self, limits: tuple[int, int]) -> None:
        raises_hard = self.now[1] >= 0 and limits[1] > self.now[1]
        if self.stubborn or (raises_hard and not self.privileged):
            raise ValueError("not allowed to raise maximum limit")
        if limits[0] > limits[1] >= 0:
            raise OSError(errno.EINVAL, "soft above hard")
        self.now = limits


@pytest.mark.parametrize(
    ("limits", "clients", "after", "events"),
    [
        (Limits(NEEDED, NEEDED), 1000, (NEEDED, NEEDED), []),
        (Limits(-1, -1), 1000, (-1, -1), []),
        (Limits(256, 5000), 1000, (NEEDED, 5000), ["descriptor_limit_raised"]),
        (Limits(256, -1), 1000, (NEEDED, -1), ["descriptor_limit_raised"]),
        (Limits(256, 512, privileged=True), 1000, (NEEDED, NEEDED), ["descriptor_limit_raised"]),
        (Limits(256, 512), 512 - RESERVED_DESCRIPTORS, (512, 512), ["maxclients_lowered"]),
        (Limits(256, 5000, stubborn=True), 256 - RESERVED_DESCRIPTORS, (256, 5000), ["maxclients_lowered"]),
    ],
)
def test_as_many_clients_as_the_limit_allows(
    limits: Limits, clients: int, after: tuple[int, int], events: list[str]
) -> None:
    log = Log()
    assert fit_descriptor_limit(1000, log, get_limit=limits.get, set_limit=limits.set) == clients
    assert limits.now == after
    assert log.names() == events


def test_a_limit_for_no_client_at_all_is_an_error() -> None:
    limits = Limits(64, RESERVED_DESCRIPTORS)
    with pytest.raises(OSError, match="128 open files is too low"):
        fit_descriptor_limit(1000, Log(), get_limit=limits.get, set_limit=limits.set)


def test_the_processs_own_limit_is_enough_for_a_few() -> None:
    assert fit_descriptor_limit(16, Log()) == 16
