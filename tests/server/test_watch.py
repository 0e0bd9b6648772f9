"""The watch: event streams and polls at one web process."""

import itertools
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from service_registry import schemas
from service_registry.asgi.limits import SUBSCRIBERS_PER_PROCESS
from tests.client import Answer, registration, token
from tests.server.change_log import repeat_newest_change
from tests.server.event_stream import CONNECTION_ERRORS, Event, EventStream, WatchRefused
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

names = (f"service-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("watch"), variables={"REGISTRY_MAX_SHARE_PER_CALLER": "0.01"}) as running:
        yield running


@pytest.fixture(scope="module")
def wsgi_port(registry: Registry) -> int:
    return registry.start_wsgi()


@pytest.fixture
def name() -> str:
    """A service that no other test uses."""
    return next(names)


def open_watch(registry: Registry, query: str = "", *groups: str, **more: Any) -> EventStream:
    return EventStream(registry.ports[0], token(*(groups or ("registry-readers",)), subject=next(names)), query, **more)


def kinds(events: Iterator[Any], count: int) -> list[tuple[str, str | None]]:
    return [(change["kind"], change["instance_id"]) for change in itertools.islice(events, count)]


def test_stream_sends_changes_as_they_happen(registry: Registry, team: Caller, name: str) -> None:
    with open_watch(registry) as open_stream:
        events = open_stream.events()
        assert next(events).kind == "sync"
        team.register(name)
        team.call("POST", "/registry/heartbeat", {"service_name": name, "instance_id": "a", "status": "DOWN"})
        team.call("POST", "/registry/deregister", {"service_name": name, "instance_id": "a"})
        found = list(itertools.islice(events, 4))
    assert [event.data["kind"] for event in found] == [
        "service_created",
        "registered",
        "status_changed",
        "deregistered",
    ]
    assert all(event.kind == "change" and event.index == event.data["index"] for event in found)
    for event in found:
        schemas.Change.model_validate(event.data)


def test_instance_in_a_stream_equals_the_one_in_discovery(registry: Registry, team: Caller, name: str) -> None:
    with open_watch(registry, f"service={name}") as open_stream:
        team.register(name, tags=["b", "a"], metadata={"k": "v"})
        change = next(change for change in open_stream.changes() if change["kind"] == "registered")
    (instance,) = team.call("GET", f"/registry/services/{name}").json["instances"]
    assert change["instance"] == instance


def test_stream_of_two_services_sends_their_changes_only(registry: Registry, team: Caller) -> None:
    one, two, other = (next(names) for _ in range(3))
    with open_watch(registry, f"service={one}&service={two}") as open_stream:
        for name in (one, other, two):
            team.register(name)
        found = list(itertools.islice(open_stream.changes(), 4))
    assert [change["service_name"] for change in found] == [one, one, two, two]


def test_stream_of_a_service_in_a_namespace_sends_its_changes_only(registry: Registry, team: Caller, name: str) -> None:
    namespace = next(names)
    with open_watch(registry, f"service={name}&namespace={namespace}") as open_stream:
        team.register(name)
        team.register(name, namespace=namespace)
        found = list(itertools.islice(open_stream.changes(), 2))
    assert [change["namespace"] for change in found] == [namespace, namespace]


def test_stream_of_a_namespace_without_services_sends_all_of_its_changes(registry: Registry, team: Caller) -> None:
    namespace, one, two = (next(names) for _ in range(3))
    with open_watch(registry, f"namespace={namespace}") as open_stream:
        team.register(one)
        team.register(one, namespace=namespace)
        team.register(two, namespace=namespace)
        found = list(itertools.islice(open_stream.changes(), 4))
    assert [change["service_name"] for change in found] == [one, one, two, two]


@pytest.mark.parametrize("way", ["index", "last_event_id"])
def test_stream_from_an_index_sends_the_changes_after_it(registry: Registry, team: Caller, name: str, way: str) -> None:
    start = team.read_newest_index()
    for instance_id in "abcdef":
        team.register(name, instance_id)
    with open_watch(registry, f"service={name}&index={start}") as open_stream:
        found = [change["index"] for change in itertools.islice(open_stream.changes(), 7)]
    for place, index in enumerate(found):
        given: dict[str, Any] = {"last_event_id": index} if way == "last_event_id" else {}
        # A browser repeats the index of its first request.
        query = f"service={name}&index={start if given else index}"
        with open_watch(registry, query, **given) as open_stream:
            events = open_stream.events()
            rest = [event.index for event in itertools.takewhile(lambda event: event.kind == "change", events)]
        assert rest == found[place + 1 :]


def test_stream_from_an_index_before_the_change_buffer_reads_the_log(
    registry: Registry, team: Caller, name: str
) -> None:
    """More changes than the buffer keeps, most of them of other services."""
    start = team.read_newest_index()
    team.register(name, "first")
    other = next(names)
    others = [registration(other, f"i-{number}", ttl_seconds=3600) for number in range(1000)]
    for weight in range(1, 8):
        assert team.call("POST", "/registry/register", [item | {"weight": weight} for item in others]).status == 200
    team.register(name, "last")
    registry.kill_web()  # the new process buffers the newest 5,000
    with open_watch(registry, f"service={name}&index={start}") as open_stream:
        assert kinds(open_stream.changes(), 3) == [
            ("service_created", None),
            ("registered", "first"),
            ("registered", "last"),
        ]
    with open_watch(registry, f"index={start}") as open_stream:
        found = [change["index"] for change in itertools.islice(open_stream.changes(), 7_004)]
    ids = [int(index.partition("-")[2]) for index in found]
    assert ids == sorted(set(ids))
    assert len(ids) == 7_004


def poll(caller: Caller, query: str) -> Answer:
    return caller.call("GET", f"/registry/watch?{query}")


def test_stream_headers_give_the_newest_index(registry: Registry, team: Caller, name: str) -> None:
    index = team.register(name)
    with open_watch(registry) as open_stream:
        assert open_stream.response.getheader("X-Registry-Index") == index
        assert open_stream.response.getheader("X-Registry-Stale") is None


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream;q=0, application/json", False),
        ("text/event-stream; q=0.000", False),
        ("text/event-stream;q=0.1, application/json", True),
        ("application/json, Text/Event-Stream; charset=utf-8", True),
    ],
)
def test_accept_header_chooses_between_stream_and_poll(registry: Registry, accept: str, streams: bool) -> None:
    reader = registry.caller("registry-readers")
    reader.connection.request("GET", "/registry/watch", headers=reader.headers | {"Accept": accept})
    with reader.connection.getresponse() as response:
        assert (response.getheader("Content-Type") == "text/event-stream") == streams
    reader.connection.close()


