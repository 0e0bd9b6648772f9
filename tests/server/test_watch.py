"""The watch as its callers see it: one web process, streams and polls."""

import itertools
import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service_registry import schemas
from service_registry.asgi.limits import WATCHES_PER_CALLER
from tests.client import registration, token
from tests.server.event_stream import Event, Refused, Stream
from tests.server.registry import Caller, Registry, Reply
from tests.waiting import wait_for

names = (f"service-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("watch")) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A service of the test's own."""
    return next(names)


def stream(registry: Registry, query: str = "", *groups: str, **more: Any) -> Stream:
    return Stream(registry.ports[0], token(*(groups or ("registry-readers",)), subject=next(names)), query, **more)


def register(team: Caller, name: str, instance_id: str = "a", **fields: Any) -> str:
    """The log's index after it. Nothing that a test has left behind expires while another listens."""
    body = registration(name, instance_id, **{"ttl_seconds": 3600} | fields)
    answer = team.call("POST", "/registry/register", body)
    assert answer.status in {200, 201}, answer.body
    return end(team)


def end(caller: Caller) -> str:
    return caller.call("GET", "/registry/services?limit=1").headers["x-registry-index"]


def kinds(events: Iterator[Any], count: int) -> list[tuple[str, str | None]]:
    return [(change["kind"], change["instance_id"]) for change in itertools.islice(events, count)]


def test_a_stream_brings_changes_as_they_happen(registry: Registry, team: Caller, name: str) -> None:
    with stream(registry) as open_stream:
        events = open_stream.events()
        assert next(events).kind == "sync"
        register(team, name)
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


def test_an_instance_in_a_stream_is_as_in_discovery(registry: Registry, team: Caller, name: str) -> None:
    with stream(registry, f"service={name}") as open_stream:
        register(team, name, tags=["b", "a"], metadata={"k": "v"})
        change = next(change for change in open_stream.changes() if change["kind"] == "registered")
    (instance,) = team.call("GET", f"/registry/services/{name}").json["instances"]
    assert change["instance"] == instance


def test_a_stream_may_be_of_some_services(registry: Registry, team: Caller) -> None:
    one, two, other = (next(names) for _ in range(3))
    with stream(registry, f"service={one}&service={two}") as open_stream:
        for name in (one, other, two):
            register(team, name)
        found = list(itertools.islice(open_stream.changes(), 4))
    assert [change["service_name"] for change in found] == [one, one, two, two]


def test_a_stream_may_be_of_one_namespace(registry: Registry, team: Caller, name: str) -> None:
    namespace = next(names)
    with stream(registry, f"service={name}&namespace={namespace}") as open_stream:
        register(team, name)
        register(team, name, namespace=namespace)
        found = list(itertools.islice(open_stream.changes(), 2))
    assert [change["namespace"] for change in found] == [namespace, namespace]


def test_a_stream_of_a_namespace_and_no_service_has_all_of_it(registry: Registry, team: Caller) -> None:
    namespace, one, two = (next(names) for _ in range(3))
    with stream(registry, f"namespace={namespace}") as open_stream:
        register(team, one)
        register(team, one, namespace=namespace)
        register(team, two, namespace=namespace)
        found = list(itertools.islice(open_stream.changes(), 4))
    assert [change["service_name"] for change in found] == [one, one, two, two]


@pytest.mark.parametrize("way", ["index", "last_event_id"])
def test_a_stream_goes_on_from_an_index(registry: Registry, team: Caller, name: str, way: str) -> None:
    start = end(team)
    for instance_id in "abcdef":
        register(team, name, instance_id)
    with stream(registry, f"service={name}&index={start}") as open_stream:
        found = [change["index"] for change in itertools.islice(open_stream.changes(), 7)]
    for place, index in enumerate(found):
        given: dict[str, Any] = {"last_event_id": index} if way == "last_event_id" else {}
        # A browser sends the index it began with, too.
        query = f"service={name}&index={start if given else index}"
        with stream(registry, query, **given) as open_stream:
            events = open_stream.events()
            rest = [event.index for event in itertools.takewhile(lambda event: event.kind == "change", events)]
        assert rest == found[place + 1 :]


def test_what_memory_has_not_comes_from_the_log(registry: Registry, team: Caller, name: str) -> None:
    """More changes than are kept in memory, most of them of other services."""
    start = end(team)
    register(team, name, "first")
    other = next(names)
    others = [registration(other, f"i-{number}", ttl_seconds=3600) for number in range(1000)]
    for weight in range(1, 8):
        assert team.call("POST", "/registry/register", [item | {"weight": weight} for item in others]).status == 200
    register(team, name, "last")
    registry.kill_web()  # the newest 5,000 are in memory then
    with stream(registry, f"service={name}&index={start}") as open_stream:
        assert kinds(open_stream.changes(), 3) == [
            ("service_created", None),
            ("registered", "first"),
            ("registered", "last"),
        ]
    with stream(registry, f"index={start}") as open_stream:
        found = [change["index"] for change in itertools.islice(open_stream.changes(), 7_004)]
    ids = [int(index.partition("-")[2]) for index in found]
    assert ids == sorted(set(ids))
    assert len(ids) == 7_004


def poll(caller: Caller, query: str) -> Reply:
    return caller.call("GET", f"/registry/watch?{query}")


def test_a_stream_says_how_far_the_registry_has_read(registry: Registry, team: Caller, name: str) -> None:
    index = register(team, name)
    with stream(registry) as open_stream:
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
def test_who_refuses_a_stream_by_its_weight_polls(registry: Registry, accept: str, streams: bool) -> None:
    reader = registry.caller("registry-readers")
    reader.connection.request("GET", "/registry/watch", headers=reader.headers | {"Accept": accept})
    with reader.connection.getresponse() as answer:
        assert (answer.getheader("Content-Type") == "text/event-stream") == streams
    reader.connection.close()


def test_a_poll_without_an_index_answers_with_the_index(reader: Caller) -> None:
    answer = poll(reader, "wait=5m")
    assert (answer.status, answer.json) == (200, {"index": end(reader), "changes": []})


def test_a_poll_answers_at_once_with_what_is_there(reader: Caller, team: Caller, name: str) -> None:
    start = end(team)
    register(team, name)
    answer = poll(reader, f"index={start}&wait=5m")
    schemas.WatchResponse.model_validate(answer.json)
    assert [change["kind"] for change in answer.json["changes"]] == ["service_created", "registered"]
    assert answer.json["index"] == answer.json["changes"][-1]["index"] == end(team)


def test_a_poll_waits_for_a_change(registry: Registry, reader: Caller, team: Caller, name: str) -> None:
    start = end(team)
    with waiting(registry, reader, f"/registry/watch?index={start}&wait=5m&service={name}") as answer:
        register(team, next(names))
        register(team, name)
        assert {change["service_name"] for change in answer().json["changes"]} == {name}


def test_a_poll_gives_500_changes_at_most(reader: Caller, team: Caller, name: str) -> None:
    start = end(team)
    team.call(
        "POST", "/registry/register", [registration(name, f"i-{number}", ttl_seconds=3600) for number in range(700)]
    )
    first = poll(reader, f"index={start}").json
    second = poll(reader, f"index={first['index']}").json
    assert (len(first["changes"]), len(second["changes"])) == (500, 201)
    assert first["index"] == first["changes"][-1]["index"]


def test_a_poll_in_vain_ends_with_its_wait(reader: Caller, team: Caller, name: str) -> None:
    start = register(team, name)
    began = time.monotonic()
    answer = poll(reader, f"index={start}&wait=500ms").json
    assert answer == {"index": start, "changes": []}
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_an_index_that_cannot_be_placed_is_gone(registry: Registry, team: Caller, name: str, accept: str) -> None:
    mark, _, pk = register(team, name).partition("-")
    another = "00000000" if mark != "00000000" else "11111111"
    for index in (f"{another}-{pk}", f"{mark}-{int(pk) + 1000}", f"{another}-1"):
        answer = team.call("GET", f"/registry/watch?index={index}", Accept=accept)
        assert (answer.status, answer.json["code"]) == (410, "index_gone")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("index=nonsense", "index"),
        ("index=-5", "index"),
        ("index=12345678-9223372036854775808", "index"),
        ("index=12345678-1&wait=6m", "wait"),
        ("wait=-1s", "wait"),
        ("wait=30", "wait"),
        ("wait=1e3s", "wait"),
        ("service=UPPER", "service.0"),
        ("namespace=a&namespace=b", "namespace"),
        ("kind=registered", "kind"),
    ],
)
def test_a_query_that_is_none_is_refused(reader: Caller, query: str, field: str, accept: str) -> None:
    answer = reader.call("GET", f"/registry/watch?{query}", Accept=accept)
    assert (answer.status, answer.json["code"], list(answer.json["errors"])) == (400, "invalid", [field])


