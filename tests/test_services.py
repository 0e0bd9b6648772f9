"""GET /registry/services and GET /registry/services/{name}"""

import pytest

from service_registry import catalogue
from service_registry.expiry.sweep import sweep
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
    ageing.silence(60)
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
    page = catalogue.page(None, 100, None, at_most_instances=5)
    assert [service["name"] for service in page.services] == ["a", "b"]
    assert page.next is not None
    assert [service["name"] for service in catalogue.page(None, 100, page.next, at_most_instances=5).services] == ["c"]


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
