"""Issuer client: valid answers, bad answers, limits on time and size."""

import socket
import time
from functools import partial
from typing import Any

import pytest

from service_registry.identity.issuer_client import FetchFailed, Limits, discover, fetch_json
from tests.identity.issuer_server import Handler, Issuer

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
def test_fetch_of_a_bad_answer_fails(issuer: Issuer, answer: Any) -> None:
    issuer.answers[JWKS] = answer
    with pytest.raises(FetchFailed):
        fetch_json(f"{issuer.url}/jwks", SHORT)
    assert issuer.requested == [JWKS]


@pytest.mark.parametrize("answer", [drip_headers, drip_body, Issuer.hang])
def test_fetch_of_a_slow_answer_fails_before_its_end(issuer: Issuer, answer: Any) -> None:
    issuer.answers[JWKS] = partial(answer, issuer) if answer is Issuer.hang else answer
    with pytest.raises(FetchFailed):
        fetch_json(f"{issuer.url}/jwks", SHORT)
    assert (issuer.requested, issuer.answered) == ([JWKS], [])


def test_fetch_from_a_server_without_tls_handshake_fails_at_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(FetchFailed):
        fetch_json(f"https://127.0.0.1:{silent.getsockname()[1]}/", SHORT)


def test_fetch_from_a_closed_port_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
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
def test_fetch_from_an_untrustworthy_address_fails(url: str) -> None:
    with pytest.raises(FetchFailed):
        fetch_json(url, SHORT)


def test_fetch_of_the_maximum_size_succeeds(issuer: Issuer) -> None:
    issuer.jwks = b'{"a": 1}' + b" " * (256 * 1024 - 8)
    assert fetch_json(f"{issuer.url}/jwks") == {"a": 1}


def test_fetch_ignores_proxies_of_the_environment(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch_json(f"{issuer.url}/jwks", SHORT) == issuer.jwks


@pytest.mark.parametrize("named", [None, "https://other.example", 7])
def test_discovery_document_of_another_issuer_is_refused(issuer: Issuer, named: Any) -> None:
    issuer.discovery["issuer"] = named
    with pytest.raises(FetchFailed):
        discover(issuer.url)
    issuer.discovery["issuer"] = issuer.url
    assert discover(issuer.url) == issuer.discovery
