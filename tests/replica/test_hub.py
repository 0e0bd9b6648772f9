"""A hub's position in the log, and the waits of its readers."""

import asyncio
import time

from service_registry.replica.store import Replica
from service_registry.replica.subscribers import ALL_CHANGES, EndReason, Subscriber
from tests.replica.hubs import advance, change, index, loaded


def test_catch_up_waits_past_a_page_that_is_not_the_last() -> None:
    async def ask() -> tuple[bool, bool, bool | None]:
        hub = loaded(1)
        refreshed = asyncio.create_task(hub.catch_up())
        await asyncio.sleep(0)
        advance(hub, [2, 3], whole=False)
        await asyncio.sleep(0)
        early = refreshed.done()
        advance(hub, [4])
        assert hub.replica is not None
        return early, await refreshed, hub.contains_index(hub.replica, index(4))

    assert asyncio.run(ask()) == (False, True, True)


def test_age_is_kept_until_the_last_page_is_applied() -> None:
    hub = loaded(1)
    before = hub.read_at
    advance(hub, [2, 3], whole=False)
    assert hub.read_at == before
    advance(hub, [4])
    assert hub.read_at > before


def test_commit_that_the_log_lost_is_waited_for_only_once() -> None:
    async def ask() -> tuple[int, bool]:
        hub = loaded(1)
        hub.note_commit(5)
        before = time.monotonic()
        fresh = asyncio.create_task(hub.current_replica())
        await asyncio.sleep(0)
        hub.apply_page([], before)  # asked before the commit was known, so it proves nothing about it
        assert hub.committed_pk == 5
        advance(hub, [])
        await fresh
        again = asyncio.create_task(hub.current_replica())
        await asyncio.sleep(0)
        return hub.committed_pk, again.done()

    assert asyncio.run(ask()) == (1, True)


def test_commit_noted_while_waiting_is_waited_for() -> None:
    async def ask() -> int:
        hub = loaded(1)
        hub.note_commit(5)
        fresh = asyncio.create_task(hub.current_replica())
        await asyncio.sleep(0)
        hub.note_commit(6)
        advance(hub, [])
        await asyncio.sleep(0.01)
        assert (hub.committed_pk, fresh.done()) == (6, False)
        advance(hub, [5, 6])
        replica = await fresh
        assert replica is not None
        return replica.pk

    assert asyncio.run(ask()) == 6


def test_subscriber_is_resynced_when_the_replica_is_replaced() -> None:
    hub = loaded(1)
    subscriber = Subscriber([ALL_CHANGES], 1)
    hub.subscribers.subscribe(subscriber)
    hub.replace_replica(Replica(index(3), 3), [change(3)], time.monotonic())
    assert (subscriber.end_reason, hub.resyncs) == (EndReason.RESYNC, 1)
    assert hub.replica is not None
