"""Queues of work for threads: bounded, and in turn for each caller."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

from asgiref.typing import ASGIReceiveCallable

from service_registry.asgi.limits import Places
from service_registry.asgi.request import ClientDisconnected
from service_registry.asgi.waiting import wait_for_disconnect

Result = TypeVar("Result")


class ThreadQueue:
    """Runs work of one kind on threads. Belongs to the event loop.

    A caller never has all threads, unless there is only one, and enters the queue for the next one after it got the
    last: behind a hundred requests of one caller another waits for one of them.

    Arguments:
        kind: the requests, for metrics and refusals.
        threads: may be those of other queues, too.
        max_threads: how many of them this queue uses at once.
        max_queued: the requests that wait for a thread or run on one.
    """

    def __init__(self, kind: str, threads: ThreadPoolExecutor, max_threads: int, max_queued: int) -> None:
        self.places = Places(kind, max_queued)
        self.threads = threads
        self.turns = asyncio.Semaphore(max_threads)
        self.max_threads = max_threads
        self.turns_of: WeakValueDictionary[str | None, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, actor: str | None, function: Callable[[], Result]) -> Result:
        """Return what a function returns on a thread.

        Args:
            actor: the caller; None for a request that counts for the process alone.

        Raises:
            RateLimited, TooBusy: too many requests of the caller, or of all, are here.
            Exception: what the function raises.
        """
        with self.places.hold(actor):
            most = self.max_threads if actor is None else max(1, self.max_threads - 1)
            own_turns = self.turns_of.setdefault(actor, asyncio.Semaphore(most))
            async with own_turns, self.turns:
                submitted = self.threads.submit(function)
                work = asyncio.wrap_future(submitted)
                try:
                    return await asyncio.shield(work)
                except asyncio.CancelledError:
                    if not submitted.cancel():
                        await asyncio.wait([work])  # the thread is not free before
                    raise

    async def run_while_connected(
        self, receive: ASGIReceiveCallable, actor: str | None, function: Callable[[], Result]
    ) -> Result:
        """Return what a function returns on a thread; drop it when its client leaves before it begins.

        Args:
            receive: of the request, whose body has been received.

        Raises as `run`, and ClientDisconnected.
        """
        work = asyncio.ensure_future(self.run(actor, function))
        disconnect = asyncio.ensure_future(wait_for_disconnect(receive))
        try:
            await asyncio.wait([work, disconnect], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnected
            return work.result()
        finally:
            disconnect.cancel()
            work.cancel()
