"""Find the rows of a batch of registrations, and renew the leases where nothing is new."""

import json
from collections.abc import Iterable, Sequence

from service_registry.database.base import prepared_cursor
from service_registry.manager.batch import (
    REQUESTED_SERVICES,
    SEPARATOR,
    SET_SEPARATOR,
    Submission,
    join_column,
    join_columns,
)
from service_registry.manager.registration.entry import Entry, ServiceRow
from service_registry.manager.renewal import LOCK_UNLOCKED, UNCHANGED_RENEWAL, lease_members
from service_registry.schemas import Registration
from service_registry.sql import INSTANCE, INSTANCE_DOCUMENT, LEASE, OVERRIDE

# Items go to PostgreSQL as one text: rows of columns, in this order. Neither tags nor JSON contain control characters.
ROW_SEPARATOR = "\x1d"
COLUMNS = (
    *("instance_id", "host", "port::int", "scheme", "zone", "weight::int", "tags", "metadata", "status"),
    *("health_check", "ttl_seconds::int", "incarnation"),
)
CELLS = ", ".join(
    f"cells[{number}]{cast and '::'}{cast} AS {name}"
    for number, (name, _, cast) in enumerate((column.partition("::") for column in COLUMNS), 2)
)

# A lease of another epoch than found belongs to another process, which has registered since the statement began.
FIND_OR_RENEW = f"""
-- Locks the leases that it renews, and waits for no lock.
WITH {REQUESTED_SERVICES},
item AS (
    SELECT position, cells[1]::bigint AS service_number, {CELLS}
    FROM unnest(string_to_array((SELECT %(items)s::text), E'\\x1d')) WITH ORDINALITY AS line(line, position),
        string_to_array(line, E'\\x1f', '') AS cells
),
found AS (
    SELECT item.position, s.id AS service_id, s.owners, l.instance_id, l.epoch,
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
    JOIN LATERAL (
        SELECT s.owned AND l.expired_at IS NULL AND l.protected_at IS NULL AND i.pending_status IS NULL
            AND (i.host, i.port, i.scheme, i.zone, i.weight, i.reported_status, l.ttl_seconds, l.incarnation)
                IS NOT DISTINCT FROM (item.host, item.port, item.scheme, item.zone, item.weight, item.status,
                    item.ttl_seconds, item.incarnation)
            AND i.tags = COALESCE(string_to_array(item.tags, E'\\x1e'), ARRAY[]::text[])
            AND i.metadata = item.metadata::jsonb
            AND i.health_check IS NOT DISTINCT FROM item.health_check::jsonb AS yes
    ) same ON true
),
locked AS (
    SELECT found.position, l.instance_id FROM found
    JOIN {LEASE} l ON l.instance_id = found.instance_id AND l.epoch = found.epoch
    WHERE found.document IS NOT NULL AND l.expired_at IS NULL AND l.protected_at IS NULL
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
        cursor.execute(FIND_OR_RENEW, to_parameters(submissions))
        rows = cursor.fetchall()
    for position, service_pk, owners, exists, document, *times in rows:
        entry = entries[position]
        if service_pk is not None:
            entry.service, entry.instance_exists, entry.found = ServiceRow(service_pk, owners), exists, document
        elif entry.found:
            entry.renewed = entry.found | {"lease": lease_members(entry.found, *times)}


def to_parameters(submissions: Sequence[Submission[Registration]]) -> dict[str, str]:
    parameters = join_columns(submissions)
    numbers = parameters.pop("service_numbers").split(SEPARATOR)
    lines = [join_column([number, *to_cells(item)]) for number, (item, _) in zip(numbers, submissions, strict=True)]
    return parameters | {"items": ROW_SEPARATOR.join(lines)}


def to_cells(item: Registration) -> Iterable[object]:
    """Return the values of COLUMNS."""
    tags, metadata = SET_SEPARATOR.join(item.tags), json.dumps(item.metadata)
    return (
        *(item.instance_id, item.host, item.port, item.scheme, item.zone, item.weight, tags, metadata, item.status),
        *(item.health_check and item.health_check.model_dump_json(), item.ttl_seconds, item.incarnation),
    )
