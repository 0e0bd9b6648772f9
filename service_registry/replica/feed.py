"""The thread that reads the log for all who wait in this process, on a connection of its own."""

import asyncio
import contextlib
import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

import psycopg
from django.conf import settings

from service_registry import gc_tuning
from service_registry.changelog import CHANGES_PER_PAGE
from service_registry.replica.connection import FeedConnection, connect
from service_registry.replica.hub import Hub
from service_registry.replica.load import is_large, load_replica, read_changes

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
# Between two polls, and so between two NOTIFY of a process, whatever happens.
SPACING_SECONDS = 0.02
RETRY_SECONDS = 0.25
LOAD_SPREAD_SECONDS = 2.0
# How often a thread that waits for the event loop looks whether the process ends.
STOP_SECONDS = 1.0
CHANNEL = "service_registry_changes"


class Feed:
    """Keeps a hub up to date.

    It asks for what follows the last row it knows ten times a second, and at once when it is nudged: by this process's
    own commits and, where the database is reached directly, by NOTIFY. A nudge is a hint; a lost one costs 0.1 s.
    """

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        self.hub = hub
        self.loop = loop
        self.at: tuple[str, int] | None = None
        # On the monotonic clock: when the log was last asked and told its end.
        self.read_at = 0.0
        self.direct = bool(settings.DATABASE_DIRECT_URL)
        self.told = False
        self.failing = False
        self.loaded_before = False
        self._stopped = threading.Event()
        self._hints, self._hint = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self.run, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """From the event loop. A poll under way ends by its own deadline."""
        self._stopped.set()
        self.wake()

    def wake(self) -> None:
        """Ask at once. From any thread."""
        with contextlib.suppress(BlockingIOError):  # then it has hints enough
            os.write(self._hint, b"!")

    def run(self) -> None:
        """On the thread: connect, follow, and after a failure again, until stopped."""
        while not self._stopped.is_set():
            try:
                with connect() as connection:
                    self.follow(connection)
            except psycopg.Error as error:
                self.note_failure(error)
            except Exception:
                # A feed that has ended leaves its process behind for ever, and one that goes on may have skipped
                # something: it loads anew.
                self.at = None
                logger.exception("The feed failed, and begins again.")
            self._stopped.wait(RETRY_SECONDS)

    def follow(self, connection: FeedConnection) -> None:
        """Load where nothing is known, then read on. Raises psycopg.Error when the connection is lost."""
        if self.direct:
            connection.execute(f"LISTEN {CHANNEL}")
        while not self._stopped.is_set():
            if self.at is None:
                self.load(connection)
            began = time.monotonic()
            if self.read(connection, began) < CHANGES_PER_PAGE:
                self.tell_others(connection)
                self.wait(connection)
                self._stopped.wait(max(began + SPACING_SECONDS - time.monotonic(), 0))

    def load(self, connection: FeedConnection) -> None:
        """Many processes that start at once do not load a large catalogue at once."""
        if is_large(connection):
            self._stopped.wait(random.uniform(0, LOAD_SPREAD_SECONDS))  # noqa: S311 (jitter)
        began = time.monotonic()
        replica, newest = load_replica(connection)
        self.at, self.read_at = (replica.index, replica.pk), began
        self.on_loop(lambda: self.hub.replace_replica(replica, newest, began))
        if not self.loaded_before:
            self.loaded_before = True
            gc_tuning.freeze_heap()
        logger.info("The catalogue is in memory: %d services.", len(replica.services))

    def read(self, connection: FeedConnection, began: float) -> int:
        """Read on once, and hand over what came. Returns how many changes that were.

        1. Read what follows the last change that is known, which is read with it: a log that is another now is told by
           that, and one that was pruned since. `began` is from before, so that whoever commits later is not taken to
           have been read.
        2. Have the event loop take it in, and wait for that: the next page must not come before this one is told.
           Where that fails, all is loaded anew.
        3. A full page is not the end of the log. Nobody who asks whether memory has caught up is answered by it: an
           index from the next page would be taken for one that the log does not hold.
        """
        assert self.at is not None, "loaded before"
        changes = read_changes(connection, *self.at, CHANGES_PER_PAGE, began - self.read_at)
        if changes is None:
            logger.warning("The log does not hold %s any more: starting over.", self.at[0])
            self.at = None
            self.on_loop(self.hub.resync)
            return CHANGES_PER_PAGE
        if changes:
            self.at = changes[-1].index, changes[-1].pk
        asked_at = began if len(changes) < CHANGES_PER_PAGE else None
        self.read_at = asked_at or self.read_at
        self.on_loop(lambda: self.hub.apply_page(changes, asked_at))
        self.note_success()
        return len(changes)

    def on_loop(self, do: Callable[[], object]) -> None:
        """Have the event loop do it, and wait: what is read must not run ahead of what is taken in. Raises what it
        raises. A loop that has been stopped may never do it."""
        done: Future[object] = Future()

        def run() -> None:
            try:
                done.set_result(do())
            except Exception as error:  # noqa: BLE001 - raised on the thread
                done.set_exception(error)

        try:
            self.loop.call_soon_threadsafe(run)
        except RuntimeError:  # the loop is closed: the process ends
            self._stopped.set()
        while not self._stopped.is_set() and not wait([done], STOP_SECONDS).done:
            pass
        if done.done():
            done.result()

    def tell_others(self, connection: FeedConnection) -> None:
        """NOTIFY after this process's own commits: inside their transactions it would halve their throughput."""
        if self.direct and self.told:
            self.told = False
            connection.execute(f"NOTIFY {CHANNEL}")

    def note_commit(self, pk: int) -> None:
        """From the thread that has committed the change `pk`."""
        self.told = True
        self.hub.note_commit(pk)

    def wait(self, connection: FeedConnection) -> None:
        """Until there is a hint, or it is time to ask anyway."""
        sources = select.poll()  # `select` knows no descriptor past 1,023, and each watcher has one
        sources.register(self._hints, select.POLLIN)
        if self.direct:
            sources.register(connection.fileno(), select.POLLIN)
        hinted = [descriptor for descriptor, _event in sources.poll(POLL_SECONDS * 1000)]
        if self._hints in hinted:
            os.read(self._hints, 65536)
        if connection.fileno() in hinted:
            list(connection.notifies(timeout=0))

    def note_failure(self, error: psycopg.Error) -> None:
        if not self.failing:
            self.failing = True
            logger.warning("The feed does not reach the database: %s", error)

    def note_success(self) -> None:
        if self.failing:
            self.failing = False
            logger.info("The feed reads the log again.")
