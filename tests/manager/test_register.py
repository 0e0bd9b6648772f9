"""Register: POST /registry/register."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from pytest_django import Settings

from service_registry import manager
from service_registry.caller import Caller
from service_registry.exceptions import NotOwner, QuotaExceeded
from service_registry.expiry.sweep import sweep
from service_registry.manager.batch import Submission
from service_registry.models import Change, Instance, Lease, Override, Reservation, Service
from service_registry.schemas import Registration, ServiceOwners
from tests import ageing
from tests.client import Api, registration

ALL_OPTIONAL: dict[str, Any] = {
    "namespace": "shop",
    "scheme": "grpcs",
    "zone": "eu-1a",
    "weight": 7,
    "tags": ["b", "a"],
    "metadata": {"version": "1.2"},
    "ttl_seconds": 60,
    "status": "STARTING",
}


def kinds(**filters: Any) -> list[str]:
    return list(Change.objects.filter(**filters).order_by("id").values_list("kind", flat=True))


def test_register_of_a_new_name_creates_the_service_and_the_instance(payments: Api) -> None:
    answer = payments.register(**ALL_OPTIONAL)
    assert answer.status == 201
    assert {name: answer.json[name] for name in ALL_OPTIONAL} == ALL_OPTIONAL
    assert answer.json["url"] == "grpcs://10.0.0.1:8080"
    assert answer.json["state"] == "live"
    assert answer.json["lease"]["heartbeat_interval_seconds"] == 20
    assert Service.objects.get().owners == ["team-payments"]
    assert kinds(namespace="shop") == ["service_created", "registered"]
    change = Change.objects.get(kind="registered")
    assert change.actor.startswith("payments@")
    assert change.instance is not None
    assert {**change.instance, "lease": answer.json["lease"]} == answer.json


def test_register_with_absent_or_null_fields_uses_defaults(payments: Api) -> None:
    answer = payments.register(zone=None, ttl_seconds=None, metadata=None).json
    assert (answer["namespace"], answer["scheme"], answer["zone"], answer["weight"]) == ("default", "http", None, 100)
    assert (answer["tags"], answer["metadata"], answer["ttl_seconds"], answer["status"]) == ([], {}, 30, "UP")


def test_register_without_a_ttl_uses_the_configured_one(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_DEFAULT_TTL_SECONDS = 45
    assert payments.register().json["ttl_seconds"] == 45


def test_register_repeated_appends_no_change(payments: Api) -> None:
    first = payments.register()
    again = payments.register()
    assert (first.status, again.status) == (201, 200)
    assert again.json["epoch"] == first.json["epoch"]
    assert again.json["lease"]["heartbeat_at"] > first.json["lease"]["heartbeat_at"]
    assert kinds(instance_id="web-1") == ["registered"]


@pytest.mark.parametrize(("field", "value"), [("host", "10.0.0.2"), ("port", 8081)])
def test_register_with_another_address_begins_an_epoch(payments: Api, field: str, value: Any) -> None:
    first = payments.register().json
    payments.heartbeat()
    moved = payments.register(**{field: value}).json
    assert moved["epoch"] > first["epoch"]
    assert moved["registered_at"] > first["registered_at"]
    assert Lease.objects.get().beats == 0
    change = Change.objects.get(kind="updated")
    assert change.changed is not None
    assert set(change.changed) == {field, "url", "epoch", "registered_at"}


FULL = registration(
    scheme="https",
    zone="eu-1a",
    weight=7,
    tags=["blue", "http2"],
    metadata={"version": "1", "note": 'an \N{LATIN SMALL LETTER E WITH ACUTE} and "quotes"'},
    ttl_seconds=45,
    status="DOWN",
    incarnation="process 1",
)


def test_register_with_nothing_new_renews_the_lease_alone(payments: Api) -> None:
    first = payments.register(**FULL).json
    payments.heartbeat()
    changes, before = Change.objects.count(), Instance.objects.values().get()
    again = payments.register(**FULL)
    assert again.status == 200
    assert again.json["lease"]["heartbeat_at"] > first["lease"]["heartbeat_at"]
    assert without(again.json, "lease") == without(first, "lease")
    found = payments.get("/registry/instance/web/web-1").json
    assert again.json == without(found, "registered_by", "judged_by", "health_check", "last_check")
    assert (Change.objects.count(), Instance.objects.values().get()) == (changes, before)
    assert Lease.objects.get().beats == 1


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in names}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "10.0.0.2"),
        ("port", 81),
        ("scheme", "http"),
        ("zone", None),
        ("zone", "eu-1b"),
        ("weight", 8),
        ("tags", []),
        ("tags", ["http2", "blue"]),
        ("metadata", {}),
        ("metadata", {"version": "2"}),
        ("ttl_seconds", 46),
        ("status", "UP"),
        ("incarnation", None),
        ("incarnation", "process 2"),
    ],
)
def test_register_with_one_field_changed_is_written(payments: Api, field: str, value: Any) -> None:
    payments.register(**FULL)
    changes = Change.objects.count()
    changed = payments.register(**FULL | {field: value})
    assert Change.objects.count() == changes + 1
    assert payments.register(**FULL | {field: value}).status == 200
    assert Change.objects.count() == changes + 1
    if field != "incarnation":
        assert changed.json["reported_status" if field == "status" else field] == value


def test_register_with_nothing_new_by_another_team_is_forbidden(payments: Api, other_team: Api) -> None:
    payments.register(**FULL)
    before = Lease.objects.get().heartbeat_at
    assert other_team.register(**FULL).code == "not_owner"
    assert Lease.objects.get().heartbeat_at == before


def test_register_with_nothing_new_under_an_override_shows_it(payments: Api) -> None:
    payments.register(**FULL)
    Override.objects.create(
        service=Service.objects.get(), instance_id="web-1", status="UP", actor="operator", reason="calm"
    )
    again = payments.register(**FULL).json
    assert (again["status"], again["reported_status"], again["override"]["status"]) == ("UP", "DOWN", "UP")


def test_register_with_another_weight_keeps_the_epoch(payments: Api) -> None:
    first = payments.register().json
    assert payments.register(weight=5).json["epoch"] == first["epoch"]
    assert Change.objects.get(kind="updated").changed == ["weight"]


def test_register_without_a_field_restores_its_default(payments: Api) -> None:
    payments.register(**ALL_OPTIONAL)
    body = {name: value for name, value in registration(namespace="shop").items() if name != "metadata"}
    assert payments.post("/registry/register", body).json["metadata"] == {}


def test_register_with_another_status_is_a_status_change(payments: Api) -> None:
    payments.register()
    payments.register(status="DOWN")
    assert kinds(instance_id="web-1") == ["registered", "status_changed"]


def test_register_of_an_expired_instance_restores_it(payments: Api) -> None:
    payments.register()
    ageing.age_leases(60)
    assert sweep().expired == 1
    assert payments.listed() == []
    answer = payments.register()
    assert (answer.status, answer.json["state"]) == (200, "live")
    assert kinds(instance_id="web-1") == ["registered", "expired", "recovered"]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::FFFF:10.0.0.1", "10.0.0.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("Web-1.Example.COM", "web-1.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("web-1.example.com.", "web-1.example.com"),
        ("WIN_SRV_04", "win_srv_04"),
        ("_dmz.shop_worker_1_", "_dmz.shop_worker_1_"),
    ],
)
def test_register_stores_a_host_in_canonical_form(payments: Api, sent: str, stored: str) -> None:
    assert payments.register(host=sent).json["host"] == stored


def test_register_with_an_ipv6_host_has_brackets_in_the_url(payments: Api) -> None:
    assert payments.register(host="2001:db8::1").json["url"] == "http://[2001:db8::1]:8080"


def test_register_with_an_underscore_in_the_host_has_it_in_the_url(payments: Api) -> None:
    assert payments.register(host="Shop_Worker_1").json["url"] == "http://shop_worker_1:8080"


@pytest.mark.parametrize("model", [Service, Reservation])
def test_database_refuses_service_names_in_upper_case(db: None, model: Any) -> None:
    extra = {"until": "2999-01-01T00:00:00Z"} if model is Reservation else {}
    with pytest.raises(IntegrityError, match="name_in_lower_case"), transaction.atomic():
        model.objects.create(namespace="default", name="Web", owners=["team"], **extra)


@pytest.mark.parametrize("key", ["tokens-left", "primary-key", "keyring", "secretary", "access-log", "passwordless"])
def test_register_with_harmless_metadata_is_accepted(payments: Api, key: str) -> None:
    assert payments.register(metadata={key: "sesame"}).status == 201


def test_register_with_secret_metadata_redacts_it_where_configured(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_SECRET_METADATA = "redact"
    assert payments.register(metadata={"password": "sesame"}).json["metadata"] == {"password": "[redacted]"}


def test_register_by_several_groups_requires_an_owner(db: None) -> None:
    api = Api("registry-services", "team-a", "team-b")
    answer = api.register()
    assert (answer.status, answer.code) == (400, "owner_required")
    assert api.register(owner="team-b").status == 201
    assert Service.objects.get().owners == ["team-b"]
    assert api.register(instance_id="web-2").status == 201


def test_register_of_a_new_name_where_provisioned_is_forbidden(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_FIRST_REGISTRATION = "provisioned"
    answer = payments.register()
    assert (answer.status, answer.code) == (403, "permission_denied")


def test_quota_of_an_owner_is_counted_again_after_deregistrations_and_handovers(
    payments: Api, settings: Settings
) -> None:
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER = 2
    for number in range(6):
        assert payments.register(instance_id=f"i-{number}").status == 201
        payments.deregister(instance_id=f"i-{number}")
    foreign = Api("registry-services", "team-b")
    assert [foreign.register("theirs", f"i-{number}").status for number in range(2)] == [201, 201]
    given = ServiceOwners(namespace="default", name="theirs", owners=["team-payments"], reason=None)
    manager.set_owners([given], Caller("admin", frozenset(), frozenset({"manage_service"})))
    assert payments.register(instance_id="over").code == "quota_exceeded"
    assert foreign.register("ours", "again").status == 201


def test_register_over_the_quota_of_services_creates_none(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_MAX_SERVICES_PER_OWNER = 2
    items = [registration(name, instance_id) for name in ("a", "b", "c") for instance_id in ("i-1", "i-2")]
    statuses = [result["status"] for result in payments.post("/registry/register", items).json["results"]]
    assert statuses == [201, 201, 201, 201, 403, 403]
    refused = payments.register("d")
    assert (refused.status, refused.code) == (403, "quota_exceeded")
    assert "REGISTRY_MAX_SERVICES_PER_OWNER" in refused.json["detail"]
    assert payments.register("a", "i-3").status == 201
    assert {service.name for service in Service.objects.all()} == {"a", "b"}


def test_register_over_the_quota_of_an_owner_is_forbidden(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER = 2
    answer = payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(3)])
    assert [result["status"] for result in answer.json["results"]] == [201, 201, 403]
    refused = payments.register("other")
    assert (refused.status, refused.code) == (403, "quota_exceeded")
    assert [service.name for service in Service.objects.all()] == ["web"]
    assert payments.register(instance_id="web-0").status == 200


def test_register_array_with_a_repeated_key_names_the_first_item(payments: Api) -> None:
    first, second = payments.post("/registry/register", [registration(), registration(port=81)]).json["results"]
    assert (first["status"], second["status"]) == (201, 400)
    assert second["error"]["errors"]["instance_id"][0]["message"] == "repeats item 0"


def test_register_without_an_accepted_instance_leaves_no_service(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER = 1
    api = Api("registry-services", "team-payments", "team-b")
    items = [
        registration("new", "refused", owner="nope"),
        registration("new", "one", owner="team-b"),
        registration("new", "two"),
        registration("other", "three", owner="team-b"),
    ]
    statuses = [result["status"] for result in api.post("/registry/register", items).json["results"]]
    assert statuses == [403, 201, 403, 403]
    full = [registration("third", "refused", owner="nope"), registration("third", "four", owner="team-b")]
    assert [result["status"] for result in api.post("/registry/register", full).json["results"]] == [403, 403]
    assert [service.name for service in Service.objects.all()] == ["new"]


@pytest.mark.parametrize("status", ["UP", "DOWN"])
def test_register_discards_a_pending_status(payments: Api, status: str) -> None:
    payments.register()
    for beat in range(8):
        payments.heartbeat(status="UP" if beat % 2 else "DOWN")
    assert Instance.objects.get().pending_status == "UP"
    payments.register(status=status)
    assert (Instance.objects.get().reported_status, Instance.objects.get().pending_status) == (status, None)


def test_register_with_many_errors_returns_twenty(payments: Api) -> None:
    made_up: dict[str, Any] = {f"field-{number}": 1 for number in range(100)}
    assert len(payments.register(**made_up).json["errors"]) == 20


def caller(*groups: str) -> Caller:
    return Caller(f"{groups[0]}@tests", frozenset(groups), frozenset({"register_instance"}))


def test_register_of_a_reserved_name_beside_others_goes_to_its_owner(db: None) -> None:
    Reservation.objects.create(
        namespace="default", name="reserved", owners=["team-a"], until=datetime.now(UTC) + timedelta(days=1)
    )
    submissions = [
        Submission(Registration(**registration("reserved", "foreign")), caller("team-b")),
        Submission(Registration(**registration("reserved", "own")), caller("team-a")),
    ]
    foreign, own = manager.register_for_callers(submissions, lock_timeout="1s")
    assert isinstance(foreign, NotOwner)
    assert isinstance(own, manager.Registered)
    assert (Change.objects.get(kind="service_created").actor) == "team-a@tests"


def test_register_after_a_failed_claim_in_the_batch_creates_the_service(db: None, settings: Settings) -> None:
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER = 1
    manager.register([Registration(**registration("full", "i-1"))], caller("team-a"))
    submissions = [
        Submission(Registration(**registration("new", "over")), caller("team-a")),
        Submission(Registration(**registration("new", "within")), caller("team-b")),
        Submission(Registration(**registration("full", "i-1")), caller("team-a")),
    ]
    over, within, again = manager.register_for_callers(submissions, lock_timeout="1s")
    assert isinstance(over, QuotaExceeded)
    assert isinstance(within, manager.Registered)
    assert within.created
    assert isinstance(again, manager.Registered)
    assert not again.created
