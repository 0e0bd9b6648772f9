"""Bounds on the requests of one kind that wait in a web process: of all callers, and of each."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from service_registry import metrics
from service_registry.exceptions import RateLimited, RegistryError, TooBusy

SUBSCRIBERS_PER_PROCESS = 5_000
# All requests without a token are one caller.
ANONYMOUS = ""
# File descriptors beside those of connections: files, the database, and connections that are refused.
OTHER_FILES = 1_000


class Places:
    """The places for requests of one kind in this process.

    All callers together take at most `total`, and each at most its share of them: a single reader could keep all
    others from being answered. Belongs to the event loop.

    Arguments:
        kind: the requests that take a place, for metrics and refusals.
        retry_after_seconds: when a refused caller may try again.
    """

    def __init__(self, kind: str, total: int, retry_after_seconds: int = 1) -> None:
        self.kind = kind
        self.total = total
        self.retry_after_seconds = retry_after_seconds
        self.per_caller = max(1, int(total * settings.REGISTRY_MAX_SHARE_PER_CALLER))
        self.taken = 0
        self.taken_by: dict[str | None, int] = {}

    def take(self, actor: str | None) -> None:
        """Take a place, until `free` is called.

        Args:
            actor: the caller; None for a request that counts for the process alone.

        Raises:
            RateLimited: the caller has its share already.
            TooBusy, or RateLimited: all places are taken.
        """
        taken = self.taken_by.get(actor, 0)
        if self.taken >= self.total:
            metrics.refused_places.labels(self.kind, "process").inc()
            raise self.full()
        if taken >= self.per_caller and actor is not None:
            metrics.refused_places.labels(self.kind, "caller").inc()
            raise self.exceeded()
        self.taken += 1
        self.taken_by[actor] = taken + 1

    def free(self, actor: str | None) -> None:
        self.taken -= 1
        self.taken_by[actor] -= 1
        if not self.taken_by[actor]:
            del self.taken_by[actor]

    @contextmanager
    def hold(self, actor: str | None) -> Iterator[None]:
        """Take a place while the block runs. Raises as `take`."""
        self.take(actor)
        try:
            yield
        finally:
            self.free(actor)

    def full(self) -> RegistryError:
        """Return the error for a request when all places are taken."""
        return TooBusy()

    def exceeded(self) -> RateLimited:
        """Return the error for a request of a caller that has its share."""
        return RateLimited(
            f"This caller has {self.per_caller} of the {self.total} places for {self.kind} in this web process, "
            "which is the share of one caller (REGISTRY_MAX_SHARE_PER_CALLER).",
            self.retry_after_seconds,
        )


class SubscriberPlaces(Places):
    """The places for watches and blocking reads, which may keep theirs for minutes."""

    def __init__(self) -> None:
        super().__init__("subscribers", SUBSCRIBERS_PER_PROCESS, retry_after_seconds=5)

    @contextmanager
    def subscribe(self, actor: str | None, kind: str) -> Iterator[None]:
        """Take a place while the block runs, and count it as `stream`, `poll` or `read`. Raises RateLimited."""
        with self.hold(actor):
            metrics.subscribers.labels(kind).inc()
            try:
                yield
            finally:
                metrics.subscribers.labels(kind).dec()

    def full(self) -> RegistryError:
        return RateLimited(
            f"All callers together have the {self.total} places for {self.kind} in this web process.",
            self.retry_after_seconds,
        )


def raise_file_limit() -> None:
    """Allow this process a file descriptor for every connection, up to its hard limit.

    Shells and service managers give 1,024 by default, and a process that has none left accepts no connection at all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.REGISTRY_MAX_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
