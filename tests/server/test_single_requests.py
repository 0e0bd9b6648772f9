"""Single requests that share micro-batches: each gets the response that it would get alone."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.client import Answer, registration, token
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("singles")) as running:
        yield running


def make_heartbeat(service_name: str, instance_id: str, **fields: Any) -> dict[str, Any]:
    return {"service_name": service_name, "instance_id": instance_id} | fields


@pytest.fixture(scope="module")
def wsgi_port(registry: Registry) -> int:
    return registry.start_wsgi()


def test_array_is_counted_and_logged_the_same_by_asgi_and_by_wsgi(registry: Registry, wsgi_port: int) -> None:
    """Each server is a process with separate metrics; all of them write the same file."""
    team = registry.caller("registry-services", "team")
    team.register("counted", "i-0")
    body = [make_heartbeat("counted", instance_id) for instance_id in ("i-0", "i-1", "i-0")]
    seen = []
    for port in (registry.ports[0], wsgi_port):
        caller = Caller(port, token("registry-services", "team"))
        counted, logged = read_counters(registry, port), len(read_log_of_arrays(registry))
        assert caller.call("POST", "/registry/heartbeat", body).status == 200
        caller.connection.close()
        wait_for(partial(has_logged_more, registry, logged))
        seen.append((read_counters(registry, port) - counted, read_log_of_arrays(registry)[logged:]))
    by_asgi, by_wsgi = seen
    assert by_asgi == by_wsgi
    assert by_asgi[0].total() == 3 + 2 + 1


def read_counters(registry: Registry, port: int) -> Counter[str]:
    """Return the counters of operations and requests by name and labels, without those of /metrics itself."""
    reader = Caller(port, token("registry-readers"))
    text = reader.call("GET", "/metrics").body.decode()
    reader.connection.close()
    kept = ("registry_operations_total", "registry_heartbeats_refused_total", "registry_http_requests_total")
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(kept)]
    return Counter({name: int(float(value)) for name, _, value in lines if "metrics" not in name})


def read_log_of_arrays(registry: Registry) -> list[dict[str, Any]]:
    """Return the log entries of arrays of three, without what differs between requests and processes."""
    output = (registry.directory / "output").read_text().splitlines()
    documents = [json.loads(line) for line in output if line.startswith("{")]
    ignored = {"time", "request_id", "duration_ms", "process"}
    return [{name: each[name] for name in each.keys() - ignored} for each in documents if each.get("items") == 3]


def has_logged_more(registry: Registry, count: int) -> bool:
    return len(read_log_of_arrays(registry)) > count


def test_callers_in_one_micro_batch_are_authorised_by_their_own_groups(registry: Registry) -> None:
    teams = [f"crew-{number}" for number in range(20)]
    bearers = {team: token("registry-services", team, subject=team) for team in teams}

    def send_requests(team: str) -> Counter[tuple[str, int]]:
        caller, seen = registry.caller_with_token(bearers[team]), Counter[tuple[str, int]]()
        other = teams[teams.index(team) - 1]
        for number in range(30):
            own = registration(f"of-{team}", f"i-{number}")
            seen["registered", caller.call("POST", "/registry/register", own).status] += 1
            seen["renewed", caller.call("POST", "/registry/heartbeat", make_heartbeat(f"of-{team}", "i-0")).status] += 1
            foreign = caller.call("POST", "/registry/heartbeat", make_heartbeat(f"of-{other}", "i-0"))
            seen[foreign.json["code"], foreign.status] += 1
        return seen

    for team in teams:  # its service exists before the others send heartbeats for it
        registry.caller_with_token(bearers[team]).call(
            "POST", "/registry/register", registration(f"of-{team}", "first")
        )
    before = registry.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0]
    with ThreadPoolExecutor(len(teams)) as pool:
        seen = sum(pool.map(send_requests, teams), Counter[tuple[str, int]]())
    assert seen == {("registered", 201): 600, ("renewed", 200): 600, ("not_owner", 403): 600}
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
    assert after - before < 1800, "1,800 requests took a transaction each: there was no micro-batch"


def test_concurrent_heartbeats_of_one_instance_are_all_answered(registry: Registry) -> None:
    team = registry.caller("registry-services", "team")
    team.call("POST", "/registry/register", registration("same", "i-1"))
    body = make_heartbeat("same", "i-1")
    answers = call_together(registry, [("/registry/heartbeat", body)] * 40)
    assert [reply.status for reply in answers] == [200] * 40
    counted = "SELECT beats FROM service_registry_lease l JOIN service_registry_instance i ON i.id = l.instance_id"
    beats = registry.sql(f"{counted} JOIN service_registry_service s ON s.id = i.service_id WHERE s.name = 'same'")
    assert 1 <= beats[0][0] <= 40


def call_together(registry: Registry, requests: Sequence[tuple[str, Any]]) -> list[Answer]:
    """Send requests at the same moment, each on a separate connection of one caller."""
    bearer = token("registry-services", "team")
    start = threading.Barrier(len(requests))

    def send(path: str, body: Any) -> Answer:
        caller = registry.caller_with_token(bearer)
        caller.connection.connect()
        start.wait(timeout=60)
        return caller.call("POST", path, body)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: send(*request), requests))


def test_simultaneous_registrations_of_one_instance_are_all_answered(registry: Registry) -> None:
    bodies = [registration("crowded", "i-1", weight=number) for number in range(40)]
    answers = call_together(registry, [("/registry/register", body) for body in bodies])
    assert Counter(reply.status for reply in answers) == {201: 1, 200: 39}
    assert {reply.json["epoch"] for reply in answers} == {answers[0].json["epoch"]}
    shown = registry.caller("registry-readers").call("GET", "/registry/services/crowded").json["instances"][0]
    assert shown["weight"] in {reply.json["weight"] for reply in answers}


def test_simultaneous_registrations_from_two_hosts_do_not_share_an_epoch(registry: Registry) -> None:
    hosts = ["10.0.0.1", "10.0.0.2"]
    bodies = [registration("doubled", "i-1", host=hosts[number % 2]) for number in range(16)]
    answers = call_together(registry, [("/registry/register", body) for body in bodies])
    assert {reply.status for reply in answers} == {200, 201}
    assert all(reply.json["host"] == body["host"] for reply, body in zip(answers, bodies, strict=True))
    hosts_by_epoch = {(reply.json["epoch"], reply.json["host"]) for reply in answers}
    assert len(hosts_by_epoch) == len({epoch for epoch, _host in hosts_by_epoch})


LOCK_ONE = """
SELECT FROM service_registry_{table} WHERE {key} = (
    SELECT i.id FROM service_registry_instance i JOIN service_registry_service s ON s.id = i.service_id
    WHERE s.name = '{service}' AND i.instance_id = 'i-3') FOR UPDATE
"""


@pytest.mark.parametrize(
    ("operation", "table", "key"), [("heartbeat", "lease", "instance_id"), ("register", "instance", "id")]
)
def test_locked_instance_gets_503_and_does_not_delay_others(
    registry: Registry, operation: str, table: str, key: str
) -> None:
    team = registry.caller("registry-services", "team")
    service, ids = f"locked-{operation}", [f"i-{number}" for number in range(8)]
    team.call("POST", "/registry/register", [registration(service, each) for each in ids])
    bearer = team.headers["Authorization"].removeprefix("Bearer ")
    bodies = {
        each: registration(service, each, weight=7) if operation == "register" else make_heartbeat(service, each)
        for each in ids
    }
    with psycopg.connect(registry.postgres.url) as other:
        other.execute(LOCK_ONE.format(table=table, key=key, service=service))

        def send_requests(instance_id: str) -> int:
            caller = registry.caller_with_token(bearer)
            return caller.call("POST", f"/registry/{operation}", bodies[instance_id]).status

        with ThreadPoolExecutor(8) as pool:
            statuses = dict(zip(ids, pool.map(send_requests, ids), strict=True))
    assert statuses == dict.fromkeys(ids, 200) | {"i-3": 503}
