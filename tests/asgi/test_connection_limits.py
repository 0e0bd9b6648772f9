"""Limits of connections and requests before a handler sees them, on raw sockets."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from service_registry.asgi import transport
from service_registry.asgi.server import limits
from tests.asgi.uvicorn_server import connect, serve
from tests.waiting import wait_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n\r\n"


class Echo:
    """Answers with the body's length and the names of the headers; `/wait` waits for the client to leave.

    A request with `Authorization: accepted` counts as one with an accepted token.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.left = 0

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        self.paths.append(scope["path"])
        if (b"authorization", b"accepted") in scope["headers"]:
            transport.note_accepted_token(send)
        body, more = b"", True
        while more and scope["path"] != "/unread":
            message = await receive()
            if message["type"] != "http.request":
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/wait":
            await receive()
            self.left += 1
            return
        answer = json.dumps({"body": len(body), "headers": [name.decode() for name, _ in scope["headers"]]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


@pytest.fixture
def application() -> Echo:
    return Echo()


@pytest.fixture
def port(application: Echo) -> Iterator[int]:
    with serve(application) as port:
        yield port


def receive_response(client: socket.socket) -> tuple[int, bytes, bytes]:
    """Return the status, the headers and the body of a response, chunks included."""
    received = b""
    while b"\r\n\r\n" not in received or not is_complete(received):
        part = client.recv(65536)
        if not part:
            break
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, head.lower(), body


def is_complete(received: bytes) -> bool:
    head, _, body = received.lower().partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return b"content-length: %d\r\n" % len(body) in head + b"\r\n"


def ask(port: int, *parts: bytes) -> tuple[int, bytes, bytes]:
    with connect(port) as client:
        for part in parts:
            client.sendall(part)
        return receive_response(client)


def is_closed(client: socket.socket) -> bool:
    """Wait for the end of the connection."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def send_until_disconnected(client: socket.socket, data: bytes) -> None:
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        client.sendall(data * 1000)


def problem(response: tuple[int, bytes, bytes]) -> tuple[int, Any]:
    status, head, body = response
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    return status, json.loads(body)["code"]


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X: " + b"a" * limits.HEAD_BYTES,
        GET + b"X-Line: %b\r\n" % (b"a" * 1000) * 40,
        b"GET /" + b"a" * limits.HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
        GET + b"".join(b"x-%d: a\r\n" % number for number in range(limits.HEADERS)) + b"\r\n",
    ],
    ids=["value", "lines", "target", "count"],
)
def test_request_with_too_large_headers_is_refused(port: int, application: Echo, head: bytes) -> None:
    assert problem(ask(port, head)) == (431, "headers_too_large")
    assert application.paths == []


def test_headers_within_the_limits_are_accepted(port: int) -> None:
    lines = b"".join(b"x-%d: %b\r\n" % (number, b"a" * 250) for number in range(limits.HEADERS - 1))
    assert ask(port, GET + lines + b"\r\n")[0] == 200


@pytest.mark.parametrize("begun", [b"G", GET, b"\r\n", GET + b"X: a"])
def test_headers_that_do_not_end_in_time_are_refused(port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
    assert problem(ask(port, begun)) == (408, "request_timeout")


def test_later_headers_that_do_not_end_in_time_are_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(port, GET + b"\r\n") as client:
        assert receive_response(client)[0] == 200
        monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
        client.sendall(b"GET")
        assert problem(receive_response(client)) == (408, "request_timeout")


def test_silent_connection_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
    with connect(port) as client:
        assert client.recv(1) == b""


def test_idle_connection_is_closed_after_keep_alive(application: Echo, settings: Any) -> None:
    settings.REGISTRY_KEEP_ALIVE_SECONDS = 0.2
    with serve(application) as port, connect(port, GET + b"\r\n") as client:
        assert receive_response(client)[0] == 200
        assert client.recv(1) == b""


MALFORMED = {
    "length and chunks": POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "coding that is not chunked": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\na\r\n0\r\n\r\n",
    "folded line": GET + b"X: a\r\n b\r\n\r\n",
    "NUL": GET + b"X: a\0b\r\n\r\n",
    "space before the colon": GET + b"X : a\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no URL": b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
def test_malformed_request_is_refused_and_the_connection_closed(port: int, request_bytes: bytes) -> None:
    with connect(port, request_bytes) as client:
        assert problem(receive_response(client)) == (400, "invalid")
        assert is_closed(client)


def test_endless_trailers_are_cut(port: int) -> None:
    with connect(port, POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ") as client:
        client.sendall(b"a" * 4 * limits.HEAD_BYTES)
        assert problem(receive_response(client)) == (400, "invalid")


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("is_split", [False, True], ids=["one segment", "two segments"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])
def test_upgrade_is_ignored_and_the_body_kept(
    port: int, application: Echo, protocol: bytes, is_split: bool, is_chunked: bool
) -> None:
    size = b"%x" % len(HIDDEN)
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(HIDDEN)
    body = b"%b\r\n%b\r\n0\r\n\r\n" % (size, HIDDEN) if is_chunked else HIDDEN
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUPGRADE: %b\r\n%b\r\n\r\n" % (protocol, framing)
    with connect(port) as client:
        if is_split:
            client.sendall(head)
            wait_for(lambda: application.paths)
            client.sendall(body)
        else:
            client.sendall(head + body)
        status, _head, answer = receive_response(client)
        assert (status, b'"body": %d' % len(HIDDEN) in answer) == (200, True)
        client.sendall(GET + b"\r\n")
        assert receive_response(client)[0] == 200
    assert application.paths == ["/", "/"]


def test_field_of_a_trailer_is_no_header(port: int) -> None:
    trailer = b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    status, _head, answer = ask(port, POST + trailer)
    assert (status, b"authorization" in answer) == (200, False)


def test_http_1_0_client_gets_no_chunks(port: int) -> None:
    with connect(port, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n") as client:
        status, head, body = receive_response(client)
        assert (status, b"chunked" in head, b"connection: close" in head) == (200, False, True)
        assert json.loads(body)["body"] == 0
        assert is_closed(client)


def test_pipelined_requests_are_answered_in_order(port: int, application: Echo) -> None:
    requests = b"".join(
        b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: %b\r\n\r\n" % each
        for each in [(1, b"keep-alive"), (2, b"keep-alive"), (3, b"close")]
    )
    with connect(port, requests) as client:
        assert is_closed(client)
    assert application.paths == ["/1", "/2", "/3"]


def test_client_that_leaves_with_a_request_pipelined_behind_is_noticed(port: int, application: Echo) -> None:
    with connect(port, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" + GET + b"\r\n"):
        wait_for(lambda: application.paths == ["/wait"])
        assert application.left == 0
    wait_for(lambda: application.left == 1)
    assert application.paths == ["/wait"]


def test_client_that_pipelines_without_end_is_disconnected(port: int, application: Echo) -> None:
    with connect(port, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n") as client:
        wait_for(lambda: application.paths)
        send_until_disconnected(client, GET * 1000)
    wait_for(lambda: application.left == 1)


def test_unwanted_body_is_read_within_limits(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNWANTED_BYTES", 100_000)
    unread = b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with connect(port, unread % 90_000 + b"a" * 90_000 + GET + b"\r\n") as client:
        assert receive_response(client)[0] == 200
    with connect(port, unread % 10_000_000) as client:
        assert receive_response(client)[0] == 200
        send_until_disconnected(client, b"a" * 10_000)


def test_connections_of_an_address_are_limited(
    application: Echo, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REGISTRY_MAX_CONNECTIONS_PER_ADDRESS = 3
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.1")
    with serve(application) as port, ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(3)]
        response = ask(port, GET + b"\r\n")
        assert problem(response) == (503, "unavailable")
        assert b"retry-after: 5" in response[1]
        held[0].close()
        wait_for(lambda: ask(port, GET + b"\r\n")[0] == 200)


@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8", "*"])
def test_connections_of_a_trusted_proxy_are_not_limited(
    application: Echo, settings: Any, monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    settings.REGISTRY_MAX_CONNECTIONS_PER_ADDRESS = 1
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    with serve(application) as port, connect(port):
        assert ask(port, GET + b"\r\n")[0] == 200


def test_anonymous_connections_do_not_keep_out_or_displace_callers_with_a_token(
    application: Echo, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REGISTRY_MAX_CONNECTIONS = 20
    monkeypatch.setattr(limits, "SEARCH_PAUSE_SECONDS", 0)
    with_token = GET + b"Authorization: accepted\r\n\r\n"
    waiting = b"GET /wait HTTP/1.1\r\nHost: a\r\nAuthorization: accepted\r\n\r\n"
    with serve(application) as port, ExitStack() as stack:
        idle = stack.enter_context(connect(port, with_token))
        assert receive_response(idle)[0] == 200
        stack.enter_context(connect(port, waiting))
        wait_for(lambda: application.paths == ["/", "/wait"])
        starts = (b"", b"GET / HT", POST + b"Content-Length: 9\r\n\r\na")
        anonymous = [stack.enter_context(connect(port, starts[number % 3])) for number in range(100)]
        assert ask(port, with_token)[0] == 200
        idle.sendall(with_token)
        assert receive_response(idle)[0] == 200
        assert is_closed(anonymous[0])
        assert application.left == 0


def test_new_connection_is_refused_when_every_other_is_needed(application: Echo, settings: Any) -> None:
    settings.REGISTRY_MAX_CONNECTIONS = 2
    waiting = b"GET /wait HTTP/1.1\r\nHost: a\r\nAuthorization: accepted\r\n\r\n"
    with serve(application) as port, connect(port, waiting), connect(port, waiting):
        wait_for(lambda: len(application.paths) == 2)
        assert problem(ask(port, GET + b"\r\n")) == (503, "unavailable")
