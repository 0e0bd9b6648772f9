"""Responses on their way to slow clients, over real connections to uvicorn."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from service_registry.asgi.flow_control import CAPACITY_SECONDS, SLICE_BYTES, ClientWriter, ResponsesInFlight
from service_registry.asgi.headers import response_head
from service_registry.exceptions import TooBusy
from service_registry.http.responses import Response
from tests.asgi.clients import discard, make_request
from tests.asgi.uvicorn_server import connect, get_requests, serve
from tests.waiting import wait_for

LARGE = 4_000_000
WRITE_SECONDS = CAPACITY_SECONDS + 0.5


class BodyServer:
    """Answers each request with as many bytes as its path says. Requests for one path share one body.

    Attributes:
        delivered: for each response, in the order in which they ended, whether its client read all of it.
        requested: how many requests have arrived.
    """

    def __init__(self, responses: ResponsesInFlight) -> None:
        self.port = 0
        self.responses = responses
        self.bodies: dict[str, bytes] = {}
        self.delivered: list[bool] = []
        self.requested = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        self.loop = asyncio.get_running_loop()
        request = make_request(scope, receive, send)
        self.requested += 1
        size = int(scope["path"].split("/")[1])
        try:
            await self.responses.wait_for_capacity(size)
        except TooBusy:
            refused = Response(503)
            await self.responses.deliver(send, response_head(request, refused), refused.body)
            return
        response = Response(200, self.bodies.setdefault(scope["path"], b"x" * size))
        self.delivered.append(await self.responses.deliver(send, response_head(request, response), response.body))

    def request(self, *paths: str) -> socket.socket:
        """Send requests, one after the other on one connection, and read nothing."""
        return connect(self.port, get_requests(*paths))

    def hurry(self) -> None:
        assert self.loop
        self.loop.call_soon_threadsafe(self.responses.hurry)

    def status(self, path: str) -> int:
        """Return the status of a response that is read to its end."""
        with self.request(path) as client:
            response = http.client.HTTPResponse(client)
            response.begin()
            response.read()
            return response.status


@pytest.fixture
def server() -> Iterator[BodyServer]:
    """There is capacity while one large response is in flight, and none while two are."""
    application = BodyServer(ResponsesInFlight(LARGE + 1, WRITE_SECONDS))
    with serve(application) as application.port:
        yield application


def read_large(client: socket.socket, pause_seconds: float = 0) -> int:
    """Read a large response to its end, or until it breaks off. Return the bytes received, headers included."""
    size = 0
    try:
        while size < LARGE and (part := client.recv(SLICE_BYTES)):
            size += len(part)
            time.sleep(pause_seconds)
    except ConnectionResetError:
        pass
    return size


def test_response_of_any_size_arrives_whole(server: BodyServer) -> None:
    for size in (1, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, LARGE):
        with server.request(f"/{size}") as client:
            response = http.client.HTTPResponse(client)
            response.begin()
            assert response.read() == b"x" * size
    wait_for(lambda: server.delivered == [True] * 5)
    assert (server.responses.held_bytes, len(server.responses.in_flight)) == (0, 0)


def test_client_that_reads_nothing_is_disconnected(server: BodyServer) -> None:
    started_at = time.monotonic()
    with server.request(f"/{LARGE}") as client:
        wait_for(lambda: server.delivered == [False])
        assert time.monotonic() - started_at >= WRITE_SECONDS
        assert read_large(client) < LARGE
    assert server.responses.held_bytes == 0


def test_client_that_leaves_the_end_in_the_servers_buffer_is_disconnected(server: BodyServer) -> None:
    with server.request(f"/{2 * SLICE_BYTES}"):
        wait_for(lambda: server.delivered == [False])


def test_slow_client_receives_the_whole_response(server: BodyServer) -> None:
    """It takes longer than a client may read nothing."""
    started_at = time.monotonic()
    with server.request(f"/{LARGE}") as client:
        assert read_large(client, pause_seconds=0.005) >= LARGE
    assert time.monotonic() - started_at > WRITE_SECONDS
    wait_for(lambda: server.delivered == [True])


def test_pipelined_response_is_not_disconnected_for_the_one_before(server: BodyServer) -> None:
    """The end of the first response lies in the server's buffer when the second begins on the same connection.

    The client takes longer to read the second one than it may read nothing of the first.
    """
    with server.request(f"/{2 * SLICE_BYTES}", f"/{LARGE}/next") as client:
        size = 0
        while size < LARGE + 2 * SLICE_BYTES:
            part = client.recv(SLICE_BYTES)
            assert part, f"disconnected after {size} bytes"
            size += len(part)
            time.sleep(0.005)
    wait_for(lambda: server.delivered == [True, True])


def test_stalled_clients_are_disconnected_when_capacity_is_needed(server: BodyServer) -> None:
    with server.request(f"/{LARGE}/a"), server.request(f"/{LARGE}/b"):
        wait_for(lambda: server.responses.held_bytes == 2 * LARGE)
        assert server.status(f"/{LARGE}/c") == 200
        assert False in server.delivered


def test_slow_client_is_not_disconnected_when_capacity_is_needed(server: BodyServer) -> None:
    with server.request(f"/{LARGE}/slow") as slow, ThreadPoolExecutor(1) as pool:
        size_read = pool.submit(read_large, slow, 0.005)
        wait_for(lambda: len(server.responses.in_flight) == 1)
        with server.request(f"/{LARGE}/stalled"):
            wait_for(lambda: len(server.responses.in_flight) == 2)
            assert server.status(f"/{LARGE}/c") == 200
        assert size_read.result(60) >= LARGE


def test_large_response_is_refused_while_clients_that_read_hold_all_memory(server: BodyServer) -> None:
    """A small response is not."""
    ended = threading.Event()

    def read_slowly(client: socket.socket) -> None:
        while not ended.wait(0.01):
            client.recv(SLICE_BYTES)

    with server.request(f"/{10 * LARGE}") as client:
        thread = threading.Thread(target=read_slowly, args=(client,))
        thread.start()
        try:
            wait_for(lambda: len(server.responses.in_flight) == 1)
            assert server.status(f"/{LARGE}") == 503
            assert server.status(f"/{SLICE_BYTES}") == 200
        finally:
            ended.set()
            thread.join()
    wait_for(lambda: not server.responses.in_flight)
    assert server.status(f"/{LARGE}") == 200


def test_shutdown_disconnects_clients_that_read_nothing_soon(server: BodyServer) -> None:
    """Of a large or a small response, and of one that begins only after that."""
    server.responses.write_seconds = 3600
    with (
        server.request(f"/{LARGE}/a"),
        server.request(f"/{LARGE}/b"),
        server.request(f"/{SLICE_BYTES}"),
        server.request(f"/{LARGE}/c"),
    ):
        wait_for(lambda: (len(server.responses.writing), server.requested) == (3, 4))
        server.hurry()
        wait_for(lambda: server.delivered == [False] * 4)


def test_body_shared_by_many_clients_counts_once(server: BodyServer) -> None:
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(closing(server.request(f"/{LARGE}/a")))
        wait_for(lambda: len(server.responses.in_flight) == 10)
        assert server.responses.held_bytes == LARGE
    wait_for(lambda: not server.responses.in_flight)
    assert server.responses.held_bytes == 0


def test_require_capacity_refuses_a_large_response_and_no_small_one(server: BodyServer) -> None:
    with server.request(f"/{LARGE}/a"), server.request(f"/{LARGE}/b"):
        wait_for(lambda: len(server.responses.in_flight) == 2)
        server.responses.require_capacity(SLICE_BYTES)
        with pytest.raises(TooBusy):
            server.responses.require_capacity(SLICE_BYTES + 1)


def test_reserved_page_counts_until_the_next_page_or_the_end() -> None:
    responses = ResponsesInFlight(LARGE)
    first, second, third = (ClientWriter(discard, responses) for _ in range(3))
    assert responses.reserve(first, LARGE - 1)
    assert responses.reserve(second, LARGE)
    assert not responses.reserve(third, LARGE)
    assert responses.held_bytes == 2 * LARGE - 1
    assert responses.reserve(second, 7)
    assert responses.held_bytes == LARGE + 6
    responses.release(first)
    assert responses.reserve(third, LARGE)
    for writer in (first, second, third):
        responses.release(writer)
    assert (responses.held_bytes, len(responses.in_flight)) == (0, 0)
