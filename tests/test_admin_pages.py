"""Lists, details and confirmation pages of the admin."""

import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from service_registry.access_models import Denial, User
from service_registry.access_rules import access_rules
from service_registry.models import Change, Instance, Override
from tests.client import Api, registration

INSTANCES = "/admin/service_registry/instance/"


@pytest.fixture
def admin(db: None) -> Client:
    user = User.objects.create(username="oscar", is_staff=True)
    user.groups.set(Group.objects.filter(name="registry-operators"))
    client = Client()
    client.force_login(user, "service_registry.identity.login_limits.PasswordBackend")
    return client


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("10.0.0.7", "grpc://10.0.0.7:8080"),
        ("2001:db8::7", "grpc://[2001:db8::7]:8080"),
        ("web.example.test", "grpc://web.example.test:8080"),
    ],
)
def test_url_of_an_instance_is_equal_in_api_and_admin(payments: Api, admin: Client, host: str, url: str) -> None:
    answer = payments.register(host=host, scheme="grpc")
    assert (answer.json["url"], Instance.objects.get().url) == (url, url)
    for page in (INSTANCES, f"{INSTANCES}{Instance.objects.get().pk}/change/"):
        assert f">{url}<" in admin.get(page).content.decode()


@pytest.mark.parametrize("page", ["service", "instance", "change"])
def test_search_takes_a_service_name_in_any_case(payments: Api, admin: Client, page: str) -> None:
    payments.register("Order-Service", "DESKTOP:ORDER-SERVICE:8080")
    payments.register("billing")
    found = admin.get(f"/admin/service_registry/{page}/?q=ORDER-SERVICE").content.decode()
    assert "order-service" in found
    assert "billing" not in found


@pytest.mark.parametrize("query", ["zone=a", "zone__isnull=True", "state=listed", "status=UP", "service__namespace=x"])
def test_list_takes_its_declared_filters(payments: Api, admin: Client, query: str) -> None:
    payments.register("web", "with-zone", zone="a")
    payments.register("web", "without-zone")
    page = admin.get(f"{INSTANCES}?{query}").content.decode()
    shown = {name for name in ("with-zone", "without-zone") if f">{name}<" in page}
    assert shown == {
        "zone=a": {"with-zone"},
        "zone__isnull=True": {"without-zone"},
        "service__namespace=x": set(),
    }.get(query, {"with-zone", "without-zone"})


@pytest.mark.parametrize(
    "query", ["zone__startswith=a", "tags__contains={x", "service__owners__contains=x", "pk=1", "x=1"]
)
def test_list_refuses_filters_that_it_does_not_declare(payments: Api, admin: Client, query: str) -> None:
    payments.register()
    assert admin.get(f"{INSTANCES}?{query}").status_code == 400


def test_user_list_tells_nothing_about_passwords(db: None) -> None:
    superuser = Client()
    superuser.force_login(
        User.objects.create_superuser("root"), "service_registry.identity.login_limits.PasswordBackend"
    )
    users = "/admin/service_registry/user/"
    assert superuser.get(f"{users}?password__startswith=!").status_code == 400
    for query, found in (("is_staff__exact=1", True), ("is_staff__exact=0", False), ("groups__id__exact=x", False)):
        assert (">root</a>" in superuser.get(f"{users}?{query}").content.decode()) is found


def test_instance_page_shows_its_incarnation(payments: Api, admin: Client) -> None:
    payments.register(incarnation="started-<b>-7")
    page = admin.get(f"{INSTANCES}{Instance.objects.get().pk}/change/").content.decode()
    assert "started-&lt;b&gt;-7" in page


@pytest.mark.parametrize("may_view", [True, False])
def test_who_acted_and_why_is_shown_with_view_change_alone(
    payments: Api, operator: Api, admin: Client, may_view: bool
) -> None:
    payments.register()
    operator.call("PUT", "/registry/instance/web/web-1/status", {"status": "DOWN", "reason": "disk"})
    if not may_view:
        Group.objects.get(name="registry-operators").permissions.remove(Permission.objects.get(codename="view_change"))
    overrides = "/admin/service_registry/override/"
    pages = {
        INSTANCES + f"{Instance.objects.get().pk}/change/": "payments@",
        overrides: ">disk<",
        overrides + f"{Override.objects.get().pk}/change/": ">disk<",
        overrides + "?o=5": "operator@",
        overrides + "?q=disk": "web-1",
        overrides + "?q=operator@": "web-1",
    }
    for path, shown in pages.items():
        answer = admin.get(path)
        assert (path, answer.status_code, shown in answer.content.decode()) == (path, 200, may_view)
    assert "web-1" in admin.get(overrides + "?q=web").content.decode()


@pytest.mark.parametrize("query", ["zone=%00", "status=%00", "service__namespace=%00"])
def test_filter_with_a_value_that_cannot_be_finds_nothing(payments: Api, admin: Client, query: str) -> None:
    payments.register()
    answer = admin.get(f"{INSTANCES}?{query}")
    assert (answer.status_code, "web-1" in answer.content.decode()) == (200, False)


