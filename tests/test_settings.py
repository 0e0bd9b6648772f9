"""A wrong setting stops the start with a sentence that says which, and what would be right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from registry_project import settings as project_settings

ROOT = Path(__file__).parents[1]
PRODUCTION = {
    "DEBUG": "false",
    "SECRET_KEY": "in-production-this-is-a-secret-of-fifty-characters-or-more",
    "ALLOWED_HOSTS": "registry.example.test",
    "OIDC_ISSUER": "https://sso.example.test/realms/main",
    "OIDC_AUDIENCE": "service-registry",
    "OIDC_RP_CLIENT_ID": "registry-admin",
    "OIDC_RP_CLIENT_SECRET": "unused",
    "DATABASE_URL": "postgresql://registry:unused@127.0.0.1:1/registry",
}


def check(**changed: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in (PRODUCTION | changed).items() if value != "unset"}
    return subprocess.run(
        [sys.executable, "manage.py", "check"],
        env=environment | {"PATH": os.environ["PATH"], "REGISTRY_DATA_DIR": "/nonexistent"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_settings_as_in_production_are_good() -> None:
    done = check()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "maybe"),
        ("SECRET_KEY", "unset"),
        ("SECRET_KEY", "short"),
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", "unset"),
        ("OIDC_ISSUER", "unset"),
        ("OIDC_ISSUER", "http://sso.example.test"),
        ("OIDC_ISSUER", "http://127.0.0.1:8001/development-issuer"),
        ("OIDC_AUDIENCE", "unset"),
        ("OIDC_JWKS_URI", "ftp://sso.example.test/keys"),
        ("OIDC_ALGORITHMS", "HS256"),
        ("OIDC_LEEWAY_SECONDS", "-1"),
        ("OIDC_KEYS_MAX_AGE_SECONDS", "1"),
        ("DATABASE_URL", "unset"),
        ("DATABASE_URL", "sqlite:///registry.db"),
        ("DATABASE_URL", "postgresql://registry@host:port/registry"),
        ("CELERY_BROKER_URL", "filesystem://"),
        ("REGISTRY_DEFAULT_TTL_SECONDS", "4"),
        ("REGISTRY_SWEEP_INTERVAL_SECONDS", "two"),
        ("REGISTRY_RETENTION_SECONDS", "1e3"),
        ("REGISTRY_FIRST_REGISTRATION", "anybody"),
        ("REGISTRY_SECRET_METADATA", "keep"),
        ("REGISTRY_MAX_INSTANCES_PER_OWNER", "0"),
        ("REGISTRY_NAME_RESERVATION_DAYS", "-1"),
        ("REGISTRY_PORT", "65536"),
        ("WEB_PROCESSES", "0"),
        ("WEB_THREADS", "\u0661"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_a_sentence(name: str, value: str) -> None:
    done = check(**{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith("The registry cannot start: ")
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_every_setting_of_ours_stands_in_the_readme() -> None:
    source = Path(str(project_settings.__file__)).read_text()
    read = set(re.findall(r'environment\.\w+\(\s*"([A-Z_]+)"', source))
    readme = (ROOT / "README.md").read_text()
    assert {name for name in read if f"`{name}`" not in readme} == set()


def test_every_error_code_stands_in_the_readme() -> None:
    from service_registry.api import errors

    codes = {str(error.code) for error in errors.STATUS_OF if hasattr(error, "code")}
    codes |= {*errors.CODE_OF.values(), *errors.CODE_OF_STATUS.values(), "internal", "unavailable"}
    readme = (ROOT / "README.md").read_text()
    assert {code for code in codes if f"`{code}`" not in readme} == set()


def test_every_path_stands_in_the_readme() -> None:
    from service_registry.api.urls import urlpatterns

    readme = (ROOT / "README.md").read_text()
    for pattern in urlpatterns:
        path = re.sub(r"\(\?P<(\w+)>\[\^/\]\+\)", r"{\1}", str(pattern.pattern)).strip("^$?").removesuffix("/")
        assert f"/registry/{path}`" in readme, path
