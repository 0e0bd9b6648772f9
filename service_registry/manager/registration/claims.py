"""Create and lock the services of a batch of registrations; check owners."""

import json
from collections.abc import Mapping, Sequence

from django.conf import settings

from service_registry.caller import Caller
from service_registry.database.base import prepared_cursor
from service_registry.exceptions import NotOwner, NotProvisioned, OwnerRequired, RegistryError
from service_registry.manager.registration.entry import Entry, ServiceRow, accepted
from service_registry.models import Service
from service_registry.schemas import Registration
from service_registry.sql import RESERVATION, SERVICE

CREATE = f"""
-- Locks the new rows, in the order of their names, and waits for a rival that inserts the same name. Of several claims
-- of a name the first counts that no reservation excludes.
WITH admitted AS MATERIALIZED (
    SELECT DISTINCT ON (claim.namespace, claim.name) claim.*
    FROM jsonb_to_recordset(%s) AS claim(position int, namespace text, name text, owner text, groups text[])
    WHERE NOT EXISTS (
        SELECT FROM {RESERVATION} r WHERE r.namespace = claim.namespace AND r.name = claim.name
            AND r.until > statement_timestamp() AND NOT r.owners && claim.groups)
    ORDER BY claim.namespace, claim.name, claim.position
),
created AS (
    INSERT INTO {SERVICE} (namespace, name, owners, claimed)
    SELECT namespace, name, ARRAY[owner], true FROM admitted ORDER BY namespace, name
    ON CONFLICT (namespace, name) DO NOTHING
    RETURNING namespace, name
)
SELECT created.namespace, created.name, admitted.position FROM created JOIN admitted USING (namespace, name)
"""


def create_services(entries: Sequence[Entry]) -> dict[tuple[str, str], Caller]:
    """Create the services that do not exist, each with one owner.

    Where a rival creates one first its row stays, and ownership is checked by it under the lock.

    Returns:
        The names that this transaction has created, each with the caller who claimed it.
    """
    claims: dict[tuple[tuple[str, str], Caller], str] = {}
    for entry in entries:
        key = entry.service_key, entry.caller
        if entry.service is None and key not in claims:
            owner = choose_owner(entry.item, entry.caller)
            if isinstance(owner, RegistryError):
                entry.refusal = owner
            else:
                claims[key] = owner
    if not claims:
        return {}
    rows = [
        {"position": position, "namespace": namespace, "name": name, "owner": owner, "groups": sorted(caller.groups)}
        for position, (((namespace, name), caller), owner) in enumerate(claims.items())
    ]
    claimants = [caller for _key, caller in claims]
    with prepared_cursor() as cursor:
        cursor.execute(CREATE, [json.dumps(rows)])
        return {(namespace, name): claimants[position] for namespace, name, position in cursor.fetchall()}


def choose_owner(item: Registration, caller: Caller) -> str | RegistryError:
    """Return the group to own the service that `item` creates, or its refusal."""
    if settings.REGISTRY_FIRST_REGISTRATION == "provisioned":
        return NotProvisioned()
    groups = caller.claimable_groups()
    if not groups:
        return NotOwner("The service does not exist yet, and none of the caller's groups can own one.")
    if item.owner is None:
        return groups[0] if len(groups) == 1 else OwnerRequired(groups)
    if item.owner not in groups:
        return NotOwner("The owner named is none of the caller's groups that can own a service.")
    return item.owner


LOCK = f"""
-- Locks the services of the batch, in the order of their names.
SELECT s.namespace, s.name, s.id, s.owners
FROM {SERVICE} s
JOIN (SELECT DISTINCT * FROM unnest((SELECT %s::text[]), (SELECT %s::text[])) AS key(namespace, name)) key
    ON s.namespace = key.namespace AND s.name = key.name
ORDER BY s.namespace, s.name
FOR NO KEY UPDATE OF s
"""


def lock_services(entries: Sequence[Entry]) -> None:
    """Lock the services of `entries` and read their rows again.

    New instances are inserted only under this lock.
    """
    if not entries:
        return
    with prepared_cursor() as cursor:
        cursor.execute(LOCK, [list(column) for column in zip(*(entry.service_key for entry in entries), strict=True)])
        rows = {(namespace, name): ServiceRow(pk, owners) for namespace, name, pk, owners in cursor.fetchall()}
    for entry in entries:
        # None where the name is reserved for the last owners of a deleted service.
        entry.service = rows.get(entry.service_key)


def refuse_unowned_services(entries: Sequence[Entry]) -> None:
    """Refuse the entries whose caller does not own the service."""
    for entry in accepted(entries):
        if entry.service is None or not entry.caller.owns(entry.service.owners):
            entry.refusal = NotOwner()


def delete_empty_services(
    created: Mapping[tuple[str, str], Caller], entries: Sequence[Entry]
) -> dict[tuple[str, str], Caller]:
    """Delete the created services without an accepted instance; return the others.

    They were created by this transaction.
    """
    in_use = {entry.service_key for entry in accepted(entries)}
    kept = {key: claimant for key, claimant in created.items() if key in in_use}
    empty = {entry.service_pk for entry in entries if entry.service and entry.service_key in created.keys() - kept}
    if empty:
        Service.objects.filter(pk__in=empty).delete()
    return kept