def test_poll_without_an_index_returns_the_newest_index(reader: Caller) -> None:
    reply = poll(reader, "wait=5m")
    assert (reply.status, reply.json) == (200, {"index": reader.read_newest_index(), "changes": []})


def test_poll_with_changes_after_its_index_returns_them_at_once(reader: Caller, team: Caller, name: str) -> None:
    start = team.read_newest_index()
    team.register(name)
    reply = poll(reader, f"index={start}&wait=5m")
    schemas.WatchResponse.model_validate(reply.json)
    assert [change["kind"] for change in reply.json["changes"]] == ["service_created", "registered"]
    assert reply.json["index"] == reply.json["changes"][-1]["index"] == team.read_newest_index()


def test_poll_without_changes_waits_for_one(registry: Registry, reader: Caller, team: Caller, name: str) -> None:
    start = team.read_newest_index()
    with registry.blocked_request(reader, f"/registry/watch?index={start}&wait=5m&service={name}") as receive:
        team.register(next(names))
        team.register(name)
        assert {change["service_name"] for change in receive().json["changes"]} == {name}


def test_poll_returns_500_changes_at_most(reader: Caller, team: Caller, name: str) -> None:
    start = team.read_newest_index()
    team.call(
        "POST", "/registry/register", [registration(name, f"i-{number}", ttl_seconds=3600) for number in range(700)]
    )
    first = poll(reader, f"index={start}").json
    second = poll(reader, f"index={first['index']}").json
    assert (len(first["changes"]), len(second["changes"])) == (500, 201)
    assert first["index"] == first["changes"][-1]["index"]


