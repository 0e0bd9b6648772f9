"""What Django loads as the engine: its own for PostgreSQL, measured by django-prometheus, on connections of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from django.db import Error
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django_prometheus.db.backends.postgresql import base

from service_registry.database import driver
from service_registry.database.connection import DEADLINE_SECONDS


class SchemaEditor(DatabaseSchemaEditor):
    """Migrations take the time they take: an index of a large table is not made in four seconds."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.connection.ensure_connection()
        self.connection.connection.deadline_seconds = None
        return self

    def __exit__(self, *error: Any) -> None:
        """What the migration itself failed with is the error to be told, not that there was no way back from it."""
        try:
            super().__exit__(*error)
        except Error:
            if error[0] is None:
                raise
        finally:
            if self.connection.connection is not None:
                self.connection.connection.deadline_seconds = DEADLINE_SECONDS


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc] # the library has no types
    Database = driver
    SchemaEditorClass = SchemaEditor

    @contextmanager
    def _nodb_cursor(self) -> Iterator[Any]:
        """A database is made in the time it takes, too."""
        with super()._nodb_cursor() as cursor:
            cursor.connection.deadline_seconds = None
            yield cursor
