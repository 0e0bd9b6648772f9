"""GET /registry/services/{name}"""

from datetime import UTC, datetime

import pytest

from service_registry.expiry.sweep import sweep
from service_registry.models import Lease
from tests import ageing
from tests.client import Api
from tests.queries.fleet import register_four_instances


def test_discovery_returns_healthy_instances_by_id(payments: Api, reader: Api) -> None:
    payments.register(instance_id="b")
    payments.register(instance_id="a")
    payments.register(instance_id="c", status="STARTING")
    answer = reader.get("/registry/services/web")
    assert answer.status == 200
    assert [instance["instance_id"] for instance in answer.json["instances"]] == ["a", "b"]
    assert (answer.json["owners"], answer.json["protected"]) == (["team-payments"], False)
    assert "lease" not in answer.json["instances"][0]


def test_discovery_index_is_that_of_the_services_last_change(payments: Api, reader: Api) -> None:
    payments.register()
    before = reader.get("/registry/services/web")
    assert before.json["index"] == before.headers["x-registry-index"]
    payments.register("other")
    payments.heartbeat()
    after = reader.get("/registry/services/web")
    assert after.json["index"] == before.json["index"]
    assert after.headers["x-registry-index"] != before.headers["x-registry-index"]


def test_discovery_by_state_returns_expired_instances(payments: Api, reader: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    assert reader.get("/registry/services/web").json["instances"] == []
    (expired,) = reader.get("/registry/services/web?state=expired&status=all").json["instances"]
    assert expired["state"] == "expired"


def test_discovery_by_status_returns_those_statuses(payments: Api, reader: Api) -> None:
    payments.register(instance_id="a", status="DOWN")
    payments.register(instance_id="b", status="STARTING")
    payments.register(instance_id="c")
    assert len(reader.get("/registry/services/web?status=DOWN&status=STARTING").json["instances"]) == 2
    assert len(reader.get("/registry/services/web?status=all").json["instances"]) == 3


def test_discovery_of_a_service_without_instances_is_empty(payments: Api, reader: Api) -> None:
    payments.register()
    payments.deregister()
    answer = reader.get("/registry/services/web")
    assert (answer.status, answer.json["instances"]) == (200, [])


@pytest.mark.parametrize(
    ("query", "instances"),
    [("", ["a-1"]), ("status=all", ["a-1", "a-2"]), ("zone=us", []), ("tag=v2&status=all&zone=us", ["a-2"])],
)
def test_discovery_with_filters_returns_matching_instances(
    payments: Api, reader: Api, query: str, instances: list[str]
) -> None:
    register_four_instances(payments)
    found = reader.get(f"/registry/services/api?{query}").json["instances"]
    assert [instance["instance_id"] for instance in found] == instances


def test_protected_instances_are_listed_unless_excluded(payments: Api, reader: Api) -> None:
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


def test_discovery_etag_changes_only_with_its_service(payments: Api, reader: Api) -> None:
    payments.register()
    first = reader.get("/registry/services/web")
    tag = first.headers["etag"]
    payments.register("other")
    payments.heartbeat()
    again = reader.get("/registry/services/web", If_None_Match=f'"x", {tag}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["x-registry-index"]
    payments.register(weight=5)
    moved = reader.get("/registry/services/web", If_None_Match=tag)
    assert (moved.status, moved.headers["etag"] == tag) == (200, False)


def test_discovery_etag_differs_between_queries(payments: Api, reader: Api) -> None:
    payments.register()
    tag = reader.get("/registry/services/web").headers["etag"]
    assert reader.get("/registry/services/web?status=all", If_None_Match=tag).status == 200
