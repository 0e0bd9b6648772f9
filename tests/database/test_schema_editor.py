"""Migrations on our connections."""

import pytest
from django.db import OperationalError, connection, connections

from service_registry.database.base import SchemaEditor
from service_registry.database.connection import DEADLINE_SECONDS, breaker


def test_migration_has_no_deadline(short_deadline: None) -> None:
    with SchemaEditor(connections["default"]) as editor:
        editor.execute("SELECT pg_sleep(0.5)")
    assert connection.connection.deadline_seconds == DEADLINE_SECONDS


def test_failed_migration_on_a_frozen_server_raises_its_error(short_deadline: None) -> None:
    def migrate() -> None:
        with SchemaEditor(connections["default"]) as editor:
            breaker.trip()
            editor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError, match="terminating connection"):
        migrate()
