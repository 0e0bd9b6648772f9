"""Transactions and replication slots of a real server, in `doctor` and on /metrics."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service_registry.management import doctor
from tests.commands import ROOT, command_line
from tests.server.registry import Registry
from tests.server.standby import Standby
from tests.waiting import wait_for

SETTINGS = {"wal_level": "logical", "max_prepared_transactions": "2"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("dead-rows"), settings=SETTINGS) as running:
        yield running


@pytest.fixture
def session(registry: Registry) -> Iterator[psycopg.Connection]:
    with psycopg.connect(registry.postgres.url, application_name="report", connect_timeout=5) as opened:
        yield opened
        opened.rollback()


def run_doctor(registry: Registry) -> dict[str, doctor.Finding]:
    done = subprocess.run(
        command_line("doctor", "--json"),
        env=registry.environment,
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return {found.pop("check"): doctor.Finding(**found) for found in json.loads(done.stdout)}


def read_held(registry: Registry, holder: str) -> float:
    return registry.read_metric(f'registry_held_transactions{{holder="{holder}"}}')


def test_open_snapshot_is_named_with_process_application_and_state(
    registry: Registry, session: psycopg.Connection
) -> None:
    session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    session.execute("SELECT 1")
    for number in range(20):
        registry.caller("registry-services", "team").register("held", f"h-{number}")
    assert registry.read_metric("registry_oldest_transaction_seconds") > 0
    assert read_held(registry, "transaction") >= 20
    message = run_doctor(registry)["transactions"].message
    assert message.endswith(f": process {session.info.backend_pid}, report, idle in transaction")


def test_prepared_transaction_is_named_with_its_identifier(registry: Registry) -> None:
    with psycopg.connect(registry.postgres.url, autocommit=True, connect_timeout=5) as session:
        session.execute("BEGIN")
        session.execute("CREATE TABLE left_over ()")
        session.execute("PREPARE TRANSACTION 'two-phase'")
        try:
            message = run_doctor(registry)["transactions"].message
            assert "the oldest was prepared" in message
            assert message.endswith("ago by registry: 'two-phase'")
            assert read_held(registry, "prepared") >= 1
        finally:
            session.execute("ROLLBACK PREPARED 'two-phase'")


@pytest.mark.parametrize(
    "create",
    [
        "SELECT pg_create_physical_replication_slot('left_over', immediately_reserve => true)",
        "SELECT pg_create_logical_replication_slot('left_over', 'pgoutput')",
    ],
    ids=["physical", "logical"],
)
def test_unused_slot_is_a_warning_until_it_is_dropped(registry: Registry, create: str) -> None:
    registry.execute(create)
    try:
        registry.caller("registry-services", "team").register("kept")
        finding = run_doctor(registry)["slots"]
        assert finding.level == "warn"
        assert "; 1 unused, the largest is left_over, which keeps " in finding.message
        assert registry.read_metric('registry_replication_slots{state="unused"}') == 1
        assert registry.read_metric("registry_replication_slot_wal_bytes") > 0
        if "logical" in create:
            assert read_held(registry, "slot") > 0
    finally:
        registry.execute("SELECT pg_drop_replication_slot('left_over')")
    assert run_doctor(registry)["slots"] == doctor.Finding("ok", "no replication slot")
    assert registry.read_metric('registry_replication_slots{state="unused"}') == 0


def test_query_of_a_standby_with_feedback_is_named(registry: Registry, tmp_path: Path) -> None:
    standby = Standby(registry.postgres, tmp_path / "standby")
    try:
        with psycopg.connect(standby.server.url, autocommit=True, connect_timeout=5) as session:
            session.execute("ALTER SYSTEM SET hot_standby_feedback = on")
            session.execute("ALTER SYSTEM SET wal_receiver_status_interval = '1s'")
            session.execute("SELECT pg_reload_conf()")
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            session.execute("SELECT 1")
            wait_for(
                lambda: registry.caller("registry-services", "team").register("fed") and read_held(registry, "standby")
            )
            assert "since the oldest query of standby walreceiver" in run_doctor(registry)["transactions"].message
    finally:
        standby.server.stop()
