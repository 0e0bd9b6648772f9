"""Permanent instances through every front end: registration, heartbeat, and what is refused."""

from typing import Any

import pytest

from tests.client import registration, token
from tests.front_ends.calls import OTHER_TEAM, REGISTRATION, TEAM
from tests.front_ends.client import Answer, FrontEnd, Request
from tests.front_ends.running import Case, Run, expect, expect_items

PERMANENT = REGISTRATION | {"lease": "none"}
NO_LEASE = {"expires_at": None, "heartbeat_interval_seconds": None, "ttl_seconds": None}
CHECK = {"type": "tcp"}
RENEWING = CHECK | {"renews": True}


@pytest.fixture
def bearer() -> str:
    return token("registry-services", TEAM, subject="owner")


@pytest.fixture(params=[0, 1], ids=["asgi", "wsgi"])
def front(request: pytest.FixtureRequest, fronts: tuple[FrontEnd, FrontEnd]) -> FrontEnd:
    return fronts[request.param]


def lease_of(answer: Answer) -> dict[str, Any]:
    """Return the members of the lease that stay the same in every answer."""
    return {name: answer.json["lease"][name] for name in NO_LEASE}


def test_permanent_instance_is_registered_renewed_shown_and_deregistered(front: FrontEnd, bearer: str) -> None:
    key = {"service_name": f"printers-{front.name}", "instance_id": "p-1"}
    path = f"/registry/instance/{key['service_name']}/p-1"

    def post(operation: str, body: dict[str, Any]) -> Answer:
        return front.ask(Request("POST", f"/registry/{operation}", body, bearer))

    for status in (201, 200):
        answer = post("register", registration(**key, lease="none"))
        assert (answer.status, answer.json["ttl_seconds"], lease_of(answer)) == (status, None, NO_LEASE), str(answer)
    for body in (key, key | {"status": "DOWN"}):
        answer = post("heartbeat", body)
        assert (answer.status, lease_of(answer)) == (200, NO_LEASE), str(answer)
    answer = front.ask(Request("GET", path, None, bearer))
    assert (answer.json["judged_by"], answer.json["status"], lease_of(answer)) == ([], "DOWN", NO_LEASE)
    answer = post("register", registration(**key, ttl_seconds=60))
    assert (answer.status, answer.json["lease"]["ttl_seconds"]) == (200, 60)
    assert lease_of(post("register", registration(**key, lease="none", health_check=CHECK))) == NO_LEASE
    assert front.ask(Request("GET", path, None, bearer)).json["judged_by"] == ["health_check"]
    assert post("deregister", key).status == 204
    assert front.ask(Request("GET", path, None, bearer)).status == 404


def test_permanent_instance_with_a_ttl_or_a_check_that_renews_is_refused(run: Run, bearer: str) -> None:
    fields: list[tuple[str, Any]] = [("ttl_seconds", 5), ("ttl_seconds", 86400), ("health_check", RENEWING)]
    for field, value in fields:
        body = PERMANENT | {field: value}
        cases = [
            Case(field, Request("POST", "/registry/register", body, bearer), expect(400, "invalid", fields=[field])),
            Case(field, Request("POST", "/registry/register", [body], bearer), expect_items((400, "invalid"))),
        ]
        run.run(cases, refused=True)
    run.conclude()


def test_permanent_instance_of_a_foreign_service_is_forbidden(run: Run) -> None:
    other = token("registry-services", OTHER_TEAM, subject="other")
    reader = token("registry-readers", TEAM, subject="reader")
    cases = [
        Case("of another team", Request("POST", "/registry/register", PERMANENT, other), expect(403, "not_owner")),
        Case(
            "without permission",
            Request("POST", "/registry/register", PERMANENT, reader),
            expect(403, "permission_denied", permission="register_instance"),
        ),
    ]
    run.run(cases, refused=True)
    run.conclude()
