"""Who waits for which changes, on the event loop: no thread, no database connection, and nobody is woken for others."""

import asyncio
import math
from collections.abc import Callable, Iterable
from enum import Enum

from service_registry import metrics
from service_registry.replica.events import ChangeEvent
from service_registry.replica.store import Change

# How much text of changes told may wait for somebody: more than one page of the log can have, so that nobody who takes
# them falls so far behind by one.
BACKLOG_BYTES = 32 * 1024 * 1024

Topic = tuple[str | None, str | None]
ALL_CHANGES: Topic = (None, None)


class EndReason(Enum):
    """Why nothing more will come to a waiter."""

    RESYNC = "the log was replaced by another, or lost its end"
    SLOW = "the backlog passed its bound"
    DISCONNECTED = "the client closed its connection"
    SHUTDOWN = "this process is about to end"


class Subscriber:
    """Somebody who waits for changes of `topics` after the change with the id `position`.

    Arguments:
        topics: (namespace, service name), None for any.
        keeps_events: whether the changes are kept until taken; who only has to know that there was one is woken alone.
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
        """Whether the change is of its topics."""
        return not topics_of(change).isdisjoint(self.topics)

    def deliver(self, notice: ChangeEvent) -> bool:
        """Called for changes of its topics in the order of the log. Returns whether it is news to this waiter."""
        if notice.change.pk <= self.position or self.end_reason:
            return False
        self.position = notice.change.pk
        if self.keeps_events:
            self.pending.append(notice)
            self.backlog_bytes += notice.size
            if self.backlog_bytes > BACKLOG_BYTES:
                self.end(EndReason.SLOW)
        self.awake.set()
        return True

    def end(self, ending: EndReason) -> None:
        if self.end_reason is None:
            self.end_reason = ending
            self.awake.set()
            if self.on_end:
                self.on_end(ending)

    def take(self, at_most: int, enough_bytes: float = math.inf) -> list[ChangeEvent]:
        """The next, until they are so many or so much."""
        taken, self.pending = split_batch(self.pending, at_most, enough_bytes)
        self.backlog_bytes -= sum(notice.size for notice in taken)
        return taken

    def discard_pending(self) -> None:
        """It waits no more."""
        self.pending = []
        self.backlog_bytes = 0
        self.on_end = None

    async def wait(self, seconds: float) -> None:
        """Until something came, it ended, or so many seconds passed."""
        if self.pending or self.end_reason:
            return
        timer = asyncio.get_running_loop().call_later(max(seconds, 0), self.awake.set)
        try:
            await self.awake.wait()
        finally:
            timer.cancel()
            self.awake.clear()


def split_batch(
    notices: list[ChangeEvent], at_most: int, enough_bytes: float
) -> tuple[list[ChangeEvent], list[ChangeEvent]]:
    """The first, until they are so many or so much, and the rest."""
    size = 0
    for number, notice in enumerate(notices[:at_most]):
        if size >= enough_bytes:
            return notices[:number], notices[number:]
        size += notice.size
    return notices[:at_most], notices[at_most:]


def topics_of(change: Change) -> set[Topic]:
    namespace, name = change.namespace, change.service_name
    return {(namespace, name), (namespace, None), (None, name), ALL_CHANGES}


class Subscribers:
    """All who wait in this process, by topic; and those who will, but read the log yet."""

    def __init__(self) -> None:
        self.present: set[Subscriber] = set()
        self.by_topic: dict[Topic, set[Subscriber]] = {}

    def attach(self, waiter: Subscriber) -> None:
        """Have it told from now on when it has to end."""
        self.present.add(waiter)

    def subscribe(self, waiter: Subscriber) -> None:
        """Have it told of changes, too."""
        self.attach(waiter)
        for topic in waiter.topics:
            self.by_topic.setdefault(topic, set()).add(waiter)

    def unsubscribe(self, waiter: Subscriber) -> None:
        """Also for one who never joined."""
        self.present.discard(waiter)
        for topic in waiter.topics:
            others = self.by_topic.get(topic, set())
            others.discard(waiter)
            if not others:
                self.by_topic.pop(topic, None)

    def publish(self, changes: Iterable[Change]) -> None:
        woken: set[Subscriber] = set()
        for notice in map(ChangeEvent, changes):
            for topic in topics_of(notice.change):
                for waiter in self.by_topic.get(topic, ()):
                    if waiter.deliver(notice):
                        woken.add(waiter)
        metrics.subscriber_wakeups.inc(len(woken))

    def end_all(self, ending: EndReason) -> None:
        for waiter in list(self.present):
            waiter.end(ending)
