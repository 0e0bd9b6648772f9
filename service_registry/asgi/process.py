"""The web process: what all handlers share, and its start and end (ASGI lifespan)."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable
from django.conf import settings
from django.db import Error
from django.urls import get_resolver

from service_registry import gc_tuning, metrics, pulse
from service_registry.access_rules import access_rules
from service_registry.asgi import transport
from service_registry.asgi.flow_control import UNKNOWN_BYTES, ResponsesInFlight
from service_registry.asgi.limits import SubscriberPlaces, raise_file_limit
from service_registry.asgi.probe import ReadinessProbe
from service_registry.asgi.thread_queue import ThreadQueue
from service_registry.asgi.threads import ReadThreads
from service_registry.exceptions import NotMigrated
from service_registry.http import memory_budget, readiness
from service_registry.http.authentication import renew_generation
from service_registry.http.callers import Generation
from service_registry.identity.key_provider import get_key_provider
from service_registry.identity.login_endpoints import MAX_CONCURRENT
from service_registry.replica.feed import Feed
from service_registry.replica.hub import Hub
from service_registry.request_metrics import FLUSH_SECONDS, request_counts

logger = logging.getLogger(__name__)

# How often grants are read, and keys looked at.
REFRESH_SECONDS = 1.0
# Arrays, each of up to 1 MiB, and requests for Django that wait for a thread or run on one. More are refused at once.
MAX_QUEUED = 200


class WebProcess:
    """One web process, made when it starts.

    Attributes:
        write_threads: run writes and the pulse. A process whose writes are stuck must not report that it receives
            heartbeats, so the pulse takes the same way.
        array_queue: arrays and single deregistrations, for all write threads but one: micro-batches have everybody's
            heartbeats, and an array takes up to a second.
        django_queue: for threads that run Django, whose pages and logins must not delay writes.
        read_threads: verify tokens and read the log, apart from writes.
        probe: answers /readyz.
    """

    def __init__(self) -> None:
        self.write_threads = ThreadPoolExecutor(settings.WEB_THREADS, thread_name_prefix="write")
        self.array_queue = ThreadQueue("arrays", self.write_threads, max(1, settings.WEB_THREADS - 1), MAX_QUEUED)
        # An issuer that hangs can block as many as may wait for it; pages have the others.
        django_threads = settings.WEB_THREADS + MAX_CONCURRENT
        self.django_threads = ThreadPoolExecutor(django_threads, thread_name_prefix="django")
        self.django_queue = ThreadQueue("Django requests", self.django_threads, django_threads, MAX_QUEUED)
        self.read_threads = ReadThreads()
        self.probe = ReadinessProbe()
        self.hub = Hub()
        self.responses = ResponsesInFlight()
        self.subscriber_places = SubscriberPlaces()
        self.feed: Feed | None = None
        self.replica_was_loaded = False
        readiness.process_checks["replica"] = self.replica_state
        memory_budget.capacity_checks.append(self.has_capacity)

    async def run_lifespan(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Start before the first request, and stop after the last."""
        await receive()
        if not transport.has_limits(receive):
            logger.warning("Connections are not limited: start uvicorn with --http registry_project.asgi:Connection.")
        tasks = self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.stop(tasks)
        await send({"type": "lifespan.shutdown.complete"})

    def start(self) -> list[asyncio.Task[None]]:
        """Start the background work, and load what the first request would wait for."""
        get_resolver().url_patterns  # noqa: B018 - loads the URLconf and all that it imports, which takes 600 ms
        get_key_provider().start()
        raise_file_limit()
        loop = asyncio.get_running_loop()
        self.feed = Feed(self.hub, loop)
        self.feed.start()
        if threading.current_thread() is threading.main_thread():
            call_on_signals(self.begin_shutdown, loop)
        gc_tuning.freeze_heap()
        request_counts.gathering = True
        works = self.keep_pulsing, self.keep_following_access, self.keep_measuring, self.keep_flushing
        return [loop.create_task(work()) for work in works]

    def stop(self, tasks: list[asyncio.Task[None]]) -> None:
        self.begin_shutdown()
        if self.feed:
            self.feed.stop()
        for task in tasks:
            task.cancel()
        request_counts.stop_gathering()

    def begin_shutdown(self) -> None:
        """End watches and blocking reads, and give slow clients little time.

        The server waits for all of them.
        """
        self.hub.stop()
        self.responses.hurry()

    async def keep_pulsing(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(self.write_threads, pulse.pulse)
            await asyncio.sleep(pulse.PULSE_SECONDS)

    async def keep_following_access(self) -> None:
        """Follow keys and access rules, and wake subscribers when they have changed, to authenticate them again."""
        seen: Generation | None = None
        while True:
            generation = await self.read_threads.run(follow_access_rules)
            if generation is not seen:
                seen = generation
                await self.wake_subscribers()
            await asyncio.sleep(REFRESH_SECONDS)

    async def wake_subscribers(self) -> None:
        """Wake all subscribers, one after the other.

        With new keys each verifies a signature: 5,000 together would delay heartbeats by a second.
        """
        for subscriber in list(self.hub.subscribers.present):
            subscriber.wake()
            await asyncio.sleep(0)

    async def keep_measuring(self) -> None:
        """Report the replica's age every second while there is a replica."""
        while True:
            if self.hub.replica:
                metrics.replica_age.set(self.hub.age_seconds)
            await asyncio.sleep(1)

    async def keep_flushing(self) -> None:
        """Add the requests counted in memory to the metrics, ten times a second."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            request_counts.flush()

    def has_capacity(self) -> bool:
        """Return whether there is memory for another large response; from any thread.

        Where there is none, clients that have stalled are disconnected, so that another attempt may succeed.
        """
        if self.feed is None or self.responses.has_capacity(UNKNOWN_BYTES):
            return True
        self.feed.loop.call_soon_threadsafe(self.responses.free_capacity, UNKNOWN_BYTES)
        return False

    def replica_state(self) -> str:
        """Return `ok` once the replica was loaded, for /readyz.

        It stays so: an unreachable database must not remove all processes from a load balancer.
        """
        self.replica_was_loaded = self.replica_was_loaded or self.hub.replica is not None
        return "ok" if self.replica_was_loaded else "not loaded yet"


def follow_access_rules() -> Generation | None:
    """Read the access rules, and return the present generation; after a failure the last rules stay.

    The pulse logs an unreachable or empty database.
    """
    try:
        access_rules.refresh()
    except (Error, NotMigrated):
        pass
    except Exception:
        # Without further refreshes no access could be taken away.
        logger.exception("The access rules could not be read.")
    return renew_generation()


def call_on_signals(function: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
    """Call a function on the event loop when the process is asked to end.

    It runs before the server's own handler.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)

        def handle(signum: int, frame: Any, previous: Any = previous) -> None:
            loop.call_soon_threadsafe(function)
            if callable(previous):
                previous(signum, frame)

        signal.signal(number, handle)
