"""Limits on how many watches and blocking reads wait at once."""

import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from service_registry import metrics
from service_registry.exceptions import TooManySubscribers

WATCHES_PER_CALLER = 50
SUBSCRIBERS_PER_PROCESS = 5_000
# File descriptors beside those of connections: files, the database, and connections that are refused.
OTHER_FILES = 1_000


class SubscriberLimits:
    """Counts the watches and blocking reads of this process.

    Blocking reads count for the process alone: a caller that discovers many services waits for each of them.
    """

    def __init__(self) -> None:
        self._watches: Counter[str] = Counter()
        self._subscribers = 0

    @contextmanager
    def watch(self, actor: str, kind: str) -> Iterator[None]:
        """Count a watch while the block runs. Raises TooManySubscribers."""
        if self._watches[actor] >= WATCHES_PER_CALLER:
            raise TooManySubscribers("The caller has", WATCHES_PER_CALLER)
        with self.wait(kind):
            self._watches[actor] += 1
            try:
                yield
            finally:
                self._watches[actor] -= 1
                if not self._watches[actor]:
                    del self._watches[actor]

    @contextmanager
    def wait(self, kind: str) -> Iterator[None]:
        """Count a request that waits while the block runs. Raises TooManySubscribers."""
        if self._subscribers >= SUBSCRIBERS_PER_PROCESS:
            raise TooManySubscribers("All callers together have", SUBSCRIBERS_PER_PROCESS)
        self._subscribers += 1
        metrics.subscribers.labels(kind).inc()
        try:
            yield
        finally:
            self._subscribers -= 1
            metrics.subscribers.labels(kind).dec()


def raise_file_limit() -> None:
    """Allow this process a file descriptor for every connection, up to its hard limit.

    Shells and service managers give 1,024 by default, and a process that has none left accepts no connection at all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.REGISTRY_MAX_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
