"""The instances of a batch of registrations: lock, compare, write and read them."""

import json
from collections.abc import Sequence
from typing import Any

from service_registry.choices import Health
from service_registry.database.base import prepared_cursor
from service_registry.manager.batch import Key
from service_registry.manager.locking import lock_instances
from service_registry.manager.registration.entry import Entry, ExistingRow
from service_registry.manager.renewal import RENEWAL
from service_registry.schemas import Registration
from service_registry.sql import INSTANCE, INSTANCE_DOCUMENT, INSTANCE_ROWS, LEASE

NEXT_EPOCH = "nextval('service_registry_epoch')"

# The columns that a registration states.
REGISTERED_COLUMNS = (
    *("host", "port", "scheme", "zone", "weight", "tags", "metadata", "reported_status", "health_check"),
    *("ttl_seconds", "incarnation"),
)

LOCK = f"""
-- Locks the instances that exist, then their leases.
WITH wanted AS (
    SELECT * FROM unnest((SELECT %s::bigint[]), (SELECT %s::text[]))
        WITH ORDINALITY AS wanted(service_id, instance_id, position)
),
{lock_instances("NO KEY UPDATE")}
SELECT wanted.position - 1, locked.id, leased.expired_at IS NOT NULL, leased.protected_at IS NOT NULL,
    locked.pending_status IS NOT NULL,
    locked.host, locked.port, locked.scheme, locked.zone, locked.weight, locked.tags, locked.metadata,
    locked.reported_status, locked.health_check, leased.ttl_seconds, leased.incarnation
FROM wanted
JOIN locked ON locked.service_id = wanted.service_id AND locked.instance_id = wanted.instance_id
JOIN leased ON leased.instance_id = locked.id
"""


def lock_existing(entries: Sequence[Entry]) -> None:
    """Lock the rows that exist; note their state and differing columns on each entry."""
    if not entries:
        return
    keys = zip(*((entry.service_pk, entry.item.instance_id) for entry in entries), strict=True)
    with prepared_cursor() as cursor:
        cursor.execute(LOCK, [list(column) for column in keys])
        for position, pk, expired, protected, pending, *values in cursor.fetchall():
            before = dict(zip(REGISTERED_COLUMNS, values, strict=True))
            # A raw cursor gives jsonb as text.
            before["metadata"] = json.loads(before["metadata"])
            before["health_check"] = before["health_check"] and json.loads(before["health_check"])
            after = registered_values(entries[position].item)
            entries[position].existing = ExistingRow(expired, protected, pending)
            entries[position].instance_pk = pk
            entries[position].changed = tuple(name for name in REGISTERED_COLUMNS if before[name] != after[name])


def registered_values(item: Registration) -> dict[str, Any]:
    """Return the values of REGISTERED_COLUMNS."""
    values = {name: getattr(item, "status" if name == "reported_status" else name) for name in REGISTERED_COLUMNS}
    values["health_check"] = item.health_check and item.health_check.model_dump()
    return values


def needs_write(entry: Entry) -> bool:
    """Return whether to write the row.

    A column differs, or a pending status would later undo this registration.
    """
    return bool(entry.changed) or (entry.existing is not None and entry.existing.pending)


UPDATE = f"""
-- Locks nothing new: instances and leases are locked already.
WITH item AS (
    SELECT * FROM jsonb_to_recordset(%s) AS item(id bigint, differs boolean, moved boolean, host text, port int,
        scheme text, zone text, weight int, tags text[], metadata jsonb, reported_status text, health_check jsonb,
        ttl_seconds int, incarnation text, actor text)
),
written AS (
    UPDATE {INSTANCE} i
    SET host = item.host, port = item.port, scheme = item.scheme, zone = item.zone, weight = item.weight,
        tags = item.tags, metadata = item.metadata, reported_status = item.reported_status, pending_status = NULL,
        health_check = item.health_check,
        health = CASE WHEN item.health_check IS NULL THEN NULL
            WHEN item.moved OR i.health IS NULL THEN '{Health.UNKNOWN}' ELSE i.health END,
        registered_at = CASE WHEN item.moved THEN statement_timestamp() ELSE i.registered_at END,
        registered_by = CASE WHEN item.moved THEN item.actor ELSE i.registered_by END
    FROM item WHERE i.id = item.id AND item.differs
),
{RENEWAL}
UPDATE {LEASE} l
SET heartbeat_at = renewal.at, expired_at = NULL, protected_at = NULL,
    ttl_seconds = CASE WHEN item.differs THEN item.ttl_seconds ELSE l.ttl_seconds END,
    check_failing = CASE WHEN NOT item.differs THEN l.check_failing
        WHEN (item.health_check->>'renews')::boolean THEN COALESCE(NOT item.moved AND l.check_failing, false) END,
    incarnation = CASE WHEN item.differs THEN item.incarnation ELSE l.incarnation END,
    epoch = CASE WHEN item.moved THEN {NEXT_EPOCH} ELSE l.epoch END,
    beats = CASE WHEN item.moved THEN 0 ELSE l.beats END
FROM item, renewal WHERE l.instance_id = item.id
RETURNING l.instance_id, renewal.heartbeat_at, renewal.counted_from
"""


