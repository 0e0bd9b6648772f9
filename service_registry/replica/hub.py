"""What one web process knows of the catalogue and of those who wait for changes of it. Belongs to the event loop."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from service_registry import changelog as log
from service_registry import metrics
from service_registry.replica.change_buffer import ChangeBuffer
from service_registry.replica.store import Change, Replica
from service_registry.replica.subscribers import EndReason, Subscribers

# The feed asks ten times a second: after this long without an answer the database is away, or nearly so.
STALE_AFTER_SECONDS = 1.5
# How long a reader waits for the feed to reach what this process has just committed.
CATCH_UP_SECONDS = 1.0


class Hub:
    """`replica` and `recent` are None until they are loaded, and while they are loaded anew.

    Arguments:
        wake_feed: asks the feed to look at the log at once; from any thread.
    """

    def __init__(self, wake_feed: Callable[[], object] = lambda: None) -> None:
        self.wake_feed = wake_feed
        self.replica: Replica | None = None
        self.buffer = ChangeBuffer(0, "")
        self.subscribers = Subscribers()
        self.stopping = False
        # How often the log was found to be another than before.
        self.resyncs = 0
        # On the monotonic clock: when the feed last asked and was told the end of the log.
        self.read_at = -math.inf
        # The newest change that this process has committed itself: its callers may expect to read it.
        self.committed_pk = 0
        self._refreshes: list[tuple[float, asyncio.Future[None]]] = []

    def replace_replica(self, replica: Replica, newest: Sequence[Change], asked_at: float) -> None:
        """Begin with a replica that was loaded from the tables. Who waits for changes of one before starts over: nobody
        has told what came between."""
        if self.replica is not None:
            self.resync()
        self.replica = replica
        self.buffer = ChangeBuffer.from_newest(newest)
        self._note_read(asked_at)

    def apply_page(self, changes: Sequence[Change], asked_at: float | None) -> None:
        """Go on by what the log said.

        Args:
            changes: what follows the last that is known.
            asked_at: since when, on the monotonic clock, the log may hold more; None where it holds more already, and
                who waits for the end of the log waits on.

        Raises whatever goes wrong, and has lost the replica then: half a change must not be read, or gone on from.
        """
        try:
            self.apply_changes(changes)
        except BaseException:
            self.resync()
            raise
        if asked_at is not None:
            self._note_read(asked_at)

    def apply_changes(self, changes: Sequence[Change]) -> None:
        if self.replica is not None:
            for change in changes:
                self.replica.apply(change)
                self.buffer.add(change)
            if changes:
                self.subscribers.publish(changes)

    def resync(self) -> None:
        """The replica is not what the log tells, or the log not what the replica was made of: all start over."""
        self.replica = None
        self.resyncs += 1
        self.committed_pk = 0
        metrics.replica_resyncs.inc()
        self.subscribers.end_all(EndReason.RESYNC)

    def stop(self) -> None:
        """Let all who wait go, so that the process can end; they come back to another one."""
        self.stopping = True
        self.subscribers.end_all(EndReason.SHUTDOWN)

    def note_commit(self, pk: int) -> None:
        """This process has committed the change `pk`, and those before it."""
        self.committed_pk = max(self.committed_pk, pk)
        self.wake_feed()

    @property
    def age_seconds(self) -> float:
        """Since when the replica may lack something; infinite before it is loaded."""
        return time.monotonic() - self.read_at if self.replica else math.inf

    @property
    def stale_seconds(self) -> int | None:
        """The age to own up to, in whole seconds; None while the replica is fresh."""
        return math.ceil(self.age_seconds) if self.age_seconds > STALE_AFTER_SECONDS else None

    async def current_replica(self) -> Replica | None:
        """The replica, with all that this process has committed. While the database is away as it was last, and None
        where there is none.

        1. Note which commit has not been read, and then ask for all that the log holds.
        2. A log that has been read to its end since, and does not hold the commit, has lost it, in a failover: nobody
           waits for it any more. A later commit, noted meanwhile, is waited for still.
        """
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while self.replica and self.replica.pk < (committed := self.committed_pk) and time.monotonic() < deadline:
            if not await self.catch_up():
                break
            if self.replica and self.replica.pk < committed == self.committed_pk:
                self.committed_pk = self.replica.pk
        return self.replica

    async def catch_up(self) -> bool:
        """Wait until all is known that the log held at this moment. False when that takes too long."""
        if self.stale_seconds is not None:
            return False
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refreshes.append((time.monotonic(), answered))
        self.wake_feed()
        done, _ = await asyncio.wait([answered], timeout=CATCH_UP_SECONDS)
        answered.cancel()
        return bool(done)

    def _note_read(self, asked_at: float) -> None:
        self.read_at = asked_at
        later = []
        for since, answered in self._refreshes:
            if since > asked_at and not answered.done():
                later.append((since, answered))
            elif not answered.done():
                answered.set_result(None)
        self._refreshes = later

    def contains_index(self, replica: Replica, index: str) -> bool | None:
        """Whether the log has a row of this index, as far as memory tells; None where it reaches further back.

        Raises InvalidInput for a text that is no index.
        """
        _mark, pk = log.parse_index(index)
        if pk == replica.pk:
            return index == replica.index
        return self.buffer.contains(index, pk)
