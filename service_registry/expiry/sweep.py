"""The sweep: the one place where silence takes an instance off the list, and where what is over ends."""

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from django.conf import settings
from django.db import connection

from service_registry import changes, logs
from service_registry.documents import DEADLINE, INSTANCE, LEASE, OVERRIDE, SERVICE, STATE, rfc3339
from service_registry.manager import reported_status
from service_registry.manager.batch import write

logger = logging.getLogger(__name__)

SWEEP_LOCK = 0x5E41_0002
ROWS_A_TRANSACTION = 500
ACTOR = "system:sweep"

# While nobody can hear, time stands still: a lease is judged only by what the registry could have heard.
HEARS = "r.id = 1 AND r.heard_at > statement_timestamp() - interval '5 seconds'"
# The sweep takes these, and a forecast shows them. While the registry hears they expire.
IS_OVERDUE = f"l.expired_at IS NULL AND statement_timestamp() >= {DEADLINE}"
IS_OVER_RETENTION = "l.expired_at < statement_timestamp() - make_interval(secs => %s)"
IS_OVER = "o.until <= statement_timestamp()"


@dataclass(frozen=True, slots=True)
class Report:
    """What one sweep did. `finished` is False when another sweep was under way, and did it instead."""

    finished: bool
    expired: int = 0
    removed: int = 0
    overrides_ended: int = 0
    statuses_settled: int = 0


def nothing() -> None:
    """What most sweeps do between their transactions."""


def sweep(between: Callable[[], object] = nothing) -> Report:
    """Sweep once: transactions of at most 500 rows each until nothing is due.

    `between` is called after each: a web process must not grow deaf, and so restart the window, over its own sweep.

    Any number may run at once, in any process: each transaction takes the sweep's lock or leaves. A process frozen in
    the middle of one is ended by PostgreSQL (`idle_in_transaction_session_timeout`) and its transaction undone.
    """
    began = time.perf_counter()
    report = run(between)
    tell(report, time.perf_counter() - began)
    return report


def run(between: Callable[[], object]) -> Report:
    counts: list[int] = []
    for step in (end_overrides, settle_statuses, expire, remove):
        count = repeat(step, between)
        if count is None:
            return Report(finished=False)
        counts.append(count)
    note_finished()
    ended, settled, expired, removed = counts
    return Report(True, expired, removed, ended, settled)


def tell(report: Report, seconds: float) -> None:
    """Log a sweep that did something."""
    outcomes = {name: count for name, count in asdict(report).items() if count and name != "finished"}
    if outcomes:
        fields = {"actor": ACTOR, "outcomes": outcomes, "duration_ms": round(seconds * 1000, 3)}
        logs.event(logger, logging.INFO, "sweep", fields)


def repeat(step: Callable[[], int], between: Callable[[], object]) -> int | None:
    """Run `step` in transactions of its own until it finds fewer rows than it may take; None when not ours to do."""
    total = 0
    while True:
        with write(lock_timeout="1s"):
            if not take_lock():
                return None
            count = step()
        between()
        total += count
        if count < ROWS_A_TRANSACTION:
            return total


def take_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SWEEP_LOCK])
        (taken,) = cursor.fetchone()
    return bool(taken)


