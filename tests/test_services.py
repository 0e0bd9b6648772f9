"""GET /registry/services and GET /registry/services/{name}"""

import json
from datetime import UTC, datetime

import pytest

from service_registry.expiry.sweep import sweep
from service_registry.models import Lease
from service_registry.queries import catalogue
from service_registry.schemas import ListQuery
from tests import ageing
from tests.client import Api, registration


def test_discovery_gives_what_should_get_traffic(payments: Api, reader: Api) -> None:
    payments.register(instance_id="b")
    payments.register(instance_id="a")
    payments.register(instance_id="c", status="STARTING")
    answer = reader.get("/registry/services/web")
    assert answer.status == 200
    assert [instance["instance_id"] for instance in answer.json["instances"]] == ["a", "b"]
    assert (answer.json["owners"], answer.json["protected"]) == (["team-payments"], False)
    assert "lease" not in answer.json["instances"][0]


def test_its_index_is_that_of_the_services_last_change(payments: Api, reader: Api) -> None:
    payments.register()
    before = reader.get("/registry/services/web")
    assert before.json["index"] == before.headers["x-registry-index"]
    payments.register("other")
    payments.heartbeat()
    after = reader.get("/registry/services/web")
    assert after.json["index"] == before.json["index"]
    assert after.headers["x-registry-index"] != before.headers["x-registry-index"]


def test_expired_instances_are_found_when_asked_for(payments: Api, reader: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    assert reader.get("/registry/services/web").json["instances"] == []
    (expired,) = reader.get("/registry/services/web?state=expired&status=all").json["instances"]
    assert expired["state"] == "expired"


def test_statuses_may_be_chosen(payments: Api, reader: Api) -> None:
    payments.register(instance_id="a", status="DOWN")
    payments.register(instance_id="b", status="STARTING")
    payments.register(instance_id="c")
    assert len(reader.get("/registry/services/web?status=DOWN&status=STARTING").json["instances"]) == 2
    assert len(reader.get("/registry/services/web?status=all").json["instances"]) == 3


def test_a_service_without_instances_is_found_and_empty(payments: Api, reader: Api) -> None:
    payments.register()
    payments.deregister()
    answer = reader.get("/registry/services/web")
    assert (answer.status, answer.json["instances"]) == (200, [])


def test_an_unknown_service_is_not_found(reader: Api) -> None:
    answer = reader.get("/registry/services/nowhere")
    assert (answer.status, answer.code) == (404, "service_not_found")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/registry/services/web?status=up", "status"),
        ("/registry/services/web?state=dead", "state"),
        ("/registry/services/web?namespace=A", "namespace"),
        ("/registry/services/web?namespace=a&namespace=b", "namespace"),
        ("/registry/services/web?nonsense=1", "nonsense"),
        ("/registry/services/web?protected=yes", "protected"),
        ("/registry/services/web?name=x", "name"),
        ("/registry/services/W%00b", "name"),
        ("/registry/services?limit=0", "limit"),
        ("/registry/services?limit=501", "limit"),
        ("/registry/services?limit=%D9%A1", "limit"),
        ("/registry/services?limit=9223372036854775808", "limit"),
        ("/registry/services?after=nonsense", "after"),
        ("/registry/services?after=WyJhIl0", "after"),
        ("/registry/services?namespace=%00", "namespace"),
        ("/registry/services?name=a*b", "name"),
        ("/registry/services?view=half", "view"),
        ("/registry/services?zone=a%20b", "zone"),
        ("/registry/services?tag=%C3%A9", "tag"),
        ("/registry/services?metadata.a=%00", "metadata"),
        ("/registry/services?metadata.a=1&metadata.a=2", "metadata"),
        ("/registry/services?metadata.a%20b=1", "metadata"),
        ("/registry/services?metadata=1", "metadata"),
        ("/registry/services?metadata=1&metadata.a=b", "metadata"),
        ("/registry/services/web?metadata=1&metadata.a=b", "metadata"),
        ("/registry/instance/web-1?service_name=web", "service_name"),
        ("/registry/services?after=WyIwMDAwMDAwMC0xIiwiXHVkODAwIiwiYSJd", "after"),
        ("/registry/services?owner=", "owner"),
        ("/registry/services?status=", "status"),
        ("/registry/instance/web/web-1?namespace=%FF", "namespace"),
        ("/registry/instance/web/a%20b", "instance_id"),
    ],
)
def test_a_malformed_value_is_rejected_by_name(reader: Api, path: str, field: str) -> None:
    answer = reader.get(path)
    assert (answer.status, answer.code) == (400, "invalid")
    assert [name.partition(".")[0] for name in answer.json["errors"]] == [field]


