"""`manage.py provision_service`."""

import subprocess

import pytest
from django.conf import LazySettings
from django.core.management import CommandError

from service_registry.models import Change, Service
from tests.client import Api
from tests.commands import ROOT, command_line, environment, run


def test_provision_creates_a_service_with_owners(payments: Api, settings: LazySettings) -> None:
    settings.REGISTRY_FIRST_REGISTRATION = "provisioned"
    assert payments.register().code == "permission_denied"
    output = run("provision_service", "web", "--owner=team-payments", "--owner=team-b", "--reason=ticket 7")
    assert output == "default/web created with owners team-payments, team-b.\n"
    assert payments.register().status == 201
    change = Change.objects.get(kind="service_created")
    assert (change.actor, change.reason) == ("system:command", "ticket 7")


def test_commands_take_a_service_name_in_any_case(payments: Api) -> None:
    assert run("provision_service", "Shop:API", "--owner=team-payments").startswith("default/shop:api created")
    assert payments.register("SHOP:api").json["service_name"] == "shop:api"
    assert run("release_service", "SHOP:API", "--reason=x").startswith("default/shop:api is released")


def test_provision_replaces_the_owners(payments: Api, other_team: Api) -> None:
    payments.register(namespace="test")
    assert "has owners team-other." in run("provision_service", "web", "--owner=team-other", "--namespace=test")
    assert other_team.register(namespace="test").status == 200
    assert payments.register(namespace="test").code == "not_owner"


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["Web!", "--owner=team"], "NAME is not right: String should match"),
        (["web", "--owner="], "--owner is not right: String should have at least 1"),
        (["web", "--owner=a", "--owner=a"], "--owner is not right: must not contain the same owner twice."),
        (["web", "--owner=a", "--namespace=-"], "--namespace is not right"),
        (["web", "--owner=a", "--reason= "], "--reason is not right"),
        (
            ["web", "--owner=registry-services"],
            "--owner is not right: is a role, or a group that every account has: it cannot own services.",
        ),
        (["web", *(f"--owner={number}" for number in range(9))], "--owner is not right: List should have at most 8"),
    ],
)
def test_invalid_arguments_are_refused_in_one_sentence(db: None, arguments: list[str], output: str) -> None:
    with pytest.raises(CommandError) as refused:
        run("provision_service", *arguments)
    assert output in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Service.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_provision_as_a_process_refuses_a_role_as_owner() -> None:
    line = command_line("provision_service", "web", "--owner=registry-services")
    output = subprocess.run(line, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (output.returncode, output.stderr.partition(":")[2][:28]) == (1, " --owner is not right: is a ")
    assert not Service.objects.exists()
