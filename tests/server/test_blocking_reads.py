"""Blocking reads: discovery and the list that wait for a change."""

import itertools
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest

from service_registry.asgi.waiting import with_jitter
from tests.client import registration, token
from tests.server.memory import read_resident_bytes
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

# Far longer than a caller of these tests waits for a response: one that is not answered at once fails.
LONG_WAIT = "wait=5m"
DEFAULT_WAIT_SECONDS = 30
names = (f"blocking-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("blocking"), web_processes=2) as running:
        yield running


@pytest.fixture
def name(team: Caller) -> str:
    """A service with one instance."""
    name = next(names)
    team.register(name)
    return name


def read_index(caller: Caller, path: str) -> str:
    return str(caller.call("GET", path).json["index"])


def test_discovery_with_an_index_waits_for_a_change_of_its_service(
    registry: Registry, team: Caller, reader: Caller, name: str
) -> None:
    path = f"/registry/services/{name}"
    with registry.blocked_request(reader, f"{path}?index={read_index(reader, path)}&{LONG_WAIT}") as receive:
        team.register(next(names))
        team.register(name, "b")
        reply = receive()
    assert [instance["instance_id"] for instance in reply.json["instances"]] == ["a", "b"]
    assert reply.json["index"] == read_index(team, path)


@pytest.mark.parametrize("index", ["0", "00000000-1"])
def test_discovery_of_an_unknown_service_waits_for_its_registration(
    registry: Registry, team: Caller, reader: Caller, index: str
) -> None:
    name = next(names)
    with registry.blocked_request(reader, f"/registry/services/{name}?index={index}&{LONG_WAIT}") as receive:
        team.register(next(names))
        team.register(name)
        reply = receive()
    assert [instance["instance_id"] for instance in reply.json["instances"]] == ["a"]


def test_discovery_of_a_service_that_stays_unknown_is_not_found_after_the_wait(reader: Caller) -> None:
    reply = reader.call("GET", f"/registry/services/{next(names)}?index=0&wait=100ms")
    assert (reply.status, reply.json["code"]) == (404, "service_not_found")


def test_read_with_index_0_of_what_exists_is_answered_at_once(reader: Caller, name: str) -> None:
    for path in (f"/registry/services/{name}?", "/registry/services?"):
        assert reader.call("GET", f"{path}index=0&{LONG_WAIT}").status == 200


def test_list_with_an_index_waits_for_any_change(registry: Registry, team: Caller, reader: Caller) -> None:
    path = "/registry/services?limit=500&view=summary"
    other = next(names)
    with registry.blocked_request(reader, f"{path}&index={read_index(reader, path)}&{LONG_WAIT}") as receive:
        team.register(other)
        assert other in {service["name"] for service in receive().json["services"]}


@pytest.mark.parametrize(("wait", "seconds"), [("500ms", 0.5), ("1s", 1.0), ("2s", 2.0), ("0s", 0.0)])
@pytest.mark.parametrize("listed", [False, True])
def test_wait_without_a_change_ends_after_its_time_with_the_same_index(
    registry: Registry, name: str, wait: str, seconds: float, listed: bool
) -> None:
    path = "/registry/services?view=summary" if listed else f"/registry/services/{name}?state=live"
    # It gives up sooner than the default wait would end.
    reader = Caller(registry.ports[0], token("registry-readers"), timeout_seconds=DEFAULT_WAIT_SECONDS * 0.9)
    index = read_index(reader, path)
    for _ in range(2):  # the same query waits again
        began = time.monotonic()
        reply = reader.call("GET", f"{path}&index={index}&wait={wait}")
        assert (reply.status, reply.json["index"]) == (200, index)
        assert time.monotonic() - began >= seconds
    reader.connection.close()


def test_jitter_lengthens_a_wait_by_a_sixteenth_at_most() -> None:
    waits = [with_jitter(16) for _ in range(1000)]
    assert 16 <= min(waits) < max(waits) <= 17


def test_read_without_an_index_is_answered_at_once(reader: Caller, name: str) -> None:
    for path in ("/registry/services", f"/registry/services/{name}"):
        assert reader.call("GET", f"{path}?{LONG_WAIT}").status == 200


def test_discovery_with_an_index_of_the_log_waits(registry: Registry, team: Caller, reader: Caller, name: str) -> None:
    """It is newer than the service's last change: the changes in between are of other services."""
    index = team.register(next(names))
    with registry.blocked_request(reader, f"/registry/services/{name}?index={index}&{LONG_WAIT}") as receive:
        team.register(name, weight=3)
        assert receive().json["instances"][0]["weight"] == 3


def test_read_with_an_older_index_is_answered_at_once(team: Caller, reader: Caller, name: str) -> None:
    index = read_index(reader, f"/registry/services/{name}")
    team.register(name, weight=3)
    for path in (f"/registry/services/{name}", "/registry/services"):
        assert read_index(reader, f"{path}?index={index}&{LONG_WAIT}") != index


def test_read_with_an_unknown_index_is_answered_at_once(team: Caller, reader: Caller, name: str) -> None:
    """Of another registry, not yet assigned, or lost."""
    for path in (f"/registry/services/{name}", "/registry/services"):
        mark, _, pk = read_index(reader, path).partition("-")
        for index in (f"00000000-{pk}", f"{mark}-{int(pk) + 5000}", "00000000-1"):
            reply = reader.call("GET", f"{path}?index={index}&{LONG_WAIT}")
            expected = f"{mark}-{pk}" if "/services/" in path else team.read_newest_index()
            assert (reply.status, reply.json["index"]) == (200, expected)


def test_list_with_an_index_and_a_cursor_is_refused(reader: Caller, team: Caller, name: str) -> None:
    team.register(next(names))
    first = reader.call("GET", "/registry/services?limit=1").json
    reply = reader.call("GET", f"/registry/services?index={first['index']}&after={first['next']}&{LONG_WAIT}")
    assert (reply.status, list(reply.json["errors"])) == (400, ["index"])


def test_discovery_that_waits_for_a_deleted_service_is_not_found(
    registry: Registry, team: Caller, reader: Caller, name: str
) -> None:
    path = f"/registry/services/{name}"
    team.call("POST", "/registry/deregister", {"service_name": name, "instance_id": "a"})
    with registry.blocked_request(reader, f"{path}?index={read_index(reader, path)}&{LONG_WAIT}") as receive:
        assert registry.caller("registry-admins").call("DELETE", path).status == 204
        assert (receive().status, reader.call("GET", path).status) == (404, 404)


def test_wait_without_a_change_is_304_for_a_matching_etag(reader: Caller, name: str) -> None:
    path = f"/registry/services/{name}"
    first = reader.call("GET", path)
    query = f"{path}?index={first.json['index']}&wait=0s"
    again = reader.call("GET", query, None, **{"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])


def test_heartbeat_ends_no_wait(registry: Registry, team: Caller, reader: Caller, name: str) -> None:
    path = f"/registry/services/{name}"
    before = registry.read_metric("registry_subscriber_wakeups_total")
    with registry.blocked_request(reader, f"{path}?index={read_index(reader, path)}&{LONG_WAIT}") as receive:
        for _ in range(100):
            team.call("POST", "/registry/heartbeat", {"service_name": name, "instance_id": "a"})
        time.sleep(0.3)  # three polls of the feed
        assert registry.read_metric("registry_subscriber_wakeups_total") == before
        team.register(name, weight=9)
        assert receive().json["instances"][0]["weight"] == 9


def test_read_in_the_process_that_committed_a_change_shows_it(registry: Registry) -> None:
    """200 times, each right after the response to the registration."""
    team = registry.caller("registry-services", "team")
    name = next(names)
    for number in range(200):
        team.call("POST", "/registry/register", registration(name, f"i-{number:03}", ttl_seconds=3600))
        found = team.call("GET", f"/registry/services/{name}").json["instances"]
        assert len(found) == number + 1


def test_index_of_another_process_is_known_before_the_feed_has_read_it(registry: Registry, team: Caller) -> None:
    """50 times."""
    other = registry.caller("registry-readers", place=1)
    name = next(names)
    for number in range(50):
        index = team.register(name, weight=number)
        began = time.monotonic()
        reply = other.call("GET", f"/registry/services/{name}?index={index}&wait=100ms")
        assert reply.json["instances"][0]["weight"] == number
        assert time.monotonic() - began >= 0.1
        polled = other.call("GET", f"/registry/watch?index={index}&wait=0s")
        assert (polled.status, polled.json["changes"]) == (200, [])


def test_read_whose_token_expires_while_it_waits_is_refused(registry: Registry, team: Caller, name: str) -> None:
    """A token is accepted for 30 s after its end, so this one for three."""
    caller = registry.caller_with_token(token("registry-readers", ttl_seconds=-27))
    for path in (f"/registry/services/{name}", "/registry/services"):
        wait_for(partial(is_refused, caller, f"{path}?index={read_index(team, path)}&wait=4s"))


def is_refused(caller: Caller, path: str) -> bool:
    return caller.call("GET", path).status == 401


def test_readers_that_ask_the_same_share_one_response_in_memory(registry: Registry, team: Caller) -> None:
    """Fifty wait for a service of 5 MB, and then read nothing."""
    name = next(names)
    metadata = {f"key-{number}": "x" * 500 for number in range(3)}
    for part in range(6):
        items = [registration(name, f"{part}-{number}", metadata=metadata, ttl_seconds=3600) for number in range(500)]
        assert team.call("POST", "/registry/register", items).status == 200
    path = f"/registry/services/{name}"
    index = read_index(team, path)
    before = read_resident_bytes(registry.web[0].pid)
    readers = [socket.create_connection(("127.0.0.1", registry.ports[0])) for _ in range(50)]
    try:
        waiting_before = registry.read_metric('registry_subscribers{kind="read"}')
        for each in readers:
            head = f"GET {path}?index={index}&{LONG_WAIT} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            each.sendall(f"{head}Authorization: {team.headers['Authorization']}\r\n\r\n".encode())
        wait_for(lambda: registry.read_metric('registry_subscribers{kind="read"}') == waiting_before + 50)
        team.register(name, "last")
        for each in readers:
            assert each.recv(12) == b"HTTP/1.1 200"
        assert read_resident_bytes(registry.web[0].pid) - before < 120_000_000
    finally:
        for each in readers:
            each.close()
