"""The status that instances report of themselves in heartbeats: applied at most six times a minute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import connection

from service_registry.manager.batch import ASKED_SERVICES, ITEMS, Submission, columns_of
from service_registry.schemas import Heartbeat
from service_registry.sql import INSTANCE, OVERRIDE, SERVICE

CHANGES_A_MINUTE = 6

LOCK = f"""
-- Locks the instances whose status is reported, in the order of their keys.
WITH {ASKED_SERVICES}
SELECT i.id, i.reported_status, i.pending_status,
    COALESCE(statement_timestamp() >= i.status_minute_at + interval '1 minute', true), i.status_changes
FROM unnest({ITEMS}) AS beat(place, instance_id)
JOIN asked_service s ON s.place = beat.place
JOIN {INSTANCE} i ON i.service_id = s.id AND i.instance_id = beat.instance_id
WHERE s.ours
ORDER BY i.id
FOR NO KEY UPDATE OF i
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an instance reported so far; `minute_over` when the minute in which it was counted has passed."""

    reported: str
    pending: str | None
    minute_over: bool
    changes: int


def lock(asked: Sequence[Submission[Heartbeat]]) -> dict[int, Standing]:
    """Lock the instances of the beats that carry a status; by primary key what they reported so far."""
    reporting = [each for each in asked if each.item.status]
    if not reporting:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(LOCK, columns_of(reporting))
        return {pk: Standing(*row) for pk, *row in cursor.fetchall()}


APPLY = f"""
-- Locks nothing new: the instances are locked already.
UPDATE {INSTANCE} i
SET reported_status = report.reported, pending_status = report.pending, status_changes = report.changes,
    status_minute_at = CASE WHEN report.minute_over THEN statement_timestamp() ELSE i.status_minute_at END
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::boolean[], %s::int[])
    AS report(id, reported, pending, minute_over, changes)
WHERE i.id = report.id
RETURNING i.id, NOT EXISTS (
    SELECT FROM {OVERRIDE} o WHERE o.service_id = i.service_id AND o.instance_id = i.instance_id)
"""


def apply(standing: dict[int, Standing], reports: Mapping[int, str]) -> dict[int, bool]:
    """Write the statuses that differ. An instance that alternates keeps its last word for the minute's end.

    Args:
        standing: what `lock` found, by primary key.
        reports: the status that each now reports, by primary key.

    Returns:
        By primary key, for each instance whose reported status changed: whether readers see it (no override stands
        over it).
    """
    rows = [(pk, *row) for pk, status in reports.items() if pk in standing and (row := judge(standing[pk], status))]
    if not rows:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(APPLY, [list(column) for column in zip(*rows, strict=True)])
        shown = dict(cursor.fetchall())
    return {pk: shown[pk] for pk, reported, *_ in rows if reported != standing[pk].reported}


def judge(standing: Standing, status: str) -> tuple[str, str | None, bool, int] | None:
    """The row to write (reported, pending, whether a new minute begins, changes in it); None when nothing differs."""
    if status == standing.reported:
        return (status, None, False, standing.changes) if standing.pending else None
    if standing.minute_over:
        return status, None, True, 1
    if standing.changes < CHANGES_A_MINUTE:
        return status, None, False, standing.changes + 1
    return standing.reported, status, False, standing.changes


SETTLE = f"""
-- Locks instances, in the order of their keys; one that is being written settles at the next sweep.
WITH due AS MATERIALIZED (
    SELECT i.id, i.pending_status FROM {INSTANCE} i
    WHERE i.pending_status IS NOT NULL AND statement_timestamp() >= i.status_minute_at + interval '1 minute'
    ORDER BY i.id LIMIT %s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE {INSTANCE} i
SET reported_status = due.pending_status, pending_status = NULL, status_changes = 1,
    status_minute_at = statement_timestamp()
FROM due JOIN {SERVICE} s ON true
WHERE i.id = due.id AND s.id = i.service_id
RETURNING i.id, s.namespace, s.name, i.instance_id
"""


@dataclass(frozen=True, slots=True)
class Settled:
    instance_pk: int
    namespace: str
    service_name: str
    instance_id: str


def settle(at_most: int) -> list[Settled]:
    """Apply the words that waited for their minute's end, at most so many. The caller's transaction appends them."""
    with connection.cursor() as cursor:
        cursor.execute(SETTLE, [at_most])
        return [Settled(*row) for row in cursor.fetchall()]
