"""Which errors are the database's trouble and not the request's: for a while, or until an operator has mended it."""

from django.db import DatabaseError, Error, InterfaceError, OperationalError

from service_registry.database.connection import DatabaseSilent

# https://www.postgresql.org/docs/current/errcodes-appendix.html; psycopg makes no OperationalError of these.
READ_ONLY = "25006"  # a standby, or the minutes of a failover
TRANSACTION_ENDED = ("25P03", "25P04")  # this process was frozen in the middle of it
NOT_MIGRATED = ("42P01", "42703", "3F000")  # no such table, column or schema
OUTAGE_STATES = {READ_ONLY, *TRANSACTION_ENDED, *NOT_MIGRATED}


def sqlstate_of(error: BaseException) -> str:
    """PostgreSQL's code; empty when the error did not come from the server."""
    return str(getattr(error.__cause__, "sqlstate", None) or "")


def is_outage(error: BaseException) -> bool:
    """Whether the request may succeed when it is repeated as it is."""
    if isinstance(error, OperationalError | InterfaceError):
        return True
    return isinstance(error, DatabaseError) and sqlstate_of(error) in OUTAGE_STATES


# By the first characters of their code: connection exceptions, and the server or an operator that ended it.
CONNECTION_LOST = ("08", "57P", *TRANSACTION_ENDED)


def is_lost_connection(error: Error) -> bool:
    """Whether the connection is gone, and a new one may do. One that was given up may not: whoever waited for it has
    waited long enough, and what took so long takes as long again."""
    if isinstance(error.__cause__, DatabaseSilent):
        return False
    state = sqlstate_of(error)
    return state.startswith(CONNECTION_LOST) or (not state and isinstance(error, OperationalError | InterfaceError))
