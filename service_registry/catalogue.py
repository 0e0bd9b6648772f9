"""What readers get: discovery of a service, the list, an instance. Each reads the log's end before the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry import changes
from service_registry.documents import (
    EFFECTIVE_STATUS,
    INSTANCE,
    INSTANCE_DOCUMENT,
    INSTANCE_MEMBERS,
    INSTANCE_ROWS,
    IS_HEALTHY,
    IS_LISTED,
    LEASE,
    LEASE_DOCUMENT,
    SERVICE,
    STATE,
    STATE_NAME,
    rfc3339,
)
from service_registry.exceptions import AmbiguousInstance, InstanceNotFound, ServiceNotFound

INSTANCES_A_PAGE = 2000


@dataclass(frozen=True, slots=True)
class Answer:
    """A document, and the index of the log's end just before it was read."""

    index: str
    document: dict[str, Any]


DISCOVER = f"""
SELECT found.owners, EXISTS (
        SELECT FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
        WHERE i.service_id = found.id AND {IS_LISTED} AND l.protected_at IS NOT NULL),
    COALESCE((
        SELECT json_agg({INSTANCE_DOCUMENT} ORDER BY i.instance_id) FROM {INSTANCE_ROWS}
        WHERE i.service_id = found.id AND {EFFECTIVE_STATUS} = ANY (%(statuses)s) AND {STATE_NAME} = ANY (%(states)s)
    ), '[]')
FROM {SERVICE} found
WHERE found.namespace = %(namespace)s AND found.name = %(name)s
"""


def discover(namespace: str, name: str, statuses: Sequence[str], states: Sequence[str]) -> Answer:
    """The instances of one service in these statuses and states. Two statements.

    Raises:
        ServiceNotFound: no service has this name. One without instances is found, and empty.
    """
    newest, newest_of_service = changes.ends(namespace, name)
    with connection.cursor() as cursor:
        cursor.execute(
            DISCOVER,
            {"namespace": namespace, "name": name, "statuses": list(statuses), "states": list(states)},
        )
        row = cursor.fetchone()
    if row is None:
        raise ServiceNotFound
    owners, protected, instances = row
    document = {
        "index": newest_of_service or newest,
        "namespace": namespace,
        "name": name,
        "owners": owners,
        "protected": protected,
        "instances": instances,
    }
    return Answer(newest, document)


