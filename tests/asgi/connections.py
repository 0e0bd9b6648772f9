"""Raw requests and responses, and an application that shows how a connection is served."""

import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from service_registry.asgi import transport
from service_registry.asgi.server.connection_table import ConnectionTable
from service_registry.asgi.server.exchange import Exchange
from tests.asgi.uvicorn_server import connect

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n\r\n"


class Echo:
    """Answers with the body's length and the names of the headers; `/wait` waits for the client to leave.

    A request with `Authorization: accepted` counts as one with an accepted token.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.left = 0
        self.exchanges: list[Exchange] = []

    @property
    def table(self) -> ConnectionTable:
        return self.exchanges[-1].connection.table

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        exchange = transport.exchange_of(send)
        assert exchange
        self.exchanges.append(exchange)
        self.paths.append(scope["path"])
        if (b"authorization", b"accepted") in scope["headers"]:
            transport.note_accepted_token(send)
        body, more = b"", True
        while more and scope["path"] != "/unread":
            message = await receive()
            if message["type"] != "http.request":
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/wait":
            await receive()
            self.left += 1
            return
        answer = json.dumps({"body": len(body), "headers": [name.decode() for name, _ in scope["headers"]]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


def receive_response(client: socket.socket) -> tuple[int, bytes, bytes]:
    """Return the status, the headers and the body of a response, chunks included."""
    received = b""
    while b"\r\n\r\n" not in received or not is_complete(received):
        part = client.recv(65536)
        if not part:
            break
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, head.lower(), body


def is_complete(received: bytes) -> bool:
    head, _, body = received.lower().partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return b"content-length: %d\r\n" % len(body) in head + b"\r\n"


def ask(port: int, *parts: bytes) -> tuple[int, bytes, bytes]:
    with connect(port) as client:
        for part in parts:
            client.sendall(part)
        return receive_response(client)


def is_closed(client: socket.socket) -> bool:
    """Wait for the end of the connection."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def send_until_disconnected(client: socket.socket, data: bytes) -> None:
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        client.sendall(data * 1000)


def problem(response: tuple[int, bytes, bytes]) -> tuple[int, Any]:
    status, head, body = response
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    return status, json.loads(body)["code"]


def read_to_end(client: socket.socket) -> bytes:
    """Return what the server sends until the connection ends."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            received += part
    return received


class Handler:
    """An application that answers every request with the function `answer`, and keeps their exchanges.

    Attributes:
        ended: for each request whose function has returned or raised, in that order, its path.
    """

    def __init__(self, answer: Callable[[ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]) -> None:
        self.answer = answer
        self.exchanges: list[Exchange] = []
        self.ended: list[str] = []

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        exchange = transport.exchange_of(send)
        assert exchange
        self.exchanges.append(exchange)
        try:
            await self.answer(receive, send)
        finally:
            self.ended.append(scope["path"])


async def start(send: ASGISendCallable, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers), "trailers": False})


async def write(send: ASGISendCallable, body: bytes, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def receive_until_disconnected(receive: ASGIReceiveCallable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer_unread(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer without the body."""
    await start(send, (b"content-length", b"2"))
    await write(send, b"ok")


async def refuse_unread(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer without the body, and close the connection."""
    await start(send, (b"content-length", b"2"), (b"connection", b"close"), status=400)
    await write(send, b"no")
