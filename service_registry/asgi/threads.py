"""Threads for reads that need the database, apart from those of writes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service_registry.asgi.request import Request
from service_registry.asgi.thread_queue import ThreadQueue
from service_registry.database.transactions import prepare_thread_connection

Result = TypeVar("Result")

# Readers that only need a token verified must not queue behind writes.
READ_THREADS = 2
# Pages of the log, and the past, must not delay those readers either: such a read takes long.
PAGING_THREADS = 2
MAX_PAGING = 200


class ReadThreads:
    """Run functions that use the database without blocking the event loop."""

    def __init__(self) -> None:
        self._reads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        pages = ThreadPoolExecutor(PAGING_THREADS, thread_name_prefix="paging")
        self.pages = ThreadQueue("database reads", pages, PAGING_THREADS, MAX_PAGING)

    async def run(self, read: Callable[[], Result]) -> Result:
        """Return what `read` returns. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._reads, with_connection(read))

    async def read_log(self, read: Callable[[], Result]) -> Result:
        """Return the page of the log that `read` returns, for a watch: its caller has a place as a subscriber.

        Raises TooBusy, and what `read` raises.
        """
        return await self.pages.run(None, with_connection(read))

    async def read_page(self, request: Request, read: Callable[[], Result]) -> Result:
        """Return the page that `read` returns, unless the client leaves before its turn.

        Raises RateLimited, TooBusy, ClientDisconnected, and what `read` raises.
        """
        return await self.pages.run_while_connected(request.receive, request.log.actor, with_connection(read))


def with_connection(function: Callable[[], Result]) -> Callable[[], Result]:
    """Return `function`, which first makes the thread's database connection ready.

    Django does that for its requests.
    """

    def run() -> Result:
        prepare_thread_connection()
        return function()

    return run
