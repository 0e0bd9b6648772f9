"""The routing table, and what the application does around each handler."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import pytest
from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, HTTPScope, Scope

from service_registry.asgi.app import Application, Route
from service_registry.asgi.auth import Authenticator
from service_registry.asgi.reads.discovery import Discovery
from service_registry.asgi.reads.listing import Listing
from service_registry.asgi.request import ClientDisconnected, Request
from service_registry.asgi.watch.handler import Watch
from service_registry.asgi.writes.handler import WriteHandler
from service_registry.http.operations import HEARTBEAT
from service_registry.http.responses import Response
from service_registry.schemas import Heartbeat
from tests.asgi.clients import Body, receive_nothing, request_scope
from tests.client import Answer, Api

DISCOVER = "/registry/services/{name}"
# Method and path, and the operation and the path parameter of the handler that they have to reach.
HOT_PATHS = [
    ("GET", "/livez", "livez", ""),
    ("HEAD", "/livez", "livez", ""),
    ("POST", "/registry/register", "register", ""),
    ("GET", "/readyz", "readyz", ""),
    ("POST", "/registry/heartbeat", "heartbeat", ""),
    ("POST", "/registry/deregister", "deregister", ""),
    ("GET", "/registry/services", "list", ""),
    ("GET", "/registry/services/web", "discover", "web"),
    ("GET", "/registry/services/services", "discover", "services"),
    ("GET", "/registry/watch", "watch", ""),
]
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
HOT = {(method, path) for method, path, *_ in HOT_PATHS}
OTHER_METHODS = [(method, path) for _, path in sorted(HOT) for method in sorted(METHODS) if (method, path) not in HOT]
OTHER_PATHS = [
    *("", "/livez/x", "//livez", "/metrics", "/admin", "/static/x.css", "/registry", "/registry/service"),
    *("/registry//services", "/registry/services/web/x", "/registry/services//web", "/registry/register/web"),
    *("/registry/services/web/owners", "/registry/services/web/release", "/registry/watch/web", "/registry/watching"),
    *("/registry/instance/web-1", "/registry/instance/web/web-1", "/registry/changes", "/registry/schema"),
    *("/registry/docs", "/Registry/services", "/x/registry/services", "/registry/heartbeat", "/registry/nowhere"),
]


@dataclass
class CountingHandler:
    """A handler that answers 200 and keeps the requests that it got, or raises `error`."""

    requests: list[Request] = field(default_factory=list)
    error: Exception | None = None

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        if self.error:
            raise self.error
        return Response(200, b"{}")


@dataclass
class CountingDjango:
    """Stands where Django does, and counts the requests that reach it."""

    calls: int = 0

    async def __call__(self, _scope: HTTPScope, _receive: ASGIReceiveCallable, _send: ASGISendCallable) -> None:
        self.calls += 1


def send(application: Application, scope: HTTPScope, receive: ASGIReceiveCallable = receive_nothing) -> Answer | None:
    """Return the response to a request; None when there was none."""
    sent: list[ASGISendEvent] = []

    async def note(message: ASGISendEvent) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, note))
    if not sent:
        return None
    start, *body = sent
    assert start["type"] == "http.response.start"
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    content = b"".join(part["body"] for part in body if part["type"] == "http.response.body")
    return Answer(start["status"], headers, content)


def with_counting_handlers(application: Application) -> tuple[CountingHandler, CountingDjango]:
    """Put one counting handler behind every route, and another in Django's place."""
    handler, django = CountingHandler(), CountingDjango()
    application.routes = {key: replace(route, handler=handler) for key, route in application.routes.items()}
    application.django = django  # type: ignore[assignment] # it has no threads
    return handler, django