def test_a_last_event_id_that_is_none_is_refused(registry: Registry) -> None:
    with pytest.raises(Refused) as refused:
        stream(registry, last_event_id="nonsense")
    assert (refused.value.status, refused.value.problem["code"]) == (400, "invalid")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_it_is_for_those_who_may_read(registry: Registry, accept: str) -> None:
    nobody = registry.nobody().call("GET", "/registry/watch", Accept=accept)
    assert (nobody.status, nobody.json["code"]) == (401, "not_authenticated")
    stranger = registry.caller("team-without-rights").call("GET", "/registry/watch", Accept=accept)
    assert (stranger.status, stranger.json["code"]) == (403, "permission_denied")
    bad = registry.with_bearer("abc.def.ghi").call("GET", "/registry/watch", Accept=accept)
    assert (bad.status, bad.json["code"]) == (401, "token_invalid")


def test_head_is_answered_without_a_wait(reader: Caller) -> None:
    assert reader.call("HEAD", f"/registry/watch?index={end(reader)}&wait=5m").status == 200
    assert reader.call("POST", "/registry/watch").status == 405


def test_authors_are_shown_to_operators_and_owners_alone(registry: Registry, team: Caller, name: str) -> None:
    start = end(team)
    register(team, name)
    query = f"service={name}&index={start}"
    for groups, sees in [
        (("registry-readers",), False),
        (("registry-services", "team-other"), False),
        (("registry-services", "team"), True),
        (("registry-operators",), True),
    ]:
        caller = registry.caller(*groups)
        polled = poll(caller, query).json["changes"]
        with stream(registry, query, *groups) as open_stream:
            streamed = list(itertools.islice(open_stream.changes(), 2))
        for change in (*polled, *streamed):
            assert ("actor" in change, "reason" in change) == (sees, sees)
        assert ("evidence" in polled[0]) == sees


