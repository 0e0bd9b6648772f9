"""Read discovery of a service, the list, and an instance from the database.

Each reads the newest index before the data. PostgreSQL renders the JSON, which is sent as it is: parsing it here would
cost more than the query.
"""

from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind, Status
from service_registry.exceptions import AmbiguousInstance, InstanceNotFound, ServiceNotFound
from service_registry.json_text import dump_json, dump_json_with_array
from service_registry.models import Service
from service_registry.queries.filters import MATCHES, ResolvedFilters, like_pattern, resolve_filters
from service_registry.schemas import ListQuery
from service_registry.sql import (
    CHANGE,
    INSTANCE,
    INSTANCE_DOCUMENT,
    INSTANCE_MEMBERS,
    INSTANCE_ROWS,
    IS_HEALTHY,
    IS_LISTED,
    JUDGED_BY,
    LEASE,
    LEASE_DOCUMENT,
    NEWEST_FIRST,
    SERVICE,
    STATE,
    rfc3339,
)

INSTANCES_PER_PAGE = 2000

DISCOVER = f"""
SELECT found.owners, EXISTS (
        SELECT FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
        WHERE i.service_id = found.id AND {IS_LISTED} AND l.protected_at IS NOT NULL),
    COALESCE((
        SELECT json_agg({INSTANCE_DOCUMENT} ORDER BY i.instance_id) FROM {INSTANCE_ROWS}
        WHERE i.service_id = found.id AND {MATCHES})::text, '[]')
FROM {SERVICE} found
WHERE found.namespace = %(namespace)s AND found.name = %(name)s
"""


@dataclass(frozen=True, slots=True)
class IndexedJson:
    """A JSON text, and the newest index just before the text was read."""

    index: str
    text: str


def discover(namespace: str, name: str, filters: ResolvedFilters, indexes: tuple[str, str | None]) -> IndexedJson:
    """Return the matching instances of a service.

    One statement, after `changelog.read_newest_indexes`.

    Args:
        indexes: the newest index of the log, and that of the service.

    Raises:
        ServiceNotFound: no service has this name. A service without instances is found, and its list is empty.
    """
    newest, newest_of_service = indexes
    with connection.cursor() as cursor:
        cursor.execute(DISCOVER, {"namespace": namespace, "name": name, **filters.parameters})
        row = cursor.fetchone()
    if row is None:
        raise ServiceNotFound(ServiceNotFound.MAY_COME)
    owners, protected, instances = row
    members = {
        "index": newest_of_service or newest,
        "namespace": namespace,
        "name": name,
        "owners": owners,
        "protected": protected,
    }
    return IndexedJson(newest, dump_json_with_array(members, "instances", instances))


PAGE = f"""
WITH candidate AS (
    SELECT c.id, c.namespace, c.name, c.owners FROM {SERVICE} c
    WHERE (c.namespace, c.name) > (%(after_namespace)s, %(after_name)s)
        AND (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s)
        AND (%(name)s::text IS NULL OR c.name LIKE %(name)s)
        AND (%(owner)s::text IS NULL OR c.owners @> ARRAY[%(owner)s])
        AND (NOT %(narrowed)s OR EXISTS (SELECT FROM {INSTANCE_ROWS} WHERE i.service_id = c.id AND {MATCHES}))
    ORDER BY c.namespace, c.name LIMIT %(limit)s + 1
),
counted AS (
    SELECT candidate.*, counts.*,
        sum(counts.shown) OVER up_to AS shown_up_to, row_number() OVER up_to AS position
    FROM candidate, LATERAL (
        SELECT count(*) FILTER (WHERE {IS_LISTED}) AS instance_count, count(*) FILTER (WHERE {IS_HEALTHY}) AS healthy,
            count(l.protected_at) > 0 AS protected, count(*) FILTER (WHERE {MATCHES}) AS shown
        FROM {INSTANCE_ROWS} WHERE i.service_id = candidate.id
    ) counts
    WINDOW up_to AS (ORDER BY candidate.namespace, candidate.name ROWS UNBOUNDED PRECEDING)
)
SELECT page.namespace, page.name, page.owners, page.instance_count, page.healthy, page.protected,
    (SELECT c.mark || '-' || c.id FROM {CHANGE} c
        WHERE c.namespace = page.namespace AND c.service_name = page.name ORDER BY {NEWEST_FIRST} LIMIT 1),
    CASE WHEN %(full)s THEN COALESCE((
        SELECT json_agg({INSTANCE_DOCUMENT} ORDER BY i.instance_id) FROM {INSTANCE_ROWS}
        WHERE i.service_id = page.id AND {MATCHES})::text, '[]') END,
    EXISTS (SELECT FROM counted later WHERE later.position > page.position)
FROM counted page
WHERE page.position <= %(limit)s AND (NOT %(full)s OR page.shown_up_to - page.shown < %(instances)s)
ORDER BY page.namespace, page.name
"""
SERVICE_MEMBERS = ("namespace", "name", "owners", "instance_count", "healthy_count", "protected", "index")


@dataclass(frozen=True, slots=True)
class ListPosition:
    """The position of a client in the list.

    It is the index of the first page, and the last service that the client was sent.
    """

    index: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ServicePage:
    """A page of the list.

    `services` is the JSON text of an array, `index` the newest index at the first page, `read_at` that at this page.
    `next` is None at the end of the list.
    """

    read_at: str
    index: str
    services: str
    next: ListPosition | None


