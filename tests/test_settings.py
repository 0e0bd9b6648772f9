"""Settings: a value that is wrong stops every process with one clear sentence."""

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from registry_project import env
from registry_project import settings as project_settings
from registry_project.devstack import plan
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
    """Run Python with production settings and the `changed` ones.

    The value `unset` removes a variable.
    """
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


def test_production_settings_pass_every_check() -> None:
    done = start("manage.py", "check", "--deploy", "--fail-level=WARNING")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("changed", "exists"), [({}, False), ({"REGISTRY_PASSWORD_LOGIN": "true"}, True)])
def test_password_login_exists_only_where_it_is_switched_on(changed: dict[str, str], exists: bool) -> None:
    """Without the backend that hashes passwords no request can make the registry hash one."""
    code = "from registry_project.settings import AUTHENTICATION_BACKENDS as b; print('PasswordBackend' in ' '.join(b))"
    assert start("-c", code, **changed).stdout == f"{exists}\n"


UNREADABLE = [
    ("REGISTRY_PASSWORD_LOGIN", "perhaps"),
    ("REGISTRY_MAX_SHARE_PER_CALLER", "50%"),
    ("REGISTRY_HEALTH_NETWORKS", "10.0.0.1/8"),
    ("DEBUG", "maybe"),
    ("REGISTRY_ADMIN_SESSION_SECONDS", "0"),
    ("OIDC_LEEWAY_SECONDS", "-1"),
    ("OIDC_KEYS_MAX_AGE_SECONDS", "1"),
    ("DATABASE_URL", "unset"),
    ("DATABASE_URL", "sqlite:///registry.db"),
    ("DATABASE_URL", "postgresql://registry@host:port/registry"),
    ("DATABASE_URL", "postgresql://registry@one:5432,two:port/registry"),
    ("DATABASE_URL", "postgresql://registry@host/registry?conect_timeout=3"),
    ("DATABASE_DIRECT_URL", "redis://127.0.0.1"),
    ("DATABASE_DIRECT_URL", "postgresql://registry@host:port/registry"),
    ("DATABASE_POOLED", "perhaps"),
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
    ("REGISTRY_LOG_READS", "changes"),
    ("REGISTRY_METRICS_PUBLIC", "maybe"),
    ("PROMETHEUS_MULTIPROC_DIR", "/dev/null/metrics"),
    ("REGISTRY_MAX_INSTANCES_PER_OWNER", "0"),
    ("REGISTRY_MAX_SERVICES_PER_OWNER", "0"),
    ("REGISTRY_MAX_OVERRIDES_WITHOUT_INSTANCE", "-1"),
    ("REGISTRY_NAME_RESERVATION_DAYS", "-1"),
    ("REGISTRY_EMPTY_SERVICE_DAYS", "-1"),
    ("REGISTRY_KEEP_ALIVE_SECONDS", "0"),
    ("REGISTRY_MAX_CONNECTIONS", "99"),
    ("REGISTRY_MAX_CONNECTIONS_PER_ADDRESS", "-1"),
    ("WEB_THREADS", "\u0661"),
    ("WEB_THREADS", "9" * 5000),
]


@pytest.mark.parametrize(("name", "value"), UNREADABLE, ids=[f"{name}={value[:40]}" for name, value in UNREADABLE])
def test_unreadable_value_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for each, production in PRODUCTION.items():
        monkeypatch.setenv(each, production)
    monkeypatch.setenv(name, value)
    if value == "unset":
        monkeypatch.delenv(name)
    with pytest.raises(ImproperlyConfigured) as refused:
        runpy.run_path(str(project_settings.__file__))
    assert re.fullmatch(rf".*\b{name}\b.*", str(refused.value))


@pytest.mark.parametrize(("name", "value"), [("DEBUG", "maybe"), ("WEB_THREADS", "9" * 5000)], ids=["text", "number"])
def test_command_with_an_unreadable_value_prints_one_sentence(name: str, value: str) -> None:
    done = start("manage.py", "check", **{name: value})
    assert done.returncode == 1
    assert re.fullmatch(rf"The registry cannot start: .*\b{name}\b.*\n", done.stderr)


def test_command_with_a_wrong_value_prints_the_failed_check() -> None:
    done = start("manage.py", "check", OIDC_ISSUER="unset")
    assert done.returncode == 1
    assert "(registry.E003) OIDC_ISSUER must be" in done.stderr
    assert "Traceback" not in done.stderr


SERVERS = [
    ("-m", "uvicorn", "registry_project.asgi:application", "--http=registry_project.asgi:Connection", "--port=0"),
    ("-c", "import registry_project.wsgi"),
    ("-m", "celery", "--app=registry_project", "worker", "--pool=solo"),
    ("-m", "celery", "--app=registry_project", "beat", "--scheduler=celery.beat:Scheduler", "--pidfile="),
]


@pytest.mark.parametrize("server", SERVERS, ids=["asgi", "wsgi", "worker", "beat"])
def test_server_with_a_wrong_value_exits_with_the_sentence_last(server: tuple[str, ...]) -> None:
    done = start(*server, OIDC_ISSUER="unset")
    assert done.returncode != 0
    assert "OIDC_ISSUER must be an https address" in done.stderr.rstrip().splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "maybe"),
        ("SECRET_KEY", "unset"),
        ("OIDC_ISSUER", "unset"),
        ("OIDC_JWKS_URI", "https://[::1"),
        ("REGISTRY_BIND", "203.0.113.1"),
        ("REGISTRY_PORT", "65536"),
        ("REGISTRY_ISSUER_PORT", "0"),
        ("WEB_PROCESSES", "0"),
        ("REGISTRY_DATA_DIR", "/dev/null/data"),
    ],
)
def test_make_run_with_a_wrong_value_prints_one_sentence(tmp_path: Path, name: str, value: str) -> None:
    changed = {"REGISTRY_DATA_DIR": str(tmp_path), "REGISTRY_PORT": str(free_port())} | {name: value}
    if name == "REGISTRY_ISSUER_PORT":
        changed |= {"DEBUG": "true", "OIDC_ISSUER": "unset"}
    done = start("-m", "registry_project.devstack", **changed)
    assert done.returncode == 2
    assert re.fullmatch(rf"The registry cannot start: .*\b{name}\b.*\n", done.stderr)


