"""A request that the event loop answers."""

import asyncio
import functools
import time

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings
from django.http import QueryDict
from django.http.request import split_domain_port, validate_host

from service_registry.exceptions import BodyTooLarge, RequestTimeout, UnknownHost
from service_registry.http.request_log import RequestLogEntry, choose_request_id
from service_registry.http.validation import parse_query

# A client may take this long to send a body. It holds no thread meanwhile.
BODY_SECONDS = 30.0


class ClientDisconnected(Exception):
    """The client closed its connection before it was answered."""


class Request:
    """An HTTP request.

    Attributes:
        headers: by their name in lower case; the values of a repeated header are joined with commas (RFC 9110, 5.3).
        path_parameter: the last segment of the path where the route has a parameter there, else empty.
        log: the request's entry in the request log.
    """

    __slots__ = ("headers", "log", "path_parameter", "receive", "scope", "send", "started_at")

    def __init__(
        self,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        *,
        operation: str,
        route: str,
        path_parameter: str,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.path_parameter = path_parameter
        self.started_at = time.perf_counter()
        self.headers = join_repeated(scope)
        self.log = RequestLogEntry(
            operation=operation,
            route=route,
            method=scope["method"],
            request_id=choose_request_id(self.header(b"x-request-id") or ""),
        )

    def header(self, name: bytes) -> str | None:
        """Return the value of a header, by its name in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def require_known_host(self) -> None:
        """Raise UnknownHost unless the Host header names this registry."""
        if not is_known_host(self.headers.get(b"host", b"")):
            raise UnknownHost

    def query(self) -> QueryDict:
        """Return the query's parameters. Raises InvalidInput."""
        return parse_query(self.scope["query_string"])

    @property
    def media_type(self) -> str:
        """The body's media type, without parameters."""
        return (self.header(b"content-type") or "").partition(";")[0].strip().lower()

    @property
    def has_body(self) -> bool:
        """Return whether the headers announce a body."""
        return announces_body(self.scope)

    async def read_body(self) -> bytes:
        """Return the whole body. Raises BodyTooLarge, RequestTimeout, ClientDisconnected."""
        return await read_body(self.scope, self.receive, BODY_SECONDS, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


def join_repeated(scope: HTTPScope) -> dict[bytes, bytes]:
    fields = list(scope["headers"])
    headers = dict(fields)
    if len(headers) < len(fields):
        headers.clear()
        for name, value in fields:
            headers[name] = b"%b,%b" % (headers[name], value) if name in headers else value
    return headers


@functools.lru_cache(maxsize=64)
def is_known_host(host: bytes) -> bool:
    domain, _port = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


async def read_body(scope: HTTPScope, receive: ASGIReceiveCallable, seconds: float, limit: int) -> bytes:
    """Return a request's whole body.

    Args:
        seconds: how long the client may take.
        limit: of the body, in bytes.

    Raises:
        BodyTooLarge: by the announced length before anything is read, else as soon as more than that has arrived.
        RequestTimeout: the body is not complete in time.
        ClientDisconnected: the client closed its connection.
    """
    if announced_length(scope) > limit:
        raise BodyTooLarge
    try:
        async with asyncio.timeout(seconds):
            return await receive_body(receive, limit)
    except TimeoutError:
        raise RequestTimeout(seconds) from None


async def receive_body(receive: ASGIReceiveCallable, limit: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise BodyTooLarge
        more = message.get("more_body", False)
    return b"".join(parts)


def announces_body(scope: HTTPScope) -> bool:
    """Return whether the headers announce a body (RFC 9112, section 6)."""
    return announced_length(scope) > 0 or any(name == b"transfer-encoding" for name, _value in scope["headers"])


def announced_length(scope: HTTPScope) -> int:
    """Return Content-Length in bytes, 0 without it.

    The web server has refused a header that is not a number.
    """
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
