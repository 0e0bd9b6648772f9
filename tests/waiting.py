"""Wait for what other threads, processes and database sessions do."""

import time
from collections.abc import Callable
from typing import Literal, TypeVar

from django.db import connection

# Long enough for a machine that is many times slower than usual: a test that passes never waits for it.
TIMEOUT_SECONDS = 120.0
# Between two polls. Many conditions open a connection, and would take a core from what they wait for.
FIRST_PAUSE_SECONDS, PAUSE_GROWTH, LONGEST_PAUSE_SECONDS = 0.01, 1.3, 0.1

Result = TypeVar("Result")


def wait_for(
    condition: Callable[[], Result | Literal[False] | None], timeout_seconds: float = TIMEOUT_SECONDS
) -> Result:
    """Poll `condition` until its result is true, and return that. Raises AssertionError after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    pause_seconds = FIRST_PAUSE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"still false after {timeout_seconds} s: {condition}"
        time.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
    return result


def is_blocking_a_session() -> bool:
    """Return whether another database session waits for a lock of this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        )
        return bool(cursor.fetchone()[0])
