"""The sweep: the one place where silence takes an instance off the list, and where what is over ends."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from django.conf import settings
from django.db import connection

from service_registry import changes, logs
from service_registry.documents import INSTANCE, LEASE, OVERRIDE, SERVICE, STATE, rfc3339
from service_registry.expiry import census, judging, silence
from service_registry.expiry.conditions import IS_OVER, IS_OVER_RETENTION, TIME_PASSES
from service_registry.expiry.evidence import ACTOR, process
from service_registry.expiry.judging import Judging
from service_registry.manager import reported_status
from service_registry.manager.batch import write

logger = logging.getLogger(__name__)

SWEEP_LOCK = 0x5E41_0002
ROWS_A_TRANSACTION = 500


@dataclass(frozen=True, slots=True)
class Report:
    """What one sweep did. `finished` is False when another sweep was under way, and did it instead."""

    finished: bool
    expired: int = 0
    protected: int = 0
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


class UnderWay(Exception):
    """Another sweep has the lock."""


def run(between: Callable[[], object]) -> Report:
    try:
        ended = repeat(end_overrides, between)
        settled = repeat(settle_statuses, between)
        judged = count_and_judge(between)
        removed = repeat(remove, between)
    except UnderWay:
        return Report(finished=False)
    note_finished()
    expired, protected = (judged.expired, judged.protected) if judged else (0, 0)
    return Report(True, expired, protected, removed, ended, settled)


def tell(report: Report, seconds: float) -> None:
    """Log a sweep that did something."""
    outcomes = {name: count for name, count in asdict(report).items() if count and name != "finished"}
    if outcomes:
        fields = {"actor": ACTOR, "outcomes": outcomes, "duration_ms": round(seconds * 1000, 3)}
        logs.event(logger, logging.INFO, "sweep", fields)


@contextmanager
def turn() -> Iterator[None]:
    """One of the sweep's transactions. Raises UnderWay."""
    with write(lock_timeout="1s"):
        if not take_lock():
            raise UnderWay
        yield


def repeat(step: Callable[[], int], between: Callable[[], object]) -> int:
    """Run `step` in transactions of its own until it finds fewer rows than it may take. Raises UnderWay."""
    total, full = 0, True
    while full:
        with turn():
            count = step()
        between()
        total += count
        full = count == ROWS_A_TRANSACTION
    return total


def count_and_judge(between: Callable[[], object]) -> Judging | None:
    """Judge all that are due, if time passes. Raises UnderWay.

    1. Count the fleet. A silence that has just ended has restarted the window: then count anew.
    2. Judge page by page by that count. A page finds only those who are still due, and nobody once the count is old
       or time stands still, whoever noticed.
    """
    with turn():
        counted = census.take()
        standing = silence.settle(counted) if counted.hears else counted.silence
        if standing != counted.silence:
            counted = census.take()
        stands_still = not counted.hears or standing.stands_still(counted.now)
        judged = None if stands_still else Judging(counted, judging.judgement(counted))
    between()
    if judged and counted.asks_for_judgement:
        repeat(lambda: judging.judge(judged, ROWS_A_TRANSACTION), between)
    return judged


def take_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SWEEP_LOCK])
        (taken,) = cursor.fetchone()
    return bool(taken)


def note_finished() -> None:
    with write(lock_timeout="1s"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {STATE} SET swept_at = clock_timestamp() WHERE id = 1")


REMOVE = f"""
-- Locks instances, then leases, in the order of their keys; what is being renewed or registered is skipped.
WITH old AS MATERIALIZED (
    SELECT i.id FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
    WHERE {IS_OVER_RETENTION}
        AND EXISTS (SELECT FROM {STATE} r WHERE {TIME_PASSES})
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
