"""Owners: PUT /registry/services/{name}/owners and DELETE /registry/services/{name}."""

from datetime import UTC, datetime
from typing import Any

import pytest

from service_registry.models import Change, Reservation
from tests.client import Answer, Api

PATH = "/registry/services/web/owners"


@pytest.fixture
def admin(db: None) -> Api:
    return Api("registry-admins", subject="admin")


def put(api: Api, *owners: str, **fields: Any) -> Answer:
    return api.call("PUT", PATH, {"owners": owners} | fields)


def test_set_owners_hands_a_service_over(payments: Api, other_team: Api, admin: Api) -> None:
    payments.register()
    answer = put(admin, "team-other", reason="reorganised")
    assert (answer.status, answer.json["owners"]) == (200, ["team-other"])
    assert other_team.register().status == 200
    assert payments.register().code == "not_owner"
    change = Change.objects.get(kind="owners_changed")
    assert (change.reason, change.evidence) == (
        "reorganised",
        {"owners": ["team-other"], "before": ["team-payments"]},
    )


def test_set_owners_of_a_new_name_provisions_the_service(payments: Api, admin: Api) -> None:
    assert put(admin, "team-payments", "team-b").status == 201
    assert put(admin, "team-payments", "team-b").status == 200
    assert payments.register().status == 201
    assert Change.objects.filter(kind="service_created").count() == 1


def test_delete_of_an_empty_service_reserves_its_name(payments: Api, other_team: Api, admin: Api) -> None:
    payments.register()
    answer = admin.call("DELETE", "/registry/services/web")
    assert (answer.status, answer.code) == (409, "service_not_empty")
    payments.deregister()
    payments.call("PUT", "/registry/instance/web/web-1/status", {"status": "DOWN", "reason": "x"})
    assert admin.call("DELETE", "/registry/services/web?reason=gone").status == 204
    assert admin.call("DELETE", "/registry/services/web").code == "service_not_found"
    assert Change.objects.get(kind="service_deleted").reason == "gone"
    assert other_team.register().code == "not_owner"
    assert payments.register().status == 201


def test_reservation_past_its_end_admits_others(payments: Api, other_team: Api, admin: Api) -> None:
    put(admin, "team-payments")
    admin.call("DELETE", "/registry/services/web")
    Reservation.objects.update(until=datetime.now(UTC))
    assert other_team.register().status == 201


def test_set_owners_of_a_reserved_name_ends_the_reservation(other_team: Api, admin: Api) -> None:
    put(admin, "team-payments")
    admin.call("DELETE", "/registry/services/web")
    assert put(admin, "team-other").status == 201
    assert other_team.register().status == 201
    assert not Reservation.objects.exists()
