"""GET /registry/services"""

import json

import pytest

from service_registry.queries import catalogue
from service_registry.schemas import ListQuery
from tests.client import Api, registration
from tests.queries.fleet import register_four_instances


def test_list_counts_all_and_healthy_instances(payments: Api, reader: Api) -> None:
    payments.register(instance_id="a")
    payments.register(instance_id="b", status="DOWN")
    (service,) = reader.get("/registry/services").json["services"]
    assert (service["instance_count"], service["healthy_count"], len(service["instances"])) == (2, 1, 2)


def test_list_read_page_by_page_is_complete_and_keeps_its_index(payments: Api, reader: Api) -> None:
    names = [f"service-{number:02}" for number in range(7)]
    payments.post("/registry/register", [registration(name) for name in reversed(names)])
    payments.register("other", namespace="second")
    read, path = [], "/registry/services?limit=3"
    indexes = set()
    while path:
        page = reader.get(path).json
        read += [service["name"] for service in page["services"]]
        indexes.add(page["index"])
        payments.register("zz-later", instance_id=f"later-{len(read)}")
        path = f"/registry/services?limit=3&after={page['next']}" if page["next"] else ""
    assert read == [*names, "zz-later", "other"]
    assert len(indexes) == 1


def test_list_page_ends_with_the_service_that_fills_it(payments: Api) -> None:
    for service in ("a", "b", "c"):
        payments.post("/registry/register", [registration(service, f"i-{number}") for number in range(3)])
    first = catalogue.list_services(ListQuery(), None, max_instances=5)
    assert [service["name"] for service in json.loads(first.services)] == ["a", "b"]
    assert first.next is not None
    second = catalogue.list_services(ListQuery(), first.next, max_instances=5)
    assert [service["name"] for service in json.loads(second.services)] == ["c"]
    assert second.next is None


def test_list_of_one_namespace_excludes_others(payments: Api, reader: Api) -> None:
    payments.register(namespace="one")
    payments.register(namespace="two")
    assert [service["namespace"] for service in reader.get("/registry/services?namespace=two").json["services"]] == [
        "two"
    ]


@pytest.mark.parametrize(
    ("query", "names", "instances"),
    [
        ("", ["api", "web", "web"], ["a-1", "a-2", "w-1", "w-2"]),
        ("namespace=default", ["api", "web"], ["a-1", "a-2", "w-1"]),
        ("name=web", ["web", "web"], ["w-1", "w-2"]),
        ("name=w*", ["web", "web"], ["w-1", "w-2"]),
        ("name=*", ["api", "web", "web"], ["a-1", "a-2", "w-1", "w-2"]),
        ("name=a_i", [], []),
        ("owner=team-payments", ["api", "web", "web"], ["a-1", "a-2", "w-1", "w-2"]),
        ("owner=team-other", [], []),
        ("status=DOWN", ["api"], ["a-2"]),
        ("status=DOWN&status=UP&zone=us", ["api"], ["a-2"]),
        ("zone=eu", ["api", "web"], ["a-1", "w-1"]),
        ("tag=v2", ["api"], ["a-1", "a-2"]),
        ("tag=v2&tag=canary", ["api"], ["a-1"]),
        ("metadata.version=2", ["api", "web"], ["a-1", "w-1"]),
        ("metadata.version=2&metadata.tier=front", ["web"], ["w-1"]),
        ("state=expired", [], []),
        ("state=live", ["api", "web", "web"], ["a-1", "a-2", "w-1", "w-2"]),
        ("protected=true", [], []),
        ("protected=false&zone=us", ["api"], ["a-2"]),
        ("limit=2", ["api", "web"], ["a-1", "a-2", "w-1"]),
    ],
)
def test_list_with_filters_returns_matching_services_and_instances(
    payments: Api, reader: Api, query: str, names: list[str], instances: list[str]
) -> None:
    register_four_instances(payments)
    services = reader.get(f"/registry/services?{query}").json["services"]
    assert [service["name"] for service in services] == names
    assert [instance["instance_id"] for service in services for instance in service["instances"]] == instances


def test_list_counts_ignore_instance_filters(payments: Api, reader: Api) -> None:
    register_four_instances(payments)
    (service,) = reader.get("/registry/services?tag=canary").json["services"]
    assert (service["instance_count"], service["healthy_count"], len(service["instances"])) == (2, 1, 1)


def test_list_summary_has_no_instances(payments: Api, reader: Api) -> None:
    register_four_instances(payments)
    services = reader.get("/registry/services?view=summary").json["services"]
    assert [service["instance_count"] for service in services] == [2, 1, 1]
    assert all("instances" not in service for service in services)


def test_later_list_page_has_its_own_header_index(payments: Api, reader: Api) -> None:
    payments.post("/registry/register", [registration("a"), registration("b")])
    first = reader.get("/registry/services?limit=1")
    payments.register("c")
    second = reader.get(f"/registry/services?limit=1&after={first.json['next']}")
    assert second.json["index"] == first.json["index"]
    assert second.headers["x-registry-index"] != first.headers["x-registry-index"]
