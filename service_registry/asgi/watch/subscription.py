"""A subscription: changes after an index, first from the log, then from memory.

After that they come as they happen.
"""

import asyncio
import math
from collections.abc import Sequence

from service_registry import changelog
from service_registry.asgi.flow_control import CAPACITY_SECONDS, ClientWriter
from service_registry.asgi.threads import ReadThreads
from service_registry.asgi.waiting import now
from service_registry.changelog.read import RecordedChange
from service_registry.exceptions import IndexGone, NotLoaded, TooBusy
from service_registry.replica.events import ChangeEvent
from service_registry.replica.hub import Hub
from service_registry.replica.store import Change, Replica
from service_registry.replica.subscribers import Subscriber, Topic, split_batch
from service_registry.schemas import WatchQuery

# Between two attempts to read a page of the log that there is no memory for.
RETRY_SECONDS = 0.5


class Subscription:
    """Delivers every change of a watch's topics once and in commit order.

    Arguments:
        writer: of the client that the changes are read for: it holds the memory.
        query: which services, and from which index on; without an index from now on.

    Attributes:
        index: the last change delivered, or the place up to which there was none to deliver.
    """

    def __init__(self, hub: Hub, threads: ReadThreads, writer: ClientWriter, query: WatchQuery) -> None:
        self.hub = hub
        self.threads = threads
        self.writer = writer
        self.services = query.service
        self.namespace = query.namespace
        topics: list[Topic] = [(query.namespace, name) for name in query.service] or [(query.namespace, None)]
        self.subscriber = Subscriber(topics, 0)
        # Events read from the log or from memory and not delivered yet. Once this is empty and the subscriber is
        # subscribed, all others come through the subscriber.
        self.backlog: list[ChangeEvent] = []
        self.subscribed = False
        self.resyncs = hub.resyncs
        self.index = query.index or ""
        # The place in the log up to which changes have been looked for.
        self.position = self.index, 0

    @property
    def replica(self) -> Replica:
        """The replica that the subscription reads.

        Raises IndexGone when the log was replaced since the subscription began, and NotLoaded.
        """
        if self.resyncs != self.hub.resyncs:
            raise IndexGone
        if self.hub.replica is None:
            raise NotLoaded
        return self.hub.replica

    async def begin(self) -> None:
        """Find the index from which the subscription starts in the log.

        Raises IndexGone when the log has no such index, and NotLoaded when that is unknown now.
        """
        await self.hub.current_replica()
        if not self.index:
            self.position = self.replica.index, self.replica.pk
            self.index = self.replica.index
            return
        self.position = self.index, changelog.parse_index(self.index)[1]
        known = await self.is_known()
        if known is False:
            raise IndexGone
        if known is None:
            self.backlog = await self.read_page()

    async def is_known(self) -> bool | None:
        """Return whether memory has the index; None where it does not reach back so far.

        The index may come from another process and be newer than this replica.
        """
        if self.position[1] > self.replica.pk and not await self.hub.catch_up():
            raise NotLoaded
        return self.hub.contains_index(self.replica, self.index)

    async def next(self, max_events: int, enough_bytes: float = math.inf) -> list[ChangeEvent]:
        """Return the next events that are available, empty when there are none now.

        Args:
            max_events: at most this number.
            enough_bytes: stop after the event that reaches this size.

        Raises IndexGone when the log was replaced meanwhile, and TooBusy.

        1. When the backlog is delivered and the subscriber is not subscribed yet, read more: from the log while it
           reaches back further than memory, else from memory. From then on events come through the subscriber.
        2. Take from the backlog, or from the subscriber.
        3. When there is nothing, everything in the replica has been looked at, so its end is the position. This
           comes after taking and without an await between, so that no change delivered meanwhile is skipped.
        4. The index names the last change delivered, or the position when there was none.
        """
        while not self.backlog and not self.subscribed:
            if self.subscriber.end_reason:
                return []
            if self.position[1] < self.hub.buffer.base:
                self.backlog = await self.read_page()
            else:
                self.subscribe()
        events = self.take(max_events, enough_bytes)
        if not events and self.replica.pk > self.position[1]:
            self.position = self.replica.index, self.replica.pk
        self.index = events[-1].change.index if events else self.position[0]
        return events

    def take(self, max_events: int, enough_bytes: float) -> list[ChangeEvent]:
        if not self.backlog:
            return self.subscriber.take(max_events, enough_bytes)
        taken, self.backlog = split_batch(self.backlog, max_events, enough_bytes)
        return taken

    async def read_page(self) -> list[ChangeEvent]:
        """Read a page of the log, for a client that is further back than memory.

        When it is the last page, everything that the log had when it was read has been looked at, and so at least
        what the replica had before.
        """
        self.writer.responses.release(self.writer)
        before = self.replica.index, self.replica.pk
        changes = await self.read_log(self.position[0])
        if changes:
            self.position = changes[-1].index, changes[-1].pk
        if len(changes) < changelog.CHANGES_PER_PAGE:
            self.position = max(self.position, before, key=lambda place: place[1])
        return [ChangeEvent(Change.from_recorded(change)) for change in changes]

    async def read_log(self, index: str) -> Sequence[RecordedChange]:
        """Return the page after `index`, whose memory the client holds from now on.

        Its size is unknown before it is read. Without memory for it the page is dropped and read again later. Raises
        TooBusy when that lasts.
        """
        until = now() + CAPACITY_SECONDS
        while True:
            changes = await self.threads.read_log(
                lambda: changelog.read_after(index, changelog.CHANGES_PER_PAGE, self.services, self.namespace)
            )
            if self.writer.responses.reserve(self.writer, sum(map(size_of, changes))):
                return changes
            if now() > until:
                raise TooBusy
            del changes
            await asyncio.sleep(RETRY_SECONDS)

    def subscribe(self) -> None:
        """Take the rest from memory and subscribe, so that no change is missed.

        There is no await between the two.
        """
        self.writer.responses.release(self.writer)
        buffered = self.hub.buffer.changes_after(self.position[1]) or ()
        self.backlog = [ChangeEvent(change) for change in buffered if self.subscriber.wants(change)]
        self.subscriber.position = max(self.position[1], self.replica.pk)
        self.hub.subscribers.subscribe(self.subscriber)
        self.subscribed = True

    def close(self) -> None:
        """End the subscription and free what was not delivered.

        It is freed at once, not at the next collection of cycles.
        """
        self.hub.subscribers.unsubscribe(self.subscriber)
        self.subscriber.discard_pending()
        self.backlog = []
        self.writer.responses.release(self.writer)


def size_of(change: RecordedChange) -> int:
    """Return the bytes of text in a change."""
    return len(change.public) + len(change.private)
