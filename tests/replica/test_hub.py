"""What a process knows of the log, and what it does not take itself to know."""

import asyncio
import time

from service_registry.replica.store import Replica
from service_registry.replica.subscribers import ALL_CHANGES, EndReason, Subscriber
from tests.replica.hubs import advance, change, index, loaded


def test_a_page_that_is_not_the_last_does_not_tell_that_all_is_known() -> None:
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


def test_a_process_that_catches_up_owns_up_to_its_age() -> None:
    hub = loaded(1)
    before = hub.read_at
    advance(hub, [2, 3], whole=False)
    assert hub.read_at == before
    advance(hub, [4])
    assert hub.read_at > before


def test_a_commit_that_the_log_lost_is_not_waited_for_again() -> None:
    async def ask() -> tuple[int, bool]:
        hub = loaded(1)
        hub.note_commit(5)
        before = time.monotonic()
        fresh = asyncio.create_task(hub.current_replica())
        await asyncio.sleep(0)
        hub.apply_page([], before)  # asked before the commit was known: it tells nothing of it
        assert hub.committed_pk == 5
        advance(hub, [])
        await fresh
        again = asyncio.create_task(hub.current_replica())
        await asyncio.sleep(0)
        return hub.committed_pk, again.done()

    assert asyncio.run(ask()) == (1, True)


def test_a_commit_that_comes_meanwhile_is_waited_for() -> None:
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


def test_who_waits_while_the_replica_is_loaded_anew_starts_over() -> None:
    hub = loaded(1)
    waiter = Subscriber([ALL_CHANGES], 1)
    hub.subscribers.subscribe(waiter)
    hub.replace_replica(Replica(index(3), 3), [change(3)], time.monotonic())
    assert (waiter.end_reason, hub.resyncs) == (EndReason.RESYNC, 1)
    assert hub.replica is not None
