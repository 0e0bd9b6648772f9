"""The feed on its thread, with a real log, when applying changes fails."""

import asyncio
from collections.abc import Sequence

import pytest
from django.db import connections

from service_registry.replica.feed import Feed
from service_registry.replica.hub import Hub
from service_registry.replica.store import Change, Replica
from service_registry.replica.subscribers import ALL_CHANGES, EndReason, Subscriber
from tests.client import Api

pytestmark = pytest.mark.django_db(transaction=True)


class HubThatFailsOnce(Hub):
    """Fails half way through the first changes."""

    failed = False

    def apply_changes(self, changes: Sequence[Change]) -> None:
        super().apply_changes(changes[:1])
        if changes and not self.failed:
            self.failed = True
            raise ZeroDivisionError
        super().apply_changes(changes[1:])


def register(instance_id: str) -> None:
    try:
        assert Api("registry-services", "team").register("web", instance_id).status == 201
    finally:
        connections.close_all()


async def loaded(hub: Hub, instances: int) -> Replica:
    """Return the replica once it has at least `instances` instances."""
    async with asyncio.timeout(30):
        while not hub.replica or sum(len(kept.instances) for kept in hub.replica.services.values()) < instances:
            await asyncio.sleep(0.01)
    return hub.replica


def test_feed_loads_the_replica_again_after_changes_failed_to_apply() -> None:
    async def follow() -> tuple[EndReason | None, Replica]:
        hub = HubThatFailsOnce()
        feed = Feed(hub, asyncio.get_running_loop())
        feed.start()
        try:
            await loaded(hub, 0)
            subscriber = Subscriber([ALL_CHANGES], 0)
            hub.subscribers.subscribe(subscriber)
            await asyncio.to_thread(register, "a")
            await loaded(hub, 1)
            await asyncio.to_thread(register, "b")
            return subscriber.end_reason, await loaded(hub, 2)
        finally:
            feed.stop()
            await asyncio.to_thread(feed._thread.join, 30)

    ending, replica = asyncio.run(follow())
    assert ending is EndReason.RESYNC
    assert replica.services["default", "web"].instances.keys() == {"a", "b"}
    assert replica.services["default", "web"].owners == ("team",)
