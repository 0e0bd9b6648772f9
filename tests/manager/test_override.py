"""Override: PUT and DELETE /registry/instance/{service_name}/{instance_id}/status."""

from datetime import UTC, datetime, timedelta
from typing import Any

from service_registry.caller import Caller
from service_registry.database.transactions import write_transaction
from service_registry.expiry.sweep import sweep
from service_registry.manager.override import LockedRow, clear_overrides, set_overrides
from service_registry.models import Change, Override
from service_registry.schemas import InstanceOverride
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


def test_override_of_an_operator_is_left_to_operators(payments: Api, operator: Api) -> None:
    payments.register()
    put(operator)
    for answer in (put(payments, status="UP"), payments.call("DELETE", PATH)):
        assert (answer.status, answer.code) == (403, "permission_denied")
        assert answer.json["permission"] == "operate_instance"
    assert payments.heartbeat().json["status"] == "OUT_OF_SERVICE"
    assert put(operator, status="DOWN").status == 200
    assert operator.call("DELETE", PATH).status == 200
    assert put(payments).status == 200


def test_override_of_an_owner_becomes_an_operators_when_that_sets_the_same(payments: Api, operator: Api) -> None:
    payments.register()
    put(payments)
    put(operator)
    assert payments.call("DELETE", PATH).status == 403


def test_override_that_an_operator_sets_beside_an_owner_is_not_replaced(payments: Api, operator: Api) -> None:
    """The statements repeat the condition: the owner was checked before the operator's override was there."""
    payments.register()
    put(payments)
    Override.objects.update(by_operator=True)
    owner = Caller("owner@issuer", frozenset({"payments"}), frozenset({"override_status"}))
    key = {"service_name": "web", "instance_id": "web-1"}
    row = LockedRow(Override.objects.get().service_id, ["payments"], None, until_ahead=True, by_operator=False)
    with write_transaction(lock_timeout="1s"):
        assert set_overrides([InstanceOverride(**key, status="UP", reason="back")], {0: row}, owner) == set()
        assert clear_overrides([InstanceOverride(**key)], {0: row}, owner) == set()
    assert Override.objects.get().status == "OUT_OF_SERVICE"


def test_clear_override_with_a_reason_keeps_it_with_the_change(payments: Api, operator: Api) -> None:
    payments.register()
    put(operator)
    assert operator.call("DELETE", f"{PATH}?reason=repaired").status == 200
    assert [change.reason for change in Change.objects.filter(kind="status_changed")] == ["disk is failing", "repaired"]
