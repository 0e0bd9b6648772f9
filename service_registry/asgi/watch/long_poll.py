"""A poll of the watch: the next changes in one answer, when there are some or the time is up."""

from collections.abc import Sequence

from service_registry.api.renderer import INDEX_HEADER
from service_registry.asgi import transport
from service_registry.asgi.auth import Exchange
from service_registry.asgi.watch.subscription import Following
from service_registry.changelog import CHANGES_PER_PAGE
from service_registry.exceptions import IndexGone
from service_registry.permissions import WATCH
from service_registry.replica.events import ChangeEvent
from service_registry.replica.subscribers import EndReason
from service_registry.schemas import WatchQuery


class Poll:
    """One poll. `begun` once a part of the answer may have been sent."""

    kind = "poll"

    def __init__(self, exchange: Exchange, query: WatchQuery, following: Following) -> None:
        self.exchange = exchange
        self.query = query
        self.following = following
        self.outlet = following.outlet
        self.begun = False

    async def give(self) -> str | None:
        """Wait, and answer. Returns what came of it, None when the token ran out: then Django refuses it."""
        body = await self.awaited()
        if body is None:
            return "ok" if self.following.waiter.end_reason is EndReason.DISCONNECTED else None
        more = {INDEX_HEADER: self.following.replica.index} | transport.stale_header(self.following.hub)
        # Nothing more is for this poll, however long its client takes.
        self.following.leave()
        self.begun = True
        whole = await self.outlet.answers.give(self.outlet, self.exchange.request, body, more.items())
        return "ok" if whole else "too_slow"

    async def awaited(self) -> bytes | None:
        """The answer; None for a client that left, or whose token ran out. Raises IndexGone and TooBusy."""
        notices = await self.next()
        ending = self.following.waiter.end_reason
        if ending is EndReason.RESYNC:
            raise IndexGone
        if ending is EndReason.DISCONNECTED or not await self.following.askers.still_good(self.exchange, WATCH):
            return None
        return self.put_together(notices)

    async def next(self) -> Sequence[ChangeEvent]:
        waiter = self.following.waiter
        notices = await self.following.next(CHANGES_PER_PAGE)
        if self.query.index:
            until = transport.now() + transport.with_jitter(self.query.wait)
            while not notices and not waiter.end_reason and transport.now() < until:
                await waiter.wait(until - transport.now())
                notices = await self.following.next(CHANGES_PER_PAGE)
        return notices

    def put_together(self, notices: Sequence[ChangeEvent]) -> bytes:
        """Nobody waits for room here: what has been read of the log is in memory for this poll alone."""
        caller = self.exchange.asking.caller
        documents = [notice.document(self.following.shows_author(notice, caller)) for notice in notices]
        self.outlet.answers.demand_room(sum(map(len, documents)))
        return b'{"index":"%b","changes":[%b]}' % (self.following.index.encode(), b",".join(documents))
