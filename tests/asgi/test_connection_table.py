"""The number of connections of a server, and those that are closed for new ones, on raw sockets."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from service_registry import metrics
from service_registry.asgi.server import limits
from tests.asgi.connections import GET, POST, Echo, ask, is_closed, problem, receive_response
from tests.asgi.uvicorn_server import connect, serve
from tests.waiting import wait_for

WAIT = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"
ACCEPTED = b"Authorization: accepted\r\n"


@pytest.fixture
def application() -> Echo:
    return Echo()


def test_connections_of_an_address_are_limited(
    application: Echo, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REGISTRY_MAX_CONNECTIONS_PER_ADDRESS = 3
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.1")
    with serve(application) as port, ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(3)]
        response = ask(port, GET + b"\r\n")
        assert problem(response) == (503, "unavailable")
        assert b"retry-after: 5" in response[1]
        held[0].close()
        wait_for(lambda: ask(port, GET + b"\r\n")[0] == 200)


@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8", "*"])
def test_connections_of_a_trusted_proxy_are_not_limited(
    application: Echo, settings: Any, monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    settings.REGISTRY_MAX_CONNECTIONS_PER_ADDRESS = 1
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    with serve(application) as port, connect(port):
        assert ask(port, GET + b"\r\n")[0] == 200


def test_anonymous_connections_do_not_keep_out_or_displace_callers_with_a_token(
    application: Echo, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REGISTRY_MAX_CONNECTIONS = 20
    monkeypatch.setattr(limits, "SEARCH_PAUSE_SECONDS", 0)
    with_token = GET + b"Authorization: accepted\r\n\r\n"
    waiting = b"GET /wait HTTP/1.1\r\nHost: a\r\nAuthorization: accepted\r\n\r\n"
    with serve(application) as port, ExitStack() as stack:
        idle = stack.enter_context(connect(port, with_token))
        assert receive_response(idle)[0] == 200
        stack.enter_context(connect(port, waiting))
        wait_for(lambda: application.paths == ["/", "/wait"])
        starts = (b"", b"GET / HT", POST + b"Content-Length: 9\r\n\r\na")
        anonymous = [stack.enter_context(connect(port, starts[number % 3])) for number in range(100)]
        assert ask(port, with_token)[0] == 200
        idle.sendall(with_token)
        assert receive_response(idle)[0] == 200
        assert is_closed(anonymous[0])
        assert application.left == 0


def test_new_connection_is_refused_when_every_other_is_needed(application: Echo, settings: Any) -> None:
    settings.REGISTRY_MAX_CONNECTIONS = 2
    waiting = b"GET /wait HTTP/1.1\r\nHost: a\r\nAuthorization: accepted\r\n\r\n"
    with serve(application) as port, connect(port, waiting), connect(port, waiting):
        wait_for(lambda: len(application.paths) == 2)
        assert problem(ask(port, GET + b"\r\n")) == (503, "unavailable")


def test_connections_of_an_address_are_unlimited_with_0(
    application: Echo, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.1")
    settings.REGISTRY_MAX_CONNECTIONS_PER_ADDRESS = 0
    with serve(application) as port, connect(port):
        assert ask(port, GET + b"\r\n")[0] == 200


def test_address_of_which_all_connections_are_closed_is_forgotten(
    application: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.0/24,proxy.example")
    with serve(application) as port:
        with connect(port, GET + b"\r\n") as client:
            assert receive_response(client)[0] == 200
            assert application.table.by_address == {"127.0.0.1": 1}
        wait_for(lambda: not application.table.by_address)
        assert not application.table.admitted


def test_connections_leave_files_for_other_purposes(application: Echo, settings: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings.REGISTRY_MAX_CONNECTIONS = 1_000_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (900, hard))
    try:
        with serve(application) as port:
            assert ask(port, GET + b"\r\n")[0] == 200
            assert application.table.max_connections == 900 - limits.SPARE_FILES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_are_counted_by_their_state(application: Echo) -> None:
    def counted() -> dict[str, float]:
        (family,) = metrics.connections.collect()
        return {sample.labels["state"]: sample.value for sample in family.samples}

    with serve(application) as port, connect(port), connect(port), connect(port, WAIT):
        wait_for(lambda: counted() == {"active": 1, "idle": 2})


def enter(stack: ExitStack, port: int, request: bytes) -> socket.socket:
    """Connect, and wait for the response to the request."""
    client = stack.enter_context(connect(port))
    assert is_open(client, request)
    return client


def is_open(client: socket.socket, request: bytes = GET + b"\r\n") -> bool:
    """Return whether another request is answered."""
    time.sleep(0.005)  # the loop's clock counts milliseconds
    client.sendall(request)
    return receive_response(client)[0] == 200


@pytest.fixture
def full(application: Echo, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, ExitStack]]:
    """Serve two connections at most."""
    settings.REGISTRY_MAX_CONNECTIONS = 2
    monkeypatch.setattr(limits, "SEARCH_PAUSE_SECONDS", 0)
    with serve(application) as port, ExitStack() as stack:
        yield port, stack


def test_connection_that_is_idle_for_longest_is_closed_first(full: tuple[int, ExitStack]) -> None:
    port, stack = full
    first, second = (enter(stack, port, GET + b"\r\n") for _ in range(2))
    assert is_open(first)
    enter(stack, port, GET + b"\r\n")
    assert is_closed(second)
    assert is_open(first)


def test_connection_that_has_left_is_not_closed_for_another(full: tuple[int, ExitStack], application: Echo) -> None:
    port, stack = full
    first, second = (enter(stack, port, GET + b"\r\n") for _ in range(2))
    third = enter(stack, port, GET + b"\r\n")
    assert is_closed(first)
    second.close()
    wait_for(lambda: len(application.table.admitted) == 1)
    enter(stack, port, GET + b"\r\n")
    enter(stack, port, GET + b"\r\n")
    assert is_closed(third)
    assert len(application.table.admitted) == 2


@pytest.mark.parametrize("request_bytes", [GET + ACCEPTED + b"\r\n", GET + b"\r\n"], ids=["token", "anonymous"])
def test_connection_that_was_used_since_the_search_is_not_closed(
    full: tuple[int, ExitStack], request_bytes: bytes
) -> None:
    port, stack = full
    first, second = (enter(stack, port, GET + b"\r\n") for _ in range(2))
    third = enter(stack, port, GET + b"\r\n")
    assert is_closed(first)  # the second is next
    assert is_open(second, request_bytes)
    enter(stack, port, GET + b"\r\n")
    assert is_closed(third)
    assert is_open(second)


def test_request_of_a_caller_that_began_since_the_search_is_not_cut(
    full: tuple[int, ExitStack], application: Echo
) -> None:
    port, stack = full
    first, second = (enter(stack, port, GET + b"\r\n") for _ in range(2))
    third = enter(stack, port, GET + b"\r\n")
    assert is_closed(first)
    second.sendall(WAIT.removesuffix(b"\r\n") + ACCEPTED + b"\r\n")
    wait_for(lambda: application.paths[-1] == "/wait")
    enter(stack, port, GET + b"\r\n")
    assert is_closed(third)
    assert application.left == 0


def test_idle_connection_of_a_caller_is_closed_after_anonymous_ones(full: tuple[int, ExitStack]) -> None:
    port, stack = full
    caller = enter(stack, port, GET + ACCEPTED + b"\r\n")
    for _ in range(3):
        anonymous = enter(stack, port, GET + b"\r\n")
        enter(stack, port, GET + b"\r\n")
        assert is_closed(anonymous)
    assert is_open(caller, GET + ACCEPTED + b"\r\n")


def test_idle_connection_of_a_caller_is_closed_for_a_new_one(full: tuple[int, ExitStack]) -> None:
    port, stack = full
    first = enter(stack, port, GET + ACCEPTED + b"\r\n")
    enter(stack, port, GET + ACCEPTED + b"\r\n")
    enter(stack, port, GET + b"\r\n")
    assert is_closed(first)


def test_anonymous_request_is_cut_for_a_new_connection(full: tuple[int, ExitStack], application: Echo) -> None:
    port, stack = full
    enter(stack, port, GET + ACCEPTED + b"\r\n")
    waiting = stack.enter_context(connect(port, WAIT))
    wait_for(lambda: application.paths[-1] == "/wait")
    enter(stack, port, GET + b"\r\n")
    assert is_closed(waiting)
    wait_for(lambda: application.left == 1)


def test_search_is_not_repeated_for_each_new_connection(
    full: tuple[int, ExitStack], application: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search looks at all connections: a flood of new ones must not afford one each."""
    port, stack = full
    active = [stack.enter_context(connect(port, WAIT.removesuffix(b"\r\n") + ACCEPTED + b"\r\n")) for _ in range(2)]
    wait_for(lambda: len(application.paths) == 2)
    monkeypatch.setattr(limits, "SEARCH_PAUSE_SECONDS", 300)
    assert problem(ask(port, GET + b"\r\n")) == (503, "unavailable")
    active[0].close()
    wait_for(lambda: application.left == 1)
    idle = enter(stack, port, GET + b"\r\n")
    assert problem(ask(port, GET + b"\r\n")) == (503, "unavailable")
    assert is_open(idle)
