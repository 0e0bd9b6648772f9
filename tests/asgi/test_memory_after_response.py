"""A request leaves nothing of its body or its response to the garbage collector, which runs rarely."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.django_bodies import DjangoBodies
from service_registry.asgi.django_bridge import DjangoBridge
from service_registry.asgi.flow_control import ResponsesInFlight
from service_registry.asgi.thread_queue import ThreadQueue
from service_registry.asgi.threads import ReadThreads
from tests.asgi.clients import Client, request_scope
from tests.client import Api, registration, token

ROUNDS = 20
LARGE = 400_000
# A few kilobytes of Django's and DRF's own objects are in cycles after each request.
LEFT_PER_REQUEST = 100_000
METADATA = {f"key-{number}": "x" * 480 for number in range(16)}


@pytest.fixture
def bridge(transactional_db: None) -> Iterator[DjangoBridge]:
    """Return a bridge as in a web process, with a catalogue whose list and log are large."""
    team = Api("registry-services", "team")
    for number in range(3):
        items = [registration(f"web-{number}", f"i-{each}", metadata=METADATA) for each in range(60)]
        assert team.post("/registry/register", items).status == 200
    with ThreadPoolExecutor(1) as threads:
        reads = ReadThreads()
        yield DjangoBridge(
            ThreadQueue("pages", threads, 1, 200), ResponsesInFlight(), DjangoBodies(Authenticator(reads))
        )
        threads.submit(connections.close_all)
        asyncio.run(reads.run(connections.close_all))


BODY = json.dumps([registration("web", f"i-{each}", metadata=METADATA) for each in range(60)]).encode()


async def send(bridge: DjangoBridge, method: str, path: str, body: bytes, bearer: str) -> int:
    """Send a request and return the size of the response's body."""
    headers = {"host": "localhost", "authorization": f"Bearer {bearer}", "content-type": "application/json"}
    client = Client(bytes(bytearray(body)))  # a copy, so that it is counted
    client.reads.set()
    await bridge(request_scope(method, path, headers), client.receive, client.send)
    return len(client.received)


@pytest.mark.parametrize(
    ("method", "path", "body", "bearer"),
    [
        ("GET", "/registry/services", b"", ""),
        ("GET", "/registry/services/web-1", b"", ""),
        ("GET", "/registry/changes", b"", ""),
        ("POST", "/registry/register", BODY, "nobody's"),
        ("PUT", "/registry/services/web-1/owners", BODY, ""),
        ("DELETE", "/registry/services", BODY, ""),
        ("POST", "/registry/nowhere", BODY, ""),
        ("POST", "/nowhere", BODY, ""),
        ("POST", "/admin/login/", BODY, ""),
    ],
)
def test_response_leaves_no_large_object_in_a_reference_cycle(
    bridge: DjangoBridge, method: str, path: str, body: bytes, bearer: str
) -> None:
    bearer = bearer or token("registry-services", "registry-operators", "team")

    async def send_some() -> tuple[int, int]:
        size = await send(bridge, method, path, body, bearer)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(ROUNDS):
                await send(bridge, method, path, body, bearer)
            return size, tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()

    size, left = asyncio.run(send_some())
    assert max(size, len(body)) > LARGE
    assert left < size + ROUNDS * LEFT_PER_REQUEST  # the last response may still be there
