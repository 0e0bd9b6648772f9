"""Retries of transactions and reads."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import InternalError, OperationalError, connection, connections

from service_registry.database.base import prepared_cursor
from service_registry.database.connection import breaker
from service_registry.database.transactions import with_retries, write_transaction
from tests.database.statements import execute


def test_transaction_past_the_deadline_is_not_repeated(short_deadline: None) -> None:
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        with write_transaction(lock_timeout="1s"):
            execute("SELECT pg_sleep(30)")

    with pytest.raises(OperationalError, match="did not answer within"):
        with_retries(run)
    assert len(runs) == 1


def test_read_past_the_deadline_is_not_repeated(short_deadline: None) -> None:
    """Although the server accepts the cancellation, and would accept a new connection."""
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        execute("SELECT pg_sleep(30)")

    with pytest.raises(OperationalError, match="did not answer within"):
        with_retries(run)
    assert len(runs) == 1
    breaker.refuse()  # another thread may connect at once


def test_lost_connection_is_repeated_once(server: None) -> None:
    runs: list[int] = []

    def run(losses: int) -> str:
        runs.append(1)
        execute("SELECT pg_terminate_backend(pg_backend_pid())" if len(runs) <= losses else "SELECT 1")
        return "done"

    assert with_retries(lambda: run(1)) == "done"
    runs.clear()
    with pytest.raises(OperationalError):
        with_retries(lambda: run(2))
    assert len(runs) == 2
    connection.close()


def test_write_in_a_read_only_session_is_repeated_on_a_new_connection(server: None) -> None:
    """Sessions on a demoted primary stay read-only."""
    execute("SET default_transaction_read_only = on")

    def run() -> None:
        with write_transaction(lock_timeout="1s"):
            execute("CREATE TABLE written (id int)")
            execute("DROP TABLE written")

    with pytest.raises(InternalError, match="read-only"):
        run()
    with_retries(run)


@pytest.fixture
def prepare_threshold(server: None) -> Iterator[dict[str, Any]]:
    """The options of new connections, as they were before the test."""
    options = connections.settings["default"]["OPTIONS"]
    before = options["prepare_threshold"]
    yield options
    options["prepare_threshold"] = before
    connection.close()


def test_write_whose_prepared_statements_are_lost_is_repeated_without_preparing(
    prepare_threshold: dict[str, Any],
) -> None:
    """As behind a transaction pooler that has none."""

    def run() -> int:
        with write_transaction(lock_timeout="1s"), prepared_cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_prepared_statements")
            return int(cursor.fetchone()[0])

    run()
    assert run() > 0
    execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")  # psycopg notices a plain DEALLOCATE ALL
    assert with_retries(run) == 0
    assert prepare_threshold["prepare_threshold"] is None


def test_transaction_of_a_frozen_process_is_repeated(server: None) -> None:
    runs: list[int] = []

    def run() -> None:
        with write_transaction(lock_timeout="1s"):
            execute("SELECT set_config('idle_in_transaction_session_timeout', '100ms', true)")
            runs.append(1)
            time.sleep(0.3 if len(runs) == 1 else 0)
            execute("SELECT 1")

    with_retries(run)
    assert len(runs) == 2
