"""The threads for reads that need the database."""

import asyncio
import threading

import pytest

from service_registry.asgi.threads import MAX_PAGING, ReadThreads
from service_registry.exceptions import TooBusy


def test_reads_do_not_queue_behind_pages_and_pages_are_bounded() -> None:
    async def fill_with_pages() -> None:
        threads, go_on = ReadThreads(), threading.Event()
        pages = [asyncio.create_task(threads.read_log(go_on.wait)) for _ in range(MAX_PAGING)]
        try:
            await asyncio.sleep(0)
            assert await asyncio.wait_for(threads.run(lambda: "verified"), 10) == "verified"
            with pytest.raises(TooBusy):
                await asyncio.wait_for(threads.read_log(go_on.wait), 10)
        finally:
            go_on.set()
        assert await asyncio.gather(*pages) == [True] * MAX_PAGING
        assert await threads.read_log(lambda: "again") == "again"

    asyncio.run(fill_with_pages())
