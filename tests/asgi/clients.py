"""The client's end of a request for tests without a server, as ASGI's scope, receive and send."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, HTTPScope

from service_registry.access_rules import AccessRules
from service_registry.asgi.auth import Authenticator
from service_registry.asgi.django_bodies import DjangoBodies
from service_registry.asgi.request import BODY_SECONDS, Request
from service_registry.asgi.threads import ReadThreads
from service_registry.caller import Caller
from service_registry.http.callers import Generation, Identity
from service_registry.identity.key_set import KeySet
from service_registry.identity.principal import Principal

GET: HTTPScope = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "client": None,
    "server": None,
    "state": {},
    "extensions": None,
}


def request_scope(method: str, path: str, headers: dict[str, str], query: bytes = b"") -> HTTPScope:
    """Return the scope of a request."""
    sent = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return GET | {"method": method, "path": path, "raw_path": path.encode(), "headers": sent, "query_string": query}


async def discard(_message: ASGISendEvent) -> None:
    """Send to a client that reads everything."""


async def receive_nothing() -> ASGIReceiveEvent:
    """Receive from a client that stays connected and sends nothing."""
    await asyncio.Event().wait()
    raise AssertionError("nothing sets the event")


def make_request(
    scope: HTTPScope = GET, receive: ASGIReceiveCallable = receive_nothing, send: ASGISendCallable = discard
) -> Request:
    return Request(scope, receive, send, operation="test", route=scope["path"], path_parameter="")


def make_bodies(body_seconds: float = BODY_SECONDS) -> DjangoBodies:
    """Return what reads bodies for Django, for requests without a token: one that is known needs the database."""
    return DjangoBodies(Authenticator(ReadThreads()), body_seconds)


def expired_identity() -> Identity:
    """Return the identity of a caller whose token has expired."""
    key_set = KeySet({}, {"keys": []}, frozenset())
    principal = Principal("issuer", "someone", None, frozenset(), 0.0, key_set)
    caller = Caller(principal.actor, principal.groups, frozenset())
    return Identity(caller, principal, principal.expires_at, Generation(key_set, AccessRules({})))


@dataclass
class Body:
    """Receive a request's body in parts, and after the last that the client has disconnected.

    Attributes:
        complete: False when the client disconnects before the end of the body.
        received: how often it was called.
    """

    parts: list[bytes]
    complete: bool = True
    received: int = 0

    async def __call__(self) -> ASGIReceiveEvent:
        self.received += 1
        if not self.parts:
            return {"type": "http.disconnect"}
        part = self.parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts) or not self.complete}


class Client:
    """A client that reads the end of its response only once `reads` is set.

    Arguments:
        body: of its request.
        on_end: called when the end of the response is sent.

    Attributes:
        end_is_sent: set when the end of the response is sent.
        received: what it has read of the response's body.
    """

    def __init__(self, body: bytes = b"", on_end: Callable[[], object] = lambda: None) -> None:
        self.body = body
        self.on_end = on_end
        self.end_is_sent = asyncio.Event()
        self.reads = asyncio.Event()
        self.received = b""
        self.is_received = False

    async def receive(self) -> ASGIReceiveEvent:
        """Receive the body, and then nothing more: the client stays connected."""
        if self.is_received:
            return await receive_nothing()
        self.is_received = True
        body, self.body = self.body, b""
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] != "http.response.body":
            return
        if not message["more_body"]:
            self.on_end()
            self.end_is_sent.set()
            await self.reads.wait()
        self.received += message["body"]
