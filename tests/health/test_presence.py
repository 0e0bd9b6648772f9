"""Checkers that run, end or are cut off, as /readyz, doctor, metrics and the admin show them."""

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client

from service_registry import metrics
from service_registry.access_models import User
from service_registry.choices import Health
from service_registry.health import presence
from service_registry.health.due import claim_due_checks, follow_registrations
from service_registry.health.record import CheckRun, record
from service_registry.health.result import Cause, Result
from service_registry.health_models import HealthChecker, HealthStanding
from service_registry.http.readiness import readiness
from service_registry.management.doctor.registry import check_checkers
from service_registry.models import Instance
from service_registry.sql import HEALTH_CHECKER, HEALTH_STANDING
from tests.client import Api
from tests.series import parse, value_of

INSTANCES = "/admin/service_registry/instance/"
NONE_RUNS = "no checker runs: no health changes"


def age_checkers(seconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {HEALTH_CHECKER} SET seen_at = seen_at - %s * interval '1 second'", [seconds])


def sign_in(*permissions: str) -> Client:
    user = User.objects.create(username="ada", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_instance", *permissions]))
    client = Client()
    client.force_login(user, "service_registry.identity.login_limits.PasswordBackend")
    return client


@pytest.fixture
def checked(payments: Api) -> Api:
    payments.register(health_check={"type": "tcp"})
    return payments


def read_state() -> tuple[str, str, float, float]:
    """Return what /readyz and the doctor say, and how many checkers run and are cut off."""
    found = parse(metrics.exposition().decode())
    return (
        readiness()[1]["checks"]["checkers"],
        check_checkers().level,
        *(value_of(found, "registry_health_checkers", state=state) for state in ("running", "cut_off")),
    )


def test_no_checker_is_needed_where_nothing_is_checked(payments: Api) -> None:
    payments.register()
    assert read_state() == ("ok", "ok", 0, 0)


def test_checker_that_reports_is_seen_until_it_stops_to(checked: Api) -> None:
    assert read_state() == (NONE_RUNS, "warn", 0, 0)
    presence.report(cut_off=False)
    assert read_state() == ("ok", "ok", 1, 0)
    age_checkers(11)
    assert read_state() == (NONE_RUNS, "warn", 0, 0)
    presence.report(cut_off=False)
    assert read_state() == ("ok", "ok", 1, 0)
    presence.leave()
    assert read_state() == (NONE_RUNS, "warn", 0, 0)


def test_checker_that_is_cut_off_says_so(checked: Api) -> None:
    HealthChecker.objects.create(name="other:1", cut_off=False)
    presence.report(cut_off=True)
    sentence = "1 of 2 are cut off: failures of their checks count for nothing"
    assert read_state() == (sentence, "warn", 2, 1)
    presence.report(cut_off=False)
    assert read_state() == ("ok", "ok", 2, 0)


def test_missing_checker_degrades_and_is_no_reason_for_503(checked: Api) -> None:
    before = readiness()[0]
    presence.report(cut_off=False)
    assert readiness()[0] == before
    assert "checkers" not in {name for name, text in readiness()[1]["checks"].items() if text != "ok"}


def test_row_of_a_killed_checker_is_forgotten_after_an_hour(checked: Api) -> None:
    HealthChecker.objects.create(name="other:1", cut_off=False)
    age_checkers(3601)
    presence.report(cut_off=False)
    assert [checker.name for checker in HealthChecker.objects.all()] == [presence.NAME]


def test_checked_instances_are_counted_by_health(checked: Api) -> None:
    checked.register(instance_id="unchecked")
    found = parse(metrics.exposition().decode())
    counts = {health: value_of(found, "registry_checked_instances", health=health) for health in Health.values}
    assert counts == {"unknown": 1, "passing": 0, "warning": 0, "critical": 0}


def test_admin_shows_checkers_and_filters_by_health(checked: Api) -> None:
    checked.register(instance_id="unchecked")
    admin = sign_in()
    page = admin.get(INSTANCES).content.decode()
    assert f"Health checkers: {NONE_RUNS}." in page
    presence.report(cut_off=False)
    assert "Health checkers" not in admin.get(INSTANCES).content.decode()
    assert [
        f">{name}<" in admin.get(f"{INSTANCES}?health=unknown").content.decode() for name in ("web-1", "unchecked")
    ] == [
        True,
        False,
    ]


def test_last_result_is_shown_and_its_output_to_operators_alone(checked: Api) -> None:
    follow_registrations()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {HEALTH_STANDING} SET due_at = statement_timestamp()")
    [due] = claim_due_checks(1, {}, 1)
    record([CheckRun(due, Result(Cause.REFUSED, "<b>secret</b> answer"), 0.012)])
    assert HealthStanding.objects.get().level == "critical"
    path = f"{INSTANCES}{Instance.objects.get().pk}/change/"
    viewer = sign_in().get(path).content.decode()
    assert "critical: refused, 12 ms, at 2" in viewer
    assert "1 failures in a row" in viewer
    assert "answer" not in viewer
    User.objects.all().delete()
    operator = sign_in("operate_instance")
    assert "&lt;b&gt;secret&lt;/b&gt; answer" in operator.get(path).content.decode()
    checked.register(port=9, health_check={"type": "tcp"})
    assert "answer" not in operator.get(path).content.decode()
