"""Writing the registry down, page by page: memory does not grow with it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from django.db import connection

from service_registry.database.retries import with_retries
from service_registry.sql import INSTANCE_ROWS, IS_LISTED, OVERRIDE, SERVICE, rfc3339

ROWS_A_PAGE = 1_000

SERVICES = f"""
SELECT s.namespace, s.name,
    json_build_object('type', 'service', 'namespace', s.namespace, 'name', s.name, 'owners', s.owners)::text
FROM {SERVICE} s WHERE (s.namespace, s.name) > (%s, %s) ORDER BY s.namespace, s.name LIMIT %s
"""
INSTANCES = f"""
SELECT i.service_id, i.instance_id, json_build_object('type', 'instance', 'namespace', s.namespace,
    'service_name', s.name, 'instance_id', i.instance_id, 'host', i.host, 'port', i.port, 'scheme', i.scheme,
    'zone', i.zone, 'weight', i.weight, 'tags', i.tags, 'metadata', i.metadata, 'ttl_seconds', l.ttl_seconds,
    'status', i.reported_status)::text
FROM {INSTANCE_ROWS}
WHERE (i.service_id, i.instance_id) > (%s, %s) AND {IS_LISTED} ORDER BY i.service_id, i.instance_id LIMIT %s
"""
OVERRIDES = f"""
SELECT o.service_id, o.instance_id, json_build_object('type', 'override', 'namespace', s.namespace,
    'service_name', s.name, 'instance_id', o.instance_id, 'status', o.status, 'reason', o.reason,
    'until', {rfc3339("o.until")})::text
FROM {OVERRIDE} o JOIN {SERVICE} s ON s.id = o.service_id
WHERE (o.service_id, o.instance_id) > (%s, %s) AND COALESCE(o.until > statement_timestamp(), true)
ORDER BY o.service_id, o.instance_id LIMIT %s
"""


def lines() -> Iterator[str]:
    """All services, then all instances on the list, then all overrides. What changes meanwhile may be in it or not."""
    yield from walk(SERVICES, ("", ""))
    yield from walk(INSTANCES, (0, ""))
    yield from walk(OVERRIDES, (0, ""))


def walk(sql: str, after: tuple[Any, str]) -> Iterator[str]:
    while rows := with_retries(partial(page, sql, after)):
        yield from (line for *_key, line in rows)
        after = rows[-1][:2]


def page(sql: str, after: tuple[Any, str]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, [*after, ROWS_A_PAGE])
        return list(cursor.fetchall())