def test_a_stream_ends_when_its_token_has_run_out(registry: Registry, team: Caller, name: str) -> None:
    """The provider's clock may be 30 s off: a token of a second is good for half a minute."""
    bearer = token("registry-readers", ttl_seconds=-24)
    with Stream(registry.ports[0], bearer, f"service={name}") as open_stream:
        events = list(open_stream.events())
    assert [event.kind for event in events] == ["sync", "expired"]


def test_a_poll_whose_token_runs_out_is_refused(registry: Registry, team: Caller) -> None:
    answer = registry.with_bearer(token("registry-readers", ttl_seconds=-26)).call(
        "GET", f"/registry/watch?index={end(team)}&service=nothing-here&wait=6s"
    )
    assert (answer.status, answer.json["code"]) == (401, "token_invalid")


def test_a_caller_has_so_many_watches(registry: Registry, team: Caller, name: str) -> None:
    bearer = token("registry-readers", subject=name)
    opened = [Stream(registry.ports[0], bearer) for _ in range(WATCHES_PER_CALLER)]
    try:
        with pytest.raises(Refused) as refused:
            Stream(registry.ports[0], bearer)
        assert (refused.value.status, refused.value.problem["code"]) == (429, "rate_limited")
        polled = registry.with_bearer(bearer).call("GET", "/registry/watch")
        assert (polled.status, polled.headers["retry-after"]) == (429, "5")
        assert poll(team, "").status == 200
    finally:
        for each in opened:
            each.close()
    wait_for(lambda: registry.with_bearer(bearer).call("GET", "/registry/watch").status == 200)


