"""Headers of the responses that the event loop sends."""

from asgiref.typing import HTTPResponseStartEvent
from django.conf import settings

from service_registry.asgi.request import Request
from service_registry.http.request_log import REQUEST_ID_HEADER
from service_registry.http.responses import INDEX_HEADER, Response
from service_registry.http.security_headers import SECURITY_HEADERS
from service_registry.replica.hub import Hub

STALE_HEADER = "X-Registry-Stale"

Headers = list[tuple[bytes, bytes]]


def encode(headers: dict[str, str]) -> Headers:
    """Return headers as ASGI wants them: bytes, with names in lower case."""
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]


SECURITY = encode(SECURITY_HEADERS)
REQUEST_ID = REQUEST_ID_HEADER.lower().encode()


def common_headers(request: Request) -> Headers:
    """Return the headers of every response.

    These are the request's id, and what Django's middleware adds to its own responses.
    """
    headers = [*SECURITY, (REQUEST_ID, request.log.request_id.encode())]
    if request.scope["scheme"] == "https" and settings.SECURE_HSTS_SECONDS:
        headers.append((b"strict-transport-security", b"max-age=%d" % settings.SECURE_HSTS_SECONDS))
    return headers


def response_start(request: Request, response: Response) -> HTTPResponseStartEvent:
    """Return the ASGI message that begins a whole response.

    204 and 304 have neither a length nor a media type.
    """
    headers = common_headers(request) + encode(dict(response.headers))
    if response.status not in {204, 304}:
        length = str(len(response.body)).encode()
        headers += [(b"content-type", response.media_type.encode()), (b"content-length", length)]
    return {"type": "http.response.start", "status": response.status, "headers": headers, "trailers": False}


def replica_headers(hub: Hub, index: str) -> dict[str, str]:
    """Return the headers of a response from memory."""
    return {INDEX_HEADER: index, **stale_headers(hub)}


def stale_headers(hub: Hub) -> dict[str, str]:
    """Return the header with the replica's age in seconds, once it is stale."""
    return {} if hub.stale_seconds is None else {STALE_HEADER: str(hub.stale_seconds)}
