"""POST /registry/register"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django import Settings

from service_registry import manager
from service_registry.caller import Caller
from service_registry.exceptions import NotOwner, QuotaExceeded
from service_registry.manager.batch import Submission
from service_registry.manager.quota import OwnerCounts
from service_registry.models import Change, Instance, Lease, Reservation, Service
from service_registry.schemas import Registration
from tests import ageing
from tests.client import Api, registration

FULL: dict[str, Any] = {
    "namespace": "shop",
    "scheme": "grpcs",
    "zone": "eu-1a",
    "weight": 7,
    "tags": ["b", "a"],
    "metadata": {"version": "1.2"},
    "ttl_seconds": 60,
    "status": "STARTING",
}


def kinds(**which: Any) -> list[str]:
    return list(Change.objects.filter(**which).order_by("id").values_list("kind", flat=True))


def test_it_creates_the_service_and_the_instance(payments: Api) -> None:
    answer = payments.register(**FULL)
    assert answer.status == 201
    assert {name: answer.json[name] for name in FULL} == FULL
    assert answer.json["url"] == "grpcs://10.0.0.1:8080"
    assert answer.json["state"] == "live"
    assert answer.json["lease"]["heartbeat_interval_seconds"] == 20
    assert Service.objects.get().owners == ["team-payments"]
    assert kinds(namespace="shop") == ["service_created", "registered"]
    change = Change.objects.get(kind="registered")
    assert change.actor.startswith("payments@")
    assert change.instance is not None
    assert {**change.instance, "lease": answer.json["lease"]} == answer.json


def test_it_fills_in_defaults(payments: Api) -> None:
    answer = payments.register(zone=None, ttl_seconds=None, metadata=None).json
    assert (answer["namespace"], answer["scheme"], answer["zone"], answer["weight"]) == ("default", "http", None, 100)
    assert (answer["tags"], answer["metadata"], answer["ttl_seconds"], answer["status"]) == ([], {}, 30, "UP")


def test_it_takes_the_configured_ttl_as_default(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_DEFAULT_TTL_SECONDS = 45
    assert payments.register().json["ttl_seconds"] == 45


def test_a_repeated_call_changes_nothing_and_logs_nothing(payments: Api) -> None:
    first = payments.register()
    again = payments.register()
    assert (first.status, again.status) == (201, 200)
    assert again.json["epoch"] == first.json["epoch"]
    assert again.json["lease"]["heartbeat_at"] > first.json["lease"]["heartbeat_at"]
    assert kinds(instance_id="web-1") == ["registered"]


@pytest.mark.parametrize(("field", "value"), [("host", "10.0.0.2"), ("port", 8081)])
def test_another_address_begins_an_epoch(payments: Api, field: str, value: Any) -> None:
    first = payments.register().json
    payments.heartbeat()
    moved = payments.register(**{field: value}).json
    assert moved["epoch"] > first["epoch"]
    assert moved["registered_at"] > first["registered_at"]
    assert Lease.objects.get().beats == 0
    change = Change.objects.get(kind="updated")
    assert change.changed is not None
    assert set(change.changed) == {field, "url", "epoch", "registered_at"}


def test_another_weight_keeps_the_epoch(payments: Api) -> None:
    first = payments.register().json
    assert payments.register(weight=5).json["epoch"] == first["epoch"]
    assert Change.objects.get(kind="updated").changed == ["weight"]


def test_a_field_left_out_falls_back_to_its_default(payments: Api) -> None:
    payments.register(**FULL)
    body = {name: value for name, value in registration(namespace="shop").items() if name != "metadata"}
    assert payments.post("/registry/register", body).json["metadata"] == {}


def test_another_status_is_a_status_change(payments: Api) -> None:
    payments.register()
    payments.register(status="DOWN")
    assert kinds(instance_id="web-1") == ["registered", "status_changed"]


def test_it_brings_an_expired_instance_back(payments: Api) -> None:
    from service_registry.expiry.sweep import sweep

    payments.register()
    ageing.age_leases(60)
    assert sweep().expired == 1
    assert payments.listed() == []
    answer = payments.register()
    assert (answer.status, answer.json["state"]) == (200, "live")
    assert kinds(instance_id="web-1") == ["registered", "expired", "recovered"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::FFFF:10.0.0.1", "10.0.0.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("Web-1.Example.COM", "web-1.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_it_keeps_hosts_in_one_spelling(payments: Api, sent: str, kept: str) -> None:
    assert payments.register(host=sent).json["host"] == kept


def test_an_ipv6_host_stands_in_brackets_in_the_url(payments: Api) -> None:
    assert payments.register(host="2001:db8::1").json["url"] == "http://[2001:db8::1]:8080"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("namespace", "Shop"),
        ("namespace", "a" * 64),
        ("service_name", "a..b"),
        ("service_name", "-web"),
        ("service_name", "web\n"),
        ("service_name", "a" * 129),
        ("instance_id", "_x"),
        ("instance_id", "a" * 256),
        ("instance_id", "web\u0000"),
        ("host", "127.1"),
        ("host", "0x7f.1"),
        ("host", "2130706433"),
        ("host", "fe80::1%eth0"),
        ("host", "http://a"),
        ("host", "bücher.example"),
        ("host", "a_b"),
        ("host", "\u212aexample.com"),
        ("host", "256.1.1.1"),
        ("host", ""),
        ("port", 0),
        ("port", 65536),
        ("port", -1),
        ("port", 80.0),
        ("port", "80"),
        ("port", True),
        ("port", 2**63),
        ("scheme", "ftp"),
        ("zone", "a b"),
        ("zone", ""),
        ("weight", -1),
        ("weight", 65536),
        ("tags", ["a", "a"]),
        ("tags", ["é"]),
        ("tags", ["a" * 256]),
        ("tags", [""]),
        ("tags", [str(number) for number in range(65)]),
        ("tags", "a"),
        ("metadata", {"a": 1}),
        ("metadata", {"a": None}),
        ("metadata", {"a": "x" * 513}),
        ("metadata", {"a": "ü" * 257}),
        ("metadata", {"a": "\u0085"}),
        ("metadata", {"a": "\ud800"}),
        ("metadata", {"a b": "x"}),
        ("metadata", {str(number): "x" for number in range(65)}),
        ("metadata", {str(number): "x" * 512 for number in range(17)}),
        ("metadata", []),
        ("ttl_seconds", 4),
        ("ttl_seconds", 86401),
        ("status", "up"),
        ("status", "EXPIRED"),
        ("owner", ""),
        ("health_check", {}),
    ],
)
def test_it_rejects_a_bad_field_by_name(payments: Api, field: str, value: Any) -> None:
    answer = payments.register(**{field: value})
    assert (answer.status, answer.code) == (400, "invalid")
    assert [path.partition(".")[0] for path in answer.json["errors"]] == [field]


@pytest.mark.parametrize("field", ["service_name", "instance_id", "host", "port"])
def test_it_rejects_a_missing_field_by_name(payments: Api, field: str) -> None:
    body = registration()
    del body[field]
    answer = payments.post("/registry/register", body)
    assert (answer.status, list(answer.json["errors"])) == (400, [field])


@pytest.mark.parametrize(
    "key", ["password", "db.PASSWORD", "userpwd", "api-key", "x/private-key", "access_key:x", "auth_token", "secret"]
)
def test_it_refuses_metadata_that_looks_secret(payments: Api, key: str) -> None:
    answer = payments.register(metadata={key: "sesame"})
    assert (answer.status, list(answer.json["errors"])) == (400, ["metadata"])
    assert key.encode() in answer.body
    assert b"sesame" not in answer.body


@pytest.mark.parametrize("key", ["tokens-left", "primary-key", "keyring", "secretary", "access-log", "passwordless"])
def test_it_takes_metadata_that_does_not(payments: Api, key: str) -> None:
    assert payments.register(metadata={key: "sesame"}).status == 201


def test_it_redacts_metadata_that_looks_secret_where_asked_to(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_SECRET_METADATA = "redact"
    assert payments.register(metadata={"password": "sesame"}).json["metadata"] == {"password": "[redacted]"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"web"',
        b"\xff",
        b'{"service_name": "a", "service_name": "b"}',
        b'{"port": NaN}',
        b'{"port": 1e400}',
        b"[" * 100_000,
        b"[" * 9 + b"]" * 9,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'{"port": ' + b"9" * 5000 + b"}",
    ],
)
def test_it_rejects_what_is_no_json_of_ours(payments: Api, raw: bytes) -> None:
    answer = payments.call("POST", "/registry/register", raw=raw)
    assert (answer.status, answer.code) == (400, "invalid")


def test_it_rejects_another_media_type(payments: Api) -> None:
    answer = payments.call("POST", "/registry/register", registration(), Content_Type="text/plain")
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


def test_it_rejects_a_large_object_and_a_large_body(payments: Api) -> None:
    large = payments.post("/registry/register", registration(instance_id="x" * 70_000))
    assert (large.status, large.code) == (413, "too_large")
    huge = payments.post("/registry/register", [registration(instance_id="x" * 1_100_000)])
    assert (huge.status, huge.code) == (413, "too_large")


def test_it_refuses_a_foreign_service(payments: Api, stranger: Api) -> None:
    payments.register()
    answer = stranger.register(instance_id="web-2")
    assert (answer.status, answer.code) == (403, "not_owner")
    assert Instance.objects.count() == 1


def test_a_reader_may_not(reader: Api) -> None:
    answer = reader.register()
    assert (answer.status, answer.code, answer.json["permission"]) == (403, "permission_denied", "register_instance")


def test_nobody_may_without_a_token(db: None) -> None:
    answer = Api().register()
    assert (answer.status, answer.code) == (401, "not_authenticated")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_a_token_comes_before_a_body_and_a_permission_before_both(reader: Api) -> None:
    assert Api(bearer="nonsense").call("POST", "/registry/register", raw=b"{").status == 401
    assert reader.call("POST", "/registry/register", raw=b"{").status == 403


def test_several_groups_have_to_name_the_owner(db: None) -> None:
    api = Api("registry-services", "team-a", "team-b")
    answer = api.register()
    assert (answer.status, answer.code) == (400, "owner_required")
    assert api.register(owner="team-b").status == 201
    assert Service.objects.get().owners == ["team-b"]
    assert api.register(instance_id="web-2").status == 201


@pytest.mark.parametrize("owner", ["team-z", "registry-services", "offline_access", "default-roles-shop"])
def test_the_owner_is_a_team_of_the_caller(db: None, owner: str) -> None:
    api = Api("registry-services", "team-a", "offline_access", "default-roles-shop")
    answer = api.register(owner=owner)
    assert (answer.status, answer.code) == (403, "not_owner")
    assert api.register().status == 201


def test_a_caller_without_a_team_claims_nothing(db: None) -> None:
    answer = Api("registry-services", "uma_authorization").register()
    assert (answer.status, answer.code) == (403, "not_owner")
    assert not Service.objects.exists()


def test_services_may_have_to_be_provisioned(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_FIRST_REGISTRATION = "provisioned"
    answer = payments.register()
    assert (answer.status, answer.code) == (403, "permission_denied")


def test_an_owner_near_its_quota_is_counted_anew(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER = 10
    of_another_process = OwnerCounts()
    assert of_another_process.get({"team-payments": 1}) == {"team-payments": 0}
    for number in range(8):
        payments.register(instance_id=f"i-{number}")
    assert of_another_process.get({"team-payments": 1}) == {"team-payments": 0}
    assert of_another_process.get({"team-payments": 9}) == {"team-payments": 8}


def test_an_owner_has_a_quota(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER = 2
    answer = payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(3)])
    assert [result["status"] for result in answer.json["results"]] == [201, 201, 403]
    refused = payments.register("other")
    assert (refused.status, refused.code) == (403, "quota_exceeded")
    assert [service.name for service in Service.objects.all()] == ["web"]
    assert payments.register(instance_id="web-0").status == 200


def test_an_array_judges_each_item_on_its_own(payments: Api, stranger: Api) -> None:
    stranger.register("foreign")
    answer = payments.post(
        "/registry/register",
        [
            registration(instance_id="web-1"),
            registration("foreign", "x"),
            registration(instance_id="web-2", port=0),
            registration(instance_id="web-1", port=81),
            registration(instance_id="web-3"),
            17,
        ],
    )
    results = answer.json["results"]
    assert [result["status"] for result in results] == [201, 403, 400, 400, 201, 400]
    assert [result.get("error", {}).get("code") for result in results] == [
        None,
        "not_owner",
        "invalid",
        "invalid",
        None,
        "invalid",
    ]
    assert list(results[2]["error"]["errors"]) == ["port"]
    assert results[3]["error"]["errors"]["instance_id"][0]["message"] == "repeats item 0"
    assert payments.listed() == ["web-1", "web-3"]


@pytest.mark.parametrize("length", [0, 1001])
def test_an_array_has_one_to_a_thousand_items(payments: Api, length: int) -> None:
    answer = payments.post("/registry/register", [{}] * length)
    assert (answer.status, answer.code) == (400, "invalid")


def test_an_array_of_failures_is_still_200(payments: Api) -> None:
    answer = payments.post("/registry/register", [{}, {}])
    assert (answer.status, [result["status"] for result in answer.json["results"]]) == (200, [400, 400])


def test_what_was_sent_never_comes_back_in_a_problem(payments: Api) -> None:
    made_up: dict[str, Any] = {"sesame!": 1}
    answer = payments.register(host="sesame!", zone="sesame!", metadata={"a": "sesame\u0000"}, **made_up)
    assert answer.status == 400
    assert b"sesame" not in answer.body


def test_a_service_without_an_accepted_instance_is_not_left_behind(payments: Api, settings: Settings) -> None:
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


def test_a_registration_is_the_last_word_about_the_status(payments: Api) -> None:
    payments.register()
    for beat in range(7):
        payments.heartbeat(status="UP" if beat % 2 else "DOWN")
    assert Instance.objects.get().pending_status == "DOWN"
    payments.register(status="UP")
    assert Instance.objects.get().pending_status is None


@pytest.mark.parametrize("name", ["health_check", "bogus"])
def test_a_null_in_an_unknown_field_is_still_unknown(payments: Api, name: str) -> None:
    unknown: dict[str, Any] = {name: None}
    answer = payments.register(**unknown)
    assert (answer.status, list(answer.json["errors"])) == (400, [name])


def test_an_item_with_many_errors_is_answered_briefly(payments: Api) -> None:
    made_up: dict[str, Any] = {f"field-{number}": 1 for number in range(100)}
    assert len(payments.register(**made_up).json["errors"]) == 20


@pytest.mark.parametrize("verb", ["register", "heartbeat", "deregister"])
@pytest.mark.parametrize("query", ["x=1", "namespace=test", "metadata.a=b", "service_name=web", "x"])
def test_a_verb_takes_no_parameters_in_its_query(payments: Api, verb: str, query: str) -> None:
    payments.register()
    body = registration() if verb == "register" else {"service_name": "web", "instance_id": "web-1"}
    for sent in (body, [body]):
        answer = payments.post(f"/registry/{verb}?{query}", sent)
        assert (answer.status, answer.code) == (400, "invalid")
        assert [name.partition(".")[0] for name in answer.json["errors"]] == [query.partition("=")[0].partition(".")[0]]
    assert payments.listed() == ["web-1"]


def caller(*groups: str) -> Caller:
    return Caller(f"{groups[0]}@tests", frozenset(groups), frozenset({"register_instance"}))


def test_the_owner_of_a_reserved_name_gets_it_beside_strangers_in_one_batch(db: None) -> None:
    Reservation.objects.create(
        namespace="default", name="kept", owners=["team-a"], until=datetime.now(UTC) + timedelta(days=1)
    )
    asked = [
        Submission(Registration(**registration("kept", "foreign")), caller("team-b")),
        Submission(Registration(**registration("kept", "own")), caller("team-a")),
    ]
    foreign, own = manager.register_for_callers(asked, lock_timeout="1s")
    assert isinstance(foreign, NotOwner)
    assert isinstance(own, manager.Registered)
    assert (Change.objects.get(kind="service_created").actor) == "team-a@tests"


def test_a_new_service_that_comes_to_nothing_for_one_is_made_for_the_next(db: None, settings: Settings) -> None:
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER = 1
    manager.register([Registration(**registration("full", "i-1"))], caller("team-a"))
    asked = [
        Submission(Registration(**registration("new", "over")), caller("team-a")),
        Submission(Registration(**registration("new", "within")), caller("team-b")),
        Submission(Registration(**registration("full", "i-1")), caller("team-a")),
    ]
    over, within, again = manager.register_for_callers(asked, lock_timeout="1s")
    assert isinstance(over, QuotaExceeded)
    assert isinstance(within, manager.Registered)
    assert within.created
    assert isinstance(again, manager.Registered)
    assert not again.created
