"""How things stood at a past moment, from the log alone."""

import json
from datetime import datetime

from django.db import connection

from service_registry import changelog
from service_registry.changelog.by_time import last_at
from service_registry.exceptions import HistoryGone, InvalidInput, ServiceNotFound
from service_registry.json_text import dump_json_with_array
from service_registry.queries.catalogue import IndexedJson
from service_registry.queries.filters import ResolvedFilters
from service_registry.sql import CHANGE, STATE

PLACE = f"SELECT {last_at('%(at)s::timestamptz')}, %(at)s::timestamptz > clock_timestamp()"

OF_SERVICE = "c.namespace = %(namespace)s AND c.service_name = %(name)s"
UP_TO = "(c.id * -1) >= -%(until)s::bigint"
MATCHES = """(known.document ->> 'status' = ANY (%(statuses)s) AND known.document ->> 'state' = ANY (%(states)s)
    AND (%(zone)s::text IS NULL OR known.document ->> 'zone' = %(zone)s)
    AND known.document -> 'tags' @> to_jsonb(%(tags)s::text[])
    AND known.document -> 'metadata' @> %(metadata)s::jsonb)"""

DISCOVER = f"""
-- One snapshot. Steps by index from one instance id to the next, and of each to its last change up to then.
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
    word.kind, word.owners,
    (SELECT c.mark || '-' || c.id FROM {CHANGE} c WHERE {OF_SERVICE} AND {UP_TO} ORDER BY (c.id * -1) LIMIT 1),
    EXISTS (SELECT FROM known WHERE known.document ->> 'state' = 'protected'),
    COALESCE((SELECT json_agg(known.document ORDER BY known.instance_id) FROM known WHERE {MATCHES})::text, '[]')
FROM {STATE} r
LEFT JOIN LATERAL (
    SELECT c.kind, c.evidence ->> 'owners' AS owners FROM {CHANGE} c
    WHERE {OF_SERVICE} AND c.instance_id IS NULL AND {UP_TO}
        AND c.kind IN ('service_created', 'owners_changed', 'service_deleted')
    ORDER BY (c.id * -1) LIMIT 1
) word ON true
"""


def discover(namespace: str, name: str, asked: ResolvedFilters, at: datetime) -> IndexedJson:
    """What discovery answered at the moment `at`; its index is that of the service's last change then.

    Whether the log reaches back so far is judged in the snapshot in which it is read: it may be pruned meanwhile, and
    that is noted before the first row goes.

    Raises:
        InvalidInput: the moment is yet to come.
        HistoryGone: the log does not reach back to it.
        ServiceNotFound: there was no service of this name.
    """
    end = changelog.read_newest_index()
    with connection.cursor() as cursor:
        cursor.execute(PLACE, {"at": at})
        until, to_come = cursor.fetchone()
        if to_come:
            raise InvalidInput.of_field("at", "future", "must not be in the future")
        place = {"at": at, "until": until, "namespace": namespace, "name": name}
        cursor.execute(DISCOVER, place | asked.parameters)
        reaches_back, word, owners, index, protected, instances = cursor.fetchone()
    if not reaches_back:
        raise HistoryGone
    if word in {None, "service_deleted"}:
        raise ServiceNotFound
    members = {"index": index, "namespace": namespace, "name": name, "owners": json.loads(owners)}
    return IndexedJson(end, dump_json_with_array(members | {"protected": protected}, "instances", instances))
