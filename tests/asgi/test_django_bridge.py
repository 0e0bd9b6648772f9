"""Django behind uvicorn, over real connections, with small views that show what they were given."""

import http.client
import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast
from weakref import ReferenceType, ref

import pytest
from asgiref.typing import ASGI3Application, ASGIReceiveCallable, HTTPScope
from django.conf import LazySettings
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

from service_registry.asgi.django_bridge import MAX_LOGINS, DjangoBridge
from service_registry.asgi.flow_control import ResponsesInFlight
from service_registry.asgi.headers import Head
from service_registry.asgi.request import BODY_SECONDS
from service_registry.asgi.thread_queue import ThreadQueue
from tests.asgi.clients import make_bodies
from tests.asgi.uvicorn_server import connect, get_requests, send, serve
from tests.waiting import wait_for


@csrf_exempt
def echo(request: HttpRequest) -> HttpResponse:
    """Answer with what the request carries, and the length of its body."""
    text = {name: value for name, value in request.META.items() if isinstance(value, str)}
    seen = text | {"path": request.path, "parameters": request.GET.dict(), "scheme": request.scheme}
    length = str(len(request.read()))
    return JsonResponse(seen, status=201, headers={"X-Body-Length": length})


def set_cookies(_request: HttpRequest) -> HttpResponse:
    response = HttpResponse("done")
    response.set_cookie("first", "1")
    response.set_cookie("second", "2", httponly=True)
    return response


class Chunks:
    """A body in chunks that records whether it was closed."""

    last: "Chunks"

    def __init__(self, *, fails: bool) -> None:
        Chunks.last = self
        self.fails = fails
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b"first "
        if self.fails:
            raise OSError("the rest is lost")
        yield b"last"

    def close(self) -> None:
        self.is_closed = True


