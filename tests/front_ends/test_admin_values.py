"""Hostile values in addresses, forms and cookies of the admin, from a signed-in superuser at every front end."""

import re
from collections.abc import Callable, Iterator
from itertools import product

import psycopg
import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.urls import reverse

from tests.client import registration, token
from tests.front_ends.client import FrontEnd, Request
from tests.front_ends.operator import Operator, add_superuser

MODELS = [model for model in apps.get_models() if admin.site.is_registered(model)]
VALUES = ("%00", "{x", "[", "9" * 30)
IDS = ("%00", "x", "9" * 30, "_00", "1_2F", "%ED%A0%80")
# Parameters of every list, then filters of single ones and lookups that they do not declare.
PARAMETERS = ("q", "p", "o", "_popup", "_to_field", "_facets", "_changelist_filters", "id__in", "nothing")
PARAMETERS_OF = {
    "service": ("namespace", "owners__contains"),
    "instance": ("state", "status", "zone", "zone__isnull", "service__namespace", "tags__contains", "metadata__a__b"),
    "override": ("status", "until__gte"),
    "change": ("kind", "mark__regex", "at__year"),
    "denial": ("state", "kind"),
    "user": ("is_staff__exact", "groups__id__exact", "password__startswith"),
}
INSTANCES = "/admin/service_registry/instance/"
KEY = {"service_name": "admin-values", "instance_id": "a"}


@pytest.fixture(scope="module")
def signed_in(database_url: str, fronts: tuple[FrontEnd, FrontEnd]) -> list[Operator]:
    """Operators at both front ends, over a database with a row of each model."""
    add_superuser(database_url)
    operators = [Operator(front) for front in fronts]
    for operator in operators:
        operator.sign_in()
    front, bearer = fronts[0], token("registry-admins", "team", subject="team")
    assert front.ask(Request("POST", "/registry/register", registration(**KEY), bearer)).status == 201
    path, override = "/registry/instance/admin-values/a/status", {"status": "DOWN", "reason": "test"}
    assert front.ask(Request("PUT", path, override, bearer)).status == 200
    denial = [("kind", "subject"), ("name", "mallory"), ("reason", "test")]
    assert operators[0].post("/admin/service_registry/denial/add/", *denial).status == 302
    return operators


@pytest.fixture(params=[0, 1], ids=["asgi", "wsgi"])
def operator(request: pytest.FixtureRequest, signed_in: list[Operator]) -> Operator:
    chosen: Operator = signed_in[request.param]
    return chosen


def page(model: type[Model], name: str, *arguments: str) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=arguments)


def lists() -> Iterator[str]:
    for model in MODELS:
        base = page(model, "changelist")
        parameters = PARAMETERS + PARAMETERS_OF.get(model._meta.model_name or "", ())
        yield from (f"{base}?{name}={value}" for name, value in product(parameters, VALUES))
        yield f"{base}?e=1&q=%00&_facets=1&p=x&o=x.-x.99"
        yield f"{base}?e=1&p=99"
        yield f"{base}?" + "&".join(f"field{number}=" for number in range(1001))


def rows() -> Iterator[str]:
    """Yield pages of rows by odd ids, and of an existing row with odd parameters."""
    for model, value in product(MODELS, IDS):
        yield from (f"{page(model, 'changelist')}{value}/{name}" for name in ("change/", "history/", "delete/", ""))
        yield f"{page(model, 'add')}?{value}={value}&_popup={value}&_to_field={value}"
        yield f"{page(model, 'history', '1')}?p={value}&before={value}"
        yield f"{page(model, 'change', '1')}?_changelist_filters={value}&_to_field={value}"


def other_pages() -> Iterator[str]:
    autocomplete = "app_label=service_registry&model_name=instance&field_name=service"
    for value in VALUES:
        yield f"/admin/autocomplete/?{autocomplete}&term={value}&page={value}"
        yield f"/admin/autocomplete/?app_label={value}&model_name={value}&field_name={value}"
        yield f"/admin/service_registry/user/{value}/password/"
        yield f"/admin/login/?next={value}"
        yield f"/admin/{value}"
        yield from (f"/admin/r/{content_type}/{value}/" for content_type in ("x", *range(1, 20)))


