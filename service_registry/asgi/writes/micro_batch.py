"""Micro-batches: concurrent single requests share one transaction.

While one batch runs, the next is collected from the requests that arrive. No request waits for others to arrive: one
that finds nothing under way is a batch by itself.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service_registry.database.outages import is_outage, sqlstate_of
from service_registry.database.transactions import prepare_thread_connection
from service_registry.exceptions import RegistryError, TooBusy
from service_registry.manager.batch import Key, Keyed, Submission, key_of

Item = TypeVar("Item", bound=Keyed)
Outcome = TypeVar("Outcome")

BATCH_SIZE = 500
MAX_QUEUED = 5_000
MAX_QUEUED_PER_INSTANCE = 16
QUEUE_SECONDS = 10
LOCK_NOT_AVAILABLE = "55P03"
# The lock timeout of a batch, and that of its parts once it is known that one of its rows is locked.
LOCK_TIMEOUT, LOCK_TIMEOUT_IN_HALVES = "1s", "250ms"


class Operation(Protocol[Item, Outcome]):
    """An operation over the submissions of many callers.

    It raises OperationalError when a row stays locked for longer than `lock_timeout`.
    """

    def __call__(
        self, submissions: Sequence[Submission[Item]], lock_timeout: str, /
    ) -> list[Outcome | RegistryError]: ...


@dataclass(slots=True, eq=False)
class Queued(Generic[Item, Outcome]):
    """A submission in the queue, and the future that its request waits for."""

    submission: Submission[Item]
    outcome: "asyncio.Future[Outcome | RegistryError]"


class MicroBatcher(Generic[Item, Outcome]):
    """Runs one operation in batches, one batch after the other.

    Belongs to an event loop.

    Arguments:
        operation: runs on one of `threads` at a time.
        queue_seconds: how long a request waits for its outcome.
    """

    def __init__(
        self, operation: Operation[Item, Outcome], threads: Executor, queue_seconds: float = QUEUE_SECONDS
    ) -> None:
        self.operation = operation
        self.threads = threads
        self.queue_seconds = queue_seconds
        self.queue: deque[Queued[Item, Outcome]] = deque()
        self.queued_by_key: Counter[Key] = Counter()
        self.running: asyncio.Task[None] | None = None

    async def submit(self, submission: Submission[Item]) -> Outcome | RegistryError:
        """Return the outcome of one submission.

        Raises:
            TooBusy: the queue is full, or the submission waited too long. It is not done then, unless its batch was
                under way.
            Exception: what the operation raises for the whole batch.
        """
        key = key_of(submission)
        if len(self.queue) >= MAX_QUEUED or self.queued_by_key[key] >= MAX_QUEUED_PER_INSTANCE:
            raise TooBusy
        loop = asyncio.get_running_loop()
        queued = Queued[Item, Outcome](submission, loop.create_future())
        self.queue.append(queued)
        self.queued_by_key[key] += 1
        if self.running is None:
            self.running = loop.create_task(self.run())
        try:
            async with asyncio.timeout(self.queue_seconds):
                return await queued.outcome
        except TimeoutError:
            raise TooBusy from None

    async def run(self) -> None:
        try:
            while batch := self.take_batch():
                await self.execute(batch, LOCK_TIMEOUT)
        finally:
            self.running = None

    def take_batch(self) -> list[Queued[Item, Outcome]]:
        """Take the next batch from the queue, oldest first.

        1. Leave out requests that have given up: one that was answered with 503 must not be done afterwards, when its
           caller may have sent another request.
        2. Take each instance once. A second request for it stays in the queue, ahead of those that came later.
        """
        batch: dict[Key, Queued[Item, Outcome]] = {}
        deferred: list[Queued[Item, Outcome]] = []
        while self.queue and len(batch) < BATCH_SIZE:
            queued = self.queue.popleft()
            key = key_of(queued.submission)
            if key in batch and not queued.outcome.done():
                deferred.append(queued)
                continue
            self.forget(key)
            if not queued.outcome.done():
                batch[key] = queued
        self.queue.extendleft(reversed(deferred))
        return list(batch.values())

    def forget(self, key: Key) -> None:
        self.queued_by_key[key] -= 1
        if not self.queued_by_key[key]:
            del self.queued_by_key[key]

    async def execute(self, batch: Sequence[Queued[Item, Outcome]], lock_timeout: str) -> None:
        """Run the operation over a batch and hand out the outcomes.

        An error that one item can cause must fail that item alone: the batch runs again in halves. These wait for a
        locked row only briefly, since every other request waits meanwhile.
        """
        batch = [queued for queued in batch if not queued.outcome.done()]
        if not batch:
            return
        try:
            outcomes = await self.run_on_thread([queued.submission for queued in batch], lock_timeout)
        except Exception as error:  # noqa: BLE001 - raised in the requests that wait for it
            if len(batch) > 1 and may_be_caused_by_one_item(error):
                middle = len(batch) // 2
                await self.execute(batch[:middle], LOCK_TIMEOUT_IN_HALVES)
                await self.execute(batch[middle:], LOCK_TIMEOUT_IN_HALVES)
            else:
                fail(batch, error)
        else:
            for queued, outcome in zip(batch, outcomes, strict=True):
                if not queued.outcome.done():
                    queued.outcome.set_result(outcome)

    async def run_on_thread(
        self, submissions: Sequence[Submission[Item]], lock_timeout: str
    ) -> list[Outcome | RegistryError]:
        def run() -> list[Outcome | RegistryError]:
            prepare_thread_connection(check=False)
            return self.operation(submissions, lock_timeout)

        return await asyncio.get_running_loop().run_in_executor(self.threads, run)


def may_be_caused_by_one_item(error: Exception) -> bool:
    """Return whether a single item can be the cause, such as a locked row.

    An outage concerns the whole batch.
    """
    return sqlstate_of(error) == LOCK_NOT_AVAILABLE or not is_outage(error)


def fail(batch: Sequence[Queued[Item, Outcome]], error: Exception) -> None:
    for queued in batch:
        if not queued.outcome.done():
            queued.outcome.set_exception(error)
