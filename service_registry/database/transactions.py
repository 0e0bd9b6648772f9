"""Run transactions: limits on every wait, repeated where safe, on any thread."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from django.db import DatabaseError, InterfaceError, close_old_connections, connection, reset_queries, transaction

from service_registry.database.base import BEGIN, DatabaseWrapper, stop_preparing
from service_registry.database.outages import is_lost_connection, sqlstate_of

Result = TypeVar("Result")

# A statement may take half a second longer than the longest wait for a lock. With equal limits both would end at the
# same moment, and which of the two errors came first would decide the outcome of the rest of a batch. A process that
# is frozen between the change lock and its commit stops every other writer until the idle timeout ends its transaction.
LIMITS = (
    "SET LOCAL lock_timeout = '{}'; SET LOCAL synchronous_commit = '{}'; "
    "SET LOCAL statement_timeout = '3500ms'; SET LOCAL idle_in_transaction_session_timeout = '3s'"
)


@contextmanager
def write_transaction(lock_timeout: str, synchronous_commit: str = "on") -> Iterator[None]:
    """Open a transaction with limits on waits for locks, statements and idleness.

    The settings belong to the transaction: a transaction pooler would hand those of a session to other clients. They
    are sent with BEGIN.

    Args:
        lock_timeout: how long a statement waits for a lock, as PostgreSQL writes it ("1s").
        synchronous_commit: "off" where a crash may take the commit back.
    """
    limits = LIMITS.format(lock_timeout, synchronous_commit)
    if connection.in_atomic_block:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(limits)
            yield
    else:
        wrapper = cast(DatabaseWrapper, connection)
        wrapper.opening = f"{BEGIN}; {limits}"
        try:
            with transaction.atomic():
                yield
        finally:
            wrapper.opening = BEGIN


# Shorter than the deadline, after which the connection would be closed.
READ_ONLY = "SELECT set_config('statement_timeout', '3s', true), set_config('transaction_read_only', 'on', true)"


@contextmanager
def read_transaction() -> Iterator[None]:
    """Open a transaction that cannot write, and whose statements take three seconds at most.

    It is rolled back, also where a statement has failed or the connection is lost.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(READ_ONLY)
        try:
            yield
        finally:
            transaction.set_rollback(True)


SERIALIZATION_FAILURES = {"40P01", "40001"}
# A prepared statement that is not there, or there twice: the server changes between transactions.
POOLER_FAILURES = {"26000", "42P05"}


def with_retries(run: Callable[[], Result]) -> Result:
    """Run an idempotent transaction or a read, and repeat it after some errors.

    It is repeated once on a lost connection and where a transaction pooler loses prepared statements, three times on a
    deadlock. When a backend is killed PostgreSQL ends every other connection, so that each fails once; Django connects
    again at the next use. What exceeded the deadline (DatabaseUnresponsive) is not repeated. Inside a transaction
    nothing is.
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
            elif (is_lost_connection(error) or sqlstate_of(error) in POOLER_FAILURES) and lost < 1:
                lost += 1
                if sqlstate_of(error) in POOLER_FAILURES:
                    stop_preparing()
                connection.close()
            else:
                raise


def prepare_thread_connection(*, check: bool = True) -> None:
    """Prepare the thread's connection as Django does at the start of a request.

    Close a broken connection, and clear the DEBUG query log.

    Args:
        check: ask the server whether the connection works. `with_retries` repeats what meets a lost one, without a
            round trip before each batch.
    """
    reset_queries()
    close_old_connections()
    if not check:
        connection.health_check_done = True  # type: ignore[attr-defined] # not in the stubs
