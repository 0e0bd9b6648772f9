"""Writes on the event loop: large responses, large bodies, and tokens that expire while a request waits."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.typing import ASGIReceiveEvent
from django.conf import settings
from django.db import connections

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import SLICE_BYTES, ResponsesInFlight
from service_registry.asgi.headers import response_head
from service_registry.asgi.thread_queue import ThreadQueue
from service_registry.asgi.threads import ReadThreads
from service_registry.asgi.writes.handler import WriteHandler
from service_registry.exceptions import BodyTooLarge, InvalidInput
from service_registry.http.authentication import authenticate
from service_registry.http.operations import HEARTBEAT, REGISTER
from service_registry.http.strict_json import OBJECT_BYTES
from service_registry.identity.exceptions import TokenInvalid
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
        handler = WriteHandler(REGISTER, Authenticator(ReadThreads()), responses, ThreadQueue("arrays", threads, 1, 1))
        request = make_request(scope, client.receive, client.send)
        response = await handler(request)
        head = response_head(request, response)
        sending = asyncio.create_task(responses.deliver(client.send, head, response.body))
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


class SlowBody:
    """A body that arrives only once the token in the request has expired."""

    def __init__(self, body: bytes, expires_at: float) -> None:
        self.body = body
        self.expires_at = expires_at

    async def receive(self) -> ASGIReceiveEvent:
        while time.time() <= self.expires_at:
            await asyncio.sleep(0.05)
        return {"type": "http.request", "body": self.body, "more_body": False}


@pytest.mark.parametrize("body", [b"{}", b"[{}]"], ids=["object", "array"])
@pytest.mark.django_db(transaction=True)
def test_token_that_expires_while_the_body_arrives_is_refused(body: bytes) -> None:
    Api("registry-services", "team").get("/registry/services")  # so that the signing key and the grants are cached
    bearer = token("registry-services", "team", ttl_seconds=4 - settings.OIDC_LEEWAY_SECONDS)
    headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json", "content-length": "9"}
    slow = SlowBody(body, authenticate(f"Bearer {bearer}".encode()).expires_at)
    request = make_request(request_scope("POST", "/registry/heartbeat", headers), slow.receive)

    async def answer(threads: ThreadPoolExecutor) -> None:
        handler = WriteHandler(
            HEARTBEAT, Authenticator(ReadThreads()), ResponsesInFlight(), ThreadQueue("arrays", threads, 1, 1)
        )
        with pytest.raises(TokenInvalid):
            await handler(request)

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(answer(threads))
        threads.submit(connections.close_all)
    assert (request.log.actor or "").startswith("someone@")


@pytest.mark.parametrize(
    ("body", "error"),
    [(b'{"x": "%b"}' % (b"x" * OBJECT_BYTES), BodyTooLarge), (b"x" * 2 * OBJECT_BYTES, InvalidInput)],
    ids=["object", "no JSON"],
)
def test_large_body_that_is_no_array_is_refused_by_a_thread(payments: Api, body: bytes, error: type[Exception]) -> None:
    """On the event loop a body of 1 MiB would delay all other requests by milliseconds."""
    payments.get("/registry/services")
    headers = {"authorization": f"Bearer {payments.bearer}", "content-type": "application/json", "content-length": "9"}
    request = make_request(request_scope("POST", "/registry/heartbeat", headers), Client(body).receive)

    async def answer(threads: ThreadPoolExecutor) -> None:
        handler = WriteHandler(
            HEARTBEAT, Authenticator(ReadThreads()), ResponsesInFlight(), ThreadQueue("arrays", threads, 1, 1)
        )
        with pytest.raises(error):
            await handler(request)

    started: list[bool] = []
    with ThreadPoolExecutor(1, initializer=started.append, initargs=(True,)) as threads:
        asyncio.run(answer(threads))
        assert started == [True]
        threads.submit(connections.close_all)
