"""Fixtures for tests that break their database connection."""

from collections.abc import Iterator

import pytest
from django.db import connection

from service_registry.database.connection import breaker


@pytest.fixture
def server(transactional_db: None) -> Iterator[None]:
    """The suite's database, without a transaction around the test. Afterwards the circuit breaker is closed."""
    yield
    breaker.reset()
    connection.close()


@pytest.fixture
def short_deadline(server: None) -> None:
    """A connection with a deadline of 0.2 s. The next connection has the usual one."""
    connection.close()
    connection.ensure_connection()
    connection.connection.deadline_seconds = 0.2
