"""What a snapshot under way still needs of the backlog: the entries written since it began."""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["Pin", "Pins"]


class Pin:
    """Keeps the entries from ``offset`` on in the backlog, up to twice its budget. ``lost``: it could not."""

    __slots__ = ("_pins", "lost", "offset")

    def __init__(self, pins: Pins, offset: int) -> None:
        self._pins = pins
        self.offset = offset
        self.lost = False

    def move(self, offset: int) -> None:
        """Keep the entries from ``offset`` on instead. A pin that was lost stays lost."""
        self.offset = offset
        if not self.lost:
            self._pins.changed()

    def release(self) -> None:
        """Keep nothing more. May be called again."""
        self._pins.remove(self)
        self._pins.changed()


class Pins:
    """The pins of one backlog that are not lost. ``changed`` is called when one of them has moved or gone."""

    __slots__ = ("_pins", "changed")

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self._pins: set[Pin] = set()

    def __len__(self) -> int:
        return len(self._pins)

    def __iter__(self) -> Iterator[Pin]:
        return iter(self._pins)

    @property
    def lowest(self) -> int | None:
        """The lowest offset that is needed; None if there is no pin."""
        return min((pin.offset for pin in self._pins), default=None)

    def add(self, offset: int) -> Pin:
        """A new pin, from ``offset`` on."""
        pin = Pin(self, offset)
        self._pins.add(pin)
        return pin

    def remove(self, pin: Pin) -> None:
        """Have ``pin`` hold nothing. One that is not here is ignored."""
        self._pins.discard(pin)

    def lose_below(self, offset: int) -> None:
        """Give up the pins below ``offset``."""
        for pin in [pin for pin in self._pins if pin.offset < offset]:
            self._lose(pin)

    def lose_all(self) -> None:
        """Give up every pin."""
        for pin in tuple(self._pins):
            self._lose(pin)

    def _lose(self, pin: Pin) -> None:
        pin.lost = True
        self._pins.discard(pin)
