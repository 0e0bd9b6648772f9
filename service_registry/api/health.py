"""/livez and /readyz: for probes and load balancers, without a token."""

from collections.abc import Callable

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse

from service_registry.database.outages import is_outage
from service_registry.expiry import observation
from service_registry.identity.keys import provider
from service_registry.sql import STATE

SWEEP_AGE = f"SELECT extract(epoch FROM clock_timestamp() - swept_at)::float8 FROM {STATE} WHERE id = 1"
SWEEP_IS_STUCK_SECONDS = 30


def livez(_request: HttpRequest) -> JsonResponse:
    """200 while the process works. The ASGI server answers before this is asked, see `service_registry.asgi.livez`."""
    return JsonResponse({"status": "ok"})


class Started:
    """What a process needs once before it may serve. It stays true: what all processes share must not take them all
    out of a load balancer."""

    def __init__(self) -> None:
        self._migrated = False

    def migrated(self) -> bool:
        """Whether all migrations this code knows are applied; more than those is fine."""
        if not self._migrated:
            executor = MigrationExecutor(connection)
            self._migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        return self._migrated


started = Started()
# What else this process needs before it may serve, by name: what each says is `ok`, or why not.
requirements: dict[str, Callable[[], str]] = {}


def readyz(_request: HttpRequest) -> JsonResponse:
    """503 until this process may serve; then 200, `degraded` while something that all processes share fails."""
    checks = {"keys": "ok" if provider().ready else "no signing keys loaded yet"}
    checks |= {name: check() for name, check in requirements.items()}
    checks["clock"] = "differs from the database's" if observation.this_process().clock_is_wrong else "ok"
    try:
        checks["migrations"] = "ok" if started.migrated() else "not applied yet: run manage.py migrate"
        shared = {"database": "ok", "sweep": sweep_check() if started.migrated() else "unknown"}
    except Error as error:
        if not is_outage(error):
            raise
        checks.setdefault("migrations", "unknown: the database does not answer")
        shared = {"database": "does not answer", "sweep": "unknown"}
    ready = all(check == "ok" for check in checks.values())
    status = "ok" if all(check == "ok" for check in shared.values()) else "degraded"
    body = {"status": status if ready else "unavailable", "checks": checks | shared}
    return JsonResponse(body, status=200 if ready else 503, headers={} if ready else {"Retry-After": "1"})


def sweep_check() -> str:
    with connection.cursor() as cursor:
        cursor.execute(SWEEP_AGE)
        row = cursor.fetchone()
    if row is None:
        return "never: manage.py migrate has not finished"
    (age,) = row
    return "ok" if age < SWEEP_IS_STUCK_SECONDS else f"last finished {age:.0f} s ago"
