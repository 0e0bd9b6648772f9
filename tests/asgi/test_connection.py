"""Connections on raw sockets: refusals, unread bodies, clients that leave, shutdown."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable
from django.conf import LazySettings

from service_registry.asgi import transport
from service_registry.asgi.server import limits
from tests.asgi.connections import (
    GET,
    POST,
    Echo,
    Handler,
    answer_unread,
    ask,
    is_closed,
    problem,
    read_to_end,
    receive_response,
    receive_until_disconnected,
    refuse_unread,
    send_until_disconnected,
    start,
    write,
)
from tests.asgi.uvicorn_server import connect, run_server, serve
from tests.waiting import wait_for

MALFORMED = b"NONSENSE\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"
# Longer than any test waits: what ends before has another cause.
LONG_SECONDS = 300


@pytest.fixture
def application() -> Echo:
    return Echo()


@pytest.fixture
def port(application: Echo) -> Iterator[int]:
    with serve(application) as port:
        yield port


# --- Heads ---


@pytest.mark.parametrize("place", [1, 20, -3, -2, -1])
def test_head_in_two_segments_is_read(port: int, place: int) -> None:
    request = GET + b"X: a\r\n\r\n"
    with connect(port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            client.sendall(request[:place])
            time.sleep(0.02)  # so that the server reads them one by one
            client.sendall(request[place:])
            assert receive_response(client)[0] == 200


@pytest.mark.parametrize("empty", [b"\r\n", b"\r\n\r\n", b"\n\r\n\r\n\r"])
def test_empty_lines_around_requests_are_no_requests(
    port: int, application: Echo, caplog: pytest.LogCaptureFixture, empty: bytes
) -> None:
    """RFC 9112, section 2.2."""
    with connect(port) as client:
        for path in (b"/first", b"/second", b"/third"):
            client.sendall(empty + b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path + empty)
            assert receive_response(client)[0] == 200
        client.sendall(empty + b"GET /last HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n")
        assert read_to_end(client).count(b"HTTP/1.1 ") == 1
    assert application.paths == ["/first", "/second", "/third", "/last"]
    assert not caplog.records


def test_client_that_trickles_its_head_gains_no_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.5)
    ended = threading.Event()
    with connect(port, GET) as client:

        def trickle() -> None:
            while not ended.wait(0.05):
                client.sendall(b"X-Name: a\r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert problem(receive_response(client)) == (408, "request_timeout")
        finally:
            ended.set()
            thread.join()


def test_request_under_way_has_no_deadline_and_an_idle_connection_has(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await asyncio.sleep(4 * limits.CHECK_SECONDS)
        await answer_unread(receive, send)

    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.1)
    settings.REGISTRY_KEEP_ALIVE_SECONDS = 0.1
    with serve(Handler(answer)) as port, connect(port, GET + b"\r\n") as client:
        assert receive_response(client)[2] == b"ok"
        assert is_closed(client)


def test_idle_connection_is_closed_without_a_response_after_a_head_in_two_segments(
    application: Echo, settings: LazySettings
) -> None:
    settings.REGISTRY_KEEP_ALIVE_SECONDS = 0.2
    with serve(application) as port, connect(port, GET) as client:
        time.sleep(0.02)
        client.sendall(b"\r\n")
        assert receive_response(client)[0] == 200
        assert read_to_end(client) == b""


# --- Refusals ---


def test_refused_client_may_read_why_although_it_sends_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", LONG_SECONDS)
    with connect(port, MALFORMED) as client:
        for _ in range(50):
            client.sendall(b"x" * 10_000)
        assert problem(receive_response(client)) == (400, "invalid")
        assert client.recv(1) == b""


def test_refused_client_that_sends_without_end_is_disconnected(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", LONG_SECONDS)
    with connect(port, MALFORMED) as client:
        send_until_disconnected(client, b"x" * limits.LINGER_BYTES)


def test_refused_client_that_stays_is_disconnected(
    port: int, application: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.1)
    with connect(port, GET + b"\r\n") as client:
        assert receive_response(client)[0] == 200
        client.sendall(MALFORMED)
        wait_for(lambda: application.table.refused)
        wait_for(lambda: not application.table.refused)


def test_request_behind_a_refused_one_is_not_answered(
    port: int, application: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", 1)
    with connect(port, MALFORMED + GET + b"\r\n") as client:
        assert problem(receive_response(client)) == (400, "invalid")
        client.sendall(GET + b"\r\n")
        assert is_closed(client)
    assert application.paths == []


def test_lingering_connections_are_limited(port: int, application: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", LONG_SECONDS)
    monkeypatch.setattr(limits, "MAX_LINGERING", 1)
    with connect(port, GET + b"\r\n") as first, connect(port, GET + b"\r\n") as second:
        assert [receive_response(client)[0] for client in (first, second)] == [200, 200]
        first.sendall(MALFORMED)
        wait_for(lambda: application.table.refused)
        second.sendall(MALFORMED)
        wait_for(lambda: not application.table.admitted)  # a refused connection takes no place of others
        assert len(application.table.refused) == 1
    wait_for(lambda: not application.table.refused)


def test_malformed_body_amid_the_response_ends_the_connection_without_a_problem() -> None:
    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start(send)
        await write(send, b"part", more=True)
        await receive_until_disconnected(receive)

    handler = Handler(answer)
    with serve(handler) as port, connect(port, POST + CHUNKED + b"\r\n") as client:
        wait_for(lambda: handler.exchanges and handler.exchanges[0].is_started)
        client.sendall(b"nonsense\r\n")
        assert read_to_end(client).count(b"HTTP/1.1 ") == 1
        wait_for(lambda: handler.ended)


def test_nothing_is_sent_behind_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive_until_disconnected(receive)
        await answer_unread(receive, send)

    handler = Handler(answer)
    with serve(handler) as port, connect(port, POST + CHUNKED + b"\r\n") as client:
        wait_for(lambda: handler.exchanges)
        client.sendall(b"nonsense\r\n")
        received = read_to_end(client)
        wait_for(lambda: handler.ended)
    assert (received[:12], b"HTTP/1.1 200" in received) == (b"HTTP/1.1 400", False)
    assert not caplog.records


# --- Bodies ---


@pytest.mark.parametrize(
    ("is_accepted", "part"),
    [(False, limits.ANONYMOUS_READ_BYTES), (True, limits.READ_BYTES)],
    ids=["anonymous", "token"],
)
def test_body_that_the_application_does_not_read_takes_bounded_memory(is_accepted: bool, part: int) -> None:
    read = threading.Event()
    sizes: list[int] = []

    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if is_accepted:
            transport.note_accepted_token(send)
        while not read.is_set():
            await asyncio.sleep(0.02)
        more = True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            sizes.append(len(message["body"]))
            more = message["more_body"]
        await answer_unread(receive, send)

    handler, size = Handler(answer), 4 * 1024 * 1024
    read.set()
    with serve(handler) as port, connect(port, GET + b"\r\n") as client:
        assert receive_response(client)[2] == b"ok"  # the connection has shown its token, if any
        read.clear()
        head = POST + b"Content-Length: %d\r\n\r\n" % size
        sender = threading.Thread(target=client.sendall, args=(head + b"x" * size,))
        sender.start()
        wait_for(lambda: len(handler.exchanges) == 2 and len(handler.exchanges[1].body) >= part)
        sender.join(1)
        assert sender.is_alive()  # the kernel's buffers are smaller than that
        assert len(handler.exchanges[1].body) < 2 * part
        read.set()
        assert receive_response(client)[2] == b"ok"
        sender.join()
    assert sum(sizes) == size


def test_body_is_freed_when_its_client_leaves() -> None:
    leave = threading.Event()

    async def answer(_receive: ASGIReceiveCallable, _send: ASGISendCallable) -> None:
        while not leave.is_set():
            await asyncio.sleep(0.02)

    handler = Handler(answer)
    with serve(handler) as port:
        with connect(port, POST + b"Content-Length: 9\r\n\r\nbody"):
            wait_for(lambda: handler.exchanges and handler.exchanges[0].body)
        wait_for(lambda: not handler.exchanges[0].body)
        leave.set()


@pytest.mark.parametrize("is_split", [False, True], ids=["one segment", "two segments"])
def test_request_behind_a_chunked_body_is_answered_or_left_to_the_client(
    port: int, application: Echo, is_split: bool
) -> None:
    """In the same segment it is dropped with the connection: only the parser knows where the body ends."""
    body = b"2\r\nab\r\n0\r\n\r\n"
    with connect(port) as client:
        if is_split:
            client.sendall(POST + CHUNKED + b"\r\n" + body)
            assert receive_response(client)[0] == 200
            client.sendall(GET + CLOSE + b"\r\n")
        else:
            client.sendall(POST + CHUNKED + b"\r\n" + body + GET + b"\r\n")
        received = read_to_end(client)
    assert (received[:12], received.count(b"HTTP/1.1"), received.count(b"connection: close")) == (b"HTTP/1.1 200", 1, 1)
    assert application.paths == ["/"] * (1 + is_split)


def test_overhead_of_chunked_bodies_counts_for_each_request(port: int) -> None:
    trailer = b"0\r\nX: " + b"a" * (limits.HEAD_BYTES * 3 // 4) + b"\r\n\r\n"
    with connect(port) as client:
        for _ in range(3):
            client.sendall(POST + CHUNKED + b"\r\n" + trailer)
            assert receive_response(client)[0] == 200


def test_large_chunks_are_no_overhead(port: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (20_000, b"x" * 20_000)
    assert b'"body": 400000' in ask(port, POST + CHUNKED + b"\r\n" + chunk * 20 + b"0\r\n\r\n")[2]


def test_unwanted_body_is_read_past_and_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNWANTED_SECONDS", LONG_SECONDS)
    handler, size = Handler(answer_unread), 3_000_000
    with serve(handler) as port, connect(port, POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * 100) as client:
        assert receive_response(client)[2] == b"ok"
        client.sendall(b"x" * (size - 200))
        assert handler.exchanges[0].body == b""
        client.sendall(b"x" * 100 + GET + b"\r\n")
        assert receive_response(client)[2] == b"ok"


@pytest.mark.parametrize(("refuses", "responses"), [(False, 2), (True, 1)], ids=["next request", "close"])
def test_unwanted_body_that_has_filled_the_buffer_is_read_past(
    monkeypatch: pytest.MonkeyPatch, refuses: bool, responses: int
) -> None:
    """Reading was paused when the response was complete."""
    monkeypatch.setattr(limits, "UNWANTED_SECONDS", LONG_SECONDS)
    monkeypatch.setattr(limits, "LINGER_SECONDS", LONG_SECONDS)
    go_on = threading.Event()

    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        while not go_on.is_set():
            await asyncio.sleep(0.02)
        await (refuse_unread if refuses else answer_unread)(receive, send)

    handler, size = Handler(answer), 900_000
    with serve(handler) as port, connect(port, POST + b"Content-Length: %d\r\n\r\n" % size) as client:
        sender = threading.Thread(target=client.sendall, args=(b"x" * size + GET + CLOSE + b"\r\n",))
        sender.start()
        wait_for(lambda: handler.exchanges and len(handler.exchanges[0].body) >= limits.ANONYMOUS_READ_BYTES)
        go_on.set()
        sender.join()
        assert read_to_end(client).count(b"HTTP/1.1 ") == responses
        assert handler.exchanges[0].body == b"" or refuses


def test_unwanted_body_that_does_not_end_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNWANTED_SECONDS", 0.1)
    with serve(Handler(answer_unread)) as port, connect(port, POST + b"Content-Length: 9\r\n\r\n") as client:
        assert receive_response(client)[2] == b"ok"
        assert is_closed(client)


@pytest.mark.parametrize("sent", [0, 900_000])
def test_refusal_of_a_body_that_still_arrives_is_received(monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
    monkeypatch.setattr(limits, "UNWANTED_SECONDS", LONG_SECONDS)
    monkeypatch.setattr(limits, "LINGER_SECONDS", LONG_SECONDS)
    with serve(Handler(refuse_unread)) as port, connect(port, POST + b"Content-Length: 900000\r\n\r\n") as client:
        client.sendall(b"x" * sent)
        received = b"".join(iter(lambda: client.recv(65536), b""))  # it ends without a reset
        assert (received[:12], received[-2:]) == (b"HTTP/1.1 400", b"no")


# --- Ends ---


def test_client_that_closes_its_side_is_taken_for_one_that_has_left(port: int, application: Echo) -> None:
    with connect(port, WAIT) as client:
        wait_for(lambda: application.paths)
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: application.left == 1)
        assert is_closed(client)


def test_client_that_does_not_read_its_last_response_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start(send, (b"content-length", b"3000000"))
        await write(send, b"x" * 3_000_000)

    monkeypatch.setattr(limits, "CLOSE_SECONDS", 0.1)
    handler = Handler(answer)
    with serve(handler) as port, connect(port, GET + CLOSE + b"\r\n"):
        wait_for(lambda: handler.ended)
        table = handler.exchanges[0].connection.table
        assert table.admitted
        wait_for(lambda: not table.admitted)


def test_shutdown_closes_idle_connections_and_lets_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", LONG_SECONDS)
    go_on = threading.Event()

    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        while not go_on.is_set():
            await asyncio.sleep(0.02)
        await answer_unread(receive, send)

    handler = Handler(answer)
    with (
        run_server(handler, timeout_graceful_shutdown=None) as (server, port),
        connect(port) as silent,
        connect(port, GET + b"\r\n") as active,
    ):
        wait_for(lambda: handler.exchanges)
        server.should_exit = True
        assert is_closed(silent)
        assert not handler.ended
        go_on.set()
        received = read_to_end(active)
    assert (received.count(b"connection: close"), received[-2:]) == (1, b"ok")


def test_host_of_an_absolute_target_replaces_the_header(application: Echo, port: int) -> None:
    request = b"GET http://other.example:81/a HTTP/1.1\r\nHost: h\r\n\r\n"
    assert ask(port, request)[0] == 200
    headers = application.exchanges[-1].scope["headers"]
    assert [value for name, value in headers if name == b"host"] == [b"other.example:81"]
