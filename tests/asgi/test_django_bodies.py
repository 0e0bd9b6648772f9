"""Bodies of requests that Django answers, over real connections: which are read, and how much memory they take."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import cast

import pytest
from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from django.conf import LazySettings
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from rest_framework.request import Request
from rest_framework.views import APIView

from service_registry.asgi import django_bodies, flow_control, transport
from service_registry.asgi.app import Application
from service_registry.asgi.django_bodies import PAGE_BODY_BYTES
from service_registry.asgi.django_bridge import DjangoBridge
from service_registry.asgi.flow_control import ResponsesInFlight
from service_registry.asgi.thread_queue import ThreadQueue
from tests.asgi.clients import make_bodies
from tests.asgi.uvicorn_server import connect, read_reply, send, serve
from tests.client import token
from tests.waiting import wait_for

LARGE_BYTES = 1_000_000


@csrf_exempt
def ignore(request: HttpRequest) -> HttpResponse:
    """Answer without the body, as a view does that does not accept the token."""
    return HttpResponse(request.META["CONTENT_LENGTH"])


class Accepting(APIView):
    """Reads the body, as a view does that accepts the token."""

    authentication_classes = ()
    permission_classes = ()

    def put(self, request: Request) -> HttpResponse:
        return HttpResponse(len(request.data))


@csrf_exempt
def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(len(request.read()))


@csrf_exempt
def send_large(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"x" * LARGE_BYTES)


urlpatterns = [
    path("registry/ignored", ignore),
    path("registry/accepted", Accepting.as_view()),
    path("page", read),
    path("large", send_large),
]


@contextmanager
def serve_bridge(responses: ResponsesInFlight) -> Iterator[tuple[DjangoBridge, int]]:
    with ThreadPoolExecutor(1) as threads:
        bridge = DjangoBridge(ThreadQueue("pages", threads, 1, 100), responses, make_bodies())
        with serve(cast(ASGI3Application, bridge)) as port:
            yield bridge, port


@pytest.fixture(autouse=True)
def _views(settings: LazySettings) -> None:
    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["h"]


@pytest.fixture
def served() -> Iterator[tuple[DjangoBridge, int]]:
    with serve_bridge(ResponsesInFlight()) as served:
        yield served


@pytest.fixture
def port(served: tuple[DjangoBridge, int]) -> int:
    return served[1]


def head(method: str, target: str, *lines: str) -> bytes:
    return "\r\n".join(
        [f"{method} {target} HTTP/1.1", "Host: h", "Content-Type: application/json", *lines, "", ""]
    ).encode()


@pytest.mark.parametrize("length", [9, 900_000, 9_000_000])
def test_body_of_a_call_without_an_accepted_token_is_not_waited_for(port: int, length: int) -> None:
    status, _, body = send(port, head("PUT", "/registry/ignored", f"Content-Length: {length}"))
    assert (status, body) == (200, b"%d" % length)


def test_chunked_body_of_a_call_without_an_accepted_token_is_not_waited_for(port: int) -> None:
    chunked = head("PUT", "/registry/ignored", "Transfer-Encoding: chunked")
    assert send(port, chunked + b"5\r\nhello\r\n")[0] == 200


def test_client_without_an_accepted_token_is_not_told_to_send_its_body(port: int) -> None:
    request = head("PUT", "/registry/ignored", "Content-Length: 9", "Expect: 100-continue")
    with connect(port, request) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_connection_can_be_used_after_a_body_that_was_not_read(port: int) -> None:
    with connect(port, head("PUT", "/registry/ignored", "Content-Length: 300000")) as connection:
        assert read_reply(connection)[0] == 200
        connection.sendall(b"x" * 300_000 + head("GET", "/page"))
        assert read_reply(connection)[::2] == (200, b"0")


@pytest.mark.parametrize("framing", ["Content-Length: 2", "Transfer-Encoding: chunked"])
def test_view_that_needs_a_body_that_was_not_read_is_unavailable(port: int, framing: str) -> None:
    """The keys came back between the two times the token was judged. Another attempt succeeds."""
    status, headers, body = send(port, head("PUT", "/registry/accepted", framing) + b"2\r\n{}\r\n0\r\n\r\n")
    assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "1", "unavailable")


@pytest.mark.parametrize("framing", [f"Content-Length: {PAGE_BODY_BYTES + 1}", "Transfer-Encoding: chunked"])
def test_too_large_body_of_a_page_is_refused(port: int, framing: str) -> None:
    sent = b"%x\r\n" % (PAGE_BODY_BYTES + 1) + b"x" * (PAGE_BODY_BYTES + 1) if "chunked" in framing else b""
    status, headers, body = send(port, head("POST", "/page", framing) + sent)
    assert (status, json.loads(body)["code"], headers["connection"]) == (413, "too_large", "close")


def test_largest_body_of_a_page_is_read(port: int) -> None:
    body = b"x" * PAGE_BODY_BYTES
    request = head("POST", "/page", f"Content-Length: {len(body)}") + body
    assert send(port, request)[::2] == (200, b"%d" % len(body))


@pytest.mark.parametrize("framing", [f"Content-Length: {PAGE_BODY_BYTES}", "Transfer-Encoding: chunked"])
def test_bodies_of_pages_are_bounded_in_all(
    served: tuple[DjangoBridge, int], monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    monkeypatch.setattr(django_bodies, "PAGE_BODIES_BYTES", 4 * PAGE_BODY_BYTES + 1)
    bridge, port = served
    with ExitStack() as stack:
        held = [stack.enter_context(connect(port, head("POST", "/page", framing))) for _ in range(4)]
        wait_for(lambda: bridge.bodies.page_bytes == 4 * PAGE_BODY_BYTES)
        status, headers, _ = send(port, head("POST", "/page", "Content-Length: 2") + b"{}")
        assert (status, headers["retry-after"]) == (503, "1")
        assert send(port, head("POST", "/page", "Content-Length: 1") + b"x")[0] == 200
        assert send(port, head("PUT", "/registry/ignored", "Content-Length: 900000"))[0] == 200
        held[0].close()
        wait_for(lambda: send(port, head("POST", "/page", "Content-Length: 2") + b"{}")[0] == 200)
    wait_for(lambda: bridge.bodies.page_bytes == 0)


def test_large_response_is_refused_while_slow_readers_hold_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_control, "STALLED_SECONDS", 60)
    responses = ResponsesInFlight(max_bytes=LARGE_BYTES)
    with serve_bridge(responses) as (_bridge, port), connect(port, head("GET", "/large")) as slow:
        wait_for(lambda: responses.held_bytes == LARGE_BYTES)
        status, headers, body = send(port, head("GET", "/large"))
        assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "1", "unavailable")
        assert send(port, head("GET", "/page"))[0] == 200
        assert send(port, head("POST", "/large"))[::2] == (200, b"x" * LARGE_BYTES)  # the write is done
        assert read_reply(slow)[0] == 200
        wait_for(lambda: send(port, head("GET", "/large"))[0] == 200)


@pytest.mark.parametrize(("path_", "is_known"), [("/registry/changes", True), ("/admin/login/", False)])
def test_connection_of_a_caller_is_known_by_its_calls_of_django(
    application: Application, transactional_db: None, settings: LazySettings, path_: str, is_known: bool
) -> None:
    """It keeps its place when others are closed, and does not queue behind anonymous requests."""
    settings.ROOT_URLCONF = "registry_project.urls"
    connections_seen: list[bool] = []

    async def recording(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await application(scope, receive, send)
        exchange = transport.exchange_of(send)
        connections_seen.append(exchange is not None and exchange.connection.has_accepted_token)

    with serve(cast(ASGI3Application, recording)) as port:
        for bearer in ("unknown", token("registry-readers")):
            send(port, head("GET", path_, f"Authorization: Bearer {bearer}"))
        wait_for(lambda: len(connections_seen) == 2)
    assert connections_seen == [False, is_known]
    asyncio.run(application.process.read_threads.run(connections.close_all))
