"""Commands with wrong arguments, streams, settings or databases end with a sentence and an exit code."""

import contextlib
import io
import subprocess
import sys

import pytest
from pytest_django import Settings

import manage
from tests.client import Api
from tests.commands import ROOT, command_line, environment, run

pytestmark = pytest.mark.django_db(transaction=True)

NUL, NOT_UTF8 = "a\0b", "\udcff"  # how Python gives a command the byte 0xff
TEXTS = ["", " ", NUL, NOT_UTF8, "x" * 600, "-1", "a/b", "a\nb", "%s", "="]
TIMES = [*TEXTS, "0d", "9" * 400, "99999999d", "2026-12-31", "2999-01-01T00:00:00", "9999-12-31T23:59:59-23:59"]
# `@` is replaced by each of the texts.
ARGUMENTS = [
    (TEXTS, "release_service @ --reason x"),
    (TEXTS, "release_service web --namespace=@ --reason x"),
    (TEXTS, "release_service web --reason=@"),  # there is no such service
    (TEXTS, "deny_caller web --lift --reason=@"),  # and no such denial
    (["", NUL, NOT_UTF8, "x" * 600, "a\nb"], "deny_caller @ --reason x"),
    (["", " ", NUL, NOT_UTF8, "x" * 600], "deny_caller batch --reason=@"),
    (TIMES, "deny_caller batch --reason x --until=@"),
    (TIMES, "deny_caller batch --reason x --for=@"),
    (["", " ", NUL, NOT_UTF8, "x" * 600, "-1", "a/b"], "provision_service @ --owner a"),
    (["", NUL, NOT_UTF8, "x" * 600, "a\nb"], "provision_service web --owner=@"),
    (["", NUL, NOT_UTF8, "-1", "A"], "provision_service web --owner a --namespace=@"),
    (["", " ", NUL, NOT_UTF8, "x" * 600], "provision_service web --owner a --reason=@"),
    (TIMES, "prune_changes --older-than=@"),
    (TIMES, "remove_instances --silent-for=@ --dry-run"),
    (["", NUL, NOT_UTF8, "-1", "x" * 600], "remove_instances --service=@ --dry-run"),
    (["", NUL, NOT_UTF8, "-1", "A"], "remove_instances --namespace=@ --dry-run"),
    (["", NUL, NOT_UTF8, "-1", "up"], "remove_instances --status=@ --dry-run"),
    (["", NUL, NOT_UTF8, "a b", "x" * 600], "remove_instances --zone=@ --dry-run"),
    (["", NUL, NOT_UTF8, "x"], "remove_instances --metadata=@ --dry-run"),
    (["", NUL, NOT_UTF8, "a b"], "remove_instances --metadata=@=x --dry-run"),
    ([NUL, NOT_UTF8, "x" * 3000], "remove_instances --metadata=x=@ --dry-run"),
    (["", " ", NUL, NOT_UTF8, "x" * 600], "remove_instances --all --yes --reason=@"),
    (["", NUL, NOT_UTF8, "x" * 600, "/", "/nowhere", "/bin/ls"], "import_registry @"),
    ([NUL, NOT_UTF8, "-1", "x"], "sweep @"),
    (["x", "-1", "9" * 400], "doctor --verbosity=@"),
    ([NUL, NOT_UTF8, "sweeep"], "@"),
]


def run_main(*arguments: str) -> tuple[int, str]:
    """Run `manage.py` in this process, and return the exit code and what it wrote to standard error."""
    error = io.StringIO()
    before, sys.argv = sys.argv, ["manage.py", *arguments]
    try:
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            manage.main()
    except SystemExit as ended:
        return (ended.code, error.getvalue()) if isinstance(ended.code, int) else (1, str(ended.code))
    finally:
        sys.argv = before
    return 0, error.getvalue()


