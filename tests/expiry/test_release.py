"""POST /registry/services/{name}/release, the admin's button and `manage.py release_service`."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError
from django.db.models import F
from django.test import Client

from service_registry.access_models import User
from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Service
from tests.client import Answer, Api
from tests.commands import run
from tests.fleets import change_kinds, expired_ids, protected_ids, register_fleet, send_heartbeats, set_heartbeat_age

SMALL = {"small": 8}


@pytest.fixture
def protected(payments: Api) -> list[str]:
    """Protect five of the eight instances of a service, and return their ids."""
    ids = register_fleet(payments, SMALL | {"other": 40})
    set_heartbeat_age(34, ids[:5])
    sweep()
    assert protected_ids() == set(ids[:5])
    return ids[:5]


def release(api: Api, name: str = "small", reason: str = "scaled in") -> Answer:
    return api.post(f"/registry/services/{name}/release", {"reason": reason})


def test_released_instances_expire_with_the_next_sweep(operator: Api, protected: list[str]) -> None:
    answer = release(operator)
    assert (answer.status, answer.json) == (200, {"released": 5})
    assert protected_ids() == set(protected)
    assert (sweep().expired, expired_ids(), protected_ids()) == (5, set(protected), set())
    assert change_kinds(protected) == {("registered", "protected", "expired")}
    change = Change.objects.get(kind="released")
    assert (change.service_name, change.instance_id, change.reason) == ("small", None, "scaled in")
    assert change.actor.startswith("operator@")
    assert change.evidence == {"protected": 5}
    evidence = Change.objects.filter(kind="expired")[0].evidence
    assert evidence is not None
    assert evidence["released"] is True


def test_heartbeat_before_the_sweep_keeps_the_instance(payments: Api, operator: Api, protected: list[str]) -> None:
    release(operator)
    send_heartbeats(payments, protected[:1])
    assert (sweep().expired, expired_ids()) == (4, set(protected[1:]))


def test_released_service_is_unprotected_for_15_minutes(payments: Api, operator: Api, protected: list[str]) -> None:
    release(operator)
    sweep()
    send_heartbeats(payments, protected)
    set_heartbeat_age(34, protected)
    assert (sweep().expired, protected_ids()) == (5, set())
    Service.objects.update(released_at=F("released_at") - timedelta(minutes=15))
    send_heartbeats(payments, protected)
    set_heartbeat_age(34, protected)
    assert (sweep().expired, protected_ids()) == (0, set(protected))


def test_other_services_stay_protected(payments: Api, operator: Api, protected: list[str]) -> None:
    register_fleet(payments, {"second": 6})
    others = [f"second-{number}" for number in range(6)]
    set_heartbeat_age(34, [*protected, *others])
    sweep()
    release(operator)
    sweep()
    assert (expired_ids(), protected_ids()) == (set(protected), set(others))


def test_released_instances_expire_without_the_limit_of_a_sweep(payments: Api, operator: Api) -> None:
    ids = register_fleet(payments, {"small": 40})
    set_heartbeat_age(34, ids)
    sweep()
    assert release(operator).json == {"released": 40}
    assert sweep().expired == 40


def test_second_release_finds_no_protected_instance(operator: Api, protected: list[str]) -> None:
    release(operator)
    sweep()
    assert release(operator).json == {"released": 0}


def test_release_takes_the_namespace_as_a_parameter(operator: Api, protected: list[str]) -> None:
    assert operator.post("/registry/services/small/release?namespace=x", {"reason": "x"}).code == "service_not_found"
    assert operator.post("/registry/services/small/release?namespace=default", {"reason": "x"}).status == 200


def test_command_releases_the_service(protected: list[str]) -> None:
    printed = run("release_service", "small", "--reason=gone")
    assert "default/small is released: the next sweep expires its 5 protected instances." in printed
    assert sweep().expired == 5
    assert Change.objects.get(kind="released").actor == "system:command"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--reason=x"], "There is no service of this name"),
        (["small", "--reason="], "^--reason is not right"),
        (["a..b", "--reason=x"], "^NAME is not right"),
        (["small", "--reason=x", "--namespace=other"], "There is no service of this name"),
    ],
)
def test_command_explains_a_refusal(protected: list[str], arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run("release_service", *arguments)


def signed_in(*groups: str) -> Client:
    user = User.objects.filter(username="ora").first() or User.objects.create_user("ora", is_staff=True)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user, backend="service_registry.identity.login_limits.PasswordBackend")
    return client


def press(client: Client, **more: str) -> Any:
    service = Service.objects.get(name="small")
    chosen = {"action": "release", "_selected_action": str(service.pk)}
    return client.post("/admin/service_registry/service/", chosen | more)


def test_admin_asks_for_a_reason_and_releases(protected: list[str]) -> None:
    client = signed_in("registry-operators")
    page = press(client)
    assert "default / small" in page.content.decode()
    assert "expire with the next sweep" in page.content.decode()
    confirmed = {"confirmed": "yes", "shown": page.context["shown"]}
    assert "This field is required" in press(client, **confirmed, reason="").content.decode()
    assert Service.objects.get(name="small").released_at is None
    assert press(client, **confirmed, reason="scaled in").status_code == 302
    change = Change.objects.get(kind="released")
    assert (change.actor, change.reason) == ("admin:ora", "scaled in")
    assert sweep().expired == 5


def test_admin_offers_release_to_operators_only(protected: list[str]) -> None:
    shown = press(signed_in("registry-operators")).context["shown"]
    for group, offered in (("registry-operators", True), ("registry-readers", False)):
        client = signed_in(group)
        page = client.get("/admin/service_registry/service/").content.decode()
        assert ("Release (end protection)" in page) == offered
    press(client, confirmed="yes", shown=shown, reason="x")
    assert not Change.objects.filter(kind="released").exists()
