"""All asynchronous doors of a web process that read, with what they share: the replica, its feed, and who waits."""

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from service_registry import changelog, metrics
from service_registry.asgi.auth import Askers
from service_registry.asgi.flow_control import UNKNOWN_BYTES
from service_registry.asgi.limits import Limits, allow_files
from service_registry.asgi.reads.discovery import ReadsDoor
from service_registry.asgi.watch.handler import WatchDoor
from service_registry.replica.feed import Feed
from service_registry.replica.hub import Hub


class LiveDoors:
    """Made when the process starts, and opened on its event loop."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.askers = Askers()
        self.limits = Limits()
        self.doors = (ReadsDoor(self.hub, self.askers, self.limits), WatchDoor(self.hub, self.askers, self.limits))
        self.feed: Feed | None = None
        self.loaded = False
        self.measuring: asyncio.Task[None] | None = None

    async def __call__(
        self, scope: HTTPScope, body: bytes, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> bool:
        """Answer the request when one of the doors can; return False when it is for Django."""
        for each in self.doors:
            if await each(scope, body, receive, send):
                return True
        return False

    def open(self) -> None:
        """On the event loop: begin to load, and hear of this process's own commits."""
        allow_files()
        loop = asyncio.get_running_loop()
        feed = self.feed = Feed(self.hub, loop)
        self.hub.wake_feed = feed.wake

        def note(pk: int) -> None:
            loop.call_soon_threadsafe(feed.note_commit, pk)

        changelog.commit_listeners.append(note)
        feed.start()
        self.measuring = loop.create_task(self.measure())
        if threading.current_thread() is threading.main_thread():
            call_at_signals(self.let_go, loop)

    def let_go(self) -> None:
        """Of all who wait, and soon of those who take nothing, when the process is asked to end: the web server would
        wait for them, and they for it."""
        self.hub.stop()
        self.limits.answers.hurry()

    async def close(self) -> None:
        """The process ends."""
        self.let_go()
        changelog.commit_listeners.clear()
        if self.feed:
            self.feed.stop()
        if self.measuring:
            self.measuring.cancel()

    def has_room(self) -> bool:
        """Whether there is room for another large answer, from any thread. Where there is none, those are cut off who
        take nothing, so that it is worth another try."""
        answers = self.limits.answers
        if self.feed is None or answers.has_room(UNKNOWN_BYTES):
            return True
        self.feed.loop.call_soon_threadsafe(answers.makes_room, UNKNOWN_BYTES)
        return False

    async def measure(self) -> None:
        """Tell the replica's age while it is there, every second."""
        while True:
            if self.hub.replica:
                metrics.replica_age.set(self.hub.age_seconds)
            await asyncio.sleep(1)

    def check(self) -> str:
        """For /readyz: once loaded it stays good, since the database's absence must not take all processes away."""
        self.loaded = self.loaded or self.hub.replica is not None
        return "ok" if self.loaded else "not loaded yet"


def call_at_signals(do: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
    """On the event loop, when the process is asked to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def handle(signum: int, frame: Any, before: Any = before) -> None:
            loop.call_soon_threadsafe(do)
            if callable(before):
                before(signum, frame)

        signal.signal(number, handle)
