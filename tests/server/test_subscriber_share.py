"""The share of one caller in the watches and blocking reads that wait in a web process."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service_registry.asgi.limits import SUBSCRIBERS_PER_PROCESS
from tests.client import token
from tests.server.event_stream import EventStream, WatchRefused
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

PLACES = 8


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    share = str(PLACES / SUBSCRIBERS_PER_PROCESS)
    with Registry(tmp_path_factory.mktemp("share"), variables={"REGISTRY_MAX_SHARE_PER_CALLER": share}) as running:
        yield running


def test_reader_cannot_take_the_places_of_others(registry: Registry, team: Caller) -> None:
    index = team.register("one")
    bearer = token("registry-readers", subject="greedy")
    paths = (f"/registry/services/one?wait=5m&index={index}", f"/registry/watch?wait=5m&index={index}")

    def status(caller: Caller, path: str) -> int:
        return caller.call("GET", path).status

    with ExitStack() as waiting:
        for number in range(PLACES // 4):
            waiting.enter_context(EventStream(registry.ports[0], bearer))
            for path in (*paths, f"/registry/services?wait=5m&index={index}"):
                waiting.enter_context(registry.blocked_request(registry.caller_with_token(bearer), path))
            assert registry.read_metric("registry_subscribers") == 4 * (number + 1)
        greedy = registry.caller_with_token(bearer)
        for path in paths:
            reply = greedy.call("GET", path)
            assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (429, "rate_limited", "5")
            assert "8 of the 5000 places for subscribers" in reply.json["detail"]
            assert "REGISTRY_MAX_SHARE_PER_CALLER" in reply.json["detail"]
        with pytest.raises(WatchRefused) as refused:
            EventStream(registry.ports[0], bearer)
        assert refused.value.status == 429
        refusals = 'registry_requests_over_bound_total{bound="caller",kind="subscribers"}'
        assert registry.read_metric(refusals) == 3
        assert status(greedy, "/registry/services/one") == 200, "it does not wait"
        with registry.blocked_request(registry.caller("registry-readers", subject="other"), paths[0]) as receive:
            team.register("one", weight=7)
            assert receive().status == 200
    wait_for(lambda: registry.read_metric("registry_subscribers") == 0)
    with registry.blocked_request(greedy, f"/registry/services/one?wait=5m&index={team.read_newest_index()}"):
        pass


def test_places_are_free_when_clients_leave_with_a_request_pipelined_behind(registry: Registry, team: Caller) -> None:
    index = team.register("one")
    request = (
        f"GET /registry/services/one?wait=5m&index={index} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: {team.headers['Authorization']}\r\n\r\n"
    )
    clients = [socket.create_connection(("127.0.0.1", registry.ports[0])) for _ in range(PLACES)]
    for client in clients:
        client.sendall(request.encode() * 2)
    wait_for(lambda: registry.read_metric("registry_subscribers") == PLACES)
    for client in clients:
        client.close()
    wait_for(lambda: registry.read_metric("registry_subscribers") == 0)
