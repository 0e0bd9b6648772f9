"""The rows of a batch of registrations: locked and compared, written, and read back as documents."""

import json
from collections.abc import Sequence
from typing import Any

from django.db import connection

from service_registry.manager.entry import Entry, Standing
from service_registry.manager.locking import lock_instances
from service_registry.schemas import Registration
from service_registry.sql import INSTANCE, INSTANCE_ROWS, LEASE, LEASED_INSTANCE_DOCUMENT, STATE

EPOCH = "nextval('service_registry_epoch')"

# What a registration states about an instance, by the column that keeps it.
STATED = ("host", "port", "scheme", "zone", "weight", "tags", "metadata", "reported_status", "ttl_seconds")

LOCK = f"""
-- Locks the instances that stand already, then their leases.
WITH wanted AS (
    SELECT * FROM unnest(%s::bigint[], %s::text[]) WITH ORDINALITY AS wanted(service_id, instance_id, position)
),
{lock_instances("NO KEY UPDATE")}
SELECT wanted.position - 1, locked.id, leased.expired_at IS NOT NULL, leased.protected_at IS NOT NULL,
    locked.pending_status IS NOT NULL,
    locked.host, locked.port, locked.scheme, locked.zone, locked.weight, locked.tags, locked.metadata,
    locked.reported_status, leased.ttl_seconds
FROM wanted
JOIN locked ON locked.service_id = wanted.service_id AND locked.instance_id = wanted.instance_id
JOIN leased ON leased.instance_id = locked.id
"""


def lock(entries: Sequence[Entry]) -> None:
    """Lock the rows that exist, and note on each entry how its row stands and which fields differ."""
    if not entries:
        return
    keys = zip(*((entry.service_pk, entry.item.instance_id) for entry in entries), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(LOCK, [list(column) for column in keys])
        for place, pk, unlisted, protected, pending, *values in cursor.fetchall():
            fields = dict(zip(STATED, values, strict=True))
            # A raw cursor gives jsonb as text.
            fields["metadata"] = json.loads(fields["metadata"])
            entry = entries[place]
            entry.standing = Standing(pk, fields, unlisted, protected, pending)
            entry.instance_pk = pk
            entry.changed = differing(fields, stated(entry.item))


def stated(item: Registration) -> dict[str, Any]:
    return {column: getattr(item, "status" if column == "reported_status" else column) for column in STATED}


def differing(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    return tuple(column for column in STATED if before[column] != after[column])


def differs(entry: Entry) -> bool:
    """Whether the row has to be written: a field differs, or a status that waits must not undo this statement."""
    return bool(entry.changed) or (entry.standing is not None and entry.standing.pending)


UPDATE = f"""
-- Locks nothing new: instances and leases are locked already.
WITH item AS (
    SELECT * FROM jsonb_to_recordset(%s) AS item(id bigint, differs boolean, moved boolean, host text, port int,
        scheme text, zone text, weight int, tags text[], metadata jsonb, reported_status text, ttl_seconds int,
        actor text)
),
written AS (
    UPDATE {INSTANCE} i
    SET host = item.host, port = item.port, scheme = item.scheme, zone = item.zone, weight = item.weight,
        tags = item.tags, metadata = item.metadata, reported_status = item.reported_status, pending_status = NULL,
        registered_at = CASE WHEN item.moved THEN statement_timestamp() ELSE i.registered_at END,
        registered_by = CASE WHEN item.moved THEN item.actor ELSE i.registered_by END
    FROM item WHERE i.id = item.id AND item.differs
)
UPDATE {LEASE} l
SET heartbeat_at = clock_timestamp(), expired_at = NULL, protected_at = NULL,
    ttl_seconds = COALESCE(item.ttl_seconds, l.ttl_seconds),
    epoch = CASE WHEN item.moved THEN {EPOCH} ELSE l.epoch END,
    beats = CASE WHEN item.moved THEN 0 ELSE l.beats END
FROM item WHERE l.instance_id = item.id
"""


def update(entries: Sequence[Entry]) -> None:
    """Renew the leases of rows that stand, and write those in which something differs; moved ones get an epoch."""
    if not entries:
        return
    rows = [
        {"id": entry.instance_pk, "differs": differs(entry), "moved": entry.moved}
        | (stated(entry.item) | {"actor": entry.caller.actor} if differs(entry) else {})
        for entry in entries
    ]
    with connection.cursor() as cursor:
        cursor.execute(UPDATE, [json.dumps(rows)])


INSERT = f"""
-- The services are locked, so nobody else inserts into them.
WITH item AS (
    SELECT * FROM jsonb_to_recordset(%s) AS item(service_id bigint, instance_id text, host text, port int, scheme text,
        zone text, weight int, tags text[], metadata jsonb, reported_status text, ttl_seconds int, actor text)
),
made AS (
    INSERT INTO {INSTANCE} (service_id, instance_id, host, port, scheme, zone, weight, tags, metadata, reported_status,
        registered_by, status_changes)
    SELECT service_id, instance_id, host, port, scheme, zone, weight, tags, metadata, reported_status, actor, 0
    FROM item ORDER BY service_id, instance_id
    RETURNING id, service_id, instance_id
),
leased AS (
    INSERT INTO {LEASE} (instance_id, heartbeat_at, ttl_seconds, epoch, beats)
    SELECT made.id, clock_timestamp(), item.ttl_seconds, {EPOCH}, 0
    FROM made JOIN item ON item.service_id = made.service_id AND item.instance_id = made.instance_id
)
SELECT service_id, instance_id, id FROM made
"""


def insert(entries: Sequence[Entry]) -> None:
    """Make the rows and leases that are new."""
    if not entries:
        return
    rows = [
        {"service_id": entry.service_pk, "instance_id": entry.item.instance_id, "actor": entry.caller.actor}
        | stated(entry.item)
        for entry in entries
    ]
    with connection.cursor() as cursor:
        cursor.execute(INSERT, [json.dumps(rows)])
        made = {(service_pk, instance_id): pk for service_pk, instance_id, pk in cursor.fetchall()}
    for entry in entries:
        entry.instance_pk = made[entry.service_pk, entry.item.instance_id]


DOCUMENTS = f"""
SELECT i.id, {LEASED_INSTANCE_DOCUMENT} FROM {INSTANCE_ROWS} CROSS JOIN {STATE} r WHERE i.id = ANY (%s::bigint[])
"""


def documents(instance_pks: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The instances with their leases, as callers read them, by primary key."""
    with connection.cursor() as cursor:
        cursor.execute(DOCUMENTS, [list(instance_pks)])
        return dict(cursor.fetchall())
