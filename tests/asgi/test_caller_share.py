"""The share of one caller in the places of a process, over real connections while all threads are busy."""

import asyncio
import http.client
import json
import math
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pytest
from asgiref.typing import ASGI3Application
from django.conf import LazySettings

from service_registry.asgi.app import Application
from service_registry.asgi.limits import Places
from service_registry.asgi.reads.listing import Listing
from service_registry.asgi.server import limits
from service_registry.asgi.thread_queue import ThreadQueue
from service_registry.asgi.writes.handler import WriteHandler
from service_registry.asgi.writes.micro_batch import MicroBatcher
from service_registry.models import Instance
from service_registry.replica.connection import connect as connect_feed
from service_registry.replica.load import load_replica
from tests.asgi.uvicorn_server import connect, serve
from tests.client import Api, registration, token
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

# 5 of 5,000 places, and one of 200.
SHARE = 0.001


@pytest.fixture(autouse=True)
def _small_share(settings: LazySettings) -> None:
    settings.REGISTRY_MAX_SHARE_PER_CALLER = SHARE
    settings.ALLOWED_HOSTS = ["localhost"]


@pytest.fixture(autouse=True)
def _cached_keys_and_grants() -> None:
    Api("registry-services", "team").get("/registry/services")


@contextmanager
def busy(threads: ThreadPoolExecutor) -> Iterator[threading.Event]:
    """Keep all threads of an executor busy until the event is set."""
    go_on = threading.Event()
    for _ in range(threads._max_workers):
        threads.submit(go_on.wait)
    try:
        yield go_on
    finally:
        go_on.set()


def encode(subject: str, method: str, path: str, body: Any = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token('registry-services', 'team', subject=subject)}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def receive(client: socket.socket) -> tuple[int, dict[str, str], Any]:
    response = http.client.HTTPResponse(client)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, json.loads(response.read() or b"null")


def fill_share(
    application: Application, places: Places, threads: ThreadPoolExecutor, call: str, bodies: list[Any], *, stay: bool
) -> list[int]:
    """Fill the share of one caller while no thread is free, and send a request of another caller.

    Args:
        call: method and path.
        bodies: as many as the share has places, and two more.
        stay: whether the places stay taken when their clients leave, until the work is done.

    Returns the statuses of the other caller, and of the first one once it has places again.
    """
    method, path = call.split()
    *own, last, of_other = bodies
    assert places.per_caller == len(own)
    with serve(cast(ASGI3Application, application)) as port, busy(threads) as go_on:
        waiting = [connect(port, encode("busy", method, path, body)) for body in own]
        wait_for(lambda: places.taken == len(own))
        with connect(port, encode("busy", method, path, last)) as refused:
            status, headers, problem = receive(refused)
        assert (status, problem["code"], headers["retry-after"]) == (429, "rate_limited", "1")
        assert f"{len(own)} of the {places.total} places for {places.kind}" in problem["detail"]
        assert "REGISTRY_MAX_SHARE_PER_CALLER" in problem["detail"]
        other = connect(port, encode("other", method, path, of_other))
        wait_for(lambda: places.taken == len(own) + 1)
        for each in waiting:
            each.close()
        if stay:
            go_on.set()
        wait_for(lambda: places.taken == (0 if stay else 1))
        again = connect(port, encode("busy", method, path, last))
        if not stay:
            wait_for(lambda: places.taken == 2)
            go_on.set()
        with other, again:
            return [receive(client)[0] for client in (other, again)]


def handler_of(application: Application, operation: str) -> WriteHandler[Any, Any]:
    return cast(WriteHandler[Any, Any], application.routes["POST", f"/registry/{operation}"].handler)


def places_of_batcher(application: Application, operation: str) -> Places:
    return cast(MicroBatcher[Any, Any], handler_of(application, operation).submit.__self__).places  # type: ignore[attr-defined]


def test_registrations_of_a_caller_are_bounded_until_they_are_done(application: Application) -> None:
    bodies = [registration("web", f"i-{number}") for number in range(7)]
    places, threads = places_of_batcher(application, "register"), application.process.write_threads
    args = application, places, threads, "POST /registry/register", bodies
    assert fill_share(*args, stay=True) == [201, 201]
    assert Instance.objects.count() == 7