def update_instances(entries: Sequence[Entry]) -> None:
    """Renew the leases of existing instances, and write the rows that differ.

    One that has moved gets a new epoch.
    """
    if not entries:
        return
    rows = [
        {"id": entry.instance_pk, "differs": needs_write(entry), "moved": entry.moved}
        | (registered_values(entry.item) | {"actor": entry.caller.actor} if needs_write(entry) else {})
        for entry in entries
    ]
    with prepared_cursor() as cursor:
        cursor.execute(UPDATE, [json.dumps(rows)])
        times = {pk: renewed for pk, *renewed in cursor.fetchall()}
    for entry in entries:
        entry.times = times[entry.instance_pk]


INSERT = f"""
-- The services are locked, so that no other transaction inserts into them.
WITH item AS (
    SELECT * FROM jsonb_to_recordset(%s) AS item(service_id bigint, instance_id text, host text, port int, scheme text,
        zone text, weight int, tags text[], metadata jsonb, reported_status text, health_check jsonb, ttl_seconds int,
        incarnation text, actor text)
),
created AS (
    INSERT INTO {INSTANCE} (service_id, instance_id, host, port, scheme, zone, weight, tags, metadata, reported_status,
        health_check, health, registered_by, status_changes)
    SELECT service_id, instance_id, host, port, scheme, zone, weight, tags, metadata, reported_status,
        health_check, CASE WHEN health_check IS NOT NULL THEN '{Health.UNKNOWN}' END, actor, 0
    FROM item ORDER BY service_id, instance_id
    RETURNING id, service_id, instance_id
),
{RENEWAL},
leased AS (
    INSERT INTO {LEASE} (instance_id, heartbeat_at, ttl_seconds, epoch, incarnation, beats, check_failing)
    SELECT created.id, renewal.at, item.ttl_seconds, {NEXT_EPOCH}, item.incarnation, 0,
        CASE WHEN (item.health_check->>'renews')::boolean THEN false END
    FROM renewal, created
    JOIN item ON item.service_id = created.service_id AND item.instance_id = created.instance_id
)
SELECT service_id, instance_id, id, heartbeat_at, counted_from FROM created, renewal
"""


def insert_instances(entries: Sequence[Entry]) -> None:
    """Insert the rows and leases of new instances."""
    if not entries:
        return
    rows = [
        {"service_id": entry.service_pk, "instance_id": entry.item.instance_id, "actor": entry.caller.actor}
        | registered_values(entry.item)
        for entry in entries
    ]
    with prepared_cursor() as cursor:
        cursor.execute(INSERT, [json.dumps(rows)])
        created = {(service_pk, instance_id): row for service_pk, instance_id, *row in cursor.fetchall()}
    for entry in entries:
        entry.instance_pk, *entry.times = created[entry.service_pk, entry.item.instance_id]


DOCUMENTS = f"""
SELECT s.namespace, s.name, i.instance_id, {INSTANCE_DOCUMENT}::text
FROM {INSTANCE_ROWS} WHERE i.id = ANY ((SELECT %s::bigint[])::bigint[])
"""


def read_documents(entries: Sequence[Entry]) -> dict[Key, str]:
    """Return the instances as readers see them, as JSON."""
    if not entries:
        return {}
    with prepared_cursor() as cursor:
        cursor.execute(DOCUMENTS, [[entry.instance_pk for entry in entries]])
        return {
            (namespace, name, instance_id): document for namespace, name, instance_id, document in cursor.fetchall()
        }
