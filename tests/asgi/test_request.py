"""Requests as the event loop reads them."""

import asyncio

import pytest
from asgiref.typing import ASGIReceiveEvent
from django.conf import LazySettings

from service_registry.asgi.request import ClientDisconnected, read_body
from service_registry.exceptions import BodyTooLarge, InvalidInput, RequestTimeout, UnknownHost
from tests.asgi.clients import GET, make_request, receive_nothing, request_scope

LIMIT_BYTES = 1000


@pytest.fixture(autouse=True)
def _limit(settings: LazySettings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT_BYTES


class Parts:
    """Sends the parts of a body, the last of them as such, and after that disconnects."""

    def __init__(self, *parts: bytes, complete: bool = True) -> None:
        self.parts = list(parts)
        self.complete = complete

    async def receive(self) -> ASGIReceiveEvent:
        if not self.parts:
            return {"type": "http.disconnect"}
        part = self.parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts) or not self.complete}


def test_body_in_parts_is_joined() -> None:
    assert asyncio.run(read_body(GET, Parts(b"a", b"", b"bc").receive, 60)) == b"abc"
    assert asyncio.run(read_body(GET, Parts(b"x" * LIMIT_BYTES).receive, 60)) == b"x" * LIMIT_BYTES


def test_body_announced_as_too_large_is_not_read() -> None:
    scope = request_scope("POST", "/", {"Content-Length": str(LIMIT_BYTES + 1)})
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(scope, receive_nothing, 60))


def test_body_that_grows_too_large_is_not_read_to_its_end() -> None:
    parts = Parts(b"x" * LIMIT_BYTES, b"x", b"never read")
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(GET, parts.receive, 60))
    assert parts.parts == [b"never read"]


def test_body_of_a_client_that_disconnects_raises() -> None:
    with pytest.raises(ClientDisconnected):
        asyncio.run(read_body(GET, Parts(b"half", complete=False).receive, 60))


def test_body_that_does_not_arrive_in_time_raises() -> None:
    with pytest.raises(RequestTimeout):
        asyncio.run(read_body(GET, receive_nothing, 0.01))


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


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [("application/json", "application/json"), ("Application/JSON ; charset=utf-8", "application/json"), ("", "")],
)
def test_media_type_is_read_without_case_and_parameters(content_type: str, media_type: str) -> None:
    assert make_request(request_scope("POST", "/", {"Content-Type": content_type})).media_type == media_type


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "LOCALHOST"])
def test_host_of_the_registry_is_accepted(settings: LazySettings, host: str) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    make_request(request_scope("GET", "/", {"Host": host})).require_known_host()


@pytest.mark.parametrize("host", ["", "evil.example", "evil.example, localhost", "localhost/x", "a b"])
def test_other_host_is_refused(host: str) -> None:
    with pytest.raises(UnknownHost):
        make_request(request_scope("GET", "/", {"Host": host})).require_known_host()


def test_query_with_too_many_parameters_is_invalid() -> None:
    assert make_request(request_scope("GET", "/", {}, b"a=1&a=%C3%A9")).query().getlist("a") == ["1", "é"]
    with pytest.raises(InvalidInput):
        make_request(request_scope("GET", "/", {}, b"a&" * 2000)).query()
