"""Requests as the event loop reads them."""

import asyncio

import pytest
from django.conf import LazySettings

from service_registry.asgi.request import ClientDisconnected, read_body
from service_registry.exceptions import BodyTooLarge, RequestTimeout
from tests.asgi.clients import GET, Body, make_request, receive_nothing, request_scope

LIMIT_BYTES = 1000


def test_body_in_parts_is_joined() -> None:
    assert asyncio.run(read_body(GET, Body([b"a", b"", b"bc"]), 60, LIMIT_BYTES)) == b"abc"
    assert asyncio.run(read_body(GET, Body([b"x" * LIMIT_BYTES]), 60, LIMIT_BYTES)) == b"x" * LIMIT_BYTES


def test_body_announced_as_too_large_is_not_read() -> None:
    scope = request_scope("POST", "/", {"Content-Length": str(LIMIT_BYTES + 1)})
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(scope, receive_nothing, 60, LIMIT_BYTES))


def test_body_that_grows_too_large_is_not_read_to_its_end() -> None:
    body = Body([b"x" * LIMIT_BYTES, b"x", b"never read"])
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(GET, body, 60, LIMIT_BYTES))
    assert body.parts == [b"never read"]


def test_body_of_a_client_that_disconnects_raises() -> None:
    with pytest.raises(ClientDisconnected):
        asyncio.run(read_body(GET, Body([b"half"], complete=False), 60, LIMIT_BYTES))


def test_body_that_does_not_arrive_in_time_raises() -> None:
    with pytest.raises(RequestTimeout):
        asyncio.run(read_body(GET, receive_nothing, 0.01, LIMIT_BYTES))


@pytest.mark.parametrize(
    ("headers", "has_body"),
    [
        ({}, False),
        ({"Content-Length": "0"}, False),
        ({"Content-Length": "1"}, True),
        ({"Transfer-Encoding": "x"}, True),
    ],
)
def test_body_is_announced_by_the_headers(headers: dict[str, str], has_body: bool) -> None:
    assert make_request(request_scope("POST", "/", headers)).has_body == has_body


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "LOCALHOST"])
def test_host_of_the_registry_is_accepted(settings: LazySettings, host: str) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    make_request(request_scope("GET", "/", {"Host": host})).require_known_host()
