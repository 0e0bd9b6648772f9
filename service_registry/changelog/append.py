"""Append changes to the log, as the last step of a transaction, in commit order.

The step holds a lock, so that ids follow the order of commits.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from service_registry import metrics
from service_registry.choices import ChangeKind
from service_registry.database.base import prepared_cursor
from service_registry.sql import CHANGE, INSTANCE, INSTANCE_DOCUMENT, INSTANCE_ROWS, SERVICE

# Held from just before a change gets its id until its transaction ends, so that ids follow commit order.
CHANGE_LOCK = 0x5E41_0001
# Random for each row. An index `<mark>-<id>` is valid as long as a row with this mark and id exists.
MARK = "substr(gen_random_uuid()::text, 1, 8)"

LOCK = "SELECT pg_advisory_xact_lock(%s), set_config('synchronous_commit', 'on', true)"

APPEND = f"""
-- Locks nothing: this transaction holds the change lock and the lease of every instance that is rendered. The exception
-- is an instance that was registered while an override for it was set or ended: it is rendered as it is now, because
-- its own change did not show the override yet, or still showed it.
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
RETURNING id, kind, namespace, service_name, instance_id, instance
"""


@dataclass(frozen=True, slots=True)
class NewChange:
    """A change that is about to be appended.

    `instance_pk` is the row of the instance that is rendered into the change; this transaction must have locked its
    lease. `reported` means that the reported status changed: while an override hides it, readers see no other status,
    and the change becomes an update.
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


Key = tuple[str, str, str]
COLUMNS = [field.name for field in fields(NewChange)]


def append_changes(changes: Sequence[NewChange]) -> dict[Key, str]:
    """Append `changes` in this order, as the last step of a transaction.

    1. Take the change lock. A transaction that appends later waits here, gets higher ids and commits later. So a reader
       that has seen id n has seen all lower ids. The commit is made durable, because otherwise a crash could undo a
       change that a reader has seen.
    2. Insert in a separate statement, whose snapshot is taken under the lock. Nothing may be locked after this.

    Returns:
        The instances in the changes as JSON, by namespace, service and id.
    """
    if not changes:
        return {}
    rows = [
        {"position": position} | {name: getattr(change, name) for name in COLUMNS}
        for position, change in enumerate(changes)
    ]
    with prepared_cursor() as cursor:
        cursor.execute(LOCK, [CHANGE_LOCK])
        cursor.execute(APPEND, [json.dumps(rows)])
        appended = cursor.fetchall()
    metrics.count_changes(kind for _pk, kind, *_ in appended)
    newest = max(pk for pk, *_ in appended)
    transaction.on_commit(lambda: notify_commit_listeners(newest))
    return {
        (namespace, service, instance_id): document
        for _pk, _kind, namespace, service, instance_id, document in appended
    }


# Called with the id of the newest change of each transaction that this process has committed.
commit_listeners: list[Callable[[int], object]] = []


def notify_commit_listeners(pk: int) -> None:
    for listener in commit_listeners:
        listener(pk)


START = f"""
INSERT INTO {CHANGE} (mark, at, kind, actor)
SELECT {MARK}, clock_timestamp(), '{ChangeKind.LOG_STARTED}', 'system:migrate' WHERE NOT EXISTS (SELECT FROM {CHANGE})
"""


def start_log(using: str = DEFAULT_DB_ALIAS) -> None:
    """Insert the first row of an empty log, so that the log always has a newest index."""
    with connections[using].cursor() as cursor:
        cursor.execute(START)
