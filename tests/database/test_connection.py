"""Deadlines of the connection, and the circuit breaker."""

import os
import time
from pathlib import Path

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from registry_project.devstack.postgres import Server
from service_registry.database.connection import BREAKER_SECONDS, Connection, DatabaseUnresponsive, breaker
from tests.database.statements import execute, read_count
from tests.waiting import wait_for

SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"


def test_statement_past_the_deadline_is_abandoned_and_cancelled(short_deadline: None) -> None:
    with pytest.raises(OperationalError, match="did not answer within") as caught:
        execute("SELECT pg_sleep(30)")
    assert isinstance(caught.value.__cause__, DatabaseUnresponsive)
    connection.close_if_unusable_or_obsolete()
    wait_for(lambda: read_count(SLEEPERS) == 0)  # a server that accepts the cancellation is not frozen


def test_statement_past_the_deadline_in_a_transaction_leaves_the_breaker_closed(short_deadline: None) -> None:
    with pytest.raises(OperationalError, match="did not answer within"), transaction.atomic():
        execute("SELECT pg_sleep(30)")
    execute("SELECT 1")


SLOW_COMMIT = """
CREATE TABLE slow (number int);
CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER doze AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION doze()
"""


def test_commit_past_the_deadline_is_abandoned_and_not_cancelled(server: None) -> None:
    execute(SLOW_COMMIT)
    try:
        connection.connection.deadline_seconds = 0.2
        with pytest.raises(OperationalError, match="did not answer"), transaction.atomic():
            execute("INSERT INTO slow VALUES (1)")
        breaker.reset()
        connection.close()
        wait_for(lambda: read_count("SELECT count(*) FROM slow") == 1)
    finally:
        execute("DROP TABLE slow; DROP FUNCTION doze")


def test_open_breaker_admits_one_thread_at_a_time(server: None) -> None:
    breaker.trip()
    with pytest.raises(DatabaseUnresponsive):
        breaker.refuse()
    time.sleep(BREAKER_SECONDS)
    breaker.refuse()  # admits this thread
    with pytest.raises(DatabaseUnresponsive):
        breaker.refuse()
    breaker.reset()
    breaker.refuse()


def test_open_breaker_refuses_others_for_as_long_as_a_trial_takes(server: None) -> None:
    """A trial takes longer than one timeout where the name has several addresses. A forked process makes its own."""
    breaker.trip()
    time.sleep(BREAKER_SECONDS)
    breaker.refuse()  # admits this thread
    child = os.fork()
    if child == 0:
        try:
            breaker.refuse()
        except DatabaseUnresponsive:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(0.3)
    with pytest.raises(DatabaseUnresponsive):
        breaker.refuse()
    breaker.reset()


def test_refused_connection_closes_the_breaker(tmp_path: Path) -> None:
    breaker.trip()
    time.sleep(BREAKER_SECONDS)
    with pytest.raises(psycopg.OperationalError):
        Connection.connect(f"host=127.0.0.1 port={Server(tmp_path).port} connect_timeout=3")
    breaker.refuse()
    breaker.refuse()
