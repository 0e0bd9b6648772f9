"""What every asynchronous door does: it sees who asks, and answers as Django would.

A door answers only what it knows to be in order. All else (a token it has not met, a permission that is missing, a body
that breaks the contract) it leaves to Django, so that each refusal has one place.
"""

import functools
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from asgiref.typing import ASGISendCallable, HTTPResponseStartEvent, HTTPScope
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from service_registry.api.authentication import caller_of
from service_registry.api.renderer import RegistryJSONRenderer
from service_registry.api.reporting import Answered, tell
from service_registry.caller import Caller
from service_registry.expiry import observation
from service_registry.http.request_id import sane_or_new
from service_registry.http.security_headers import POLICY
from service_registry.identity.tokens import cached_principal_of
from service_registry.permissions import Action, grants

Headers = list[tuple[bytes, bytes]]

# What Django's middleware says with every answer.
SAFE: Headers = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
render = RegistryJSONRenderer().render


@dataclass(slots=True)
class Arrived:
    """A request as it came, with its whole body. `headers` are those of the wire, in lower case."""

    scope: HTTPScope
    body: bytes
    headers: dict[bytes, bytes]
    began: float = field(default_factory=time.perf_counter)
    request_id: str = ""

    def __post_init__(self) -> None:
        self.request_id = sane_or_new(self.headers.get(b"x-request-id", b"").decode("latin-1"))


def arrived(scope: HTTPScope, body: bytes) -> Arrived | None:
    """The request, or None where Django has to judge how it came: for another host, or with a header twice."""
    sent: Headers = [*scope["headers"]]
    headers = dict(sent)
    if len(headers) != len(sent) or not is_our_host(headers.get(b"host", b"")):
        return None
    return Arrived(scope, body, headers)


@functools.lru_cache(maxsize=64)
def is_our_host(host: bytes) -> bool:
    domain, _port = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def is_plain_json(request: Arrived) -> bool:
    """Whether the body is announced as JSON, and the URL asks for nothing besides."""
    media_type = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return media_type == b"application/json" and not request.scope["query_string"]


def bearer_of(request: Arrived) -> str | None:
    """The token, or None where Django has to say what is wrong: with the header, or with this process's clock."""
    scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or observation.this_process().clock_is_wrong:
        return None
    return token.strip() or None


def known_caller(request: Arrived) -> Caller | None:
    """Who asks, without a wait: None where a key or the grants would have to be fetched, or Django has to judge."""
    token = bearer_of(request)
    principal = cached_principal_of(token) if token and grants.are_fresh else None
    return caller_of(principal) if principal else None


def headers_of(request: Arrived) -> Headers:
    """The headers of every answer to it."""
    more: Headers = [(b"x-request-id", request.request_id.encode())]
    if request.scope["scheme"] == "https" and settings.SECURE_HSTS_SECONDS:
        more.append((b"strict-transport-security", b"max-age=%d" % settings.SECURE_HSTS_SECONDS))
    return [*SAFE, *more]


async def answer(
    send: ASGISendCallable, request: Arrived, status: int, data: Any, more: Iterable[tuple[str, str]] = ()
) -> None:
    """Send a whole answer: a document, or a problem where `status` is an error's."""
    await answer_text(send, request, render(data), more, status)


async def answer_text(
    send: ASGISendCallable, request: Arrived, body: bytes, more: Iterable[tuple[str, str]] = (), status: int = 200
) -> None:
    """Send a whole answer that is JSON already, and small: the web server holds it until the client takes it."""
    await send(start_of(request, len(body), more, status))
    await send({"type": "http.response.body", "body": body, "more_body": False})


def start_of(
    request: Arrived, size: int, more: Iterable[tuple[str, str]] = (), status: int = 200
) -> HTTPResponseStartEvent:
    """The beginning of an answer of `size` bytes of JSON."""
    media_type = b"application/json" if status < 400 else b"application/problem+json"
    headers = [(b"content-type", media_type), (b"content-length", str(size).encode()), *headers_of(request)]
    headers += [(name.lower().encode(), value.encode()) for name, value in more]
    return {"type": "http.response.start", "status": status, "headers": headers, "trailers": False}


async def answer_unchanged(send: ASGISendCallable, request: Arrived, more: Iterable[tuple[str, str]]) -> None:
    """304: the caller has it already."""
    headers = [*headers_of(request), *((name.lower().encode(), value.encode()) for name, value in more)]
    await send({"type": "http.response.start", "status": 304, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def answered(
    request: Arrived, action: Action, status: int, caller: Caller, outcomes: Counter[str], **more: Any
) -> Answered:
    """What there is to tell of a verb. `more` are others of its fields."""
    subject: dict[str, Any] = {"namespace": None, "service_name": None, "instance_id": None}
    return Answered(
        method="POST",
        verb=action.name,
        route=f"/registry/{action.name}",
        status=status,
        outcomes=outcomes,
        request_id=request.request_id,
        actor=caller.actor,
        **subject | more,
    )


def report(request: Arrived, this: Answered) -> None:
    """Count and log it, once what became of it is known."""
    tell(this, time.perf_counter() - request.began)
