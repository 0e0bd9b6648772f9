"""What ends at its time also while time stands still for leases: overrides, and the minute of an alternating status."""

from django.db import connection

from service_registry import changelog
from service_registry.choices import ChangeKind
from service_registry.expiry.conditions import IS_OVER
from service_registry.expiry.evidence import ACTOR
from service_registry.manager import reported_status
from service_registry.sql import INSTANCE, OVERRIDE, SERVICE

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


def end_overrides(at_most: int) -> int:
    """End the overrides whose `until` has passed, whether or not time stands still."""
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
                reason="the override ended at its time",
                evidence={"override_actor": actor, "override_reason": reason},
            )
            for namespace, name, instance_id, pk, actor, reason in rows
        ]
    )
    return len(rows)


def settle_statuses(at_most: int) -> int:
    """Apply the statuses of alternating instances that waited for their minute's end."""
    settled = reported_status.apply_pending(at_most)
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
                reason="the status waited for the minute's end",
            )
            for row in settled
        ]
    )
    return len(settled)
