"""deregister: an instance, its owner or an operator says that it is leaving."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import InstanceNotFound, LeaseSuperseded, NotOwner, RegistryError
from service_registry.manager.batch import Keyed, each_once, key_of
from service_registry.manager.locking import lock_instances
from service_registry.schemas import Deregistration
from service_registry.sql import INSTANCE, LEASE, SERVICE


@dataclass(frozen=True, slots=True)
class Deregistered:
    """The instance is off the list, by this call or by an earlier one."""


LOCK = f"""
-- Locks the instances that are leaving, then their leases.
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
SELECT found.position - 1, found.owners, leased.instance_id, leased.epoch
FROM found
LEFT JOIN locked ON locked.service_id = found.service_id AND locked.instance_id = found.instance_id
LEFT JOIN leased ON leased.instance_id = locked.id
"""

DELETE = f"""
-- Locks nothing new: these rows are locked already.
WITH gone AS (DELETE FROM {LEASE} WHERE instance_id = ANY (%s::bigint[]))
DELETE FROM {INSTANCE} WHERE id = ANY (%s::bigint[])
"""


@dataclass(frozen=True, slots=True)
class Found:
    owners: list[str]
    instance_pk: int | None
    epoch: int | None


def deregister(
    items: Sequence[Deregistration], caller: Caller, reason: str | None = None
) -> list[Deregistered | RegistryError]:
    """Take instances off the list; `reason` is kept with the changes.

    A repeated call is as good as the first: whatever the log has once known is Deregistered. Outcomes otherwise:
    NotOwner, LeaseSuperseded (another epoch holds the id), InstanceNotFound (`never_registered`).
    """
    return each_once(items, lambda once: deregister_once(once, caller, reason))


def deregister_once(
    items: Sequence[Deregistration], caller: Caller, reason: str | None
) -> list[Deregistered | RegistryError]:
    """One transaction.

    1. Lock the instances, then their leases; a heartbeat or sweep under way comes before us or finds no row after.
    2. Judge each item by the rows as locked.
    3. Delete, then append under the change lock.
    4. Ask the log about those that were not there; what a concurrent call took off a moment ago is in it by now.
    """
    with write_transaction(lock_timeout="3s"):
        found = lock(items, caller)
        outcomes = [judge(item, found.get(place), caller) for place, item in enumerate(items)]
        leaving = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Deregistered)]
        delete([pk for place in leaving if (pk := found[place].instance_pk) is not None])
        changelog.append_changes([event(items[place], caller, reason) for place in leaving])
    return with_reasons(items, outcomes)


def lock(items: Sequence[Deregistration], caller: Caller) -> dict[int, Found]:
    keys = [list(column) for column in zip(*map(key_of, items), strict=True)]
    with connection.cursor() as cursor:
        cursor.execute(LOCK, [*keys, caller.may("operate_instance"), sorted(caller.groups)])
        return {place: Found(*row) for place, *row in cursor.fetchall()}


def judge(item: Deregistration, found: Found | None, caller: Caller) -> Deregistered | RegistryError | None:
    """The item's outcome, or None when there is no such row and the log has to tell."""
    if found is None:
        return None
    if not (caller.may("operate_instance") or (caller.may("deregister_instance") and caller.owns(found.owners))):
        return NotOwner()
    if found.instance_pk is None:
        return None
    if item.epoch not in {None, found.epoch}:
        return LeaseSuperseded()
    return Deregistered()


def delete(instance_pks: list[int]) -> None:
    if instance_pks:
        with connection.cursor() as cursor:
            cursor.execute(DELETE, [instance_pks, instance_pks])


def event(
    item: Keyed, caller: Caller, reason: str | None, evidence: Mapping[str, Any] | None = None
) -> changelog.NewChange:
    key = item.namespace, item.service_name
    return changelog.NewChange(
        ChangeKind.DEREGISTERED, *key, caller.actor, item.instance_id, reason=reason, evidence=evidence
    )


def with_reasons(
    items: Sequence[Deregistration], outcomes: Sequence[Deregistered | RegistryError | None]
) -> list[Deregistered | RegistryError]:
    missing = [item for item, outcome in zip(items, outcomes, strict=True) if outcome is None]
    last = iter(changelog.read_last_lifecycle_kinds(map(key_of, missing)))
    return [outcome or (Deregistered() if next(last) else InstanceNotFound("never_registered")) for outcome in outcomes]
