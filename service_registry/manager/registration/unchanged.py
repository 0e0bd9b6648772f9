"""Find the rows of a batch of registrations, and renew the leases where nothing is new."""

import json
from collections.abc import Sequence
from typing import Any

from service_registry.database.base import prepared_cursor
from service_registry.manager.batch import (
    ITEM_COLUMNS,
    REQUESTED_SERVICES,
    SET_SEPARATOR,
    Submission,
    join_column,
    join_columns,
    split_parameter,
)
from service_registry.manager.registration.entry import Entry, ServiceRow
from service_registry.manager.renewal import LOCK_UNLOCKED, UNCHANGED_RENEWAL, lease_members
from service_registry.schemas import Registration
from service_registry.sql import INSTANCE, INSTANCE_DOCUMENT, LEASE, OVERRIDE

COLUMNS = {
    "host": "text",
    "port": "int",
    "scheme": "text",
    "zone": "text",
    "weight": "int",
    "tags": "text",
    "metadata": "text",
    "status": "text",
    "ttl_seconds": "int",
    "incarnation": "text",
}
SPLIT_COLUMNS = ", ".join(f"{split_parameter(name)}::{kind}[]" for name, kind in COLUMNS.items())

FIND_OR_RENEW = f"""
-- Locks the leases that it renews, and waits for no lock.
WITH {REQUESTED_SERVICES},
item AS (
    SELECT * FROM unnest({ITEM_COLUMNS}, {SPLIT_COLUMNS})
        WITH ORDINALITY AS item(service_number, instance_id, {", ".join(COLUMNS)}, position)
),
found AS MATERIALIZED (
    SELECT item.position, s.id AS service_id, s.owners, l.instance_id, l.epoch, l.ttl_seconds, l.incarnation,
        CASE WHEN same.yes THEN {INSTANCE_DOCUMENT} END AS document
    FROM item
    JOIN requested_service s ON s.number = item.service_number
    LEFT JOIN LATERAL (
        SELECT * FROM {INSTANCE} i WHERE i.service_id = s.id AND i.instance_id = item.instance_id LIMIT 1
    ) i ON true
    LEFT JOIN {LEASE} l ON l.instance_id = i.id
    LEFT JOIN LATERAL (
        SELECT * FROM {OVERRIDE} o WHERE o.service_id = i.service_id AND o.instance_id = i.instance_id LIMIT 1
    ) o ON true
    CROSS JOIN LATERAL (
        SELECT s.owned AND l.expired_at IS NULL AND l.protected_at IS NULL AND i.pending_status IS NULL
            AND (i.host, i.port, i.scheme, i.zone, i.weight, i.reported_status, l.ttl_seconds, l.incarnation)
                IS NOT DISTINCT FROM (item.host, item.port, item.scheme, item.zone, item.weight, item.status,
                    item.ttl_seconds, item.incarnation)
            AND i.tags = COALESCE(string_to_array(item.tags, E'\\x1e'), ARRAY[]::text[])
            AND i.metadata = item.metadata::jsonb AS yes
    ) same
),
locked AS MATERIALIZED (
    -- A lease of another epoch belongs to another process, which has registered since this statement began.
    SELECT found.position, l.instance_id FROM found
    JOIN {LEASE} l ON l.instance_id = found.instance_id AND l.epoch = found.epoch
    WHERE found.document IS NOT NULL AND l.expired_at IS NULL AND l.protected_at IS NULL
        AND l.ttl_seconds = found.ttl_seconds AND l.incarnation IS NOT DISTINCT FROM found.incarnation
    {LOCK_UNLOCKED}
),
{UNCHANGED_RENEWAL},
renewed AS (
    UPDATE {LEASE} l SET heartbeat_at = renewal.at
    FROM locked, renewal WHERE l.instance_id = locked.instance_id
    RETURNING locked.position, renewal.heartbeat_at, renewal.counted_from
)
SELECT position - 1, service_id, owners, instance_id IS NOT NULL, document, NULL::text, NULL::text FROM found
UNION ALL
SELECT position - 1, NULL, NULL, NULL, NULL, heartbeat_at, counted_from FROM renewed
"""


def find_or_renew(submissions: Sequence[Submission[Registration]], entries: Sequence[Entry]) -> None:
    """Note on each entry its service, and whether the instance exists; renew the lease where nothing is new.

    It runs before the transaction that does the rest, so that nothing is locked out of order.
    """
    with prepared_cursor() as cursor:
        cursor.execute(FIND_OR_RENEW, join_columns(submissions) | join_documents([entry.item for entry in entries]))
        rows = cursor.fetchall()
    for position, service_pk, owners, exists, document, *times in rows:
        entry = entries[position]
        if service_pk is not None:
            entry.service, entry.instance_exists, entry.found = ServiceRow(service_pk, owners), exists, document
        elif entry.found:
            entry.renewed = entry.found | {"lease": lease_members(entry.found, *times)}


def join_documents(items: Sequence[Registration]) -> dict[str, str]:
    """Return the parameters of COLUMNS. Neither tags nor JSON contain control characters."""

    def value(item: Registration, name: str) -> Any:
        if name == "tags":
            return SET_SEPARATOR.join(item.tags)
        return json.dumps(item.metadata) if name == "metadata" else getattr(item, name)

    return {name: join_column([value(item, name) for item in items]) for name in COLUMNS}
