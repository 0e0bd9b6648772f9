"""Requests in ones, gathered: while one batch is under way the next is made of all that arrive."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service_registry.database.outages import is_outage, sqlstate_of
from service_registry.database.thread_connection import prepare_thread_connection
from service_registry.exceptions import RegistryError, TooBusy
from service_registry.manager.batch import Key, Keyed, Submission, key_of

Item = TypeVar("Item", bound=Keyed)
Outcome = TypeVar("Outcome")

AT_ONCE = 500
WAITING = 5_000
WAITING_FOR_ONE_KEY = 16
PATIENCE_SECONDS = 10
LOCK_NOT_AVAILABLE = "55P03"
# How long a batch waits for a row that somebody holds, and how long once it is known that somebody does.
LOCK_TIMEOUT, LOCK_TIMEOUT_IN_HALVES = "1s", "250ms"


class Verb(Protocol[Item, Outcome]):
    """A verb for many callers, which raises OperationalError when a row is held for longer than `lock_timeout`."""

    def __call__(self, asked: Sequence[Submission[Item]], lock_timeout: str) -> list[Outcome | RegistryError]: ...


@dataclass(slots=True, eq=False)
class Waiting(Generic[Item, Outcome]):
    """One who waits, and where the outcome will be."""

    asked: Submission[Item]
    outcome: "asyncio.Future[Outcome | RegistryError]"


class Gathering(Generic[Item, Outcome]):
    """One verb's batches, one after the other. Lives on an event loop; the verb runs on one of `threads` at a time.

    Nobody waits for others to arrive: a request that finds nothing under way is a batch of its own.
    """

    def __init__(
        self, verb: Verb[Item, Outcome], threads: Executor, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.verb = verb
        self.threads = threads
        self.patience_seconds = patience_seconds
        self.waiting: deque[Waiting[Item, Outcome]] = deque()
        self.of_key: Counter[Key] = Counter()
        self.under_way: asyncio.Task[None] | None = None

    async def outcome(self, asked: Submission[Item]) -> Outcome | RegistryError:
        """What the verb says of it.

        Raises:
            TooBusy: too many wait already, or it waited too long; then it is not done, unless it was under way.
            Exception: what the verb raises of the whole batch.
        """
        key = key_of(asked)
        if len(self.waiting) >= WAITING or self.of_key[key] >= WAITING_FOR_ONE_KEY:
            raise TooBusy
        loop = asyncio.get_running_loop()
        one = Waiting[Item, Outcome](asked, loop.create_future())
        self.waiting.append(one)
        self.of_key[key] += 1
        if self.under_way is None:
            self.under_way = loop.create_task(self.work())
        try:
            async with asyncio.timeout(self.patience_seconds):
                return await one.outcome
        except TimeoutError:
            raise TooBusy from None

    async def work(self) -> None:
        try:
            while batch := self.take():
                await self.serve(batch, LOCK_TIMEOUT)
        finally:
            self.under_way = None

    def take(self) -> list[Waiting[Item, Outcome]]:
        """The next batch, of those who have waited longest.

        1. Who has given up is left out: what was answered with 503 must not be done afterwards, when the caller may
           have said something else.
        2. One key stands once in a batch, so a second waits on, before those who came after it.
        """
        chosen: dict[Key, Waiting[Item, Outcome]] = {}
        later: list[Waiting[Item, Outcome]] = []
        while self.waiting and len(chosen) < AT_ONCE:
            one = self.waiting.popleft()
            key = key_of(one.asked)
            if key in chosen and not one.outcome.done():
                later.append(one)
                continue
            self.forget(key)
            if not one.outcome.done():
                chosen[key] = one
        self.waiting.extendleft(reversed(later))
        return list(chosen.values())

    def forget(self, key: Key) -> None:
        self.of_key[key] -= 1
        if not self.of_key[key]:
            del self.of_key[key]

    async def serve(self, batch: Sequence[Waiting[Item, Outcome]], lock_timeout: str) -> None:
        """Run the verb. What fails because of one item fails for that one alone: the batch runs again in halves, in
        which nobody waits long for a row, as all others wait for that too."""
        batch = [one for one in batch if not one.outcome.done()]
        if not batch:
            return
        try:
            outcomes = await self.outcomes_of([one.asked for one in batch], lock_timeout)
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            if len(batch) > 1 and is_of_one(error):
                middle = len(batch) // 2
                await self.serve(batch[:middle], LOCK_TIMEOUT_IN_HALVES)
                await self.serve(batch[middle:], LOCK_TIMEOUT_IN_HALVES)
            else:
                settle(batch, error)
        else:
            for one, outcome in zip(batch, outcomes, strict=True):
                if not one.outcome.done():
                    one.outcome.set_result(outcome)

    async def outcomes_of(self, asked: Sequence[Submission[Item]], lock_timeout: str) -> list[Outcome | RegistryError]:
        def run() -> list[Outcome | RegistryError]:
            prepare_thread_connection()
            return self.verb(asked, lock_timeout)

        return await asyncio.get_running_loop().run_in_executor(self.threads, run)


def is_of_one(error: Exception) -> bool:
    """Whether a single item can be the cause: a row that somebody holds. The database's absence is everybody's."""
    return sqlstate_of(error) == LOCK_NOT_AVAILABLE or not is_outage(error)


def settle(batch: Sequence[Waiting[Item, Outcome]], error: Exception) -> None:
    for one in batch:
        if not one.outcome.done():
            one.outcome.set_exception(error)
