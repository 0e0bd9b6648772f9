"""Threads for reads that need the database, apart from those of writes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service_registry.database.transactions import prepare_thread_connection
from service_registry.exceptions import TooBusy

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
        self._pages = ThreadPoolExecutor(PAGING_THREADS, thread_name_prefix="paging")
        self._paging = 0

    async def run(self, read: Callable[[], Result]) -> Result:
        """Return what `read` returns. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._reads, with_connection(read))

    async def read_page(self, read: Callable[[], Result]) -> Result:
        """Return the page that `read` returns, unless too many requests wait for theirs.

        Raises TooBusy then, and what `read` raises.
        """
        if self._paging >= MAX_PAGING:
            raise TooBusy
        self._paging += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pages, with_connection(read))
        finally:
            self._paging -= 1


def with_connection(function: Callable[[], Result]) -> Callable[[], Result]:
    """Return `function`, which first makes the thread's database connection ready.

    Django does that for its requests.
    """

    def run() -> Result:
        prepare_thread_connection()
        return function()

    return run
