"""`manage.py dev_token`: tokens of the development issuer.

Only the settings of `make run` have the command.
"""

from io import StringIO

import jwt
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command, get_commands
from pytest_django import Settings

from registry_project.devstack.management.commands.dev_token import Command


def test_dev_token_prints_a_token_of_the_configured_issuer() -> None:
    printed = StringIO()
    call_command(Command(), subject="you", groups=["registry-readers", "team-a"], ttl=60, stdout=printed)
    claims = jwt.decode(printed.getvalue().strip(), options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["sub"]) == (settings.OIDC_ISSUER, settings.OIDC_AUDIENCE, "you")
    assert (claims["groups"], claims["exp"] - claims["iat"]) == (["registry-readers", "team-a"], 60)


def test_dev_token_with_another_issuer_configured_is_refused(settings: Settings) -> None:
    settings.OIDC_ISSUER = "https://login.example/realms/company"
    with pytest.raises(CommandError, match=r"login\.example"):
        call_command(Command(), subject="you")


def test_production_settings_do_not_have_the_command() -> None:
    assert "dev_token" not in get_commands()
