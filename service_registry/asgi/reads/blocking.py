"""Blocking reads: wait for a change after the caller's index.

The contract: a read answers as soon as its topic has a change after the index, else after `wait` with the same index.
An index that cannot be placed is answered at once with the present state. A waiting read holds neither a thread nor a
database connection.
"""

import asyncio

from django.db import Error

from service_registry import changelog
from service_registry.asgi.auth import Authenticator
from service_registry.asgi.limits import SubscriberPlaces
from service_registry.asgi.request import ClientDisconnected, Request
from service_registry.asgi.threads import ReadThreads
from service_registry.asgi.waiting import end_on_disconnect, now, with_jitter
from service_registry.exceptions import IndexGone
from service_registry.permissions import LIST_SERVICES
from service_registry.replica.hub import Hub
from service_registry.replica.store import Replica
from service_registry.replica.subscribers import EndReason, Subscriber, Topic
from service_registry.schemas.fields import NO_INDEX


class BlockingReads:
    """Lets readers wait for changes."""

    def __init__(self, hub: Hub, authenticator: Authenticator, threads: ReadThreads, places: SubscriberPlaces) -> None:
        self.hub = hub
        self.authenticator = authenticator
        self.threads = threads
        self.places = places

    async def catch_up_with(self, index: str) -> None:
        """Wait a moment for an index that is newer than the replica.

        It may come from another process.
        """
        if index == NO_INDEX:
            return
        if self.hub.replica and changelog.parse_index(index)[1] > self.hub.replica.pk:
            await self.hub.catch_up()

    async def wait_for_change(self, request: Request, topic: Topic, index: str, seconds: float) -> None:
        """Wait until `topic` has a change after `index`, for `seconds` at most.

        The caller is judged again when keys or grants change, and once a minute. Raises RateLimited,
        ClientDisconnected, and as `authenticate`.
        """
        pk = await self.place(index, topic)
        if pk is not None:
            await self.wait_beyond(request, topic, pk, seconds)

    async def wait_beyond(self, request: Request, topic: Topic, pk: int, seconds: float) -> None:
        """Wait until `topic` has a change after the one with the id `pk`. Raises as `wait_for_change`."""
        if self.hub.stopping:
            return
        subscriber = Subscriber([topic], pk, keeps_events=False)
        watching_client = asyncio.create_task(end_on_disconnect(request.receive, subscriber))
        self.hub.subscribers.subscribe(subscriber)
        try:
            with self.places.subscribe(request.log.actor, "read"):
                until = now() + with_jitter(seconds)
                while subscriber.position == pk and not subscriber.end_reason and now() < until:
                    identity = await self.authenticator.authenticate(request, LIST_SERVICES)
                    await subscriber.wait(min(until - now(), identity.seconds_to_judgement))
        finally:
            watching_client.cancel()
            self.hub.subscribers.unsubscribe(subscriber)
        if subscriber.end_reason is EndReason.DISCONNECTED:
            raise ClientDisconnected

    async def place(self, index: str, topic: Topic) -> int | None:
        """Return the id of the change to wait beyond.

        None when there is something newer already or the index cannot be placed: then the present is the answer.
        """
        if index == NO_INDEX:
            return None
        _mark, pk = changelog.parse_index(index)
        replica = self.hub.replica
        if replica is None or pk > replica.pk or pk < newest_change(replica, topic)[0]:
            return None
        known = self.hub.contains_index(replica, index)
        if known is None:
            known = index == newest_change(replica, topic)[1] or await self.is_in_log(index)
        # Changes that arrived while the log was read are newer than what the caller waits for.
        replica = self.hub.replica
        return pk if known and replica and pk >= newest_change(replica, topic)[0] else None

    async def is_in_log(self, index: str) -> bool:
        """Return whether the log has an index that is older than memory.

        False when the database fails.
        """
        try:
            await self.threads.run(lambda: changelog.read_after(index, 1))
        except (IndexGone, Error):
            return False
        return True


def newest_change(replica: Replica, topic: Topic) -> tuple[int, str]:
    """Return id and index of the newest change of a topic."""
    service = replica.services.get((topic[0] or "", topic[1] or ""))
    return (service.pk, service.index) if service and service.index else (replica.pk, replica.index)
