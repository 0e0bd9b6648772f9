"""`manage.py doctor`: findings, output formats and exit code."""

import json
import re
import socket
import subprocess
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from service_registry.access_models import SigningKeys
from service_registry.expiry import observation_window
from service_registry.expiry.sweep import sweep
from service_registry.management import doctor
from service_registry.models import RegistryState
from tests import ageing, fleets
from tests.client import Api
from tests.commands import ROOT, command_line, environment, run


def findings_by_check() -> dict[str, doctor.Finding]:
    return dict(doctor.run_checks())


@pytest.fixture
def running(db: None, settings: Settings) -> None:
    """Pulse, sweep and store keys, as a running registry does."""
    settings.DEBUG = True  # pytest-django switches it off
    observation_window.Pulse().record()
    sweep()
    SigningKeys.objects.update_or_create(issuer=settings.OIDC_ISSUER, defaults={"document": {}})


def test_doctor_of_a_running_registry_finds_nothing(running: None) -> None:
    findings = findings_by_check()
    # The PostgreSQL server of the tests runs without fsync and autovacuum.
    assert findings.pop("durability").level == "warn"
    assert findings.pop("vacuum").message.endswith("; autovacuum is off")
    assert {name: finding for name, finding in findings.items() if finding.level != "ok"} == {}


def test_doctor_prints_a_line_for_each_check(running: None) -> None:
    lines = run("doctor").splitlines()
    assert len(lines) == len(findings_by_check())
    assert any(line.startswith("ok    migrations   all applied.") for line in lines)
    assert any(line.startswith("warn  durability") and "to on." in line for line in lines)


def test_doctor_with_json_prints_an_array(running: None) -> None:
    printed = json.loads(run("doctor", "--json"))
    assert {"check": "migrations", "level": "ok", "message": "all applied", "advice": ""} in printed


def test_doctor_with_a_failed_check_exits_with_1(running: None) -> None:
    ageing.interrupt_observation(60)
    with pytest.raises(SystemExit) as ended:
        run("doctor")
    assert ended.value.code == 1
    assert findings_by_check()["observation"].message.endswith("s: nothing expires")


def test_sweep_that_is_late_is_a_warning_and_a_stuck_one_a_failure(running: None) -> None:
    for earlier, level in (("10 seconds", "warn"), ("10 minutes", "fail")):
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RegistryState._meta.db_table} SET swept_at = clock_timestamp() - %s::interval", [earlier]
            )
        assert findings_by_check()["sweep"].level == level


def test_protected_instances_are_a_warning_that_names_the_largest_service(running: None, payments: Api) -> None:
    small, other = (fleets.register_fleet(payments, {name: size}) for name, size in (("small", 8), ("other", 6)))
    assert findings_by_check()["protection"] == doctor.Finding("ok", "no instance is protected past its deadline")
    fleets.set_heartbeat_age(34, [*small[:5], *other[:4]])
    sweep()
    finding = findings_by_check()["protection"]
    assert finding.level == "warn"
    assert finding.message.startswith("9 instances of 2 services are protected past their deadline, the first since 20")
    assert finding.message.endswith(" UTC; 5 of them of default/small")
    assert "release_service" in finding.advice


def test_suspended_expiry_is_a_warning_until_a_heartbeat_arrives(running: None, payments: Api) -> None:
    ids = fleets.register_fleet(payments, {"a": 8, "b": 8, "c": 8})
    assert findings_by_check()["suspension"].level == "ok"
    fleets.set_heartbeat_age(25, ids)
    sweep()
    finding = findings_by_check()["suspension"]
    assert finding.level == "warn"
    assert re.fullmatch(
        r"no heartbeat from the whole fleet for \d+ s: expiry is suspended, for 60 min more or until a heartbeat",
        finding.message,
    )
    assert "load balancer" in finding.advice
    ageing.age_suspension(2 * 3600)
    assert findings_by_check()["suspension"].message.endswith(
        "2 h, and the longest suspension is over: instances without heartbeats expire"
    )
    fleets.send_heartbeats(payments, ids[:1])
    sweep()
    assert findings_by_check()["suspension"].level == "ok"


