"""Open the feed's database connection, separate from those of request threads."""

from typing import Any

import psycopg
from django.conf import settings
from django.db import connections

from service_registry.database.connection import Connection

# Entries of Django's connection parameters that libpq does not know.
DJANGO_ONLY_PARAMETERS = {
    "assume_role",
    "context",
    "cursor_factory",
    "pool",
    "prepare_threshold",
    "server_side_binding",
}


class ServerInRecovery(psycopg.OperationalError):
    """The server is a standby, whose copy of the log may be old or of a lost history."""


class FeedConnection(Connection):
    """A connection that gives up sooner than a request's.

    The feed retries, and no client waits for its statements.
    """

    deadline_seconds = 2.0


def connect() -> FeedConnection:
    """Connect by DATABASE_DIRECT_URL, or else by Django's settings.

    The former bypasses a pooler. Raises psycopg.Error. No statement is prepared on the server: behind a transaction
    pooler the next statement may run on another one.
    """
    fixed: dict[str, Any] = {"connect_timeout": 2, "application_name": "service-registry-feed"}
    fixed |= {"target_session_attrs": "primary", "autocommit": True, "prepare_threshold": None}
    given = settings.DATABASE_DIRECT_URL or connections["default"].get_connection_params()
    return FeedConnection.connect("", **{name: given[name] for name in given.keys() - DJANGO_ONLY_PARAMETERS} | fixed)


def require_primary(connection: FeedConnection) -> None:
    """Raise ServerInRecovery when the connection has come to a standby.

    A pooler may replace the server behind a connection, as after a failover.
    """
    if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
        raise ServerInRecovery("the server is a standby")
