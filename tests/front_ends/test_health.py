"""The health of a service and of an instance, for callers that read nothing but the status, through every front end."""

from typing import Any

import pytest

from tests.client import registration, token
from tests.front_ends.calls import HEALTH_PATH, INSTANCE, INSTANCE_HEALTH_PATH, SERVICE, TEAM
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