def test_poll_without_a_change_ends_after_its_wait(reader: Caller, team: Caller, name: str) -> None:
    start = team.register(name)
    began = time.monotonic()
    reply = poll(reader, f"index={start}&wait=500ms").json
    assert reply == {"index": start, "changes": []}
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_watch_from_an_unknown_index_is_gone(registry: Registry, team: Caller, name: str, accept: str) -> None:
    mark, _, pk = team.register(name).partition("-")
    another = "00000000" if mark != "00000000" else "11111111"
    for index in (f"{another}-{pk}", f"{mark}-{int(pk) + 1000}", f"{another}-1"):
        reply = team.call("GET", f"/registry/watch?index={index}", Accept=accept)
        assert (reply.status, reply.json["code"]) == (410, "index_gone")


def test_watch_with_an_invalid_last_event_id_is_refused(registry: Registry) -> None:
    with pytest.raises(WatchRefused) as refused:
        open_watch(registry, last_event_id="nonsense")
    assert (refused.value.status, refused.value.problem["code"]) == (400, "invalid")


def test_head_request_does_not_wait(reader: Caller) -> None:
    assert reader.call("HEAD", f"/registry/watch?index={reader.read_newest_index()}&wait=5m").status == 200
    assert reader.call("POST", "/registry/watch").status == 405


def test_watch_shows_authors_to_operators_and_owners_only(registry: Registry, team: Caller, name: str) -> None:
    start = team.read_newest_index()
    team.register(name)
    query = f"service={name}&index={start}"
    for groups, sees in [
        (("registry-readers",), False),
        (("registry-services", "team-other"), False),
        (("registry-services", "team"), True),
        (("registry-operators",), True),
    ]:
        caller = registry.caller(*groups)
        polled = poll(caller, query).json["changes"]
        with open_watch(registry, query, *groups) as open_stream:
            streamed = list(itertools.islice(open_stream.changes(), 2))
        for change in (*polled, *streamed):
            assert ("actor" in change, "reason" in change) == (sees, sees)
        assert ("evidence" in polled[0]) == sees


def test_watch_shows_authors_by_the_owners_at_the_time(registry: Registry, team: Caller, name: str) -> None:
    start = team.read_newest_index()
    team.register(name)
    admin = registry.caller("registry-admins")
    handover = {"owners": ["team-other"], "reason": "handover"}
    assert admin.call("PUT", f"/registry/services/{name}/owners", handover).status == 200
    query = f"service={name}&index={start}"
    for groups, sees in [
        (("registry-services", "team"), [True, True, False]),
        (("registry-services", "team-other"), [False, False, True]),
        (("registry-operators",), [True, True, True]),
    ]:
        polled = poll(registry.caller(*groups), query).json["changes"]
        with open_watch(registry, query, *groups) as open_stream:
            streamed = list(itertools.islice(open_stream.changes(), 3))
        for changes in (polled, streamed):
            assert [change["kind"] for change in changes] == ["service_created", "registered", "owners_changed"]
            for private in ("actor", "reason"):
                assert [private in change for change in changes] == sees


def test_stream_whose_token_expires_ends_with_an_event(registry: Registry, team: Caller, name: str) -> None:
    """Tokens are accepted for 30 s after their end, as the issuer's clock may differ."""
    bearer = token("registry-readers", ttl_seconds=-24)
    with EventStream(registry.ports[0], bearer, f"service={name}") as open_stream:
        events = list(open_stream.events())
    assert [event.kind for event in events] == ["sync", "expired"]


