"""Incarnations: a process that starts again at the same host and port is told from the one before it."""

from typing import Any

import pytest

from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Instance, Lease
from tests import ageing
from tests.client import Api, registration

OLD, NEW = {"incarnation": "the old process"}, {"incarnation": "the new process"}


def restart(api: Api) -> None:
    """Register the old process, and then the new one at the same address."""
    assert api.register(**OLD).status == 201
    assert api.register(**NEW).status == 200


def last_change() -> Change:
    return Change.objects.latest("id")


def reported() -> tuple[str, str | None]:
    return Instance.objects.values_list("reported_status", "lease__incarnation").get()


def test_register_with_another_incarnation_begins_an_epoch(payments: Api) -> None:
    first = payments.register(**OLD).json
    payments.heartbeat()
    second = Api("registry-services", "team-payments", subject="successor").register(**NEW).json
    assert second["epoch"] > first["epoch"]
    assert second["registered_at"] > first["registered_at"]
    assert Instance.objects.get().registered_by.startswith("successor@")
    assert Lease.objects.get().beats == 0
    assert (last_change().kind, last_change().changed) == ("updated", ["epoch", "registered_at"])


def test_incarnation_is_not_shown_to_readers(payments: Api) -> None:
    restart(payments)
    paths = (
        "/registry/services",
        "/registry/services/web",
        "/registry/instance/web/web-1",
        "/registry/changes?service=web",
    )
    assert [path for path in paths if b"incarnation" in payments.get(path).body] == []


@pytest.mark.parametrize("incarnation", ["x", " ", "~" * 64, "a quote \" and \\ and 'it'", None])
def test_register_repeated_with_its_incarnation_appends_no_change(payments: Api, incarnation: str | None) -> None:
    first = payments.register(incarnation=incarnation).json
    again = payments.register(incarnation=incarnation)
    assert (again.status, again.json["epoch"]) == (200, first["epoch"])
    assert last_change().kind == "registered"
    assert payments.heartbeat(incarnation=incarnation).status == 200


def test_register_without_an_incarnation_begins_an_epoch_after_one_with(payments: Api) -> None:
    """A registration is a full statement: the process that left out its incarnation is not the one that gave it."""
    first = payments.register(**OLD).json["epoch"]
    second = payments.register().json["epoch"]
    assert second > first
    assert payments.heartbeat(**OLD).code == "lease_superseded"
    assert payments.deregister(**OLD).code == "lease_superseded"
    assert payments.register().json["epoch"] == second
    assert payments.register(**NEW).json["epoch"] > second


def test_register_with_incarnation_and_status_is_one_update(payments: Api) -> None:
    payments.register(**OLD)
    payments.register(**NEW, status="STARTING", weight=7)
    assert last_change().kind == "updated"
    assert last_change().changed == ["weight", "reported_status", "status", "epoch", "registered_at"]


def test_heartbeat_of_the_former_incarnation_is_superseded(payments: Api) -> None:
    restart(payments)
    changes, before = Change.objects.count(), Lease.objects.get()
    answer = payments.heartbeat(**OLD, status="OUT_OF_SERVICE")
    assert (answer.status, answer.code) == (409, "lease_superseded")
    assert reported() == ("UP", NEW["incarnation"])
    after = Lease.objects.get()
    assert (after.beats, after.heartbeat_at, Change.objects.count()) == (0, before.heartbeat_at, changes)
    assert payments.heartbeat(**NEW).status == 200


def test_heartbeat_with_an_incarnation_of_an_instance_without_one_is_superseded(payments: Api) -> None:
    payments.register()
    assert payments.heartbeat(**OLD).code == "lease_superseded"
    assert payments.heartbeat().status == 200


def test_heartbeat_without_an_incarnation_is_not_fenced(payments: Api) -> None:
    restart(payments)
    assert payments.heartbeat().status == 200
    assert reported() == ("UP", NEW["incarnation"])