def test_a_client_that_left_is_forgotten(registry: Registry, reader: Caller) -> None:
    before = metric(registry, 'registry_subscribers{kind="stream"}')
    with stream(registry):
        assert metric(registry, 'registry_subscribers{kind="stream"}') == before + 1
    wait_for(lambda: metric(registry, 'registry_subscribers{kind="stream"}') == before)


def metric(registry: Registry, name: str) -> float:
    """Over all its labels."""
    text = registry.caller("registry-readers").call("GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def nobody_else_watches(registry: Registry, watchers: int) -> None:
    """Wait until those whom earlier tests have left behind are gone."""
    wait_for(lambda: metric(registry, "registry_subscribers") == watchers)


def test_a_heartbeat_wakes_nobody(registry: Registry, team: Caller, name: str) -> None:
    """10,000 of them, in ones and in arrays."""
    ids = [f"i-{number}" for number in range(1000)]
    # Of a namespace of their own: what expires elsewhere meanwhile wakes nobody here.
    team.call(
        "POST", "/registry/register", [registration(name, each, namespace=name, ttl_seconds=3600) for each in ids]
    )
    beats = [{"namespace": name, "service_name": name, "instance_id": each} for each in ids]
    with stream(registry, f"namespace={name}"), stream(registry, f"service={name}"):
        nobody_else_watches(registry, 2)
        time.sleep(0.3)
        before = metric(registry, "registry_subscriber_wakeups_total")
        for _ in range(9):
            results = team.call("POST", "/registry/heartbeat", beats).json["results"]
            assert [result["status"] for result in results] == [200] * 1000
        for beat in beats:
            assert team.call("POST", "/registry/heartbeat", beat).status == 200
        time.sleep(0.3)
        assert metric(registry, "registry_subscriber_wakeups_total") == before
        register(team, name, "i-0", weight=1, namespace=name)
        wait_for(lambda: metric(registry, "registry_subscriber_wakeups_total") > before)


def test_a_change_wakes_only_those_who_watch_its_service(registry: Registry, team: Caller) -> None:
    one, two = next(names), next(names)
    register(team, one), register(team, two)
    opened = [stream(registry, f"service={name}") for name in (one, one, one, two, two)]
    try:
        nobody_else_watches(registry, 5)
        time.sleep(0.3)
        before = metric(registry, "registry_subscriber_wakeups_total")
        register(team, two, weight=7)
        wait_for(lambda: metric(registry, "registry_subscriber_wakeups_total") > before)
        time.sleep(0.3)
        assert metric(registry, "registry_subscriber_wakeups_total") == before + 2
    finally:
        for each in opened:
            each.close()


def test_a_slow_reader_is_cut_and_goes_on_by_its_index(registry: Registry, team: Caller, name: str) -> None:
    """It takes nothing while 64 MB of changes pass, of which sockets hold some and the backlog 32; then it finds its
    connection broken. Nobody else notices."""
    metadata = {f"key-{number}": "x" * 500 for number in range(16)}
    items = [registration(name, f"i-{number}", metadata=metadata, ttl_seconds=3600) for number in range(100)]
    cut = metric(registry, "registry_slow_clients_disconnected_total")
    with stream(registry, f"service={name}") as slow, stream(registry, f"service={name}") as quick:
        quick_changes = quick.changes()
        for weight in range(80):
            team.call("POST", "/registry/register", [item | {"weight": weight} for item in items])
            taken = sum(1 for _ in itertools.islice(quick_changes, 100 if weight else 101))
            assert taken >= 100
        wait_for(lambda: metric(registry, "registry_slow_clients_disconnected_total") == cut + 1)
        had: list[Event] = []
        with pytest.raises(Exception):  # noqa: B017, PT012 - as its client's library puts it
            for event in slow.events():
                had.append(event)  # noqa: PERF402 - what came before it broke is wanted
            raise ConnectionError("the stream ended without its last chunk")
    last = next(event.index for event in reversed(had) if event.kind == "change")
    missing = 8_001 - sum(event.kind == "change" for event in had)
    with stream(registry, f"service={name}&index={last}") as again:
        rest = list(itertools.islice(again.changes(), missing))
    indexes = [event.index for event in had if event.kind == "change"] + [change["index"] for change in rest]
    assert len(set(indexes)) == 8_001


def test_a_process_that_is_asked_to_end_lets_go_of_its_watchers(registry: Registry, reader: Caller) -> None:
    index = end(reader)
    with stream(registry) as open_stream, waiting(registry, reader, f"/registry/watch?index={index}&wait=5m") as answer:
        assert next(open_stream.events()).kind == "sync"
        registry.web[0].send_signal(signal.SIGTERM)
        assert [event.kind for event in open_stream.events()] == []
        assert answer().json == {"index": index, "changes": []}
        registry.web[0].wait(timeout=20)
    registry.web[0] = registry.start_web(registry.ports[0])
    wait_for(lambda: registry.ready(registry.ports[0]))


def test_a_process_that_is_asked_to_end_closes_streams_far_behind(registry: Registry, team: Caller, name: str) -> None:
    """Of one that reads the log yet, and of one that takes nothing."""
    start = end(team)
    metadata = {f"key-{number}": "x" * 500 for number in range(2)}
    items = [registration(name, f"i-{number}", metadata=metadata, ttl_seconds=3600) for number in range(500)]
    for weight in range(40):
        assert team.call("POST", "/registry/register", [item | {"weight": weight} for item in items]).status == 200
    registry.kill_web()
    with stream(registry, f"index={start}") as reading, stream(registry, f"index={start}"):
        events = reading.events()
        assert next(events).kind == "change"
        registry.web[0].send_signal(signal.SIGTERM)
        # Who had all of it would be told so, by a `sync`.
        assert {event.kind for event in itertools.islice(events, 12_001)} == {"change"}
        registry.web[0].wait(timeout=20)
    registry.web[0] = registry.start_web(registry.ports[0])
    wait_for(lambda: registry.ready(registry.ports[0]))


class waiting:  # noqa: N801 - reads as a word of the test
    """A request whose answer is waited for. Within it is under way; called, it gives the answer."""

    def __init__(self, registry: Registry, caller: Caller, path: str) -> None:
        self.registry = registry
        self.caller = caller
        self.path = path

    def __enter__(self) -> Any:
        kind = "poll" if "/watch" in self.path else "read"
        before = metric(self.registry, f'registry_subscribers{{kind="{kind}"}}')
        self.caller.connection.request("GET", self.path, headers=self.caller.headers)
        wait_for(lambda: metric(self.registry, f'registry_subscribers{{kind="{kind}"}}') > before)
        return self.answer

    def __exit__(self, *_error: object) -> None:
        self.caller.connection.close()

    def answer(self) -> Reply:
        response = self.caller.connection.getresponse()
        lowered = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, lowered, response.read())


