"""A client's connection: reads requests within limits, and starts their exchanges one after another.

httptools parses. It gets the head of a request only when that is complete, so that it stores nothing unbounded, and
never a byte of the request behind the one under way.
"""

import asyncio
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from service_registry import metrics
from service_registry.asgi.server import limits
from service_registry.asgi.server.connection_table import ConnectionTable, Spare, connection_table
from service_registry.asgi.server.exchange import Exchange
from service_registry.asgi.server.head import make_scope, without_upgrade
from service_registry.asgi.server.refusals import render_refusal
from service_registry.exceptions import HeadersTooLarge, HeadTimeout, MalformedRequest, RegistryError

END_OF_HEAD = b"\r\n\r\n"
NEVER = float("inf")


class PipelinedBehindChunks(Exception):
    """A request has begun in the same read as the end of a chunked body."""


class Connection(asyncio.BufferedProtocol):
    """The connection of one client. uvicorn makes it, with these arguments.

    Attributes:
        exchange: the request under way, until it has arrived and was answered.
        requests: how many requests have begun.
        unread: what the client has sent and no exchange has taken yet.
        deadline: on the loop's clock, when `expire` is due.
        has_accepted_token: whether a request of this connection had one.
    """

    __slots__ = (
        "address",
        "body_left",
        "common",
        "deadline",
        "exchange",
        "has_accepted_token",
        "headers",
        "idle_since",
        "is_closing",
        "is_head_begun",
        "is_head_read",
        "is_message_read",
        "is_reading_paused",
        "is_write_paused",
        "keep_alive",
        "method",
        "overhead",
        "parser",
        "requests",
        "searched",
        "table",
        "target",
        "transport",
        "unread",
        "version",
        "writable",
    )

    transport: asyncio.Transport

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: object = None
    ) -> None:
        self.table: ConnectionTable = connection_table(config, server_state, app_state)
        self.parser: Any = None
        self.exchange: Exchange | None = None
        self.requests = 0
        self.unread = b""
        self.searched = 0
        self.is_head_begun = self.is_closing = self.has_accepted_token = False
        self.is_reading_paused = self.is_write_paused = False
        self.writable: asyncio.Event | None = None

    # --- The connection begins and ends ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # a stream's
        self.transport = transport
        self.idle_since = self.table.loop.time()
        self.deadline = self.idle_since + limits.HEAD_SECONDS
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.address = str(peer[0]) if isinstance(peer, tuple) else None
        refusal = self.table.admit(self)
        if refusal is not None:
            self.refuse(refusal, "too_many")
            return
        self.common = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "server": own[:2] if isinstance(own, tuple) else (own, None),
            "client": peer[:2] if isinstance(peer, tuple) else None,
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "root_path": self.table.root_path,
            "state": self.table.app_state,
        }

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio gives it
        self.leave()
        self.table.remove(self)

    def eof_received(self) -> None:
        """End the exchange: a client that closes its side is taken for one that has left."""
        self.leave()

    def leave(self) -> None:
        self.is_closing = True
        self.unread = b""
        self.parser = None
        if self.exchange is not None:
            self.exchange.disconnect()
        self.resume_writing()

    def shutdown(self) -> None:
        """Close the connection once its exchange has ended; uvicorn calls it when it shuts down."""
        self.table.anonymous.start_all()
        if self.exchange is None:
            self.close()
        else:
            self.exchange.keep_alive = False

    def close(self) -> None:
        """Close the connection once everything is written."""
        self.is_closing = True
        self.unread = b""
        self.deadline = self.table.loop.time() + limits.CLOSE_SECONDS
        self.transport.close()

    def cut(self, reason: str) -> None:
        """Close the connection at once, and discard what was not sent."""
        metrics.connections_closed.labels(reason).inc()
        self.leave()
        self.transport.abort()

    def refuse(self, error: RegistryError, reason: str) -> None:
        """Write a problem, unless a response has begun, and close the connection."""
        if self.exchange is not None and self.exchange.is_started:
            self.cut(reason)
            return
        metrics.connections_closed.labels(reason).inc()
        self.transport.write(render_refusal(error))
        self.leave()
        self.linger()

    def linger(self) -> None:
        """Close the connection for writing, and for reading once the client had time to read the response.

        A connection that is closed while data arrives is reset, and the response may be lost (RFC 9112, section 9.6).
        """
        self.is_closing = True
        self.unread = b""
        self.overhead = 0
        if self.table.may_linger(self) and self.transport.can_write_eof() and not self.transport.is_closing():
            self.deadline = self.table.loop.time() + limits.LINGER_SECONDS
            self.transport.write_eof()
            self.resume_reading()
        else:
            self.close()

    def expire(self) -> None:
        """Act on a deadline that has passed."""
        if self.is_closing:
            self.transport.abort()
        elif self.exchange is not None:
            self.cut("unwanted_body")
        elif self.is_head_begun:
            self.refuse(HeadTimeout(limits.HEAD_SECONDS), "head_timeout")
        else:
            metrics.connections_closed.labels("idle").inc()
            self.close()

    @property
    def is_active(self) -> bool:
        return self.exchange is not None

    @property
    def spare(self) -> Spare | None:
        """Return the rank by which connections are closed for others; None when this one must stay."""
        if self.exchange is not None:
            return None if self.has_accepted_token else Spare.ANONYMOUS_REQUEST
        return Spare.IDLE if self.has_accepted_token else Spare.ANONYMOUS

    # --- Reading ---

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio gives it
        is_discarded = self.is_closing or (self.exchange is not None and self.exchange.is_answered)
        return self.table.buffer if self.has_accepted_token or is_discarded else self.table.anonymous_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.is_closing:
            self.discard(nbytes)
            return
        data = bytes(self.table.buffer[:nbytes])
        self.unread = self.unread + data if self.unread else data
        self.read()
        if len(self.unread) > limits.PIPELINED_BYTES:
            self.cut("pipelined")

    def discard(self, size: int) -> None:
        """Read what a refused client still sends, up to a limit."""
        self.overhead += size
        if self.overhead > limits.LINGER_BYTES:
            self.transport.abort()

    def read(self) -> None:
        """Read requests, until one waits for the response of the one before."""
        while self.unread:
            if self.exchange is None:
                if not self.read_head():
                    return
            elif self.exchange.is_received:
                return
            else:
                self.read_body(self.exchange)

    def read_head(self) -> bool:
        """Read the head of a request and start its exchange; return whether it was complete.

        Empty lines in front of it are ignored (RFC 9112, section 2.2).
        """
        self.unread = self.unread.lstrip(b"\r\n")
        if not self.unread:
            return False
        end = self.unread.find(END_OF_HEAD, self.searched)
        if end < 0 and len(self.unread) <= limits.HEAD_BYTES:
            self.wait_for_head()
            return False
        if end < 0 or end > limits.HEAD_BYTES:
            self.refuse(HeadersTooLarge(), "headers_too_large")
            return False
        end += len(END_OF_HEAD)
        head, self.unread = self.unread[:end], self.unread[end:]
        self.searched = 0
        try:
            self.parse(head)
            if self.is_head_read:
                self.begin_exchange()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.refuse(MalformedRequest(), "malformed")
        return True

    def wait_for_head(self) -> None:
        """Set the deadline for the rest, unless what has come cannot be the start of a request."""
        if not self.is_head_begun:
            self.is_head_begun = True
            self.deadline = min(self.deadline, self.table.loop.time() + limits.HEAD_SECONDS)
        self.searched = max(0, len(self.unread) - len(END_OF_HEAD) + 1)
        if not self.unread[:1].isalpha() or b"\n\n" in self.unread[-1024:]:
            self.refuse(MalformedRequest(), "malformed")

    def parse(self, head: bytes) -> None:
        """Parse a head, without an Upgrade. Raises httptools.HttpParserError, and HttpParserUpgrade for CONNECT."""
        if self.parser is None:
            self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(without_upgrade(head))

    def begin_exchange(self) -> None:
        """Start the exchange of a parsed head. Raises httptools.HttpParserError."""
        if len(self.headers) > limits.HEADERS:
            self.refuse(HeadersTooLarge(), "headers_too_large")
            return
        scope = make_scope(self.common, self.method, self.target, self.version, self.headers)
        self.is_head_begun = False
        self.requests += 1
        self.exchange = exchange = Exchange(
            self, scope, number=self.requests, keep_alive=self.keep_alive, is_received=self.is_message_read
        )
        self.deadline = NEVER
        if not self.is_message_read:
            self.expect_body(exchange)
        if self.has_accepted_token or (self.requests == 1 and self.may_have_token()):
            self.table.loop.create_task(exchange.run(self.table.application))
        else:
            self.table.anonymous.add(exchange)

    def may_have_token(self) -> bool:
        """Return whether the request has a token, accepted or not. A flood of them would need a connection for each."""
        return any(name == b"authorization" for name, _value in self.headers)

    def expect_body(self, exchange: Exchange) -> None:
        self.body_left = next((int(value) for name, value in self.headers if name == b"content-length"), None)
        self.overhead = 0
        exchange.expects_continue = (b"expect", b"100-continue") in [
            (name, value.lower()) for name, value in self.headers
        ]

    def read_body(self, exchange: Exchange) -> None:
        """Give the parser what belongs to the body: of a chunked one only the parser knows the end.

        What comes behind a chunked body in the same read is dropped with the connection, after the response; a client
        sends that request again (RFC 9112, section 9.3.2).
        """
        size = len(self.unread) if self.body_left is None else self.body_left
        part, self.unread = self.unread[:size], self.unread[size:]
        if self.body_left is not None:
            self.body_left -= len(part)
        self.overhead += len(part)
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserError:
            if not exchange.is_received:
                self.refuse(MalformedRequest(), "malformed")
                return
            exchange.keep_alive = False
        if self.overhead > (limits.UNWANTED_BYTES if exchange.is_answered else limits.HEAD_BYTES):
            self.refuse(MalformedRequest(), "unwanted_body")  # chunks without content, or trailers
        elif len(exchange.body) >= len(self.get_buffer(-1)) and not exchange.is_received:
            self.pause_reading()
        elif exchange.is_received and exchange.is_answered:
            self.end_exchange(exchange)

    def pause_reading(self) -> None:
        if not self.is_reading_paused:
            self.is_reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.is_reading_paused and not self.transport.is_closing():
            self.is_reading_paused = False
            self.transport.resume_reading()

    # --- Callbacks of the parser ---

    def on_message_begin(self) -> None:
        if self.exchange is not None:
            raise PipelinedBehindChunks
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_head_read = self.is_message_read = False

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A field in the trailer is none (RFC 9110, section 6.5.1)."""
        if not self.is_head_read:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_head_read = True
        self.method = self.parser.get_method()
        self.version = self.parser.get_http_version()
        self.keep_alive = self.version == "1.1" and self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        assert self.exchange is not None
        if not self.exchange.is_answered:
            self.overhead = 0
            self.exchange.add_body(body)

    def on_message_complete(self) -> None:
        self.is_message_read = True
        if self.exchange is not None:
            self.exchange.end_body()

    # --- Writing ---

    def end_response(self, exchange: Exchange) -> None:
        """Go on after a complete response: with the next request, or with the rest of a body that is not needed."""
        self.table.server_state.total_requests += 1
        if exchange.is_received:
            self.end_exchange(exchange)
        elif exchange.keep_alive:
            self.deadline = self.table.loop.time() + limits.UNWANTED_SECONDS
            exchange.body = b""
            self.resume_reading()
        else:
            self.exchange = None
            self.linger()

    def end_exchange(self, exchange: Exchange) -> None:
        self.exchange = None
        if not exchange.keep_alive:
            self.close()
            return
        self.idle_since = self.table.loop.time()
        self.deadline = self.idle_since + self.table.keep_alive_seconds
        if self.unread:
            self.read()

    def pause_writing(self) -> None:
        self.is_write_paused = True

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self.writable is not None:
            self.writable.set()

    async def wait_for_writing(self) -> None:
        self.writable = self.writable or asyncio.Event()
        self.writable.clear()
        await self.writable.wait()
