"""Silence of the whole fleet: when time stands still, and how that ends."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
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


def since(moment: datetime | None) -> float:
    """Seconds by the database's clock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp() - %s)::float8", [moment])
        return float(cursor.fetchone()[0])


def silenced(api: Api, seconds: float = 60, services: dict[str, int] = TWENTY) -> list[str]:
    """A fleet that was heard last so long ago, after a sweep."""
    ids = register_fleet(api, services)
    set_heartbeat_age(seconds, ids)
    sweep()
    return ids


def test_time_stands_still_while_nobody_of_a_fleet_is_heard(payments: Api) -> None:
    ids = register_fleet(payments, TWENTY)
    payments.register("a", "never-beat")
    set_heartbeat_age(60, [*ids, "never-beat"])
    for seconds in (0, 600, 2900):
        ageing.age_suspension(seconds)
        report = sweep()
        assert (report.finished, report.expired, report.protected) == (True, 0, 0)
    assert (expired_ids(), protected_ids()) == (set(), set())


def test_nothing_is_removed_and_overrides_end_meanwhile(payments: Api, settings: Settings) -> None:
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
    ("services", "silent", "heard"),
    [
        (TWENTY, 20.5, 0),
        ({"a": 7, "b": 6, "c": 6}, 60, None),
        ({"a": 30, "b": 30}, 60, None),
        (TWENTY, 19.0, None),
        (TWENTY, 60, 1),
    ],
    ids=["silent", "nineteen", "two services", "not for two thirds of the TTL", "one was heard"],
)
def test_a_silence_is_of_twenty_in_three_services(
    payments: Api, services: dict[str, int], silent: float, heard: int | None
) -> None:
    ids = register_fleet(payments, services)
    set_heartbeat_age(silent, ids)
    if heard == 1:
        send_heartbeats(payments, ids[:1])
    sweep()
    assert (state().suspended_at is not None) == (heard == 0)


def test_the_unproven_neither_make_a_silence_nor_break_it(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 7, "b": 6, "c": 6})
    payments.register("d", "never-beat")
    set_heartbeat_age(21, [*ids, "never-beat"])
    sweep()
    assert state().suspended_at is None
    ids += register_fleet(payments, {"e": 1})
    set_heartbeat_age(21, ids)
    payments.register("d", "never-beat")
    sweep()
    assert state().suspended_at is not None


def test_the_median_ttl_decides(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 5, "b": 5}, ttl_seconds=5) + register_fleet(
        payments, {"c": 11}, ttl_seconds=30
    )
    set_heartbeat_age(19, ids)
    sweep()
    assert state().suspended_at is None
    set_heartbeat_age(21, ids)
    sweep()
    assert state().suspended_at is not None


def test_the_first_heartbeat_ends_it_and_restarts_the_window(
    payments: Api, django_capture_on_commit_callbacks: Any
) -> None:
    ids = silenced(payments)
    assert 59 < since(state().suspended_at) < 62
    send_heartbeats(payments, ids[:1])
    counted = Since()
    with django_capture_on_commit_callbacks(execute=True):
        assert (sweep().expired, protected_ids()) == (0, set())
    after = state()
    assert (after.suspended_at, after.suspended_until, after.window_reason) == (None, None, "suspension")
    assert after.window_started_at == Lease.objects.get(instance__instance_id=ids[0]).heartbeat_at
    assert counted("registry_observation_window_restarts_total", reason="suspension") == 1
    assert len(payments.listed("a")) == 7


def test_a_late_sweep_restarts_the_window_at_the_heartbeat(payments: Api) -> None:
    """And not when it looks: how often is swept plays no part. All are due by that window, and judged at once."""
    ids = silenced(payments)
    ageing.age_suspension(200)
    set_heartbeat_age(40, ids[:1])
    RegistryState.objects.update(window_started_at=F("suspended_at"))
    sweep()
    assert 39 < since(state().window_started_at) < 42
    assert protected_ids() == set(ids)


