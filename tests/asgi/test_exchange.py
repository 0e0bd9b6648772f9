"""Responses on a connection, whatever the application does, on raw sockets."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable

from service_registry.asgi import transport
from tests.asgi.connections import (
    GET,
    POST,
    Handler,
    read_to_end,
    receive_response,
    receive_until_disconnected,
    start,
    write,
)
from tests.asgi.uvicorn_server import connect, serve
from tests.waiting import wait_for

Answer = Callable[[ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]
CLOSE = b"Connection: close\r\n"
LENGTH_2 = (b"content-length", b"2")


def ask_for(answer: Answer, request: bytes) -> bytes:
    """Return all that a client receives until the connection ends."""
    with serve(Handler(answer)) as port, connect(port, request) as client:
        return read_to_end(client)


async def answer_ok(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await start(send, LENGTH_2)
    await write(send, b"ok")


async def answer_at_once(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    exchange = transport.exchange_of(send)
    assert exchange
    assert exchange.respond(200, b"content-type: text/plain\r\ncontent-length: 2\r\n", b"ok")


async def answer_in_parts(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """A part without content must not end the body: a chunk of no bytes is the last one."""
    await start(send)
    for part in (b"first ", b"", b"second "):
        await write(send, part, more=True)
    await write(send, b"last")


def test_response_has_the_headers_of_the_server() -> None:
    received = ask_for(answer_ok, GET + CLOSE + b"\r\n")
    assert re.search(rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", received)


def test_body_of_unknown_length_is_sent_in_chunks() -> None:
    head, _, body = ask_for(answer_in_parts, GET + CLOSE + b"\r\n").partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"6\r\nfirst \r\n7\r\nsecond \r\n4\r\nlast\r\n0\r\n\r\n"


@pytest.mark.parametrize("answer", [answer_ok, answer_at_once, answer_in_parts])
@pytest.mark.parametrize("connection", [b"", b"Connection: keep-alive\r\n"])
def test_connection_of_http_1_0_is_closed_after_the_response(answer: Answer, connection: bytes) -> None:
    received = ask_for(answer, b"GET / HTTP/1.0\r\nHost: a\r\n" + connection + b"\r\n")
    assert (received[:12], received.lower().count(b"connection: close"), b"chunked" in received) == (
        b"HTTP/1.1 200",
        1,
        False,
    )
    assert received.partition(b"\r\n\r\n")[2] in {b"ok", b"first second last"}


@pytest.mark.parametrize(
    ("answer", "framing"),
    [(answer_ok, b"content-length: 2\r\n"), (answer_at_once, b"content-length: 2\r\n"), (answer_in_parts, b"")],
)
def test_response_to_head_has_no_body(answer: Answer, framing: bytes) -> None:
    received = ask_for(
        answer, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + b"HEAD / HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n"
    )
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert received.count(framing) >= 2
    assert b"chunked" not in received
    assert re.sub(rb"HTTP/1.1 200 OK\r\n(?:[^\r]+\r\n)+\r\n", b"", received) == b""


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_announces_none(status: int) -> None:
    async def answer(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start(send, status=status)
        await write(send, b"")

    received = ask_for(answer, GET + CLOSE + b"\r\n")
    assert (b"chunked" in received, received.partition(b"\r\n\r\n")[2]) == (False, b"")


def test_connection_that_the_application_closes_is_closed() -> None:
    async def answer(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start(send, LENGTH_2, (b"connection", b"Close"))
        await write(send, b"ok")

    received = ask_for(answer, GET + b"\r\n" + GET + b"\r\n")
    assert (received.count(b"HTTP/1.1"), received.lower().count(b"connection: close")) == (1, 1)


async def inject_header(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await start(send, (b"x-name", b"a\r\nset-cookie: b"), LENGTH_2)
    await write(send, b"ok")


async def send_body_first(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await write(send, b"ok")


async def fail(_receive: ASGIReceiveCallable, _send: ASGISendCallable) -> None:
    raise OSError


async def return_without_response(_receive: ASGIReceiveCallable, _send: ASGISendCallable) -> None:
    """Send nothing."""


@pytest.mark.parametrize("answer", [send_body_first, fail, return_without_response])
def test_application_that_fails_before_its_response_is_an_error(answer: Answer) -> None:
    received = ask_for(answer, GET + b"\r\n")
    assert received.startswith(b"HTTP/1.1 500")
    assert received.endswith(b"\r\n\r\nInternal Server Error")
    assert received.lower().count(b"connection: close") == 1


def test_line_break_in_a_header_sends_nothing_of_it() -> None:
    assert b"set-cookie" not in ask_for(inject_header, GET + b"\r\n")


async def fail_amid_body(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await start(send)
    await write(send, b"part", more=True)
    raise OSError


async def return_amid_body(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await start(send)
    await write(send, b"part", more=True)


async def start_twice(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await start(send)
    await start(send)


async def send_too_much(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await start(send, LENGTH_2)
    await write(send, b"o", more=True)
    await write(send, b"kk", more=True)


async def send_too_little(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await start(send, LENGTH_2)
    await write(send, b"o")


@pytest.mark.parametrize(
    "answer", [fail_amid_body, return_amid_body, start_twice, send_too_much, send_too_little, inject_header]
)
def test_application_that_fails_amid_its_response_ends_the_connection(answer: Answer) -> None:
    """The client must not take what it has for the whole response, nor anything else for the rest."""
    received = ask_for(answer, GET + b"\r\n")
    assert received.count(b"HTTP/1.1") <= 1
    assert b"0\r\n\r\n" not in received
    assert not received.endswith((b"\r\n\r\nok", b"kk"))


def test_message_behind_a_complete_response_is_not_sent() -> None:
    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await answer_ok(receive, send)
        with pytest.raises(RuntimeError):
            await write(send, b"more")

    handler = Handler(answer)
    with serve(handler) as port, connect(port, GET + b"\r\n") as client:
        assert receive_response(client)[2] == b"ok"
        wait_for(lambda: handler.ended)
        client.sendall(GET + b"\r\n")
        assert receive_response(client)[2] == b"ok"


def test_complete_response_ends_a_wait_for_the_disconnect() -> None:
    """Also a wait that has begun before."""

    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        waits = asyncio.create_task(receive_until_disconnected(receive))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await answer_ok(receive, send)
        await waits
        await receive_until_disconnected(receive)

    handler = Handler(answer)
    with serve(handler) as port, connect(port, GET + b"\r\n") as client:
        assert receive_response(client)[2] == b"ok"
        wait_for(lambda: handler.ended)


def test_client_that_does_not_read_makes_the_application_wait() -> None:
    parts = []

    async def answer(_receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start(send)
        for number in range(100):
            await write(send, b"x" * 50_000, more=number < 99)
            parts.append(number)

    handler = Handler(answer)
    with serve(handler) as port:
        with connect(port, GET + CLOSE + b"\r\n") as client:
            wait_for(lambda: handler.exchanges and handler.exchanges[0].connection.is_write_paused)
            assert len(parts) < 20
            assert len(read_to_end(client)) > 5_000_000
        with connect(port, GET + CLOSE + b"\r\n"):
            wait_for(lambda: len(handler.exchanges) == 2 and handler.exchanges[1].connection.is_write_paused)
        wait_for(lambda: len(handler.ended) == 2)  # the second client has left


def test_client_gets_one_continue_when_the_body_is_wanted() -> None:
    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        while (await receive()).get("more_body"):
            pass
        await answer_ok(receive, send)

    with serve(Handler(answer)) as port:
        with connect(port, POST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n" + CLOSE + b"\r\n") as client:
            assert client.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(b"a")
            client.sendall(b"b")
            received = read_to_end(client)
        assert (received[:12], received.count(b" 100 ")) == (b"HTTP/1.1 200", 0)
        assert ask_for(answer, POST + b"Content-Length: 2\r\n" + CLOSE + b"\r\nab").startswith(b"HTTP/1.1 200")


def test_no_continue_is_sent_amid_a_response() -> None:
    async def answer(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await start(send, LENGTH_2)
        await write(send, b"o", more=True)
        await receive()
        await write(send, b"k")

    request = POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n" + CLOSE + b"\r\nab"
    assert ask_for(answer, request).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("answer", [answer_ok, answer_at_once])
def test_response_in_place_of_a_continue_closes_the_connection(answer: Answer) -> None:
    """A client may send another request then, or the body: nobody can tell one from the other."""
    received = ask_for(answer, POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n" + GET + b"\r\n")
    assert (received.count(b"connection: close"), received[-6:]) == (1, b"\r\n\r\nok")
