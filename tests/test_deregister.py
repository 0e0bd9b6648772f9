"""POST /registry/deregister"""

from service_registry.models import Change, Instance, Lease
from tests.client import Api, registration


def test_it_takes_the_instance_off_and_may_be_repeated(payments: Api) -> None:
    payments.register()
    assert payments.deregister().status == 204
    assert (Instance.objects.count(), Lease.objects.count()) == (0, 0)
    assert payments.deregister().status == 204
    assert Change.objects.filter(kind="deregistered").count() == 1


def test_what_was_never_registered_is_not_found(payments: Api) -> None:
    payments.register()
    for service_name in ("web", "nowhere"):
        answer = payments.deregister(service_name, "web-9")
        assert (answer.status, answer.code, answer.json["reason"]) == (404, "instance_not_found", "never_registered")


def test_an_older_epoch_takes_nothing_off(payments: Api) -> None:
    first = payments.register().json["epoch"]
    payments.register(port=81)
    answer = payments.deregister(epoch=first)
    assert (answer.status, answer.code) == (409, "lease_superseded")
    assert payments.listed() == ["web-1"]


def test_a_stranger_is_refused_whether_or_not_the_instance_exists(payments: Api, stranger: Api) -> None:
    payments.register()
    for instance_id in ("web-1", "web-9"):
        answer = stranger.deregister(instance_id=instance_id)
        assert (answer.status, answer.code) == (403, "not_owner")
    assert payments.listed() == ["web-1"]


def test_an_operator_takes_any_off(payments: Api, operator: Api) -> None:
    payments.register()
    assert operator.deregister().status == 204
    assert Change.objects.get(kind="deregistered").actor.startswith("operator@")


def test_a_reader_may_not(reader: Api) -> None:
    answer = reader.deregister()
    assert (answer.status, answer.json["permission"]) == (403, "deregister_instance")


def test_an_array_judges_each_item_on_its_own(payments: Api, stranger: Api) -> None:
    payments.post("/registry/register", [registration(instance_id="web-1"), registration(instance_id="web-2")])
    stranger.register("foreign", "x")
    keys = [("web", "web-2"), ("foreign", "x"), ("web", "web-9"), ("web", "web-2"), ("web", "web-1")]
    items = [{"service_name": service_name, "instance_id": instance_id} for service_name, instance_id in keys]
    results = payments.post("/registry/deregister", items).json["results"]
    assert [result["status"] for result in results] == [204, 403, 404, 400, 204]
    assert payments.listed() == []


def test_a_new_start_may_register_again(payments: Api) -> None:
    first = payments.register().json["epoch"]
    payments.deregister()
    again = payments.register()
    assert (again.status, again.json["epoch"] > first) == (201, True)
