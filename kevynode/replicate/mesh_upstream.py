"""The link to a writer of scopes: as to an upstream that is copied whole, but filtered, and with scope ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from .handshake import Form
from .replica import ReplicaLink
from .replica_events import Fault, LinkEvent, Resumed, ShipBegins, ShipEnds, Skipped
from .upstream import Upstream

if TYPE_CHECKING:
    from .mesh_follower import MeshFollower

__all__ = ["MeshUpstream"]

#: Seconds that a writer gets to end a connection that has been left.
PARTING_SECONDS: Final = 1.0
#: Seconds that a heartbeat may be on its way.
IN_FLIGHT_SECONDS: Final = 1.0
_READ_SIZE: Final = 65536


class MeshUpstream(Upstream):
    """The link of a :class:`~kevynode.replicate.mesh_follower.MeshFollower`, through all its connections."""

    def __init__(self, follower: MeshFollower) -> None:
        super().__init__(follower, 0, follower.port)
        self._mesh = follower
        # What the connection under way was made for, and when.
        self._made_for: tuple[bytes, ...] = ()
        self._made_at = 0.0
        # Around the connection while entries are taken from it.
        self._listening: trio.CancelScope | None = None

    def _form(self, now: float) -> Form:
        # A server that is declared as a kevy need not be tried with what it does not know.
        form = super()._form(now)
        return Form.SIX if self._mesh.kind == "kevy" and form is Form.EXTENDED else form

    def _make_link(self, now: float) -> ReplicaLink:
        mesh = self._mesh
        request = self._request(now)
        self._made_for = mesh.prefixes
        self._made_at = now
        missing = mesh.missing if request.history else ()
        named = mesh.link_made()
        return ReplicaLink(request, self.address, prefixes=named, missing=missing, bulk_limit=mesh.bulk_limit)

    def start_over(self, reason: str) -> None:
        """End the connection, and ask the next one for a fresh copy."""
        # Otherwise it has been ended, or says nothing of what it was made for yet.
        if self.link is not None and self._listening is not None:
            self._stopped = True
            self.link.close(reason)
            self._listening.cancel(reason=reason)

    async def _serve(self, link: ReplicaLink, stream: trio.abc.Stream) -> None:
        if self._made_for != self._mesh.prefixes:
            # They changed while it connected.
            await trio.lowlevel.checkpoint()
            self.ask_anew("other scopes are followed")
            link.close("other scopes are followed")
            return
        try:
            with trio.CancelScope() as self._listening:
                await super()._serve(link, stream)
        finally:
            self._listening = None
        if link.fault is Fault.CLOSED:
            await self._part(stream)

    @staticmethod
    async def _part(stream: trio.abc.Stream) -> None:
        """Have the writer end the connection, too: one that comes while this one stands would be taken for another
        node's that uses the same id, and refused if that goes on."""
        with trio.move_on_after(PARTING_SECONDS):
            try:
                if isinstance(stream, trio.abc.HalfCloseableStream):
                    await stream.send_eof()
                    while await stream.receive_some(_READ_SIZE):
                        pass
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    def has_heard_all(self, since: float) -> bool:
        """Whether all that the writer's stream held a moment after ``since`` (monotonic seconds) has been applied."""
        heard = self._whole_at
        if heard is None or self._live_since is None or self.link is None:
            return False
        # What was on its way when that moment came was sent before it.
        return heard >= (since if self._made_at >= since else since + IN_FLIGHT_SECONDS)

    def _check_whole(self, link: ReplicaLink) -> None:
        before = self._whole_at
        super()._check_whole(link)
        if self._whole_at != before:
            self._say_heard()

    @enable_ki_protection
    def _say_heard(self) -> None:
        self._mesh.on_heard()

    def _staleness_ms(self, now: float) -> int | None:
        return None if self._mesh.missing else super()._staleness_ms(now)

    async def _obey(self, link: ReplicaLink, event: LinkEvent) -> None:
        if type(event) is ShipBegins and event.prefix is not None:
            # The stream stands still for it, but the link stands, and so do the other prefixes.
            reason = f"{event.prefix!r} is copied from here on"
            self._mesh.ship_begins(self, event, reason)
            self._log.info("synchronising", upstream=self.address, reason=reason)
            return
        await super()._obey(link, event)

    async def _obey_filtered(self, link: ReplicaLink, event: LinkEvent) -> None:
        if type(event) is Skipped:
            self._mesh.skipped(self, event.offset)
            self._check_whole(link)
        else:
            await super()._obey_filtered(link, event)

    async def _end_ship(self, link: ReplicaLink, event: ShipEnds | Resumed) -> None:
        for _ in self._mesh.place_ship(self, event):
            if self._clock.monotonic() >= self._slice_end:
                await self._yield()
            if self._stopped or self.link is not link:
                return
        if self._stopped:
            return
        if self._live_since is None:
            self._went_up()
        self._say_heard()
