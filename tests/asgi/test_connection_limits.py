"""Limits of connections and requests before a handler sees them, on raw sockets."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service_registry.asgi.server import limits
from tests.asgi.connections import (
    GET,
    HIDDEN,
    POST,
    Echo,
    ask,
    is_closed,
    problem,
    receive_response,
    send_until_disconnected,
)
from tests.asgi.uvicorn_server import connect, serve
from tests.waiting import wait_for


@pytest.fixture
def application() -> Echo:
    return Echo()


@pytest.fixture
def port(application: Echo) -> Iterator[int]:
    with serve(application) as port:
        yield port


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


@pytest.mark.parametrize("begun", [b"G", GET, GET + b"X: a"])
def test_headers_that_do_not_end_in_time_are_refused(port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
    assert problem(ask(port, begun)) == (408, "request_timeout")


def test_later_headers_that_do_not_end_in_time_are_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(port, GET + b"\r\n") as client:
        assert receive_response(client)[0] == 200
        monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
        client.sendall(b"GET")
        assert problem(receive_response(client)) == (408, "request_timeout")


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_silent_connection_is_closed(port: int, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
    with connect(port, sent) as client:
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
    "bytes beyond ASCII": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes beyond ASCII in a whole URL": b"GET http://a/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
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
