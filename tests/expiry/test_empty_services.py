"""Services that registrations created end when they have been empty for long."""

from datetime import timedelta

import pytest
from django.db.models import F
from pytest_django import Settings

from registry_project.celery import app
from service_registry import tasks
from service_registry.expiry import empty_services
from service_registry.models import Change, Reservation, Service
from tests import ageing
from tests.client import Api

OVERRIDE = {"status": "DOWN", "reason": "disk"}


def leave_empty(payments: Api, name: str = "web") -> None:
    payments.register(name)
    payments.deregister(name)


def names() -> set[str]:
    return set(Service.objects.values_list("name", flat=True))


def test_service_that_was_empty_for_a_week_ends_with_a_change(payments: Api, other_team: Api, operator: Api) -> None:
    leave_empty(payments)
    ageing.age_services(8)
    tasks.end_empty_services()
    change = operator.get("/registry/changes?service=web").json["changes"][-1]
    assert (change["kind"], change["actor"]) == ("service_deleted", empty_services.ACTOR)
    assert (change["reason"], change["evidence"]) == (
        "without an instance or an override for 7 days",
        {"owners": ["team-payments"]},
    )
    assert operator.get("/registry/services/web").code == "service_not_found"
    assert other_team.register("web").code == "not_owner"  # reserved
    assert payments.register("web").status == 201


def test_service_that_was_empty_for_less_stays(payments: Api) -> None:
    leave_empty(payments)
    ageing.age_services(6)
    assert (empty_services.end_empty_services(), names()) == (0, {"web"})


def test_service_whose_last_instance_left_lately_stays(payments: Api) -> None:
    payments.register()
    ageing.age_services(30)
    payments.deregister()
    assert (empty_services.end_empty_services(), names()) == (0, {"web"})


def test_service_in_use_stays(payments: Api, operator: Api) -> None:
    payments.register("listed")
    leave_empty(payments, "overridden")
    operator.call("PUT", "/registry/instance/overridden/web-1/status", OVERRIDE)
    leave_empty(payments, "left")
    ageing.age_services(8)
    assert (empty_services.end_empty_services(), names()) == (1, {"listed", "overridden"})


def test_service_whose_owners_an_operator_has_set_stays(payments: Api) -> None:
    admin = Api("registry-admins", subject="admin")
    leave_empty(payments, "confirmed")
    for name in ("provisioned", "confirmed"):
        admin.call("PUT", f"/registry/services/{name}/owners", {"owners": ["team-payments"], "reason": "ours"})
    leave_empty(payments, "provisioned")
    ageing.age_services(8)
    assert (empty_services.end_empty_services(), names()) == (0, {"confirmed", "provisioned"})


def test_empty_services_stay_where_the_setting_is_zero(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_EMPTY_SERVICE_DAYS = 0
    leave_empty(payments)
    ageing.age_services(8)
    assert (empty_services.end_empty_services(), names()) == (0, {"web"})


def test_empty_services_end_in_batches(payments: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(empty_services, "SERVICES_PER_TRANSACTION", 2)
    for number in range(5):
        leave_empty(payments, f"web-{number}")
    ageing.age_services(8)
    assert (empty_services.end_empty_services(), names()) == (5, set())
    assert Change.objects.filter(kind="service_deleted").count() == 5


def test_reservations_that_are_over_are_deleted(payments: Api) -> None:
    leave_empty(payments)
    ageing.age_services(8)
    empty_services.end_empty_services()
    assert Reservation.objects.count() == 1
    Reservation.objects.update(until=F("until") - timedelta(days=31))
    empty_services.end_empty_services()
    assert not Reservation.objects.exists()


def test_beat_ends_empty_services_every_hour() -> None:
    assert app.conf.beat_schedule["end_empty_services"]["task"] in app.tasks
