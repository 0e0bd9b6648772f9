"""Deregister: POST /registry/deregister."""

from service_registry.models import Change, Instance, Lease
from tests.client import Api


def test_deregister_repeated_succeeds_and_appends_one_change(payments: Api) -> None:
    payments.register()
    assert payments.deregister().status == 204
    assert (Instance.objects.count(), Lease.objects.count()) == (0, 0)
    assert payments.deregister().status == 204
    assert Change.objects.filter(kind="deregistered").count() == 1


def test_deregister_with_an_older_epoch_is_superseded(payments: Api) -> None:
    first = payments.register().json["epoch"]
    payments.register(port=81)
    answer = payments.deregister(epoch=first)
    assert (answer.status, answer.code) == (409, "lease_superseded")
    assert payments.listed() == ["web-1"]


def test_register_after_deregister_begins_an_epoch(payments: Api) -> None:
    first = payments.register().json["epoch"]
    payments.deregister()
    again = payments.register()
    assert (again.status, again.json["epoch"] > first) == (201, True)