def test_wrong_arguments_are_named_in_a_sentence(settings: Settings) -> None:
    settings.DEBUG = True  # pytest-django switches it off
    unexpected = []
    for texts, line in ARGUMENTS:
        for text in texts:
            code, error = run_main(*(part.replace("@", text) for part in line.split()))
            if code not in {1, 2} or not error.strip():
                unexpected.append((line, text[:20], code, error[:200]))
    assert unexpected == []


def test_empty_filter_does_not_widen_what_is_removed(settings: Settings, payments: Api) -> None:
    """As where a shell variable is not set."""
    settings.DEBUG = True
    payments.register()
    for empty in ("--service=", "--zone=", "--silent-for=", "--metadata="):
        code, error = run_main("remove_instances", "--namespace=default", empty, "--yes", "--reason=x")
        assert (code, empty.rstrip("=") in error) == (1, True)
    assert "1 instances match" in run("remove_instances", "--all", "--dry-run")


COMMANDS = ["sweep", "export_registry", "prune_changes", "deny_caller --list", "remove_instances --all --dry-run"]
NO_DATABASE = {"DATABASE_URL": "postgresql://registry:x@127.0.0.1:9/registry"}


def run_in_shell(line: str, redirections: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = " ".join(command_line(*line.split()))
    return subprocess.run(
        ["/bin/sh", "-c", f"{command} {redirections}"],
        env=environment() | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_sentence(done: subprocess.CompletedProcess[str], expected: str) -> None:
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert expected in done.stderr


@pytest.mark.parametrize("line", COMMANDS)
def test_command_without_tables_names_the_command_that_creates_them(line: str) -> None:
    server = environment()["DATABASE_URL"].rpartition("/")[0]
    assert_sentence(run_in_shell(line, DATABASE_URL=f"{server}/postgres"), "Run manage.py migrate.")


@pytest.mark.parametrize(
    ("line", "redirections", "variables", "sentence"),
    [
        ("sweep", "", NO_DATABASE, "The database of DATABASE_URL cannot be used: "),
        ("sweep", "", {"DATABASE_URL": "postgresql://\udcff@127.0.0.1/x"}, "DATABASE_URL must be the address of"),
        ("sweep", "", {"DATABASE_URL": ""}, "The registry cannot start: DATABASE_URL must be set"),
        ("sweep", "", {"SECRET_KEY": ""}, "The registry cannot start: The SECRET_KEY setting must not be empty."),
        ("sweep", "", {"DJANGO_SETTINGS_MODULE": "nowhere"}, "there is no module nowhere"),
        ("sweep", "", {"REGISTRY_ENV_FILE": "/"}, "REGISTRY_ENV_FILE cannot be read: Is a directory."),
        ("sweep", "", {"REGISTRY_ENV_FILE": "/bin/ls"}, "/bin/ls must have lines NAME=value in UTF-8"),
        ("sweep", ">&-", {}, "must not be closed; nothing was done"),
        ("sweep", ">/dev/full", {}, "The output cannot be written: No space left on device."),
        ("doctor", ">/dev/full", {}, "The output cannot be written: No space left on device."),
    ],
)
def test_command_in_a_wrong_environment_ends_with_a_sentence(
    line: str, redirections: str, variables: dict[str, str], sentence: str
) -> None:
    assert_sentence(run_in_shell(line, redirections, **variables), sentence)


def test_change_is_reported_in_every_locale() -> None:
    done = run_in_shell("provision_service web --owner größe", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "default/web created with owners größe.\n")


def test_command_without_standard_input_or_settings_module_runs() -> None:
    assert run_in_shell("import_registry -", "<&-", DJANGO_SETTINGS_MODULE="").returncode == 0
    assert_sentence(run_in_shell("remove_instances --all --reason x", "<&-"), "Standard input is not a terminal")


def test_doctor_with_a_wrong_broker_address_reports_it() -> None:
    done = run_in_shell("doctor", CELERY_BROKER_URL="redis://127.0.0.1:99999/0")
    assert "warn  broker " in done.stdout
    assert done.stderr == ""
