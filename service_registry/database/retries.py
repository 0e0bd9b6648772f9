"""Retries of transactions and reads."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, connection

from service_registry.database.outages import is_lost_connection, sqlstate_of

Result = TypeVar("Result")

SERIALIZATION_FAILURES = {"40P01", "40001"}


def with_retries(run: Callable[[], Result]) -> Result:
    """Run an idempotent transaction or a read, and repeat it: once on a lost connection, three times on a deadlock.

    When a backend is killed PostgreSQL ends every other connection, so that each fails once; Django connects again at
    the next use. What exceeded the deadline (DatabaseUnresponsive) is not repeated. Inside a transaction nothing is.
    """
    lost = failed = 0
    while True:
        try:
            return run()
        except (DatabaseError, InterfaceError) as error:
            if connection.in_atomic_block:
                raise
            if sqlstate_of(error) in SERIALIZATION_FAILURES and failed < 3:
                failed += 1
                time.sleep(random.uniform(0.01, 0.05) * failed)  # noqa: S311 (jitter)
            elif is_lost_connection(error) and lost < 1:
                lost += 1
                connection.close()
            else:
                raise
