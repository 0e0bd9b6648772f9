"""From an index on: first out of the log, then out of memory, then as changes come. Nothing twice, and no gap."""

import asyncio
import math
from collections.abc import Sequence

from service_registry import changelog as log
from service_registry.asgi import transport
from service_registry.asgi.auth import Askers
from service_registry.asgi.flow_control import ROOM_SECONDS, Outlet
from service_registry.caller import Caller
from service_registry.changelog.read import RecordedChange
from service_registry.exceptions import IndexGone, NotLoaded, TooBusy
from service_registry.replica.events import ChangeEvent
from service_registry.replica.hub import Hub
from service_registry.replica.store import Change, Replica
from service_registry.replica.subscribers import Subscriber, Topic, split_batch
from service_registry.schemas import WatchQuery

# Between two tries to read a page that there is no room for.
RETRY_SECONDS = 0.5


class Following:
    """One who follows the log.

    Arguments:
        outlet: of the client for whom this is read: it holds the memory.
        query: which services, and from which index on; without one, from now.
    """

    def __init__(self, hub: Hub, askers: Askers, outlet: Outlet, query: WatchQuery) -> None:
        self.hub = hub
        self.askers = askers
        self.outlet = outlet
        self.services = query.service
        self.namespace = query.namespace
        topics: list[Topic] = [(query.namespace, name) for name in query.service] or [(query.namespace, None)]
        self.waiter = Subscriber(topics, 0)
        # What was found in the log, or in memory, and not taken. Once it is empty, and this is told of changes, the
        # rest comes to the waiter.
        self.found: list[ChangeEvent] = []
        self.joined = False
        self.resyncs = hub.resyncs
        # Up to here everything that is wanted has been given; and so far it has been looked for.
        self.index = query.index or ""
        self.at = self.index, 0

    @property
    def replica(self) -> Replica:
        """Raises NotLoaded, and IndexGone when the log was replaced since this began."""
        if self.resyncs != self.hub.resyncs:
            raise IndexGone
        if self.hub.replica is None:
            raise NotLoaded
        return self.hub.replica

    async def begin(self) -> None:
        """Find the place. Raises IndexGone when the log has none, and NotLoaded when this cannot be told now."""
        await self.hub.current_replica()
        if not self.index:
            self.at = self.replica.index, self.replica.pk
            self.index = self.replica.index
            return
        self.at = self.index, log.parse_index(self.index)[1]
        known = await self.is_known()
        if known is False:
            raise IndexGone
        if known is None:
            self.found = await self.page()

    async def is_known(self) -> bool | None:
        """Whether memory has the index; None where it does not reach back so far. It may be of another process, and
        newer than what is known here."""
        if self.at[1] > self.replica.pk and not await self.hub.catch_up():
            raise NotLoaded
        return self.hub.contains_index(self.replica, self.index)

    async def next(self, at_most: int, enough_bytes: float = math.inf) -> list[ChangeEvent]:
        """What comes next, as far as it is there, until it is so many or so much; nothing when all has been given.
        Raises IndexGone when the log was replaced meanwhile, and TooBusy.

        1. Where all that was found has been given, and this is not told of changes yet: find more, in the log while
           that reaches back further than memory, else in memory. From then on the rest is told.
        2. Take from what was found, or told.
        3. Where there is nothing, all that the replica holds has been looked through: the end of that is the place.
           This comes after the taking and without a wait between, so that no change told meanwhile is passed over.
        4. The index names the last change given, and the place where none was.
        """
        while not self.found and not self.joined:
            if self.waiter.end_reason:
                return []
            if self.at[1] < self.hub.buffer.base:
                self.found = await self.page()
            else:
                self.join()
        taken = self.take(at_most, enough_bytes)
        if not taken and self.replica.pk > self.at[1]:
            self.at = self.replica.index, self.replica.pk
        self.index = taken[-1].change.index if taken else self.at[0]
        return taken

    def take(self, at_most: int, enough_bytes: float) -> list[ChangeEvent]:
        """What was found comes before what was told."""
        if not self.found:
            return self.waiter.take(at_most, enough_bytes)
        taken, self.found = split_batch(self.found, at_most, enough_bytes)
        return taken

    async def page(self) -> list[ChangeEvent]:
        """A page of the log, for one who is further back than memory, and has taken the one before. When it is the
        last, all that the log had when it was asked for has been given, and so at least what the replica had before."""
        self.outlet.answers.leave(self.outlet)
        before = self.replica.index, self.replica.pk
        found = await self.read_log(self.at[0])
        if found:
            self.at = found[-1].index, found[-1].pk
        if len(found) < log.CHANGES_PER_PAGE:
            self.at = max(self.at, before, key=lambda place: place[1])
        return [ChangeEvent(Change.from_recorded(recorded)) for recorded in found]

    async def read_log(self, index: str) -> Sequence[RecordedChange]:
        """What comes after `index`, counted as held by the client from now on. Nobody knows before how much that is:
        where there is no room for it, it was read in vain, and is read again. Raises TooBusy when that lasts."""
        until = transport.now() + ROOM_SECONDS
        while True:
            found = await self.askers.paged(
                lambda: log.read_after(index, log.CHANGES_PER_PAGE, self.services, self.namespace)
            )
            if self.outlet.answers.admits(self.outlet, sum(map(size_of, found))):
                return found
            if transport.now() > until:
                raise TooBusy
            del found
            await asyncio.sleep(RETRY_SECONDS)

    def join(self) -> None:
        """Take the rest out of memory and be told from now on, in one go on the event loop, so that nothing comes
        between."""
        self.outlet.answers.leave(self.outlet)
        recent = self.hub.buffer.changes_after(self.at[1]) or ()
        self.found = [ChangeEvent(change) for change in recent if self.waiter.wants(change)]
        self.waiter.position = max(self.at[1], self.replica.pk)
        self.hub.subscribers.subscribe(self.waiter)
        self.joined = True

    def shows_author(self, notice: ChangeEvent, caller: Caller) -> bool:
        """Whether the caller may know who did it, and why."""
        return caller.sees_authors(self.replica.find_owners(notice.change))

    def leave(self) -> None:
        """What was not taken goes at once, and not when Python collects what refers to itself."""
        self.hub.subscribers.unsubscribe(self.waiter)
        self.waiter.discard_pending()
        self.found = []
        self.outlet.answers.leave(self.outlet)


def size_of(recorded: RecordedChange) -> int:
    return len(recorded.public) + len(recorded.private)
