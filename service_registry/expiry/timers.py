"""End overrides and apply delayed statuses at their time, also without expiry."""

from django.db import connection

from service_registry import changelog
from service_registry.choices import ChangeKind
from service_registry.expiry.evidence import ACTOR
from service_registry.manager import reported_status
from service_registry.sql import INSTANCE, OVERRIDE, SERVICE

# Reads `o`, an override.
IS_OVER = "o.until <= statement_timestamp()"

END_OVERRIDES = f"""
-- Locks overrides that are over, in the order of their keys, and nothing before them.
WITH over AS MATERIALIZED (
    SELECT o.id FROM {OVERRIDE} o WHERE {IS_OVER} ORDER BY o.id LIMIT %s
    FOR UPDATE SKIP LOCKED
),
ended AS (DELETE FROM {OVERRIDE} o USING over WHERE o.id = over.id RETURNING o.*)
SELECT s.namespace, s.name, ended.instance_id, i.id, ended.actor, ended.reason
FROM ended
JOIN {SERVICE} s ON s.id = ended.service_id
LEFT JOIN {INSTANCE} i ON i.service_id = ended.service_id AND i.instance_id = ended.instance_id
ORDER BY s.namespace, s.name, ended.instance_id
"""


def end_overrides(at_most: int) -> int:
    """Delete up to `at_most` overrides whose `until` has passed; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(END_OVERRIDES, [at_most])
        rows = cursor.fetchall()
    changelog.append_changes(
        [
            changelog.NewChange(
                ChangeKind.STATUS_CHANGED,
                namespace,
                name,
                ACTOR,
                instance_id,
                pk,
                changed=["override", "status"],
                reason="the override ended at its `until`",
                evidence={"override_actor": actor, "override_reason": reason},
            )
            for namespace, name, instance_id, pk, actor, reason in rows
        ]
    )
    return len(rows)


def apply_delayed_statuses(at_most: int) -> int:
    """Apply status changes that waited for the end of their minute; return how many."""
    applied = reported_status.apply_pending(at_most)
    changelog.append_changes(
        [
            changelog.NewChange(
                ChangeKind.STATUS_CHANGED,
                row.namespace,
                row.service_name,
                ACTOR,
                row.instance_id,
                row.instance_pk,
                changed=["reported_status", "status"],
                reported=True,
                reason="the status change was delayed to the end of its minute",
            )
            for row in applied
        ]
    )
    return len(applied)
