"""Deregister: POST /registry/deregister."""

from service_registry.models import Change, Instance, Lease
from tests.client import Api, registration


def test_deregister_repeated_succeeds_and_appends_one_change(payments: Api) -> None:
    payments.register()
    assert payments.deregister().status == 204
    assert (Instance.objects.count(), Lease.objects.count()) == (0, 0)
    assert payments.deregister().status == 204
    assert Change.objects.filter(kind="deregistered").count() == 1


def test_deregister_of_an_unknown_instance_is_never_registered(payments: Api) -> None:
    payments.register()
    for service_name in ("web", "nowhere"):
        answer = payments.deregister(service_name, "web-9")
        assert (answer.status, answer.code, answer.json["reason"]) == (404, "instance_not_found", "never_registered")


def test_deregister_with_an_older_epoch_is_superseded(payments: Api) -> None:
    first = payments.register().json["epoch"]
    payments.register(port=81)
    answer = payments.deregister(epoch=first)
    assert (answer.status, answer.code) == (409, "lease_superseded")
    assert payments.listed() == ["web-1"]


def test_deregister_in_a_foreign_service_is_not_owner_whatever_exists(payments: Api, other_team: Api) -> None:
    payments.register()
    for instance_id in ("web-1", "web-9"):
        answer = other_team.deregister(instance_id=instance_id)
        assert (answer.status, answer.code) == (403, "not_owner")
    assert payments.listed() == ["web-1"]


def test_deregister_by_an_operator_needs_no_ownership(payments: Api, operator: Api) -> None:
    payments.register()
    assert operator.deregister().status == 204
    assert Change.objects.get(kind="deregistered").actor.startswith("operator@")


def test_deregister_array_judges_each_item_alone(payments: Api, other_team: Api) -> None:
    payments.post("/registry/register", [registration(instance_id="web-1"), registration(instance_id="web-2")])
    other_team.register("foreign", "x")
    keys = [("web", "web-2"), ("foreign", "x"), ("web", "web-9"), ("web", "web-2"), ("web", "web-1")]
    items = [{"service_name": service_name, "instance_id": instance_id} for service_name, instance_id in keys]
    results = payments.post("/registry/deregister", items).json["results"]
    assert [result["status"] for result in results] == [204, 403, 404, 400, 204]
    assert payments.listed() == []


def test_register_after_deregister_begins_an_epoch(payments: Api) -> None:
    first = payments.register().json["epoch"]
    payments.deregister()
    again = payments.register()
    assert (again.status, again.json["epoch"] > first) == (201, True)
