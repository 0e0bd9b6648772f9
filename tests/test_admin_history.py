"""The history of an instance in the admin."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from service_registry.models import Change, Instance, User
from tests.client import Api


def signed_in(*groups: str) -> Client:
    user = User.objects.create(username="somebody", is_staff=True)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    return client


def history(client: Client, query: str = "", **which: Any) -> tuple[int, str]:
    response = client.get(f"/admin/service_registry/instance/{Instance.objects.get(**which).pk}/history/{query}")
    return response.status_code, response.content.decode()


def kinds(page: str) -> list[str]:
    return re.findall(r"</th>\s*<td>(\w+)</td>", page)


def test_it_lists_the_changes_newest_first(payments: Api, operator: Api) -> None:
    payments.register()
    payments.register("web", "other")
    payments.register(namespace="test")
    payments.deregister()
    payments.register(weight=1)
    operator.call("PUT", "/registry/instance/web/web-1/status", {"status": "DOWN", "reason": "disk <b>"})
    client = signed_in("registry-operators")
    status, page = history(client, instance_id="web-1", service__namespace="default")
    assert status == 200
    assert kinds(page) == ["status_changed", "registered", "deregistered", "registered"]
    assert "disk &lt;b&gt;" in page
    assert "operator@" in page
    assert "override: DOWN" in page
    link = re.search(r'href="(/admin/service_registry/change/\d+/change/)"', page)
    assert link
    assert client.get(link[1]).status_code == 200


def test_it_goes_on_to_older_ones(payments: Api) -> None:
    payments.register()
    for weight in range(100):
        payments.register(weight=weight)
    payments.register(weight=5000)
    client = signed_in("registry-operators")
    _status, newest = history(client)
    older = re.search(r'href="(\?before=\d+)"', newest)
    assert older
    _status, rest = history(client, older[1])
    assert (len(kinds(newest)), kinds(rest)) == (100, ["updated", "registered"])
    assert "?before=" not in rest
    assert kinds(history(client, "?before=x")[1]) == kinds(newest)


def test_it_is_read_by_index(payments: Api) -> None:
    payments.register()
    client = signed_in("registry-operators")
    with CaptureQueriesContext(connection) as captured:
        history(client, "?before=9999")
    (sql,) = [query["sql"] for query in captured.captured_queries if '"service_registry_change"."mark"' in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {sql}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Scan using change_by_instance" in plan
    assert "Sort" not in plan


def test_it_needs_the_permission_to_see_changes(payments: Api) -> None:
    payments.register()
    reader = signed_in("registry-readers")
    status, page = history(reader)
    assert status == 403
    assert "registered" not in page
    form = reader.get(f"/admin/service_registry/instance/{Instance.objects.get().pk}/change/").content.decode()
    assert "web-1" in form
    assert "/history/" not in form


def test_it_needs_the_permission_to_see_instances(payments: Api) -> None:
    payments.register()
    auditor = signed_in()
    User.objects.get().user_permissions.set(Permission.objects.filter(codename="view_change"))
    assert history(auditor)[0] == 403


@pytest.mark.parametrize("pk", ["0", "x", "9" * 30])
def test_of_no_instance_there_is_none(db: None, pk: str) -> None:
    assert signed_in("registry-operators").get(f"/admin/service_registry/instance/{pk}/history/").status_code == 404


def test_what_was_pruned_is_said_to_be_gone(payments: Api) -> None:
    payments.register()
    Change.objects.all().delete()
    assert "The log holds nothing of this instance any more." in history(signed_in("registry-operators"))[1]
