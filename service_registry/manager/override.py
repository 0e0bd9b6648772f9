"""Override: an owner or operator replaces a status until it is cleared or expires."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Q

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import (
    InvalidInput,
    NotOwner,
    PermissionMissing,
    QuotaExceeded,
    RegistryError,
    ServiceNotFound,
)
from service_registry.manager import owner_usage
from service_registry.manager.batch import key_of, run_batch
from service_registry.manager.locking import lock_instances
from service_registry.models import Override
from service_registry.schemas import InstanceOverride
from service_registry.sql import INSTANCE_DOCUMENT, INSTANCE_ROWS, OVERRIDE, SERVICE, rfc3339


@dataclass(frozen=True, slots=True)
class Overridden:
    """The override in force or None, and the instance.

    The instance is None where none of this id is registered.
    """

    override: dict[str, Any] | None
    instance: dict[str, Any] | None


@dataclass(slots=True)
class LockedRow:
    """An item's service and instance, as locked.

    `until_ahead` is False for a time that has passed; `by_operator` is True for an override that an operator has set,
    None where there is no override.
    """

    service_pk: int
    owners: list[str]
    instance_pk: int | None
    until_ahead: bool
    by_operator: bool | None


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
    COALESCE(item.until > statement_timestamp(), true), current.by_operator
FROM item
JOIN service ON service.namespace = item.namespace AND service.name = item.service_name
LEFT JOIN locked ON locked.service_id = service.id AND locked.instance_id = item.instance_id
LEFT JOIN leased ON leased.instance_id = locked.id
LEFT JOIN {OVERRIDE} current ON current.service_id = service.id AND current.instance_id = item.instance_id
"""

# The ORM's upsert can neither order its rows nor leave an equal row alone.
SET = f"""
-- Locks overrides, in the order of their keys. An override that does not differ is not written, nor is one that an
-- operator has set meanwhile written by an owner.
INSERT INTO {OVERRIDE} AS o (service_id, instance_id, status, reason, actor, until, by_operator)
SELECT item.service_id, item.instance_id, item.status, item.reason, item.actor, item.until, item.by_operator
FROM jsonb_to_recordset(%s) AS item(service_id bigint, instance_id text, status text, reason text, actor text,
    until timestamptz, by_operator boolean)
ORDER BY item.service_id, item.instance_id
ON CONFLICT (service_id, instance_id) DO UPDATE
SET status = excluded.status, reason = excluded.reason, actor = excluded.actor, until = excluded.until,
    by_operator = excluded.by_operator, created_at = statement_timestamp()
WHERE (excluded.by_operator OR NOT o.by_operator) AND (o.status, o.reason, o.until, o.by_operator)
    IS DISTINCT FROM (excluded.status, excluded.reason, excluded.until, excluded.by_operator)
RETURNING o.service_id, o.instance_id
"""

READ = f"""
SELECT item.position - 1,
    CASE WHEN current.id IS NOT NULL THEN json_build_object('status', current.status, 'reason', current.reason,
        'actor', current.actor, 'until', {rfc3339("current.until")}) END,
    (SELECT {INSTANCE_DOCUMENT} FROM {INSTANCE_ROWS}
        WHERE i.service_id = item.service_id AND i.instance_id = item.instance_id)
FROM unnest(%s::bigint[], %s::text[]) WITH ORDINALITY AS item(service_id, instance_id, position)
LEFT JOIN {OVERRIDE} current ON current.service_id = item.service_id AND current.instance_id = item.instance_id
ORDER BY item.position
"""


def override(items: Sequence[InstanceOverride], caller: Caller) -> list[Overridden | RegistryError]:
    """Set the overrides of instances, or clear those of items whose `status` is None.

    An override belongs to a service and an instance id; the instance need not exist. Other outcomes: ServiceNotFound,
    NotOwner, PermissionMissing (an operator has set the override), QuotaExceeded, InvalidInput (a time that has passed,
    a repeated key).
    """
    return run_batch(items, lambda distinct: override_distinct(distinct, caller))


def override_distinct(items: Sequence[InstanceOverride], caller: Caller) -> list[Overridden | RegistryError]:
    """Set and clear overrides in one transaction.

    1. Lock services against deletion, then instances and leases, so that registrations and heartbeats wait.
    2. Refuse an owner's new overrides above the limit, under the lock of its usage.
    3. Set overrides, then clear others. Of two callers who set the same one the later commit stays. A batch that does
       both locks two ordered sets, and so can deadlock with another over instances that do not exist; it is retried
       then. The front ends send batches that set or clear.
    4. Read what is in force, and append what changed.
    """
    with write_transaction(lock_timeout="3s"):
        rows = lock_rows(items, caller)
        outcomes: list[Overridden | RegistryError | None] = [
            check_item(rows.get(position), caller) for position in range(len(items))
        ]
        if not caller.may("operate_instance"):
            refuse_over_quota(items, rows, outcomes)
        accepted = {position: rows[position] for position, outcome in enumerate(outcomes) if outcome is None}
        changed = set_overrides(items, accepted, caller) | clear_overrides(items, accepted, caller)
        for position, overridden in zip(accepted, read_overridden(items, accepted), strict=True):
            outcomes[position] = overridden
        changelog.append_changes(
            [
                to_change(items[position], row, caller)
                for position, row in accepted.items()
                if (row.service_pk, items[position].instance_id) in changed
            ]
        )
    return [outcome for outcome in outcomes if outcome is not None]


