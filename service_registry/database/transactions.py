"""Transactions in which every wait has a limit. `manager`, `expiry` and `changelog` write in them."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

# A statement may take half a second longer than the longest wait for a lock. With equal limits both would end at the
# same moment, and which of the two errors came first would decide what becomes of the rest of a batch. A process that
# is frozen between the change lock and its commit stops every other writer until the idle timeout ends its transaction.
TIMEOUTS = """
SELECT set_config('lock_timeout', %s, true), set_config('synchronous_commit', %s, true),
    set_config('statement_timeout', '3500ms', true), set_config('idle_in_transaction_session_timeout', '3s', true)
"""


@contextmanager
def write_transaction(lock_timeout: str, synchronous_commit: str = "on") -> Iterator[None]:
    """Open a transaction with limits on waits for locks, on statements and on idleness.

    The settings belong to the transaction: a transaction pooler would hand those of a session to other clients.

    Args:
        lock_timeout: how long a statement waits for a lock, as PostgreSQL writes it ("1s").
        synchronous_commit: "off" where a crash may take the commit back.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TIMEOUTS, [lock_timeout, synchronous_commit])
        yield
