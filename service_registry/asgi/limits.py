"""How many may wait at once, and how much may be on its way to them."""

import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service_registry import metrics
from service_registry.asgi.flow_control import Answers
from service_registry.exceptions import TooManySubscribers

WATCHES_A_CALLER = 50
WAITING_A_PROCESS = 5_000
# Beside those who wait: files, the database, and callers who are served.
OTHER_FILES = 1_000


class Limits:
    """Counts who waits for this process. Reads that wait count for the process alone: a caller that discovers many
    services waits for each. `answers` are those under way."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.watches: Counter[str] = Counter()
        self.waiting = 0

    @contextmanager
    def watch(self, actor: str, kind: str) -> Iterator[None]:
        """Raises TooManySubscribers."""
        if self.watches[actor] >= WATCHES_A_CALLER:
            raise TooManySubscribers("The caller has", WATCHES_A_CALLER)
        with self.wait(kind):
            self.watches[actor] += 1
            try:
                yield
            finally:
                self.watches[actor] -= 1
                if not self.watches[actor]:
                    del self.watches[actor]

    @contextmanager
    def wait(self, kind: str) -> Iterator[None]:
        """Raises TooManySubscribers."""
        if self.waiting >= WAITING_A_PROCESS:
            raise TooManySubscribers("All callers together have", WAITING_A_PROCESS)
        self.waiting += 1
        metrics.subscribers.labels(kind).inc()
        try:
            yield
        finally:
            self.waiting -= 1
            metrics.subscribers.labels(kind).dec()


def allow_files() -> None:
    """Let this process have a connection for each who may wait, as far as its hard limit goes: shells and service
    managers give 1,024 files to those who ask for nothing, and a process without one takes no connection at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WAITING_A_PROCESS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
