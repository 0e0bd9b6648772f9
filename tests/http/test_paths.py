"""Paths as clients split them, from what a server passes."""

from typing import Any

import pytest

from service_registry.http.paths import decode_segment, routing_path
from service_registry.models import Instance
from tests.client import Api


@pytest.mark.parametrize(
    ("path", "sent", "segments"),
    [
        ("/registry/a/b", b"/registry/a%2Fb", ["registry", "a/b"]),
        ("/registry/a/b", b"/registry/a%2fb?x=%2F", ["registry", "a/b"]),
        ("/registry/a/b/", b"/registry/a/b%2F", ["registry", "a", "b/"]),
        ("/registry/a%2Fb", b"/registry/a%252Fb", ["registry", "a%2Fb"]),
        ("/registry/a%252Fb", b"/registry/a%25252Fb", ["registry", "a%252Fb"]),
        ("/registry/é", b"/registry/%C3%A9", ["registry", "é"]),
        # Bytes that are not UTF-8: as ASGI servers pass them, and as Django's WSGI handler does.
        ("/registry/a\ufffd", b"/registry/a%FF", ["registry", "a\ufffd"]),
        ("/registry/a%FF", b"/registry/a%FF", ["registry", "a\ufffd"]),
        # A server that passes no path, or another one.
        ("/registry/a/b", None, ["registry", "a", "b"]),
        ("/registry/a%2Fb", None, ["registry", "a%2Fb"]),
        ("/registry/a/b", b"/elsewhere/a%2Fb", ["registry", "a", "b"]),
        ("/registry/a/b", b"http://registry.example/registry/a%2Fb", ["registry", "a", "b"]),
    ],
)
def test_routing_path_has_the_segments_of_the_client(path: str, sent: bytes | None, segments: list[str]) -> None:
    found = routing_path(path, sent)
    assert [decode_segment(segment) for segment in found.split("/")] == ["", *segments]


@pytest.mark.parametrize("variable", ["REQUEST_URI", "RAW_URI"])
@pytest.mark.parametrize("prefix", ["", "/mounted"])
def test_wsgi_server_may_pass_the_path_in_either_variable(payments: Api, variable: str, prefix: str) -> None:
    payments.register(instance_id="a/b")
    payments.register(instance_id="a")
    headers = {"Authorization": f"Bearer {payments.bearer}"}
    environ: dict[str, Any] = {variable: f"{prefix}/registry/instance/web/a%2Fb?namespace=default"}
    answer = payments.client.get("/registry/instance/web/a/b", headers=headers, SCRIPT_NAME=prefix, **environ)
    assert (answer.status_code, answer.json()["instance_id"]) == (200, "a/b")
    assert Instance.objects.count() == 2
