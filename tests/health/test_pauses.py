"""Pauses of the checker's process are noticed before what timed out across them."""

import asyncio
import time

from service_registry.health.pauses import PAUSE_SECONDS, Pauses


def test_pause_is_known_to_a_task_that_times_out_across_it() -> None:
    async def run() -> bool:
        pauses = Pauses()
        pauses.start()
        loop = asyncio.get_running_loop()
        began = loop.time()
        # Everything in this process stands still, as after SIGSTOP.
        loop.call_later(0.05, time.sleep, 3 * PAUSE_SECONDS)
        try:
            async with asyncio.timeout(2 * PAUSE_SECONDS):
                await asyncio.Event().wait()
        except TimeoutError:
            return pauses.since(began)
        finally:
            pauses.stop()
        return False

    assert asyncio.run(run())


def test_time_before_a_check_is_no_pause_of_it() -> None:
    async def run() -> bool:
        pauses = Pauses()
        pauses.start()
        time.sleep(3 * PAUSE_SECONDS)
        await asyncio.sleep(0.01)
        noticed = pauses.since(0)
        return noticed and not pauses.since(pauses.ended_at + 0.001)

    assert asyncio.run(run())
