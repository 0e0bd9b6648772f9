"""The history page of an instance in the admin."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from service_registry.access_models import User
from service_registry.models import Change, Instance
from tests.client import Api


def sign_in(*groups: str) -> Client:
    user = User.objects.create(username="oscar", is_staff=True)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user, "service_registry.identity.login_limits.PasswordBackend")
    return client


def get_history(client: Client, query: str = "", **which: Any) -> tuple[int, str]:
    response = client.get(f"/admin/service_registry/instance/{Instance.objects.get(**which).pk}/history/{query}")
    return response.status_code, response.content.decode()


def kinds_of(page: str) -> list[str]:
    return re.findall(r"</th>\s*<td>(\w+)</td>", page)


def test_history_lists_changes_newest_first(payments: Api, operator: Api) -> None:
    payments.register()
    payments.register("web", "other")
    payments.register(namespace="test")
    payments.deregister()
    payments.register(weight=1)
    operator.call("PUT", "/registry/instance/web/web-1/status", {"status": "DOWN", "reason": "disk <b>"})
    client = sign_in("registry-operators")
    status, page = get_history(client, instance_id="web-1", service__namespace="default")
    assert status == 200
    assert kinds_of(page) == ["status_changed", "registered", "deregistered", "registered"]
    assert "disk &lt;b&gt;" in page
    assert "operator@" in page
    assert "override: DOWN" in page
    link = re.search(r'href="(/admin/service_registry/change/\d+/change/)"', page)
    assert link
    assert client.get(link[1]).status_code == 200


def test_history_links_to_older_changes(payments: Api) -> None:
    payments.register()
    for weight in range(100):
        payments.register(weight=weight)
    payments.register(weight=5000)
    client = sign_in("registry-operators")
    _status, newest = get_history(client)
    older = re.search(r'href="(\?before=\d+)"', newest)
    assert older
    _status, rest = get_history(client, older[1])
    assert (len(kinds_of(newest)), kinds_of(rest)) == (100, ["updated", "registered"])
    assert "?before=" not in rest
    assert kinds_of(get_history(client, "?before=x")[1]) == kinds_of(newest)


def test_history_reads_changes_by_index(payments: Api) -> None:
    payments.register()
    client = sign_in("registry-operators")
    with CaptureQueriesContext(connection) as captured:
        get_history(client, "?before=9999")
    (sql,) = [query["sql"] for query in captured.captured_queries if '"service_registry_change"."mark"' in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {sql}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Scan using change_by_instance" in plan
    assert "Sort" not in plan


def test_history_without_view_change_is_forbidden(payments: Api) -> None:
    payments.register()
    reader = sign_in("registry-readers")
    status, page = get_history(reader)
    assert status == 403
    assert "registered" not in page
    form = reader.get(f"/admin/service_registry/instance/{Instance.objects.get().pk}/change/").content.decode()
    assert "web-1" in form
    assert "/history/" not in form


def test_history_without_view_instance_is_forbidden(payments: Api) -> None:
    payments.register()
    auditor = sign_in()
    User.objects.get().user_permissions.set(Permission.objects.filter(codename="view_change"))
    assert get_history(auditor)[0] == 403


@pytest.mark.parametrize("pk", ["0", "x", "9" * 30])
def test_history_of_an_unknown_instance_is_not_found(db: None, pk: str) -> None:
    assert sign_in("registry-operators").get(f"/admin/service_registry/instance/{pk}/history/").status_code == 404


def test_history_without_changes_shows_a_sentence(payments: Api) -> None:
    payments.register()
    Change.objects.all().delete()
    assert "The log has no changes of this instance any more." in get_history(sign_in("registry-operators"))[1]
