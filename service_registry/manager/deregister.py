"""Deregister: delete an instance for itself, its owner or an operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.base import prepared_cursor
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import InstanceNotFound, LeaseSuperseded, NotOwner, RegistryError
from service_registry.manager.batch import Keyed, key_of, run_batch
from service_registry.manager.locking import lock_instances
from service_registry.schemas import Deregistration
from service_registry.sql import INSTANCE, LEASE, SERVICE


@dataclass(frozen=True, slots=True)
class Deregistered:
    """The instance is off the list, by this call or an earlier one."""


LOCK = f"""
-- Locks the instances that leave, then their leases.
WITH item AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY
        AS item(namespace, service_name, instance_id, position)
),
found AS MATERIALIZED (
    SELECT item.position, item.instance_id, s.id AS service_id, s.owners
    FROM item JOIN {SERVICE} s ON s.namespace = item.namespace AND s.name = item.service_name
),
wanted AS MATERIALIZED (
    SELECT service_id, instance_id FROM found WHERE %s OR owners && %s::text[]
),
{lock_instances("UPDATE")}
SELECT found.position - 1, found.owners, leased.instance_id, leased.epoch, leased.incarnation
FROM found
LEFT JOIN locked ON locked.service_id = found.service_id AND locked.instance_id = found.instance_id
LEFT JOIN leased ON leased.instance_id = locked.id
"""

DELETE = f"""
-- Locks nothing new: these rows are locked already. One statement for both tables, since arrays of 1,000 are usual.
WITH deleted AS (DELETE FROM {LEASE} WHERE instance_id = ANY (%s::bigint[]))
DELETE FROM {INSTANCE} WHERE id = ANY (%s::bigint[])
"""


@dataclass(frozen=True, slots=True)
class LockedRow:
    """An item's service, and its instance where the row exists and is locked."""

    owners: list[str]
    instance_pk: int | None
    epoch: int | None
    incarnation: str | None


def deregister(
    items: Sequence[Deregistration], caller: Caller, reason: str | None = None
) -> list[Deregistered | RegistryError]:
    """Take instances off the list. `reason` is kept with the changes.

    A repeated call has the outcome of the first: every instance that the log has known is Deregistered. Other outcomes:
    NotOwner, LeaseSuperseded (the epoch or incarnation is not the current one), InstanceNotFound (`never_registered`).
    """
    return run_batch(items, lambda distinct: deregister_distinct(distinct, caller, reason))


def deregister_distinct(
    items: Sequence[Deregistration], caller: Caller, reason: str | None
) -> list[Deregistered | RegistryError]:
    """Deregister in one transaction, and explain by the log what has no row.

    1. Lock the instances, then their leases. A heartbeat or sweep under way ends before, or finds no row afterwards.
    2. Check each item by the locked rows.
    3. Delete, then append under the change lock.
    4. After the commit, read the log for the items without a row. It has what a concurrent call has just deleted.
    """
    with write_transaction(lock_timeout="3s"):
        rows = lock_rows(items, caller)
        outcomes = [check_item(item, rows.get(position), caller) for position, item in enumerate(items)]
        leaving = [position for position, outcome in enumerate(outcomes) if isinstance(outcome, Deregistered)]
        delete_instances([pk for position in leaving if (pk := rows[position].instance_pk) is not None])
        changelog.append_changes([to_change(items[position], caller, reason) for position in leaving])
    return explain_missing(items, outcomes)


def lock_rows(items: Sequence[Deregistration], caller: Caller) -> dict[int, LockedRow]:
    """Lock the rows that the caller may deregister.

    Returns the rows of existing services, by the item's position.
    """
    keys = [list(column) for column in zip(*map(key_of, items), strict=True)]
    with prepared_cursor() as cursor:
        cursor.execute(LOCK, [*keys, caller.may("operate_instance"), sorted(caller.groups)])
        return {position: LockedRow(*row) for position, *row in cursor.fetchall()}


def check_item(item: Deregistration, row: LockedRow | None, caller: Caller) -> Deregistered | RegistryError | None:
    """Return the item's outcome; None for a missing row, which the log explains."""
    if row is None:
        return None
    if not (caller.may("operate_instance") or (caller.may("deregister_instance") and caller.owns(row.owners))):
        return NotOwner()
    if row.instance_pk is None:
        return None
    if item.epoch not in {None, row.epoch} or item.incarnation not in {None, row.incarnation}:
        return LeaseSuperseded()
    return Deregistered()


def delete_instances(instance_pks: list[int]) -> None:
    """Delete instances and their leases, which this transaction has locked."""
    if instance_pks:
        with prepared_cursor() as cursor:
            cursor.execute(DELETE, [instance_pks, instance_pks])


def to_change(
    item: Keyed, caller: Caller, reason: str | None, evidence: Mapping[str, Any] | None = None
) -> changelog.NewChange:
    key = item.namespace, item.service_name
    return changelog.NewChange(
        ChangeKind.DEREGISTERED, *key, caller.actor, item.instance_id, reason=reason, evidence=evidence
    )


def explain_missing(
    items: Sequence[Deregistration], outcomes: Sequence[Deregistered | RegistryError | None]
) -> list[Deregistered | RegistryError]:
    missing = [item for item, outcome in zip(items, outcomes, strict=True) if outcome is None]
    kinds = iter(changelog.read_last_lifecycle_kinds(map(key_of, missing)))
    return [
        outcome or (Deregistered() if next(kinds) else InstanceNotFound("never_registered")) for outcome in outcomes
    ]
