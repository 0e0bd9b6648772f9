"""Requests in ones, gathered: while one batch is under way the next is made of all that arrive."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db import close_old_connections

from service_registry.database.outages import is_outage, sqlstate_of
from service_registry.exceptions import RegistryError, TooBusy
from service_registry.manager.batch import Asked, Keyed, key_of

Item = TypeVar("Item", bound=Keyed)
Outcome = TypeVar("Outcome")

AT_ONCE = 500
WAITING = 5_000
PATIENCE_SECONDS = 10
LOCK_NOT_AVAILABLE = "55P03"


@dataclass(slots=True, eq=False)
class Waiting(Generic[Item, Outcome]):
    """One who waits, and where the outcome will be."""

    asked: Asked[Item]
    outcome: "asyncio.Future[Outcome | RegistryError]"


class Gathering(Generic[Item, Outcome]):
    """One verb's batches, one after the other. Lives on an event loop; the verb runs on one of `threads` at a time.

    Nobody waits for others to arrive: a request that finds nothing under way is a batch of its own.
    """

    def __init__(
        self, verb: Callable[[Sequence[Asked[Item]]], list[Outcome | RegistryError]], threads: Executor
    ) -> None:
        self.verb = verb
        self.threads = threads
        self.waiting: list[Waiting[Item, Outcome]] = []
        self.under_way: asyncio.Task[None] | None = None

    async def outcome(self, asked: Asked[Item]) -> Outcome | RegistryError:
        """What the verb says of it.

        Raises:
            TooBusy: too many wait already, or it waited too long; it may have been done all the same.
            Exception: what the verb raises of the whole batch.
        """
        if len(self.waiting) >= WAITING:
            raise TooBusy
        loop = asyncio.get_running_loop()
        one = Waiting[Item, Outcome](asked, loop.create_future())
        self.waiting.append(one)
        if self.under_way is None:
            self.under_way = loop.create_task(self.work())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await one.outcome
        except TimeoutError:
            raise TooBusy from None

    async def work(self) -> None:
        try:
            while batch := self.take():
                await self.serve(batch)
        finally:
            self.under_way = None

    def take(self) -> list[Waiting[Item, Outcome]]:
        """The next batch: those who have waited longest. One key stands once in a batch, so a second waits on."""
        chosen: dict[tuple[str, str, str], Waiting[Item, Outcome]] = {}

        def waits_on(one: Waiting[Item, Outcome]) -> bool:
            return len(chosen) == AT_ONCE or chosen.setdefault(key_of(one.asked), one) is not one

        self.waiting = [one for one in self.waiting if waits_on(one)]
        return list(chosen.values())

    async def serve(self, batch: Sequence[Waiting[Item, Outcome]]) -> None:
        """Run the verb. What fails because of one item fails for that one alone: the batch runs again in halves."""
        loop = asyncio.get_running_loop()
        try:
            outcomes = await loop.run_in_executor(self.threads, self.run, [one.asked for one in batch])
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            if len(batch) > 1 and is_of_one(error):
                middle = len(batch) // 2
                await self.serve(batch[:middle])
                await self.serve(batch[middle:])
            else:
                settle(batch, error)
        else:
            for one, outcome in zip(batch, outcomes, strict=True):
                if not one.outcome.done():
                    one.outcome.set_result(outcome)

    def run(self, asked: Sequence[Asked[Item]]) -> list[Outcome | RegistryError]:
        """On a thread, with its connection as at the start of a request: one that broke is made anew."""
        close_old_connections()
        return self.verb(asked)


def is_of_one(error: Exception) -> bool:
    """Whether a single item can be the cause: a row that somebody holds. The database's absence is everybody's."""
    return sqlstate_of(error) == LOCK_NOT_AVAILABLE or not is_outage(error)


def settle(batch: Sequence[Waiting[Item, Outcome]], error: Exception) -> None:
    for one in batch:
        if not one.outcome.done():
            one.outcome.set_exception(error)
