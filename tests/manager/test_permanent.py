"""Permanent instances: a registration with `"lease": "none"` has no TTL."""

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Instance, Lease
from tests import ageing
from tests.client import Api, registration

NO_LEASE = {"expires_at": None, "heartbeat_interval_seconds": None, "ttl_seconds": None}
CHECK = {"type": "tcp"}


def lease_of(answer: Any) -> dict[str, Any]:
    """Return the members of the lease that stay the same in every answer."""
    return {name: answer["lease"][name] for name in NO_LEASE}


def test_permanent_instance_has_neither_ttl_nor_deadline(payments: Api, reader: Api) -> None:
    registered = payments.register(lease="none")
    assert (registered.status, lease_of(registered.json)) == (201, NO_LEASE)
    assert (registered.json["ttl_seconds"], registered.json["state"]) == (None, "live")
    found = reader.get("/registry/instance/web/web-1").json
    assert (lease_of(found), found["ttl_seconds"]) == (NO_LEASE, None)
    assert reader.get("/registry/services/web").json["instances"][0]["ttl_seconds"] is None


def test_second_registration_of_a_permanent_instance_changes_nothing(payments: Api) -> None:
    first = payments.register(lease="none").json
    changes = Change.objects.count()
    second = payments.register(lease="none")
    assert (second.status, lease_of(second.json), second.json["epoch"]) == (200, NO_LEASE, first["epoch"])
    assert Change.objects.count() == changes


@pytest.mark.parametrize("fields", [{}, {"status": "UP"}, {"status": "DOWN"}])
def test_heartbeat_of_a_permanent_instance_has_nothing_to_renew(payments: Api, fields: dict[str, Any]) -> None:
    payments.register(lease="none")
    answer = payments.heartbeat(**fields)
    assert (answer.status, lease_of(answer.json)) == (200, NO_LEASE)
    assert answer.json["status"] == fields.get("status", "UP")


def test_heartbeats_of_permanent_leased_and_superseded_instances_in_an_array(payments: Api) -> None:
    payments.post(
        "/registry/register",
        [registration(instance_id="a", lease="none"), registration(instance_id="b"), registration(instance_id="c")],
    )
    key = {"service_name": "web"}
    items = [key | {"instance_id": "a"}, key | {"instance_id": "b"}, key | {"instance_id": "c", "epoch": 2**50}]
    results = payments.post("/registry/heartbeat", items).json["results"]
    assert [result["status"] for result in results] == [200, 200, 409]
    assert [result["lease"]["ttl_seconds"] for result in results[:2]] == [None, 30]


def test_permanent_instance_becomes_leased_by_a_registration_without_that(payments: Api) -> None:
    payments.register(lease="none")
    answer = payments.register(ttl_seconds=5)
    assert answer.json["lease"]["ttl_seconds"] == 5
    change = Change.objects.latest("id")
    assert (change.kind, change.changed) == ("updated", ["ttl_seconds"])
    ageing.age_leases(60)
    assert sweep().expired == 1


def test_leased_instance_becomes_permanent(payments: Api) -> None:
    payments.register()
    assert lease_of(payments.register(lease="none").json) == NO_LEASE
    assert Change.objects.latest("id").changed == ["ttl_seconds"]
    ageing.age_leases(86400)
    assert (sweep().expired, payments.listed()) == (0, ["web-1"])


def test_expired_instance_comes_back_as_permanent(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    assert sweep().expired == 1
    payments.register(lease="none")
    assert (Change.objects.latest("id").kind, payments.listed()) == ("recovered", ["web-1"])
    ageing.age_leases(86400)
    assert (sweep().expired, payments.listed()) == (0, ["web-1"])


def test_permanent_instance_leaves_by_deregistration(payments: Api) -> None:
    payments.register(lease="none")
    assert payments.deregister().status == 204
    assert not Instance.objects.exists()


def test_permanent_instance_leaves_by_removal_by_an_operator(payments: Api, operator: Api) -> None:
    payments.register(lease="none")
    assert operator.deregister().status == 204
    assert not Instance.objects.exists()


@pytest.mark.parametrize("ttl_seconds", [5, 30, 86400])
def test_ttl_of_a_permanent_instance_is_refused(payments: Api, ttl_seconds: int) -> None:
    answer = payments.register(lease="none", ttl_seconds=ttl_seconds)
    assert (answer.status, list(answer.json["errors"])) == (400, ["ttl_seconds"])


def test_null_is_the_absence_of_a_ttl_and_of_a_lease(payments: Api) -> None:
    assert payments.register(lease=None, ttl_seconds=None).json["ttl_seconds"] == 30
    assert payments.register(lease="none", ttl_seconds=None).json["ttl_seconds"] is None


def test_check_that_renews_is_refused_for_a_permanent_instance(payments: Api, settings: Any) -> None:
    settings.REGISTRY_HEALTH_NETWORKS = ["127.0.0.0/8"]
    refused = payments.register(lease="none", health_check=CHECK | {"renews": True})
    assert (refused.status, list(refused.json["errors"])) == (400, ["health_check"])
    assert "no lease to renew" in str(refused.json["errors"])
    assert payments.register(lease="none", health_check=CHECK | {"renews": False}).status == 201


def test_instance_that_its_check_renewed_becomes_permanent(payments: Api, settings: Any) -> None:
    settings.REGISTRY_HEALTH_NETWORKS = ["127.0.0.0/8"]
    forms: list[dict[str, Any]] = [{"health_check": CHECK}, {}]
    for fields in forms:
        payments.register(health_check=CHECK | {"renews": True})
        assert Lease.objects.get().check_failing is False
        assert lease_of(payments.register(lease="none", **fields).json) == NO_LEASE
        assert Lease.objects.get().check_failing is None


@pytest.mark.parametrize(
    ("fields", "judges"),
    [
        ({}, ["lease"]),
        ({"health_check": CHECK}, ["lease", "health_check"]),
        ({"lease": "none", "health_check": CHECK}, ["health_check"]),
        ({"lease": "none"}, []),
    ],
)
def test_instance_says_what_judges_it(payments: Api, settings: Any, fields: dict[str, Any], judges: list[str]) -> None:
    settings.REGISTRY_HEALTH_NETWORKS = ["127.0.0.0/8"]
    payments.register(**fields)
    assert payments.get("/registry/instance/web/web-1").json["judged_by"] == judges


@pytest.mark.parametrize(
    "state", [{"expired_at": Now()}, {"protected_at": Now(), "protected_by": "fleet"}, {"check_failing": True}]
)
def test_database_refuses_a_permanent_lease_that_is_not_live(payments: Api, state: dict[str, Any]) -> None:
    payments.register(lease="none")
    with pytest.raises(IntegrityError, match="lease_permanent_is_live"), transaction.atomic():
        Lease.objects.update(**state)
