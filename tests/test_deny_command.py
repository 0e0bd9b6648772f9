"""The command that denies callers, lists denials and lifts them."""

from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from service_registry.access_models import Denial
from service_registry.access_rules import access_rules

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("deny_caller", *arguments, stdout=output)
    return output.getvalue()


def is_denied(subject: str, client: str | None = None) -> bool:
    return access_rules.refresh().is_denied(settings.OIDC_ISSUER, subject, client)


def test_denied_subject_is_denied_until_it_is_lifted() -> None:
    assert "until it is lifted" in run(f"mallory@{settings.OIDC_ISSUER}", "--reason", "floods")
    assert is_denied("mallory")
    assert not is_denied("alice", client="mallory")
    run("mallory", "--lift", "--reason", "mended")
    assert not is_denied("mallory")
    denial = Denial.objects.get()
    assert (denial.name, denial.actor, denial.reason) == ("mallory", "system:command", "floods")
    assert (denial.lifted_by, denial.lift_reason) == ("system:command", "mended")
    assert "lifted by system:command: mended" in run("--list")


def test_denied_client_is_denied_for_all_subjects() -> None:
    run("batch", "--client", "--reason", "floods", "--for", "1h")
    assert is_denied("alice", client="batch")
    assert not is_denied("batch")


def test_denial_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run("mallory", "--reason", "floods")
    run("mallory", "--lift", "--reason", "mended")
    logged = {record.getMessage(): record.fields for record in caplog.records if hasattr(record, "fields")}
    assert logged["caller_denied"] | {"until": None} == {
        "actor": "system:command",
        "denied": "subject mallory",
        "reason": "floods",
        "until": None,
    }
    assert logged["denial_lifted"]["reason"] == "mended"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mallory"], "--reason"),
        (["--reason", "floods"], "NAME"),
        (["mallory", "--reason", "  "], "--reason"),
        (["mallory", "--reason", "x", "--until", "tomorrow"], "--until"),
        (["mallory", "--reason", "x", "--until", "2999-01-01T00:00:00"], "--until"),
        (["mallory", "--reason", "x", "--until", "2001-01-01T00:00:00Z"], "--until"),
        (["mallory", "--reason", "x", "--for", "soon"], "--for"),
        (["mallory", "--lift", "--reason", "x"], "No denial"),
    ],
)
def test_command_with_a_wrong_argument_names_it(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run(*arguments)
    assert not Denial.objects.exists()
