"""System checks of the settings: each id, and that valid settings have none."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from service_registry import checks

PRODUCTION = {
    "DEBUG": False,
    "SECRET_KEY": "in-production-this-is-a-secret-of-fifty-characters-or-more",
    "ALLOWED_HOSTS": ["registry.example.test"],
    "OIDC_ISSUER": "https://sso.example.test/realms/main",
    "OIDC_AUDIENCE": "service-registry",
    "OIDC_RP_CLIENT_ID": "registry-admin",
}


@pytest.fixture
def production(settings: Settings) -> Settings:
    """Return the settings of a production process, with the database of the test run."""
    for name, value in PRODUCTION.items():
        setattr(settings, name, value)
    return settings


def found(*, deploy: bool = True) -> list[str]:
    """Return the ids of the registry's own messages."""
    messages = run_checks(tags=["security"], include_deployment_checks=deploy)
    return [str(message.id) for message in messages if str(message.id).startswith("registry.")]


def test_valid_settings_have_no_message(production: Settings) -> None:
    assert found() == []
    checks.require_valid_settings()


ERRORS: list[tuple[str, str, Any]] = [
    ("registry.E001", "SECRET_KEY", ""),
    ("registry.E001", "SECRET_KEY", "short"),
    ("registry.E001", "SECRET_KEY", "abc" * 20),
    ("registry.E002", "ALLOWED_HOSTS", []),
    ("registry.E002", "ALLOWED_HOSTS", ["*"]),
    ("registry.E003", "OIDC_ISSUER", ""),
    ("registry.E003", "OIDC_ISSUER", "http://sso.example.test"),
    ("registry.E003", "OIDC_ISSUER", "https://user@sso.example.test"),
    ("registry.E003", "OIDC_ISSUER", "https://[::1"),
    ("registry.E003", "OIDC_ISSUER", "https://sso.example.test:99999"),
    ("registry.E004", "OIDC_ISSUER", "http://127.0.0.1:8001/development-issuer"),
    ("registry.E004", "OIDC_ISSUER", "https://sso.example.test/development-issuer/"),
    ("registry.E005", "OIDC_JWKS_URI", "ftp://sso.example.test/keys"),
    ("registry.E005", "OIDC_JWKS_URI", "https://[::1"),
    ("registry.E004", "OIDC_JWKS_URI", "http://127.0.0.1:8001/development-issuer/jwks"),
    ("registry.E006", "OIDC_AUDIENCE", ""),
    ("registry.E013", "OIDC_AUDIENCE", "registry-admin"),
    ("registry.E007", "OIDC_ALGORITHMS", []),
    ("registry.E007", "OIDC_ALGORITHMS", ["RS256", "HS256"]),
    ("registry.E012", "CELERY_BROKER_URL", "filesystem://"),
    ("registry.E012", "CELERY_BROKER_URL", "redis://[::1"),
]


@pytest.mark.parametrize(("check_id", "name", "value"), ERRORS)
def test_wrong_setting_is_an_error_that_stops_the_start(
    production: Settings, check_id: str, name: str, value: Any
) -> None:
    setattr(production, name, value)
    assert found(deploy=False) == [check_id]
    with pytest.raises(ImproperlyConfigured, match=rf"\b{name}\b"):
        checks.require_valid_settings()


WARNINGS = [
    ("registry.W001", "REGISTRY_SWEEP_INTERVAL_SECONDS", 5),
    ("registry.W002", "REGISTRY_PROTECTION_MAX_SECONDS", 119),
    ("registry.W003", "REGISTRY_RETENTION_SECONDS", 59),
]


@pytest.mark.parametrize(("check_id", "name", "value"), WARNINGS)
def test_settings_that_contradict_each_other_are_a_warning(
    production: Settings, check_id: str, name: str, value: int
) -> None:
    setattr(production, name, value)
    assert found() == [check_id]
    checks.require_valid_settings()
    setattr(production, name, value + 1 if value > 5 else value - 1)
    assert found() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "short"),
        ("ALLOWED_HOSTS", ["*"]),
        ("OIDC_ISSUER", "http://127.0.0.1:8001/development-issuer"),
        ("OIDC_JWKS_URI", "http://127.0.0.1:8001/development-issuer/jwks"),
    ],
)
def test_settings_for_development_are_valid_with_debug_on(production: Settings, name: str, value: Any) -> None:
    production.DEBUG = True
    setattr(production, name, value)
    assert found() == []


DATABASES = [
    ("registry.E008", "", {}),
    ("registry.E009", "registry", {"target_session_attrs": "any"}),
    ("registry.E010", "registry", {"connect_timeout": "abc"}),
    ("registry.E010", "registry", {"keepalives_idle": "soon"}),
    ("registry.E010", "registry", {"keepalives_idle": "\u0661"}),
    ("registry.E011", "registry", {"connect_timeout": "0"}),
    ("registry.E011", "registry", {"connect_timeout": "11"}),
]


@pytest.mark.parametrize(("check_id", "name", "options"), DATABASES)
def test_wrong_database_is_an_error_that_names_the_setting(check_id: str, name: str, options: dict[str, str]) -> None:
    (error,) = checks.check_database(
        {"NAME": name, "OPTIONS": {"connect_timeout": 3, "target_session_attrs": "primary", **options}}
    )
    assert error.id == check_id
    assert "DATABASE_URL" in error.msg


def test_database_named_by_a_service_file_is_valid() -> None:
    entry = {
        "NAME": "",
        "OPTIONS": {"connect_timeout": "10", "target_session_attrs": "read-write", "service": "registry"},
    }
    assert list(checks.check_database(entry)) == []


def test_every_check_id_is_tried() -> None:
    ids = set(re.findall(r'"(registry\.[EW]\d+)"', Path(str(checks.__file__)).read_text()))
    assert ids == {check_id for check_id, *_ in (*ERRORS, *DATABASES, *WARNINGS)}
