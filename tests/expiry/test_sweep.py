"""The sweep: when instances expire and are purged, and which changes it appends."""

import pytest
from django.db import connection
from django.db.models.functions import Now
from pytest_django import Settings

from service_registry.expiry.sweep import sweep, sweep_if_late
from service_registry.models import Change, Instance, Lease, Override, RegistryState, Service
from service_registry.pulse import record_and_sweep
from tests import ageing
from tests.client import Api, registration


@pytest.mark.parametrize(("ttl_seconds", "grace"), [(5, 1.0), (30, 3.0), (300, 30.0)])
def test_instance_expires_after_its_deadline_and_not_before(payments: Api, ttl_seconds: int, grace: float) -> None:
    payments.register(ttl_seconds=ttl_seconds)
    ageing.age_leases(ttl_seconds + grace - 1)
    assert sweep().expired == 0
    ageing.age_leases(1)
    ageing.set_window_age(ttl_seconds + grace + 1)
    assert sweep().expired == 1


def test_expiry_appends_a_change_with_its_evidence(payments: Api, reader: Api) -> None:
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


def test_second_sweep_expires_nothing_again(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    assert [sweep().expired, sweep().expired] == [1, 0]
    assert Change.objects.filter(kind="expired").count() == 1


def test_sweep_of_more_than_a_page_expires_all(payments: Api) -> None:
    payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(1000)])
    payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(1000, 1201)])
    ageing.age_leases(60)
    assert sweep().expired == 1201
    assert Change.objects.filter(kind="expired").count() == 1201


def test_instance_with_a_heartbeat_stays_listed(payments: Api) -> None:
    payments.register(instance_id="a")
    payments.register(instance_id="b")
    ageing.age_leases(60)
    payments.heartbeat(instance_id="b")
    assert sweep().expired == 1
    assert payments.listed() == ["b"]


def test_web_process_sweeps_when_the_last_sweep_is_late(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    RegistryState.objects.update(swept_at=Now())
    record_and_sweep()
    assert payments.listed() == ["web-1"]
    RegistryState.objects.update(swept_at="2026-01-01T00:00:00Z")
    record_and_sweep()
    assert payments.listed() == []


@pytest.mark.parametrize(("age_seconds", "listed"), [(3.0, ["web-1"]), (4.001, [])])
def test_sweep_is_late_between_three_and_four_seconds_after_the_last(
    payments: Api, age_seconds: float, listed: list[str]
) -> None:
    """With a pulse a second and a worker that is down, a sweep begins within 5 s of the last."""
    payments.register()
    ageing.age_leases(60)
    sweep_if_late(age_seconds, between=lambda: None)
    assert payments.listed() == listed


def test_last_sweep_in_the_future_is_late(payments: Api) -> None:
    """The database's clock was set back."""
    payments.register()
    ageing.age_leases(60)
    RegistryState.objects.update(swept_at="2100-01-01T00:00:00Z")
    record_and_sweep()
    assert payments.listed() == []


def test_expired_instance_is_purged_after_the_retention(payments: Api, settings: Settings) -> None:
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
    kept = ("deadline", "window_started_at", "rules", "heartbeat_at")
    assert {name: change.evidence[name] for name in kept} == {name: expiry[name] for name in kept}
    assert change.instance is None


def test_override_ends_at_its_time_also_while_nothing_expires(payments: Api) -> None:
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


def test_lease_table_has_half_empty_pages_and_one_index(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = %s", [Lease._meta.db_table])
        assert "fillfactor=50" in cursor.fetchone()[0]
        cursor.execute("SELECT count(*) FROM pg_indexes WHERE tablename = %s", [Lease._meta.db_table])
        assert cursor.fetchone()[0] == 1
