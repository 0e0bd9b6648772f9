"""POST /registry/services/{name}/release, the admin's button and `manage.py release_service`."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError
from django.db.models import F
from django.test import Client

from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Service, User
from tests.client import Answer, Api
from tests.commands import run
from tests.fleets import change_kinds, expired_ids, protected_ids, register_fleet, send_heartbeats, set_heartbeat_age

HELD = {"small": 8}


@pytest.fixture
def gone(payments: Api) -> list[str]:
    """Five of eight, held."""
    ids = register_fleet(payments, HELD | {"other": 40})
    set_heartbeat_age(34, ids[:5])
    sweep()
    assert protected_ids() == set(ids[:5])
    return ids[:5]


def release(api: Api, name: str = "small", reason: str = "scaled in") -> Answer:
    return api.post(f"/registry/services/{name}/release", {"reason": reason})


def test_what_is_held_goes_with_the_next_sweep(operator: Api, gone: list[str]) -> None:
    answer = release(operator)
    assert (answer.status, answer.json) == (200, {"released": 5})
    assert protected_ids() == set(gone)
    assert (sweep().expired, expired_ids(), protected_ids()) == (5, set(gone), set())
    assert change_kinds(gone) == {("registered", "protected", "expired")}
    change = Change.objects.get(kind="released")
    assert (change.service_name, change.instance_id, change.reason) == ("small", None, "scaled in")
    assert change.actor.startswith("operator@")
    assert change.evidence == {"protected": 5}
    evidence = Change.objects.filter(kind="expired")[0].evidence
    assert evidence is not None
    assert evidence["released"] is True


def test_who_beats_before_the_sweep_stays(payments: Api, operator: Api, gone: list[str]) -> None:
    release(operator)
    send_heartbeats(payments, gone[:1])
    assert (sweep().expired, expired_ids()) == (4, set(gone[1:]))


def test_for_fifteen_minutes_nobody_is_held_there(payments: Api, operator: Api, gone: list[str]) -> None:
    release(operator)
    sweep()
    send_heartbeats(payments, gone)
    set_heartbeat_age(34, gone)
    assert (sweep().expired, protected_ids()) == (5, set())
    Service.objects.update(released_at=F("released_at") - timedelta(minutes=15))
    send_heartbeats(payments, gone)
    set_heartbeat_age(34, gone)
    assert (sweep().expired, protected_ids()) == (0, set(gone))


def test_another_service_stays_held(payments: Api, operator: Api, gone: list[str]) -> None:
    register_fleet(payments, {"second": 6})
    others = [f"second-{number}" for number in range(6)]
    set_heartbeat_age(34, [*gone, *others])
    sweep()
    release(operator)
    sweep()
    assert (expired_ids(), protected_ids()) == (set(gone), set(others))


def test_more_than_leave_after_a_hold_may_leave_by_release(payments: Api, operator: Api) -> None:
    ids = register_fleet(payments, {"small": 40})
    set_heartbeat_age(34, ids)
    sweep()
    assert release(operator).json == {"released": 40}
    assert sweep().expired == 40


def test_it_may_be_repeated_and_finds_nobody(operator: Api, gone: list[str]) -> None:
    release(operator)
    sweep()
    assert release(operator).json == {"released": 0}


def test_an_unknown_service_is_not_found(operator: Api) -> None:
    answer = release(operator, "nowhere")
    assert (answer.status, answer.code) == (404, "service_not_found")


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x", "more": 1}, {"reason": None}, []])
def test_a_reason_and_nothing_else_is_needed(operator: Api, gone: list[str], body: Any) -> None:
    answer = operator.post("/registry/services/small/release", body)
    assert (answer.status, answer.code) == (400, "invalid")
    assert not Change.objects.filter(kind="released").exists()


def test_the_namespace_is_a_parameter(operator: Api, gone: list[str]) -> None:
    assert operator.post("/registry/services/small/release?namespace=x", {"reason": "x"}).code == "service_not_found"
    assert operator.post("/registry/services/small/release?namespace=default", {"reason": "x"}).status == 200


def test_the_command_releases(gone: list[str]) -> None:
    assert "5 protected instances of default/small released" in run("release_service", "small", "--reason=gone")
    assert sweep().expired == 5
    assert Change.objects.get(kind="released").actor == "system:command"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--reason=x"], "There is no service of this name"),
        (["small", "--reason="], "^--reason is not right"),
        (["UPPER", "--reason=x"], "^NAME is not right"),
        (["small", "--reason=x", "--namespace=other"], "There is no service of this name"),
    ],
)
def test_the_command_says_why_not(gone: list[str], arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        run("release_service", *arguments)


def signed_in(*groups: str) -> Client:
    user = User.objects.create_user("ora", is_staff=True)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def press(client: Client, **more: str) -> Any:
    service = Service.objects.get(name="small")
    chosen = {"action": "release", "_selected_action": str(service.pk)}
    return client.post("/admin/service_registry/service/", chosen | more)


def test_the_admin_asks_and_then_releases(gone: list[str]) -> None:
    client = signed_in("registry-operators")
    page = press(client)
    assert "default / small" in page.content.decode()
    assert "leaves the list with the next sweep" in page.content.decode()
    assert "This field is required" in press(client, confirmed="yes", reason="").content.decode()
    assert Service.objects.get(name="small").released_at is None
    assert press(client, confirmed="yes", reason="scaled in").status_code == 302
    change = Change.objects.get(kind="released")
    assert (change.actor, change.reason) == ("admin:ora", "scaled in")
    assert sweep().expired == 5


def test_the_admin_offers_it_to_operators_alone(gone: list[str]) -> None:
    client = signed_in("registry-readers")
    assert "Release what is held" not in client.get("/admin/service_registry/service/").content.decode()
    press(client, confirmed="yes", reason="x")
    assert not Change.objects.filter(kind="released").exists()