def test_heartbeat_is_fenced_by_epoch_and_incarnation_when_it_carries_both(payments: Api) -> None:
    first = payments.register(**OLD).json["epoch"]
    second = payments.register(**NEW).json["epoch"]
    tried: list[tuple[dict[str, Any], int]] = [
        ({"epoch": first, **NEW}, 409),
        ({"epoch": second, **OLD}, 409),
        ({"epoch": second, **NEW}, 200),
    ]
    assert [payments.heartbeat(**fence).status for fence, _status in tried] == [status for _fence, status in tried]
    assert [payments.deregister(**fence).status for fence, _status in tried] == [409, 409, 204]


def test_array_of_heartbeats_is_fenced_item_by_item(payments: Api) -> None:
    payments.post("/registry/register", [registration(instance_id=f"i-{number}", **OLD) for number in range(4)])
    payments.register(instance_id="i-1", **NEW)
    fences: list[dict[str, Any]] = [{}, OLD, OLD, {"incarnation": None}]
    beats = [{"service_name": "web", "instance_id": f"i-{number}", **fence} for number, fence in enumerate(fences)]
    results = payments.post("/registry/heartbeat", beats).json["results"]
    assert [result["status"] for result in results] == [200, 409, 200, 200]
    results = payments.post("/registry/deregister", beats).json["results"]
    assert [result["status"] for result in results] == [204, 409, 204, 204]
    assert payments.listed() == ["i-1"]


def test_array_with_two_incarnations_of_an_instance_takes_the_first(payments: Api) -> None:
    items = [registration(**OLD), registration(**NEW)]
    first, second = payments.post("/registry/register", items).json["results"]
    assert (first["status"], second["status"]) == (201, 400)
    assert reported() == ("UP", OLD["incarnation"])


def test_heartbeat_of_an_expired_instance_restores_its_incarnation_alone(payments: Api) -> None:
    payments.register(**OLD)
    ageing.age_leases(60)
    assert sweep().expired == 1
    assert payments.heartbeat(**NEW).code == "lease_superseded"
    assert payments.listed() == []
    assert payments.heartbeat(**OLD).json["recovered"] is True
    assert payments.listed() == ["web-1"]


def test_register_of_an_expired_instance_with_another_incarnation_is_recovered_in_an_epoch(payments: Api) -> None:
    first = payments.register(**OLD).json["epoch"]
    ageing.age_leases(60)
    sweep()
    assert payments.register(**NEW).json["epoch"] > first
    assert (last_change().kind, last_change().changed) == ("recovered", ["epoch", "registered_at"])
    assert payments.heartbeat(**OLD).code == "lease_superseded"


def test_deregister_by_the_former_incarnation_is_superseded(payments: Api) -> None:
    restart(payments)
    answer = payments.deregister(**OLD)
    assert (answer.status, answer.code) == (409, "lease_superseded")
    assert payments.listed() == ["web-1"]
    ageing.age_leases(60)
    sweep()
    assert payments.deregister(**OLD).code == "lease_superseded"
    assert payments.heartbeat(**NEW).json["recovered"] is True


def test_deregister_of_a_purged_or_deregistered_instance_succeeds_with_any_incarnation(payments: Api) -> None:
    restart(payments)
    assert payments.deregister(**NEW).status == 204
    assert payments.deregister(**OLD).status == 204
    assert payments.heartbeat(**OLD).json["reason"] == "deregistered"
    restart(payments)
    ageing.age_leases(60)
    sweep()
    ageing.age_expiries(700)
    sweep()
    assert [payments.deregister(**who).status for who in (OLD, NEW)] == [204, 204]
    assert payments.heartbeat(**NEW).json["reason"] == "purged"


def test_operator_deregisters_without_an_incarnation(payments: Api, operator: Api) -> None:
    restart(payments)
    assert operator.deregister().status == 204
    assert payments.listed() == []
