"""Memory that clients without a token can take: bodies of calls, and forms."""

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from service_registry.asgi.django_bodies import PAGE_BODIES_BYTES, PAGE_BODY_BYTES
from tests.client import token
from tests.server.memory import read_peak_bytes, reset_peak
from tests.server.registry import Registry
from tests.waiting import wait_for

CLIENTS = 500
MIB = 1024 * 1024
# Connections, what is read of a body before a handler asks for it, and what the allocator keeps.
SPARE_BYTES = 24 * MIB


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("anonymous")) as running:
        yield running


@contextlib.contextmanager
def clients(registry: Registry, request: bytes, count: int = CLIENTS) -> Iterator[list[socket.socket]]:
    """Send a request on each of many connections, as far as the server reads it."""
    with contextlib.ExitStack() as stack:
        connected = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(60)
            client.connect(("127.0.0.1", registry.ports[0]))
            client.sendall(request)
            connected.append(client)
        yield connected


def read_status(client: socket.socket) -> int:
    return int(client.recv(12).removeprefix(b"HTTP/1.1 "))


def begun_request(line: str, length: int, *headers: str) -> bytes:
    """Return a request that lacks the last byte of its body."""
    lines = [f"{line} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + b"x" * (length - 1)


@pytest.mark.parametrize("bearer", [None, "unknown", token()[:-9] + "forgedforg"], ids=["none", "unknown", "forged"])
def test_500_bodies_of_1_mib_without_an_accepted_token_take_no_memory(registry: Registry, bearer: str | None) -> None:
    """Those that come while requests without a caller have all their places are refused with 429."""
    headers = [f"Authorization: Bearer {bearer}"] if bearer else []
    before = reset_peak(registry)
    with clients(registry, begun_request("PUT /registry/services/web/owners", MIB, *headers)) as sending:
        assert {401} <= set(map(read_status, sending)) <= {401, 429}
    grown = read_peak_bytes(registry) - before
    print(f"{CLIENTS} bodies of 1 MiB: +{grown / MIB:.0f} MiB")
    assert grown < SPARE_BYTES


def test_500_forms_take_bounded_memory(registry: Registry) -> None:
    before = reset_peak(registry)
    kept = PAGE_BODIES_BYTES // PAGE_BODY_BYTES
    with clients(registry, begun_request("POST /admin/login/", PAGE_BODY_BYTES)) as sending:
        assert Counter(map(read_status, sending[kept:])) == {503: CLIENTS - kept}
        grown = read_peak_bytes(registry) - before
        print(f"{CLIENTS} forms of 64 KiB: +{grown / MIB:.0f} MiB")
        assert registry.anonymous_caller().call("GET", "/admin/login/").status == 200
    assert grown < PAGE_BODIES_BYTES + SPARE_BYTES
    wait_for(lambda: registry.anonymous_caller().call("POST", "/admin/login/", {}).status != 503)
