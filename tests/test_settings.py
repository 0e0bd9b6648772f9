"""A wrong setting stops the start with a sentence that says which, and what would be right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from registry_project import settings as project_settings
from registry_project.devstack.processes import free_port

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


def start(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the settings of production and what is changed about them; `unset` leaves one out."""
    environment = {"PATH": os.environ["PATH"], "REGISTRY_DATA_DIR": "/nonexistent"} | PRODUCTION | changed
    return subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in environment.items() if value != "unset"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_settings_as_in_production_are_good() -> None:
    done = start("manage.py", "check")
    assert (done.returncode, done.stderr) == (0, "")


WRONG = [
    ("DEBUG", "maybe"),
    ("SECRET_KEY", "unset"),
    ("SECRET_KEY", "short"),
    ("ALLOWED_HOSTS", "*"),
    ("ALLOWED_HOSTS", "unset"),
    ("OIDC_ISSUER", "unset"),
    ("OIDC_ISSUER", "http://sso.example.test"),
    ("OIDC_ISSUER", "http://127.0.0.1:8001/development-issuer"),
    ("OIDC_ISSUER", "https://[::1"),
    ("OIDC_ISSUER", "https://sso.example.test:99999"),
    ("OIDC_AUDIENCE", "unset"),
    ("OIDC_JWKS_URI", "ftp://sso.example.test/keys"),
    ("OIDC_JWKS_URI", "https://[::1"),
    ("OIDC_ALGORITHMS", "HS256"),
    ("OIDC_LEEWAY_SECONDS", "-1"),
    ("OIDC_KEYS_MAX_AGE_SECONDS", "1"),
    ("DATABASE_URL", "unset"),
    ("DATABASE_URL", "sqlite:///registry.db"),
    ("DATABASE_URL", "postgresql://registry@host:port/registry"),
    ("DATABASE_URL", "postgresql://registry@host"),
    ("DATABASE_URL", "postgresql://registry@host/registry?connect_timeout=abc"),
    ("DATABASE_URL", "postgresql://registry@host/registry?connect_timeout=0"),
    ("DATABASE_URL", "postgresql://registry@host/registry?connect_timeout=11"),
    ("DATABASE_URL", "postgresql://registry@host/registry?keepalives_idle=soon"),
    ("DATABASE_URL", "postgresql://registry@host/registry?conect_timeout=3"),
    ("CELERY_BROKER_URL", "filesystem://"),
    ("CELERY_BROKER_URL", "redis://[::1"),
    ("REGISTRY_DEFAULT_TTL_SECONDS", "4"),
    ("REGISTRY_SWEEP_INTERVAL_SECONDS", "two"),
    ("REGISTRY_RETENTION_SECONDS", "1e3"),
    ("REGISTRY_SILENCE_MAX_SECONDS", "-1"),
    ("REGISTRY_PROTECTION_FRACTION", "15%"),
    ("REGISTRY_PROTECTION_MINIMUM", "0"),
    ("REGISTRY_PROTECTION_MAX_SECONDS", "15m"),
    ("REGISTRY_SERVICE_PROTECTION_FRACTION", "1.5"),
    ("REGISTRY_SERVICE_PROTECTION_MAX_SECONDS", "100000"),
    ("REGISTRY_FIRST_REGISTRATION", "anybody"),
    ("REGISTRY_CHANGE_RETENTION_DAYS", "0"),
    ("REGISTRY_SECRET_METADATA", "keep"),
    ("REGISTRY_LOG_HEARTBEATS", "some"),
    ("REGISTRY_METRICS_PUBLIC", "maybe"),
    ("PROMETHEUS_MULTIPROC_DIR", "/dev/null/metrics"),
    ("REGISTRY_MAX_INSTANCES_PER_OWNER", "0"),
    ("REGISTRY_NAME_RESERVATION_DAYS", "-1"),
    ("REGISTRY_PORT", "65536"),
    ("WEB_PROCESSES", "0"),
    ("WEB_THREADS", "\u0661"),
    ("WEB_THREADS", "9" * 5000),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value[:40]}" for name, value in WRONG])