def test_the_list_counts(payments: Api, reader: Api) -> None:
    payments.register(instance_id="a")
    payments.register(instance_id="b", status="DOWN")
    (service,) = reader.get("/registry/services").json["services"]
    assert (service["instance_count"], service["healthy_count"], len(service["instances"])) == (2, 1, 2)


def test_the_list_is_walked_page_by_page(payments: Api, reader: Api) -> None:
    names = [f"service-{number:02}" for number in range(7)]
    payments.post("/registry/register", [registration(name) for name in reversed(names)])
    payments.register("other", namespace="second")
    walked, path = [], "/registry/services?limit=3"
    indexes = set()
    while path:
        page = reader.get(path).json
        walked += [service["name"] for service in page["services"]]
        indexes.add(page["index"])
        payments.register("zz-later", instance_id=f"later-{len(walked)}")
        path = f"/registry/services?limit=3&after={page['next']}" if page["next"] else ""
    assert walked == [*names, "zz-later", "other"]
    assert len(indexes) == 1


def test_a_page_ends_with_the_service_that_fills_it(payments: Api) -> None:
    for service in ("a", "b", "c"):
        payments.post("/registry/register", [registration(service, f"i-{number}") for number in range(3)])
    first = catalogue.list_services(ListQuery(), None, max_instances=5)
    assert [service["name"] for service in json.loads(first.services)] == ["a", "b"]
    assert first.next is not None
    second = catalogue.list_services(ListQuery(), first.next, max_instances=5)
    assert [service["name"] for service in json.loads(second.services)] == ["c"]
    assert second.next is None


def test_the_list_may_be_of_one_namespace(payments: Api, reader: Api) -> None:
    payments.register(namespace="one")
    payments.register(namespace="two")
    assert [service["namespace"] for service in reader.get("/registry/services?namespace=two").json["services"]] == [
        "two"
    ]


@pytest.mark.parametrize("path", ["/registry/services", "/registry/services/web", "/registry/instance/web-1"])
def test_who_may_not_see_gets_403_and_not_an_empty_list(db: None, path: str) -> None:
    answer = Api("team-payments").get(path)
    assert (answer.status, answer.code) == (403, "permission_denied")


@pytest.mark.parametrize("path", ["/registry/services/", "/registry/services"])
def test_a_slash_makes_no_difference(reader: Api, path: str) -> None:
    assert reader.get(path).status == 200


def test_another_method_is_a_problem(reader: Api) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        answer = reader.call(method, "/registry/services")
        assert (answer.status, answer.code) == (405, "method_not_allowed")


def test_another_path_is_a_problem(reader: Api) -> None:
    answer = reader.get("/registry/nowhere")
    assert (answer.status, answer.code) == (404, "not_found")


def test_a_request_id_is_kept_when_it_is_sane(reader: Api) -> None:
    assert reader.get("/registry/services", X_Request_Id="abc-1").headers["x-request-id"] == "abc-1"
    assert reader.get("/registry/services", X_Request_Id="<script>").headers["x-request-id"] != "<script>"


