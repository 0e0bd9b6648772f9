"""Share one replica, its change buffer and its subscribers among requests."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from service_registry import metrics
from service_registry.changelog import parse_index
from service_registry.replica.change_buffer import ChangeBuffer
from service_registry.replica.store import Change, Replica
from service_registry.replica.subscribers import EndReason, Subscribers

# The feed polls ten times a second: after this long without an answer the database is down, or nearly so.
STALE_AFTER_SECONDS = 1.5
# The time that a reader waits for the feed to reach what this process has just committed.
CATCH_UP_SECONDS = 1.0


class Hub:
    """The replica of a process and its subscribers.

    Only the event loop reads and changes it. `replica` is None until it is loaded, and while it is loaded again.
    `wake_feed` makes the feed poll at once and may be called from any thread; the feed sets it.
    """

    def __init__(self) -> None:
        self.wake_feed: Callable[[], object] = lambda: None
        self.replica: Replica | None = None
        self.buffer = ChangeBuffer(0, "")
        self.subscribers = Subscribers()
        self.stopping = False
        # The number of times that the replica was discarded because the log did not continue it.
        self.resyncs = 0
        # On the monotonic clock: when the feed sent the last query that reached the end of the log.
        self.read_at = -math.inf
        # The newest change that this process has committed: its own clients expect to read it.
        self.committed_pk = 0
        self._refreshes: list[tuple[float, asyncio.Future[None]]] = []

    def replace_replica(self, replica: Replica, newest: Sequence[Change], queried_at: float) -> None:
        """Start from a replica that was loaded from the tables.

        Subscribers to an earlier replica have to resync: they were not sent the changes in between.
        """
        if self.replica is not None:
            self.resync()
        self.replica = replica
        self.buffer = ChangeBuffer.from_newest(newest)
        self._note_read(queried_at)

    def apply_page(self, changes: Sequence[Change], queried_at: float | None) -> None:
        """Apply a page of the log.

        Args:
            changes: the changes after the last one that is known.
            queried_at: when the page was queried, on the monotonic clock: from then on the log may contain more. None
                when the log already contains more; readers that wait for the end of the log keep waiting.

        Raises whatever fails, after discarding the replica: it may contain half a change, which must not be read.
        """
        try:
            self.apply_changes(changes)
        except BaseException:
            self.resync()
            raise
        if queried_at is not None:
            self._note_read(queried_at)

    def apply_changes(self, changes: Sequence[Change]) -> None:
        if self.replica is not None:
            for change in changes:
                self.replica.apply(change)
                self.buffer.add(change)
            if changes:
                self.subscribers.publish(changes)

    def resync(self) -> None:
        """Discard the replica and make all subscribers start over."""
        self.replica = None
        self.resyncs += 1
        self.committed_pk = 0
        metrics.replica_resyncs.inc()
        self.subscribers.end_all(EndReason.RESYNC)

    def stop(self) -> None:
        """End all subscriptions so that the process can exit.

        Their clients reconnect to another process.
        """
        self.stopping = True
        self.subscribers.end_all(EndReason.SHUTDOWN)

    def note_commit(self, pk: int) -> None:
        """Note that this process has committed the changes up to `pk`; the feed is awake already."""
        self.committed_pk = max(self.committed_pk, pk)

    @property
    def age_seconds(self) -> float:
        """The time for which the replica may have missed changes; infinite without one."""
        return time.monotonic() - self.read_at if self.replica else math.inf

    @property
    def stale_seconds(self) -> int | None:
        """The replica's age for clients, in whole seconds; None unless it is stale."""
        return math.ceil(self.age_seconds) if STALE_AFTER_SECONDS < self.age_seconds < math.inf else None

    async def current_replica(self) -> Replica | None:
        """Return the replica with what this process has committed, None without one.

        A commit that does not arrive within a second is left out. While the database is down it is returned as
        it was last.

        1. Note the commit that has not been read, then wait for everything that the log contains.
        2. If the log has been read to its end since and does not contain the commit, a failover has lost it: stop
           waiting for it. A later commit that was noted meanwhile is still waited for.
        """
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while self.replica and self.replica.pk < (committed := self.committed_pk) and time.monotonic() < deadline:
            if not await self.catch_up():
                break
            if self.replica and self.replica.pk < committed == self.committed_pk:
                self.committed_pk = self.replica.pk
        return self.replica

    async def catch_up(self) -> bool:
        """Wait until everything that the log contains now is applied.

        Returns False when that takes too long, or at once while the replica is stale.
        """
        if self.stale_seconds is not None:
            return False
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refreshes.append((time.monotonic(), answered))
        self.wake_feed()
        done, _ = await asyncio.wait([answered], timeout=CATCH_UP_SECONDS)
        answered.cancel()
        return bool(done)

    def _note_read(self, queried_at: float) -> None:
        """Note a read up to the end of the log, and wake those waiting in `catch_up`."""
        self.read_at = queried_at
        later = []
        for since, answered in self._refreshes:
            if since > queried_at and not answered.done():
                later.append((since, answered))
            elif not answered.done():
                answered.set_result(None)
        self._refreshes = later

    def contains_index(self, replica: Replica, index: str) -> bool | None:
        """Return whether the log has a row of this index; None when memory does not know.

        It cannot when it does not reach back that far. Raises InvalidInput when the text is not an index.
        """
        _mark, pk = parse_index(index)
        if pk == replica.pk:
            return index == replica.index
        return self.buffer.contains(index, pk)
