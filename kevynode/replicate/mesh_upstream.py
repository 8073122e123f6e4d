"""The link to a writer of scopes: as to an upstream that is copied whole, but filtered, and with scope ships."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .handshake import Form
from .replica import ReplicaLink
from .replica_events import LinkEvent, Resumed, ShipBegins, ShipEnds, Skipped
from .upstream import Upstream

if TYPE_CHECKING:
    from .mesh_follower import MeshFollower

__all__ = ["MeshUpstream"]


class MeshUpstream(Upstream):
    """The link of a :class:`~kevynode.replicate.mesh_follower.MeshFollower`, through all its connections."""

    def __init__(self, follower: MeshFollower) -> None:
        super().__init__(follower, 0, follower.port)
        self._mesh = follower
        # What the connection under way was made for.
        self._made_for: tuple[bytes, ...] = ()

    def _form(self, now: float) -> Form:
        # A server that is declared as a kevy need not be tried with what it does not know.
        form = super()._form(now)
        return Form.SIX if self._mesh.kind == "kevy" and form is Form.EXTENDED else form

    def _make_link(self, now: float) -> ReplicaLink:
        mesh = self._mesh
        request = self._request(now)
        self._made_for = mesh.prefixes
        missing = mesh.missing if request.history else ()
        named = mesh.link_made()
        return ReplicaLink(request, self.address, prefixes=named, missing=missing, bulk_limit=mesh.bulk_limit)

    async def _serve(self, link: ReplicaLink, stream: trio.abc.Stream) -> None:
        if self._made_for == self._mesh.prefixes:
            await super()._serve(link, stream)
        else:
            # They changed while it connected.
            await trio.lowlevel.checkpoint()
            self.ask_anew("other scopes are followed")
            link.close("other scopes are followed")

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
        if self._live_since is None:
            self._went_up()
