"""The memory that a subscription holds: changes that were found or delivered, and no page that has been sent."""

import asyncio
import threading

from service_registry.asgi.flow_control import ClientWriter, ResponsesInFlight
from service_registry.asgi.threads import PAGING_THREADS, ReadThreads
from service_registry.asgi.watch.subscription import Subscription
from service_registry.replica.subscribers import BACKLOG_BYTES, EndReason
from service_registry.schemas import WatchQuery
from tests.asgi.clients import discard
from tests.replica.hubs import advance, change, index, loaded

MEGABYTES = 1_000_000


def subscription(pk: int, later: int = 0) -> Subscription:
    """Return a subscription from change `pk` on, where `later` changes of a megabyte each follow it in memory."""
    hub = loaded(pk)
    hub.apply_page([change(pk + 1 + number, MEGABYTES) for number in range(later)], 0.0)
    return Subscription(hub, ReadThreads(), ClientWriter(discard, ResponsesInFlight()), WatchQuery(index=index(pk)))


def publish(to: Subscription, number: int) -> None:
    """Publish `number` changes of a megabyte, one after the other."""
    replica = to.replica
    for _ in range(number):
        to.hub.apply_page([change(replica.pk + 1, MEGABYTES)], 0.0)


def test_changes_found_in_memory_do_not_count_as_backlog() -> None:
    async def follow() -> None:
        follower = subscription(1, later=12)
        await follower.begin()
        assert [event.change.pk for event in await follower.next(1)] == [2]
        publish(follower, BACKLOG_BYTES // MEGABYTES)
        assert follower.subscriber.end_reason is None
        publish(follower, 1)
        assert follower.subscriber.end_reason is EndReason.SLOW

    asyncio.run(follow())


def test_changes_that_were_taken_do_not_count_as_backlog() -> None:
    async def follow() -> None:
        follower = subscription(1, later=2)
        await follower.begin()
        taken = [event.change.pk for event in await follower.next(10)]
        for _ in range(5):
            publish(follower, 10)
            taken += [event.change.pk for event in await follower.next(10)]
        assert (taken, follower.subscriber.end_reason) == (list(range(2, 54)), None)
        assert follower.subscriber.backlog_bytes == 0

    asyncio.run(follow())


def test_many_small_changes_do_not_exceed_the_backlog() -> None:
    async def follow() -> None:
        follower = subscription(1)
        await follower.begin()
        assert await follower.next(10) == []
        advance(follower.hub, range(2, 15_002))
        assert follower.subscriber.end_reason is None
        assert len(await follower.next(20_000)) == 15_000

    asyncio.run(follow())


def test_subscription_that_waits_for_its_next_page_does_not_hold_the_last() -> None:
    """Otherwise it would be disconnected as stalled, though it has read all that it was sent."""

    async def follow() -> None:
        follower = subscription(1)
        responses, go_on = follower.writer.responses, threading.Event()
        busy = [asyncio.create_task(follower.threads.read_log(go_on.wait)) for _ in range(PAGING_THREADS)]
        await asyncio.sleep(0)
        assert responses.reserve(follower.writer, 2 * MEGABYTES)
        page = asyncio.create_task(follower.read_page())
        try:
            await asyncio.sleep(0.05)
            assert (page.done(), responses.held_bytes, len(responses.in_flight)) == (False, 0, 0)
        finally:
            page.cancel()
            go_on.set()
            await asyncio.gather(*busy)

    asyncio.run(follow())