def test_unreachable_provider_is_a_warning(running: None, settings: Settings) -> None:
    settings.OIDC_ISSUER = "http://127.0.0.1:9/realms/main"
    findings = findings_by_check()
    assert (findings["keys"].level, findings["stored keys"].level) == ("warn", "warn")
    assert "OIDC_ISSUER" in findings["keys"].advice


def test_keys_with_only_refused_algorithms_are_a_failure(running: None, settings: Settings) -> None:
    settings.OIDC_ALGORITHMS = ["ES256"]
    assert findings_by_check()["keys"].level == "fail"


def test_unreachable_broker_is_a_warning_without_its_password(running: None, settings: Settings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings.CELERY_BROKER_URL = f"redis://user:very-secret@127.0.0.1:{unused.getsockname()[1]}/0"
        finding = findings_by_check()["broker"]
    assert (finding.level, finding.message) == ("warn", "redis://127.0.0.1 does not answer")


def test_role_without_write_privilege_is_a_failure(running: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE ROLE read_only; GRANT SELECT ON ALL TABLES IN SCHEMA public TO read_only; SET ROLE read_only"
        )
        finding = findings_by_check()["role"]
        cursor.execute("RESET ROLE")
    assert finding.level == "fail"
    assert "service_registry_lease" in finding.message


def test_production_has_stricter_checks(running: None, settings: Settings) -> None:
    settings.DEBUG = False
    findings = findings_by_check()
    assert findings["settings"].level == "fail"
    assert "with DEBUG off" in findings["settings"].message
    assert findings["role"].message == "the role is a superuser"


def test_missing_migration_is_a_failure(running: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM django_migrations WHERE app = 'service_registry' AND name = "
            "(SELECT max(name) FROM django_migrations WHERE app = 'service_registry') RETURNING name"
        )
        (newest,) = cursor.fetchone()
    assert findings_by_check()["migrations"].message == f"1 not applied, the first is service_registry.{newest}"


@pytest.mark.django_db(transaction=True)
def test_database_without_tables_differs_from_an_unreachable_one(settings: Settings) -> None:
    address = environment()["DATABASE_URL"]
    empty = run_failing_doctor(address.rpartition("/")[0] + "/postgres")
    assert empty["database"]["level"] == "ok"
    assert (empty["sweep"]["level"], empty["sweep"]["advice"]) == ("fail", "run manage.py migrate")
    unreachable = run_failing_doctor("postgresql://registry:x@127.0.0.1:9/registry")
    assert unreachable["database"]["level"] == "fail"
    assert unreachable["sweep"]["message"] == "the database is not reachable"


def run_failing_doctor(address: str) -> dict[str, Any]:
    """Run the doctor as a process, check that it exits with 1, and return its findings by check."""
    done = subprocess.run(
        command_line("doctor", "--json"),
        env=environment() | {"DATABASE_URL": address},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    return {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_doctor_counts_the_services_that_end_at_the_next_run(running: None, payments: Api, settings: Settings) -> None:
    for name in ("old", "new"):
        payments.register(name)
        payments.deregister(name)
        if name == "old":
            ageing.age_services(8)
    payments.register("used")
    message = "2 services that registrations created are empty; beat ends {} of them at its next run"
    assert findings_by_check()["empty"] == doctor.Finding("ok", message.format(1))
    settings.REGISTRY_EMPTY_SERVICE_DAYS = 0
    assert findings_by_check()["empty"] == doctor.Finding("ok", message.format(0))


def test_permanent_instances_are_counted_and_those_that_nothing_judges_named(
    running: None, payments: Api, settings: Settings
) -> None:
    def found() -> str:
        finding = findings_by_check()["permanent"]
        assert finding.level == "ok"
        return finding.message

    payments.register()
    assert found() == "no permanent instance"
    settings.REGISTRY_HEALTH_NETWORKS = ["127.0.0.0/8"]
    payments.register("db", "db-1", lease="none", health_check={"type": "tcp"})
    assert found() == "1 permanent instance, each with a health check"
    for number in range(5):
        payments.register("printer", f"p-{number}", lease="none")
    assert found() == (
        "6 permanent instances; nothing judges 5 of them, without a health check: "
        "default/printer/p-0, default/printer/p-1, default/printer/p-2 and 2 more"
    )