def stream(_request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(Chunks(fails=False))


def failing_stream(_request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(Chunks(fails=True))


def failing_view(_request: HttpRequest) -> HttpResponse:
    raise OSError("nothing to read")


urlpatterns = [
    path("cookies", set_cookies),
    path("stream", stream),
    path("failing-stream", failing_stream),
    path("failing-view", failing_view),
    re_path(r"(?s:.*)", echo),
]
MAX_QUEUED = 10


def queue_for(threads: ThreadPoolExecutor) -> ThreadQueue:
    return ThreadQueue("pages of Django", threads, 1, MAX_QUEUED)


def make_bridge(threads: ThreadPoolExecutor, body_seconds: float = BODY_SECONDS) -> DjangoBridge:
    return DjangoBridge(queue_for(threads), ResponsesInFlight(), make_bodies(body_seconds))


@contextmanager
def serve_django(body_seconds: float = BODY_SECONDS) -> Iterator[int]:
    """Serve Django with one thread, and yield the port."""
    with (
        ThreadPoolExecutor(1) as threads,
        serve(cast(ASGI3Application, make_bridge(threads, body_seconds))) as port,
    ):
        yield port


@pytest.fixture(autouse=True)
def _views(settings: LazySettings) -> None:
    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["*"]
    settings.SECURE_SSL_REDIRECT = False


@pytest.fixture
def port() -> Iterator[int]:
    with serve_django() as port:
        yield port


def seen_by_view(port: int, request: bytes) -> Any:
    return json.loads(send(port, request)[2])


def test_request_and_response_are_passed_on(port: int) -> None:
    request = b"POST /a/b?c=%20d HTTP/1.1\r\nHost: here:1\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\nhello"
    status, headers, body = send(port, request)
    seen = json.loads(body)
    assert (status, headers["x-body-length"], headers["content-type"]) == (201, "5", "application/json")
    assert (seen["REQUEST_METHOD"], seen["path"], seen["QUERY_STRING"]) == ("POST", "/a/b", "c=%20d")
    assert seen["parameters"] == {"c": " d"}
    assert (seen["CONTENT_TYPE"], seen["CONTENT_LENGTH"], seen["HTTP_HOST"]) == ("text/x", "5", "here:1")
    assert (seen["REMOTE_ADDR"], seen["SERVER_NAME"], seen["scheme"]) == ("127.0.0.1", "127.0.0.1", "http")


@pytest.mark.parametrize(
    ("sent", "expected"), [(b"/%C3%A9", "/é"), (b"/%FF%00", "/\ufffd\0"), (b"/a%2Fb", "/a/b"), (b"//x", "//x")]
)
def test_path_is_decoded_as_utf_8(port: int, sent: bytes, expected: str) -> None:
    assert seen_by_view(port, b"GET " + sent + b" HTTP/1.1\r\nHost: h\r\n\r\n")["path"] == expected


@pytest.mark.parametrize("charset", ["latin-1", "zlib", "no-such-codec"])
def test_query_is_decoded_as_utf_8_whatever_charset_the_body_has(port: int, charset: str) -> None:
    request = f"GET /?q=%C3%A9 HTTP/1.1\r\nHost: h\r\nContent-Type: text/x; charset={charset}\r\n\r\n"
    assert seen_by_view(port, request.encode())["parameters"] == {"q": "é"}


@pytest.mark.parametrize("parameters", ["a*=nonsense'en'b", "a*0*=nonsense''b; a*1=c", "charset*=nonsense'en'b"])
def test_parameters_of_a_media_type_that_django_cannot_parse_are_left_out(port: int, parameters: str) -> None:
    request = f"GET / HTTP/1.1\r\nHost: h\r\nContent-Type: text/x; {parameters}\r\n\r\n"
    assert seen_by_view(port, request.encode())["CONTENT_TYPE"] == "text/x"


def test_boundary_of_a_multipart_body_is_kept(port: int) -> None:
    sent = b"Content-Type: multipart/form-data; boundary=--x'1; a*=nonsense'en'b"
    seen = seen_by_view(port, b"GET / HTTP/1.1\r\nHost: h\r\n" + sent + b"\r\n\r\n")
    assert seen["CONTENT_TYPE"] == 'multipart/form-data; boundary="--x\'1"'


def test_query_of_bytes_beyond_ascii_is_refused_by_the_server(port: int) -> None:
    """Django would fail on those that are not UTF-8."""
    assert send(port, b"GET /?q=\xff HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 400


def test_repeated_headers_are_joined_and_names_with_underscores_left_out(port: int) -> None:
    lines = [b"X-Twice: a", b"X-Twice: b", b"X_Twice: c", b"Cookie: d=1", b"Cookie: e=2", b"X-Latin: \xe9"]
    seen = seen_by_view(port, b"GET / HTTP/1.1\r\nHost: h\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    assert (seen["HTTP_X_TWICE"], seen["HTTP_COOKIE"], seen["HTTP_X_LATIN"]) == ("a,b", "d=1; e=2", "é")


def test_every_cookie_has_its_own_header(port: int) -> None:
    with connect(port, b"GET /cookies HTTP/1.1\r\nHost: h\r\n\r\n") as connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        cookies = response.headers.get_all("set-cookie")
        response.read()
    assert cookies == ["first=1; Path=/", "second=2; HttpOnly; Path=/"]


def test_chunked_body_gets_a_length(port: int) -> None:
    request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    _, headers, body = send(port, request)
    assert (json.loads(body)["CONTENT_LENGTH"], headers["x-body-length"]) == ("5", "5")


def test_clients_that_send_slowly_hold_no_thread(port: int) -> None:
    slow = [connect(port, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf") for _ in range(20)]
    assert send(port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 201
    for connection in slow:
        connection.close()


def test_body_that_does_not_arrive_in_time_is_answered_with_408() -> None:
    with serve_django(body_seconds=0.2) as port:
        status, headers, body = send(
            port, b"POST / HTTP/1.1\r\nHost: h\r\nX-Request-Id: slow-1\r\nContent-Length: 9\r\n\r\nhalf"
        )
    assert (status, headers["connection"], headers["content-type"]) == (408, "close", "application/problem+json")
    assert (json.loads(body)["status"], headers["x-request-id"]) == (408, "slow-1")


def test_request_that_django_does_not_see_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), serve_django(body_seconds=0.2) as port:
        send(port, b"POST / HTTP/1.1\r\nHost: h\r\nX-Request-Id: slow-1\r\nContent-Length: 9\r\n\r\nhalf")
    (line,) = (vars(line)["fields"] for line in caplog.records if line.name == "service_registry.http.request_log")
    assert (line["status"], line["code"], line["method"], line["request_id"]) == (
        408,
        "request_timeout",
        "POST",
        "slow-1",
    )


def test_streaming_response_is_sent_whole_and_closed(port: int) -> None:
    status, _, body = send(port, b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (status, body, Chunks.last.is_closed) == (200, b"first last", True)


def test_streaming_response_that_fails_is_an_error_and_is_closed(port: int) -> None:
    status, _, body = send(port, b"GET /failing-stream HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (status, b"first" in body, Chunks.last.is_closed) == (500, False, True)


def test_view_that_fails_is_an_error(port: int) -> None:
    assert send(port, b"GET /failing-view HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 500


class Blocking(DjangoBridge):
    """A bridge whose threads wait until the test frees them, and which records the paths that Django is given."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        super().__init__(queue_for(threads), ResponsesInFlight(), make_bodies())
        self.go_on = threading.Event()
        self.paths: list[str] = []
        self.streams: list[ReferenceType[io.BytesIO]] = []

    async def run(
        self, receive: ASGIReceiveCallable, actor: str | None, scope: HTTPScope, stream: io.BytesIO, length: int
    ) -> tuple[Head, bytes]:
        self.streams.append(ref(stream))
        return await super().run(receive, actor, scope, stream, length)

    def respond(self, scope: HTTPScope, stream: io.BytesIO, length: int) -> tuple[Head, bytes]:
        self.paths.append(scope["path"])
        self.go_on.wait(60)
        return super().respond(scope, stream, length)


def test_request_whose_client_leaves_before_its_turn_is_dropped() -> None:
    with ThreadPoolExecutor(1) as threads:
        bridge = Blocking(threads)
        with serve(cast(ASGI3Application, bridge)) as port:
            first = connect(port, get_requests("/first"))
            wait_for(lambda: bridge.paths == ["/first"])
            second = connect(port, get_requests("/second"))
            wait_for(lambda: bridge.queue.places.taken == 2)
            second.close()
            wait_for(lambda: bridge.queue.places.taken == 1)
            third = connect(port, get_requests("/third"))
            wait_for(lambda: bridge.queue.places.taken == 2)
            bridge.go_on.set()
            assert first.recv(4096).startswith(b"HTTP/1.1 201")
            assert third.recv(4096).startswith(b"HTTP/1.1 201")
            first.close()
            third.close()
    assert bridge.paths == ["/first", "/third"]


def test_body_of_a_dropped_request_is_freed_before_its_turn() -> None:
    with ThreadPoolExecutor(1) as threads:
        bridge = Blocking(threads)
        with serve(cast(ASGI3Application, bridge)) as port:
            running = connect(port, b"POST /first HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
            wait_for(lambda: bridge.paths == ["/first"])
            dropped = connect(port, b"POST /second HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
            wait_for(lambda: bridge.queue.places.taken == 2)
            dropped.close()
            wait_for(lambda: [stream() is None for stream in bridge.streams] == [False, True])
            bridge.go_on.set()
            running.close()


@pytest.mark.parametrize(
    ("share", "places", "status", "code"),
    [(1.0, MAX_QUEUED, b"503", b"unavailable"), (0.5, MAX_QUEUED // 2, b"429", b"rate_limited")],
)
def test_requests_without_a_token_beyond_the_queue_or_their_share_are_refused(
    settings: LazySettings, share: float, places: int, status: bytes, code: bytes
) -> None:
    settings.REGISTRY_MAX_SHARE_PER_CALLER = share
    with ThreadPoolExecutor(1) as threads:
        bridge = Blocking(threads)
        with serve(cast(ASGI3Application, bridge)) as port:
            waiting = [connect(port, get_requests(f"/{number}")) for number in range(places)]
            wait_for(lambda: bridge.queue.places.taken == places)
            refused = connect(port, get_requests("/refused"))
            answer = refused.recv(65536)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b"retry-after: 1" in answer.lower()
            assert b'"code":"%b"' % code in answer
            bridge.go_on.set()
            for each in [*waiting, refused]:
                each.close()
    assert "/refused" not in bridge.paths


LOGIN = b"POST /admin/login/ HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nform"


def test_logins_by_password_run_one_at_a_time_beside_pages() -> None:
    with ThreadPoolExecutor(3) as threads:
        bridge = Blocking(threads)
        with serve(cast(ASGI3Application, bridge)) as port:
            waiting = [connect(port, LOGIN) for _ in range(MAX_LOGINS)]
            wait_for(lambda: bridge.logins.places.taken == MAX_LOGINS)
            waiting.append(connect(port, get_requests("/page")))
            wait_for(lambda: "/page" in bridge.paths)
            assert bridge.paths == ["/admin/login/", "/page"]
            with connect(port, LOGIN) as refused:
                assert refused.recv(65536).startswith(b"HTTP/1.1 503")
            bridge.go_on.set()
            for each in waiting:
                assert each.recv(4096).startswith(b"HTTP/1.1 201")
                each.close()
    assert len(bridge.paths) == MAX_LOGINS + 1
