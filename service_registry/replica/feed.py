"""Read the change log on a dedicated thread and keep a hub current."""

import asyncio
import contextlib
import logging
import math
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
from service_registry.changelog import CHANGES_PER_PAGE, commit_listeners
from service_registry.replica.connection import FeedConnection, connect, require_primary
from service_registry.replica.hub import Hub
from service_registry.replica.load import is_large, load_replica, read_changes

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
# From poll to poll, and so between two NOTIFY of a process: this many times as long as the first poll took, but at most
# 20 ms. A change after a quiet moment is read at once. Load makes polls slow, and one then reads many commits.
SPACING_FACTOR = 3
MAX_SPACING_SECONDS = 0.02
RETRY_SECONDS = 0.25
PRIMARY_CHECK_SECONDS = 1.0
LOAD_SPREAD_SECONDS = 2.0
# The interval at which a thread that waits for the event loop checks whether the process ends.
STOP_CHECK_SECONDS = 1.0
CHANNEL = "service_registry_changes"


class Feed:
    """A thread that polls the change log and applies it to a hub.

    It polls ten times a second for the changes after the last known one, and at once when it is woken: by commits of
    this process and, where the database is reached directly, by NOTIFY. A wake-up is a hint; a lost one costs 0.1 s.
    """

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        self.hub = hub
        self.loop = loop
        # Index and id of the last known change; None when the replica has to be loaded.
        self.at: tuple[str, int] | None = None
        # On the monotonic clock: when the last query that reached the end of the log was sent.
        self.read_at = 0.0
        self.direct = bool(settings.DATABASE_DIRECT_URL) or not settings.DATABASE_POOLED
        self.has_committed = False
        self.failing = False
        self.loaded_before = False
        self._stopped = threading.Event()
        self._hints, self._hint = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self.run, name="feed", daemon=True)
        hub.wake_feed = self.wake

    def start(self) -> None:
        commit_listeners.append(self.on_commit)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; call it on the event loop.

        A poll under way ends at its deadline.
        """
        commit_listeners.remove(self.on_commit)
        self._stopped.set()
        self.wake()

    def wake(self) -> None:
        """Poll at once. May be called from any thread."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full of hints already
            os.write(self._hint, b"!")

    def run(self) -> None:
        """Connect and follow the log, again after every failure, until stopped."""
        while not self._stopped.is_set():
            try:
                with connect() as connection:
                    self.follow(connection)
            except psycopg.Error as error:
                self.note_failure(error)
            except Exception:
                # A feed that ended would leave its process behind for ever, and one that went on might have skipped a
                # change: load the replica again.
                self.at = None
                logger.exception("The feed failed and starts again.")
            self._stopped.wait(RETRY_SECONDS)

    def follow(self, connection: FeedConnection) -> None:
        """Load the replica if there is none, then read the log.

        Raises psycopg.Error when the connection is lost.
        """
        if self.direct:
            self.listen(connection)
        checked_at = -math.inf
        while not self._stopped.is_set():
            began = time.monotonic()
            if self.at is None or began - checked_at >= PRIMARY_CHECK_SECONDS:
                require_primary(connection)
                checked_at = began
            if self.at is None:
                self.load(connection)
                began = time.monotonic()
            self.notify_other_processes(connection)
            if self.read_page(connection, began) < CHANGES_PER_PAGE:
                next_at = began + min(SPACING_FACTOR * (time.monotonic() - began), MAX_SPACING_SECONDS)
                self.wait_for_hint(connection)
                self._stopped.wait(max(next_at - time.monotonic(), 0))

    def load(self, connection: FeedConnection) -> None:
        """Load the replica, and a large one after a random delay.

        Many processes may start at once.
        """
        if is_large(connection):
            self._stopped.wait(random.uniform(0, LOAD_SPREAD_SECONDS))  # noqa: S311 (jitter)
        began = time.monotonic()
        replica, newest = load_replica(connection)
        self.at, self.read_at = (replica.index, replica.pk), began
        self.run_on_loop(lambda: self.hub.replace_replica(replica, newest, began))
        if not self.loaded_before:
            self.loaded_before = True
            gc_tuning.freeze_heap()
        logger.info("The catalogue is in memory: %d services.", len(replica.services))

    def read_page(self, connection: FeedConnection, began: float) -> int:
        """Apply the next page of the log to the hub; return the number of changes.

        1. Read the changes after the last known one, together with that one: a log that was replaced, or pruned past
           it, no longer matches. `began` is the time before the query, so that a change that is committed later does
           not count as read.
        2. Let the event loop apply the page, and wait for it: the next page must not come before subscribers have
           this one. If applying fails, the replica is loaded again.
        3. A full page is not the end of the log. Readers that wait for the end keep waiting: an index from the next
           page would look like one that the log does not contain.
        """
        assert self.at is not None, "loaded before"
        changes = read_changes(connection, *self.at, CHANGES_PER_PAGE, began - self.read_at)
        if changes is None:
            logger.warning("The log no longer contains %s: loading the catalogue again.", self.at[0])
            self.at = None
            self.run_on_loop(self.hub.resync)
            return CHANGES_PER_PAGE
        if changes:
            self.at = changes[-1].index, changes[-1].pk
        queried_at = began if len(changes) < CHANGES_PER_PAGE else None
        self.read_at = queried_at or self.read_at
        self.run_on_loop(lambda: self.hub.apply_page(changes, queried_at))
        self.note_success()
        return len(changes)

    def run_on_loop(self, do: Callable[[], object]) -> None:
        """Run a call on the event loop, wait for it, and raise what it raises.

        Waiting keeps the reading from running ahead of the applying. A stopped loop may never run the call.
        """
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
        while not self._stopped.is_set() and not wait([done], STOP_CHECK_SECONDS).done:
            pass
        if done.done():
            done.result()

    def notify_other_processes(self, connection: FeedConnection) -> None:
        """Send NOTIFY after commits of this process, before it reads them: others read at the same time.

        Inside their transactions it would halve their throughput.
        """
        if self.direct and self.has_committed:
            self.has_committed = False
            connection.execute(f"NOTIFY {CHANNEL}")

    def on_commit(self, pk: int) -> None:
        """Poll after the commit of the change `pk`; called on the thread that committed it.

        The hub notes the commit on the event loop, before the response to the writer.
        """
        self.loop.call_soon_threadsafe(self.hub.note_commit, pk)
        self.has_committed = True
        self.wake()

    def listen(self, connection: FeedConnection) -> None:
        """Have notifications by other processes wake the feed.

        One that arrives during a statement is for the handler: psycopg would keep it, for ever if no other follows.
        """
        own = connection.info.backend_pid
        connection.add_notify_handler(lambda notification: None if notification.pid == own else self.wake())
        connection.execute(f"LISTEN {CHANNEL}")

    def wait_for_hint(self, connection: FeedConnection) -> None:
        """Wait for a hint, or for the time of the next poll."""
        # One that arrived together with the end of the last statement is in libpq's buffer, where poll() cannot see it.
        if take_notifications(connection):
            return
        sources = select.poll()  # select() supports no descriptor above 1,023, and each watch has one
        sources.register(self._hints, select.POLLIN)
        if self.direct:
            sources.register(connection.fileno(), select.POLLIN)
        hinted = [descriptor for descriptor, _event in sources.poll(POLL_SECONDS * 1000)]
        if self._hints in hinted:
            os.read(self._hints, 65536)
        if connection.fileno() in hinted:
            take_notifications(connection)

    def note_failure(self, error: psycopg.Error) -> None:
        if not self.failing:
            self.failing = True
            logger.warning("The feed does not reach the database: %s", error)

    def note_success(self) -> None:
        if self.failing:
            self.failing = False
            logger.info("The feed reads the log again.")


def take_notifications(connection: FeedConnection) -> bool:
    """Take what has arrived since the last statement, without waiting; return whether there was a notification."""
    connection.pgconn.consume_input()
    taken = False
    while connection.pgconn.notifies():
        taken = True
    return taken
