"""The removal of what has been expired for as long as it is retained."""

import json
from typing import Any

from django.conf import settings
from django.db import connection

from service_registry import changelog
from service_registry.choices import ChangeKind
from service_registry.expiry.conditions import IS_OVER_RETENTION, TIME_PASSES
from service_registry.expiry.evidence import ACTOR, process
from service_registry.sql import CHANGE, INSTANCE, LEASE, NEWEST_FIRST, SERVICE, STATE, rfc3339

REMOVE = f"""
-- Locks instances, then leases, in the order of their keys; what is being renewed or registered is skipped.
WITH old AS MATERIALIZED (
    SELECT i.id FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
    WHERE {IS_OVER_RETENTION}
        AND EXISTS (SELECT FROM {STATE} r WHERE {TIME_PASSES})
    ORDER BY i.id LIMIT %(at_most)s
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
    {rfc3339("statement_timestamp()")}, told.evidence
FROM gone
JOIN {SERVICE} s ON s.id = gone.service_id
LEFT JOIN LATERAL (
    SELECT c.evidence FROM {CHANGE} c
    WHERE c.namespace = s.namespace AND c.service_name = s.name AND c.instance_id = gone.instance_id
        AND c.kind = '{ChangeKind.EXPIRED}'
    ORDER BY {NEWEST_FIRST} LIMIT 1
) told ON true
ORDER BY s.namespace, s.name, gone.instance_id
"""


def remove(at_most: int) -> int:
    """Remove the rows that expired longer ago than they are retained, and return how many."""
    retention = settings.REGISTRY_RETENTION_SECONDS
    with connection.cursor() as cursor:
        cursor.execute(REMOVE, {"retention": retention, "at_most": at_most})
        rows = cursor.fetchall()
    changelog.append_changes(
        [
            changelog.NewChange(
                ChangeKind.PURGED,
                namespace,
                name,
                ACTOR,
                instance_id,
                reason=f"expired more than {retention} s ago",
                evidence=evidence(*facts),
            )
            for namespace, name, instance_id, *facts in rows
        ]
    )
    return len(rows)


def evidence(heartbeat_at: str, expired_at: str, swept_at: str, told: str | None) -> dict[str, Any]:
    """Of the removal, and what was said of the expiry before it: its deadline, window and holds."""
    expiry = json.loads(told) if told else {}
    return {
        "heartbeat_at": heartbeat_at,
        "expired_at": expired_at,
        "swept_at": swept_at,
        "process": process(),
        **{name: expiry.get(name) for name in ("deadline", "window_started_at", "rules")},
    }
