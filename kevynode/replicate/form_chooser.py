"""Which form of the handshake a replica uses with an upstream that may be older than it.

A kevy server closes a connection without a byte when it does not know the form. A server that is just restarting may do
the same, and must not push a replica onto a weaker form: so it takes several such closes in a row, the weaker form is
forgotten soon, and an upstream that once confirmed the extended form is always asked in that.
"""

from __future__ import annotations

from typing import Final

from .request import Form

__all__ = ["CLOSES_BEFORE_DOWNGRADE", "FORGET_AFTER", "FormChooser"]

#: How many clean closes in a row without a byte mean that the upstream does not know the form.
CLOSES_BEFORE_DOWNGRADE: Final = 3
#: After how many seconds a weaker form is given up for the strongest again.
FORGET_AFTER: Final = 60.0

_WEAKER: Final = {Form.EXTENDED: Form.SIX, Form.SIX: Form.FIVE, Form.FIVE: Form.FIVE}


class FormChooser:
    """Chooses for one upstream. ``now`` is always in seconds on one monotonic clock."""

    __slots__ = ("_changed_at", "_closes", "_confirmed", "_form")

    def __init__(self) -> None:
        self._form = Form.EXTENDED
        self._closes = 0
        self._confirmed = False
        # When the first of the closes counted happened, or the form was weakened.
        self._changed_at = 0.0

    def next(self, now: float) -> Form:
        """The form for a connection that is made now."""
        self._forget(now)
        return self._form

    def confirmed_capabilities(self) -> None:
        """The upstream answered an extended request with the capabilities it accepts: weaker forms are out for good."""
        self._confirmed = True
        self._form = Form.EXTENDED
        self._closes = 0

    def closed(self, now: float, bytes_received: int, *, clean: bool = True) -> None:
        """A connection on which the form of the last :meth:`next` was sent has ended.

        ``clean`` is False for everything but an end of stream: refused, reset, timed out, closed by us.
        """
        self._forget(now)
        if bytes_received or not clean or self._confirmed:
            self._closes = 0
            return
        if self._closes == 0 and self._form is Form.EXTENDED:
            self._changed_at = now
        self._closes += 1
        if self._closes >= CLOSES_BEFORE_DOWNGRADE:
            self._closes = 0
            weaker = _WEAKER[self._form]
            if weaker is not self._form:
                self._form = weaker
                self._changed_at = now

    def _forget(self, now: float) -> None:
        if now - self._changed_at >= FORGET_AFTER:
            self._form = Form.EXTENDED
            self._closes = 0