def lock_rows(items: Sequence[InstanceOverride], caller: Caller) -> dict[int, LockedRow]:
    """Lock what the items name; return the rows of existing services by position."""
    keys = zip(*((*key_of(item), item.until) for item in items), strict=True)
    with connection.cursor() as cursor:
        columns = [list(column) for column in keys]
        cursor.execute(LOCK, [*columns, caller.may("operate_instance"), sorted(caller.groups)])
        return {position: LockedRow(*row) for position, *row in cursor.fetchall()}


def check_item(row: LockedRow | None, caller: Caller) -> RegistryError | None:
    """Return the error that refuses the item, or None."""
    if row is None:
        return ServiceNotFound()
    if not (caller.may("operate_instance") or (caller.may("override_status") and caller.owns(row.owners))):
        return NotOwner()
    if not row.until_ahead:
        return InvalidInput.of_field("until", "past", "must be a time in the future")
    if row.by_operator and not caller.may("operate_instance"):
        return PermissionMissing("operate_instance")
    return None


def refuse_over_quota(
    items: Sequence[InstanceOverride], rows: dict[int, LockedRow], outcomes: list[Overridden | RegistryError | None]
) -> None:
    """Refuse new overrides of owners with too many for instances that are not registered.

    One for a registered instance is refused only when its owner is above the limit already, which it can pass by
    deregistering instances.
    """
    new = [
        position
        for position, outcome in enumerate(outcomes)
        if outcome is None and items[position].status and rows[position].by_operator is None
    ]
    if not new:
        return
    limit = settings.REGISTRY_MAX_OVERRIDES_WITHOUT_INSTANCE
    spare = owner_usage.count_spare_overrides(owner for position in new for owner in rows[position].owners)
    for position in new:
        row, added = rows[position], int(rows[position].instance_pk is None)
        if any(spare[owner] + added > limit for owner in row.owners):
            things, setting = (
                "overrides of instances that are not registered",
                "REGISTRY_MAX_OVERRIDES_WITHOUT_INSTANCE",
            )
            outcomes[position] = QuotaExceeded("service's owner", limit, things, setting)
        else:
            spare.update(dict.fromkeys(row.owners, added))


# Service and instance id.
Keys = set[tuple[int, str]]


def set_overrides(items: Sequence[InstanceOverride], rows: dict[int, LockedRow], caller: Caller) -> Keys:
    """Set the overrides of items with a status; return the keys of those that changed."""
    documents = [
        {
            "service_id": row.service_pk,
            "instance_id": items[position].instance_id,
            "status": items[position].status,
            "reason": items[position].reason,
            "actor": caller.actor,
            "until": until.isoformat() if (until := items[position].until) else None,
            "by_operator": caller.may("operate_instance"),
        }
        for position, row in rows.items()
        if items[position].status
    ]
    if not documents:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(SET, [json.dumps(documents)])
        return set(cursor.fetchall())


def clear_overrides(items: Sequence[InstanceOverride], rows: dict[int, LockedRow], caller: Caller) -> Keys:
    """Delete the overrides of items without a status; return the deleted keys.

    They are locked in the order of their keys. One that an operator has set meanwhile is left to operators.
    """
    keys = [
        Q(service_id=row.service_pk, instance_id=items[position].instance_id)
        for position, row in rows.items()
        if not items[position].status
    ]
    if not keys:
        return set()
    overrides = Override.objects.filter(Q(*keys, _connector=Q.OR)).order_by("service_id", "instance_id")
    if not caller.may("operate_instance"):
        overrides = overrides.filter(by_operator=False)
    cleared = {override.pk: (override.service_id, override.instance_id) for override in overrides.select_for_update()}
    Override.objects.filter(pk__in=cleared).delete()
    return set(cleared.values())


def to_change(item: InstanceOverride, row: LockedRow, caller: Caller) -> changelog.NewChange:
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


def read_overridden(items: Sequence[InstanceOverride], rows: dict[int, LockedRow]) -> list[Overridden]:
    """Return what is in force for each of `rows`, in their order."""
    if not rows:
        return []
    keys = [(row.service_pk, items[position].instance_id) for position, row in rows.items()]
    with connection.cursor() as cursor:
        cursor.execute(READ, [list(column) for column in zip(*keys, strict=True)])
        return [Overridden(override, instance) for _position, override, instance in cursor.fetchall()]
