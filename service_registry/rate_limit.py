"""Limit events by key, in memory of a fixed size."""

import threading
import time
from collections.abc import Hashable


class RateLimit:
    """Allows a burst of events for each key, and one more after each interval.

    The generic cell rate algorithm (GCRA): a key costs one number, the time at which its whole burst is allowed again.
    A full table forgets the key whose last event is longest ago.

    Arguments:
        burst: events at once.
        interval_seconds: the time after which one more is allowed.
    """

    def __init__(self, burst: int, interval_seconds: float, max_keys: int = 10_000) -> None:
        self.burst = burst
        self.interval_seconds = interval_seconds
        self.max_keys = max_keys
        self._whole_at: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> float:
        """Count an event, and return 0, or return the seconds until the next one is allowed.

        Events that are not allowed do not count.
        """
        now = time.monotonic()
        with self._lock:
            whole_at = max(self._whole_at.pop(key, now), now)
            wait_seconds = max(0, whole_at - (self.burst - 1) * self.interval_seconds - now)
            self._whole_at[key] = whole_at if wait_seconds else whole_at + self.interval_seconds
            if len(self._whole_at) > self.max_keys:
                del self._whole_at[next(iter(self._whole_at))]
        return wait_seconds

    def forget(self, key: Hashable) -> None:
        """Allow the whole burst for a key again."""
        with self._lock:
            self._whole_at.pop(key, None)