@pytest.mark.parametrize("addresses", [lists, rows, other_pages])
def test_no_address_of_the_admin_is_answered_with_500(
    operator: Operator, addresses: Callable[[], Iterator[str]]
) -> None:
    asked = list(addresses())
    failed = [address for address in asked if operator.get(address).status >= 500]
    assert not failed, f"{len(failed)} of {len(asked)}: {failed[:20]}"


@pytest.mark.parametrize("model", MODELS)
def test_no_form_of_a_list_is_answered_with_500(operator: Operator, model: type[Model]) -> None:
    path = page(model, "changelist")
    actions = ("x", "delete_selected", *(admin.site.get_model_admin(model).actions or ()))
    for action, selected in product(actions, ("x", "\0", "9" * 30)):
        fields = [("action", str(action)), ("_selected_action", selected)]
        for more in ([], [("index", "x")], [("index", "9"), ("select_across", "x")], [("confirmed", "yes")]):
            answer = operator.post(path, *fields, *more)
            assert answer.status in {200, 302}, (action, selected, more, str(answer))


TEXTS = ("\0", "{", "9" * 30, "0001-01-01 00:00", "9999-12-31 23:59:59.999999", "\u202e")
FORMS = {
    "/admin/service_registry/denial/add/": {"kind": "subject", "name": "mallory", "reason": "test", "until": ""},
    "/admin/service_registry/user/add/": {"username": "", "usable_password": "", "password1": "", "password2": ""},
    "/admin/auth/group/add/": {"name": "", "permissions": ""},
    "/admin/password_change/": {"old_password": "", "new_password1": ""},
}


def test_no_form_of_a_row_is_answered_with_500(operator: Operator) -> None:
    chosen = re.search(r'name="_selected_action" value="(\d+)"', operator.get(INSTANCES).body.decode())
    assert chosen
    selection = [("action", "override"), ("_selected_action", chosen[1])]
    hidden = dict(
        re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', operator.post(INSTANCES, *selection).body.decode())
    )
    assert "shown" in hidden
    del hidden["csrfmiddlewaretoken"]
    # Its form deletes it; the roles of the other tests must stay.
    assert operator.post("/admin/auth/group/add/", ("name", "unused")).status == 302
    unused = re.search(r"/admin/auth/group/(\d+)/change/\D*>unused<", operator.get("/admin/auth/group/").body.decode())
    assert unused
    deletion = {f"/admin/auth/group/{unused[1]}/delete/": {"_popup": "1", "_to_field": "id"}}
    forms = FORMS | deletion | {INSTANCES: hidden | {"status": "DOWN", "reason": "test", "until": ""}}
    for path, form in forms.items():
        for name, text in product(form, TEXTS):
            answer = operator.post(path, *(form | {name: text}).items())
            assert answer.status < 500, (path, name, text, str(answer))


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=a", "a/b; c", "x; charset=x"]
)
@pytest.mark.parametrize("body", [b"--a\r\nContent-Disposition: form-data\r\n\r\nb", b"a=%00&b=%FF", b"a&" * 1001])
def test_no_body_of_a_form_is_answered_with_500(operator: Operator, content_type: str, body: bytes) -> None:
    headers = [("Content-Type", content_type), ("X-CSRFToken", operator.cookies["csrftoken"])]
    for path in ("/admin/login/", INSTANCES, next(iter(FORMS))):
        answer = operator.send(Request("POST", path, body, headers=operator.headers(*headers)))
        assert answer.status < 500, (path, str(answer))


@pytest.mark.parametrize("key", ['"\\000aaaaaaaa"', '"\\377aaaaaaaa"', "a" * 5000, "x", ""])
def test_cookie_that_names_no_session_is_ignored(fronts: tuple[FrontEnd, FrontEnd], key: str) -> None:
    for front in fronts:
        stranger = Operator(front, {"sessionid": key})
        assert stranger.get("/admin/").status == 302
        assert stranger.get("/registry/schema").status == 401


def test_list_that_takes_too_long_is_ended_with_a_page(operator: Operator, database_url: str) -> None:
    path = "/admin/service_registry/override/"
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE service_registry_override IN ACCESS EXCLUSIVE MODE")
        answer = operator.get(path)
        counting = (
            "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT COUNT(*)%registry_override%'"
        )
        assert not other.execute(counting).fetchall(), "PostgreSQL still works on the list"
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert b"Narrow the search" in answer.body
    assert operator.get(path).status == 200
