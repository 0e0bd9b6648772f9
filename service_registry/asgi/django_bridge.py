"""Django as a WSGI application inside an ASGI server: the whole body first, then one hop to a thread of a fixed pool.

A slow client holds no thread while it sends, and the database never sees more connections than the pool has threads.
"""

import asyncio
import io
import json
import re
import secrets
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPResponseStartEvent, HTTPScope

BODY_SECONDS = 30
# How far a streamed answer may run ahead of its client, and how long its thread then waits for the client.
CHUNKS_AHEAD = 1024
CLIENT_SECONDS = 30

CHARSET = re.compile(r";\s*charset\s*=[^;]*", re.IGNORECASE)

Environ = dict[str, Any]  # PEP 3333: strings, and what the server adds
Headers = list[tuple[str, str]]


class StartResponse(Protocol):
    def __call__(self, status: str, headers: Headers, exc_info: Any = None, /) -> Any: ...


class WSGIApplication(Protocol):
    def __call__(self, environ: Environ, start_response: StartResponse, /) -> Iterable[bytes]: ...


# Given a request with its body, answers it and returns True, or leaves it alone and returns False.
Door = Callable[[HTTPScope, bytes, ASGIReceiveCallable, ASGISendCallable], Awaitable[bool]]


async def no_door(_scope: HTTPScope, _body: bytes, _receive: ASGIReceiveCallable, _send: ASGISendCallable) -> bool:
    return False


# Sends a whole answer, given its beginning and its body.
Deliver = Callable[[ASGISendCallable, HTTPResponseStartEvent, bytes], Awaitable[object]]


async def deliver_at_once(send: ASGISendCallable, start: HTTPResponseStartEvent, body: bytes) -> None:
    """Leave it to the web server, which holds it until the client has taken it."""
    await send(start)
    await send_body(send, body)


class ClientGoneError(Exception):
    """The client closed its connection, or takes nothing any more."""