def test_a_wrong_setting_stops_the_start_with_a_sentence(name: str, value: str) -> None:
    done = start("manage.py", "check", **{name: value})
    assert done.returncode == 1
    assert re.fullmatch(rf"The registry cannot start: .*\b{name}\b.*\n", done.stderr)


def test_every_setting_that_is_judged_by_its_reader_is_tried() -> None:
    source = Path(str(project_settings.__file__)).read_text()
    judged = set(re.findall(r'environment\.(?:flag|integer|fraction|parts)\(\s*"([A-Z_]+)"', source))
    judged |= set(re.findall(r'environment\.text\("([A-Z_]+)", "\w+", \(', source))
    assert len(judged) > 10
    assert judged - {name for name, _value in WRONG} == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "maybe"),
        ("OIDC_ISSUER", "unset"),
        ("OIDC_JWKS_URI", "https://[::1"),
        ("REGISTRY_BIND", "203.0.113.1"),
        ("REGISTRY_DATA_DIR", "/dev/null/data"),
    ],
)
def test_the_embedded_registry_stops_with_the_same_sentence(tmp_path: Path, name: str, value: str) -> None:
    setting = {"REGISTRY_DATA_DIR": str(tmp_path), "REGISTRY_PORT": str(free_port())} | {name: value}
    done = start("-m", "registry_project.devstack", **setting)
    assert done.returncode == 2
    assert re.fullmatch(rf"The registry cannot start: .*\b{name}\b.*\n", done.stderr)


def test_the_web_server_stops_with_the_sentence_last() -> None:
    done = start("-m", "uvicorn", "registry_project.asgi:application", f"--port={free_port()}", OIDC_ISSUER="unset")
    assert done.returncode != 0
    assert "OIDC_ISSUER must be the https address" in done.stderr.splitlines()[-1]


def test_without_a_directory_for_the_secret_key_the_start_says_so() -> None:
    done = start("manage.py", "check", DEBUG="true", SECRET_KEY="unset", REGISTRY_DATA_DIR="/dev/null/data")
    assert done.returncode == 1
    assert re.fullmatch(r"The registry cannot start: REGISTRY_DATA_DIR .*\n", done.stderr)


def test_a_database_that_is_away_is_named() -> None:
    environment = PRODUCTION | {"PATH": os.environ["PATH"], "REGISTRY_DATA_DIR": "/nonexistent"}
    command = [sys.executable, "manage.py", "migrate"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("The database that DATABASE_URL names does not do its part: ")
    assert "Traceback" not in done.stderr


def test_every_setting_of_ours_stands_in_the_readme() -> None:
    source = Path(str(project_settings.__file__)).read_text()
    read = set(re.findall(r'environment\.\w+\(\s*"([A-Z_]+)"', source))
    readme = (ROOT / "README.md").read_text()
    assert {name for name in read if f"`{name}`" not in readme} == set()


def test_every_error_code_stands_in_the_readme() -> None:
    from service_registry.http import problems

    codes = {str(error.code) for error in problems.STATUS_BY_ERROR if hasattr(error, "code")}
    codes |= {*problems.CODE_BY_STATUS.values(), "internal", "unavailable"}
    readme = (ROOT / "README.md").read_text()
    assert {code for code in codes if f"`{code}`" not in readme} == set()


def test_every_path_stands_in_the_readme() -> None:
    from service_registry.api.urls import urlpatterns

    readme = (ROOT / "README.md").read_text()
    for pattern in urlpatterns:
        path = re.sub(r"\(\?P<(\w+)>\[\^/\]\+\)", r"{\1}", str(pattern.pattern)).strip("^$?").removesuffix("/")
        assert f"/registry/{path}`" in readme, path