PAGE = f"""
WITH candidate AS (
    SELECT s.id, s.namespace, s.name, s.owners FROM {SERVICE} s
    WHERE (s.namespace, s.name) > (%(after_namespace)s, %(after_name)s)
        AND (%(namespace)s::text IS NULL OR s.namespace = %(namespace)s)
    ORDER BY s.namespace, s.name LIMIT %(limit)s + 1
),
counted AS (
    SELECT candidate.*, counts.*,
        sum(counts.instance_count) OVER before AS instances_before, row_number() OVER before AS position
    FROM candidate, LATERAL (
        SELECT count(*) AS instance_count, count(*) FILTER (WHERE {IS_HEALTHY}) AS healthy_count,
            count(l.protected_at) > 0 AS protected
        FROM {INSTANCE_ROWS} WHERE i.service_id = candidate.id AND {IS_LISTED}
    ) counts
    WINDOW before AS (ORDER BY candidate.namespace, candidate.name ROWS UNBOUNDED PRECEDING)
)
SELECT json_build_object('namespace', page.namespace, 'name', page.name, 'owners', page.owners,
        'instance_count', page.instance_count, 'healthy_count', page.healthy_count, 'protected', page.protected,
        'index', COALESCE((
            SELECT c.mark || '-' || c.id FROM service_registry_change c
            WHERE c.namespace = page.namespace AND c.service_name = page.name ORDER BY c.id DESC LIMIT 1), %(index)s),
        'instances', COALESCE((
            SELECT json_agg({INSTANCE_DOCUMENT} ORDER BY i.instance_id) FROM {INSTANCE_ROWS}
            WHERE i.service_id = page.id AND {IS_LISTED}), '[]')),
    EXISTS (SELECT FROM counted later WHERE later.position > page.position)
FROM counted page
WHERE page.position <= %(limit)s AND page.instances_before - page.instance_count < %(instances)s
ORDER BY page.namespace, page.name
"""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk over the list stands: the index at its first page, and the last service it has given."""

    index: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Page:
    index: str
    services: list[dict[str, Any]]
    next: Position | None


def page(namespace: str | None, limit: int, after: Position | None, at_most_instances: int = INSTANCES_A_PAGE) -> Page:
    """A page of the list, by namespace and name: at most `limit` services, ended by the one that reaches
    `at_most_instances`; none is split. Two statements.

    The index is the log's end at the walk's first page, so that a watch from there misses nothing of it.
    """
    index = changes.end()
    with connection.cursor() as cursor:
        cursor.execute(
            PAGE,
            {
                "after_namespace": after.namespace if after else "",
                "after_name": after.name if after else "",
                "namespace": namespace,
                "limit": limit,
                "instances": at_most_instances,
                "index": index,
            },
        )
        rows = cursor.fetchall()
    begun_at = after.index if after else index
    services = [document for document, _more in rows]
    more = bool(rows) and rows[-1][1]
    last = Position(begun_at, services[-1]["namespace"], services[-1]["name"]) if more else None
    return Page(begun_at, services, last)


FULL_DOCUMENT = f"""json_build_object({INSTANCE_MEMBERS}, 'lease', {LEASE_DOCUMENT},
    'registered_by', i.registered_by)"""
OVERRIDE_DOCUMENT = f"""CASE WHEN o.id IS NOT NULL THEN json_build_object('status', o.status,
    'until', {rfc3339("o.until")}, 'reason', o.reason, 'actor', o.actor) END"""

FIND = f"""
SELECT s.owners, {FULL_DOCUMENT}, {OVERRIDE_DOCUMENT} FROM {INSTANCE_ROWS} CROSS JOIN {STATE} r
WHERE i.instance_id = %(instance_id)s AND s.namespace = %(namespace)s
    AND (%(service_name)s::text IS NULL OR s.name = %(service_name)s)
ORDER BY s.name LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """An instance, who owns it, and what only those may see who may see its changes."""

    index: str
    owners: list[str]
    document: dict[str, Any]
    override: dict[str, Any] | None

    def for_all(self) -> dict[str, Any]:
        return {name: value for name, value in self.document.items() if name != "registered_by"}

    def for_owner(self) -> dict[str, Any]:
        return {**self.document, "override": self.override}


def find(namespace: str, service_name: str | None, instance_id: str) -> FoundInstance:
    """One instance with its lease, in whatever state; without `service_name` in whichever service has it.

    Raises:
        ServiceNotFound: there is no service of that name.
        InstanceNotFound: with the reason, where it is known of one service.
        AmbiguousInstance: several services have an instance of this id.
    """
    index = changes.end()
    with connection.cursor() as cursor:
        cursor.execute(FIND, {"namespace": namespace, "service_name": service_name, "instance_id": instance_id})
        rows = cursor.fetchall()
    if len(rows) > 1:
        named = ("namespace", "service_name", "instance_id")
        raise AmbiguousInstance([{name: document[name] for name in named} for _owners, document, _override in rows])
    if not rows:
        raise not_found(namespace, service_name, instance_id)
    owners, document, override = rows[0]
    return FoundInstance(index, owners, document, override)


SERVICE_EXISTS = f"SELECT EXISTS (SELECT FROM {SERVICE} WHERE namespace = %s AND name = %s)"


def not_found(namespace: str, service_name: str | None, instance_id: str) -> ServiceNotFound | InstanceNotFound:
    if service_name is None:
        return InstanceNotFound("never_registered")
    with connection.cursor() as cursor:
        cursor.execute(SERVICE_EXISTS, [namespace, service_name])
        if not cursor.fetchone()[0]:
            return ServiceNotFound()
    (last,) = changes.last_arrivals([(namespace, service_name, instance_id)])
    return InstanceNotFound({None: "never_registered", "deregistered": "deregistered"}.get(last, "removed"))
