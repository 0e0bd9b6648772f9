"""Dead rows: the findings of the doctor, and the transactions that a role sees."""

from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection

from service_registry import metrics
from service_registry.database.dead_rows import Slot, TableRows, Transaction, read_rows, read_transactions
from service_registry.management.doctor.dead_rows import check_transactions, judge_rows, judge_slots, judge_transactions
from service_registry.sql import LEASE
from tests.commands import environment


def transaction(seconds: float | None = 5.0, held: int = 7, kind: str = "transaction") -> Transaction:
    state = {"prepared": "prepared"}.get(kind, "idle in transaction" if seconds is not None else None)
    return Transaction(kind, "4711", "psql", state, seconds, held)


IDLE_SESSION = "the oldest began {} ago: process 4711, psql, idle in transaction"
HIDDEN = "age and state of 1 of other roles are not visible, {} transactions began since"


@pytest.mark.parametrize(
    ("found", "level", "message", "advice"),
    [
        ([], "ok", "none keeps dead rows", ""),
        ([transaction(5), transaction(3)], "ok", IDLE_SESSION.format("5 s"), ""),
        ([transaction(3), transaction(3600)], "warn", IDLE_SESSION.format("60 min"), "pg_terminate_backend"),
        ([transaction(None, 9)], "ok", HIDDEN.format(9), ""),
        ([transaction(None, 60_000)], "warn", HIDDEN.format(60_000), "GRANT pg_read_all_stats"),
        (
            [transaction(61, kind="prepared")],
            "warn",
            "the oldest was prepared 61 s ago by psql: '4711'",
            "ROLLBACK PREPARED",
        ),
        (
            [transaction(None, 60_000, "standby")],
            "warn",
            "60000 transactions began since the oldest query of standby psql",
            "hot_standby_feedback",
        ),
    ],
)
def test_transactions_are_judged_by_their_age(found: list[Transaction], level: str, message: str, advice: str) -> None:
    finding = judge_transactions(found)
    assert (finding.level, finding.message) == (level, message)
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("slots", "level", "message"),
    [
        ([], "ok", "no replication slot"),
        (
            [Slot("standby", True, 12, 5 * 2**20)],
            "ok",
            "1, the oldest is standby, which keeps 12 transactions and 5 MiB of WAL",
        ),
        (
            [Slot("standby", True, 60_000, 0)],
            "warn",
            "1, the oldest is standby, which keeps 60000 transactions and 0 MiB of WAL",
        ),
        (
            [Slot("standby", True, 12, 0), Slot("left", False, 0, 2**30)],
            "warn",
            "2, the oldest is standby, which keeps 12 transactions and 0 MiB of WAL; 1 unused, the largest is left, "
            "which keeps 0 transactions and 1024 MiB of WAL",
        ),
    ],
)
def test_slots_are_judged_by_their_use_and_age(slots: list[Slot], level: str, message: str) -> None:
    finding = judge_slots(slots)
    assert (finding.level, finding.message) == (level, message)


@pytest.mark.parametrize(
    ("rows", "autovacuum", "level", "message"),
    [
        (TableRows(0, 0, None), True, "ok", "0 of 0 rows of leases are dead (0%); never vacuumed"),
        (TableRows(9000, 9000, 30), True, "ok", "9000 of 18000 rows of leases are dead (50%); vacuumed 30 s ago"),
        (TableRows(100, 900, 30), True, "ok", "900 of 1000 rows of leases are dead (90%); vacuumed 30 s ago"),
        (TableRows(9000, 81_000, 30), True, "warn", "81000 of 90000 rows of leases are dead (90%); vacuumed 30 s ago"),
        (
            TableRows(1, 1, 30),
            False,
            "warn",
            "1 of 2 rows of leases are dead (50%); vacuumed 30 s ago; autovacuum is off",
        ),
    ],
)
def test_dead_rows_are_judged_by_number_and_share(rows: TableRows, autovacuum: bool, level: str, message: str) -> None:
    finding = judge_rows(rows, runs_by_itself=autovacuum)
    assert (finding.level, finding.message) == (level, message)


@pytest.fixture
def other_session(db: None) -> Iterator[psycopg.Connection]:
    address = environment()["DATABASE_URL"]
    with psycopg.connect(address, application_name="report", connect_timeout=5) as session:
        yield session
        session.rollback()


def test_transaction_with_a_snapshot_is_found(other_session: psycopg.Connection) -> None:
    other_session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    other_session.execute("SELECT 1")
    (found,) = read_transactions()
    assert (found.kind, found.application, found.state) == ("transaction", "report", "idle in transaction")
    assert found.name == str(other_session.info.backend_pid)
    assert found.seconds is not None


def test_transaction_that_has_written_is_found(other_session: psycopg.Connection) -> None:
    other_session.execute("CREATE TEMPORARY TABLE written ()")
    assert [each.application for each in read_transactions()] == ["report"]


def test_transaction_without_a_snapshot_keeps_no_rows(other_session: psycopg.Connection) -> None:
    other_session.execute("SELECT 1")
    assert other_session.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert read_transactions() == []


def test_transaction_of_another_database_keeps_no_rows(db: None) -> None:
    server = environment()["DATABASE_URL"].rpartition("/")[0]
    with psycopg.connect(f"{server}/postgres", connect_timeout=5) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.execute("SELECT 1")
        assert read_transactions() == []


def test_transaction_of_another_role_is_not_visible_rather_than_absent(other_session: psycopg.Connection) -> None:
    other_session.execute("CREATE TEMPORARY TABLE written ()")
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE limited; GRANT pg_read_all_data TO limited; SET ROLE limited")
        hidden, shown = check_transactions(), metrics.exposition().decode()
        cursor.execute("RESET ROLE; GRANT pg_read_all_stats TO limited; SET ROLE limited")
        visible = check_transactions()
        cursor.execute("RESET ROLE")
    assert hidden.message.startswith("age and state of 1 of other roles are not visible")
    assert "\nregistry_oldest_transaction_seconds" not in shown
    assert '\nregistry_held_transactions{holder="transaction"} ' in shown
    assert visible.message.endswith(", report, idle in transaction")


def test_dead_rows_of_the_lease_table_and_its_last_vacuum_are_read(transactional_db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM {LEASE}")
        rows = read_rows(LEASE)
    assert rows.dead >= 0
    assert rows.vacuumed_seconds is not None
