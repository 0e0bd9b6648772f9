"""/livez and /readyz: probes for orchestrators and load balancers, without a token."""

from collections.abc import Callable

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from service_registry.database.outages import is_outage
from service_registry.expiry import observation
from service_registry.identity.keys import provider
from service_registry.sql import STATE

SWEEP_AGE = f"SELECT extract(epoch FROM clock_timestamp() - swept_at)::float8 FROM {STATE} WHERE id = 1"
SWEEP_OVERDUE_SECONDS = 30


@csrf_exempt
@require_safe
def livez(_request: HttpRequest) -> JsonResponse:
    """Answer 200 while the process runs. Under ASGI the event loop answers instead of a thread (`asgi.app`)."""
    return JsonResponse({"status": "ok"})


class Migrations:
    """Whether the database has all migrations that this code knows. Once it had, it is not asked again.

    A failure that all processes share must not remove all of them from a load balancer.
    """

    def __init__(self) -> None:
        self._applied = False

    def are_applied(self) -> bool:
        """Return True also when the database has more migrations, as during a rolling update."""
        if not self._applied:
            executor = MigrationExecutor(connection)
            self._applied = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        return self._applied


migrations = Migrations()
# Further checks of this process, by name. Each returns `ok` or a reason.
process_checks: dict[str, Callable[[], str]] = {}


@csrf_exempt
@require_safe
def readyz(_request: HttpRequest) -> JsonResponse:
    """Answer 503 until this process may serve, then 200; `degraded` while something that all processes share fails."""
    checks = {"keys": "ok" if provider().ready else "no signing keys loaded yet"}
    checks |= {name: check() for name, check in process_checks.items()}
    checks["clock"] = "differs from the database's" if observation.this_process().clock_is_wrong else "ok"
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
    body = {"status": status if ready else "unavailable", "checks": checks | shared}
    return JsonResponse(body, status=200 if ready else 503, headers={} if ready else {"Retry-After": "1"})


def sweep_state() -> str:
    """Return `ok`, or how long ago the last sweep finished."""
    with connection.cursor() as cursor:
        cursor.execute(SWEEP_AGE)
        row = cursor.fetchone()
    if row is None:
        return "never: manage.py migrate has not finished"
    (age,) = row
    return "ok" if age < SWEEP_OVERDUE_SECONDS else f"last finished {age:.0f} s ago"
