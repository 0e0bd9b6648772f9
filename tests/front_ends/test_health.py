"""The health of a service and of an instance, for callers that read nothing but the status, through every front end."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.client import registration, token
from tests.front_ends.calls import HEALTH_PATH, INSTANCE, INSTANCE_HEALTH_PATH, OTHER_TEAM, READ, SERVICE, TEAM, groups
from tests.front_ends.client import NAMESPACE, Answer, Request
from tests.front_ends.running import Case, Check, Run


@pytest.fixture
def bearer() -> str:
    return token("registry-admins", TEAM, subject="admin")


def answers(status: int, wanted: dict[str, Any]) -> Check:
    """Return a check of the status, the media type and members of the document."""

    def check(answer: Answer) -> str | None:
        found = {name: answer.json.get(name) for name in wanted} if not answer.to_head else wanted
        good = (answer.status, answer.headers.get("content-type")) == (status, "application/json") and found == wanted
        return None if good else f"expected {status} with {wanted}, and the answer is {answer}"

    return check


def cases_of(path: str, bearer: str, statuses: dict[int, int], wanted: dict[str, Any]) -> list[Case]:
    """Return GET and HEAD without a requirement, which is answered with 200, and with each one."""
    expected = {"": 200} | {f"&require={require}": status for require, status in statuses.items()}
    return [
        Case(f"{method} {path}{query}", Request(method, path + query, None, bearer), answers(status, wanted))
        for query, status in expected.items()
        for method in ("GET", "HEAD")
    ]


def test_answer_is_503_with_the_same_document_where_fewer_are_healthy(run: Run, bearer: str) -> None:
    counts = {"name": "health", "healthy": 1, "total": 2, "truncated": False}
    instances = [registration("health", INSTANCE), registration("health", "down", status="DOWN")]
    for front in run.fronts:
        bodies = [each | {"namespace": NAMESPACE} for each in instances]
        assert front.ask(Request("POST", "/registry/register", bodies, bearer)).status == 200
    service, instance = (path.replace(SERVICE, "health") for path in (HEALTH_PATH, INSTANCE_HEALTH_PATH))
    down = {"instance_id": "down", "healthy": False, "reason": "reported", "status": "DOWN", "health": None}
    run.run(
        [
            *cases_of(service, bearer, {0: 200, 1: 200, 2: 503, 10_000: 503}, counts),
            *cases_of(service.replace("?", "/?"), bearer, {2: 503}, counts),
            *cases_of(instance, bearer, {0: 200, 1: 200}, {"instance_id": INSTANCE, "healthy": True, "reason": None}),
            *cases_of(instance.replace(INSTANCE, "down"), bearer, {0: 200, 1: 503}, down),
        ]
    )
    run.conclude()


def test_override_takes_the_last_healthy_instance_away(run: Run, bearer: str) -> None:
    for front in run.fronts:
        body = registration("health-of-one", INSTANCE, namespace=NAMESPACE)
        assert front.ask(Request("POST", "/registry/register", body, bearer)).status == 201
        assert front.ask(Request("GET", one("&require=1"), None, bearer)).status == 200
        path = f"/registry/instance/health-of-one/{INSTANCE}/status?namespace={NAMESPACE}"
        override = {"status": "OUT_OF_SERVICE", "reason": "restart"}
        assert front.ask(Request("PUT", path, override, bearer)).status == 200
        answer = front.ask(Request("GET", one("&require=1"), None, bearer))
        (shown,) = answer.json["instances"]
        assert (answer.status, shown["reason"], shown["status"]) == (503, "override", "OUT_OF_SERVICE")


def one(query: str) -> str:
    return HEALTH_PATH.replace(SERVICE, "health-of-one") + query


CHECK = {"type": "http", "path": "/health?deep=1", "headers": {"X-Tenant": "shop"}}
RECORD = """
INSERT INTO service_registry_healthstanding
    (instance_id, epoch, due_at, failures, better, flapping, checked_at, level, cause, output, seconds)
SELECT i.id, l.epoch, statement_timestamp(), 1, 0, false, '2026-12-31T23:59:59Z', 'critical', 'timeout', 'no answer', 2
FROM service_registry_instance i JOIN service_registry_lease l ON l.instance_id = i.id WHERE i.health IS NOT NULL
ON CONFLICT DO NOTHING
"""
LAST_CHECK = {"checked_at": "2026-12-31T23:59:59.000000Z", "level": "critical", "cause": "timeout", "seconds": 2.0}


@pytest.fixture
def checked(run: Run, bearer: str, database_url: str) -> Iterator[str]:
    """The name of a service whose instance has been checked."""
    for front in run.fronts:
        body = registration("checked", INSTANCE, namespace=NAMESPACE, health_check=CHECK)
        answer = front.ask(Request("POST", "/registry/register", body, bearer))
        assert (answer.status, answer.json["health"]) == (201, "unknown"), str(answer)
    with psycopg.connect(database_url) as connection:
        connection.execute(RECORD)
    yield "checked"
    for front in run.fronts:
        key = {"namespace": NAMESPACE, "service_name": "checked", "instance_id": INSTANCE}
        front.ask(Request("POST", "/registry/deregister", key, bearer))


def shows_check(*, private: bool) -> Check:
    """Return a check that the answer has the health check and its result, with or without what owners see."""

    def check(answer: Answer) -> str | None:
        shown, last = answer.json["health_check"], answer.json["last_check"]
        seen = {"path": shown.get("path"), "headers": shown.get("headers"), "output": last.get("output")}
        wanted = {"path": CHECK["path"], "headers": CHECK["headers"], "output": "no answer"}
        public = {name: last[name] for name in LAST_CHECK} == LAST_CHECK and shown["interval_seconds"] == 10
        good = public and (seen == wanted if private else not any(seen.values()))
        return None if good else f"expected private={private}, and the answer is {answer}"

    return check


def test_output_path_and_headers_are_for_owners_and_operators(run: Run, checked: str) -> None:
    cases = []
    for group, granted in groups().items():
        if granted >= READ:
            for team in (TEAM, OTHER_TEAM):
                private = team == TEAM or bool(granted & {"view_change", "operate_instance"})
                path = f"/registry/instance/{checked}/{INSTANCE}?namespace={NAMESPACE}"
                request = Request("GET", path, None, token(group, team, subject=group))
                cases.append(Case(f"{group} of {team}", request, shows_check(private=private)))
    assert len(cases) > 20
    run.run(cases)
    run.conclude()


def test_health_shows_the_last_check_without_its_output(run: Run, checked: str) -> None:
    def check(answer: Answer) -> str | None:
        good = answer.json["last_check"] == LAST_CHECK
        return None if good else f"the answer is {answer}"

    team = token("registry-services", TEAM, subject="team")
    path = INSTANCE_HEALTH_PATH.replace(SERVICE, checked)
    run.run([Case("health", Request("GET", f"{path}&require=1", None, team), check)])
    run.conclude()
