"""Deliver changes to the watches and blocking reads that wait for them.

A subscriber waits on the event loop: it needs no thread and no database connection. A change wakes only the subscribers
to its topics.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from enum import Enum

from service_registry import metrics
from service_registry.replica.events import ChangeEvent
from service_registry.replica.store import Change

# The bytes of events that may be pending for a subscriber: more than one page of the log can have, so that a page alone
# ends no subscriber that takes its events.
BACKLOG_BYTES = 40 * 1024 * 1024

# Namespace and service name; None matches any.
Topic = tuple[str | None, str | None]
ALL_CHANGES: Topic = (None, None)


class EndReason(Enum):
    """The reasons for which a subscription ends."""

    RESYNC = "the log was replaced by another, or lost its end"
    SLOW = "the backlog passed its bound"
    DISCONNECTED = "the client closed its connection"
    SHUTDOWN = "this process is about to end"


class Subscriber:
    """A watch or a blocking read that waits for changes of its topics.

    Arguments:
        topics: the topics that it subscribes to.
        position: the id of the change after which it waits.
        keeps_events: whether events are kept until they are taken. A blocking read needs no events, only the wake-up.
    """

    __slots__ = ("awake", "backlog_bytes", "end_reason", "keeps_events", "on_end", "pending", "position", "topics")

    def __init__(self, topics: Iterable[Topic], position: int, keeps_events: bool = True) -> None:
        self.topics = tuple(topics)
        self.position = position
        self.keeps_events = keeps_events
        self.pending: list[ChangeEvent] = []
        self.backlog_bytes = 0
        self.end_reason: EndReason | None = None
        self.awake = asyncio.Event()
        self.on_end: Callable[[EndReason], object] | None = None

    def wants(self, change: Change) -> bool:
        """Return whether the change belongs to one of its topics."""
        return not topics_of(change).isdisjoint(self.topics)

    def deliver(self, event: ChangeEvent) -> bool:
        """Add an event in the order of the log; return False when it is not new."""
        if event.change.pk <= self.position or self.end_reason:
            return False
        self.position = event.change.pk
        if self.keeps_events:
            self.pending.append(event)
            self.backlog_bytes += event.size_bytes
            if self.backlog_bytes > BACKLOG_BYTES:
                self.end(EndReason.SLOW)
        self.awake.set()
        return True

    def wake(self) -> None:
        """End the present wait, or the next one."""
        self.awake.set()

    def end(self, reason: EndReason) -> None:
        if self.end_reason is None:
            self.end_reason = reason
            self.awake.set()
            if self.on_end:
                self.on_end(reason)

    def take(self, max_events: int, enough_bytes: float = math.inf) -> list[ChangeEvent]:
        """Take the next events, up to `max_events`, or until they have `enough_bytes`."""
        taken, self.pending = split_batch(self.pending, max_events, enough_bytes)
        self.backlog_bytes -= sum(event.size_bytes for event in taken)
        return taken

    def discard_pending(self) -> None:
        """Free the events that will not be taken, and the end callback."""
        self.pending = []
        self.backlog_bytes = 0
        self.on_end = None

    async def wait(self, seconds: float) -> None:
        """Wait for an event or the end of the subscription, for at most `seconds`."""
        if self.pending or self.end_reason:
            return
        timer = asyncio.get_running_loop().call_later(max(seconds, 0), self.awake.set)
        try:
            await self.awake.wait()
        finally:
            timer.cancel()
            self.awake.clear()


def split_batch(
    events: list[ChangeEvent], max_events: int, enough_bytes: float
) -> tuple[list[ChangeEvent], list[ChangeEvent]]:
    """Split off up to `max_events` events, or until they have `enough_bytes`."""
    size_bytes = 0
    for number, event in enumerate(events[:max_events]):
        if size_bytes >= enough_bytes:
            return events[:number], events[number:]
        size_bytes += event.size_bytes
    return events[:max_events], events[max_events:]


def topics_of(change: Change) -> set[Topic]:
    namespace, name = change.namespace, change.service_name
    return {(namespace, name), (namespace, None), (None, name), ALL_CHANGES}


class Subscribers:
    """All subscribers of a process, and the topics of those that receive changes.

    `by_topic` has those that receive changes. The others in `present` still read the log.
    """

    def __init__(self) -> None:
        self.present: set[Subscriber] = set()
        self.by_topic: dict[Topic, set[Subscriber]] = {}

    def attach(self, subscriber: Subscriber) -> None:
        """Have a subscriber end with all others, before it receives changes."""
        self.present.add(subscriber)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Also deliver changes to it."""
        self.attach(subscriber)
        for topic in subscriber.topics:
            self.by_topic.setdefault(topic, set()).add(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Remove a subscriber, whether it was attached, subscribed or neither."""
        self.present.discard(subscriber)
        for topic in subscriber.topics:
            others = self.by_topic.get(topic, set())
            others.discard(subscriber)
            if not others:
                self.by_topic.pop(topic, None)

    def publish(self, changes: Iterable[Change]) -> None:
        """Deliver changes to the subscribers to their topics."""
        woken: set[Subscriber] = set()
        for event in map(ChangeEvent, changes):
            for topic in topics_of(event.change):
                for subscriber in self.by_topic.get(topic, ()):
                    if subscriber.deliver(event):
                        woken.add(subscriber)
        metrics.subscriber_wakeups.inc(len(woken))

    def end_all(self, reason: EndReason) -> None:
        for subscriber in list(self.present):
            subscriber.end(reason)
