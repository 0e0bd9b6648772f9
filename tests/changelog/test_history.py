"""GET /registry/changes: filters, pages and permissions."""

from typing import Any
from urllib.parse import quote

import pytest

from service_registry.caller import Caller
from service_registry.changelog.history import read_history
from service_registry.models import Change
from service_registry.schemas import ChangesQuery
from tests import ageing
from tests.client import Answer, Api, registration

PATH = "/registry/changes"
OPERATOR = Caller("operator", frozenset(), frozenset({"view_change"}))


def shown(answer: Answer) -> list[tuple[str, str | None, str | None]]:
    assert answer.status == 200, answer.body
    return [(change["kind"], change["service_name"], change["instance_id"]) for change in answer.json["changes"]]


def test_history_for_an_operator_has_author_reason_and_evidence(payments: Api, operator: Api) -> None:
    payments.register()
    operator.call("PUT", "/registry/instance/web/web-1/status", {"status": "DOWN", "reason": "disk"})
    payments.deregister()
    answer = operator.get(PATH)
    assert shown(answer) == [
        ("log_started", None, None),
        ("service_created", "web", None),
        *[(kind, "web", "web-1") for kind in ("registered", "status_changed", "deregistered")],
    ]
    _started, created, registered, overridden, deregistered = answer.json["changes"]
    assert created["evidence"] == {"owners": ["team-payments"]}
    assert registered["actor"].startswith("payments@")
    assert (overridden["actor"].partition("@")[0], overridden["reason"]) == ("operator", "disk")
    assert overridden["changed"] == ["override", "status"]
    assert overridden["instance"]["status"] == "DOWN"
    assert deregistered["instance"] is None
    assert answer.json["next"] is None
    assert answer.headers["x-registry-index"] == deregistered["index"]


def read_pages(api: Api, query: str) -> list[list[dict[str, Any]]]:
    pages, after = [], ""
    while after is not None:
        page = api.get(f"{PATH}?{query}{after and f'&after={after}'}").json
        pages.append(page["changes"])
        after = page["next"]
    return pages


def test_history_read_page_by_page_is_complete(payments: Api, operator: Api) -> None:
    payments.post("/registry/register", [registration("web", f"i-{number}") for number in range(7)])
    pages = read_pages(operator, "limit=3")
    assert [len(page) for page in pages] == [3, 3, 3]
    whole = operator.get(f"{PATH}?limit=9").json
    assert [change for page in pages for change in page] == whole["changes"]
    assert whole["next"] is None


@pytest.mark.parametrize("parameters", [{}, {"service": "web"}])
def test_history_page_that_searches_ends_after_the_row_limit(payments: Api, parameters: dict[str, str]) -> None:
    payments.post("/registry/register", [registration("web", f"i-{number}") for number in range(7)])
    payments.deregister("web", "i-3")
    query = ChangesQuery(kind=["deregistered"], **parameters)
    whole = read_history(query, OPERATOR)
    assert [change.instance_id for change in whole.changes] == ["i-3"]
    found, page = [], read_history(query, OPERATOR, rows_searched=4)
    while page.next:
        found.append(page.changes)
        page = read_history(query, OPERATOR, page.next, rows_searched=4)
    assert found == [[], []]
    assert page == whole


@pytest.fixture
def two_teams(payments: Api, other_team: Api, operator: Api) -> Api:
    payments.register("web", "a")
    payments.register("web", "b", namespace="test")
    other_team.register("api", "a")
    payments.deregister("web", "a")
    other_team.register("api", "b")
    return operator


@pytest.mark.parametrize(
    ("query", "instances"),
    [
        ("", [None, None, "a", None, "b", None, "a", "a", "b"]),
        ("service=web", [None, "a", None, "b", "a"]),
        ("service=web&namespace=test", [None, "b"]),
        ("service=web&instance_id=a", ["a", "a"]),
        ("namespace=test", [None, "b"]),
        ("instance_id=a", ["a", "a", "a"]),
        ("kind=deregistered", ["a"]),
        ("kind=deregistered&kind=registered&service=web", ["a", "b", "a"]),
        ("service=nowhere", []),
        ("namespace=nowhere", []),
        ("actor=nobody", []),
        ("limit=2", [None, None]),
    ],
)
def test_history_with_filters_has_the_matching_changes(two_teams: Api, query: str, instances: list[str | None]) -> None:
    assert [instance_id for _kind, _service, instance_id in shown(two_teams.get(f"{PATH}?{query}"))] == instances


def test_history_of_one_actor_has_only_its_changes(two_teams: Api, other_team: Api) -> None:
    actor = Change.objects.get(service_name="api", instance_id="b").actor
    found = shown(two_teams.get(f"{PATH}?actor={quote(actor)}"))
    assert {service for _kind, service, _instance_id in found} == {"api"}
    assert len(found) == 3


def test_history_between_two_times_includes_both_bounds(payments: Api, operator: Api) -> None:
    payments.register("web", "early")
    ageing.age_changes(3600)
    payments.register("web", "late")
    early, late = (change["at"] for change in operator.get(f"{PATH}?kind=registered").json["changes"])
    between = f"{early[:-1]}1Z"  # a nanosecond digit more than the database keeps
    for query, instances in (
        (f"since={early}", ["early", "late"]),
        (f"since={late}", ["late"]),
        (f"until={early}", ["early"]),
        (f"until={late}", ["early", "late"]),
        (f"since={early}&until={early}", ["early"]),
        (f"since={late}&until={early}", []),
        ("since=2999-01-01T00:00:00Z", []),
        ("until=1999-01-01T00:00:00Z", []),
        (f"until={between}&service=web", ["early"]),
        (f"since={late.replace('Z', '%2B00:00')}&service=web", ["late"]),
    ):
        answer = operator.get(f"{PATH}?kind=registered&{query}")
        assert [instance_id for _kind, _service, instance_id in shown(answer)] == instances, query


def test_history_of_an_own_service_is_readable_by_its_owner(two_teams: Api, payments: Api) -> None:
    answer = payments.get(f"{PATH}?service=web")
    assert len(shown(answer)) == 5
    assert answer.json["changes"][0]["actor"].startswith("payments@")
    assert shown(payments.get(f"{PATH}?service=web&kind=deregistered")) == [("deregistered", "web", "a")]
    reader = Api("registry-readers", "team-payments")
    assert len(shown(reader.get(f"{PATH}?service=web&namespace=test"))) == 2


def test_history_for_an_owner_excludes_namespaces_of_other_owners(
    two_teams: Api, payments: Api, other_team: Api
) -> None:
    other_team.register("web", "foreign", namespace="theirs")
    assert "theirs" not in {change["namespace"] for change in payments.get(f"{PATH}?service=web").json["changes"]}
    answer = payments.get(f"{PATH}?service=web&namespace=theirs")
    assert (answer.status, answer.code) == (403, "not_owner")


def test_history_of_a_foreign_service_is_forbidden_and_of_an_unknown_one_not_found(
    two_teams: Api, payments: Api
) -> None:
    answer = payments.get(f"{PATH}?service=api")
    assert (answer.status, answer.code) == (403, "not_owner")
    answer = payments.get(f"{PATH}?service=nowhere")
    assert (answer.status, answer.code) == (404, "service_not_found")
    answer = payments.get(f"{PATH}?service=web&namespace=nowhere")
    assert (answer.status, answer.code) == (404, "service_not_found")
