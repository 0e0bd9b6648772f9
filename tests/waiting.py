"""Wait for what other threads, processes and database sessions do."""

import time
from collections.abc import Callable
from typing import Literal, TypeVar

from django.db import connection

# Long enough for a machine that is many times slower than usual: a test that passes never waits for it.
TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.02

Result = TypeVar("Result")


def wait_for(
    condition: Callable[[], Result | Literal[False] | None], timeout_seconds: float = TIMEOUT_SECONDS
) -> Result:
    """Poll `condition` until its result is true, and return that. Raises AssertionError after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"still false after {timeout_seconds} s: {condition}"
        time.sleep(POLL_SECONDS)
    return result


def is_blocking_a_session() -> bool:
    """Return whether another database session waits for a lock of this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        )
        return bool(cursor.fetchone()[0])