@pytest.mark.parametrize("gone", [False, True])
def test_bytes_of_the_poll_are_the_same_as_by_django(registry: Registry, team: Caller, name: str, gone: bool) -> None:
    """Of a service whose owners changed, and of one that is gone: whoever asks sees the same authors."""
    start = end(team)
    register(team, name)
    admin = registry.caller("registry-admins")
    owned = admin.call("PUT", f"/registry/services/{name}/owners", {"owners": ["heirs"], "reason": "moved"})
    assert owned.status == 200, owned.body
    if gone:
        left = {"service_name": name, "instance_id": "a"}
        assert admin.call("POST", "/registry/deregister", left).status == 204
        deleted = admin.call("DELETE", f"/registry/services/{name}", {"reason": "retired"})
        assert deleted.status in {200, 204}, deleted.body
    wait_for(lambda: poll(team, f"index={start}&wait=0s").json["index"] == end(admin))
    twice = {"X-Twice": "1", "x-twice": "2"}
    for group in ("registry-readers", "registry-operators", "team", "heirs"):
        caller = registry.caller("registry-readers", group)
        path = f"/registry/watch?index={start}&service={name}"
        here, by_django = (caller.call("GET", path, None, **more) for more in ({}, twice))
        assert here.body == by_django.body
        assert json.loads(here.body)["changes"]
