"""Override: PUT and DELETE /registry/instance/{service_name}/{instance_id}/status."""

from datetime import UTC, datetime, timedelta
from typing import Any

from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Override
from tests import ageing
from tests.client import Answer, Api

PATH = "/registry/instance/web/web-1/status"
BODY = {"status": "OUT_OF_SERVICE", "reason": "disk is failing"}


def put(api: Api, path: str = PATH, **fields: Any) -> Answer:
    return api.call("PUT", path, BODY | fields)


def time_ahead(**duration: int) -> str:
    return (datetime.now(UTC) + timedelta(**duration)).isoformat()


def test_override_replaces_the_reported_status(payments: Api, operator: Api, reader: Api) -> None:
    payments.register()
    answer = put(operator)
    assert answer.status == 200
    assert answer.json["override"] == BODY | {"actor": answer.json["override"]["actor"], "until": None}
    assert answer.json["override"]["actor"].startswith("operator@")
    assert (answer.json["instance"]["status"], answer.json["instance"]["reported_status"]) == ("OUT_OF_SERVICE", "UP")
    assert reader.get("/registry/services/web").json["instances"] == []
    change = Change.objects.get(kind="status_changed")
    assert (change.reason, change.instance_id) == ("disk is failing", "web-1")


def test_override_survives_heartbeat_registration_and_deregistration(payments: Api, operator: Api) -> None:
    payments.register()
    put(operator)
    assert payments.heartbeat(status="UP").json["status"] == "OUT_OF_SERVICE"
    assert payments.register(port=81).json["status"] == "OUT_OF_SERVICE"
    payments.deregister()
    assert payments.register().json["status"] == "OUT_OF_SERVICE"


def test_override_needs_a_service_and_no_instance(payments: Api, operator: Api) -> None:
    assert put(operator).code == "service_not_found"
    payments.register(instance_id="other")
    answer = put(operator)
    assert (answer.status, answer.json["instance"]) == (200, None)
    assert payments.register().json["status"] == "OUT_OF_SERVICE"


def test_override_repeated_appends_one_change(payments: Api, operator: Api) -> None:
    payments.register()
    put(operator)
    put(operator)
    assert Change.objects.filter(kind="status_changed").count() == 1


def test_override_cleared_restores_the_reported_status(payments: Api, operator: Api, reader: Api) -> None:
    payments.register()
    put(operator)
    for _ in range(2):
        answer = operator.call("DELETE", PATH)
        assert (answer.status, answer.json["override"], answer.json["instance"]["status"]) == (200, None, "UP")
    assert Change.objects.filter(kind="status_changed").count() == 2
    assert len(reader.get("/registry/services/web").json["instances"]) == 1


def test_override_past_its_end_is_ended_by_a_sweep(payments: Api, operator: Api) -> None:
    payments.register()
    assert put(operator, until=time_ahead(hours=1)).json["override"]["until"]
    assert sweep().overrides_ended == 0
    Override.objects.update(until=datetime.now(UTC) - timedelta(seconds=1))
    assert sweep().overrides_ended == 1
    assert payments.heartbeat().json["status"] == "UP"


def test_override_of_an_expired_instance_leaves_it_expired(payments: Api, operator: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    assert put(operator).json["instance"]["state"] == "expired"


def test_override_in_another_namespace_is_not_found(payments: Api, operator: Api) -> None:
    payments.register(namespace="shop")
    assert put(operator).code == "service_not_found"
    assert put(operator, PATH + "?namespace=shop").json["namespace"] == "shop"
