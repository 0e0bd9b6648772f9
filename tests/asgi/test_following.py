"""What a follower holds of the log: what was found and what was told, and no page that it has sent."""

import asyncio
import threading

from service_registry.asgi.auth import PAGING_THREADS, Askers
from service_registry.asgi.flow_control import Answers, Outlet
from service_registry.asgi.watch.subscription import Following
from service_registry.replica.subscribers import BACKLOG_BYTES, EndReason
from service_registry.schemas import WatchQuery
from tests.asgi.clients import nowhere
from tests.replica.hubs import advance, change, index, loaded

MEGABYTES = 1_000_000


def follower(pk: int, news: int = 0) -> Following:
    """Of everything from change `pk` on, where so many of a megabyte each follow it in memory."""
    hub = loaded(pk)
    hub.apply_page([change(pk + 1 + number, MEGABYTES) for number in range(news)], 0.0)
    return Following(hub, Askers(), Outlet(nowhere, Answers()), WatchQuery(index=index(pk)))


def tell(following: Following, number: int) -> None:
    """So many changes of a megabyte, one after the other."""
    replica = following.replica
    for _ in range(number):
        following.hub.apply_page([change(replica.pk + 1, MEGABYTES)], 0.0)


def test_what_was_found_does_not_count_as_backlog() -> None:
    async def follow() -> None:
        following = follower(1, news=12)
        await following.begin()
        assert [notice.change.pk for notice in await following.next(1)] == [2]
        tell(following, BACKLOG_BYTES // MEGABYTES)
        assert following.waiter.end_reason is None
        tell(following, 1)
        assert following.waiter.end_reason is EndReason.SLOW

    asyncio.run(follow())


def test_what_was_taken_does_not_either() -> None:
    async def follow() -> None:
        following = follower(1, news=2)
        await following.begin()
        taken = [notice.change.pk for notice in await following.next(10)]
        for _ in range(5):
            tell(following, 10)
            taken += [notice.change.pk for notice in await following.next(10)]
        assert (taken, following.waiter.end_reason) == (list(range(2, 54)), None)
        assert following.waiter.backlog_bytes == 0

    asyncio.run(follow())


def test_small_changes_may_be_many() -> None:
    async def follow() -> None:
        following = follower(1)
        await following.begin()
        assert await following.next(10) == []
        advance(following.hub, range(2, 15_002))
        assert following.waiter.end_reason is None
        assert len(await following.next(20_000)) == 15_000

    asyncio.run(follow())


def test_who_waits_for_the_next_page_does_not_hold_the_last() -> None:
    """Else it is cut off as one that takes nothing, though it has taken all that it was sent."""

    async def follow() -> None:
        following = follower(1)
        answers, go = following.outlet.answers, threading.Event()
        busy = [asyncio.create_task(following.askers.paged(go.wait)) for _ in range(PAGING_THREADS)]
        await asyncio.sleep(0)
        assert answers.admits(following.outlet, 2 * MEGABYTES)
        page = asyncio.create_task(following.page())
        try:
            await asyncio.sleep(0.05)
            assert (page.done(), answers.held_bytes, len(answers.under_way)) == (False, 0, 0)
        finally:
            page.cancel()
            go.set()
            await asyncio.gather(*busy)

    asyncio.run(follow())
