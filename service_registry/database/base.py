"""The engine that Django loads: its PostgreSQL backend, with our connections.

django-prometheus measures it.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self, cast

import psycopg
from django.db import Error, connection, connections
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django.db.backends.utils import CursorWrapper
from django_prometheus.db.backends.postgresql import base
from django_prometheus.db.common import ExportingCursorWrapper
from psycopg import _queries

from service_registry.database import driver
from service_registry.database.connection import DEADLINE_SECONDS

logger = logging.getLogger(__name__)

BEGIN = "BEGIN"

# psycopg 3.3 keeps what it makes of a statement and its placeholders only where it has at most 4,096 characters. Those
# that render instances are longer, and converting one takes longer than all else that psycopg does with it.
_queries.MAX_CACHED_STATEMENT_LENGTH = 16_384


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
    # The statements that begin a transaction: BEGIN, and its limits where it has some.
    opening = BEGIN
    # True while a cursor is made that binds parameters on the server, as planning a statement once requires.
    binds_on_server = False

    def create_cursor(self, name: str | None = None) -> Any:
        if not self.binds_on_server:
            return super().create_cursor(name)
        return ServerBindingCursor(self.connection)

    @contextmanager
    def prepared_cursor(self) -> Iterator[CursorWrapper]:
        self.binds_on_server = True
        try:
            cursor = self.cursor()
        finally:
            self.binds_on_server = False
        with cursor:
            yield cursor

    def _start_transaction_under_autocommit(self) -> None:
        """Begin a transaction. Django calls this where it exists; otherwise psycopg sends BEGIN by itself."""
        try:
            with self.wrap_database_errors:
                self.connection.execute(self.opening, prepare=False)
        except Error:
            self.close()  # it may have begun
            raise

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


ServerBindingCursor = ExportingCursorWrapper(psycopg.Cursor[Any], "default", DatabaseWrapper.vendor)


def prepared_cursor() -> AbstractContextManager[CursorWrapper]:
    """Open a cursor whose statements PostgreSQL plans once for each connection.

    It is for statements that always have the same text: planning that of a micro-batch of heartbeats takes longer than
    running it. `(SELECT %s::text[])` in place of a parameter hides the length of the array from the planner. It would
    take plans for the actual length for better, and plan each time after all. Behind a transaction pooler
    (DATABASE_POOLED) statements are planned each time.
    """
    return cast(DatabaseWrapper, connection).prepared_cursor()


def stop_preparing() -> None:
    """Prepare no more statements on new connections of this process: a transaction pooler loses them."""
    logger.warning("The database loses prepared statements: set DATABASE_POOLED=true if a pooler is in front of it.")
    connections.settings["default"]["OPTIONS"]["prepare_threshold"] = None
