"""Count requests in memory, and add the counts to Prometheus's metrics.

A metric of Prometheus is a value in a file that other processes read, with a lock and a `getpid` for each change, and a
request changes four of them. The event loop of a web process adds what has been counted ten times a second instead.
"""

import functools
import threading
from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeAlias

from django.conf import settings
from prometheus_client import Counter, Histogram

FLUSH_SECONDS = 0.1
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
# The upper bounds of the histogram's buckets but the last, which has none.
BOUNDS = settings.PROMETHEUS_LATENCY_BUCKETS


class SummedHistogram(Histogram):
    """A histogram to which many observations are added at once, where the library has one method for each."""

    def add(self, seconds: float, observations: Sequence[int]) -> None:
        """Add observations: the sum of their durations, and their number by bucket."""
        self._sum.inc(seconds)
        for bucket, number in zip(self._buckets, observations, strict=True):
            if number:
                bucket.inc(number)


operations = Counter(
    "registry_operations_total",
    "Items of operations, by outcome: ok, created or an error code.",
    ["operation", "outcome"],
)
http_requests = Counter(
    "registry_http_requests_total", "HTTP requests by method, operation and status.", ["method", "operation", "status"]
)
http_request_seconds = SummedHistogram(
    "registry_http_request_duration_seconds", "Duration of HTTP requests.", ["operation"], buckets=BOUNDS
)


# Method, operation, status and outcome of a request; None as the outcome where each item has one.
Labels: TypeAlias = tuple[str, str, int, str | None]


class Tally:
    """Requests with the same labels, and their durations in seconds."""

    __slots__ = ("by_bucket", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.by_bucket = [0] * (len(BOUNDS) + 1)


class Series:
    """The metrics that a request with given labels changes, bound to the labels once."""

    def __init__(self, labels: Labels) -> None:
        method, operation, status, outcome = labels
        self.requests = http_requests.labels(method, operation, status)
        self.durations = http_request_seconds.labels(operation)
        self.outcomes = operations.labels(operation, outcome) if outcome else None

    def add(self, tally: Tally) -> None:
        self.requests.inc(tally.requests)
        self.durations.add(tally.seconds, tally.by_bucket)
        if self.outcomes:
            self.outcomes.inc(tally.requests)


# No label is chosen by a client, so there are few series.
series_of = functools.cache(Series)


class RequestCounts:
    """Requests counted since the last flush; from any thread.

    Attributes:
        gathering: whether an event loop flushes. Other processes flush with each request.
    """

    def __init__(self) -> None:
        self.gathering = False
        self._tallies: dict[Labels, Tally] = {}
        self._lock = threading.Lock()
        # A scrape waits for the flush of another thread, whose counts it would miss.
        self._flush_lock = threading.Lock()

    def count(self, method: str | None, operation: str, status: int, outcome: str | None, seconds: float) -> None:
        """Count a request, and its outcome unless each item has one."""
        labels = method if method in METHODS else "other", operation, status, outcome
        with self._lock:
            tally = self._tallies.get(labels)
            if tally is None:
                tally = self._tallies[labels] = Tally()
            tally.requests += 1
            tally.seconds += seconds
            tally.by_bucket[bisect_left(BOUNDS, seconds)] += 1
        # Read after counting: when gathering ends meanwhile, either the last flush has this request or this one.
        if not self.gathering:
            self.flush()

    def flush(self) -> None:
        """Add all that has been counted to the metrics."""
        with self._flush_lock:
            with self._lock:
                tallies, self._tallies = self._tallies, {}
            for labels, tally in tallies.items():
                series_of(labels).add(tally)

    def stop_gathering(self) -> None:
        """Flush for the last time: the event loop is about to end."""
        self.gathering = False
        self.flush()


request_counts = RequestCounts()