def fleet(payments: Api) -> None:
    payments.register("api", "a-1", zone="eu", tags=["canary", "v2"], metadata={"version": "2"})
    payments.register("api", "a-2", zone="us", tags=["v2"], status="DOWN", owner="team-payments")
    payments.register("web", "w-1", zone="eu", metadata={"version": "2", "tier": "front"})
    payments.register("web", "w-2", namespace="test")


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
def test_the_list_is_filtered(payments: Api, reader: Api, query: str, names: list[str], instances: list[str]) -> None:
    fleet(payments)
    services = reader.get(f"/registry/services?{query}").json["services"]
    assert [service["name"] for service in services] == names
    assert [instance["instance_id"] for service in services for instance in service["instances"]] == instances


def test_filters_leave_the_counts_alone(payments: Api, reader: Api) -> None:
    fleet(payments)
    (service,) = reader.get("/registry/services?tag=canary").json["services"]
    assert (service["instance_count"], service["healthy_count"], len(service["instances"])) == (2, 1, 1)


def test_a_summary_leaves_the_instances_out(payments: Api, reader: Api) -> None:
    fleet(payments)
    services = reader.get("/registry/services?view=summary").json["services"]
    assert [service["instance_count"] for service in services] == [2, 1, 1]
    assert all("instances" not in service for service in services)


@pytest.mark.parametrize(
    ("query", "instances"),
    [("", ["a-1"]), ("status=all", ["a-1", "a-2"]), ("zone=us", []), ("tag=v2&status=all&zone=us", ["a-2"])],
)
def test_discovery_is_filtered(payments: Api, reader: Api, query: str, instances: list[str]) -> None:
    fleet(payments)
    found = reader.get(f"/registry/services/api?{query}").json["instances"]
    assert [instance["instance_id"] for instance in found] == instances


def test_protected_instances_are_listed_and_may_be_left_out(payments: Api, reader: Api) -> None:
    payments.register(instance_id="a")
    payments.register(instance_id="b")
    Lease.objects.filter(instance__instance_id="a").update(protected_at=datetime.now(UTC), protected_by="fleet")
    Lease.objects.filter(instance__instance_id="a").update(protected_at=datetime.now(UTC), protected_by="service")
    assert reader.get("/registry/services/web").json["protected"] is True
    assert len(reader.get("/registry/services/web").json["instances"]) == 2
    (live,) = reader.get("/registry/services/web?protected=false").json["instances"]
    assert live["instance_id"] == "b"
    (service,) = reader.get("/registry/services?state=protected").json["services"]
    assert [instance["state"] for instance in service["instances"]] == ["protected"]


def test_the_tag_of_discovery_moves_with_its_service_alone(payments: Api, reader: Api) -> None:
    payments.register()
    first = reader.get("/registry/services/web")
    tag = first.headers["etag"]
    payments.register("other")
    payments.heartbeat()
    again = reader.get("/registry/services/web", If_None_Match=f'"x", W/{tag}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["x-registry-index"]
    payments.register(weight=5)
    moved = reader.get("/registry/services/web", If_None_Match=tag)
    assert (moved.status, moved.headers["etag"] == tag) == (200, False)


def test_the_tag_differs_between_questions(payments: Api, reader: Api) -> None:
    payments.register()
    tag = reader.get("/registry/services/web").headers["etag"]
    assert reader.get("/registry/services/web?status=all", If_None_Match=tag).status == 200


def test_an_unknown_service_has_no_tag(reader: Api) -> None:
    assert reader.get("/registry/services/nowhere", If_None_Match="*").status == 404


def test_more_parameters_than_are_read_are_a_problem(reader: Api) -> None:
    answer = reader.get("/registry/services?" + "&".join(["tag=a"] * 1001))
    assert (answer.status, answer.code) == (400, "invalid")


def test_a_later_page_says_when_it_was_read_itself(payments: Api, reader: Api) -> None:
    payments.post("/registry/register", [registration("a"), registration("b")])
    first = reader.get("/registry/services?limit=1")
    payments.register("c")
    second = reader.get(f"/registry/services?limit=1&after={first.json['next']}")
    assert second.json["index"] == first.json["index"]
    assert second.headers["x-registry-index"] != first.headers["x-registry-index"]
