"""Who wants to know whether the database answers does not wait for it to say nothing."""

import asyncio
import threading
import time

import pytest
from django.db import connections

from service_registry.asgi.auth import THREADS, Askers
from service_registry.asgi.reads.database_probe import GOOD_SECONDS, Presence


async def close_connections(askers: Askers) -> None:
    """Of each thread."""
    together = threading.Barrier(THREADS)

    def close() -> None:
        together.wait()
        connections.close_all()

    await asyncio.gather(*(askers.on_thread(close) for _ in range(THREADS)))


@pytest.mark.django_db(transaction=True)
def test_a_database_that_does_not_answer_is_waited_for_once() -> None:
    async def ask() -> tuple[list[bool], float]:
        askers, go = Askers(), threading.Event()
        presence = Presence(askers)
        here = [await presence.answers()]
        busy = [asyncio.create_task(askers.on_thread(go.wait)) for _ in range(THREADS)]
        await asyncio.sleep(GOOD_SECONDS)
        try:
            here += await asyncio.gather(presence.answers(), presence.answers())
            began = time.monotonic()
            here += [await presence.answers() for _ in range(100)]
            took = time.monotonic() - began
        finally:
            go.set()
            await asyncio.gather(*busy)
        while not await presence.answers():
            await asyncio.sleep(0.05)
        await close_connections(askers)
        return here, took

    here, took = asyncio.run(ask())
    assert here == [True] + [False] * 102
    assert took < GOOD_SECONDS
