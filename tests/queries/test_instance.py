"""GET /registry/instance/{service_name}/{instance_id} and GET /registry/instance/{instance_id}"""

from datetime import UTC, datetime, timedelta

from service_registry.expiry.sweep import sweep
from service_registry.models import Override, Service
from tests import ageing
from tests.client import Api


def test_instance_shows_its_lease(payments: Api, reader: Api) -> None:
    payments.register(ttl_seconds=60)
    answer = reader.get("/registry/instance/web/web-1")
    assert answer.status == 200
    lease = answer.json["lease"]
    passed = datetime.fromisoformat(lease["expires_at"]) - datetime.fromisoformat(lease["heartbeat_at"])
    assert passed == timedelta(seconds=66)
    assert answer.headers["x-registry-index"]


def test_instance_with_a_short_ttl_has_a_second_of_grace(payments: Api, reader: Api) -> None:
    payments.register(ttl_seconds=5)
    lease = reader.get("/registry/instance/web/web-1").json["lease"]
    passed = datetime.fromisoformat(lease["expires_at"]) - datetime.fromisoformat(lease["heartbeat_at"])
    assert passed == timedelta(seconds=6)


def test_instance_is_found_by_its_id_alone(payments: Api, reader: Api) -> None:
    payments.register()
    assert reader.get("/registry/instance/web-1").json["service_name"] == "web"


def test_instance_id_of_several_services_is_ambiguous(payments: Api, reader: Api) -> None:
    payments.register("a")
    payments.register("b")
    answer = reader.get("/registry/instance/web-1")
    assert (answer.status, answer.code) == (409, "ambiguous_instance")
    assert [candidate["service_name"] for candidate in answer.json["candidates"]] == ["a", "b"]


def test_expired_instance_is_still_shown(payments: Api, reader: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    assert reader.get("/registry/instance/web/web-1").json["state"] == "expired"


def test_missing_instance_is_not_found_with_a_reason(payments: Api, reader: Api) -> None:
    assert reader.get("/registry/instance/web/web-1").code == "service_not_found"
    payments.register()
    assert reader.get("/registry/instance/web/web-2").json["reason"] == "never_registered"
    payments.deregister()
    assert reader.get("/registry/instance/web/web-1").json["reason"] == "deregistered"
    assert reader.get("/registry/instance/web-1").code == "instance_not_found"


def test_instance_shows_actors_only_to_readers_of_its_changes(payments: Api, reader: Api, operator: Api) -> None:
    payments.register()
    Override.objects.create(
        service=Service.objects.get(),
        instance_id="web-1",
        status="DOWN",
        reason="disk",
        actor="op",
        until=datetime.now(UTC),
    )
    shown = reader.get("/registry/instance/web/web-1").json
    assert "registered_by" not in shown
    assert set(shown["override"]) == {"status", "until"}
    for api in (payments, operator):
        full = api.get("/registry/instance/web/web-1").json
        assert full["registered_by"].startswith("payments@")
        assert (full["override"]["reason"], full["override"]["actor"], full["status"]) == ("disk", "op", "DOWN")


def test_instance_without_a_check_has_no_check_and_no_result(payments: Api, reader: Api) -> None:
    payments.register()
    document = reader.get("/registry/instance/web/web-1").json
    assert (document["health_check"], document["last_check"]) == (None, None)
