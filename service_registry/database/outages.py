"""Classify database errors: outages and lost connections.

A request can be repeated after an outage.
"""

from django.db import DatabaseError, Error, InterfaceError, OperationalError

from service_registry.database.connection import DatabaseUnresponsive

# https://www.postgresql.org/docs/current/errcodes-appendix.html; psycopg raises other classes for these.
READ_ONLY = "25006"  # a standby, or a failover
TRANSACTION_ENDED = ("25P03", "25P04")  # a timeout of the transaction: this process was frozen
NOT_MIGRATED = ("42P01", "42703", "3F000")  # no such table, column or schema
STATEMENT_TIMEOUT = "57014"
LOCK_NOT_AVAILABLE = "55P03"  # a lock timeout
OUTAGE_STATES = {READ_ONLY, *TRANSACTION_ENDED, *NOT_MIGRATED}


def sqlstate_of(error: BaseException) -> str:
    """Return PostgreSQL's error code; empty for an error not from the server."""
    return str(getattr(error.__cause__, "sqlstate", None) or "")


def is_statement_timeout(error: BaseException) -> bool:
    return sqlstate_of(error) == STATEMENT_TIMEOUT


def is_lock_timeout(error: BaseException) -> bool:
    return sqlstate_of(error) == LOCK_NOT_AVAILABLE


def is_outage(error: BaseException) -> bool:
    """Return whether the same request can succeed later."""
    if isinstance(error, OperationalError | InterfaceError):
        return True
    return isinstance(error, DatabaseError) and sqlstate_of(error) in OUTAGE_STATES


# The first characters of the codes: connection exceptions, and terminations by the server or an operator. A session on
# a demoted primary stays read-only as long as it lasts, while a new connection may reach the new primary.
CONNECTION_LOST = ("08", "57P", READ_ONLY, *TRANSACTION_ENDED)


def is_lost_connection(error: Error) -> bool:
    """Return whether the connection is lost and a new one may succeed at once.

    False after a deadline: the caller has waited long enough, and the statement would take as long again.
    """
    if isinstance(error.__cause__, DatabaseUnresponsive):
        return False
    state = sqlstate_of(error)
    return state.startswith(CONNECTION_LOST) or (not state and isinstance(error, OperationalError | InterfaceError))
