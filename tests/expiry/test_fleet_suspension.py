"""Suspension on the database: nothing expires while no heartbeat arrives from the whole fleet, within a limit."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import F
from pytest_django import Settings

from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Lease, Override, RegistryState, Service
from tests import ageing
from tests.client import Api
from tests.fleets import LONG, expired_ids, protected_ids, register_fleet, send_heartbeats, set_heartbeat_age
from tests.test_metrics import Since

TWENTY = {"a": 7, "b": 7, "c": 6}


def state() -> RegistryState:
    return RegistryState.objects.get()


def read_heartbeats(ids: list[str]) -> list[datetime]:
    """Return the last heartbeats of these instances, the earliest first."""
    leases = Lease.objects.filter(instance__instance_id__in=ids)
    return list(leases.order_by("heartbeat_at").values_list("heartbeat_at", flat=True))


def suspended_fleet(api: Api, seconds: float = 60, services: dict[str, int] = TWENTY) -> list[str]:
    """Register a fleet whose last heartbeats are `seconds` old, sweep, and return the ids."""
    ids = register_fleet(api, services)
    set_heartbeat_age(seconds, ids)
    sweep()
    return ids


def test_nothing_expires_while_no_heartbeat_arrives_from_the_fleet(payments: Api) -> None:
    ids = register_fleet(payments, TWENTY)
    payments.register("a", "unproven")
    set_heartbeat_age(60, [*ids, "unproven"])
    for seconds in (0, 600, 2900):
        ageing.age_suspension(seconds)
        report = sweep()
        assert (report.finished, report.expired, report.protected) == (True, 0, 0)
    assert (expired_ids(), protected_ids()) == (set(), set())


def test_nothing_is_purged_and_overrides_end_during_a_suspension(payments: Api, settings: Settings) -> None:
    ids = register_fleet(payments, {**TWENTY, "d": 1})
    set_heartbeat_age(34, ids[-1:])
    assert sweep().expired == 1
    set_heartbeat_age(60, ids[:-1])
    sweep()
    service = Service.objects.get(name="a")
    Override.objects.create(
        service=service, instance_id=ids[0], status="DOWN", reason="x", actor="op", until="2026-01-01T00:00:00Z"
    )
    ageing.age_expiries(settings.REGISTRY_RETENTION_SECONDS + 60)
    report = sweep()
    assert (report.purged, report.overrides_ended) == (0, 1)
    send_heartbeats(payments, ids[:1])
    assert [sweep().purged, expired_ids()] == [1, set()]


@pytest.mark.parametrize(
    ("services", "quiet_seconds", "heartbeats"),
    [
        (TWENTY, 20.5, 0),
        ({"a": 7, "b": 6, "c": 6}, 60, None),
        ({"a": 30, "b": 30}, 60, None),
        (TWENTY, 19.0, None),
        (TWENTY, 60, 1),
    ],
    ids=["suspended", "nineteen leases", "two services", "less than two thirds of the TTL", "one heartbeat"],
)
def test_suspension_needs_twenty_leases_in_three_services(
    payments: Api, services: dict[str, int], quiet_seconds: float, heartbeats: int | None
) -> None:
    ids = register_fleet(payments, services)
    set_heartbeat_age(quiet_seconds, ids)
    if heartbeats == 1:
        send_heartbeats(payments, ids[:1])
    sweep()
    assert (state().suspended_at is not None) == (heartbeats == 0)


def test_unproven_leases_neither_start_nor_prevent_a_suspension(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 7, "b": 6, "c": 6})
    payments.register("d", "unproven")
    set_heartbeat_age(21, [*ids, "unproven"])
    sweep()
    assert state().suspended_at is None
    ids += register_fleet(payments, {"e": 1})
    set_heartbeat_age(21, ids)
    payments.register("d", "unproven")
    sweep()
    assert state().suspended_at is not None


def test_median_ttl_decides_when_a_fleet_is_quiet(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 5, "b": 5}, ttl_seconds=5)
    ids += register_fleet(payments, {"c": 11}, ttl_seconds=30)
    set_heartbeat_age(19, ids)
    sweep()
    assert state().suspended_at is None
    set_heartbeat_age(21, ids)
    sweep()
    assert state().suspended_at is not None


def test_first_heartbeat_ends_the_suspension_and_restarts_the_window(
    payments: Api, django_capture_on_commit_callbacks: Any
) -> None:
    ids = suspended_fleet(payments)
    assert state().suspended_at == read_heartbeats(ids)[-1]
    send_heartbeats(payments, ids[:1])
    counted = Since()
    with django_capture_on_commit_callbacks(execute=True):
        assert (sweep().expired, protected_ids()) == (0, set())
    after = state()
    assert (after.suspended_at, after.suspended_until, after.window_reason) == (None, None, "suspension")
    assert after.window_started_at == read_heartbeats(ids[:1])[0]
    assert counted("registry_observation_window_restarts_total", reason="suspension") == 1
    assert len(payments.listed("a")) == 7


def test_late_sweep_restarts_the_window_at_the_heartbeat(payments: Api) -> None:
    """The moment of a sweep makes no difference. All leases are due by the new window, and are decided on at once."""
    ids = suspended_fleet(payments)
    ageing.age_suspension(200)
    set_heartbeat_age(40, ids[:1])
    RegistryState.objects.update(window_started_at=F("suspended_at"))
    sweep()
    assert state().window_started_at == read_heartbeats(ids[:1])[0]
    assert protected_ids() == set(ids)


def test_instance_that_died_in_a_suspension_expires_by_the_new_window(payments: Api) -> None:
    ids = suspended_fleet(payments)
    send_heartbeats(payments, ids[1:])
    assert sweep().expired == 0
    RegistryState.objects.update(window_started_at=F("window_started_at") - timedelta(seconds=34))
    assert (sweep().expired, expired_ids()) == (1, {ids[0]})


def test_suspension_ends_by_itself_after_an_hour(payments: Api) -> None:
    ids = suspended_fleet(payments)
    ageing.age_suspension(3600 - 60 - 30)
    assert sweep().expired == 0
    ageing.age_suspension(31)
    assert [sweep().expired, sweep().expired] == [10, 10]
    assert expired_ids() == set(ids)


def test_heartbeat_after_the_longest_suspension_restarts_nothing(payments: Api) -> None:
    """Otherwise a fleet that sends heartbeats seldom, all at once, would keep its dead instances for ever."""
    ids = suspended_fleet(payments)
    ageing.age_suspension(3600)
    window = state().window_started_at
    send_heartbeats(payments, ids[:1])
    sweep()
    after = state()
    assert (after.suspended_at, after.window_started_at, after.window_reason) == (None, window, "start")


def test_longest_suspension_is_a_setting(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_SILENCE_MAX_SECONDS = 0
    ids = register_fleet(payments, TWENTY)
    set_heartbeat_age(34, ids)
    sweep()
    assert protected_ids() == set(ids)


def test_repeated_suspensions_get_what_is_left_of_the_budget(payments: Api) -> None:
    """A fleet in lockstep with slow heartbeats: each ends a suspension, and the next suspension starts with it."""
    ids = suspended_fleet(payments, 1900)
    started_at = state().suspended_at
    send_heartbeats(payments, ids)
    first, *_, last = read_heartbeats(ids)
    sweep()
    budget_full_at = state().suspension_budget_full_at
    assert started_at is not None
    assert budget_full_at is not None
    assert (budget_full_at - started_at) / timedelta(seconds=1) == pytest.approx(
        2 * ((first - started_at) / timedelta(seconds=1)), abs=0.001
    )
    ageing.age_suspension(60)
    sweep()
    suspended = state()
    assert suspended.suspended_at is not None
    assert suspended.suspended_until is not None
    left = (suspended.suspended_until - suspended.suspended_at) / timedelta(seconds=1)
    assert left == pytest.approx(3600 - (budget_full_at - last) / timedelta(seconds=1), abs=0.001)
    assert left < 1800


def test_observation_restores_the_budget(payments: Api) -> None:
    ids = suspended_fleet(payments, 1900)
    send_heartbeats(payments, ids)
    sweep()
    ageing.age_suspension(2000)
    RegistryState.objects.update(window_started_at=F("window_started_at") + timedelta(seconds=2000))
    send_heartbeats(payments, ids)
    set_heartbeat_age(60, ids)
    sweep()
    suspended = state()
    assert suspended.suspended_at is not None
    assert suspended.suspended_until is not None
    assert (suspended.suspended_until - suspended.suspended_at).total_seconds() == 3600


def test_suspension_that_started_in_the_future_ends(payments: Api) -> None:
    """The database's clock was set back."""
    suspended_fleet(payments)
    ageing.age_suspension(-100)
    ageing.set_window_age(LONG)
    sweep()
    assert state().suspended_at is None


def test_heartbeat_in_the_future_does_not_end_a_suspension(payments: Api) -> None:
    """The heartbeat of a dead instance was dated by a clock that has been set back since."""
    ids = suspended_fleet(payments)
    Lease.objects.filter(instance__instance_id=ids[0]).update(heartbeat_at=F("heartbeat_at") + timedelta(days=30))
    sweep()
    assert state().suspended_at is not None


def test_registration_does_not_end_a_suspension(payments: Api) -> None:
    """A job beside the registry can register, which does not show that the fleet can send heartbeats."""
    suspended_fleet(payments)
    payments.register("job", "job-1")
    sweep()
    assert state().suspended_at is not None


def test_suspension_appends_no_change(payments: Api) -> None:
    ids = register_fleet(payments, TWENTY)
    changes = Change.objects.count()
    set_heartbeat_age(60, ids)
    sweep()
    assert Change.objects.count() == changes