def test_heartbeats_of_a_caller_are_bounded_until_they_are_done(application: Application) -> None:
    bodies = [{"service_name": "web", "instance_id": f"i-{number}"} for number in range(7)]
    places, threads = places_of_batcher(application, "heartbeat"), application.process.write_threads
    assert fill_share(application, places, threads, "POST /registry/heartbeat", bodies, stay=True) == [404, 404]


def test_deregistrations_of_a_caller_are_bounded_until_they_are_done(application: Application) -> None:
    bodies = [{"service_name": "web", "instance_id": f"i-{number}"} for number in range(3)]
    places, threads = application.process.array_queue.places, application.process.write_threads
    assert fill_share(application, places, threads, "POST /registry/deregister", bodies, stay=True) == [404, 404]


@pytest.mark.parametrize("operation", ["register", "heartbeat", "deregister"])
def test_arrays_of_a_caller_are_bounded_until_they_are_done(application: Application, operation: str) -> None:
    bodies = [[registration(f"web-{number}")] for number in range(3)]
    places, threads = application.process.array_queue.places, application.process.write_threads
    assert fill_share(application, places, threads, f"POST /registry/{operation}", bodies, stay=True) == [200, 200]


def test_pages_of_django_of_a_caller_are_bounded_until_it_leaves(application: Application) -> None:
    places, threads = application.django.queue.places, application.process.django_threads
    args = application, places, threads, "GET /registry/instance/web/i-1", [None] * 3
    assert fill_share(*args, stay=False) == [404, 404]


def test_caller_that_django_answers_does_not_wait_with_anonymous_clients(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANONYMOUS_PAUSE_SECONDS", 3600.0)
    request = encode("caller", "GET", "/registry/instance/web/i-1")
    with serve(cast(ASGI3Application, application)) as port, connect(port) as client:
        for _ in range(limits.ANONYMOUS_REQUESTS + 2):
            client.sendall(request)
            assert receive(client)[0] == 404


def test_database_reads_of_a_caller_are_bounded_until_it_leaves(application: Application) -> None:
    """Without a replica discovery reads the database."""
    pages = application.process.read_threads.pages
    args = application, pages.places, pages.threads, "GET /registry/services/web", [None] * 3
    assert fill_share(*args, stay=False) == [404, 404]


def test_pages_of_the_list_of_a_caller_are_bounded_until_they_are_built(application: Application) -> None:
    listing = cast(Listing, application.routes["GET", "/registry/services"].handler)
    with connect_feed() as feed:
        listing.hub.replica, listing.hub.read_at = load_replica(feed)[0], math.inf
    args = application, listing.places, listing.builder_thread, "GET /registry/services", [None] * 3
    assert fill_share(*args, stay=True) == [200, 200]


def test_queue_serves_callers_in_turn(settings: LazySettings) -> None:
    """The first of another caller comes before the second of one with many, and takes the thread that one may not."""
    settings.REGISTRY_MAX_SHARE_PER_CALLER = 1.0
    served: list[str] = []

    async def run_all() -> None:
        with ThreadPoolExecutor(2) as threads:
            queue, go_on = ThreadQueue("tests", threads, 2, 100), threading.Event()

            def serve_one(name: str) -> None:
                if name == "busy":
                    go_on.wait(60)
                served.append(name)

            requests = [queue.run(name, partial(serve_one, name)) for name in ["busy"] * 20 + ["other"] * 2]
            running = [asyncio.ensure_future(request) for request in requests]
            try:
                async with asyncio.timeout(60):
                    await asyncio.gather(*running[20:])
            finally:
                go_on.set()
            await asyncio.gather(*running)

    asyncio.run(run_all())
    assert served == ["other"] * 2 + ["busy"] * 20


def test_arrays_leave_a_thread_to_single_requests(application: Application) -> None:
    arrays, blocked, go_on = application.process.array_queue, threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait()

    async def run_two() -> None:
        running = [asyncio.ensure_future(arrays.run(actor, block)) for actor in ("one", "two")]
        await asyncio.to_thread(blocked.wait)
        single = asyncio.get_running_loop().run_in_executor(application.process.write_threads, lambda: "single")
        try:
            assert await asyncio.wait_for(single, 60) == "single"
        finally:
            go_on.set()
        await asyncio.gather(*running)

    asyncio.run(run_two())
