"""The end of a long poll."""

import asyncio

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import ClientWriter, ResponsesInFlight
from service_registry.asgi.headers import response_head
from service_registry.asgi.threads import ReadThreads
from service_registry.asgi.watch.long_poll import long_poll
from service_registry.asgi.watch.subscription import Subscription
from service_registry.schemas import WatchQuery
from tests.asgi.clients import Client, make_request, request_scope
from tests.client import Api
from tests.replica.hubs import advance, index, loaded


def test_poll_that_is_answered_collects_no_further_changes(reader: Api) -> None:
    reader.get("/registry/services")  # so that the event loop knows the keys and the access rules
    scope = request_scope("GET", "/registry/watch", {"Authorization": f"Bearer {reader.bearer}"})

    async def poll() -> bytes:
        client, threads, responses = Client(), ReadThreads(), ResponsesInFlight()
        query, hub, request = WatchQuery(index=index(1)), loaded(1), make_request(scope, send=client.send)
        subscription = Subscription(hub, threads, ClientWriter(client.send, responses), query)
        advance(hub, [2, 3])
        await subscription.begin()
        response = await long_poll(request, query, subscription, Authenticator(threads))
        sending = asyncio.create_task(responses.deliver(client.send, response_head(request, response), response.body))
        await client.end_is_sent.wait()
        advance(hub, [4, 5])
        assert (subscription.subscriber.pending, hub.subscribers.present) == ([], set())
        client.reads.set()
        assert await sending
        return client.received

    assert asyncio.run(poll()).startswith(b'{"index":"%b"' % index(3).encode())
