"""Readiness of this process, and of what all processes share."""

from collections.abc import Callable
from typing import Any

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from service_registry.database.outages import is_outage
from service_registry.expiry import observation_window
from service_registry.identity.key_provider import get_key_provider
from service_registry.sql import STATE

SWEEP_AGE = f"SELECT extract(epoch FROM clock_timestamp() - swept_at)::float8 FROM {STATE} WHERE id = 1"
SWEEP_OVERDUE_SECONDS = 30

# Further checks of this process, by name. Each returns `ok` or a reason.
process_checks: dict[str, Callable[[], str]] = {}


class Migrations:
    """Knows whether the database has all migrations of this code.

    Once it had them it is not asked again. A failure that all processes share must not remove all of them from a
    load balancer.
    """

    def __init__(self) -> None:
        self._applied = False

    def are_applied(self) -> bool:
        """Return whether the database has all migrations of this code.

        It may have more, as during a rolling update.
        """
        if not self._applied:
            executor = MigrationExecutor(connection)
            self._applied = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        return self._applied


migrations = Migrations()


def readiness() -> tuple[int, dict[str, Any]]:
    """Return 503 until this process may serve, then 200, and the checks.

    `status` is `degraded` while something that all processes share fails.
    """
    checks = {"keys": "ok" if get_key_provider().ready else "no signing keys loaded yet"}
    checks |= {name: check() for name, check in process_checks.items()}
    checks["clock"] = "differs from the database's" if observation_window.process_pulse().clock_is_wrong else "ok"
    try:
        checks["migrations"] = "ok" if migrations.are_applied() else "not applied yet: run manage.py migrate"
        shared = {"database": "ok", "sweep": sweep_state() if migrations.are_applied() else "unknown"}
    except Error as error:
        if not is_outage(error):
            raise
        checks.setdefault("migrations", "unknown: the database does not answer")
        shared = {"database": "does not answer", "sweep": "unknown"}
    ready = all(check == "ok" for check in checks.values())
    status = "ok" if all(check == "ok" for check in shared.values()) else "degraded"
    return 200 if ready else 503, {"status": status if ready else "unavailable", "checks": checks | shared}


def sweep_state() -> str:
    """Return `ok`, or how long ago the last sweep finished."""
    with connection.cursor() as cursor:
        cursor.execute(SWEEP_AGE)
        row = cursor.fetchone()
    if row is None:
        return "never: manage.py migrate has not finished"
    (age,) = row
    return "ok" if age < SWEEP_OVERDUE_SECONDS else f"last finished {age:.0f} s ago"
