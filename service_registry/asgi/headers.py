"""Headers of the responses that the event loop sends, as HTTP/1.1 writes them (RFC 9112, section 5)."""

from collections.abc import Iterable
from typing import NamedTuple

from asgiref.typing import HTTPResponseStartEvent
from django.conf import settings

from service_registry.asgi.request import Request
from service_registry.http.responses import INDEX_HEADER, Response
from service_registry.http.security_headers import SECURITY_HEADERS
from service_registry.replica.hub import Hub

STALE_HEADER = "X-Registry-Stale"


class Head(NamedTuple):
    """Status and header lines of a whole response."""

    status: int
    lines: bytes

    def as_message(self) -> HTTPResponseStartEvent:
        """Return the ASGI message that begins the response."""
        return {
            "type": "http.response.start",
            "status": self.status,
            "headers": split_lines(self.lines),
            "trailers": False,
        }


def write_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a line for each header. Raises ValueError for a line break in one.

    It would begin another header, or another response.
    """
    lines = [f"{name.lower()}: {value}\r\n" for name, value in headers]
    text = "".join(lines)
    if text.count("\n") != len(lines):
        raise ValueError("A header contains a line break.")
    return text.encode("latin-1")


def split_lines(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers as ASGI wants them."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])]


SECURITY_LINES = write_lines(SECURITY_HEADERS.items())


def common_lines(request: Request) -> bytes:
    """Return the headers of every response.

    These are the request's id, and what Django's middleware adds to its own responses.
    """
    lines = SECURITY_LINES + f"x-request-id: {request.log.request_id}\r\n".encode()
    if request.scope["scheme"] == "https" and settings.SECURE_HSTS_SECONDS:
        lines += b"strict-transport-security: max-age=%d\r\n" % settings.SECURE_HSTS_SECONDS
    return lines


def response_head(request: Request, response: Response) -> Head:
    """Return the head of a response of a handler.

    204 and 304 have neither a length nor a media type.
    """
    lines = common_lines(request) + response.lines
    if response.headers:
        lines += write_lines(response.headers.items())
    if response.status not in {204, 304}:
        lines += f"content-type: {response.media_type}\r\ncontent-length: {len(response.body)}\r\n".encode()
    return Head(response.status, lines)


def replica_headers(hub: Hub, index: str) -> dict[str, str]:
    """Return the headers of a response from memory."""
    return {INDEX_HEADER: index, **stale_headers(hub)}


def stale_headers(hub: Hub) -> dict[str, str]:
    """Return the header with the replica's age in seconds, once it is stale."""
    return {} if hub.stale_seconds is None else {STALE_HEADER: str(hub.stale_seconds)}