def test_who_dies_in_a_silence_expires_by_the_window_after_it(payments: Api) -> None:
    ids = silenced(payments)
    send_heartbeats(payments, ids[1:])
    assert sweep().expired == 0
    RegistryState.objects.update(window_started_at=F("window_started_at") - timedelta(seconds=34))
    assert (sweep().expired, expired_ids()) == (1, {ids[0]})


def test_it_ends_by_itself_after_an_hour(payments: Api) -> None:
    ids = silenced(payments)
    ageing.age_suspension(3600 - 60 - 5)
    assert sweep().expired == 0
    ageing.age_suspension(6)
    assert [sweep().expired, sweep().expired] == [10, 10]
    assert expired_ids() == set(ids)


def test_a_heartbeat_after_its_time_restarts_nothing(payments: Api) -> None:
    """Else a fleet that is heard once in a while, all at once, would keep its dead for ever."""
    ids = silenced(payments)
    ageing.age_suspension(3600)
    window = state().window_started_at
    send_heartbeats(payments, ids[:1])
    sweep()
    after = state()
    assert (after.suspended_at, after.window_started_at, after.window_reason) == (None, window, "start")


def test_its_limit_is_a_setting(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_SILENCE_MAX_SECONDS = 0
    ids = register_fleet(payments, TWENTY)
    set_heartbeat_age(34, ids)
    sweep()
    assert protected_ids() == set(ids)


def test_silences_without_end_are_given_no_more_than_half_of_the_time(payments: Api) -> None:
    """As of a fleet in lockstep that beats too slowly: each beat ends a silence, and the next begins with it."""
    ids = silenced(payments, 1900)
    send_heartbeats(payments, ids)
    sweep()
    repaid_at = state().suspension_budget_full_at
    assert repaid_at is not None
    assert -1902 < since(repaid_at) < -1898
    ageing.age_suspension(60)
    sweep()
    standing = state()
    assert standing.suspended_at is not None
    assert standing.suspended_until is not None
    left = (standing.suspended_until - standing.suspended_at).total_seconds()
    assert 1698 < left < 1702


def test_what_was_heard_since_makes_up_for_a_silence(payments: Api) -> None:
    ids = silenced(payments, 1900)
    send_heartbeats(payments, ids)
    sweep()
    ageing.age_suspension(2000)
    RegistryState.objects.update(window_started_at=F("window_started_at") + timedelta(seconds=2000))
    send_heartbeats(payments, ids)
    set_heartbeat_age(60, ids)
    sweep()
    standing = state()
    assert standing.suspended_at is not None
    assert standing.suspended_until is not None
    assert (standing.suspended_until - standing.suspended_at).total_seconds() == 3600


def test_one_that_would_begin_in_the_future_is_over(payments: Api) -> None:
    """The database's clock was set back."""
    silenced(payments)
    ageing.age_suspension(-100)
    ageing.set_window_age(LONG)
    sweep()
    assert state().suspended_at is None


def test_a_dead_instance_of_a_time_to_come_does_not_end_a_silence(payments: Api) -> None:
    """Its last heartbeat was by a clock that has been set back since."""
    ids = silenced(payments)
    Lease.objects.filter(instance__instance_id=ids[0]).update(heartbeat_at=F("heartbeat_at") + timedelta(days=30))
    sweep()
    assert state().suspended_at is not None


def test_a_registration_ends_nothing(payments: Api) -> None:
    """A job beside the registry can register, and is no sign that the fleet can."""
    silenced(payments)
    payments.register("job", "job-1")
    sweep()
    assert state().suspended_at is not None


def test_nobody_is_told_of_a_silence(payments: Api) -> None:
    ids = register_fleet(payments, TWENTY)
    changes = Change.objects.count()
    set_heartbeat_age(60, ids)
    sweep()
    assert Change.objects.count() == changes
