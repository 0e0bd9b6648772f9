"""The WSGI bridge, over real connections to uvicorn, with small applications that say what they were given."""

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn

from service_registry.asgi.django_bridge import BODY_SECONDS, Bridge, Environ, StartResponse, WSGIApplication

LIMIT = 1000
Serve = Callable[[WSGIApplication], int]


def echo(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Answer with the environ and the body."""
    said = {name: value for name, value in environ.items() if isinstance(value, str)}
    body = environ["wsgi.input"].read()
    start_response("201 Created", [("X-Body-Length", str(len(body))), ("Content-Type", "application/json")])
    return [json.dumps(said).encode()]


@contextmanager
def serving(application: WSGIApplication, body_seconds: float = BODY_SECONDS) -> Iterator[int]:
    """The port of a server whose bridge has one thread."""
    with ThreadPoolExecutor(1) as pool, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        options: dict[str, Any] = {"lifespan": "off", "log_level": "critical", "timeout_graceful_shutdown": 1}
        server = uvicorn.Server(uvicorn.Config(Bridge(application, pool, LIMIT, body_seconds=body_seconds), **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda application: stack.enter_context(serving(application))


def talk(port: int, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(request)
    return connection


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    with talk(port, request) as connection:
        return answer_of(connection)


def test_it_hands_over_request_and_answer(serve: Serve) -> None:
    request = b"POST /a/b?c=%20d HTTP/1.1\r\nHost: here:1\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\nhello"
    status, headers, body = ask(serve(echo), request)
    said = json.loads(body)
    assert (status, headers["x-body-length"]) == (201, "5")
    assert (said["REQUEST_METHOD"], said["PATH_INFO"], said["QUERY_STRING"]) == ("POST", "/a/b", "c=%20d")
    assert (said["CONTENT_TYPE"], said["CONTENT_LENGTH"], said["HTTP_HOST"]) == ("text/x", "5", "here:1")
    assert (said["REMOTE_ADDR"], said["SERVER_NAME"], said["wsgi.url_scheme"]) == ("127.0.0.1", "127.0.0.1", "http")


@pytest.mark.parametrize(
    ("path", "expected"), [(b"/%C3%A9", b"/\xc3\xa9"), (b"/%FF%00", b"/\xff\0"), (b"/a%2Fb", b"/a/b"), (b"//x", b"//x")]
)
def test_a_path_is_the_bytes_of_the_wire(serve: Serve, path: bytes, expected: bytes) -> None:
    _, _, body = ask(serve(echo), b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert json.loads(body)["PATH_INFO"].encode("latin-1") == expected


def test_headers_that_come_twice_are_joined_and_lookalikes_left_out(serve: Serve) -> None:
    lines = [b"X-Twice: a", b"X-Twice: b", b"X_Twice: c", b"Cookie: d=1", b"Cookie: e=2", b"X-Latin: \xe9"]
    _, _, body = ask(serve(echo), b"GET / HTTP/1.1\r\nHost: h\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    said = json.loads(body)
    assert (said["HTTP_X_TWICE"], said["HTTP_COOKIE"], said["HTTP_X_LATIN"]) == ("a,b", "d=1; e=2", "é")


def test_a_chunked_body_gets_its_length(serve: Serve) -> None:
    request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    _, headers, body = ask(serve(echo), request)
    assert (json.loads(body)["CONTENT_LENGTH"], headers["x-body-length"]) == ("5", "5")


def test_a_body_announced_as_too_long_is_not_waited_for(serve: Serve) -> None:
    _, headers, body = ask(serve(echo), b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n")
    assert (json.loads(body)["CONTENT_LENGTH"], headers["x-body-length"]) == ("1001", "0")


def test_a_chunked_body_that_grows_too_long_is_not_read_to_its_end(serve: Serve) -> None:
    request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3e9\r\n" + b"x" * 1001 + b"\r\n"
    _, _, body = ask(serve(echo), request)
    assert int(json.loads(body)["CONTENT_LENGTH"]) > LIMIT


def test_a_connection_goes_on_after_a_body_was_refused(serve: Serve) -> None:
    with talk(serve(echo), b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n") as connection:
        assert answer_of(connection)[0] == 201
        connection.sendall(b"x" * 1001 + b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
        assert json.loads(answer_of(connection)[2])["PATH_INFO"] == "/next"


def test_slow_senders_hold_no_thread(serve: Serve) -> None:
    port = serve(echo)
    slow = [talk(port, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf") for _ in range(20)]
    assert ask(port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 201
    for connection in slow:
        connection.close()


def test_a_body_that_does_not_arrive_in_time_ends_the_request() -> None:
    with serving(echo, body_seconds=0.2) as port:
        status, headers, body = ask(port, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf")
    assert (status, headers["connection"], headers["content-type"]) == (408, "close", "application/problem+json")
    assert json.loads(body)["status"] == 408


class Stream:
    """An answer in chunks, each given when it is asked for; it tells when it was closed, and where it ran."""

    def __init__(self, chunks: int = 2) -> None:
        self.chunks = chunks
        self.may_go_on = threading.Semaphore(0)
        self.closed = threading.Event()
        self.threads: set[str] = set()

    def __call__(self, _environ: Environ, start_response: StartResponse) -> "Stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.chunks):
            self.threads.add(threading.current_thread().name)
            yield f"{number} ".encode()
            self.may_go_on.acquire(timeout=5)

    def close(self) -> None:
        self.closed.set()


def test_a_stream_is_sent_as_it_is_made_on_one_thread(serve: Serve) -> None:
    stream = Stream()
    with talk(serve(stream), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.read1(100) == b"0 "
        assert not stream.closed.is_set()
        stream.may_go_on.release(2)
        assert answer.read() == b"1 "
    assert stream.closed.wait(5)
    assert len(stream.threads) == 1


def test_a_client_that_leaves_ends_its_stream(serve: Serve) -> None:
    stream = Stream(1_000_000)
    stream.may_go_on.release(1)
    talk(serve(stream), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").close()
    while not stream.closed.wait(0.05):
        stream.may_go_on.release(1)


def test_a_stream_that_fails_is_not_passed_off_as_whole(serve: Serve) -> None:
    def failing(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"some"
        raise OSError("the rest is lost")

    with pytest.raises(http.client.IncompleteRead):
        ask(serve(failing), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")


def test_a_whole_answer_is_closed_and_its_failure_answered(serve: Serve) -> None:
    class Failing(io.BytesIO):
        streaming = False

        def __next__(self) -> bytes:
            raise OSError("nothing to read")

    failing = Failing()

    def application(_environ: Environ, start_response: StartResponse) -> Failing:
        start_response("200 OK", [])
        return failing

    assert ask(serve(application), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 500
    assert failing.closed
