"""Read the health of a service and of an instance, with the reasons why instances should get no traffic."""

from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry import changelog
from service_registry.choices import ChangeKind, Health, Status
from service_registry.exceptions import ServiceNotFound
from service_registry.queries.instance import explain_missing
from service_registry.sql import (
    CHANGE,
    EFFECTIVE_STATUS,
    INSTANCE_ROWS,
    IS_HEALTHY,
    IS_LISTED,
    LAST_CHECK_MEMBERS,
    NEWEST_FIRST,
    SERVICE,
    STANDING_ROWS,
    STATE_NAME,
    literals,
    rfc3339,
)

INSTANCES_SHOWN = 100

LAST_CHECK = f"CASE WHEN h.instance_id IS NOT NULL THEN json_build_object({LAST_CHECK_MEMBERS}) END"

REASON = f"""CASE WHEN NOT ({IS_LISTED}) THEN 'expired' WHEN {EFFECTIVE_STATUS} = '{Status.UP}' THEN NULL
    WHEN o.id IS NOT NULL THEN 'override' WHEN i.reported_status <> '{Status.UP}' THEN 'reported' ELSE 'health' END"""
KINDS_OF_OTHER_HEALTH = (
    *(ChangeKind.REGISTERED, ChangeKind.RECOVERED, ChangeKind.PROTECTED, ChangeKind.EXPIRED),
    *(ChangeKind.STATUS_CHANGED, ChangeKind.HEALTH_CHANGED),
)
SINCE = f"""(
    SELECT {rfc3339("c.at")} FROM {CHANGE} c
    WHERE c.namespace = s.namespace AND c.service_name = s.name AND c.instance_id = i.instance_id
        AND (c.kind IN {literals(KINDS_OF_OTHER_HEALTH)} OR c.changed && ARRAY['status', 'health'])
    ORDER BY {NEWEST_FIRST} LIMIT 1)"""
HEALTH_MEMBERS = f"""'instance_id', i.instance_id, 'healthy', {IS_HEALTHY}, 'reason', {REASON},
    'status', {EFFECTIVE_STATUS}, 'reported_status', i.reported_status, 'health', i.health, 'state', {STATE_NAME},
    'flapping', COALESCE(h.flapping, false), 'since', {SINCE}, 'last_check', {LAST_CHECK}"""

SERVICE_HEALTH = f"""
SELECT counts.*, COALESCE((
    SELECT json_agg(json_build_object({HEALTH_MEMBERS}) ORDER BY shown.position)
    FROM (
        SELECT i.id, row_number() OVER (ORDER BY NOT ({IS_LISTED}), i.instance_id) AS position
        FROM {INSTANCE_ROWS} WHERE i.service_id = found.id AND NOT ({IS_HEALTHY})
        ORDER BY position LIMIT %(shown)s
    ) shown, {INSTANCE_ROWS} {STANDING_ROWS}
    WHERE i.id = shown.id), '[]')
FROM {SERVICE} found CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE {IS_HEALTHY}),
        count(*) FILTER (WHERE {IS_LISTED} AND i.health = '{Health.WARNING}'),
        count(*) FILTER (WHERE {IS_LISTED} AND i.health = '{Health.CRITICAL}'),
        count(*) FILTER (WHERE {IS_LISTED} AND i.health = '{Health.UNKNOWN}'),
        count(*) FILTER (WHERE {IS_LISTED} AND l.protected_at IS NOT NULL),
        count(*) FILTER (WHERE NOT ({IS_LISTED})),
        count(*)
    FROM {INSTANCE_ROWS} WHERE i.service_id = found.id
) counts
WHERE found.namespace = %(namespace)s AND found.name = %(name)s
"""
COUNTED = ("healthy", "warning", "critical", "unknown", "protected", "expired", "total")

INSTANCE_HEALTH = f"""
SELECT json_build_object('namespace', s.namespace, 'service_name', s.name, {HEALTH_MEMBERS})
FROM {INSTANCE_ROWS} {STANDING_ROWS}
WHERE s.namespace = %(namespace)s AND s.name = %(service_name)s AND i.instance_id = %(instance_id)s
"""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The health of a service or an instance, and the newest index just before it was read.

    `healthy` is the number of healthy instances.
    """

    read_at: str
    healthy: int
    document: dict[str, Any]


def read_service_health(namespace: str, name: str) -> HealthReport:
    """Return the counts of a service, and its first instances that are not healthy. Two statements.

    Raises ServiceNotFound.
    """
    newest, newest_of_service = changelog.read_newest_indexes(namespace, name)
    with connection.cursor() as cursor:
        cursor.execute(SERVICE_HEALTH, {"namespace": namespace, "name": name, "shown": INSTANCES_SHOWN})
        row = cursor.fetchone()
    if row is None:
        raise ServiceNotFound(ServiceNotFound.MAY_COME)
    *numbers, instances = row
    counts = dict(zip(COUNTED, numbers, strict=True))
    members = {"index": newest_of_service or newest, "namespace": namespace, "name": name}
    truncated = counts["total"] - counts["healthy"] > len(instances)
    return HealthReport(newest, counts["healthy"], members | counts | {"instances": instances, "truncated": truncated})


def read_instance_health(namespace: str, service_name: str, instance_id: str) -> HealthReport:
    """Return the health of an instance in any state. Two statements.

    Raises ServiceNotFound, InstanceNotFound.
    """
    newest, newest_of_service = changelog.read_newest_indexes(namespace, service_name)
    key = {"namespace": namespace, "service_name": service_name, "instance_id": instance_id}
    with connection.cursor() as cursor:
        cursor.execute(INSTANCE_HEALTH, key)
        row = cursor.fetchone()
    if row is None:
        raise explain_missing(namespace, service_name, instance_id)
    (document,) = row
    return HealthReport(newest, int(document["healthy"]), {"index": newest_of_service or newest} | document)
