"""Reported statuses: at once on the way down, six times a minute on the way up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service_registry.choices import Status
from service_registry.database.base import prepared_cursor
from service_registry.manager.batch import ITEM_COLUMNS, REQUESTED_SERVICES, Submission, join_columns
from service_registry.schemas import Heartbeat
from service_registry.sql import INSTANCE, OVERRIDE, SERVICE

CHANGES_PER_MINUTE = 6

LOCK = f"""
-- Locks the instances whose status is reported, in the order of their keys.
WITH {REQUESTED_SERVICES}
SELECT i.id, i.reported_status, i.pending_status,
    COALESCE(statement_timestamp() >= i.status_minute_at + interval '1 minute', true), i.status_changes
FROM unnest({ITEM_COLUMNS}) AS item(service_number, instance_id)
JOIN requested_service s ON s.number = item.service_number
JOIN {INSTANCE} i ON i.service_id = s.id AND i.instance_id = item.instance_id
WHERE s.owned
ORDER BY i.id
FOR NO KEY UPDATE OF i
"""


@dataclass(frozen=True, slots=True)
class ReportHistory:
    """The statuses that an instance has reported so far.

    `minute_over` means that the minute in which its changes were counted has passed.
    """

    reported: str
    pending: str | None
    minute_over: bool
    changes: int


def lock_reporting(submissions: Sequence[Submission[Heartbeat]]) -> dict[int, ReportHistory]:
    """Lock the instances whose heartbeat carries a status.

    Returns what they reported so far, by primary key.
    """
    reporting = [submission for submission in submissions if submission.item.status]
    if not reporting:
        return {}
    with prepared_cursor() as cursor:
        cursor.execute(LOCK, join_columns(reporting))
        return {pk: ReportHistory(*row) for pk, *row in cursor.fetchall()}


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


def apply_reports(histories: Mapping[int, ReportHistory], reports: Mapping[int, str]) -> dict[int, bool]:
    """Write the reported statuses that differ.

    The last status of an instance that alternates waits for the end of the minute.

    Args:
        histories: from `lock_reporting`, by primary key.
        reports: the status that each instance reports now, by primary key.

    Returns:
        By primary key, for each instance whose reported status changed: whether readers see the change. They do not
        where an override replaces the status.
    """
    rows = [
        (pk, *row)
        for pk, status in reports.items()
        if pk in histories and (row := limit_changes(histories[pk], status))
    ]
    if not rows:
        return {}
    with prepared_cursor() as cursor:
        cursor.execute(APPLY, [list(column) for column in zip(*rows, strict=True)])
        visible = dict(cursor.fetchall())
    return {pk: visible[pk] for pk, reported, *_ in rows if reported != histories[pk].reported}


def limit_changes(history: ReportHistory, status: str) -> tuple[str, str | None, bool, int] | None:
    """Return reported and pending status, whether a minute begins, and its changes.

    Returns None when nothing differs. A status that takes traffic away is never delayed: only the way back up waits.
    """
    if status == history.reported:
        return (status, None, False, history.changes) if history.pending else None
    if history.minute_over:
        return status, None, True, 1
    takes_traffic_away = history.reported == Status.UP and status != Status.UP
    if takes_traffic_away or history.changes < CHANGES_PER_MINUTE:
        return status, None, False, history.changes + 1
    return history.reported, status, False, history.changes


APPLY_PENDING = f"""
-- Locks instances, in the order of their keys. One that another transaction has locked is left to the next sweep.
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
class AppliedStatus:
    """An instance whose pending status has been applied."""

    instance_pk: int
    namespace: str
    service_name: str
    instance_id: str


def apply_pending(limit: int) -> list[AppliedStatus]:
    """Apply up to `limit` pending statuses whose minute is over.

    The caller's transaction appends the changes.
    """
    with prepared_cursor() as cursor:
        cursor.execute(APPLY_PENDING, [limit])
        return [AppliedStatus(*row) for row in cursor.fetchall()]
