"""GET /registry/services/{name}/health and GET /registry/instance/{service_name}/{instance_id}/health"""

from datetime import UTC, datetime
from typing import Any

import pytest

from service_registry.expiry.sweep import sweep
from service_registry.health.due import follow_registrations
from service_registry.health_models import HealthStanding
from service_registry.models import Change, Lease
from service_registry.queries.health import INSTANCES_SHOWN
from tests import ageing
from tests.client import Api
from tests.health.test_record import CHECK, discovered, run

COUNTS = ("healthy", "warning", "critical", "unknown", "protected", "expired", "total")
SERVICE, INSTANCE = "/registry/services/web/health", "/registry/instance/web/web-1/health"


def counts(api: Api) -> dict[str, int]:
    """Return the counts of the service that are not 0."""
    document = api.get(SERVICE).json
    return {name: document[name] for name in COUNTS if document[name]}


def reasons(api: Api) -> dict[str, tuple[str, str, str | None]]:
    """Return reason, status and health of the instances that are not healthy, by id."""
    shown = api.get(SERVICE).json["instances"]
    return {each["instance_id"]: (each["reason"], each["status"], each["health"]) for each in shown}


def test_counts_and_reasons_of_a_mixed_service(payments: Api, operator: Api, reader: Api) -> None:
    payments.register(instance_id="expired")
    ageing.age_leases(600)
    sweep()
    payments.register(instance_id="critical", health_check=CHECK)
    run("ff")
    payments.register(instance_id="unchecked", health_check=CHECK)
    payments.register(instance_id="plain")
    payments.register(instance_id="starting", status="STARTING")
    payments.register(instance_id="overridden")
    override = {"status": "OUT_OF_SERVICE", "reason": "disk"}
    operator.call("PUT", "/registry/instance/web/overridden/status", override)
    Lease.objects.filter(instance__instance_id="plain").update(protected_at=datetime.now(UTC), protected_by="fleet")
    wanted = {"healthy": 2, "critical": 1, "unknown": 1, "protected": 1, "expired": 1, "total": 6}
    assert counts(reader) == wanted
    assert reasons(reader) == {
        "critical": ("health", "DOWN", "critical"),
        "overridden": ("override", "OUT_OF_SERVICE", None),
        "starting": ("reported", "STARTING", None),
        "expired": ("expired", "UP", None),
    }
    assert list(reasons(reader))[-1] == "expired"
    assert len(discovered(reader)) == 2


def test_warning_instance_is_healthy(payments: Api, reader: Api) -> None:
    payments.register(health_check=CHECK)
    run("w")
    assert (counts(reader), reasons(reader)) == ({"healthy": 1, "warning": 1, "total": 1}, {})


def test_critical_instance_whose_override_is_up_is_healthy(payments: Api, operator: Api, reader: Api) -> None:
    payments.register(health_check=CHECK)
    operator.call("PUT", "/registry/instance/web/web-1/status", {"status": "UP", "reason": "checks are wrong"})
    run("ff")
    assert counts(reader) == {"healthy": 1, "critical": 1, "total": 1}


def test_health_of_an_expired_instance_is_counted_as_expired_alone(payments: Api, reader: Api) -> None:
    payments.register(health_check=CHECK)
    run("ff")
    ageing.age_leases(600)
    sweep()
    assert counts(reader) == {"expired": 1, "total": 1}


@pytest.mark.parametrize(("require", "status"), [(None, 200), (0, 200), (1, 200), (2, 503), (10_000, 503)])
def test_service_is_unavailable_with_fewer_healthy_instances_than_required(
    payments: Api, reader: Api, require: int | None, status: int
) -> None:
    payments.register(instance_id="a")
    payments.register(instance_id="b", status="DOWN")
    answer = reader.get(SERVICE if require is None else f"{SERVICE}?require={require}")
    assert (answer.status, answer.headers["content-type"], answer.json["healthy"]) == (status, "application/json", 1)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert answer.json == reader.get(SERVICE).json


def test_health_of_an_unknown_service_is_not_found(payments: Api, reader: Api) -> None:
    assert reader.get(SERVICE).code == "service_not_found"
    payments.register(namespace="test")
    assert reader.get(f"{SERVICE}?require=1").code == "service_not_found"
    assert reader.get(f"{SERVICE}?namespace=test&require=1").status == 200


def test_index_is_that_of_the_services_last_change(payments: Api, reader: Api) -> None:
    payments.register()
    index = reader.get("/registry/services/web").json["index"]
    payments.register("other")
    answer = reader.get(SERVICE)
    assert (answer.json["index"], reader.get(INSTANCE).json["index"]) == (index, index)
    assert answer.headers["x-registry-index"] != index


