"""The rate at which requests without an accepted token are started, over real connections."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service_registry.asgi.server import limits
from tests.asgi.connections import GET, Echo, receive_response
from tests.asgi.uvicorn_server import connect, serve
from tests.waiting import wait_for

ANONYMOUS = GET + b"\r\n"
ACCEPTED = GET + b"Authorization: accepted\r\n\r\n"
REFUSED = GET + b"Authorization: refused\r\n\r\n"


@pytest.fixture
def application() -> Echo:
    return Echo()


@pytest.fixture
def port(application: Echo) -> Iterator[int]:
    with serve(application) as port:
        yield port


@pytest.fixture
def _endless_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANONYMOUS_PAUSE_SECONDS", 3600.0)


@pytest.mark.parametrize("flood", [ANONYMOUS, REFUSED], ids=["without a token", "with a refused token"])
@pytest.mark.usefixtures("_endless_pause")
def test_flood_without_an_accepted_token_waits_and_callers_do_not(port: int, application: Echo, flood: bytes) -> None:
    # The first request of a connection may have a token that is accepted.
    at_once = limits.ANONYMOUS_REQUESTS + (flood == REFUSED)
    with connect(port, flood * 100), connect(port, ACCEPTED) as caller:
        wait_for(lambda: len(application.paths) == at_once + 1)
        for _ in range(3):
            assert receive_response(caller)[0] == 200
            caller.sendall(ANONYMOUS)  # the connection has shown a token
        assert receive_response(caller)[0] == 200
        with connect(port, ANONYMOUS), connect(port, ACCEPTED) as newcomer:
            assert receive_response(newcomer)[0] == 200
            wait_for(lambda: len(application.table.anonymous) == 2)
            assert len(application.paths) == at_once + 5


@pytest.mark.usefixtures("_endless_pause")
def test_request_whose_client_leaves_is_not_started(port: int, application: Echo) -> None:
    with ExitStack() as stack:
        for _ in range(limits.ANONYMOUS_REQUESTS):
            stack.enter_context(connect(port, ANONYMOUS))
        wait_for(lambda: len(application.paths) == limits.ANONYMOUS_REQUESTS)
        with connect(port, b"GET /left HTTP/1.1\r\n\r\n"):
            wait_for(lambda: len(application.table.anonymous) == 1)
        queue = application.table.anonymous
        (exchange,) = queue.first
        wait_for(lambda: exchange.is_disconnected)
        queue.loop.call_soon_threadsafe(queue.refill)
        wait_for(lambda: not len(queue))
        with connect(port, ANONYMOUS) as next_client:
            assert receive_response(next_client)[0] == 200
    assert "/left" not in application.paths


@pytest.mark.usefixtures("_endless_pause")
def test_first_request_of_a_connection_starts_before_later_ones_of_many(port: int, application: Echo) -> None:
    """A probe connects anew, and fails when it waits for every connection of a flood."""
    with ExitStack() as stack:
        flood = [stack.enter_context(connect(port, ANONYMOUS)) for _ in range(limits.ANONYMOUS_REQUESTS)]
        assert [receive_response(client)[0] for client in flood] == [200] * len(flood)
        for client in flood:
            client.sendall(ANONYMOUS)
        queue = application.table.anonymous
        wait_for(lambda: len(queue) == limits.ANONYMOUS_REQUESTS)
        with connect(port, b"GET /probe HTTP/1.1\r\n\r\n") as probe:
            wait_for(lambda: len(queue) == limits.ANONYMOUS_REQUESTS + 1)
            queue.loop.call_soon_threadsafe(queue.refill)
            assert receive_response(probe)[0] == 200
        assert application.paths.count("/") == 2 * limits.ANONYMOUS_REQUESTS - 1


def test_waiting_requests_are_all_answered(port: int, application: Echo) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port, ANONYMOUS)) for _ in range(3 * limits.ANONYMOUS_REQUESTS)]
        assert [receive_response(client)[0] for client in clients] == [200] * len(clients)
    wait_for(lambda: application.table.anonymous.timer is None)


@pytest.mark.usefixtures("_endless_pause")
def test_waiting_requests_are_answered_when_the_server_stops(application: Echo) -> None:
    with ExitStack() as stack:
        with serve(application) as port:
            clients = [stack.enter_context(connect(port, ANONYMOUS)) for _ in range(limits.ANONYMOUS_REQUESTS + 2)]
            wait_for(lambda: application.exchanges and len(application.table.anonymous) == 2)
        assert [receive_response(client)[0] for client in clients] == [200] * len(clients)
