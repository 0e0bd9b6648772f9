"""One request and its response on a connection: ASGI's `receive` and `send`."""

import asyncio
import http
import logging
from collections.abc import Iterable
from typing import Protocol

from asgiref.typing import ASGI3Application, ASGIReceiveEvent, ASGISendEvent, HTTPScope

from service_registry.asgi.server.connection_table import ConnectionTable

Headers = Iterable[tuple[bytes, bytes]]

logger = logging.getLogger(__name__)

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
CLOSE = b"connection: close\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WITHOUT_BODY = {204, 304}
# A body that is copied behind its headers, so that both are one write.
SMALL_BODY_BYTES = 16 * 1024
DISCONNECTED: ASGIReceiveEvent = {"type": "http.disconnect"}
FAILURE = b"Internal Server Error"


class Client(Protocol):
    """A connection as its exchanges see it."""

    has_accepted_token: bool
    is_write_paused: bool
    requests: int
    table: ConnectionTable
    transport: asyncio.Transport

    def resume_reading(self) -> None: ...

    async def wait_for_writing(self) -> None: ...

    def end_response(self, exchange: "Exchange") -> None: ...


class Exchange:
    """A request and its response.

    Attributes:
        number: how many requests of the connection had begun with this one.
        keep_alive: whether another request may follow.
        expects_continue: whether the client sends the body only after `100 Continue`.
        body: what has arrived of the body and was not received yet.
        is_received: whether the whole request has arrived.
        is_answered: whether the whole response was written.
    """

    __slots__ = (
        "body",
        "body_left",
        "changed",
        "connection",
        "expects_continue",
        "head",
        "is_answered",
        "is_chunked",
        "is_disconnected",
        "is_passed_on",
        "is_received",
        "is_started",
        "keep_alive",
        "number",
        "scope",
        "transport",
    )

    def __init__(
        self, connection: Client, scope: HTTPScope, *, number: int, keep_alive: bool, is_received: bool
    ) -> None:
        self.connection = connection
        self.transport = connection.transport
        self.scope = scope
        self.number = number
        self.keep_alive = keep_alive
        self.is_received = is_received
        self.is_passed_on = False
        self.expects_continue = False
        self.body = b""
        self.changed: asyncio.Event | None = None
        self.is_disconnected = self.is_started = self.is_answered = self.is_chunked = False
        # Of the response: headers not written yet, and how many bytes of the body its length announces.
        self.head = b""
        self.body_left: int | None = None

    async def run(self, application: ASGI3Application) -> None:
        """Answer the request. A failure of the application closes the connection, or is 500."""
        tasks = self.connection.table.server_state.tasks
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await application(self.scope, self.receive, self.send)
            if not self.is_answered and not self.is_disconnected:
                raise RuntimeError("The application returned without a complete response.")
        except asyncio.CancelledError:  # uvicorn cancels what a shutdown has waited for too long
            self.transport.abort()
            raise
        except Exception:
            logger.exception("The application failed.")
            await self.fail()
        finally:
            tasks.discard(task)

    async def fail(self) -> None:
        if self.is_started:
            self.transport.abort()
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(FAILURE)),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers, "trailers": False})
        await self.send({"type": "http.response.body", "body": FAILURE, "more_body": False})

    @property
    def is_superseded(self) -> bool:
        """Return whether another request of the connection has begun behind a complete response."""
        return self.is_answered and self.connection.requests != self.number

    # --- The request ---

    async def receive(self) -> ASGIReceiveEvent:
        """Return a part of the body, or the disconnect once it comes."""
        if self.expects_continue and not self.is_started and not self.is_disconnected:
            self.expects_continue = False
            self.transport.write(CONTINUE)
        while not (self.is_disconnected or self.is_answered):
            if self.body or (self.is_received and not self.is_passed_on):
                body, self.body = self.body, b""
                self.is_passed_on = self.is_received
                return {"type": "http.request", "body": body, "more_body": not self.is_received}
            self.connection.resume_reading()
            self.changed = self.changed or asyncio.Event()
            self.changed.clear()
            await self.changed.wait()
        return DISCONNECTED

    def add_body(self, body: bytes) -> None:
        self.body += body
        self.notify()

    def end_body(self) -> None:
        self.is_received = True
        self.notify()

    def disconnect(self) -> None:
        self.is_disconnected = True
        self.body = b""
        self.notify()

    def notify(self) -> None:
        if self.changed is not None:
            self.changed.set()

    # --- The response ---

    async def send(self, message: ASGISendEvent) -> None:
        """Write a part of the response once most of what was written has left. Nothing is written after a disconnect.

        Raises RuntimeError for a message out of order and a body of another length than announced.
        """
        if self.connection.is_write_paused and not self.is_disconnected:
            await self.connection.wait_for_writing()
        if self.is_disconnected:
            return
        if message["type"] == "http.response.start" and not self.is_started:
            self.start(message["status"], message["headers"])
        elif message["type"] == "http.response.body" and self.is_started and not self.is_answered:
            self.write(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"The message {message['type']!r} is out of order.")

    def respond(self, status: int, lines: bytes, body: bytes) -> bool:
        """Write a whole response, unless bytes of an earlier one wait for the client; return whether it did.

        After a disconnect nothing is written, as by `send`.

        Args:
            lines: the headers, a length included.
        """
        if self.is_disconnected:
            return True
        if self.connection.is_write_paused or self.transport.get_write_buffer_size():
            return False
        self.is_started = True
        head = [STATUS_LINES[status], self.connection.table.default_headers(), lines]
        head += self.end_connection(has_close=b"\r\nconnection: close\r\n" in lines)
        head.append(b"\r\n")
        self.head = b"".join(head)
        self.write_with_head(b"" if self.scope["method"] == "HEAD" else body)
        self.end()
        return True

    def start(self, status: int, headers: Headers) -> None:
        """Prepare the headers, and write them unless a body of known length follows at once."""
        self.is_started = True
        lines = [STATUS_LINES[status], self.connection.table.default_headers()]
        has_close = False
        for name, value in headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                self.body_left = int(value)
            elif name == b"connection":
                has_close = value.lower() == b"close"
        if self.body_left is None and self.scope["method"] != "HEAD" and status not in WITHOUT_BODY:
            lines += self.begin_unknown_length()
        lines += self.end_connection(has_close=has_close)
        lines.append(b"\r\n")
        self.head = b"".join(lines)
        # A line break in a value would begin another header, or another response.
        if self.head.count(b"\n") != len(lines) - 1 + self.connection.table.default_lines:
            raise RuntimeError("A header contains a line break.")
        if self.body_left is None:
            self.transport.write(self.head)
            self.head = b""

    def end_connection(self, *, has_close: bool) -> list[bytes]:
        """Decide whether the connection ends behind the response, and return the header that says so if it is missing.

        A client that was not told to send its body may send another request in its place.
        """
        self.keep_alive &= not (has_close or self.expects_continue)
        return [] if self.keep_alive or has_close else [CLOSE]

    def begin_unknown_length(self) -> list[bytes]:
        """Send the body in chunks, and return the header that says so.

        An HTTP/1.0 client knows no chunks (RFC 9112, section 7.1): the end of the connection ends its body.
        """
        self.is_chunked = self.scope["http_version"] == "1.1"
        return [b"transfer-encoding: chunked\r\n"] if self.is_chunked else []

    def write(self, body: bytes, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.is_chunked:
            body = as_chunk(body, more)
        elif self.body_left is not None:
            self.body_left -= len(body)
            if self.body_left < 0 or (self.body_left and not more):
                raise RuntimeError("The body has another length than its headers announce.")
        self.write_with_head(body)
        if not more:
            self.end()

    def end(self) -> None:
        self.is_answered = True
        self.notify()
        self.connection.end_response(self)

    def write_with_head(self, body: bytes) -> None:
        """Write a part of the body; the first and a small one together with the headers."""
        if self.head:
            head, self.head = self.head, b""
            if len(body) <= SMALL_BODY_BYTES:
                body = head + body
            else:
                self.transport.write(head)
        if body:
            self.transport.write(body)


def as_chunk(body: bytes, more: bool) -> bytes:
    """Return a chunk (RFC 9112, section 7.1), and the last one behind it when no more follow."""
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return chunk if more else chunk + b"0\r\n\r\n"
