"""The response to an array, on its way to a client that does not read it."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import SLICE_BYTES, ClientWriter, ResponsesInFlight
from service_registry.asgi.headers import response_start
from service_registry.asgi.threads import ReadThreads
from service_registry.asgi.writes.handler import WriteHandler
from service_registry.http.operations import REGISTER
from tests.asgi.clients import Client, make_request, request_scope
from tests.client import Api, registration, token


@pytest.mark.django_db(transaction=True)
def test_large_response_to_an_array_counts_among_those_in_flight() -> None:
    bearer = token("registry-services", "team")
    Api("registry-services", "team").get("/registry/services")  # so that the signing key and the grants are cached
    metadata = {f"key-{number}": "x" * 480 for number in range(8)}
    items = [registration("web", f"i-{number}", metadata=metadata) for number in range(30)]
    headers = {"host": "localhost", "authorization": f"Bearer {bearer}", "content-type": "application/json"}
    body = json.dumps(items).encode()
    scope = request_scope("POST", "/registry/register", headers | {"content-length": str(len(body))})

    async def post(threads: ThreadPoolExecutor) -> tuple[int, int]:
        client, responses = Client(body), ResponsesInFlight()
        handler = WriteHandler(REGISTER, Authenticator(ReadThreads()), responses, threads)
        request = make_request(scope, client.receive, client.send)
        response = await handler(request)
        start = response_start(request, response)
        sending = asyncio.create_task(responses.deliver(ClientWriter(client.send, responses), start, response.body))
        await client.end_is_sent.wait()
        held_bytes = responses.held_bytes
        client.reads.set()
        assert await sending
        assert len(json.loads(client.received)["results"]) == 30
        assert responses.held_bytes == 0
        return held_bytes, len(client.received)

    with ThreadPoolExecutor(1) as threads:
        held_bytes, size = asyncio.run(post(threads))
        threads.submit(connections.close_all)
    assert held_bytes == size > SLICE_BYTES
