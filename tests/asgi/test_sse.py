"""The end of an event stream."""

import asyncio

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import WRITE_SECONDS, ClientWriter, ResponsesInFlight
from service_registry.asgi.threads import ReadThreads
from service_registry.asgi.watch.sse import EventStream
from service_registry.asgi.watch.subscription import Subscription
from service_registry.replica.subscribers import EndReason
from service_registry.schemas import WatchQuery
from tests.asgi.clients import Client, expired_identity, make_request
from tests.replica.hubs import advance, index, loaded


def test_last_event_has_as_much_time_as_all_others() -> None:
    """uvicorn reports that the client has disconnected once the end of the response has been sent."""

    async def stream() -> tuple[bytes, float]:
        client = Client(on_end=lambda: subscription.subscriber.end(EndReason.DISCONNECTED))
        threads, hub = ReadThreads(), loaded(1)
        writer = ClientWriter(client.send, ResponsesInFlight())
        subscription = Subscription(hub, threads, writer, WatchQuery(index=index(1)))
        await subscription.begin()
        events = EventStream(make_request(send=client.send), expired_identity(), subscription, Authenticator(threads))
        sending = asyncio.create_task(events.send())
        await client.end_is_sent.wait()
        advance(hub, [2])
        assert subscription.subscriber.pending == []
        client.reads.set()
        assert await sending
        return client.received, writer.seconds

    received, seconds = asyncio.run(stream())
    assert received.startswith(b"event: expired\n")
    assert seconds == WRITE_SECONDS