def note_finished() -> None:
    with write(lock_timeout="1s"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {STATE} SET swept_at = clock_timestamp() WHERE id = 1")


def process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


EXPIRE = f"""
-- Locks due leases, in the order of their keys, and judges each by its row as locked; one that is being renewed or
-- registered at this moment is skipped.
WITH due AS MATERIALIZED (
    SELECT l.instance_id, l.heartbeat_at, l.ttl_seconds, {DEADLINE} AS deadline, r.window_start
    FROM {LEASE} l CROSS JOIN {STATE} r
    WHERE {HEARS} AND {IS_OVERDUE}
    ORDER BY l.instance_id LIMIT %s
    FOR NO KEY UPDATE OF l SKIP LOCKED
),
l AS (
    UPDATE {LEASE} l SET expired_at = statement_timestamp(), protected_at = NULL
    FROM due WHERE l.instance_id = due.instance_id
    RETURNING l.instance_id
)
SELECT i.id, s.namespace, s.name, i.instance_id, {rfc3339("due.heartbeat_at")}, {rfc3339("due.deadline")},
    {rfc3339("due.window_start")}, {rfc3339("statement_timestamp()")}, due.ttl_seconds
FROM l
JOIN due ON due.instance_id = l.instance_id
JOIN {INSTANCE} i ON i.id = l.instance_id
JOIN {SERVICE} s ON s.id = i.service_id
ORDER BY i.id
"""


def expire() -> int:
    """Take off the list those of which nothing was heard until their deadline."""
    with connection.cursor() as cursor:
        cursor.execute(EXPIRE, [ROWS_A_TRANSACTION])
        rows = cursor.fetchall()
    evidence_names = ("heartbeat_at", "deadline", "window_start", "swept_at", "ttl_seconds")
    changes.append(
        [
            changes.Event(
                "expired",
                namespace,
                name,
                ACTOR,
                instance_id,
                pk,
                reason="no heartbeat before the deadline",
                evidence=dict(zip(evidence_names, facts, strict=True)) | {"process": process()},
            )
            for pk, namespace, name, instance_id, *facts in rows
        ]
    )
    return len(rows)


REMOVE = f"""
-- Locks instances, then leases, in the order of their keys; what is being renewed or registered is skipped.
WITH old AS MATERIALIZED (
    SELECT i.id FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
    WHERE {IS_OVER_RETENTION}
        AND EXISTS (SELECT FROM {STATE} r WHERE {HEARS})
    ORDER BY i.id LIMIT %s
    FOR UPDATE OF i SKIP LOCKED
),
leased AS MATERIALIZED (
    SELECT l.instance_id, l.heartbeat_at, l.expired_at FROM {LEASE} l
    WHERE l.instance_id = ANY ((SELECT array_agg(id) FROM old)::bigint[])
        AND {IS_OVER_RETENTION}
    ORDER BY l.instance_id
    FOR UPDATE SKIP LOCKED
),
unleased AS (DELETE FROM {LEASE} WHERE instance_id IN (SELECT instance_id FROM leased)),
gone AS (
    DELETE FROM {INSTANCE} i USING leased WHERE i.id = leased.instance_id
    RETURNING i.service_id, i.instance_id, leased.heartbeat_at, leased.expired_at
)
SELECT s.namespace, s.name, gone.instance_id, {rfc3339("gone.heartbeat_at")}, {rfc3339("gone.expired_at")},
    {rfc3339("statement_timestamp()")}
FROM gone JOIN {SERVICE} s ON s.id = gone.service_id
ORDER BY s.namespace, s.name, gone.instance_id
"""


def remove() -> int:
    """Remove the rows that expired longer ago than they are retained."""
    retention = settings.REGISTRY_RETENTION_SECONDS
    with connection.cursor() as cursor:
        cursor.execute(REMOVE, [retention, ROWS_A_TRANSACTION, retention])
        rows = cursor.fetchall()
    evidence_names = ("heartbeat_at", "expired_at", "swept_at")
    changes.append(
        [
            changes.Event(
                "removed",
                namespace,
                name,
                ACTOR,
                instance_id,
                reason=f"expired more than {retention} s ago",
                evidence=dict(zip(evidence_names, facts, strict=True)) | {"process": process()},
            )
            for namespace, name, instance_id, *facts in rows
        ]
    )
    return len(rows)


END_OVERRIDES = f"""
-- Locks overrides that are over, in the order of their keys, and nothing before them.
WITH over AS MATERIALIZED (
    SELECT o.id FROM {OVERRIDE} o WHERE {IS_OVER} ORDER BY o.id LIMIT %s
    FOR UPDATE SKIP LOCKED
),
gone AS (DELETE FROM {OVERRIDE} o USING over WHERE o.id = over.id RETURNING o.*)
SELECT s.namespace, s.name, gone.instance_id, i.id, gone.actor, gone.reason
FROM gone
JOIN {SERVICE} s ON s.id = gone.service_id
LEFT JOIN {INSTANCE} i ON i.service_id = gone.service_id AND i.instance_id = gone.instance_id
ORDER BY s.namespace, s.name, gone.instance_id
"""


def end_overrides() -> int:
    """End the overrides whose `until` has passed, whether or not time stands still."""
    with connection.cursor() as cursor:
        cursor.execute(END_OVERRIDES, [ROWS_A_TRANSACTION])
        rows = cursor.fetchall()
    changes.append(
        [
            changes.Event(
                "status_changed",
                namespace,
                name,
                ACTOR,
                instance_id,
                pk,
                changed=["override", "status"],
                reason="the override ended at its time",
                evidence={"override_actor": actor, "override_reason": reason},
            )
            for namespace, name, instance_id, pk, actor, reason in rows
        ]
    )
    return len(rows)


def settle_statuses() -> int:
    """Apply the statuses of alternating instances that waited for their minute's end."""
    settled = reported_status.settle(ROWS_A_TRANSACTION)
    changes.append(
        [
            changes.Event(
                "status_changed",
                row.namespace,
                row.service_name,
                ACTOR,
                row.instance_id,
                row.instance_pk,
                changed=["reported_status", "status"],
                reported=True,
                reason="the status waited for the minute's end",
            )
            for row in settled
        ]
    )
    return len(settled)
