"""Micro-batches: concurrent single requests share one transaction.

While one batch runs, the next is collected from the requests that arrive. No request waits for others to arrive: one
that finds nothing under way is a batch by itself.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, Self, TypeVar

from service_registry.asgi.limits import Places
from service_registry.database.outages import is_lock_timeout, is_outage
from service_registry.database.transactions import prepare_thread_connection
from service_registry.exceptions import RegistryError, TooBusy
from service_registry.manager.batch import Key, Keyed, Submission, key_of


class Done(Protocol):
    """The result of an operation on one item."""

    def again(self) -> Self:
        """Return the result of a second request that is the same, or that was merged into the first."""
        ...


Item = TypeVar("Item", bound=Keyed)
Outcome = TypeVar("Outcome", bound=Done)

BATCH_SIZE = 500
MAX_QUEUED = 5_000
MAX_QUEUED_PER_INSTANCE = 16
QUEUE_SECONDS = 10.0
# The lock timeout of a batch, and that of its parts once it is known that one of its rows is locked.
LOCK_TIMEOUT, LOCK_TIMEOUT_IN_HALVES = "1s", "250ms"


class Operation(Protocol[Item, Outcome]):
    """An operation over the submissions of many callers.

    It raises OperationalError when a row stays locked for longer than `lock_timeout`.
    """

    def __call__(
        self, submissions: Sequence[Submission[Item]], lock_timeout: str, /
    ) -> list[Outcome | RegistryError]: ...


# A rule by which two submissions for one instance become the one that does what both do, one right after the other. It
# returns None where there is none.
Merge = Callable[[Submission[Item], Submission[Item]], Submission[Item] | None]


@dataclass(slots=True, eq=False)
class Queued(Generic[Item, Outcome]):
    """A submission in the queue, and the futures of the requests that wait for its outcome.

    `deadline` is that of the first request, on the clock of the event loop.
    """

    submission: Submission[Item]
    deadline: float
    requests: "list[asyncio.Future[Outcome | RegistryError]]"

    @property
    def is_awaited(self) -> bool:
        return any(not request.done() for request in reversed(self.requests))

    def answer(self, outcome: Outcome | RegistryError) -> None:
        for request in self.requests:
            if not request.done():
                request.set_result(outcome)
            outcome = outcome if isinstance(outcome, RegistryError) else outcome.again()

    def fail(self, error: Exception) -> None:
        for request in self.requests:
            if not request.done():
                request.set_exception(error)


class MicroBatcher(Generic[Item, Outcome]):
    """Runs one operation in batches, one batch after the other.

    Belongs to an event loop.

    Arguments:
        operation: runs on one of `threads` at a time.
        merge: tells which requests for one instance are done as one.
        kind: the requests, for metrics and refusals.
        queue_seconds: how long a request waits for its outcome.

    Attributes:
        waiting: by instance, oldest first, what no batch has taken yet.
        batch: what the present batch has taken.
    """

    def __init__(
        self,
        operation: Operation[Item, Outcome],
        merge: Merge[Item],
        threads: Executor,
        kind: str,
        queue_seconds: float = QUEUE_SECONDS,
    ) -> None:
        self.operation = operation
        self.merge = merge
        self.threads = threads
        self.queue_seconds = queue_seconds
        self.waiting: dict[Key, list[Queued[Item, Outcome]]] = {}
        self.batch: list[Queued[Item, Outcome]] = []
        self.places = Places(kind, MAX_QUEUED)
        self.running: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    async def submit(self, submission: Submission[Item]) -> Outcome | RegistryError:
        """Return the outcome of one submission.

        Raises:
            RateLimited: the caller has its share of the places.
            TooBusy: all places are taken, or the submission waited too long. It is not done then, unless its batch was
                under way.
            Exception: what the operation raises for the whole batch.
        """
        loop = asyncio.get_running_loop()
        request: asyncio.Future[Outcome | RegistryError] = loop.create_future()
        actor = submission.caller.actor
        self.places.take(actor)
        try:
            self.enqueue(submission, request, loop)
            if self.running is None:
                self.running = loop.create_task(self.run())
            return await request
        finally:
            self.places.free(actor)

    def enqueue(
        self,
        submission: Submission[Item],
        request: "asyncio.Future[Outcome | RegistryError]",
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Merge a request into the last one for its instance, or queue it behind. Raises TooBusy."""
        key = key_of(submission)
        same = self.waiting.get(key)
        if same and same[-1].is_awaited and (merged := self.merge(same[-1].submission, submission)):
            same[-1].submission = merged
            same[-1].requests.append(request)
        else:
            queued = Queued[Item, Outcome](submission, loop.time() + self.queue_seconds, [request])
            if not same:
                self.waiting[key] = [queued]
            elif len(same) < MAX_QUEUED_PER_INSTANCE:
                same.append(queued)
            else:
                raise TooBusy
            if self.timer is None:
                self.timer = loop.call_at(queued.deadline, self.give_up)

    def give_up(self) -> None:
        """Fail the requests that have waited too long.

        What still waits in the queue leaves it: what was answered with 503 must not be done afterwards, when its caller
        may have sent another request. One timer serves all, at the earliest deadline.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        pending = [queued for same in self.waiting.values() for queued in same] + self.batch
        pending = [queued for queued in pending if queued.is_awaited]
        for queued in pending:
            if queued.deadline <= now:
                queued.fail(TooBusy())
        awaited = {key: [queued for queued in same if queued.is_awaited] for key, same in self.waiting.items()}
        self.waiting = {key: same for key, same in awaited.items() if same}
        earliest = min((queued.deadline for queued in pending if queued.deadline > now), default=None)
        self.timer = None if earliest is None else loop.call_at(earliest, self.give_up)

    async def run(self) -> None:
        try:
            while self.waiting:
                self.batch = self.take_batch()
                await self.execute(self.batch, LOCK_TIMEOUT)
        finally:
            self.batch = []
            self.running = None

    def take_batch(self) -> list[Queued[Item, Outcome]]:
        """Take the first of each instance. What is second stays ahead of what came later."""
        batch = []
        for key in list(islice(self.waiting, BATCH_SIZE)):
            same = self.waiting[key]
            first = same.pop(0)
            if not same:
                del self.waiting[key]
            batch.append(first)
        return batch

    async def execute(self, batch: Sequence[Queued[Item, Outcome]], lock_timeout: str) -> None:
        """Run the operation over a batch and hand out the outcomes.

        An error that one item can cause must fail that item alone: the batch runs again in halves. These wait for a
        locked row only briefly, since every other request waits meanwhile.
        """
        batch = [queued for queued in batch if queued.is_awaited]
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
                for queued in batch:
                    queued.fail(error)
        else:
            for queued, outcome in zip(batch, outcomes, strict=True):
                queued.answer(outcome)

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
    return is_lock_timeout(error) or not is_outage(error)
