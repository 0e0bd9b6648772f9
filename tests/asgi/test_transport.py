"""The transport of a connection: bytes that its client has not read, and cutting it off, on real connections."""

import asyncio
import http.client
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from service_registry.asgi import transport
from tests.asgi.uvicorn_server import connect, get_requests, serve
from tests.waiting import wait_for

LARGE = 1_000_000
Result = TypeVar("Result")


class BodySender:
    """Answers each request with as many bytes as its path says, and keeps the server's `send` of each."""

    def __init__(self) -> None:
        self.sends: list[ASGISendCallable] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.port = 0

    async def __call__(self, scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        self.loop = asyncio.get_running_loop()
        self.sends.append(send)
        size = int(scope["path"].split("/")[1])
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": b"x" * size, "more_body": False})

    def on_loop(self, function: Callable[[ASGISendCallable], Result], number: int) -> Result:
        """Call a function of `transport` for one of the responses, on the event loop."""

        async def call() -> Result:
            return function(self.sends[number])

        assert self.loop
        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(60)

    def flush(self, number: int) -> Callable[[], bool]:
        """Start to flush a response, and return a function that returns whether that has ended."""
        assert self.loop
        return asyncio.run_coroutine_threadsafe(transport.flush(self.sends[number]), self.loop).done


@pytest.fixture
def server() -> Iterator[BodySender]:
    application = BodySender()
    with serve(application) as application.port:
        yield application


def test_unsent_bytes_of_a_client_that_does_not_read_are_counted(server: BodySender) -> None:
    with connect(server.port, get_requests(f"/{LARGE}")) as client:
        wait_for(lambda: server.sends)
        wait_for(lambda: server.on_loop(transport.unsent_bytes, 0) > LARGE / 2)
        is_flushed = server.flush(0)
        assert not is_flushed()
        response = http.client.HTTPResponse(client)
        response.begin()
        assert len(response.read()) == LARGE
        wait_for(is_flushed)
        assert server.on_loop(transport.unsent_bytes, 0) == 0


def test_abort_closes_the_connection_and_discards_what_was_not_read(server: BodySender) -> None:
    with connect(server.port, get_requests(f"/{LARGE}")) as client:
        wait_for(lambda: server.sends)
        wait_for(lambda: server.on_loop(transport.unsent_bytes, 0) > LARGE / 2)
        server.on_loop(transport.abort, 0)
        wait_for(lambda: server.on_loop(transport.unsent_bytes, 0) == 0)
        assert received_bytes(client) < LARGE


def test_response_is_superseded_once_a_pipelined_request_has_begun(server: BodySender) -> None:
    with connect(server.port, get_requests(f"/{LARGE}")) as client:
        wait_for(lambda: server.sends)
        wait_for(lambda: server.on_loop(transport.unsent_bytes, 0) > LARGE / 2)
        assert not server.on_loop(transport.is_superseded, 0)
        is_flushed = server.flush(0)
        client.sendall(get_requests("/1"))
        wait_for(lambda: len(server.sends) == 2)
        assert server.on_loop(transport.is_superseded, 0)
        assert not server.on_loop(transport.is_superseded, 1)
        wait_for(is_flushed)
        assert server.on_loop(transport.unsent_bytes, 0) > 0


def test_server_without_these_attributes_is_tolerated() -> None:
    async def send(_message: object) -> None: ...

    assert transport.unsent_bytes(send) == 0
    assert not transport.is_superseded(send)
    transport.abort(send)
    asyncio.run(transport.flush(send))


def received_bytes(client: socket.socket) -> int:
    """Read until the connection ends, and return how many bytes came."""
    size = 0
    try:
        while part := client.recv(65536):
            size += len(part)
    except ConnectionResetError:
        pass
    return size
