"""The feed with a real log: changes that fail to apply, and notifications."""

import asyncio
import select
from collections.abc import Iterator, Sequence

import pytest
from django.db import connections

from service_registry.replica import feed as feed_module
from service_registry.replica.connection import FeedConnection, connect
from service_registry.replica.feed import CHANNEL, Feed, take_notifications
from service_registry.replica.hub import Hub
from service_registry.replica.store import Change, Replica
from service_registry.replica.subscribers import ALL_CHANGES, EndReason, Subscriber
from tests.client import Api
from tests.waiting import wait_for

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


def notify() -> None:
    """Send a notification as another process does."""
    with connect() as other:
        other.execute(f"NOTIFY {CHANNEL}")


@pytest.fixture
def listening() -> Iterator[tuple[Feed, FeedConnection]]:
    loop = asyncio.new_event_loop()
    feed = Feed(Hub(), loop)
    with connect() as connection:
        feed.listen(connection)
        yield feed, connection
    loop.close()


def is_woken(feed: Feed) -> bool:
    return bool(select.select([feed._hints], [], [], 0)[0])


def test_notification_by_another_process_ends_the_wait_for_a_hint(
    listening: tuple[Feed, FeedConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, connection = listening
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 3600)
    notify()
    feed.wait_for_hint(connection)
    assert not take_notifications(connection)


def test_notification_during_a_statement_wakes_the_feed(listening: tuple[Feed, FeedConnection]) -> None:
    feed, connection = listening
    notify()
    wait_for(lambda: connection.execute("SELECT 1") and is_woken(feed))
    assert not take_notifications(connection)


def test_notification_by_this_process_does_not_wake_its_feed(listening: tuple[Feed, FeedConnection]) -> None:
    feed, connection = listening
    feed.has_committed = True
    feed.notify_other_processes(connection)
    assert (feed.has_committed, is_woken(feed), take_notifications(connection)) == (False, False, False)
