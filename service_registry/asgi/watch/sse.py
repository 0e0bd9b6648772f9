"""A stream of the watch: events until the client leaves, its token has run out, or it has to start over."""

from collections.abc import Sequence

from service_registry import metrics
from service_registry.api.renderer import INDEX_HEADER
from service_registry.asgi import request as door
from service_registry.asgi import transport
from service_registry.asgi.auth import Exchange
from service_registry.asgi.flow_control import CutOff
from service_registry.asgi.watch.subscription import Following
from service_registry.exceptions import IndexGone
from service_registry.permissions import WATCH
from service_registry.replica.events import RESYNC_EVENT, TOKEN_EXPIRED_EVENT, sync_event
from service_registry.replica.subscribers import EndReason

BOOKMARK_SECONDS = 15.0
# One write: large enough to be cheap, small enough that a slow client holds little of ours.
CHANGES_A_WRITE = 100
WRITE_BYTES = 64 * 1024
HEADERS: door.Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # Proxies that gather answers would hold events back.
    (b"x-accel-buffering", b"no"),
]
# Who is cut off hears nothing any more, and who has left neither.
LAST_WORDS = {EndReason.RESYNC: RESYNC_EVENT, EndReason.SHUTDOWN: b"", EndReason.SLOW: b""}


class Stream:
    """One stream. `begun` once a part of it may have been sent."""

    kind = "stream"

    def __init__(self, exchange: Exchange, following: Following) -> None:
        self.exchange = exchange
        self.following = following
        self.waiter = following.waiter
        self.outlet = following.outlet
        self.waiter.on_end = self.let_go
        self.begun = False
        self.caught_up = False
        self.bookmark_at = transport.now()

    def let_go(self, ending: EndReason) -> None:
        """Nothing more will come: a write under way may not take long any more."""
        if ending is EndReason.SLOW:
            self.outlet.cut()
        else:
            self.outlet.hurry()

    async def give(self) -> str:
        """Send all there is to send, and return what came of it."""
        try:
            await self.send_headers()
            last_words = await self.send_events()
            # Nothing more is for this stream; and its end is no reason to hurry its last words.
            self.following.leave()
            if last_words is not None:
                await self.outlet.write(last_words, more=False)
        except CutOff:
            metrics.slow_clients.inc()
            self.outlet.cut()
            return "too_slow"
        return "ok"

    async def send_headers(self) -> None:
        more = {INDEX_HEADER: self.following.replica.index} | transport.stale_header(self.following.hub)
        headers = [*HEADERS, *door.headers_of(self.exchange.request)]
        headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
        self.begun = True
        await self.outlet({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})

    async def send_events(self) -> bytes | None:
        """Until nothing more will come. Returns what to end with, None where nobody is there to be told."""
        try:
            while not self.waiter.end_reason:
                events = await self.next_events()
                if not await self.following.askers.still_good(self.exchange, WATCH):
                    return TOKEN_EXPIRED_EVENT
                await (self.send(events) if events else self.pause())
        except IndexGone:
            return RESYNC_EVENT
        return LAST_WORDS.get(self.waiter.end_reason)

    async def next_events(self) -> list[bytes]:
        """As this caller may see them; none when all has been sent."""
        caller = self.exchange.asking.caller
        notices = await self.following.next(CHANGES_A_WRITE, WRITE_BYTES)
        return [notice.event(self.following.shows_author(notice, caller)) for notice in notices]

    async def send(self, events: Sequence[bytes]) -> None:
        await self.outlet.write(b"".join(events))
        if self.caught_up:
            self.bookmark_at = transport.now() + BOOKMARK_SECONDS

    async def pause(self) -> None:
        """Wait for something to come, for a bookmark's time at most. The first bookmark says that all there was has
        been sent; each other, that nothing came for a while."""
        seconds = self.bookmark_at - transport.now()
        if seconds > 0:
            await self.waiter.wait(min(seconds, max(self.exchange.asking.seconds_left, 0.05)))
            return
        self.caught_up = True
        await self.outlet.write(sync_event(self.following.index))
        self.bookmark_at = transport.now() + BOOKMARK_SECONDS
