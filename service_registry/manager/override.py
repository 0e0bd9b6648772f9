"""override: an operator's or owner's word over the status of instances, until it is taken back or its time has come."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import InvalidInput, NotOwner, RegistryError, ServiceNotFound
from service_registry.manager.batch import each_once, key_of
from service_registry.manager.locking import lock_instances
from service_registry.schemas import InstanceOverride
from service_registry.sql import INSTANCE_DOCUMENT, INSTANCE_ROWS, OVERRIDE, SERVICE, rfc3339


@dataclass(frozen=True, slots=True)
class Overridden:
    """What stands now: the override or None, and the instance or None where there is no such instance."""

    override: dict[str, Any] | None
    instance: dict[str, Any] | None


@dataclass(slots=True)
class Found:
    """An order's service and instance as locked. `in_time` is False for a time that has passed."""

    service_pk: int
    owners: list[str]
    instance_pk: int | None
    in_time: bool


LOCK = f"""
-- Locks services against deletion, then the instances that exist, then their leases.
WITH item AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[]) WITH ORDINALITY
        AS item(namespace, service_name, instance_id, until, position)
),
service AS MATERIALIZED (
    SELECT s.id, s.namespace, s.name, s.owners FROM {SERVICE} s
    WHERE s.id = ANY ((SELECT array_agg(s.id) FROM item
        JOIN {SERVICE} s ON s.namespace = item.namespace AND s.name = item.service_name)::bigint[])
    ORDER BY s.namespace, s.name
    FOR KEY SHARE
),
wanted AS MATERIALIZED (
    SELECT service.id AS service_id, item.instance_id FROM item
    JOIN service ON service.namespace = item.namespace AND service.name = item.service_name
    WHERE %s OR service.owners && %s::text[]
),
{lock_instances("NO KEY UPDATE")}
SELECT item.position - 1, service.id, service.owners, leased.instance_id,
    COALESCE(item.until > statement_timestamp(), true)
FROM item
JOIN service ON service.namespace = item.namespace AND service.name = item.service_name
LEFT JOIN locked ON locked.service_id = service.id AND locked.instance_id = item.instance_id
LEFT JOIN leased ON leased.instance_id = locked.id
"""

SET = f"""
-- Locks overrides, in the order of their keys; one that says the same already is left alone.
INSERT INTO {OVERRIDE} AS o (service_id, instance_id, status, reason, actor, until)
SELECT item.service_id, item.instance_id, item.status, item.reason, item.actor, item.until
FROM jsonb_to_recordset(%s) AS item(service_id bigint, instance_id text, status text, reason text, actor text,
    until timestamptz)
ORDER BY item.service_id, item.instance_id
ON CONFLICT (service_id, instance_id) DO UPDATE
SET status = excluded.status, reason = excluded.reason, actor = excluded.actor, until = excluded.until,
    created_at = statement_timestamp()
WHERE (o.status, o.reason, o.until) IS DISTINCT FROM (excluded.status, excluded.reason, excluded.until)
RETURNING o.service_id, o.instance_id
"""

CLEAR = f"""
-- Locks overrides, in the order of their keys.
WITH over AS MATERIALIZED (
    SELECT o.id FROM {OVERRIDE} o
    JOIN unnest(%s::bigint[], %s::text[]) AS item(service_id, instance_id)
        ON item.service_id = o.service_id AND item.instance_id = o.instance_id
    ORDER BY o.service_id, o.instance_id
    FOR UPDATE OF o
)
DELETE FROM {OVERRIDE} o USING over WHERE o.id = over.id
RETURNING o.service_id, o.instance_id
"""

READ = f"""
SELECT item.position - 1,
    CASE WHEN standing.id IS NOT NULL THEN json_build_object('status', standing.status, 'reason', standing.reason,
        'actor', standing.actor, 'until', {rfc3339("standing.until")}) END,
    (SELECT {INSTANCE_DOCUMENT} FROM {INSTANCE_ROWS}
        WHERE i.service_id = item.service_id AND i.instance_id = item.instance_id)
FROM unnest(%s::bigint[], %s::text[]) WITH ORDINALITY AS item(service_id, instance_id, position)
LEFT JOIN {OVERRIDE} standing ON standing.service_id = item.service_id AND standing.instance_id = item.instance_id
ORDER BY item.position
"""


