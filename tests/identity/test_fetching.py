"""What is taken from an issuer over HTTP, and for how long it is listened to."""

import socket
import time
from typing import Any

import pytest

from service_registry.identity.fetching import FetchFailed, Limits, discover, fetch_json
from tests.identity.issuing import Handler, Issuer

SHORT = Limits(connect_seconds=0.5, total_seconds=0.5)
JWKS = "/realm/jwks"


def drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        handler.wfile.write(f"X-{number}: x\r\n".encode())
        time.sleep(0.1)


def drip_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def redirect(handler: Handler) -> None:
    handler.send(b"{}", 302, Location="/realm/.well-known/openid-configuration")


@pytest.mark.parametrize(
    "answer",
    [
        drip_headers,
        drip_body,
        endless,
        redirect,
        lambda handler: handler.send(b"{}", 500),
        lambda handler: handler.send(b"{}", 204),
        lambda handler: handler.send(b"<html>"),
        lambda handler: handler.send(b""),
        lambda handler: handler.send(b"[" * 100_000),
        lambda handler: handler.send(b'{"a": 1}' + b" " * 256 * 1024),
        lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
        lambda handler: handler.connection.shutdown(socket.SHUT_RDWR),
    ],
)
def test_it_gives_up(issuer: Issuer, answer: Any) -> None:
    issuer.answers[JWKS] = answer
    begun_at = time.monotonic()
    with pytest.raises(FetchFailed):
        fetch_json(f"{issuer.url}/jwks", SHORT)
    assert time.monotonic() - begun_at < 1
    assert issuer.asked == [JWKS]


def test_it_gives_up_on_silence(issuer: Issuer) -> None:
    issuer.answers[JWKS] = issuer.hang
    begun_at = time.monotonic()
    with pytest.raises(FetchFailed):
        fetch_json(f"{issuer.url}/jwks", SHORT)
    assert time.monotonic() - begun_at < 1


def test_it_gives_up_on_a_tls_handshake_that_never_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun_at = time.monotonic()
        with pytest.raises(FetchFailed):
            fetch_json(f"https://127.0.0.1:{mute.getsockname()[1]}/", SHORT)
    assert time.monotonic() - begun_at < 1


def test_it_gives_up_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(FetchFailed):
        fetch_json(f"http://127.0.0.1:{port}/", SHORT)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/",
        "http://127.0.0.1.nip.example/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "//127.0.0.1/",
        "",
        "http://user@127.0.0.1/",
        "http://[::1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/\r\nX: y",
    ],
)
def test_it_asks_nobody_who_cannot_be_trusted(url: str) -> None:
    with pytest.raises(FetchFailed):
        fetch_json(url, SHORT)


def test_it_takes_what_is_within_the_limits(issuer: Issuer) -> None:
    issuer.jwks = b'{"a": 1}' + b" " * (256 * 1024 - 8)
    assert fetch_json(f"{issuer.url}/jwks") == {"a": 1}


def test_proxies_of_the_environment_are_not_used(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch_json(f"{issuer.url}/jwks", SHORT) == issuer.jwks


@pytest.mark.parametrize("named", [None, "https://other.example", 7])
def test_discovery_must_be_of_this_issuer(issuer: Issuer, named: Any) -> None:
    issuer.discovery["issuer"] = named
    with pytest.raises(FetchFailed):
        discover(issuer.url)
    issuer.discovery["issuer"] = issuer.url
    assert discover(issuer.url) == issuer.discovery
