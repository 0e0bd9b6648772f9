"""The engine that Django loads: its PostgreSQL backend, with our connections.

django-prometheus measures it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from django.db import Error
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django_prometheus.db.backends.postgresql import base

from service_registry.database import driver
from service_registry.database.connection import DEADLINE_SECONDS


class SchemaEditor(DatabaseSchemaEditor):
    """Migrations without a deadline.

    An index of a large table takes longer than four seconds.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        self.connection.ensure_connection()
        self.connection.connection.deadline_seconds = None
        return self

    def __exit__(self, *error: Any) -> None:
        """Restore the deadline after the migration.

        An error of the migration is raised rather than that of its failed rollback.
        """
        try:
            super().__exit__(*error)
        except Error:
            if error[0] is None:
                raise
        finally:
            if self.connection.connection is not None:
                self.connection.connection.deadline_seconds = DEADLINE_SECONDS


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc] # no types in the library
    Database = driver
    SchemaEditorClass = SchemaEditor

    def is_usable(self) -> bool:
        """Return whether the connection is alive, and its server a primary.

        Django asks at a connection's first use in a request, and closes it otherwise. A pooler may have replaced the
        primary behind the connection by a standby, which would be read for as long as the connection lasts.
        """
        if self.connection is None:
            return False
        try:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT pg_is_in_recovery()")
                return bool(cursor.fetchone() == (False,))
        except driver.Error:
            return False

    @contextmanager
    def _nodb_cursor(self) -> Iterator[Any]:
        """Create databases without a deadline, too."""
        with super()._nodb_cursor() as cursor:
            cursor.connection.deadline_seconds = None
            yield cursor