def test_poll_whose_token_expires_while_it_waits_is_refused(registry: Registry, team: Caller) -> None:
    reply = registry.caller_with_token(token("registry-readers", ttl_seconds=-26)).call(
        "GET", f"/registry/watch?index={team.read_newest_index()}&service=nothing-here&wait=6s"
    )
    assert (reply.status, reply.json["code"]) == (401, "token_invalid")


def test_watch_above_the_share_of_a_caller_is_refused(registry: Registry, team: Caller, name: str) -> None:
    bearer = token("registry-readers", subject=name)
    opened = [EventStream(registry.ports[0], bearer) for _ in range(SUBSCRIBERS_PER_PROCESS // 100)]
    try:
        with pytest.raises(WatchRefused) as refused:
            EventStream(registry.ports[0], bearer)
        assert (refused.value.status, refused.value.problem["code"]) == (429, "rate_limited")
        polled = registry.caller_with_token(bearer).call("GET", "/registry/watch")
        assert (polled.status, polled.headers["retry-after"]) == (429, "5")
        assert poll(team, "").status == 200
    finally:
        for each in opened:
            each.close()
    wait_for(lambda: registry.caller_with_token(bearer).call("GET", "/registry/watch").status == 200)


def test_stream_that_its_client_closed_is_no_longer_counted(registry: Registry, reader: Caller) -> None:
    before = registry.read_metric('registry_subscribers{kind="stream"}')
    with open_watch(registry):
        assert registry.read_metric('registry_subscribers{kind="stream"}') == before + 1
    wait_for(lambda: registry.read_metric('registry_subscribers{kind="stream"}') == before)


def wait_for_subscribers(registry: Registry, count: int) -> None:
    """Wait until the streams of earlier tests are no longer counted."""
    wait_for(lambda: registry.read_metric("registry_subscribers") == count)


def test_heartbeat_wakes_no_subscriber(registry: Registry, team: Caller, name: str) -> None:
    """2,100 of them, single and in arrays."""
    ids = [f"i-{number}" for number in range(1000)]
    # In a separate namespace: changes of other services wake no subscriber here.
    team.call(
        "POST", "/registry/register", [registration(name, each, namespace=name, ttl_seconds=3600) for each in ids]
    )
    heartbeats = [{"namespace": name, "service_name": name, "instance_id": each} for each in ids]
    with open_watch(registry, f"namespace={name}"), open_watch(registry, f"service={name}"):
        wait_for_subscribers(registry, 2)
        time.sleep(0.3)
        before = registry.read_metric("registry_subscriber_wakeups_total")
        for _ in range(2):
            results = team.call("POST", "/registry/heartbeat", heartbeats).json["results"]
            assert [result["status"] for result in results] == [200] * 1000
        for heartbeat in heartbeats[:100]:
            assert team.call("POST", "/registry/heartbeat", heartbeat).status == 200
        time.sleep(0.3)
        assert registry.read_metric("registry_subscriber_wakeups_total") == before
        team.register(name, "i-0", weight=1, namespace=name)
        wait_for(lambda: registry.read_metric("registry_subscriber_wakeups_total") > before)


def test_change_wakes_only_subscribers_of_its_service(registry: Registry, team: Caller) -> None:
    one, two = next(names), next(names)
    team.register(one), team.register(two)
    opened = [open_watch(registry, f"service={name}") for name in (one, one, one, two, two)]
    try:
        wait_for_subscribers(registry, 5)
        time.sleep(0.3)
        before = registry.read_metric("registry_subscriber_wakeups_total")
        team.register(two, weight=7)
        wait_for(lambda: registry.read_metric("registry_subscriber_wakeups_total") > before)
        time.sleep(0.3)
        assert registry.read_metric("registry_subscriber_wakeups_total") == before + 2
    finally:
        for each in opened:
            each.close()


def test_stream_of_a_slow_client_is_disconnected_and_resumes_from_its_index(
    registry: Registry, team: Caller, name: str
) -> None:
    """It reads nothing while 64 MB of changes pass, of which sockets hold some and the subscriber's queue 40 MB.

    Then it finds its connection closed. Other streams are not affected.
    """
    metadata = {f"key-{number}": "x" * 500 for number in range(16)}
    team.register(name)
    cut = registry.read_metric("registry_slow_clients_disconnected_total")
    query = f"service={name}&index={team.read_newest_index()}"
    with open_watch(registry, query) as slow, open_watch(registry, query) as quick:
        quick_changes = quick.changes()
        for _ in range(80):
            repeat_newest_change(registry, 100, metadata=metadata)
            assert sum(1 for _ in itertools.islice(quick_changes, 100)) == 100
        wait_for(lambda: registry.read_metric("registry_slow_clients_disconnected_total") == cut + 1)
        had: list[Event] = []
        with suppress(*CONNECTION_ERRORS):
            had.extend(slow.events())
    last = next(event.index for event in reversed(had) if event.kind == "change")
    missing = 8_000 - sum(event.kind == "change" for event in had)
    assert missing > 0
    with open_watch(registry, f"service={name}&index={last}") as again:
        rest = list(itertools.islice(again.changes(), missing))
    indexes = [event.index for event in had if event.kind == "change"] + [change["index"] for change in rest]
    assert len(set(indexes)) == 8_000


def test_process_that_is_terminated_ends_its_watches(registry: Registry, reader: Caller) -> None:
    index = reader.read_newest_index()
    with (
        open_watch(registry) as open_stream,
        registry.blocked_request(reader, f"/registry/watch?index={index}&wait=5m") as receive,
    ):
        assert next(open_stream.events()).kind == "sync"
        registry.web[0].send_signal(signal.SIGTERM)
        assert [event.kind for event in open_stream.events()] == []
        assert receive().json == {"index": index, "changes": []}
        registry.web[0].wait(timeout=60)
    registry.restart_web()


def test_process_that_is_terminated_ends_streams_that_are_far_behind(
    registry: Registry, team: Caller, name: str
) -> None:
    """One that still reads the log, and one whose client reads nothing."""
    start = team.read_newest_index()
    team.register(name)
    repeat_newest_change(registry, 20_000, metadata={f"key-{number}": "x" * 500 for number in range(2)})
    registry.kill_web()
    with open_watch(registry, f"index={start}") as reading, open_watch(registry, f"index={start}"):
        events = reading.events()
        assert next(events).kind == "change"
        registry.web[0].send_signal(signal.SIGTERM)
        # A stream that had sent everything would have sent a `sync`.
        assert {event.kind for event in itertools.islice(events, 12_001)} == {"change"}
        registry.web[0].wait(timeout=60)
    registry.restart_web()


@pytest.mark.parametrize("deleted", [False, True])
def test_poll_returns_the_same_bytes_by_asgi_and_by_wsgi(
    registry: Registry, wsgi_port: int, team: Caller, name: str, deleted: bool
) -> None:
    """Of a service whose owners changed, and of a deleted one: each caller sees the same authors by both."""
    start = team.read_newest_index()
    team.register(name)
    admin = registry.caller("registry-admins")
    owned = admin.call("PUT", f"/registry/services/{name}/owners", {"owners": ["heirs"], "reason": "moved"})
    assert owned.status == 200, owned.body
    if deleted:
        key = {"service_name": name, "instance_id": "a"}
        assert admin.call("POST", "/registry/deregister", key).status == 204
        reply = admin.call("DELETE", f"/registry/services/{name}", {"reason": "retired"})
        assert reply.status in {200, 204}, reply.body
    wait_for(lambda: poll(team, f"index={start}&wait=0s").json["index"] == admin.read_newest_index())
    for group in ("registry-readers", "registry-operators", "team", "heirs"):
        caller = registry.caller("registry-readers", group)
        path = f"/registry/watch?index={start}&service={name}"
        by_wsgi = Caller(wsgi_port, caller.headers["Authorization"].removeprefix("Bearer "))
        reply = caller.call("GET", path)
        assert reply.body == by_wsgi.call("GET", path).body
        assert reply.json["changes"]
        by_wsgi.connection.close()