def override(items: Sequence[InstanceOverride], caller: Caller) -> list[Overridden | RegistryError]:
    """Set the status of instances over their own, or with `status` None take that back. The instance need not exist.

    Outcomes otherwise: ServiceNotFound, NotOwner, InvalidInput (a time that has passed, a repeated key).
    """
    return each_once(items, lambda once: override_once(once, caller))


def override_once(items: Sequence[InstanceOverride], caller: Caller) -> list[Overridden | RegistryError]:
    """One transaction.

    1. Lock services against deletion, then instances and leases: what registers or beats meanwhile waits.
    2. Set the overrides, then clear those to be cleared. Of two callers who set the same one the later stands.
    3. Read what stands, and append what changed.
    """
    with write_transaction(lock_timeout="3s"):
        found = lock(items, caller)
        outcomes: list[Overridden | RegistryError | None] = [
            judge(found.get(place), caller) for place in range(len(items))
        ]
        going_on = {place: found[place] for place, outcome in enumerate(outcomes) if outcome is None}
        moved = set_all(items, going_on, caller) | clear_all(items, going_on)
        for place, standing in zip(going_on, read(items, going_on), strict=True):
            outcomes[place] = standing
        changelog.append_changes(
            [
                event(items[place], row, caller)
                for place, row in going_on.items()
                if (row.service_pk, items[place].instance_id) in moved
            ]
        )
    return [outcome for outcome in outcomes if outcome is not None]


def lock(items: Sequence[InstanceOverride], caller: Caller) -> dict[int, Found]:
    keys = zip(*((*key_of(item), item.until) for item in items), strict=True)
    with connection.cursor() as cursor:
        columns = [list(column) for column in keys]
        cursor.execute(LOCK, [*columns, caller.may("operate_instance"), sorted(caller.groups)])
        return {place: Found(*row) for place, *row in cursor.fetchall()}


def judge(row: Found | None, caller: Caller) -> RegistryError | None:
    if row is None:
        return ServiceNotFound()
    if not (caller.may("operate_instance") or (caller.may("override_status") and caller.owns(row.owners))):
        return NotOwner()
    if not row.in_time:
        return InvalidInput.of_field("until", "past", "must be a time in the future")
    return None


Keys = set[tuple[int, str]]


def set_all(items: Sequence[InstanceOverride], rows: dict[int, Found], caller: Caller) -> Keys:
    documents = [
        {
            "service_id": row.service_pk,
            "instance_id": items[place].instance_id,
            "status": items[place].status,
            "reason": items[place].reason,
            "actor": caller.actor,
            "until": until.isoformat() if (until := items[place].until) else None,
        }
        for place, row in rows.items()
        if items[place].status
    ]
    if not documents:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(SET, [json.dumps(documents)])
        return set(cursor.fetchall())


def clear_all(items: Sequence[InstanceOverride], rows: dict[int, Found]) -> Keys:
    keys = [(row.service_pk, items[place].instance_id) for place, row in rows.items() if not items[place].status]
    if not keys:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(CLEAR, [list(column) for column in zip(*keys, strict=True)])
        return set(cursor.fetchall())


def event(item: InstanceOverride, row: Found, caller: Caller) -> changelog.NewChange:
    return changelog.NewChange(
        ChangeKind.STATUS_CHANGED,
        item.namespace,
        item.service_name,
        caller.actor,
        item.instance_id,
        row.instance_pk,
        changed=["override", "status"],
        reason=item.reason,
        evidence={"override": item.status, "until": item.until.isoformat() if item.until else None},
    )


def read(items: Sequence[InstanceOverride], rows: dict[int, Found]) -> list[Overridden]:
    if not rows:
        return []
    keys = [(row.service_pk, items[place].instance_id) for place, row in rows.items()]
    with connection.cursor() as cursor:
        cursor.execute(READ, [list(column) for column in zip(*keys, strict=True)])
        return [Overridden(standing, instance) for _position, standing, instance in cursor.fetchall()]