def test_routing_table_has_the_handlers(application: Application) -> None:
    assert application.routes.keys() == {(method, DISCOVER if name else path) for method, path, _, name in HOT_PATHS}
    handlers = {route.operation: route.handler for route in application.routes.values()}
    for operation in ("register", "heartbeat", "deregister"):
        handler = handlers[operation]
        assert isinstance(handler, WriteHandler)
        assert handler.operation.action.name == operation
    assert isinstance(handlers["list"], Listing)
    assert isinstance(handlers["discover"], Discovery)
    assert isinstance(handlers["watch"], Watch)
    assert [route.operation for route in application.routes.values() if route.any_host] == ["livez", "readyz", "livez"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_hot_path_reaches_its_handler(application: Application, slash: str) -> None:
    handler, django = with_counting_handlers(application)
    for method, path, operation, parameter in HOT_PATHS:
        handler.requests.clear()
        reply = send(application, request_scope(method, path + slash, {"Host": "localhost"}))
        assert reply is not None
        assert (reply.status, django.calls) == (200, 0), path
        (request,) = handler.requests
        assert (request.log.operation, request.path_parameter) == (operation, parameter)
        assert request.log.route == (DISCOVER if parameter else path)


@pytest.mark.parametrize("slash", ["", "/"])
def test_everything_else_reaches_django(application: Application, slash: str) -> None:
    handler, django = with_counting_handlers(application)
    for method, path in [*OTHER_METHODS, *(("GET", path) for path in OTHER_PATHS)]:
        django.calls = 0
        send(application, request_scope(method, path + slash, {"Host": "localhost"}))
        assert (len(handler.requests), django.calls) == (0, 1), (method, path)


def test_websocket_is_refused(application: Application) -> None:
    """With wsproto, which only developers install, uvicorn answers 500 for an application that says nothing."""
    sent: list[ASGISendEvent] = []

    async def connect() -> ASGIReceiveEvent:
        return {"type": "websocket.connect"}

    async def note(message: ASGISendEvent) -> None:
        sent.append(message)

    scope = request_scope("GET", "/registry/watch", {"Host": "localhost"}) | {"type": "websocket", "subprotocols": []}
    asyncio.run(application(cast(Scope, scope), connect, note))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_path_with_an_empty_segment_reaches_django(application: Application) -> None:
    handler, django = with_counting_handlers(application)
    for path in ("/", "/registry/", "/livez//", "/registry/services//", "/registry/services/web//"):
        django.calls = 0
        send(application, request_scope("GET", path, {"Host": "localhost"}))
        assert (len(handler.requests), django.calls) == (0, 1), path


def test_unexpected_error_is_a_500_problem_and_logs_its_traceback(
    application: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    application.routes["GET", "/livez"] = Route("failing", CountingHandler(error=KeyError("lost")))
    scope = request_scope("GET", "/livez", {"Host": "localhost", "X-Request-Id": "find-me"})
    reply = send(application, scope)
    assert reply is not None
    assert (reply.status, reply.json["code"], reply.json["request_id"]) == (500, "internal", "find-me")
    assert "lost" not in reply.body.decode()
    assert (reply.headers["content-type"], reply.headers["x-request-id"]) == ("application/problem+json", "find-me")
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["level"], line["event"], line["status"], line["code"]) == ("error", "failing", 500, "internal")
    assert (line["request_id"], line["route"]) == ("find-me", "/livez")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("KeyError: 'lost'")


def test_client_that_disconnects_is_not_answered(application: Application, payments: Api) -> None:
    application.routes["GET", "/livez"] = Route("leaving", CountingHandler(error=ClientDisconnected()))
    assert send(application, request_scope("GET", "/livez", {"Host": "localhost"})) is None
    payments.get("/registry/services")  # so that the token and the grants are cached
    scope = request_scope(
        "POST",
        "/registry/heartbeat",
        {"Host": "localhost", "Authorization": f"Bearer {payments.bearer}", "Content-Type": "application/json"},
    )
    body = Body([])
    assert send(application, scope, body) is None
    assert body.received == 1


def test_repeated_headers_are_joined(application: Application) -> None:
    handler, _ = with_counting_handlers(application)
    scope = request_scope("GET", "/livez", {"Host": "localhost"})
    repeated = [(b"if-none-match", b'"a"'), (b"x-once", b"1"), (b"if-none-match", b'"b"')]
    send(application, {**scope, "headers": [*scope["headers"], *repeated]})
    (request,) = handler.requests
    assert (request.header(b"if-none-match"), request.header(b"x-once")) == ('"a","b"', "1")
    assert request.header(b"x-never") is None


def test_request_without_a_token_is_refused_before_its_body_is_read(application: Application) -> None:
    """Also before the replica is loaded: its age has no figure yet."""
    django = application.django = CountingDjango()  # type: ignore[assignment] # it has no threads
    for method, path, operation, _ in HOT_PATHS:
        if operation in {"livez", "readyz"}:
            continue
        body = Body([b"{}"])
        reply = send(application, request_scope(method, path, {"Host": "localhost", "Content-Length": "2"}), body)
        assert reply is not None
        assert (reply.status, reply.json["code"]) == (401, "not_authenticated"), operation
        assert body.received == 0
    assert django.calls == 0


class CountedHeartbeat(Heartbeat):
    """A heartbeat that counts how often it is validated."""

    validated: ClassVar[int] = 0

    @classmethod
    def model_validate(cls, *args: Any, **options: Any) -> Any:
        CountedHeartbeat.validated += 1
        return super().model_validate(*args, **options)


@pytest.fixture
def counted(application: Application) -> Application:
    """An application that counts how often a heartbeat is validated, and fails when a request reaches Django."""
    CountedHeartbeat.validated = 0
    process = application.process
    handler = WriteHandler(
        replace(HEARTBEAT, model=CountedHeartbeat),
        Authenticator(process.read_threads),
        process.responses,
        process.array_queue,
    )
    application.routes["POST", "/registry/heartbeat"] = Route("heartbeat", handler)
    application.django = CountingDjango()  # type: ignore[assignment] # it sends nothing
    return application


@pytest.mark.parametrize(
    ("parts", "headers", "expected"),
    [
        ([b'{"service_name": "web", ', b'"instance_id": 7}'], {}, (400, 2, 1)),
        ([b"not JSON"], {}, (400, 1, 0)),
        ([b"{}"], {"Content-Type": "text/plain"}, (415, 0, 0)),
        ([b"{}"], {"Content-Length": "99999999"}, (413, 0, 0)),
    ],
    ids=["invalid", "no JSON", "media type", "too large"],
)
def test_refused_request_is_read_and_validated_once(
    counted: Application, payments: Api, parts: list[bytes], headers: dict[str, str], expected: tuple[int, int, int]
) -> None:
    """`expected` are the status, how many parts of the body are read, and how often it is validated."""
    payments.get("/registry/services")  # so that the token and the grants are cached
    usual = {
        "Host": "localhost",
        "Authorization": f"Bearer {payments.bearer}",
        "Content-Type": "application/json",
        "Content-Length": str(sum(map(len, parts))),
    }
    body = Body(list(parts))
    reply = send(counted, request_scope("POST", "/registry/heartbeat", usual | headers), body)
    assert reply is not None
    assert (reply.status, body.received, CountedHeartbeat.validated) == expected