def test_secret_key_of_make_run_is_created_once(tmp_path: Path) -> None:
    changed = {"DEBUG": "true", "SECRET_KEY": "unset", "REGISTRY_DATA_DIR": str(tmp_path)}
    changed["DJANGO_SETTINGS_MODULE"] = "registry_project.devstack.settings"
    code = "from django.conf import settings; print(settings.SECRET_KEY)"
    keys = [start("-c", code, **changed).stdout.strip() for _ in range(2)]
    assert keys[0] == keys[1] == (tmp_path / "secret_key").read_text()
    assert len(keys[0]) >= 50
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_secret_key_of_make_run_without_a_data_directory_prints_one_sentence() -> None:
    changed = {"DEBUG": "true", "SECRET_KEY": "unset", "REGISTRY_DATA_DIR": "/dev/null/data"}
    changed["DJANGO_SETTINGS_MODULE"] = "registry_project.devstack.settings"
    done = start("manage.py", "check", **changed)
    assert done.returncode == 1
    assert re.fullmatch(r"The registry cannot start: REGISTRY_DATA_DIR .*\n", done.stderr)


def test_command_without_a_database_names_the_setting() -> None:
    done = start("manage.py", "migrate")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("The database of DATABASE_URL cannot be used: ")
    assert "Traceback" not in done.stderr


# --- The environment file -------------------------------------------------------------------------------------------

PRINT_TTL = (
    "-c",
    "from registry_project import env; env.load_environment_file(); import os; print(os.environ.get('X'))",
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("X=1\n", "1"),
        ("# a comment\n\n#X=1\n X = 2 = 3\n", " 2 = 3"),
        ("nothing\n", "None"),
        ("X='quoted'", "'quoted'"),
    ],
)
def test_environment_file_sets_its_variables(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "environment").write_text(text)
    assert start(*PRINT_TTL, REGISTRY_DATA_DIR=str(tmp_path)).stdout == f"{value}\n"
    assert start(*PRINT_TTL, REGISTRY_ENV_FILE=str(tmp_path / "environment")).stdout == f"{value}\n"


def test_environment_file_does_not_replace_a_variable_that_is_set(tmp_path: Path) -> None:
    (tmp_path / "environment").write_text("X=1\n")
    assert start(*PRINT_TTL, REGISTRY_DATA_DIR=str(tmp_path), X="2").stdout == "2\n"


def test_environment_file_that_is_named_and_missing_prints_one_sentence() -> None:
    done = start("manage.py", "check", REGISTRY_ENV_FILE="/nonexistent/environment")
    assert done.returncode == 1
    assert re.fullmatch(r"The registry cannot start: REGISTRY_ENV_FILE .*\n", done.stderr)


# --- docs/settings.md -----------------------------------------------------------------------------------------------

SOURCES = [Path(str(module.__file__)) for module in (project_settings, plan, env)]
ROW = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \|(.*?)\| (.*) \|$", re.MULTILINE)
# Their defaults are expressions, which the document describes in words.
COMPUTED = {
    "ALLOWED_HOSTS",
    "REGISTRY_PASSWORD_LOGIN",
    "OIDC_AUDIENCE",
    "OIDC_RP_CLIENT_ID",
    "REGISTRY_DATA_DIR",
    "REGISTRY_ISSUER_PORT",
}


def reads() -> Iterator[tuple[str, str, list[ast.expr]]]:
    """Yield the name, the function and the other arguments of each read."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                name = str(node.args[0].value)
                if re.fullmatch(r"[A-Z_]{4,}", name) and hasattr(env, function):
                    yield name, function, [*node.args[1:], *(keyword.value for keyword in node.keywords)]


def documented() -> dict[str, tuple[str, str]]:
    """Return unit and default of each setting in the document."""
    text = (ROOT / "docs" / "settings.md").read_text()
    return {name: (unit, default.strip(" `")) for name, unit, default, _meaning in ROW.findall(text)}


def test_document_lists_every_setting_and_no_other() -> None:
    assert set(documented()) == {name for name, *_ in reads()}


def test_document_gives_the_defaults_and_bounds_of_the_code() -> None:
    document = documented()
    checked = 0
    for name, function, arguments in reads():
        if name in COMPUTED or not arguments or not isinstance(arguments[0], ast.Constant):
            continue
        unit, default = document[name]
        assert default.lower() == str(arguments[0].value).lower(), name
        if function == "integer":
            low, high = (ast.literal_eval(bound) for bound in arguments[1:3])
            assert f"{low} to {high}" in unit.replace(",", ""), name
        checked += 1
    assert checked > 20


def test_every_setting_that_its_reader_refuses_is_tried() -> None:
    refusing = {"flag", "integer", "fraction", "new_directory", "postgresql_url", "database"}
    read = {
        name
        for name, function, arguments in reads()
        if function in refusing or (function == "text" and len(arguments) > 1)
    }
    tried = {name for name, _value in UNREADABLE} | {"REGISTRY_PORT", "REGISTRY_ISSUER_PORT", "WEB_PROCESSES"}
    assert len(read) > 10
    assert read - tried == set()
