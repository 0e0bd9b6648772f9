"""The sweep and the hearing: what leaves the list, when, and what is written about it."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now
from pytest_django import Settings

from service_registry.expiry import observation
from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Instance, Lease, Override, RegistryState, Service
from tests import ageing
from tests.client import Api, registration


@pytest.mark.parametrize(("ttl_seconds", "grace"), [(5, 1.0), (30, 3.0), (300, 30.0)])
def test_nobody_expires_before_the_deadline(payments: Api, ttl_seconds: int, grace: float) -> None:
    payments.register(ttl_seconds=ttl_seconds)
    ageing.age_leases(ttl_seconds + grace - 1)
    assert sweep().expired == 0
    ageing.age_leases(1)
    ageing.set_window_age(ttl_seconds + grace + 1)
    assert sweep().expired == 1


def test_what_expires_leaves_a_record(payments: Api, reader: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    assert reader.get("/registry/services/web").json["instances"] == []
    change = Change.objects.get(kind="expired")
    assert change.instance is not None
    assert change.evidence is not None
    assert change.actor == "system:sweep"
    assert change.reason == "no heartbeat before the deadline"
    assert change.instance["state"] == "expired"
    assert set(change.evidence) == {
        "heartbeat_at",
        "deadline",
        "window_started_at",
        "swept_at",
        "ttl_seconds",
        "process",
        "rules",
    }
    assert change.evidence["heartbeat_at"] < change.evidence["deadline"] < change.evidence["swept_at"]


def test_a_second_sweep_finds_nothing(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    assert [sweep().expired, sweep().expired] == [1, 0]
    assert Change.objects.filter(kind="expired").count() == 1


def test_it_expires_thousands_in_batches(payments: Api) -> None:
    payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(1000)])
    payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(1000, 1201)])
    ageing.age_leases(60)
    assert sweep().expired == 1201
    assert Change.objects.filter(kind="expired").count() == 1201


def test_only_the_silent_expire(payments: Api) -> None:
    payments.register(instance_id="a")
    payments.register(instance_id="b")
    ageing.age_leases(60)
    payments.heartbeat(instance_id="b")
    assert sweep().expired == 1
    assert payments.listed() == ["b"]


def test_time_stands_still_while_the_registry_hears_nothing(payments: Api) -> None:
    payments.register()
    ageing.age_leases(600)
    ageing.interrupt_observation(6)
    assert sweep().expired == 0
    observation.Pulse().beat()
    assert sweep().expired == 0
    state = RegistryState.objects.get()
    assert state.window_reason == "gap"
    assert (state.observed_at - state.window_started_at).total_seconds() < 1


def test_a_pulse_in_time_keeps_the_window(payments: Api) -> None:
    ageing.set_window_age(100)
    before = RegistryState.objects.get()
    ageing.interrupt_observation(2)
    observation.Pulse().beat()
    after = RegistryState.objects.get()
    assert after.window_started_at == before.window_started_at
    assert after.observed_at > before.observed_at


def reading(monotonic: float, database: float, took: float = 0.0) -> observation.Reading:
    return observation.Reading(monotonic, database, monotonic + took, database, 0.0)


def test_a_jump_of_the_databases_clock_is_seen_and_a_slow_answer_is_not() -> None:
    earlier = reading(100.0, 5000.0)
    assert not reading(110.0, 5010.0).disagrees_with(earlier)
    assert not reading(110.0, 5018.0, took=8.0).disagrees_with(earlier)
    assert reading(110.0, 5070.0).disagrees_with(earlier)
    assert reading(110.0, 4950.0).disagrees_with(earlier)


def test_a_jump_restarts_the_window(payments: Api) -> None:
    ageing.set_window_age(100)
    pulse = observation.Pulse()
    pulse.beat()
    pulse._earlier = reading(0.0, 0.0)
    pulse.beat()
    state = RegistryState.objects.get()
    assert state.window_reason == "clock"
    assert (state.observed_at - state.window_started_at).total_seconds() < 1


MONTH = 30 * 86400


def test_a_clock_that_is_set_back_expires_nobody(payments: Api) -> None:
    """Neither before the next pulse, which restarts the window, nor by that."""
    payments.register()
    ageing.age_leases(20)
    ageing.set_clock_back(MONTH)
    RegistryState.objects.update(window_started_at=Now() - timedelta(seconds=100))
    assert sweep().expired == 0
    observation.Pulse().beat()
    assert sweep().expired == 0
    assert payments.listed() == ["web-1"]


@pytest.mark.parametrize("ahead", [11, MONTH])
def test_a_dead_instance_of_a_clock_that_was_ahead_expires_by_the_window(payments: Api, ahead: int) -> None:
    """And not when that time has come."""
    payments.register()
    ageing.set_clock_back(ahead)
    observation.Pulse().beat()
    ageing.set_window_age(32)
    assert sweep().expired == 0
    ageing.set_window_age(34)
    assert sweep().expired == 1


def test_a_beat_a_little_ahead_of_the_clock_counts(payments: Api) -> None:
    """One that comes while the statement runs, or a clock that was put right by a little: the window goes on."""
    payments.register()
    ageing.set_window_age(100)
    Lease.objects.update(heartbeat_at=Now() + timedelta(seconds=3))
    assert sweep().expired == 0
    assert payments.heartbeat().json["lease"]["expires_at"] > RegistryState.objects.get().observed_at.isoformat()


def test_a_web_process_sweeps_when_nobody_else_does(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    RegistryState.objects.update(swept_at=Now())
    observation.pulse()
    assert payments.listed() == ["web-1"]
    RegistryState.objects.update(swept_at="2026-01-01T00:00:00Z")
    observation.pulse()
    assert payments.listed() == []


def test_the_retained_are_removed_at_their_time(payments: Api, settings: Settings) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    ageing.age_expiries(settings.REGISTRY_RETENTION_SECONDS - 5)
    assert sweep().purged == 0
    ageing.age_expiries(10)
    assert sweep().purged == 1
    assert not Instance.objects.exists()
    change = Change.objects.get(kind="purged")
    assert change.evidence is not None
    expiry = Change.objects.get(kind="expired").evidence
    assert expiry is not None
    assert {"heartbeat_at", "expired_at", "swept_at", "process"} < set(change.evidence)
    assert all(
        change.evidence[name] == expiry[name] for name in ("deadline", "window_started_at", "rules", "heartbeat_at")
    )
    assert change.instance is None


def test_an_override_ends_at_its_time_even_while_time_stands_still(payments: Api) -> None:
    payments.register()
    service = Service.objects.get()
    for instance_id, until in (("web-1", "2026-01-01T00:00:00Z"), ("web-2", None)):
        Override.objects.create(
            service=service, instance_id=instance_id, status="DOWN", reason="x", actor="op", until=until
        )
    ageing.interrupt_observation(60)
    assert sweep().overrides_ended == 1
    change = Change.objects.get(kind="status_changed")
    assert change.instance is not None
    assert (change.instance_id, change.instance["status"]) == ("web-1", "UP")


def test_the_lease_table_is_stored_for_heartbeats(db: None) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = %s", [Lease._meta.db_table])
        assert "fillfactor=50" in cursor.fetchone()[0]
        cursor.execute("SELECT count(*) FROM pg_indexes WHERE tablename = %s", [Lease._meta.db_table])
        assert cursor.fetchone()[0] == 1


def test_a_sweep_that_was_finished_in_the_future_is_late(payments: Api) -> None:
    """As after a clock of the database was set back."""
    payments.register()
    ageing.age_leases(60)
    RegistryState.objects.update(swept_at="2100-01-01T00:00:00Z")
    observation.pulse()
    assert payments.listed() == []


def test_a_long_sweep_of_a_web_process_does_not_make_it_deaf(payments: Api) -> None:
    for start in range(0, 2000, 1000):
        payments.post("/registry/register", [registration(instance_id=f"w-{start + n}") for n in range(1000)])
    ageing.age_leases(60)
    heard: list[int] = []
    assert sweep(between=lambda: heard.append(1)).expired == 2000
    assert len(heard) >= 4


def test_a_process_with_a_wrong_clock_serves_nobody(payments: Api) -> None:
    payments.register()
    pulse = observation.this_process()
    pulse.clock_is_wrong = True
    try:
        answer = payments.heartbeat()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")
    finally:
        pulse.clock_is_wrong = False