def list_services(query: ListQuery, after: ListPosition | None, max_instances: int = INSTANCES_PER_PAGE) -> ServicePage:
    """Return a page of the list in the order of namespace and name. Two statements.

    It has at most `query.limit` services, and ends with the one that reaches `max_instances`; no service is split. The
    page carries the newest index at the first page, so that a watch from there misses no change.
    """
    index = changelog.read_newest_index()
    filters = resolve_filters(query, Status.values)
    with connection.cursor() as cursor:
        cursor.execute(
            PAGE,
            filters.parameters
            | {
                "after_namespace": after.namespace if after else "",
                "after_name": after.name if after else "",
                "namespace": query.namespace,
                "name": like_pattern(query.name),
                "owner": query.owner,
                "narrowed": filters.narrowed,
                "full": query.view == "full",
                "limit": query.limit,
                "instances": max_instances,
            },
        )
        rows = cursor.fetchall()
    first_index = after.index if after else index
    services = ",".join(render_service(row[:7], row[7], index) for row in rows)
    following = ListPosition(first_index, rows[-1][0], rows[-1][1]) if rows and rows[-1][8] else None
    return ServicePage(index, first_index, f"[{services}]", following)


def render_service(row: tuple[Any, ...], instances: str | None, newest: str) -> str:
    members = dict(zip(SERVICE_MEMBERS, row, strict=True))
    members["index"] = members["index"] or newest
    return dump_json(members) if instances is None else dump_json_with_array(members, "instances", instances)


FULL_DOCUMENT = f"""json_build_object({INSTANCE_MEMBERS}, 'lease', {LEASE_DOCUMENT},
    'judged_by', {JUDGED_BY}, 'registered_by', i.registered_by)"""
OVERRIDE_DOCUMENT = f"""CASE WHEN o.id IS NOT NULL THEN json_build_object('status', o.status,
    'until', {rfc3339("o.until")}, 'reason', o.reason, 'actor', o.actor) END"""

# Handed over means that the owners of the service were changed after the instance was registered, or overridden.
FIND = f"""
SELECT s.owners, {FULL_DOCUMENT}, {OVERRIDE_DOCUMENT},
    COALESCE(handover.at > i.registered_at, false), COALESCE(handover.at > o.created_at, false)
FROM {INSTANCE_ROWS} CROSS JOIN {STATE} r
LEFT JOIN LATERAL (
    SELECT c.at FROM {CHANGE} c
    WHERE c.namespace = s.namespace AND c.service_name = s.name AND c.instance_id IS NULL
        AND c.kind = '{ChangeKind.OWNERS_CHANGED}'
    ORDER BY {NEWEST_FIRST} LIMIT 1
) handover ON true
WHERE i.instance_id = %(instance_id)s AND s.namespace = %(namespace)s
    AND (%(service_name)s::text IS NULL OR s.name = %(service_name)s)
ORDER BY s.name LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """An instance with its lease, the present owners, and who registered and overrode it.

    The log does not say for sure who owned the service before the last change of its owners. So what was written before
    that, `registered_by` or the reason and actor of the override, is for callers with `view_change` alone.
    """

    index: str
    owners: list[str]
    document: dict[str, Any]
    override: dict[str, Any] | None
    registered_before_handover: bool
    overridden_before_handover: bool

    def document_for(self, caller: Caller) -> dict[str, Any]:
        """Return the instance with what the caller may see."""
        document = dict(self.document)
        sees_all, is_owner = caller.may("view_change"), caller.owns(self.owners)
        if not (sees_all or (is_owner and not self.registered_before_handover)):
            del document["registered_by"]
        if sees_all or (is_owner and not self.overridden_before_handover):
            document["override"] = self.override
        return document


def find_instance(namespace: str, service_name: str | None, instance_id: str) -> FoundInstance:
    """Return an instance with its lease, in any state.

    It may be of any service when `service_name` is None.

    Raises:
        ServiceNotFound: no service has this name.
        InstanceNotFound: the service has no such instance; with the reason, if a service is named.
        AmbiguousInstance: several services have an instance with this id.
    """
    index = changelog.read_newest_index()
    with connection.cursor() as cursor:
        cursor.execute(FIND, {"namespace": namespace, "service_name": service_name, "instance_id": instance_id})
        rows = cursor.fetchall()
    if len(rows) > 1:
        named = ("namespace", "service_name", "instance_id")
        raise AmbiguousInstance([{name: document[name] for name in named} for _owners, document, *_ in rows])
    if not rows:
        raise explain_missing(namespace, service_name, instance_id)
    return FoundInstance(index, *rows[0])


def explain_missing(namespace: str, service_name: str | None, instance_id: str) -> ServiceNotFound | InstanceNotFound:
    if service_name is None:
        return InstanceNotFound("never_registered")
    if not Service.objects.filter(namespace=namespace, name=service_name).exists():
        return ServiceNotFound()
    (last,) = changelog.read_last_lifecycle_kinds([(namespace, service_name, instance_id)])
    return InstanceNotFound.after(last)