class Bridge:
    """An ASGI application that answers with a WSGI one.

    Arguments:
        application: the WSGI application.
        threads: where it runs; whatever else uses the database of this process should share them.
        body_limit: bytes. A longer body is not read to its end, and CONTENT_LENGTH is then larger than the limit, so
            that the application refuses it in its own words.
        ahead: what may answer in the application's place, on the event loop.
        deliver: sends the application's answers, those that are whole.
        body_seconds: how long a body may take to arrive; 408 after that.
    """

    def __init__(
        self,
        application: WSGIApplication,
        threads: Executor,
        body_limit: int,
        ahead: Door = no_door,
        *,
        deliver: Deliver = deliver_at_once,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self.application = application
        self.threads = threads
        self.body_limit = body_limit
        self.ahead = ahead
        self.deliver = deliver
        self.body_seconds = body_seconds

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            async with asyncio.timeout(self.body_seconds):
                body = await read_body(scope, receive, self.body_limit)
        except TimeoutError:
            await refuse_slow_body(send, self.body_seconds)
        except ClientGoneError:
            pass
        else:
            if not await self.ahead(scope, body, receive, send):
                environ = environ_of(scope)
                environ["wsgi.input"] = io.BytesIO(body)
                environ.setdefault("CONTENT_LENGTH", str(len(body)))
                try:
                    await Answer(receive, send, self.deliver).give(self.application, environ, self.threads)
                finally:
                    environ["wsgi.input"].close()  # what is left of a request may wait long for Python to free it


class Answer:
    """One answer on its way from a thread to the event loop: whole where it is whole, else chunk by chunk."""

    def __init__(self, receive: ASGIReceiveCallable, send: ASGISendCallable, deliver: Deliver) -> None:
        self.deliver = deliver
        self.loop = asyncio.get_running_loop()
        self.receive = receive
        self.send = send
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.room = threading.BoundedSemaphore(CHUNKS_AHEAD)
        self.client_gone = threading.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def give(self, application: WSGIApplication, environ: Environ, threads: Executor) -> None:
        """Run the application on a thread and send its answer. Raises what the application raises."""
        try:
            whole = await self.loop.run_in_executor(threads, self.run, application, environ)
            if whole is not None:
                await self.deliver(self.send, start_of(self.status, self.headers), whole)
            elif not self.client_gone.is_set():
                await self.tasks[0]
        finally:
            self.client_gone.set()
            for task in self.tasks:
                task.cancel()

    def run(self, application: WSGIApplication, environ: Environ) -> bytes | None:
        """On a thread: the body of a whole answer, or None when its chunks were handed to the event loop."""
        result = application(environ, self.start)
        try:
            if isinstance(result, list | tuple) or not getattr(result, "streaming", True):
                return b"".join(result)
            self.stream(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        return None

    def stream(self, result: Iterable[bytes]) -> None:
        """Hand on chunk after chunk, here on one thread, as the application's database connection belongs to it."""
        self.loop.call_soon_threadsafe(self.begin)
        for chunk in result:
            if not self.room.acquire(timeout=CLIENT_SECONDS):
                self.client_gone.set()
            if self.client_gone.is_set():
                return
            self.loop.call_soon_threadsafe(self.chunks.put_nowait, chunk)
        self.loop.call_soon_threadsafe(self.chunks.put_nowait, None)

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> None:  # noqa: ARG002 - PEP 3333's shape
        """PEP 3333's start_response, without `write`, which Django does not use."""
        self.status = int(status.split(" ", 1)[0])
        self.headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]

    def begin(self) -> None:
        self.tasks = [self.loop.create_task(self.send_chunks()), self.loop.create_task(self.watch_client())]

    async def send_chunks(self) -> None:
        await send_start(self.send, self.status, self.headers)
        while (chunk := await self.chunks.get()) is not None:
            await send_body(self.send, chunk, more=True)
            self.room.release()
        await send_body(self.send, b"")

    async def watch_client(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.client_gone.set()


async def send_start(send: ASGISendCallable, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send(start_of(status, headers))


def start_of(status: int, headers: list[tuple[bytes, bytes]]) -> HTTPResponseStartEvent:
    return {"type": "http.response.start", "status": status, "headers": headers, "trailers": False}


async def send_body(send: ASGISendCallable, body: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def refuse_slow_body(send: ASGISendCallable, seconds: float) -> None:
    """A problem as the application answers with, which has not seen this request."""
    request_id = secrets.token_hex(16)
    problem = {
        "type": "urn:service-registry:problem:request_timeout",
        "title": "Request Timeout",
        "status": 408,
        "code": "request_timeout",
        "detail": f"The body did not arrive within {seconds:g} s.",
        "request_id": request_id,
    }
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send_start(send, 408, [*headers, (b"x-request-id", request_id.encode())])
    await send_body(send, json.dumps(problem).encode())


async def read_body(scope: HTTPScope, receive: ASGIReceiveCallable, limit: int) -> bytes:
    """The body; nothing of one that is announced as longer than `limit` bytes, of others at most a part more than that.

    Raises ClientGoneError.
    """
    if announced(scope) > limit:
        return b""
    parts, size, more = [], 0, True
    while more and size <= limit:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)


def announced(scope: HTTPScope) -> int:
    """The body's length by its header, in bytes; the web server has refused a header that is no number."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def environ_of(scope: HTTPScope) -> Environ:
    """PEP 3333's environ of a request, all but its body. Strings hold the bytes of the wire as latin-1."""
    root_path = scope.get("root_path", "")
    path = unquote_to_bytes(scope.get("raw_path") or scope["path"]).decode("latin-1")
    server = scope.get("server") or ("localhost", None)
    client = scope.get("client") or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root_path,
        "PATH_INFO": path.removeprefix(root_path),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        add_header(environ, name.decode("latin-1"), value.decode("latin-1"))
    return environ


def without_charset(content_type: str) -> str:
    """A media type without its charset: bodies and queries are UTF-8, and Django would decode the query of any request
    with whatever codec of Python's is named here, and fail before there is a request to answer."""
    return CHARSET.sub("", content_type)


def add_header(environ: Environ, name: str, value: str) -> None:
    """Enter a header; one that comes twice is joined. A name with an underscore could pass for another: left out."""
    if "_" in name:
        return
    key = name.upper().replace("-", "_")
    if key == "CONTENT_TYPE":
        value = without_charset(value)
    if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        key = f"HTTP_{key}"
    separator = "; " if key == "HTTP_COOKIE" else ","
    environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value
