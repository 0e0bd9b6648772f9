"""Deadlines of the connection, what is tried again, and which errors are the database's trouble."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction

from registry_project.devstack.postgres import Server
from service_registry.database.base import SchemaEditor
from service_registry.database.connection import BREAKER_SECONDS, DEADLINE_SECONDS, Connection, DatabaseSilent, breaker
from service_registry.database.outages import is_lost_connection, is_outage
from service_registry.database.retries import with_retries
from service_registry.database.transactions import write_transaction
from tests.waiting import wait_for

SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"


@pytest.fixture
def server(transactional_db: None) -> Iterator[None]:
    """The suite's database outside of a transaction of the test's, and known not to be silent afterwards."""
    yield
    breaker.reset()
    connection.close()


@pytest.fixture
def hurried(server: None) -> None:
    """The connection at hand waits for a fifth of a second; one that is made anew has the usual deadline."""
    connection.close()
    connection.ensure_connection()
    connection.connection.deadline_seconds = 0.2


def count(query: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(query)
        (counted,) = cursor.fetchone()
    return int(counted)


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_statement_that_takes_too_long_is_given_up_and_cancelled(hurried: None) -> None:
    with pytest.raises(OperationalError, match="did not answer within") as caught:
        execute("SELECT pg_sleep(30)")
    assert isinstance(caught.value.__cause__, DatabaseSilent)
    connection.close_if_unusable_or_obsolete()
    wait_for(lambda: count(SLEEPERS) == 0)  # a server that took the cancellation is not silent


def test_so_is_one_in_a_transaction_and_the_server_is_not_silent_then(hurried: None) -> None:
    with pytest.raises(OperationalError, match="did not answer within"), transaction.atomic():
        execute("SELECT pg_sleep(30)")
    execute("SELECT 1")


SLOW_COMMIT = """
CREATE TABLE slow (number int);
CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER doze AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION doze()
"""


def test_a_commit_that_takes_too_long_is_given_up_and_not_cancelled(server: None) -> None:
    execute(SLOW_COMMIT)
    try:
        connection.connection.deadline_seconds = 0.2
        with pytest.raises(OperationalError, match="did not answer"), transaction.atomic():
            execute("INSERT INTO slow VALUES (1)")
        breaker.reset()
        connection.close()
        wait_for(lambda: count("SELECT count(*) FROM slow") == 1)
    finally:
        execute("DROP TABLE slow; DROP FUNCTION doze")


def test_a_silent_server_is_not_waited_for_twice(hurried: None) -> None:
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        with write_transaction(lock_timeout="1s"):
            execute("SELECT pg_sleep(30)")

    with pytest.raises(OperationalError, match="did not answer within"):
        with_retries(run)
    assert len(runs) == 1


def test_a_read_that_takes_too_long_is_not_done_again(hurried: None) -> None:
    """Though the server took its cancellation, and would take a new connection."""
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        execute("SELECT pg_sleep(30)")

    with pytest.raises(OperationalError, match="did not answer within"):
        with_retries(run)
    assert len(runs) == 1
    breaker.refuse()  # another may ask at once


def test_of_many_that_find_the_server_silent_one_tries_at_a_time(server: None) -> None:
    breaker.trip()
    with pytest.raises(DatabaseSilent):
        breaker.refuse()
    time.sleep(BREAKER_SECONDS)
    breaker.refuse()  # this one tries
    with pytest.raises(DatabaseSilent):
        breaker.refuse()
    breaker.reset()
    breaker.refuse()


def test_others_are_refused_for_as_long_as_one_tries(server: None) -> None:
    """That is longer than one address takes where the name has several; and a forked process tries for itself."""
    breaker.trip()
    time.sleep(BREAKER_SECONDS)
    breaker.refuse()  # this one tries
    child = os.fork()
    if child == 0:
        try:
            breaker.refuse()
        except DatabaseSilent:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(0.3)
    with pytest.raises(DatabaseSilent):
        breaker.refuse()
    breaker.reset()


def test_a_server_that_refuses_is_not_silent(tmp_path: Path) -> None:
    breaker.trip()
    time.sleep(1.01)
    with pytest.raises(psycopg.OperationalError):
        Connection.connect(f"host=127.0.0.1 port={Server(tmp_path).port} connect_timeout=3")
    breaker.refuse()
    breaker.refuse()


def test_an_ended_connection_is_made_anew_once(server: None) -> None:
    runs: list[int] = []

    def run(endings: int) -> str:
        runs.append(1)
        execute("SELECT pg_terminate_backend(pg_backend_pid())" if len(runs) <= endings else "SELECT 1")
        return "done"

    assert with_retries(lambda: run(1)) == "done"
    runs.clear()
    with pytest.raises(OperationalError):
        with_retries(lambda: run(2))
    assert len(runs) == 2
    connection.close()


def test_a_process_that_was_frozen_in_a_transaction_does_it_again(server: None) -> None:
    runs: list[int] = []

    def run() -> None:
        with write_transaction(lock_timeout="1s"):
            execute("SELECT set_config('idle_in_transaction_session_timeout', '100ms', true)")
            runs.append(1)
            time.sleep(0.3 if len(runs) == 1 else 0)
            execute("SELECT 1")

    with_retries(run)
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("statement", "outage"),
    [
        ("SELECT * FROM not_there", True),
        ("SELECT not_there FROM service_registry_lease", True),
        ("SET TRANSACTION READ ONLY; DELETE FROM service_registry_change", True),
        ("SELECT 1 / 0", False),
        ("SELEC", False),
    ],
)
def test_an_outage_is_told_from_a_mistake(server: None, statement: str, outage: bool) -> None:
    with pytest.raises(DatabaseError) as caught:
        execute(statement)
    assert is_outage(caught.value) == outage
    assert not is_lost_connection(caught.value)


def test_migrations_take_the_time_they_take(hurried: None) -> None:
    with SchemaEditor(connections["default"]) as editor:
        editor.execute("SELECT pg_sleep(0.5)")
    assert connection.connection.deadline_seconds == DEADLINE_SECONDS


def test_what_a_migration_failed_with_is_said_though_the_server_is_silent_then(hurried: None) -> None:
    def migrate() -> None:
        with SchemaEditor(connections["default"]) as editor:
            breaker.trip()
            editor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError, match="terminating connection"):
        migrate()
