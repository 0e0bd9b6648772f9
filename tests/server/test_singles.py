"""register and heartbeat in ones, which share batches: each is answered as if it were alone."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.client import registration, token
from tests.server.registry import Caller, Registry, Reply
from tests.waiting import wait_for

OWN_TO_AN_ANSWER = {"date", "x-request-id", "content-length"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("singles")) as running:
        yield running


def beat(service_name: str, instance_id: str, **fields: Any) -> dict[str, Any]:
    return {"service_name": service_name, "instance_id": instance_id} | fields


def through_django(caller: Caller, path: str, body: Any) -> Reply:
    """The same request with a header twice, which the asynchronous door leaves to Django."""
    content = json.dumps(body).encode()
    caller.connection.putrequest("POST", path)
    headers = [*caller.headers.items(), ("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    for name, value in [*headers, ("X-Twice", "a"), ("X-Twice", "b")]:
        caller.connection.putheader(name, value)
    caller.connection.endheaders(content)
    response = caller.connection.getresponse()
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def shape(document: Any) -> Any:
    """A document without what differs from one call to the next."""
    if isinstance(document, dict):
        moving = {"request_id", "heartbeat_at", "expires_at"}
        return {name: shape(value) for name, value in document.items() if name not in moving}
    return [shape(each) for each in document] if isinstance(document, list) else document


def test_both_doors_give_the_same_answer(registry: Registry) -> None:
    ours, theirs = registry.caller("registry-services", "team"), registry.caller("registry-services", "others")
    for caller in (ours, theirs):  # a token is left to Django when it is met for the first time
        caller.call("POST", "/registry/heartbeat", beat("nowhere", "unknown"))
    created = ours.call("POST", "/registry/register", registration("both", "i-1"))
    epoch = created.json["lease"]["epoch"]
    assert created.status == 201
    for caller, path, body, status in (
        (ours, "/registry/register", registration("both", "i-1"), 200),
        (ours, "/registry/register/", registration("both", "i-1"), 200),
        (theirs, "/registry/register", registration("both", "i-1"), 403),
        (ours, "/registry/register", registration("both", "i-1", port=0), 400),
        (ours, "/registry/heartbeat", beat("both", "i-1"), 200),
        (ours, "/registry/heartbeat", beat("both", "i-1", epoch=epoch), 200),
        (ours, "/registry/heartbeat", beat("both", "i-1", epoch=epoch + 1), 409),
        (ours, "/registry/heartbeat", beat("both", "i-2"), 404),
        (ours, "/registry/heartbeat", [beat("both", "i-1"), beat("both", "i-2")], 200),
        (theirs, "/registry/heartbeat", beat("both", "i-1"), 403),
        (ours, "/registry/heartbeat", beat("both", "i-1", unknown=1), 400),
        (ours, "/registry/heartbeat", "no object", 400),
    ):
        gathered, alone = caller.call("POST", path, body), through_django(caller, path, body)
        assert (gathered.status, alone.status) == (status, status), (path, body, gathered.body)
        same(gathered, alone)


def same(gathered: Reply, alone: Reply) -> None:
    assert shape(gathered.json) == shape(alone.json)
    for name in OWN_TO_AN_ANSWER | {"vary", "allow"}:
        gathered.headers.pop(name, None), alone.headers.pop(name, None)
    assert gathered.headers == alone.headers


def test_both_doors_give_the_same_answer_to_arrays(registry: Registry) -> None:
    ours, theirs = registry.caller("registry-services", "team"), registry.caller("registry-services", "others")
    for caller in (ours, theirs):
        caller.call("POST", "/registry/heartbeat", [beat("nowhere", "unknown")])
    standing = [registration("arrays", f"i-{number}") for number in range(3)]
    epoch = ours.call("POST", "/registry/register", standing).json["results"][0]["instance"]["lease"]["epoch"]
    mixed: list[Any] = [
        beat("arrays", "i-0", epoch=epoch),
        beat("arrays", "i-1", epoch=epoch - 1),
        beat("arrays", "i-1", unknown=1),
        beat("arrays", "i-2", status="OUT_OF_SERVICE"),
        beat("arrays", "i-2"),
        beat("arrays", "never"),
        beat("nowhere", "i-0"),
        None,
    ]
    leaving = [beat("arrays", "never"), beat("arrays", "i-1", epoch=epoch - 1)]
    for caller, path, body, status, outcomes in (
        (ours, "/registry/heartbeat", mixed, 200, [200, 409, 400, 200, 400, 404, 404, 400]),
        (theirs, "/registry/heartbeat/", mixed[:2], 200, [403, 403]),
        (ours, "/registry/register", [*standing, registration("arrays", "i-0"), {}], 200, [200, 200, 200, 400, 400]),
        (theirs, "/registry/register", standing, 200, [403] * 3),
        (ours, "/registry/deregister", leaving, 200, [404, 409]),
        (ours, "/registry/heartbeat", [], 400, None),
        (ours, "/registry/heartbeat", [beat("arrays", "i-0")] * 1001, 400, None),
        (ours, "/registry/heartbeat", [[[[[[[[[]]]]]]]]], 400, None),
    ):
        ahead, alone = caller.call("POST", path, body), through_django(caller, path, body)
        assert (ahead.status, alone.status) == (status, status), (path, ahead.body)
        if outcomes:
            assert [item["status"] for item in ahead.json["results"]] == outcomes
        same(ahead, alone)


def has_more_than(listed: Callable[[], Sequence[Any]], number: int) -> bool:
    return len(listed()) > number


def test_arrays_are_counted_and_told_alike_by_both_doors(registry: Registry) -> None:
    team, reader = registry.caller("registry-services", "team"), registry.caller("registry-readers")
    team.call("POST", "/registry/register", registration("counted", "i-0"))
    path, body = "/registry/heartbeat", [beat("counted", "i-0"), beat("counted", "i-1"), beat("counted", "i-0")]

    def counted() -> Counter[str]:
        text = reader.call("GET", "/metrics").body.decode()
        kept = ("registry_operations_total", "registry_heartbeats_refused_total", "registry_http_requests_total")
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(kept)]
        return Counter({name: int(float(value)) for name, _, value in lines if "metrics" not in name})

    def told() -> list[dict[str, Any]]:
        """Log lines of arrays, without what differs from one request to the next."""
        output = (registry.directory / "output").read_text().splitlines()
        documents = [json.loads(line) for line in output if line.startswith("{")]
        moving = {"time", "request_id", "duration_ms"}
        return [{name: each[name] for name in each.keys() - moving} for each in documents if each.get("items") == 3]

    seen = []
    for ask in (partial(team.call, "POST"), partial(through_django, team)):
        before, lines = counted(), len(told())
        assert ask(path, body).status == 200
        wait_for(partial(has_more_than, told, lines))
        seen.append((counted() - before, told()[lines:]))
    ahead, alone = seen
    assert ahead == alone
    assert ahead[0].total() == 3 + 2 + 1


def test_a_request_id_comes_back(registry: Registry) -> None:
    team = registry.caller("registry-services", "team")
    for _ in range(2):
        answer = team.call("POST", "/registry/heartbeat", beat("nowhere", "unknown"), **{"X-Request-Id": "mine"})
        assert (answer.headers["x-request-id"], answer.json["request_id"]) == ("mine", "mine")


def test_another_host_is_refused(registry: Registry) -> None:
    team = registry.caller("registry-services", "team")
    for _ in range(2):
        answer = team.call("POST", "/registry/heartbeat", beat("nowhere", "unknown"), Host="evil.example")
        assert (answer.status, answer.json["code"]) == (421, "unknown_host")


def test_callers_in_one_batch_are_judged_each_by_their_own_groups(registry: Registry) -> None:
    teams = [f"crew-{number}" for number in range(20)]
    bearers = {team: token("registry-services", team, subject=team) for team in teams}

    def talk(team: str) -> Counter[tuple[str, int]]:
        caller, seen = registry.caller_with_token(bearers[team]), Counter[tuple[str, int]]()
        other = teams[teams.index(team) - 1]
        for number in range(30):
            own = registration(f"of-{team}", f"i-{number}")
            seen["registered", caller.call("POST", "/registry/register", own).status] += 1
            seen["beaten", caller.call("POST", "/registry/heartbeat", beat(f"of-{team}", "i-0")).status] += 1
            foreign = caller.call("POST", "/registry/heartbeat", beat(f"of-{other}", "i-0"))
            seen[foreign.json["code"], foreign.status] += 1
        return seen

    for team in teams:  # each has its service before the others knock at it
        registry.caller_with_token(bearers[team]).call(
            "POST", "/registry/register", registration(f"of-{team}", "first")
        )
    before = registry.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0]
    with ThreadPoolExecutor(len(teams)) as pool:
        seen = sum(pool.map(talk, teams), Counter[tuple[str, int]]())
    assert seen == {("registered", 201): 600, ("beaten", 200): 600, ("not_owner", 403): 600}
    actors = registry.sql(
        "SELECT service_name, count(*), array_agg(DISTINCT actor) FROM service_registry_change "
        "WHERE kind = 'registered' AND service_name LIKE 'of-crew-%' GROUP BY service_name"
    )
    assert len(actors) == 20
    for service_name, count, names in actors:
        assert count == 31
        (name,) = names
        assert name.startswith(f"{service_name.removeprefix('of-')}@")
    after = registry.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0]
    assert after - before < 1800, "1,800 requests took a transaction each: nothing was gathered"


def test_beats_of_one_instance_at_once_all_count(registry: Registry) -> None:
    team = registry.caller("registry-services", "team")
    team.call("POST", "/registry/register", registration("same", "i-1"))
    callers = [registry.caller_with_token(team.headers["Authorization"].removeprefix("Bearer ")) for _ in range(16)]
    start = threading.Barrier(16)

    def talk(caller: Caller) -> list[int]:
        start.wait(timeout=30)
        return [caller.call("POST", "/registry/heartbeat", beat("same", "i-1")).status for _ in range(20)]

    with ThreadPoolExecutor(16) as pool:
        assert [status for statuses in pool.map(talk, callers) for status in statuses] == [200] * 320
    counted = "SELECT beats FROM service_registry_lease l JOIN service_registry_instance i ON i.id = l.instance_id"
    beats = registry.sql(f"{counted} JOIN service_registry_service s ON s.id = i.service_id WHERE s.name = 'same'")
    assert beats == [(320,)]


HOLD = """
SELECT FROM service_registry_{table} WHERE {key} = (
    SELECT i.id FROM service_registry_instance i JOIN service_registry_service s ON s.id = i.service_id
    WHERE s.name = '{service}' AND i.instance_id = 'i-3') FOR UPDATE
"""


@pytest.mark.parametrize(
    ("verb", "table", "key"), [("heartbeat", "lease", "instance_id"), ("register", "instance", "id")]
)
def test_an_instance_that_somebody_holds_delays_nobody_for_long(
    registry: Registry, verb: str, table: str, key: str
) -> None:
    team = registry.caller("registry-services", "team")
    service, ids = f"held-{verb}", [f"i-{number}" for number in range(8)]
    team.call("POST", "/registry/register", [registration(service, each) for each in ids])
    bearer = team.headers["Authorization"].removeprefix("Bearer ")
    bodies = {each: registration(service, each) if verb == "register" else beat(service, each) for each in ids}
    with psycopg.connect(registry.postgres.url) as holder:
        holder.execute(HOLD.format(table=table, key=key, service=service))

        def talk(instance_id: str) -> int:
            caller = registry.caller_with_token(bearer)
            return caller.call("POST", f"/registry/{verb}", bodies[instance_id]).status

        with ThreadPoolExecutor(8) as pool:
            statuses = dict(zip(ids, pool.map(talk, ids), strict=True))
    assert statuses == dict.fromkeys(ids, 200) | {"i-3": 503}
