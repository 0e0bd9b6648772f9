"""Readiness of this process, and of what all processes share."""

from collections.abc import Callable, Mapping
from typing import Any

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from service_registry.database.outages import is_outage
from service_registry.expiry import observation_window
from service_registry.health.presence import read_presence
from service_registry.identity.key_provider import get_key_provider
from service_registry.sql import STATE

SWEEP_AGE = f"SELECT extract(epoch FROM clock_timestamp() - swept_at)::float8 FROM {STATE} WHERE id = 1"
SWEEP_OVERDUE_SECONDS = 30
# They fail for all processes at once, and must not remove all of them from a load balancer.
SHARED_CHECKS = ("database", "sweep", "checkers")

READ_ONLY = "is a standby, or read-only"
UNKNOWN = {"sweep": "unknown", "checkers": "unknown"}

# Further checks of this process, by name. Each returns `ok` or a reason.
process_checks: dict[str, Callable[[], str]] = {}


class Migrations:
    """Knows whether the database has all migrations of this code.

    Once it had them it is not asked again.
    """

    def __init__(self) -> None:
        self.were_applied = False

    def are_applied(self) -> bool:
        """Return whether the database has all migrations of this code.

        It may have more, as during a rolling update.
        """
        if not self.were_applied:
            executor = MigrationExecutor(connection)
            self.were_applied = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        return self.were_applied


migrations = Migrations()


def readiness() -> tuple[int, dict[str, Any]]:
    """Return 503 until this process may serve, then 200, and the checks.

    `status` is `degraded` while something that all processes share fails.
    """
    return describe(check_database())


def describe(from_database: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Return the status and the checks, with those that `check_database` has returned."""
    checks = {"keys": "ok" if get_key_provider().ready else "no signing keys loaded yet"}
    checks |= {name: check() for name, check in process_checks.items()}
    checks["clock"] = "differs from the database's" if observation_window.process_pulse().clock_is_wrong else "ok"
    checks |= from_database
    ready = all(check == "ok" for name, check in checks.items() if name not in SHARED_CHECKS)
    healthy = all(checks[name] == "ok" for name in SHARED_CHECKS)
    status = ("ok" if healthy else "degraded") if ready else "unavailable"
    return 200 if ready else 503, {"status": status, "checks": checks}


def check_database() -> dict[str, str]:
    """Return the checks that need the database."""
    try:
        if not migrations.are_applied():
            return {"migrations": "not applied yet: run manage.py migrate", "database": "ok", **UNKNOWN}
        if is_read_only():
            return database_failure(READ_ONLY)
        checkers = read_presence().failure or "ok"
        return {"migrations": "ok", "database": "ok", "sweep": sweep_state(), "checkers": checkers}
    except Error as error:
        if not is_outage(error):
            raise
        # libpq has no code for this refusal (`target_session_attrs`).
        is_standby = any(phrase in str(error) for phrase in ("hot standby", "read-only"))
        return database_failure(READ_ONLY if is_standby else "does not answer")


def is_read_only() -> bool:
    """Return whether the sessions of a primary refuse writes, as during a planned failover or on a full disk."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('default_transaction_read_only')")
        return bool(cursor.fetchone() == ("on",))


def database_failure(reason: str) -> dict[str, str]:
    """Return the checks that need the database while it cannot be asked."""
    applied = "ok" if migrations.were_applied else "unknown: the database does not answer"
    return {"migrations": applied, "database": reason, **UNKNOWN}


def sweep_state() -> str:
    """Return `ok`, or how long ago the last sweep finished."""
    with connection.cursor() as cursor:
        cursor.execute(SWEEP_AGE)
        row = cursor.fetchone()
    if row is None:
        return "never: manage.py migrate has not finished"
    (age,) = row
    return "ok" if age < SWEEP_OVERDUE_SECONDS else f"last finished {age:.0f} s ago"
