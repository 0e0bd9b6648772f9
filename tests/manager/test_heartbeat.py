"""Heartbeat: POST /registry/heartbeat."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from service_registry.expiry.sweep import sweep
from service_registry.manager.renewal import common_members
from service_registry.models import Change, Instance, Lease, Override, RegistryState, Service
from service_registry.sql import LEASE_MEMBERS
from tests import ageing
from tests.client import Api


def test_heartbeat_renews_the_lease_and_appends_no_change(payments: Api) -> None:
    registered = payments.register().json
    changes = Change.objects.count()
    answer = payments.heartbeat()
    assert answer.status == 200
    assert answer.json["lease"]["heartbeat_at"] > registered["lease"]["heartbeat_at"]
    assert answer.json["status"] == "UP"
    assert "recovered" not in answer.json
    assert (Lease.objects.get().beats, Change.objects.count()) == (1, changes)


def test_members_of_a_renewed_lease_are_those_that_sql_reads(db: None) -> None:
    """The response to a heartbeat is made in Python, and that to a registration in SQL."""
    now = "2024-02-28T23:59:59.987654Z"
    expressions = ", ".join(LEASE_MEMBERS[name] for name in common_members(5, now, now))
    lease = f"SELECT '{now}'::timestamptz AS heartbeat_at, generate_series(5, 86400) AS ttl_seconds"
    window = f"SELECT '{now}'::timestamptz AS window_started_at"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {expressions} FROM ({lease}) l CROSS JOIN ({window}) r")
        rows = cursor.fetchall()
    assert [tuple(common_members(ttl_seconds, now, now).values()) for ttl_seconds in range(5, 86401)] == rows


def test_heartbeat_before_a_later_observation_window_answers_its_deadline(payments: Api) -> None:
    """As after the database's clock was set back."""
    payments.register()
    RegistryState.objects.update(window_started_at=datetime.now(UTC) + timedelta(hours=1))
    lease = payments.heartbeat().json["lease"]
    assert lease["expires_at"] == payments.get("/registry/instance/web/web-1").json["lease"]["expires_at"]


def test_heartbeat_of_a_purged_instance_is_not_found(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    ageing.age_expiries(700)
    sweep()
    assert payments.heartbeat().json["reason"] == "purged"


def test_heartbeat_of_an_expired_instance_restores_it(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    answer = payments.heartbeat()
    assert (answer.status, answer.json["recovered"]) == (200, True)
    assert payments.listed() == ["web-1"]
    assert Change.objects.order_by("id").last().kind == "recovered"  # type: ignore[union-attr]


def test_heartbeat_with_an_older_epoch_is_superseded(payments: Api) -> None:
    first = payments.register().json["epoch"]
    second = payments.register(port=81).json["epoch"]
    answer = payments.heartbeat(epoch=first)
    assert (answer.status, answer.code) == (409, "lease_superseded")
    assert Lease.objects.get().beats == 0
    assert payments.heartbeat(epoch=second).status == 200


def test_heartbeat_with_a_new_status_applies_and_logs_it(payments: Api) -> None:
    payments.register(status="STARTING")
    assert payments.heartbeat(status="UP").json["status"] == "UP"
    assert payments.heartbeat(status="UP").status == 200
    change = Change.objects.get(kind="status_changed")
    assert change.changed == ["reported_status", "status"]
    assert change.instance is not None
    assert change.instance["status"] == "UP"


def test_heartbeat_with_a_status_under_an_override_is_an_update(payments: Api) -> None:
    payments.register()
    Override.objects.create(
        service=Service.objects.get(), instance_id="web-1", status="OUT_OF_SERVICE", reason="x", actor="x"
    )
    assert payments.heartbeat(status="DOWN").json["status"] == "OUT_OF_SERVICE"
    change = Change.objects.order_by("id").last()
    assert change is not None
    assert (change.kind, change.changed) == ("updated", ["reported_status"])


def test_heartbeat_with_alternating_status_waits_on_the_way_up_alone(payments: Api) -> None:
    payments.register()
    for beat in range(9):
        payments.heartbeat(status="UP" if beat % 2 else "DOWN")
    # Down and up three times each, and down at once once more. The way up waits, and reporting DOWN discards it.
    assert Change.objects.filter(kind="status_changed").count() == 7
    payments.heartbeat(status="UP")
    instance = Instance.objects.get()
    assert (instance.reported_status, instance.pending_status) == ("DOWN", "UP")
    assert sweep().statuses_applied == 0
    assert instance.status_minute_at is not None
    Instance.objects.update(status_minute_at="2026-01-01T00:00:00Z")
    assert sweep().statuses_applied == 1
    instance.refresh_from_db()
    assert (instance.reported_status, instance.pending_status) == ("UP", None)
    assert Change.objects.filter(kind="status_changed").count() == 8


@pytest.mark.parametrize("status", ["DOWN", "OUT_OF_SERVICE", "STARTING"])
def test_heartbeat_that_takes_traffic_away_after_flapping_is_applied_at_once(payments: Api, status: str) -> None:
    payments.register()
    for beat in range(6):
        payments.heartbeat(status="UP" if beat % 2 else "DOWN")
    assert payments.heartbeat(status=status).json["status"] == status
