"""Read what keeps vacuum from removing dead rows, and how many rows of a table are dead.

Each heartbeat leaves a dead row. Vacuum removes it when no transaction, standby or replication slot needs it any more.
"""

from dataclasses import dataclass

from django.db import connection


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction, of this server or of a standby, that keeps dead rows.

    Attributes:
        kind: `transaction`, `prepared` (for a two-phase commit) or `standby` (by `hot_standby_feedback`).
        name: process id, or the identifier of a prepared transaction.
        application: `application_name`; of a prepared transaction its role.
        state: as in pg_stat_activity; None when it is not visible.
        seconds: since it began; None when it is not visible, and for a standby.
        held: number of transactions that began since: what they replace is kept.
    """

    kind: str
    name: str
    application: str
    state: str | None
    seconds: float | None
    held: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot.

    Attributes:
        held: number of transactions whose dead rows it keeps, of all tables or of the catalogues alone.
        wal_bytes: size of the write-ahead log that it keeps.
    """

    name: str
    active: bool
    held: int
    wal_bytes: int


@dataclass(frozen=True, slots=True)
class TableRows:
    """The rows of a table, and the seconds since its last vacuum; None when there was none."""

    live: int
    dead: int
    vacuumed_seconds: float | None


# Transactions of other databases keep no rows of ours. A process that sends WAL to a standby belongs to no database. A
# vacuum has a snapshot, and keeps no rows; a worker of autovacuum also begins and analyses, for a moment. A transaction
# without a snapshot and without an id keeps none either.
# Without pg_read_all_stats the state and the times of other roles' sessions are null; their ids and snapshots are not.
TRANSACTIONS = """
SELECT CASE WHEN a.datid IS NULL THEN 'standby' ELSE 'transaction' END, a.pid::text, a.application_name, a.state,
    CASE WHEN a.datid IS NOT NULL THEN extract(epoch FROM clock_timestamp() - a.xact_start)::float8 END,
    greatest(age(a.backend_xid), age(a.backend_xmin))
FROM pg_stat_activity a
WHERE (a.datid IS NULL OR a.datname = current_database()) AND a.pid <> pg_backend_pid()
    AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL)
    AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = a.pid)
    AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
UNION ALL
SELECT 'prepared', gid, owner, 'prepared', extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)
FROM pg_prepared_xacts WHERE database = current_database()
"""

SLOTS = """
SELECT slot_name, active, COALESCE(greatest(age(xmin), age(catalog_xmin)), 0), COALESCE(pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint
FROM pg_replication_slots
"""

ROWS = """
SELECT n_live_tup, n_dead_tup,
    extract(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8
FROM pg_stat_user_tables WHERE relid = %s::regclass
"""


def read_transactions() -> list[Transaction]:
    """Return the open transactions of other sessions that keep dead rows of this database, the oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(TRANSACTIONS)
        return sorted((Transaction(*row) for row in cursor.fetchall()), key=lambda each: -each.held)


def read_slots() -> list[Slot]:
    """Return the replication slots of the server, the one that keeps most first."""
    with connection.cursor() as cursor:
        cursor.execute(SLOTS)
        return sorted((Slot(*row) for row in cursor.fetchall()), key=lambda each: (-each.held, -each.wal_bytes))


def read_rows(table: str) -> TableRows:
    """Return the rows of a table as the server's statistics count them."""
    with connection.cursor() as cursor:
        cursor.execute(ROWS, [table])
        return TableRows(*cursor.fetchone())
