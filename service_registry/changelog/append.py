"""How changes come into the log: last in their transaction, under a lock, so that ids follow commit order."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction

from service_registry import metrics
from service_registry.choices import ChangeKind
from service_registry.sql import CHANGE, INSTANCE, INSTANCE_DOCUMENT, INSTANCE_ROWS, SERVICE

# Held from just before a change gets its id until its transaction ends, so that ids follow commit order.
CHANGE_LOCK = 0x5E41_0001
# Random per row. An index `<mark>-<id>` is good as long as a row with both exists.
MARK = "substr(gen_random_uuid()::text, 1, 8)"

LOCK = "SELECT pg_advisory_xact_lock(%s), set_config('synchronous_commit', 'on', true)"

APPEND = f"""
-- Locks nothing: the change lock is held, and so is the lease of every instance that is rendered, but for one that was
-- registered while an override was set or ended before it was there: it is rendered as it is now, since its own change
-- did not show the override yet, or still.
INSERT INTO {CHANGE} (mark, at, kind, namespace, service_name, instance_id, instance, changed, actor, reason, evidence)
SELECT {MARK}, clock_timestamp(),
    CASE WHEN e.kind = '{ChangeKind.STATUS_CHANGED}' AND shown.hidden THEN '{ChangeKind.UPDATED}' ELSE e.kind END,
    e.namespace, e.service_name, e.instance_id, shown.document,
    CASE WHEN shown.hidden THEN array_remove(e.changed, 'status') ELSE e.changed END,
    e.actor, e.reason, e.evidence
FROM jsonb_to_recordset(%s) AS e(position int, kind text, namespace text, service_name text, instance_id text,
    instance_pk bigint, changed text[], reported boolean, actor text, reason text, evidence jsonb)
LEFT JOIN LATERAL (
    SELECT {INSTANCE_DOCUMENT} AS document, o.id IS NOT NULL AND e.reported AS hidden
    FROM {INSTANCE_ROWS} WHERE i.id = COALESCE(e.instance_pk, (
        SELECT new.id FROM {INSTANCE} new JOIN {SERVICE} its ON its.id = new.service_id
        WHERE e.kind = '{ChangeKind.STATUS_CHANGED}' AND its.namespace = e.namespace AND its.name = e.service_name
            AND new.instance_id = e.instance_id))
) shown ON true
ORDER BY e.position
RETURNING id, kind
"""


@dataclass(frozen=True, slots=True)
class NewChange:
    """A change about to be appended.

    `instance_pk` is the row of the instance that is rendered into the change; its lease must be locked by this
    transaction. `reported` says that the reported status changed: where an override stands over it, readers see no
    other status, and the change is an update.
    """

    kind: ChangeKind
    namespace: str
    service_name: str
    actor: str
    instance_id: str | None = None
    instance_pk: int | None = None
    changed: Sequence[str] | None = None
    reported: bool = False
    reason: str | None = None
    evidence: Mapping[str, Any] | None = None


def append_changes(events: Sequence[NewChange]) -> None:
    """Append `events` in this order, as the last thing a transaction does.

    1. Take the change lock. Whoever appends later waits here, gets higher ids and commits later, so that a reader who
       has seen id n has seen all below it. The commit is made durable, else a reader could have seen a change that a
       crash takes back.
    2. Insert, in a statement of its own whose snapshot is taken under the lock. Nothing may be locked after this.
    """
    if not events:
        return
    rows = [
        {
            "position": position,
            "kind": event.kind,
            "namespace": event.namespace,
            "service_name": event.service_name,
            "instance_id": event.instance_id,
            "instance_pk": event.instance_pk,
            "changed": event.changed,
            "actor": event.actor,
            "reported": event.reported,
            "reason": event.reason,
            "evidence": event.evidence,
        }
        for position, event in enumerate(events)
    ]
    with connection.cursor() as cursor:
        cursor.execute(LOCK, [CHANGE_LOCK])
        cursor.execute(APPEND, [json.dumps(rows)])
        appended = cursor.fetchall()
    metrics.count_changes(kind for _pk, kind in appended)
    newest = max(pk for pk, _kind in appended)
    transaction.on_commit(lambda: note_commit(newest))


# Who in this process wants to know the id of the newest change that it has committed.
commit_listeners: list[Callable[[int], object]] = []


def note_commit(pk: int) -> None:
    for listener in commit_listeners:
        listener(pk)


START = f"""
INSERT INTO {CHANGE} (mark, at, kind, actor)
SELECT {MARK}, clock_timestamp(), '{ChangeKind.LOG_STARTED}', 'system:migrate' WHERE NOT EXISTS (SELECT FROM {CHANGE})
"""


def start_log(using: str = DEFAULT_DB_ALIAS) -> None:
    """Give an empty log its first row, so that it always has an end."""
    with connections[using].cursor() as cursor:
        cursor.execute(START)
