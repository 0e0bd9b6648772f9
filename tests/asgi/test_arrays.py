"""The answer to an array, on its way to a client that takes nothing."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from service_registry.asgi.flow_control import SLICE_BYTES, Answers
from service_registry.asgi.writes.bulk import Arrays
from tests.asgi.clients import GET, Client, silence
from tests.client import Api, registration, token


@pytest.mark.django_db(transaction=True)
def test_a_large_one_counts_among_those_under_way() -> None:
    bearer = token("registry-services", "team")
    Api("registry-services", "team").get("/registry/services")  # so that the token's key and the grants are known
    metadata = {f"key-{number}": "x" * 480 for number in range(8)}
    items = [registration("web", f"i-{number}", metadata=metadata) for number in range(30)]
    headers = {"host": "localhost", "authorization": f"Bearer {bearer}", "content-type": "application/json"}
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = GET | {"method": "POST", "path": "/registry/register", "headers": sent}

    async def post(threads: ThreadPoolExecutor) -> tuple[int, int]:
        client, under_way = Client(), Answers()
        arrays = Arrays(threads, under_way)
        answering = asyncio.create_task(arrays(scope, json.dumps(items).encode(), silence, client.send))
        await client.is_sent_the_end.wait()
        held = under_way.held_bytes
        client.takes.set()
        assert await answering
        assert len(json.loads(client.taken)["results"]) == 30
        assert under_way.held_bytes == 0
        return held, len(client.taken)

    with ThreadPoolExecutor(1) as threads:
        held, size = asyncio.run(post(threads))
        threads.submit(connections.close_all)
    assert held == size > SLICE_BYTES