def test_action_on_ids_that_cannot_be_is_refused(payments: Api, admin: Client) -> None:
    payments.register()
    answer = admin.post(INSTANCES, {"action": "remove", "_selected_action": "x"}, follow=True)
    assert "There are no such rows." in answer.content.decode()


def select(admin: Client, action: str, path: str = INSTANCES, **fields: str) -> str:
    """Select all instances on the list, and return the confirmation page of the action."""
    form = {"action": action, "_selected_action": list(Instance.objects.values_list("pk", flat=True))}
    response = admin.post(path, form | fields, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def confirm(admin: Client, page: str, path: str = INSTANCES, **fields: str) -> str:
    """Submit a confirmation page with some fields, and return the next page."""
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    response = admin.post(path, hidden | fields, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def post_action(admin: Client, action: str, **fields: str) -> str:
    return confirm(admin, select(admin, action), **fields)


@pytest.mark.parametrize("action", ["remove", "override"])
@pytest.mark.parametrize("reason", ["", "  ", "\xa0", "\u3000\u2003", "\u200b \u2060", "a\x1bb", "x" * 513])
def test_action_with_an_invalid_reason_repeats_the_form(payments: Api, admin: Client, action: str, reason: str) -> None:
    payments.register()
    page = post_action(admin, action, status="DOWN", reason=reason)
    assert "errorlist" in page
    assert set(Change.objects.values_list("kind", flat=True)) == {"log_started", "service_created", "registered"}


def test_override_until_a_past_time_reports_the_refusal(payments: Api, admin: Client) -> None:
    payments.register()
    page = post_action(admin, "override", status="DOWN", reason="x", until="2001-01-01 00:00")
    assert "0 of 1 done." in page
    assert '<li class="error">' in page


def test_confirmation_of_many_rows_reads_them_at_once(payments: Api, admin: Client) -> None:
    counts = []
    for size in (2, 40):
        payments.post("/registry/register", [registration("web", f"web-{number}") for number in range(size)])
        with CaptureQueriesContext(connection) as captured:
            page = select(admin, "remove")
        assert page.count("<li>default / web / web-") == size
        counts.append(len(captured))
    assert counts[0] == counts[1]


def remaining() -> set[str]:
    return set(Instance.objects.values_list("instance_id", flat=True))


@pytest.mark.parametrize("change", ["another registers", "one moves", "one is replaced", "one ends"])
def test_action_changes_the_rows_shown_and_unchanged_alone(payments: Api, admin: Client, change: str) -> None:
    for instance_id in ("one", "two"):
        payments.register("web", instance_id, zone="a")
    page = select(admin, "remove", f"{INSTANCES}?zone=a", select_across="1")
    assert "<h2>2 selected</h2>" in page
    if change == "another registers":
        payments.register("web", "three", zone="a")
    elif change == "one moves":
        payments.register("web", "one", zone="a", port=8081)
    else:
        payments.deregister("web", "one")
        if change == "one is replaced":
            payments.register("web", "one", zone="a")
    done = confirm(admin, page, f"{INSTANCES}?zone=a", select_across="1", reason="test")
    assert (
        remaining()
        == {
            "another registers": {"three"},
            "one moves": {"one"},
            "one is replaced": {"one"},
            "one ends": set(),
        }[change]
    )
    assert ("1 left alone" in done, "1 of 1 done" in done) == (change != "another registers",) * 2


def test_override_that_was_set_anew_is_not_cleared(payments: Api, operator: Api, admin: Client) -> None:
    payments.register()
    path, overrides = "/registry/instance/web/web-1/status", "/admin/service_registry/override/"
    operator.call("PUT", path, {"status": "DOWN", "reason": "disk"})
    page = select(admin, "clear", overrides, _selected_action=str(Override.objects.get().pk))
    operator.call("PUT", path, {"status": "OUT_OF_SERVICE", "reason": "fire"})
    done = confirm(admin, page, overrides, reason="replaced")
    assert "1 left alone" in done
    assert Override.objects.get().reason == "fire"


def test_confirmation_is_valid_for_its_action_and_user_alone(payments: Api, admin: Client) -> None:
    payments.register()
    page = select(admin, "remove")
    shown = re.search('name="shown" value="([^"]*)"', page)
    assert shown
    other = Client()
    other.force_login(User.objects.create_superuser("root"), "service_registry.identity.login_limits.PasswordBackend")
    for user, fields in (
        (admin, {"shown": ""}),
        (admin, {"shown": shown[1][:-1]}),
        (admin, {"action": "override", "status": "DOWN"}),
        (other, {}),
    ):
        assert "select the rows again" in confirm(user, page, **fields, reason="test")
    assert remaining() == {"web-1"}
    assert "1 of 1 done" in confirm(admin, page, reason="test")


def test_confirmation_repeated_with_a_wrong_reason_keeps_its_rows(payments: Api, admin: Client) -> None:
    payments.register("web", "one")
    page = confirm(admin, select(admin, "remove"), reason="")
    payments.register("web", "two")
    assert "1 of 1 done" in confirm(admin, page, reason="test")
    assert remaining() == {"two"}


def test_action_on_more_rows_than_one_page_shows_is_refused(payments: Api, admin: Client) -> None:
    for start in (0, 1000):
        numbers = range(start, start + 1000 if not start else start + 1)
        payments.post("/registry/register", [registration("web", f"web-{number}") for number in numbers])
    page = admin.post(INSTANCES, {"action": "remove", "_selected_action": "1", "select_across": "1"}, follow=True)
    assert "Select at most 1,000 rows." in page.content.decode()


DENIALS = "/admin/service_registry/denial/"


def deny(admin: Client, **fields: str) -> str:
    form = {"kind": "subject", "name": "mallory", "reason": "floods", "until_0": "", "until_1": ""} | fields
    return admin.post(f"{DENIALS}add/", form, follow=True).content.decode()


def test_denial_is_added_and_lifted_with_reasons_in_the_admin(admin: Client) -> None:
    assert "was added successfully" in deny(admin)
    denial = Denial.objects.get()
    assert (denial.name, denial.actor, denial.issuer) == ("mallory", "admin:oscar", settings.OIDC_ISSUER)
    page = select(admin, "lift", DENIALS, _selected_action=str(denial.pk))
    assert "<li>subject mallory</li>" in page
    for outcome in ("1 of 1 done", "has ended already"):
        assert outcome in confirm(admin, page, DENIALS, reason="mended")
    assert "floods" in admin.get(DENIALS).content.decode()
    page = admin.get(f"{DENIALS}{denial.pk}/change/").content.decode()
    assert re.findall(r'<div class="readonly">(floods|admin:oscar|mended)<', page) == [
        *("floods", "admin:oscar", "admin:oscar", "mended")
    ]
    assert "mallory" not in admin.get(f"{DENIALS}?state=in_force").content.decode()


@pytest.mark.parametrize("fields", [{"reason": " "}, {"until": "2001-01-01 00:00"}, {"name": ""}, {"kind": "all"}])
def test_denial_with_a_wrong_field_is_not_added(admin: Client, fields: dict[str, str]) -> None:
    assert "errorlist" in deny(admin, **fields)
    assert not Denial.objects.exists()


def test_operator_without_the_permission_cannot_deny(admin: Client) -> None:
    Group.objects.get(name="registry-operators").permissions.remove(Permission.objects.get(codename="deny_caller"))
    assert admin.get(f"{DENIALS}add/").status_code == 403
    assert "lift" not in admin.get(DENIALS).content.decode()


def test_session_of_a_denied_operator_is_refused_until_that_is_lifted(admin: Client) -> None:
    User.objects.filter(username="oscar").update(issuer=settings.OIDC_ISSUER, subject="oscar")
    denial = Denial.objects.create(
        kind="subject", issuer=settings.OIDC_ISSUER, name="oscar", reason="left", actor="admin:alice"
    )
    access_rules.invalidate()
    for path in ("/admin/", INSTANCES, "/registry/schema"):
        assert admin.get(path).status_code == 403
    assert "has denied you access" in admin.get("/admin/").content.decode()
    Denial.objects.filter(pk=denial.pk).update(lifted_at=Now())
    access_rules.invalidate()
    assert admin.get("/admin/").status_code == 200


def test_admin_shows_and_filters_permanent_instances(payments: Api, admin: Client, settings: Settings) -> None:
    settings.REGISTRY_HEALTH_NETWORKS = ["127.0.0.0/8"]
    judges: dict[str, tuple[dict[str, Any], str, str]] = {
        "leased": ({"ttl_seconds": 77}, "77 s", "lease"),
        "both": ({"health_check": {"type": "tcp"}}, "30 s", "lease and health check"),
        "checked": ({"lease": "none", "health_check": {"type": "tcp"}}, "permanent", "health check"),
        "unjudged": ({"lease": "none"}, "permanent", "nothing"),
    }
    for name, (fields, ttl, judge) in judges.items():
        payments.register("web", name, **fields)
        page = admin.get(f"{INSTANCES}{Instance.objects.get(instance_id=name).pk}/change/").content.decode()
        assert [f'<div class="readonly">{text}</div>' in page for text in (ttl, judge)] == [True, True], name
    for query, shown in (("permanent", {"checked", "unjudged"}), ("unjudged", {"unjudged"}), ("x", set(judges))):
        page = admin.get(f"{INSTANCES}?lease={query}").content.decode()
        assert {name for name in judges if f">{name}<" in page} == shown
    assert page.count(">permanent<") >= 2
