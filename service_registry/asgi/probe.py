"""Answer /readyz in time, also while the database does not answer."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service_registry.asgi.threads import with_connection
from service_registry.http import readiness

# Below the second after which Kubernetes gives up a probe. A frozen database takes 4 s to be noticed.
DATABASE_SECONDS = 0.75


class ReadinessProbe:
    """Asks the database for readiness, once at a time, on a thread that nothing else uses.

    Busy pages must not remove a process from its load balancer.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._asked: asyncio.Future[dict[str, str]] | None = None

    async def read(self) -> tuple[int, dict[str, Any]]:
        """Return the status of the response and the checks.

        Probes that come while the database is asked wait for the same answer. None waits for longer than
        DATABASE_SECONDS once the database had all migrations; before, the process is not ready anyway.
        """
        if self._asked is None or self._asked.done():
            loop = asyncio.get_running_loop()
            self._asked = loop.run_in_executor(self.thread, with_connection(readiness.check_database))
        asked = self._asked
        await asyncio.wait([asked], timeout=DATABASE_SECONDS if readiness.migrations.were_applied else None)
        checks = asked.result() if asked.done() else readiness.database_failure("does not answer")
        return readiness.describe(checks)
