"""Purge the rows of instances that expired longer ago than the retention."""

import json
from typing import Any

from django.conf import settings
from django.db import connection

from service_registry import changelog
from service_registry.choices import ChangeKind
from service_registry.expiry.evidence import ACTOR, describe_process
from service_registry.expiry.observation_window import EXPIRY_RUNS
from service_registry.sql import CHANGE, INSTANCE, LEASE, NEWEST_FIRST, SERVICE, STATE, rfc3339

IS_PAST_RETENTION = "l.expired_at < statement_timestamp() - make_interval(secs => %(retention)s)"

PURGE = f"""
-- Locks instances, then leases, in the order of their keys; a row that is being renewed or registered is skipped.
WITH old AS MATERIALIZED (
    SELECT i.id FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
    WHERE {IS_PAST_RETENTION}
        AND EXISTS (SELECT FROM {STATE} r WHERE {EXPIRY_RUNS})
    ORDER BY i.id LIMIT %(at_most)s
    FOR UPDATE OF i SKIP LOCKED
),
locked AS MATERIALIZED (
    SELECT l.instance_id, l.heartbeat_at, l.expired_at FROM {LEASE} l
    WHERE l.instance_id = ANY ((SELECT array_agg(id) FROM old)::bigint[])
        AND {IS_PAST_RETENTION}
    ORDER BY l.instance_id
    FOR UPDATE SKIP LOCKED
),
deleted_leases AS (DELETE FROM {LEASE} WHERE instance_id IN (SELECT instance_id FROM locked)),
deleted AS (
    DELETE FROM {INSTANCE} i USING locked WHERE i.id = locked.instance_id
    RETURNING i.service_id, i.instance_id, locked.heartbeat_at, locked.expired_at
)
SELECT s.namespace, s.name, deleted.instance_id, {rfc3339("deleted.heartbeat_at")}, {rfc3339("deleted.expired_at")},
    {rfc3339("statement_timestamp()")}, expiry.evidence
FROM deleted
JOIN {SERVICE} s ON s.id = deleted.service_id
LEFT JOIN LATERAL (
    SELECT c.evidence FROM {CHANGE} c
    WHERE c.namespace = s.namespace AND c.service_name = s.name AND c.instance_id = deleted.instance_id
        AND c.kind = '{ChangeKind.EXPIRED}'
    ORDER BY {NEWEST_FIRST} LIMIT 1
) expiry ON true
ORDER BY s.namespace, s.name, deleted.instance_id
"""


def purge_expired(at_most: int) -> int:
    """Delete the rows that expired longer ago than the retention, and return how many."""
    retention = settings.REGISTRY_RETENTION_SECONDS
    with connection.cursor() as cursor:
        cursor.execute(PURGE, {"retention": retention, "at_most": at_most})
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
                evidence=build_evidence(*facts),
            )
            for namespace, name, instance_id, *facts in rows
        ]
    )
    return len(rows)


def build_evidence(heartbeat_at: str, expired_at: str, swept_at: str, expiry_evidence: str | None) -> dict[str, Any]:
    """Return the evidence of a purge, with facts of the expiry before it.

    These are the deadline, the window and the rules.
    """
    expiry = json.loads(expiry_evidence) if expiry_evidence else {}
    return {
        "heartbeat_at": heartbeat_at,
        "expired_at": expired_at,
        "swept_at": swept_at,
        "process": describe_process(),
        **{name: expiry.get(name) for name in ("deadline", "window_started_at", "rules")},
    }
