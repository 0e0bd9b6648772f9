"""`manage.py doctor`: a line a check, and an exit code for scripts."""

import json
import re
import socket
import subprocess
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from service_registry.expiry import observation
from service_registry.expiry.sweep import sweep
from service_registry.management import doctor
from service_registry.models import RegistryState, SigningKeys
from tests import ageing, fleets
from tests.client import Api
from tests.commands import ROOT, command_line, environment, run


def found() -> dict[str, doctor.Finding]:
    return dict(doctor.examine())


@pytest.fixture
def running(db: None, settings: Settings) -> None:
    """As while a registry runs: heard, swept, with keys stored."""
    settings.DEBUG = True  # pytest takes it off
    observation.Pulse().beat()
    sweep()
    SigningKeys.objects.update_or_create(issuer=settings.OIDC_ISSUER, defaults={"document": {}})


def test_a_running_registry_is_well(running: None) -> None:
    findings = found()
    # The suite's own server is not to survive a crash.
    assert findings.pop("durability").level == "warn"
    assert {name: finding for name, finding in findings.items() if finding.level != "ok"} == {}


def test_it_prints_a_line_a_check(running: None) -> None:
    lines = run("doctor").splitlines()
    assert len(lines) == len(found())
    assert any(line.startswith("ok    migrations   all applied.") for line in lines)
    assert any(line.startswith("warn  durability") and "to on." in line for line in lines)


def test_it_prints_json_for_programs(running: None) -> None:
    printed = json.loads(run("doctor", "--json"))
    assert {"check": "migrations", "level": "ok", "said": "all applied", "advice": ""} in printed


def test_a_failure_is_exit_code_1(running: None) -> None:
    ageing.interrupt_observation(60)
    with pytest.raises(SystemExit) as ended:
        run("doctor")
    assert ended.value.code == 1
    assert found()["observation"].said.endswith("s: nothing expires")


def test_a_sweep_that_is_late_is_a_warning_and_a_stuck_one_a_failure(running: None) -> None:
    for earlier, level in (("10 seconds", "warn"), ("10 minutes", "fail")):
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RegistryState._meta.db_table} SET swept_at = clock_timestamp() - %s::interval", [earlier]
            )
        assert found()["sweep"].level == level


def test_protected_instances_are_a_warning_that_names_the_largest_service(running: None, payments: Api) -> None:
    small, other = (fleets.register_fleet(payments, {name: size}) for name, size in (("small", 8), ("other", 6)))
    assert found()["protection"] == doctor.Finding("ok", "no instance is protected past its deadline")
    fleets.set_heartbeat_age(34, [*small[:5], *other[:4]])
    sweep()
    finding = found()["protection"]
    assert finding.level == "warn"
    assert finding.said.startswith("9 instances of 2 services are protected past their deadline, the first since 20")
    assert finding.said.endswith(" UTC; 5 of them of default/small")
    assert "release_service" in finding.advice


def test_suspended_expiry_is_a_warning_until_a_heartbeat_arrives(running: None, payments: Api) -> None:
    ids = fleets.register_fleet(payments, {"a": 8, "b": 8, "c": 8})
    assert found()["suspension"].level == "ok"
    fleets.set_heartbeat_age(25, ids)
    sweep()
    finding = found()["suspension"]
    assert finding.level == "warn"
    assert re.fullmatch(
        r"no heartbeat from the whole fleet for \d+ s: expiry is suspended, for 60 min more or until a heartbeat",
        finding.said,
    )
    assert "load balancer" in finding.advice
    ageing.age_suspension(2 * 3600)
    assert found()["suspension"].said.endswith(
        "2 h, and the longest suspension is over: instances without heartbeats expire"
    )
    fleets.send_heartbeats(payments, ids[:1])
    sweep()
    assert found()["suspension"].level == "ok"


def test_a_provider_that_is_away_is_a_warning(running: None, settings: Settings) -> None:
    settings.OIDC_ISSUER = "http://127.0.0.1:9/realms/main"
    findings = found()
    assert (findings["keys"].level, findings["stored keys"].level) == ("warn", "warn")
    assert "OIDC_ISSUER" in findings["keys"].advice


def test_keys_of_algorithms_that_are_not_accepted_are_a_failure(running: None, settings: Settings) -> None:
    settings.OIDC_ALGORITHMS = ["ES256"]
    assert found()["keys"].level == "fail"


def test_a_broker_that_is_away_is_a_warning_without_its_password(running: None, settings: Settings) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings.CELERY_BROKER_URL = f"redis://user:very-secret@127.0.0.1:{nobody.getsockname()[1]}/0"
        finding = found()["broker"]
    assert (finding.level, finding.said) == ("warn", "redis://127.0.0.1 does not answer")


def test_a_role_that_may_not_write_is_a_failure(running: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE looker; GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker; SET ROLE looker")
        finding = found()["role"]
        cursor.execute("RESET ROLE")
    assert finding.level == "fail"
    assert "service_registry_lease" in finding.said


def test_production_is_held_to_more(running: None, settings: Settings) -> None:
    settings.DEBUG = False
    findings = found()
    assert findings["settings"].level == "warn"
    assert findings["role"].said == "the role is a superuser"


def test_a_missing_migration_is_a_failure(running: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM django_migrations WHERE app = 'service_registry' AND name = "
            "(SELECT max(name) FROM django_migrations WHERE app = 'service_registry') RETURNING name"
        )
        (newest,) = cursor.fetchone()
    assert found()["migrations"].said == f"1 not applied, the first is service_registry.{newest}"


@pytest.mark.django_db(transaction=True)
def test_a_database_without_tables_is_told_from_one_that_is_away(settings: Settings) -> None:
    address = environment()["DATABASE_URL"]
    empty = examined(address.rpartition("/")[0] + "/postgres")
    assert empty["database"]["level"] == "ok"
    assert (empty["sweep"]["level"], empty["sweep"]["advice"]) == ("fail", "run manage.py migrate")
    away = examined("postgresql://registry:x@127.0.0.1:9/registry")
    assert away["database"]["level"] == "fail"
    assert away["sweep"]["said"] == "the database cannot be asked"


def examined(address: str) -> dict[str, Any]:
    """The findings of a doctor of its own, which must end with code 1."""
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
