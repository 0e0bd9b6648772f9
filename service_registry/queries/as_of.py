"""Answer discovery as of a past moment, from the log alone."""

import json
from datetime import datetime

from django.db import connection

from service_registry import changelog
from service_registry.changelog.by_time import last_id_at
from service_registry.changelog.read import OWNER_KINDS
from service_registry.choices import ChangeKind, State
from service_registry.exceptions import HistoryGone, InvalidInput, ServiceNotFound
from service_registry.json_text import dump_json_with_array
from service_registry.queries.catalogue import IndexedJson
from service_registry.queries.filters import ResolvedFilters
from service_registry.sql import CHANGE, STATE, literals

PLACE = f"SELECT {last_id_at('%(at)s::timestamptz')}, %(at)s::timestamptz > clock_timestamp()"

OF_SERVICE = "c.namespace = %(namespace)s AND c.service_name = %(name)s"
UP_TO = "(c.id * -1) >= -%(until)s::bigint"
MATCHES = """(known.document ->> 'status' = ANY (%(statuses)s) AND known.document ->> 'state' = ANY (%(states)s)
    AND (%(zone)s::text IS NULL OR known.document ->> 'zone' = %(zone)s)
    AND known.document -> 'tags' @> to_jsonb(%(tags)s::text[])
    AND known.document -> 'metadata' @> %(metadata)s::jsonb)"""

DISCOVER = f"""
-- One snapshot. Steps by index from one instance id to the next, and looks up the last change of each up to then.
WITH RECURSIVE named(instance_id) AS (
    SELECT min(c.instance_id) FROM {CHANGE} c WHERE {OF_SERVICE}
    UNION ALL
    SELECT (SELECT c.instance_id FROM {CHANGE} c WHERE {OF_SERVICE} AND c.instance_id > named.instance_id
        ORDER BY c.instance_id LIMIT 1)
    FROM named WHERE named.instance_id IS NOT NULL
),
known AS (
    SELECT named.instance_id, last.document FROM named, LATERAL (
        SELECT c.instance AS document FROM {CHANGE} c
        WHERE {OF_SERVICE} AND c.instance_id = named.instance_id AND {UP_TO} ORDER BY (c.id * -1) LIMIT 1
    ) last
)
SELECT %(at)s::timestamptz >= COALESCE(r.pruned_before, (SELECT c.at FROM {CHANGE} c ORDER BY c.id LIMIT 1)),
    stated.kind, stated.owners,
    (SELECT c.mark || '-' || c.id FROM {CHANGE} c WHERE {OF_SERVICE} AND {UP_TO} ORDER BY (c.id * -1) LIMIT 1),
    EXISTS (SELECT FROM known WHERE known.document ->> 'state' = '{State.PROTECTED}'),
    COALESCE((SELECT json_agg(known.document ORDER BY known.instance_id) FROM known WHERE {MATCHES})::text, '[]')
FROM {STATE} r
LEFT JOIN LATERAL (
    SELECT c.kind, c.evidence ->> 'owners' AS owners FROM {CHANGE} c
    WHERE {OF_SERVICE} AND c.instance_id IS NULL AND {UP_TO}
        AND c.kind IN {literals(OWNER_KINDS)}
    ORDER BY (c.id * -1) LIMIT 1
) stated ON true
"""


def discover(namespace: str, name: str, filters: ResolvedFilters, at: datetime) -> IndexedJson:
    """Return what discovery answered at the moment `at`.

    The index of the service's last change at that time comes with it. The statement that reads the log also checks
    that the log reaches back to the moment: pruning notes its cutoff before it deletes the first row, so both are
    seen in one snapshot.

    Raises:
        InvalidInput: the moment is in the future.
        HistoryGone: the log does not reach back to it.
        ServiceNotFound: no service had this name.
    """
    newest = changelog.read_newest_index()
    with connection.cursor() as cursor:
        cursor.execute(PLACE, {"at": at})
        until, is_future = cursor.fetchone()
        if is_future:
            raise InvalidInput.of_field("at", "future", "must not be in the future")
        place = {"at": at, "until": until, "namespace": namespace, "name": name}
        cursor.execute(DISCOVER, place | filters.parameters)
        reaches_back, last_kind, owners, index, protected, instances = cursor.fetchone()
    if not reaches_back:
        raise HistoryGone
    if last_kind in {None, ChangeKind.SERVICE_DELETED}:
        raise ServiceNotFound
    members = {"index": index, "namespace": namespace, "name": name, "owners": json.loads(owners)}
    return IndexedJson(newest, dump_json_with_array(members | {"protected": protected}, "instances", instances))
