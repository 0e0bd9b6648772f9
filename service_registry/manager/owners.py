"""Services themselves: provisioned or handed over by `set_owners`, and deleted when empty, with their name reserved."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from service_registry import changelog
from service_registry.caller import Caller, is_ignored
from service_registry.choices import ChangeKind
from service_registry.database.retries import with_retries
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import InvalidInput, RegistryError, ServiceNotEmpty, ServiceNotFound
from service_registry.permissions import grants
from service_registry.schemas import ServiceOwners
from service_registry.sql import INSTANCE, OVERRIDE, RESERVATION, SERVICE


@dataclass(frozen=True, slots=True)
class Owned:
    """The service has these owners now. `created` when it did not exist before."""

    created: bool
    owners: list[str]


LOCK = f"""
-- Locks the service against registrations of new instances, and against deletion.
SELECT s.id, s.owners FROM {SERVICE} s WHERE s.namespace = %s AND s.name = %s FOR UPDATE
"""
INSERT = f"""
INSERT INTO {SERVICE} (namespace, name, owners) VALUES (%s, %s, %s) ON CONFLICT (namespace, name) DO NOTHING
RETURNING id
"""
UPDATE = f"UPDATE {SERVICE} SET owners = %s WHERE id = %s"
UNRESERVE = f"DELETE FROM {RESERVATION} WHERE namespace = %s AND name = %s"


class Vanished(Exception):
    """The service was deleted between two statements of ours."""


def set_owners(orders: Sequence[ServiceOwners], caller: Caller) -> list[Owned | RegistryError]:
    """Give services these owners, and make those that do not exist. One order at a time.

    Outcome otherwise: InvalidInput, for a group that is a role here or that everybody holds: it would open the service
    to whoever has it.
    """
    return [ruled_out(order) or with_retries(lambda order=order: settled(order, caller)) for order in orders]  # type: ignore[misc]


def ruled_out(order: ServiceOwners) -> InvalidInput | None:
    found = [place for place, owner in enumerate(order.owners) if grants.are_role(owner) or is_ignored(owner)]
    return (
        InvalidInput.of_field(
            f"owners.{found[0]}", "no_team", "is a role, or held by everybody: it cannot own services"
        )
        if found
        else None
    )


def settled(order: ServiceOwners, caller: Caller) -> Owned:
    try:
        return set_owners_of(order, caller)
    except Vanished:
        return set_owners_of(order, caller)


def set_owners_of(order: ServiceOwners, caller: Caller) -> Owned:
    """One transaction.

    1. Insert; a rival who inserts the name at this moment is waited for, and then there is a row.
    2. Else lock the row: registrations of new instances wait, and find the new owners.
    """
    with write_transaction(lock_timeout="3s"), connection.cursor() as cursor:
        cursor.execute(INSERT, [order.namespace, order.name, order.owners])
        created = cursor.fetchone() is not None
        if created:
            cursor.execute(UNRESERVE, [order.namespace, order.name])
            append(order, caller, ChangeKind.SERVICE_CREATED, {"owners": order.owners})
            return Owned(created, order.owners)
        cursor.execute(LOCK, [order.namespace, order.name])
        standing = cursor.fetchone()
        if standing is None:
            raise Vanished
        pk, before = standing
        if before != order.owners:
            cursor.execute(UPDATE, [order.owners, pk])
            append(order, caller, ChangeKind.OWNERS_CHANGED, {"owners": order.owners, "before": before})
    return Owned(created, order.owners)


def append(order: ServiceOwners, caller: Caller, kind: ChangeKind, evidence: dict[str, list[str]]) -> None:
    changelog.append_changes(
        [changelog.NewChange(kind, order.namespace, order.name, caller.actor, reason=order.reason, evidence=evidence)]
    )


HOLDS_INSTANCES = f"SELECT EXISTS (SELECT FROM {INSTANCE} WHERE service_id = %s)"
RESERVE = f"""
INSERT INTO {RESERVATION} (namespace, name, owners, until)
VALUES (%s, %s, %s, statement_timestamp() + make_interval(days => %s))
ON CONFLICT (namespace, name) DO UPDATE SET owners = excluded.owners, until = excluded.until
"""


def delete_service(namespace: str, name: str, reason: str | None, caller: Caller) -> RegistryError | None:
    """Delete a service that has no instances, and its overrides. Its name stays reserved to its last owners: a freed
    name would receive the callers of the old service.

    1. Lock the row: registrations of new instances wait, and then find no service.
    2. Look for instances, in a statement of its own that sees what was registered while we waited.
    """
    with write_transaction(lock_timeout="3s"), connection.cursor() as cursor:
        cursor.execute(LOCK, [namespace, name])
        row = cursor.fetchone()
        if row is None:
            return ServiceNotFound()
        pk, owners = row
        cursor.execute(HOLDS_INSTANCES, [pk])
        if cursor.fetchone()[0]:
            return ServiceNotEmpty()
        cursor.execute(f"DELETE FROM {OVERRIDE} WHERE service_id = %s", [pk])
        cursor.execute(f"DELETE FROM {SERVICE} WHERE id = %s", [pk])
        cursor.execute(RESERVE, [namespace, name, owners, settings.REGISTRY_NAME_RESERVATION_DAYS])
        deleted = changelog.NewChange(
            ChangeKind.SERVICE_DELETED, namespace, name, caller.actor, reason=reason, evidence={"owners": owners}
        )
        changelog.append_changes([deleted])
    return None