def test_service_shows_a_bounded_number_of_instances(payments: Api, reader: Api) -> None:
    ids = [f"i-{number:03}" for number in range(INSTANCES_SHOWN + 1)]
    keys = [{"service_name": "web", "host": "10.0.0.1", "port": 80, "instance_id": each} for each in ids]
    payments.post("/registry/register", [key | {"status": "DOWN"} for key in keys])
    document = reader.get(SERVICE).json
    assert ([each["instance_id"] for each in document["instances"]], document["truncated"]) == (ids[:-1], True)
    payments.post("/registry/register", keys[:1])
    document = reader.get(SERVICE).json
    assert ([each["instance_id"] for each in document["instances"]], document["truncated"]) == (ids[1:], False)


def instance_health(api: Api, query: str = "") -> tuple[int, dict[str, Any]]:
    answer = api.get(f"{INSTANCE}{query}")
    return answer.status, answer.json


def test_instance_shows_its_last_check(payments: Api, reader: Api) -> None:
    payments.register(health_check=CHECK)
    follow_registrations()
    status, document = instance_health(reader, "?require=1")
    assert (status, document["health"], document["last_check"], document["flapping"]) == (200, "unknown", None, False)
    run("pff")
    status, document = instance_health(reader, "?require=1")
    last = document["last_check"]
    assert (status, document["reason"], document["status"], document["health"]) == (503, "health", "DOWN", "critical")
    assert (last["level"], last["cause"], last["seconds"], "output" in last) == ("critical", "refused", 0.01, False)
    assert datetime.fromisoformat(last["checked_at"]) == HealthStanding.objects.get().checked_at
    assert instance_health(reader)[0] == 200
    run("pp")
    assert instance_health(reader, "?require=1")[0] == 200


def test_result_of_the_process_before_is_not_shown(payments: Api, reader: Api) -> None:
    payments.register(health_check=CHECK)
    run("ff")
    payments.register(health_check=CHECK, port=81)
    document = instance_health(reader)[1]
    assert (document["health"], document["last_check"], document["reason"]) == ("unknown", None, None)


def test_result_of_a_check_that_ended_is_not_shown(payments: Api, reader: Api) -> None:
    payments.register(health_check=CHECK)
    run("p")
    payments.register()
    assert instance_health(reader)[1]["last_check"] is None


def test_flapping_instance_says_so(payments: Api, reader: Api) -> None:
    payments.register(health_check=CHECK)
    run("ffppff")
    assert instance_health(reader)[1]["flapping"] is True


def test_since_is_the_last_change_of_status_health_or_state(payments: Api, reader: Api) -> None:
    def since() -> datetime:
        return datetime.fromisoformat(instance_health(reader)[1]["since"])

    def last_change() -> datetime:
        return Change.objects.order_by("-id")[0].at

    payments.register()
    assert since() == last_change()
    before = last_change()
    payments.register(weight=1)
    assert since() == before
    payments.register(health_check=CHECK)
    assert since() == last_change() > before
    run("p")
    assert since() == last_change()
    ageing.age_leases(600)
    sweep()
    assert since() == last_change()
    Change.objects.exclude(pk=Change.objects.order_by("-id")[0].pk).delete()
    Change.objects.update(instance_id="another")
    assert instance_health(reader)[1]["since"] is None


def test_expired_instance_gets_no_traffic(payments: Api, reader: Api) -> None:
    payments.register()
    ageing.age_leases(600)
    sweep()
    status, document = instance_health(reader, "?require=1")
    assert (status, document["reason"], document["state"], document["status"]) == (503, "expired", "expired", "UP")


def test_health_of_a_missing_instance_is_not_found(payments: Api, reader: Api) -> None:
    assert reader.get(INSTANCE).code == "service_not_found"
    payments.register()
    payments.deregister()
    assert reader.get(f"{INSTANCE}?require=1").json["reason"] == "deregistered"


PRIVATE = CHECK | {"path": "/health?deep=1", "headers": {"X-Tenant": "shop"}}


@pytest.mark.parametrize("path", ["/registry/instance/web/web-1", "/registry/instance/web-1"])
def test_instance_shows_output_path_and_headers_to_owners_and_operators_alone(
    payments: Api, other_team: Api, reader: Api, operator: Api, path: str
) -> None:
    payments.register(health_check=PRIVATE)
    run("f")
    for api in (payments, operator):
        document = api.get(path).json
        shown, last = document["health_check"], document["last_check"]
        assert (shown["path"], shown["headers"]) == (PRIVATE["path"], PRIVATE["headers"])
        assert (shown["interval_seconds"], shown["timeout_seconds"]) == (10, 2)
        assert (last["level"], last["cause"], last["output"]) == ("critical", "refused", "refused")
    for api in (reader, other_team):
        document = api.get(path).json
        assert document["health_check"]["type"] == "http"
        assert {"path", "headers"}.isdisjoint(document["health_check"])
        assert set(document["last_check"]) == {"checked_at", "level", "cause", "seconds"}
    for api in (payments, reader):
        assert "output" not in api.get(INSTANCE).json["last_check"]


def test_instance_shows_no_result_of_the_process_before(payments: Api) -> None:
    payments.register(health_check=CHECK)
    run("ff")
    payments.register(health_check=CHECK, port=81)
    assert payments.get("/registry/instance/web/web-1").json["last_check"] is None
