"""The feed's own connection, beside those of the threads that answer requests."""

from typing import Any

import psycopg
from django.conf import settings
from django.db import connections
from psycopg.abc import RV, PQGen

from service_registry.database.connection import Connection

# What Django adds for itself.
NOT_PSYCOPGS = {"context", "cursor_factory", "pool", "prepare_threshold", "server_side_binding", "assume_role"}


class FeedConnection(Connection):
    """A connection that is given up earlier than a request's: the feed asks again, and waits for nobody's answer."""

    deadline_seconds = 2.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """A timeout of the caller's own, as when listening, is no silence of the server."""
        if timeout is not None:
            return psycopg.Connection.wait(self, gen, interval, timeout)
        return super().wait(gen, interval)


def connect() -> FeedConnection:
    """Connect as the settings say, and directly where they name a way past the pooler. Raises psycopg.Error.

    Nothing is prepared on the server: behind a transaction pooler the next statement may run on another connection.
    """
    fixed: dict[str, Any] = {"connect_timeout": 2, "application_name": "service-registry-feed"}
    fixed |= {"autocommit": True, "prepare_threshold": None}
    if settings.DATABASE_DIRECT_URL:
        return FeedConnection.connect(settings.DATABASE_DIRECT_URL, **fixed)
    given = connections["default"].get_connection_params()
    return FeedConnection.connect("", **{name: given[name] for name in given.keys() - NOT_PSYCOPGS} | fixed)
